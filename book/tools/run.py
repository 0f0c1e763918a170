"""Run one notebook with parameters of your own: `python -m book.tools.run 04 -p expansions 8,16 -p steps 1e3`.

The notebook is named by its number or its name. Values are read by the types that its parameters cell declares, and an
unknown name is an error. The executed copy, results and artifacts are kept in one folder, build/mine unless said.
"""

import argparse
import os
import re
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from book.tools.parameters_cell import Declared, declared_parameters
from book.tools.run_notebook import Job, reported
from experiments.parameters import kind_of, read

ROOT = Path(__file__).resolve().parents[2]


def named(name: str, root: Path = ROOT) -> str:
    """The name of the notebook with this number ("04"), name or path. Raises ValueError for an unknown one."""
    known = sorted(path.stem for path in (root / "notebooks").glob("*.ipynb"))
    wanted = Path(name).name.removesuffix(".ipynb")
    found = [stem for stem in known if wanted in (stem, stem.partition("_")[0])]
    if not found:
        raise ValueError(f"there is no notebook {name!r}: choose one of {', '.join(known)}.")
    return found[0]


def values(given: list[list[str]], declared: dict[str, Declared]) -> dict:
    """Parameters given as (name, text), converted to their declared types. Raises ValueError, one sentence."""
    for name, _ in given:
        if name not in declared:
            close = get_close_matches(name, declared, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(declared)}."
            raise ValueError(f"the notebook has no parameter {name!r}: {hint}")
    kinds = {name: kind_of(declared[name].kind) for name, _ in given}
    found = {name: read(name, kinds[name], value) for name, value in given}
    return {name: absolute_paths(value) if kinds[name] in (str, list[str]) else value for name, value in found.items()}


_KINDS = re.compile(r"(?:folder:|hf:|open_clip:(?:[\w-]+/)?)?")
_ENDS = re.compile(r"[:\[]|$")  # where a path may end: before a split or a slice


def absolute_paths(value: Any) -> Any:
    """Make relative paths that exist absolute, also in specs and lists, because notebooks run in another folder."""
    if isinstance(value, list):
        return [absolute_paths(item) for item in value]
    if not isinstance(value, str):
        return value
    longest = _KINDS.match(value).group()
    for kind in dict.fromkeys((longest[: longest.find(":") + 1], longest)):  # open_clip:FOLDER, open_clip:ARCH/FILE
        text = value.removeprefix(kind)
        for end in sorted({found.start() for found in _ENDS.finditer(text)} - {0}, reverse=True):
            if _exists(Path(text[:end]), named=kind.endswith(":")):  # a folder may be called "set[1:2]"
                return f"{kind}{Path(text[:end]).absolute()}{text[end:]}"
    return value


def _exists(path: Path, named: bool) -> bool:
    """Whether a path exists and is meant as one: it follows a spec's colon (`named`), or has a slash or suffix."""
    try:
        return (path.is_dir() and (named or "/" in str(path))) or (
            path.is_file() and (named or path.suffix != "" or "/" in str(path))
        )
    except (OSError, ValueError):  # a prompt is no path: too long, a zero byte
        return False


def folder_of(to: Path) -> Path:
    """The absolute folder for outputs. Raises ValueError where it would overwrite the notebooks' sources."""
    try:
        folder = to.expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"--to {str(to)!r} is not a valid folder: {error}") from None
    if (folder / "notebooks").resolve() == ROOT / "notebooks":
        raise ValueError(
            f"--to {str(to)!r} holds the notebooks' sources, which would be overwritten: choose build/mine"
        )
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m book.tools.run", description=__doc__.splitlines()[0])
    parser.add_argument("notebook", help="number, name or path: 04, 04_monosemanticity")
    parser.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a parameter; lists as 8,16"
    )
    parser.add_argument(
        "--to", type=Path, default=ROOT / "build" / "mine", help="folder for the executed notebook and its artifacts"
    )
    parser.add_argument("--list", action="store_true", help="show the parameters and run nothing")
    options = parser.parse_args()
    try:
        name = named(options.notebook)
        declared = declared_parameters(ROOT / "notebooks" / f"{name}.ipynb")
        if options.list:
            for parameter, about in declared.items():
                print(f"{parameter}: {about.kind} = {about.default}\n    {about.help}")
            return 0
        folder = folder_of(options.to)
        given = {"profile_dir": os.path.relpath(folder, ROOT / "notebooks"), **values(options.p, declared)}
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    job = Job(ROOT, name, given, Path(os.path.relpath(folder, ROOT)), os.cpu_count() or 1)
    status = reported(job, {})
    if status == 0:
        print(f"The executed notebook is {folder / 'notebooks' / name}.ipynb, the artifacts are in {folder}.")
    return status


if __name__ == "__main__":
    sys.exit(main())
