"""What a notebook may use of the machine: it waits until its cores, memory and GPUs are free.

Snakemake shares them out too, but since 9.10 it gives back what it never took (its issue 3913), and then runs too much
at once; the versions that mend it do not go with our other packages (`packaging` 26). A running notebook is a locked
file that tells what it uses; the system frees the lock when the process ends, however it ends.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POLL = 0.2  # seconds between looks
LIMITS = "MV_BUILD_LIMITS"  # environment variable of a build: JSON of the whole, {"cores": 2, "mem_mb": 8000, "gpu": 1}


@contextmanager
def taken(wanted: dict[str, float], folder: Path) -> Iterator[None]:
    """Hold these shares while the block runs; waits, first come first served, until they are free.

    Outside a build, where LIMITS is not set, nothing is shared. Who wants more than the whole gets the whole.
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
    """The sum of what running notebooks hold; the files of those that ended without a word are deleted."""
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
