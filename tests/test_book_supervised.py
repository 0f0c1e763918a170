"""Nothing of a build stays at work when the build has ended, and its lock is taken for as long as anything does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

LEASHED = """
import sys
from book.tools import supervised

with open("lock", "w") as lock:
    import fcntl
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        sys.exit(supervised.run([sys.executable, "-c", open("tree.py").read()], held=lock))
    except supervised.Terminated as ended:
        sys.exit(128 + ended.signal)
"""
TREE = """
import os, signal, subprocess, sys, time
stubborn = "import signal, time; [signal.signal(s, signal.SIG_IGN) for s in (1, 2, 15)]; time.sleep(600)"
here = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])]
here += [subprocess.Popen([sys.executable, "-c", stubborn], start_new_session=True)]  # as kernels are
orphaning = '''import subprocess, sys
sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
print(subprocess.Popen(sleeper, stdout=subprocess.DEVNULL).pid)'''
orphan = subprocess.run([sys.executable, "-c", orphaning], stdout=subprocess.PIPE, text=True).stdout.strip()
open("pids.part", "w").write("\\n".join([str(os.getpid()), *(str(one.pid) for one in here), orphan]))
os.rename("pids.part", "pids")
time.sleep(600)
"""


@pytest.fixture
def supervised_tree(tmp_path, root):
    """A process that runs, supervised, one with a child, one that ignores signals, and an orphan; their numbers."""
    (tmp_path / "tree.py").write_text(TREE)
    environment = os.environ | {"PYTHONPATH": str(root)}
    top = subprocess.Popen([sys.executable, "-c", LEASHED], cwd=tmp_path, env=environment)
    pids = tmp_path / "pids"
    try:
        wait_until(pids.is_file)
        below = psutil.Process(top.pid).children(recursive=True)
        yield top, below, [psutil.Process(int(pid)) for pid in pids.read_text().split()]
    finally:
        top.kill()  # the supervisor ends the others
        top.wait()


def wait_until(holds, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def at_work(processes) -> list[psutil.Process]:
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def lock_is_free(folder: Path) -> bool:
    taking = "import fcntl; fcntl.flock(open('lock', 'a'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    return subprocess.run([sys.executable, "-c", taking], cwd=folder, stderr=subprocess.DEVNULL).returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux only")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_a_signal_to_the_top_process_ends_all_and_frees_the_lock_after_the_last(supervised_tree, tmp_path, number):
    top, _, started = supervised_tree
    assert len(at_work(started)) == 4
    assert not lock_is_free(tmp_path)
    top.send_signal(number)
    wait_until(lambda: lock_is_free(tmp_path))
    assert at_work(started) == []
    assert top.wait() == (-number if number == signal.SIGKILL else 128 + number)


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux only")
def test_killing_the_supervisor_ends_all_too(supervised_tree, tmp_path):
    top, below, started = supervised_tree
    supervisor = next(one for one in below if "book.tools.supervised" in one.cmdline())
    supervisor.kill()
    assert top.wait(timeout=60) != 0
    assert at_work(started) == []
    assert lock_is_free(tmp_path)


def test_the_status_is_that_of_the_command(tmp_path, root):
    (tmp_path / "tree.py").write_text("import sys; sys.exit(7)")
    environment = os.environ | {"PYTHONPATH": str(root)}
    assert subprocess.run([sys.executable, "-c", LEASHED], cwd=tmp_path, env=environment).returncode == 7
