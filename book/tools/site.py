"""Replace the folder of the rendered book without losing files that the book did not write.

A rendered book holds a marker, `.monosemantic-book.json`, with an id and its files' digests. A folder is replaced only
if it has a marker and neither other nor changed files; the new book is complete next to it before.
"""

import hashlib
import json
import os
import secrets
import shutil
import zlib
from collections.abc import Iterable
from pathlib import Path

from book.tools.profiles import Profile

MARKER = ".monosemantic-book.json"


def check_target(html: Path, root: Path, profiles: Iterable[str]) -> None:
    """Raise ValueError for a folder whose replacement would lose files that the book did not write.

    First completes what an interrupted `publish` left.
    """
    target, build = _target(html), root.resolve() / "build"
    precious = {"this checkout": root.resolve(), "your home": Path.home().resolve()}
    precious |= {f"build/{name}, where things are made": build / name for name in ("stage", "vendor", *profiles)}
    for what, folder in precious.items():
        if folder.is_relative_to(target):
            raise ValueError(f"HTML={html} is {what}, or holds it: name a folder for the rendered book alone.")
    recover(html)
    if target.is_relative_to(build / "stage"):
        raise ValueError(f"HTML={html} is in build/stage, which each build empties: name another folder.")
    if target.exists() and not target.is_dir():
        raise ValueError(f"HTML={html} is a file: name a folder for the rendered book.")
    own = (_marker(target) or {"files": {}})["files"]
    if foreign := sorted(name for name in _files(target) - {MARKER} if not _is_own(target, name, own)):
        first = os.fsencode(foreign[0]).decode("utf-8", "replace")
        others = f" and {len(foreign) - 1:,} more" if len(foreign) > 1 else ""
        raise ValueError(
            f"HTML={html} holds {first}{others}, which this book did not write: move that away, or name another folder."
        )


def stamp_of(profile: Profile, html: Path) -> Path:
    """The stamp file, for Snakemake, that `html` holds the profile's book; deleted where that is no longer so."""
    target = html.expanduser().resolve()
    where = target.relative_to(profile.root) if target.is_relative_to(profile.root) else target
    stamp = profile.root / "build" / profile.name / f"rendered-{zlib.crc32(os.fsencode(where)):08x}"
    marker = _marker(target)
    if stamp.is_file() and (marker is None or marker["id"] != stamp.read_text()):
        stamp.unlink()
    return stamp


def publish(rendered: Path, html: Path, stamp: Path) -> None:
    """Move the rendered folder to `html`; the old book is removed once the new one is complete next to it."""
    target = html.expanduser().resolve()
    new, old = _beside(target, "new"), _beside(target, "old")
    recover(html)
    target.parent.mkdir(parents=True, exist_ok=True)
    marker = {
        "id": secrets.token_hex(8),
        "files": {name: _digest(rendered / name) for name in sorted(_files(rendered))},
    }
    (rendered / MARKER).write_text(json.dumps(marker, indent=0) + "\n")
    try:
        os.rename(rendered, new)
    except OSError:  # another file system
        shutil.copytree(rendered, new)
        shutil.rmtree(rendered)
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(marker["id"])


def _target(html: Path) -> Path:
    """The absolute folder of the book. Raises ValueError for an invalid path."""
    try:
        target = html.expanduser().resolve()
        target.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"HTML={str(html)[:200]!r} is not a valid folder: {error}") from None
    return target


def recover(html: Path) -> None:
    """Complete an interrupted `publish`: restore the old book where there is none, and remove temporary folders."""
    target = html.expanduser().resolve()
    new, old = _beside(target, "new"), _beside(target, "old")
    if old.is_dir() and not target.exists():
        old.rename(target)
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)


def _beside(target: Path, what: str) -> Path:
    return target.with_name(f".{target.name}.{what}-monosemantic-book")


def _files(folder: Path) -> set[str]:
    """Relative paths of all files, links and empty folders below a folder."""
    found = set()
    for here, folders, files in os.walk(folder, onerror=_unless_missing):
        names = [*files, *(name for name in folders if Path(here, name).is_symlink())]
        if not names and not folders and here != str(folder):
            names = [""]
        found |= {Path(here, name).relative_to(folder).as_posix() for name in names}
    return found


def _digest(path: Path) -> str:
    """SHA-256 of a file; "" for a link or an empty folder."""
    if path.is_symlink() or not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_own(folder: Path, name: str, files: dict[str, str] | list[str]) -> bool:
    """Whether a file is as the book wrote it; earlier markers list names alone."""
    return name in files and (isinstance(files, list) or files[name] == _digest(folder / name))


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _marker(folder: Path) -> dict | None:
    try:
        marker = json.loads((folder / MARKER).read_text())
        names = isinstance(marker["files"], list | dict) and all(isinstance(name, str) for name in marker["files"])
        return marker if isinstance(marker["id"], str) and names else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
