"""Limit what notebooks use at once: each waits until its cores, memory and GPUs are free.

Snakemake schedules resources too, but since 9.10 it releases more than it reserved (its issue 3913) and starts too much
at once; versions with the fix conflict with our other packages (`packaging` 26). A running notebook holds a locked
file with what it uses; the system releases the lock when the process ends, however it ends.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POLL = 0.2  # seconds between looks
LIMITS = "MV_BUILD_LIMITS"  # environment variable of a build, JSON: {"cores": 2, "mem_mb": 8000, "gpu": 1}


@contextmanager
def reserved(wanted: dict[str, float], folder: Path) -> Iterator[None]:
    """Reserve these resources while the block runs; waits, first come first served, until they are free.

    Does nothing outside a build, where LIMITS is not set. A request above a limit is reduced to it.
    """
    if LIMITS not in os.environ:
        yield
        return
    limits = json.loads(os.environ[LIMITS])
    wanted = {name: min(number, limits[name]) for name, number in wanted.items()}
    folder.mkdir(parents=True, exist_ok=True)
    own = folder / f"{os.getpid()}.json"
    with (folder / "queue").open("w") as queue:
        fcntl.flock(queue, fcntl.LOCK_EX)
        while not _fits(wanted, _used(folder), limits):
            time.sleep(POLL)
        held = own.open("w")
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write(json.dumps(wanted))
        held.flush()
    try:
        yield
    finally:
        own.unlink()
        held.close()


def _fits(wanted: dict, used: dict, limits: dict) -> bool:
    return all(used.get(name, 0) + number <= limits[name] for name, number in wanted.items())


def _used(folder: Path) -> dict[str, float]:
    """Resources that running notebooks hold, summed; files of processes that have ended are deleted."""
    used: dict[str, float] = {}
    for file in folder.glob("*.json"):
        try:
            with file.open() as other:
                fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
            file.unlink()
        except FileNotFoundError:
            continue  # it has just ended
        except BlockingIOError:
            for name, number in json.loads(file.read_text()).items():
                used[name] = used.get(name, 0) + number
    return used
