"""Folders of artifacts: one writer at a time, and no artifact is deleted for one of another spec.

A folder `out` holds the artifact that was last finished for it. If that has another spec, finished or not, the new one
is made beside it, in `out.<hash of its spec>`; once complete it is moved to `out`, and the other one to
`out.<its hash>`. When the other spec is requested again, its artifact is completed there and moved back to `out`.
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

from storage.digests import check_file, check_files
from storage.writing import Damaged, checked_meta, flush_to_disk, read_meta, remove, write_meta

T = TypeVar("T")
_CONTENTS = ("meta.json", "config.json", "model.safetensors", "features.safetensors", "shard-*.safetensors")
_ON_THE_WAY = ("metrics.jsonl", "tensorboard", "checkpoint", ".*")  # beside them, and while they are made


@contextmanager
def locked(folders: Iterable[str | os.PathLike], work: str) -> Iterator[None]:
    """Context that holds the locks of artifacts' folders; while another process holds one, it says so and waits.

    Look for the artifact first, and lock only to write, because locks need a writable folder; look again once the lock
    is held, because another process may have made the artifact. A lock ends with its process, however that ends.
    work: what is about to be done, for the message ("train an SAE").
    """
    with ExitStack() as locks:
        for folder in sorted({Path(os.path.realpath(folder)) for folder in folders}):  # in one order, against deadlocks
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
    """Acquire the lock, showing the time spent waiting."""
    with tqdm(desc=sentence, bar_format="{desc} [{elapsed}]", leave=False) as bar:
        while True:
            try:
                lock.acquire(timeout=1)
                return
            except Timeout:
                bar.refresh()


def _beside(out: Path, mark: str) -> Path:
    """An unused path beside `out`, whose name is that of `out` and `mark`."""
    path, i = out.with_name(f"{out.name}.{mark}"), 1
    while path.exists():
        path, i = out.with_name(f"{out.name}.{mark}-{i}"), i + 1
    return path


def is_complete(folder: str | os.PathLike, spec_hash: str) -> bool:
    """Whether the folder holds the finished, undamaged artifact of this spec; damage is named in a warning."""
    meta = read_meta(folder) or {}
    if meta.get("hash") != spec_hash or not meta.get("complete"):
        return False
    try:
        check_files(Path(folder), meta)
    except Damaged as damage:
        warnings.warn(f"{damage}; it is made again.", stacklevel=3)
        return False
    return True


def load_if_complete(folder: str | os.PathLike, spec_hash: str, load: Callable[[Path], T]) -> T | None:
    """The result of `load(folder)` if it holds the finished, undamaged artifact of this spec, else None."""
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
    """The folder in which to make or continue the artifact of this meta.json (`hash`, `made_by`); lock `out` first.

    It holds a meta.json with `"complete": false`, or an earlier one of the same hash. Half-written files of a killed
    process and damaged files of the artifact are removed. Raises ValueError where `out` holds files that `made_by` did
    not make and that would be overwritten or moved.
    """
    out = Path(os.path.realpath(out))
    mine = out.with_name(f"{out.name}.{meta['hash']}")
    for folder in (out, mine):
        _sweep(folder)
        _set_damaged_aside(folder)
    here = read_meta(out)
    _refuse_others(out, here, meta)
    if here is None and mine.is_dir():  # its process was killed just before it moved the folder
        if out.is_dir():
            out.rmdir()
        mine.rename(out)
    place = out if here is None or here.get("hash") == meta["hash"] else mine
    place.mkdir(parents=True, exist_ok=True)
    there = read_meta(place) or {**meta, "complete": False}
    for name, digest in there.get("digests", {}).items():
        try:
            check_file(place / name, digest)
        except Damaged:
            there["complete"] = False
            (place / name).unlink(missing_ok=True)
    if not there.get("complete"):
        write_meta(place, {name: value for name, value in there.items() if name != "digests"})
    return place


@contextmanager
def removed_on_error(place: Path) -> Iterator[None]:
    """Context that removes a claimed folder on an error, if nothing was made in it."""
    try:
        yield
    except BaseException:
        if [path.name for path in place.iterdir()] == ["meta.json"]:
            remove(place)
        raise


def _sweep(folder: Path) -> None:
    """Remove temporary files that killed processes left in a folder and beside it; the lock must be held."""
    inside = folder.rglob(".*.partial") if folder.is_dir() else ()
    beside = (
        left for left in folder.parent.glob(f".{glob.escape(folder.name)}.*.partial")
        if "." not in left.name.removeprefix(f".{folder.name}.").removesuffix(".partial")  # else of a longer name
    )  # fmt: skip
    for left in (*beside, *inside):
        remove(left)


def _set_damaged_aside(folder: Path) -> None:
    """Move away a folder whose meta.json cannot be read, because its content is unknown."""
    try:
        checked_meta(folder)
    except Damaged as damage:
        aside = _beside(folder, "damaged")
        warnings.warn(f"{damage}; what it holds was moved to {aside}.", stacklevel=4)
        folder.rename(aside)


def _refuse_others(out: Path, here: dict | None, meta: dict) -> None:
    """Raises ValueError where `out` holds files that another maker made and that would be overwritten or moved."""
    names = [path.name for path in out.iterdir()] if out.is_dir() else []
    if here is None:
        in_the_way = [name for name in names if any(fnmatch(name, own) for own in _CONTENTS)]
    elif maker_of(here) != meta["made_by"]:
        in_the_way = ["meta.json"]
    elif here.get("hash") != meta["hash"]:  # the folder is to be moved
        in_the_way = [name for name in names if not any(fnmatch(name, own) for own in (*_CONTENTS, *_ON_THE_WAY))]
    else:
        in_the_way = []
    if in_the_way or (out.exists() and not out.is_dir()):
        raise ValueError(
            f"{out} holds another kind of artifact, or files that {meta['made_by']} did not make "
            f"({', '.join(in_the_way[:3]) or 'it is a file'}): name another folder, or empty that one."
        )


def maker_of(meta: dict) -> str | None:
    """Name of the function that made an artifact; for earlier versions, which do not name it, by their entries."""
    if "made_by" in meta or "hash" not in meta:
        return meta.get("made_by")
    marks = {"extract": "geometry" in meta, "FeatureTable": "n_features" in meta, "train_sae": "input_scale" in meta}
    return next((maker for maker, marked in marks.items() if marked), None)


def publish(place: Path, out: str | os.PathLike) -> None:
    """Move the finished artifact in `place` to `out`; an artifact of another spec in `out` is kept beside it."""
    out = Path(os.path.realpath(out))
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
    flush_to_disk(out.parent, deep=False)


def load_or_make(out: Path, head: dict, load: Callable[[Path], T], make: Callable[[Path], T], work: str) -> T:
    """Load the artifact of the spec in `head` from `out` if it is there, else make it there.

    head: first entries of its meta.json, see `meta_head`. make: fills a folder and returns the artifact. work: see
    `locked`.
    """
    found = load_if_complete(out, head["hash"], load)
    if found is not None:
        return found
    with locked([out], work):
        found = load_if_complete(out, head["hash"], load)
        if found is None:
            place = claim(out, head)
            found = load_if_complete(place, head["hash"], load)
            if found is None:
                with removed_on_error(place):
                    found = make(place)
            publish(place, out)
        return found


def folder_name(text: str) -> str:
    """A short name of a folder, unique for the text: up to 40 of its letters and digits, and 8 digits of its hash.

    So "birds/train" and "birds-train" differ, and a text of any length and any characters fits every file system.
    """
    words = re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")
    start = words if len(words) <= 40 else f"{words[:15]}--{words[-23:]}"  # both ends inform: the kind, the last folder
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{start}-{digest}" if start else digest
