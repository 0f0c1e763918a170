"""Run a command whose Jupyter kernels are forks of one process that has imported the heavy packages already.

`python -m book.tools.warm_kernels COMMAND` (Linux; elsewhere kernels start as ever). The command finds a kernel
specification whose process, `kernel_client.py`, asks here for a kernel, passes signals on to it and ends as it ends.
The packages are imported for the first kernel. A client whose environment has other values of variables that packages
read when they are imported starts a kernel of its own instead.
"""

import atexit
import gc
import importlib
import json
import os
import re
import select
import shutil
import signal
import socket
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen

ADDRESS = "MV_WARM_KERNELS"
"""Environment variable: the socket where kernels are asked for."""
MEMORY = "MV_KERNEL_MEMORY"
"""Environment variable: the file into which a client writes the largest resident memory of its kernel, in kB."""
PACKAGES = (
    "PIL.Image", "open_clip", "pandas", "pandas.io.formats.style", "scipy.optimize",
    "scipy.sparse.csgraph", "scipy.stats", "sklearn.linear_model", "sklearn.metrics", "torch._dynamo", "torchvision",
    "transformers", "transformers.models.clip.modeling_clip", "transformers.models.llama.modeling_llama",
)  # fmt: skip
"""What takes long to import, where the project imports it: nothing that asks at import whether it is in a notebook."""
ASK_FOR_A_NOTEBOOK = ("tqdm.auto", "tqdm.autonotebook")  # imported by those above; a kernel imports them anew
READ_AT_IMPORT = ("CUDA_", "HF_", "KMP_", "LD_", "OPENBLAS_", "PYTHON", "PYTORCH_", "TORCH", "TQDM_", "TRANSFORMERS_")
"""Beginnings of the names of variables that packages read when they are imported; numbers of threads are set later."""
QUIET = {"TQDM_MININTERVAL": "10", "TRANSFORMERS_VERBOSITY": "error"}
"""For kernels: progress every ten seconds, and no report of a checkpoint's weights beside its image tower."""
CLIENT = Path(__file__).with_name("kernel_client.py")
LONGEST_ADDRESS = 100  # bytes of a socket's path; systems allow 104 or 108


@dataclass
class Server:
    """Forks kernels for a command's clients. env: the environment of the command; kernels: connections by process."""

    listener: socket.socket
    env: Mapping[str, str]
    kernels: dict[int, socket.socket] = field(default_factory=dict)
    imported: bool = False

    def serve(self, command: int, wakeup: socket.socket) -> int:
        """Serve until the process `command` ends; its exit status. Kernels that are left are killed."""
        try:
            while True:
                ready, _, _ = select.select([self.listener, wakeup], [], [])
                if wakeup in ready:
                    wakeup.recv(1 << 12)
                    status = self._reap(command)
                    if status is not None:
                        return status
                if self.listener in ready:
                    self._answer(self.listener.accept()[0])
        finally:
            for kernel in self.kernels:
                with suppress(ProcessLookupError):
                    os.killpg(kernel, signal.SIGKILL)

    def _answer(self, connection: socket.socket) -> None:
        """Fork a kernel for a client, or tell it to start its own. Returns in the parent alone."""
        try:
            message, streams, *_ = socket.recv_fds(connection, 1 << 20, 3)
            request = json.loads(message)
        except (OSError, ValueError):  # a client that was killed before it had asked
            connection.close()
            return
        kernel = None
        if fits(request["env"], self.env):
            if not self.imported:
                import_packages()
                self.imported = True
            kernel = None if has_gone(connection) else fork()
            if kernel == 0:
                for other in (self.listener, *self.kernels.values()):
                    other.close()
                become_kernel(request, streams, connection)
        for stream in streams:
            os.close(stream)
        with suppress(OSError):
            connection.send(json.dumps(kernel).encode())
        if kernel is None:
            connection.close()
        else:
            self.kernels[kernel] = connection

    def _reap(self, command: int) -> int | None:
        """Tell clients of kernels that have ended; the exit status of the command if it has ended."""
        while True:
            try:
                process, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return None
            if process == 0:
                return None
            code = os.waitstatus_to_exitcode(status)
            if process == command:
                return code
            if process in self.kernels:
                with suppress(OSError), self.kernels.pop(process) as connection:
                    connection.send(json.dumps([code, usage.ru_maxrss]).encode())


