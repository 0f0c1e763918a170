"""`python -m storage verify FOLDER` reads the artifacts below a folder and says which are damaged."""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from storage.digests import check_digest_file, check_file, check_files
from storage.files import read_json
from storage.places import maker_of
from storage.writing import checked_meta

_ASIDE = re.compile(r"(?P<name>.+)\.(?P<mark>[0-9a-f]{16}|damaged)(-\d+)?")


class Found(NamedTuple):
    """An artifact: path below the folder, name of the function that made it, state, bytes, and a note."""

    path: str
    made_by: str
    state: str
    size: int
    note: str = ""


def artifacts_below(root: Path) -> Iterator[Found]:
    """Every folder with a meta.json or safetensors, and every file of results; all bytes are read."""
    named = {path.parent for path in root.rglob("meta.json")}
    loose = {path.parent for path in root.rglob("*.safetensors")} - named
    inside_others = {folder for folder in loose if folder.parent in named}  # checkpoints
    for folder in sorted(named | loose - inside_others):
        yield _found(folder, root)
    for path in sorted(root.rglob("results/*.json")):
        state, note = _state(lambda path=path: (check_digest_file(path), read_json(path), ("sound", ""))[-1])
        yield Found(str(path.relative_to(root)), "notebook", state, path.stat().st_size, note)


def _found(folder: Path, root: Path) -> Found:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    made_by = "?"

    def look() -> tuple[str, str]:
        nonlocal made_by
        meta = checked_meta(folder) or {}
        made_by = str(maker_of(meta) or "?")
        check_files(folder, meta)
        for path in sorted(folder.rglob("*.safetensors")):
            check_file(path)
        if meta and not meta.get("complete"):
            return "unfinished", "resumes when the same is run again"
        if aside := _ASIDE.fullmatch(folder.name):
            return "kept", f"of another spec than {aside['name']}; delete it if it is not needed"
        return "sound", "" if "digests" in meta else "of an earlier version, or saved by hand"

    state, note = _state(look)
    return Found(str(folder.relative_to(root)), made_by, state, size, note)


def _state(look) -> tuple[str, str]:
    try:
        return look()
    except (OSError, ValueError) as error:
        return "DAMAGED", str(error)


def verify(root: Path) -> int:
    """Print the artifacts below a folder as a table; return 1 where one is damaged, 2 for no folder, else 0."""
    if not root.is_dir():
        print(f"error: there is no folder {root}", file=sys.stderr)
        return 2
    rows = list(artifacts_below(root))
    width = max((len(row.path) for row in rows), default=0)
    for row in rows:
        print(
            f"{row.path:<{width}}  {row.made_by:<12}  {row.state:<10}  {row.size / 1e6:>10,.1f} MB  {row.note}".rstrip()
        )
    damaged, kept = (sum(row.state == state for row in rows) for state in ("DAMAGED", "kept"))
    size = sum(row.size for row in rows if row.state == "kept") / 1e6
    print(f"{len(rows)} artifacts, {damaged} damaged, {kept} kept of another spec ({size:,.1f} MB).")
    return 1 if damaged else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m storage", description=__doc__)
    parser.add_argument("command", choices=["verify"])
    parser.add_argument("folder", type=Path)
    return verify(parser.parse_args(arguments).folder)


if __name__ == "__main__":
    sys.exit(main())
