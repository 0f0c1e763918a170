"""Where artifacts lie: one writer at a time, and nothing makes room for another spec.

A folder `out` holds the artifact that was last finished for it. Where one of another spec lies there, finished or not,
the new one is made beside it, in `out.<hash of its spec>`; once whole it takes `out`, and the other one moves to
`out.<its hash>`. Asked for again, that one is found there, goes on where it was, and takes `out` back.
"""

import glob
import hashlib
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout
from tqdm import tqdm

from lib.artifacts.digests import check_file, check_files
from lib.artifacts.writing import Damaged, reach_disk, read_meta, remove, sound_meta, write_meta

T = TypeVar("T")
_CONTENTS = ("meta.json", "config.json", "model.safetensors", "features.safetensors", "shard-*.safetensors")
_ON_THE_WAY = ("metrics.jsonl", "tensorboard", "checkpoint", ".*")  # beside them, and while they are made


@contextmanager
def alone(folders: Iterable[str | os.PathLike], work: str) -> Iterator[None]:
    """Hold the locks of these artifacts' folders; where another process holds one, say so and wait.

    Look first, and take locks only to write: they need a folder that may be written to. After the wait look again, for
    the other process may have made the artifact. A lock ends with its process, however that ends.
    work: what is about to be done, for the message ("train an SAE").
    """
    with ExitStack() as locks:
        for folder in sorted({Path(os.path.abspath(folder)) for folder in folders}):  # so that two never wait in a ring
            locks.enter_context(_lock(folder, work))
        yield


@contextmanager
def _lock(folder: Path, work: str) -> Iterator[None]:
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        _wait(lock, f"waiting to {work} until another process is done with {folder}")
    except OSError as error:
        sentence = f"cannot {work} in {folder}: the folder around it may not be written to ({error.strerror})"
        raise OSError(error.errno, sentence) from error
    try:
        yield
    finally:
        lock.release()


def _wait(lock: FileLock, sentence: str) -> None:
    """Acquire the lock, showing for how long it has been waited for."""
    with tqdm(desc=sentence, bar_format="{desc} [{elapsed}]", leave=False) as bar:
        while True:
            try:
                lock.acquire(timeout=1)
                return
            except Timeout:
                bar.refresh()


def _beside(out: Path, mark: str) -> Path:
    """A free name beside `out`."""
    path, i = out.with_name(f"{out.name}.{mark}"), 1
    while path.exists():
        path, i = out.with_name(f"{out.name}.{mark}-{i}"), i + 1
    return path


def is_complete(folder: str | os.PathLike, spec_hash: str) -> bool:
    """Whether the folder holds the finished artifact of this spec, undamaged; damage is named in a warning."""
    meta = read_meta(folder) or {}
    if meta.get("hash") != spec_hash or not meta.get("complete"):
        return False
    try:
        check_files(Path(folder), meta)
    except Damaged as damage:
        warnings.warn(f"{damage}; it is made again.", stacklevel=3)
        return False
    return True


def opened(folder: str | os.PathLike, spec_hash: str, load: Callable[[Path], T]) -> T | None:
    """What `load` reads of the folder where it holds the finished, undamaged artifact of this spec, else None."""
    folder = Path(folder)
    if not is_complete(folder, spec_hash):
        return None
    try:
        found = load(folder)
    except (OSError, ValueError):
        if is_complete(folder, spec_hash):
            raise
        return None
    return found if is_complete(folder, spec_hash) else None  # another process may have moved it meanwhile


