"""Run a command so that none of its processes outlives this one, however this one ends.

A supervisor, `python -m book.tools.supervised COMMAND`, stands between this process and the command. It reads a pipe
that only this process can write to: when the pipe is closed, by a signal or by SIGKILL, it ends the command and all its
descendants, and only then exits. It inherits what `held` names, so a lock stays held until the last process has ended.
On Linux orphans become children of the supervisor (PR_SET_CHILD_SUBREAPER), and of this process if that is killed.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

import psutil

PATIENCE = 5.0  # seconds between asking a process to end and ending it
_PR_SET_CHILD_SUBREAPER = 36
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Terminated(BaseException):
    """A signal asked this process to end; `signal` is its number."""

    def __init__(self, number: int):
        super().__init__(f"ended by signal {number}")
        self.signal = number


def run(command: list[str], held: IO | None = None, stderr: IO | None = None) -> int:
    """The command's exit status; raises `Terminated` where a signal came first, when all that was started has gone."""
    adopt_orphans()
    reading, writing = os.pipe()
    supervisor = None
    try:
        with raising_ended():
            supervisor = subprocess.Popen(
                [sys.executable, "-m", "book.tools.supervised", str(reading), *command],
                pass_fds=(reading, *([held.fileno()] if held else [])),
                stdin=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,  # Ctrl-C reaches this process, which then ends the others
            )
            return supervisor.wait()
    finally:
        os.close(writing)
        os.close(reading)
        if supervisor is not None:
            supervisor.wait()
        end_children()  # none, unless someone killed the supervisor


def keep(pipe: int, command: list[str]) -> int:
    """What the supervisor does: run the command, and leave nothing of it behind. Its exit status."""
    adopt_orphans()
    threading.Thread(target=_end_with, args=(pipe,), daemon=True).start()
    child = subprocess.Popen(command)
    try:
        with raising_ended():
            return child.wait()
    except Terminated as ended:
        child.send_signal(signal.SIGINT)  # Snakemake then takes its jobs out of a cluster's queue
        return 128 + ended.signal
    finally:
        end_children()


def _end_with(pipe: int) -> None:
    """Wait until the pipe is closed at its other end, then ask this process to end."""
    os.read(pipe, 1)
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def raising_ended() -> Iterator[None]:
    """Raise `Terminated` in this block on SIGTERM, SIGINT and SIGHUP, the first of them; later ones change nothing."""

    def end(number: int, frame) -> None:
        for other in _ENDING:
            signal.signal(other, signal.SIG_IGN)
        raise Terminated(number)

    before = {number: signal.signal(number, end) for number in _ENDING}
    try:
        yield
    except Terminated:
        raise
    else:
        for number, handler in before.items():
            signal.signal(number, handler)


def adopt_orphans() -> None:
    """Become, on Linux, the parent of descendants whose own parent ends; elsewhere do nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_children() -> None:
    """End all descendants of this process: ask, wait a little, then kill; again until there is none."""
    kill = False
    while victims := psutil.Process().children(recursive=True):
        for victim in victims:
            with suppress(psutil.NoSuchProcess):
                victim.kill() if kill else victim.terminate()
        psutil.wait_procs(victims, timeout=PATIENCE)
        kill = True


if __name__ == "__main__":
    sys.exit(keep(int(sys.argv[1]), sys.argv[2:]))
