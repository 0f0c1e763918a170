"""Kill a build, or the run of one notebook, and see what it leaves."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil

from tests.small_book import tool


def killed_and_finished(project: Path, number: signal.Signals, after: float) -> bool:
    """Build, send the signal `after` seconds behind the first notebook's start, build again; whether it came in time.

    Asserts that once the lock is free nothing of the first build is at work, and that the second one ends whole.
    """
    before = beside(project)
    (project / "build").mkdir(exist_ok=True)
    first = started(project, "book.tools.build", "--cores", "2")
    while first.poll() is None and not list(project.glob("build/tiny/logs/*.log")):
        time.sleep(0.1)  # the first notebook begins
    in_time = killed(first, number, after)
    wait_for_lock(project)
    assert beside(project) == before
    second = tool(project, "book.tools.build", "--cores", "2")
    assert second.returncode == 0, second.stdout + second.stderr
    for name in "abc":
        assert not nbformat.read(
            project / f"build/tiny/notebooks/{name}.ipynb", as_version=4
        ).metadata.papermill.exception
    assert (project / "build" / "html" / "index.html").is_file()
    return in_time


def started(project: Path, *command: str) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(project)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, "-m", *command], cwd=project, env=environment, **quiet)


def killed(process: subprocess.Popen, number: signal.Signals, after: float) -> bool:
    """Whether the signal came before the process ended by itself."""
    try:
        process.wait(timeout=after)
        return False
    except subprocess.TimeoutExpired:
        process.send_signal(number)
        process.wait()
        return True


def wait_for_lock(project: Path, patience: float = 120) -> None:
    """Until the build's lock can be taken."""
    taking = "import fcntl; fcntl.flock(open('build/.lock', 'a'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    end = time.monotonic() + patience
    while subprocess.run([sys.executable, "-c", taking], cwd=project, stderr=subprocess.DEVNULL).returncode:
        assert time.monotonic() < end, "the lock of a killed build stays taken"
        time.sleep(0.1)


def beside(project: Path) -> set[int]:
    """Processes that work in the project's folder."""
    found = set()
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(project):
                found.add(process.pid)
        except (psutil.Error, OSError):
            continue
    return found