def claim(out: str | os.PathLike, meta: dict) -> Path:
    """The folder in which to make, or to go on making, the artifact of this meta.json (`hash`, `made_by`), by `alone`.

    It holds a meta.json with `"complete": false`, or an earlier one of the same hash. What a killed process left
    half-written is removed, and so are damaged files of the artifact. Raises ValueError where `out` holds what
    `made_by` did not make, and would be written over or moved.
    """
    out = Path(os.path.abspath(out))
    mine = out.with_name(f"{out.name}.{meta['hash']}")
    for folder in (out, mine):
        _sweep(folder)
        _set_damaged_aside(folder)
    here = read_meta(out)
    _refuse_others(out, here, meta)
    if here is None and mine.is_dir():  # its process was killed when it was about to move it
        if out.is_dir():
            out.rmdir()
        mine.rename(out)
    place = out if here is None or here["hash"] == meta["hash"] else mine
    place.mkdir(parents=True, exist_ok=True)
    there = read_meta(place) or {**meta, "complete": False}
    for name, digest in there.get("digests", {}).items():
        try:
            check_file(place / name, digest)
        except Damaged:
            there["complete"] = False
            (place / name).unlink(missing_ok=True)
    if not there["complete"]:
        write_meta(place, {name: value for name, value in there.items() if name != "digests"})
    return place


@contextmanager
def discarding(place: Path) -> Iterator[None]:
    """On an error, give up a place that was claimed and in which nothing was made."""
    try:
        yield
    except BaseException:
        if [path.name for path in place.iterdir()] == ["meta.json"]:
            remove(place)
        raise


def _sweep(folder: Path) -> None:
    """Remove what was being written there when its process died; for the holder of the lock."""
    inside = folder.rglob(".*.partial") if folder.is_dir() else ()
    for left in (*folder.parent.glob(f".{glob.escape(folder.name)}.*.partial"), *inside):
        remove(left)


def _set_damaged_aside(folder: Path) -> None:
    """Move a folder away whose meta.json cannot be read, for nobody can tell what it holds."""
    try:
        sound_meta(folder)
    except Damaged as damage:
        aside = _beside(folder, "damaged")
        warnings.warn(f"{damage}; what it holds was moved to {aside}.", stacklevel=4)
        folder.rename(aside)


def _refuse_others(out: Path, here: dict | None, meta: dict) -> None:
    """Raises ValueError where `out` holds what the maker of this meta.json did not make, and it would be in the way."""
    names = [path.name for path in out.iterdir()] if out.is_dir() else []
    if here is None:
        in_the_way = [name for name in names if any(fnmatch(name, own) for own in _CONTENTS)]
    elif maker_of(here) != meta["made_by"]:
        in_the_way = ["meta.json"]
    elif here["hash"] != meta["hash"]:  # the folder is to be moved
        in_the_way = [name for name in names if not any(fnmatch(name, own) for own in (*_CONTENTS, *_ON_THE_WAY))]
    else:
        in_the_way = []
    if in_the_way or (out.exists() and not out.is_dir()):
        raise ValueError(
            f"{out} holds another kind of artifact, or files that {meta['made_by']} did not make "
            f"({', '.join(in_the_way[:3]) or 'it is a file'}): name another folder, or empty that one."
        )


def maker_of(meta: dict) -> str | None:
    """Who made an artifact; earlier versions did not say it."""
    if "made_by" in meta or "hash" not in meta:
        return meta.get("made_by")
    marks = {"extract": "geometry" in meta, "FeatureTable": "n_features" in meta, "train_sae": "input_scale" in meta}
    return next((maker for maker, marked in marks.items() if marked), None)


def publish(place: Path, out: str | os.PathLike) -> None:
    """Let the finished artifact in `place` take `out`; one of another spec that lies there is kept beside it."""
    out = Path(os.path.abspath(out))
    if place == out:
        return
    if out.exists():
        aside = _beside(out, (read_meta(out) or {}).get("hash", "old"))
        out.rename(aside)
        warnings.warn(
            f"{out} now holds the artifact of another spec; the one that was there was kept as {aside.name}.",
            stacklevel=3,
        )
    place.rename(out)
    reach_disk(out.parent, deep=False)


def folder_name(text: str) -> str:
    """A short name for a folder that no other text has: at most 40 letters and digits of it, and 8 digits of its hash.

    So "birds/train" and "birds-train" part ways, and a spec of any length and any signs fits into every file system.
    """
    words = re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")
    start = words if len(words) <= 40 else f"{words[:15]}--{words[-23:]}"  # both ends tell: the kind, the last folder
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{start}-{digest}" if start else digest
