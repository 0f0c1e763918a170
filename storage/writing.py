"""Atomic, durable writing of files and folders, and `meta.json`, which describes the artifact in a folder."""

import errno
import glob
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from storage.files import inside


class Damaged(ValueError):
    """A file of an artifact is missing, or its bytes are not those that were written."""


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary sibling of `path`, to be written as a file or made a folder, then rename it to `path`.

    It is on the disk (fsync) before it is renamed. On any error the temporary is removed and `path` is unchanged; a
    full disk raises OSError (ENOSPC) in one sentence. Raises ValueError rather than replace a folder that is not empty
    and holds no artifact (no `meta.json`).
    """
    path = Path(path)
    mark = f"{os.getpid()}-{threading.get_ident()}"
    _recover(path, mark)
    temporary, replaced = (path.with_name(f".{path.name}.{mark}.{end}") for end in ("partial", "replaced"))
    try:
        with naming_a_full_disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            if path.is_dir() and read_meta(path) is None and any(path.iterdir()):
                raise ValueError(f"{path} holds files that are no artifact: name another folder, or empty that one.")
            flush_to_disk(temporary)
            if temporary.is_dir() and path.exists():
                path.rename(replaced)  # a folder cannot be renamed over one that is not empty
            temporary.replace(path)
            remove(replaced)
            flush_to_disk(path.parent, deep=False)
    except BaseException:
        remove(temporary)
        raise


@contextmanager
def naming_a_full_disk(path: str | os.PathLike) -> Iterator[None]:
    """Context in which the error of a full disk names the file; other errors are unchanged."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        sentence = f"No space left on the disk while writing {path}; free some and run again."
        raise OSError(error.errno, sentence) from error


def _recover(path: Path, mark: str) -> None:
    """Remove the temporaries of killed processes for `path`; restore a folder that was killed between two renames."""
    for left in sorted(path.parent.glob(f".{glob.escape(path.name)}.*")):
        writer, _, end = left.name.removeprefix(f".{path.name}.").partition(".")
        if end not in ("partial", "replaced") or (writer != mark and _is_running(writer.partition("-")[0])):
            continue
        if end == "replaced" and not path.exists():
            left.rename(path)
        else:
            remove(left)


def _is_running(pid: str) -> bool:
    """Whether a process of this id runs; True for text that is no process id."""
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (ValueError, PermissionError, OverflowError):
        return True
    return True


def flush_to_disk(path: Path, deep: bool = True) -> None:
    """Flush a file, or a folder and all its content, to the disk (fsync)."""
    for inner in sorted(path.iterdir()) if deep and path.is_dir() else ():
        flush_to_disk(inner)
    with suppress(PermissionError):  # Windows opens no folders
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:  # file systems without fsync of a folder
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
                raise
        finally:
            os.close(handle)


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with its content; do nothing for a missing path."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_meta(folder: str | os.PathLike) -> dict | None:
    """The folder's `meta.json`; None where it is missing or damaged, so that the artifact has to be made again."""
    try:
        return checked_meta(folder)
    except Damaged:
        return None


def checked_meta(folder: str | os.PathLike) -> dict | None:
    """The folder's `meta.json`, None where it is missing. Raises Damaged where it is not as it was written."""
    path = Path(folder) / "meta.json"
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        digest = meta.pop("digest", None)
        known = digest is None or digest == _meta_digest(meta)  # one without was written by an earlier version
        if known and _names_files(meta.get("digests", {}), path.parent):
            return meta
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, AttributeError, TypeError, RecursionError):  # no UTF-8, no JSON, no object
        pass
    raise Damaged(f"{path} is damaged, its content is not what was written: make the artifact in {folder} again")


def _names_files(digests: object, folder: Path) -> bool:
    """Whether these are digests by the name of a file in the folder; ValueError for a name that leads out of it."""
    return isinstance(digests, dict) and all(
        inside(folder, name) and isinstance(digest, str | None) for name, digest in digests.items()
    )


def write_meta(folder: str | os.PathLike, meta: dict) -> None:
    """Write the folder's `meta.json` atomically; the last step of a complete artifact (`"complete": true`)."""
    meta = {name: value for name, value in meta.items() if name != "digest"}
    with replacing(Path(folder) / "meta.json") as temporary:
        text = json.dumps({**meta, "digest": _meta_digest(meta)}, indent=1, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def _meta_digest(meta: dict) -> str:
    """SHA-256 of a meta.json's content as canonical JSON."""
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()