def has_gone(connection: socket.socket) -> bool:
    """Whether a client has lost its patience."""
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def fits(wanted: Mapping[str, str], here: Mapping[str, str]) -> bool:
    """Whether packages imported in one environment are as they would be in the other."""

    def read(env: Mapping[str, str]) -> dict[str, str]:
        names = [name for name in env if name.startswith(READ_AT_IMPORT) and not name.endswith("_NUM_THREADS")]
        return {name: env[name] for name in names}

    return read(wanted) == read(here)


def import_packages() -> None:
    """Import what kernels need; what cannot be imported fails in the notebook that wants it."""
    importlib.import_module("ipykernel.kernelapp")
    wanted = imported_below(Path())
    for name in PACKAGES:
        if name.partition(".")[0] in wanted:
            with suppress(Exception):
                importlib.import_module(name)
    for name in ASK_FOR_A_NOTEBOOK:
        sys.modules.pop(name, None)
    gc.collect()
    gc.freeze()  # or a collection in a kernel would copy every page


def imported_below(folder: Path) -> set[str]:
    """The packages that the modules in the folders of a folder import, by their first names."""
    sources = (path.read_text(errors="replace") for path in folder.glob("[!.]*/**/*.py"))
    return {name for text in sources for name in re.findall(r"^ *(?:import|from) (\w+)", text, flags=re.MULTILINE)}


def fork() -> int | None:
    """A fork's process number, 0 in the fork; None where an import has started a GPU, which no fork may use."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return None
    sys.stdout.flush()
    sys.stderr.flush()
    return os.fork()


def become_kernel(request: dict, streams: list[int], connection: socket.socket) -> None:
    """Be the kernel of a client, in a fork of the server; ends the process."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        for stream, number in zip(streams, range(3), strict=True):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        parent = os.environ.get("JPY_PARENT_PID", "0")  # ipykernel read it when it was imported
        sys.argv = ["ipykernel_launcher", *request["arguments"], f"--IPKernelApp.parent_handle={parent}"]
        del sys.path[0]  # this program's folder, put there by `python -m`
        set_threads()
        threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
        from ipykernel import kernelapp

        kernelapp.launch_new_instance()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def set_threads() -> None:
    """Give the libraries that are loaded the number of threads of the environment, which they read when loaded."""
    if torch := sys.modules.get("torch"):
        import threadpoolctl

        number = int(os.environ.get("OMP_NUM_THREADS") or torch.get_num_threads())
        torch.set_num_threads(number)
        threadpoolctl.threadpool_limits(number)


def _end_with(connection: socket.socket) -> None:
    """End this process and those it has started when its client has ended."""
    with suppress(OSError):
        connection.recv(1)
    os.killpg(0, signal.SIGKILL)


def main(command: list[str]) -> int:
    os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})
    folder = Path(tempfile.mkdtemp(prefix="warm-kernels-"))
    address = folder / "socket"
    try:
        if sys.platform != "linux" or len(os.fsencode(address)) > LONGEST_ADDRESS:
            os.execvp(command[0], command)
        kernel = folder / "kernels" / "python3"
        kernel.mkdir(parents=True)
        argv = [sys.executable, str(CLIENT), "-f", "{connection_file}"]
        spec = {"argv": argv, "display_name": "Python 3", "language": "python"}
        (kernel / "kernel.json").write_text(json.dumps(spec))
        env = os.environ | {ADDRESS: str(address)}
        env["JUPYTER_PATH"] = os.pathsep.join(filter(None, [str(folder), env.get("JUPYTER_PATH")]))
        return _run(command, address, env)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(command: list[str], address: Path, env: Mapping[str, str]) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(address))
        listener.listen(64)
        mine, woken = socket.socketpair()
        woken.setblocking(False)
        signal.set_wakeup_fd(woken.fileno())
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        process = Popen(command, env=env).pid
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, frame: os.kill(process, number))
        os.environ["OPENBLAS_NUM_THREADS"] = "1"  # no threads before a fork; `set_threads` gives a kernel its own
        try:
            return Server(listener, env).serve(process, mine)
        finally:
            signal.set_wakeup_fd(-1)


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.exit(status if status >= 0 else 128 - status)
