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
    """The notebook that a number ("04"), a name or a path means. Raises ValueError where there is none."""
    known = sorted(path.stem for path in (root / "notebooks").glob("*.ipynb"))
    wanted = Path(name).name.removesuffix(".ipynb")
    found = [stem for stem in known if wanted in (stem, stem.partition("_")[0])]
    if not found:
        raise ValueError(f"there is no notebook {name!r}: choose one of {', '.join(known)}.")
    return found[0]


def values(given: list[list[str]], declared: dict[str, Declared]) -> dict:
    """What was given for parameters, by name, as values of the declared types. Raises ValueError, one sentence."""
    for name, _ in given:
        if name not in declared:
            close = get_close_matches(name, declared, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(declared)}."
            raise ValueError(f"the notebook has no parameter {name!r}: {hint}")
    return {name: from_here(read(name, kind_of(declared[name].kind), value)) for name, value in given}


_PATH = re.compile(r"(?P<kind>(?:folder:|hf:)?)(?P<path>[^:\[]+)(?P<rest>.*)", re.DOTALL)


def from_here(value: Any) -> Any:
    """A relative path that leads somewhere from here, made absolute: notebooks run in their folder. Others as given."""
    if isinstance(value, list):
        return [from_here(item) for item in value]
    match = _PATH.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return value
    whole = Path(match["path"] + match["rest"])  # a folder may be called "set[1:2]"
    path, rest = (whole, "") if _leads_somewhere(whole, match["kind"]) else (Path(match["path"]), match["rest"])
    return f"{match['kind']}{path.absolute()}{rest}" if _leads_somewhere(path, match["kind"]) else value


def _leads_somewhere(path: Path, kind: str) -> bool:
    """Whether a path names a file, or a folder: one that is given as such, or with a slash."""
    try:
        return path.is_file() or (path.is_dir() and bool(kind or "/" in str(path)))
    except (OSError, ValueError):  # a prompt is no path: too long, a zero byte
        return False


def folder_of(to: Path) -> Path:
    """The folder for all that a notebook makes. Raises ValueError where sources would be written over."""
    try:
        folder = (ROOT / to.expanduser()).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"--to {str(to)!r} is no path of a folder: {error}") from None
    if (folder / "notebooks").resolve() == ROOT / "notebooks":
        raise ValueError(f"--to {str(to)!r} holds the notebooks' sources, which it would write over: take build/mine")
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m book.tools.run", description=__doc__.splitlines()[0])
    parser.add_argument("notebook", help="number, name or path: 04, 04_monosemanticity")
    parser.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a parameter; lists as 8,16"
    )
    parser.add_argument("--to", type=Path, default=Path("build/mine"), help="folder for all that it makes")
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
