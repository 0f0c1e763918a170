"""Kernels that are forks of one process: what they share, what is their own, and that none outlives its client."""

import json
import os
import signal
import socket
import subprocess
import sys

import psutil
import pytest

from book.tools import kernel_client
from book.tools.warm_kernels import ADDRESS, MEMORY, fits, has_gone

WARM = [sys.executable, "-m", "book.tools.warm_kernels"]
ASKED = """
import json, os, sys, threading
ready = "torch" in sys.modules
import numpy, threadpoolctl, torch
print(json.dumps({
    "forked": ready, "parent": os.getppid(), "threads": torch.get_num_threads(), "cwd": os.getcwd(),
    "blas": [pool["num_threads"] for pool in threadpoolctl.threadpool_info()], "own": os.environ["OWN"],
    "main": sys.modules["__main__"].__dict__ is globals(), "path": sys.path[0], "left": "rest" in globals(),
}))
rest = bytearray(300 << 20)
"""
KERNELS = f"""
import json, os, sys, time
from jupyter_client.manager import start_new_kernel

def kernel(**env):
    return start_new_kernel(kernel_name="python3", env=os.environ | env, cwd=env.get("CWD", "."))

def said(client, code):
    lines = []
    client.execute_interactive(code, output_hook=lambda m: lines.append(m["content"].get("text", "")))
    return "".join(lines)

def asked(**env):
    manager, client = kernel(**env)
    answer = json.loads(said(client, {ASKED!r}))
    manager.shutdown_kernel()
    return answer

for _ in range(10):  # on a slow machine the first ones do not wait until the packages are imported
    if asked(OWN="")["forked"]:
        break
found = {{name: asked(**env) for name, env in json.loads(sys.argv[1]).items()}}
manager, client = kernel()
asleep = client.execute("import time; time.sleep(600)", stop_on_error=False)
time.sleep(1)
manager.interrupt_kernel()
while (reply := client.get_shell_msg(timeout=60))["parent_header"].get("msg_id") != asleep:
    pass
found["interrupted by"] = reply["content"].get("ename")
client.execute("import os; os._exit(7)")
found["died with"] = manager.provisioner.process.wait(60)
print(json.dumps(found))
sys.exit(5)
"""


@pytest.fixture(scope="module")
def found(root, tmp_path_factory):
    """What kernels of one server say of themselves, by what is special about their environment."""
    folder = tmp_path_factory.mktemp("kernels")
    asked = {
        "first": {"OWN": "a", "OMP_NUM_THREADS": "1", MEMORY: str(folder / "memory")},
        "second": {"OWN": "b", "OMP_NUM_THREADS": "2", "CWD": str(folder)},
        "other packages' settings": {"OWN": "c", "OMP_NUM_THREADS": "1", "HF_HOME": str(folder)},
        "no server": {"OWN": "d", "OMP_NUM_THREADS": "1", "MV_WARM_KERNELS": str(folder / "none")},
    }
    command = [*WARM, sys.executable, "-c", KERNELS, json.dumps(asked)]
    ran = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=280)
    assert ran.returncode == 5, ran.stderr[-3000:]
    lines = json.loads(ran.stdout.splitlines()[-1])
    return lines | {"memory": int((folder / "memory").read_text()), "folder": str(folder)}


linux = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux alone")


@linux
def test_kernels_are_forks_of_one_process_that_has_imported_torch(found):
    first, second = found["first"], found["second"]
    assert (first["forked"], second["forked"]) == (True, True)
    assert first["parent"] == second["parent"]


@linux
def test_each_has_its_own_environment_folder_threads_and_names(found):
    first, second = found["first"], found["second"]
    assert (first["own"], second["own"]) == ("a", "b")
    assert (first["threads"], second["threads"]) == (1, 2)
    assert (set(first["blas"]), set(second["blas"])) == ({1}, {2})
    assert second["cwd"] == os.path.realpath(found["folder"]) != first["cwd"]
    assert (first["main"], second["left"]) == (True, False)


@linux
def test_a_fork_begins_where_a_fresh_kernel_would(found):
    fresh = found["no server"]
    for name in ("threads", "main", "path"):
        assert found["first"][name] == fresh[name], name
    assert set(found["first"]["blas"]) == set(fresh["blas"])


def test_a_kernel_is_fresh_where_packages_would_have_read_another_environment_or_there_is_no_server(found):
    assert not found["other packages' settings"]["forked"]
    assert not found["no server"]["forked"]


def test_a_kernel_can_be_interrupted_and_its_death_is_seen(found):
    assert found["interrupted by"] == "KeyboardInterrupt"
    assert found["died with"] == 7


@linux
def test_its_memory_is_noted(found):
    assert 300 << 10 < found["memory"] < 3000 << 10


def test_what_packages_read_at_import_must_be_equal_and_the_rest_may_differ():
    here = {"HF_HOME": "a", "OMP_NUM_THREADS": "2", "OWN": "x"}
    assert fits(here | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OWN": "y", "NEW": ""}, here)
    assert not fits(here | {"HF_HOME": "b"}, here)
    assert not fits({}, here)
    assert not fits(here | {"PYTHONPATH": "/elsewhere"}, here)


@linux
def test_a_client_that_waits_too_long_starts_its_own_kernel_and_leaves_no_other(tmp_path, monkeypatch):
    """A server that is importing for longer than a client waits finds that it has gone."""
    monkeypatch.setattr(kernel_client, "PATIENCE", 0.2)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen(1)
        monkeypatch.setenv(ADDRESS, str(tmp_path / "socket"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            with pytest.raises(TimeoutError):
                kernel_client.ask(client)
            connection, _ = listener.accept()
            assert not has_gone(connection)  # its request is there to be read
            connection.recv(1 << 20)
            assert not has_gone(connection)
        assert has_gone(connection)
        connection.close()


HANGING = """
from jupyter_client.manager import start_new_kernel

manager, client = start_new_kernel(kernel_name="python3")
while client.execute_interactive("import sys; assert len(sys.argv[0]) < 20")["content"]["status"] == "error":
    manager.shutdown_kernel()  # it did not wait until the packages were imported
    manager, client = start_new_kernel(kernel_name="python3")
show = lambda message: print(message["content"].get("text", ""), end="", flush=True)
code = "import os, subprocess; print(os.getpid(), subprocess.Popen(['sleep', '600']).pid, flush=True)"
client.execute_interactive(code, output_hook=show)
client.execute_interactive("import time; time.sleep(600)")
"""


@linux
@pytest.mark.parametrize("victim", ["client", "server"])
def test_no_kernel_outlives_its_client(victim, root):
    top = subprocess.Popen([*WARM, sys.executable, "-c", HANGING], cwd=root, stdout=subprocess.PIPE, text=True)
    kernel, child = (psutil.Process(int(number)) for number in top.stdout.readline().split())
    server = psutil.Process(top.pid)
    (command,) = [one for one in server.children() if one != kernel]
    (client,) = [one for one in command.children() if "kernel_client" in str(one.cmdline())]
    assert kernel.parent() == server
    if victim == "server":
        top.terminate()  # the server passes it on to its command
    else:
        client.kill()
    try:
        assert not psutil.wait_procs([kernel, child], timeout=30)[1]
        if victim == "server":
            assert top.wait(30) == 128 + signal.SIGTERM
    finally:
        for one in (command, server):
            if one.is_running():
                one.kill()
        top.wait()


def test_without_an_environment_of_its_own_a_command_gives_its_status(root):
    assert subprocess.run([*WARM, sys.executable, "-c", "raise SystemExit(3)"], cwd=root).returncode == 3
