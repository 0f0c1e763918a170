"""The process that Jupyter takes for a kernel: it asks `warm_kernels` for one, and starts a kernel itself otherwise.

Only modules that start at once are imported here.
"""

import json
import os
import signal
import socket
import sys
from contextlib import suppress

PATIENCE = 20.0  # seconds; Jupyter waits 60 for a kernel, and the first one here for packages to be imported


def ask(connection: socket.socket) -> int | None:
    """The process of the kernel that was forked for this one; None where this one is to be it."""
    connection.settimeout(PATIENCE)
    connection.connect(os.environ["MV_WARM_KERNELS"])
    request = {"arguments": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd()}
    socket.send_fds(connection, [json.dumps(request).encode()], [0, 1, 2])
    return json.loads(connection.recv(1 << 12))


def follow(kernel: int, connection: socket.socket) -> int:
    """Pass signals on to the kernel until it ends, and note its memory; its exit status."""

    def pass_on(number: int, frame) -> None:
        with suppress(ProcessLookupError):
            os.kill(kernel, number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    parent, message = os.getppid(), None
    connection.settimeout(1.0)
    while message is None and os.getppid() == parent:  # as ipykernel does: no kernel outlives who started it
        with suppress(TimeoutError):
            message = connection.recv(1 << 12)
    code, kilobytes = json.loads(message) if message else (1, 0)  # none: the server or the parent has ended
    if "MV_KERNEL_MEMORY" in os.environ:
        with open(os.environ["MV_KERNEL_MEMORY"], "w") as file:
            file.write(str(kilobytes))
    return code


def main() -> None:
    kernel = None
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        with suppress(OSError, ValueError, KeyError):
            kernel = ask(connection)
        if kernel is not None:
            code = follow(kernel, connection)
            if code < 0:
                with suppress(OSError):  # SIGKILL has no handler
                    signal.signal(-code, signal.SIG_DFL)
                os.kill(os.getpid(), -code)
            sys.exit(code)
    os.execv(sys.executable, [sys.executable, "-m", "ipykernel_launcher", *sys.argv[1:]])


if __name__ == "__main__":
    main()
