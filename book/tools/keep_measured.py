"""Store the claims of a run on photographs for the scoreboard: `python -m book.tools.keep_measured NAME FOLDER`.

FOLDER holds `results/`, as `book.tools.run --to FOLDER` leaves it. Its claims go to assets/measured/NAME.json with
the commit, the date and the processor, and with what you say of encoder and pictures and of the command.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from book.tools.profiles import NAME
from experiments.claims import intervals_in, load_claims
from storage import replacing

ROOT = Path(__file__).resolve().parents[2]


def collected(results: Path, known: set[str]) -> dict[str, dict]:
    """`claims` and `claim_nulls` of all results, of known claim ids. Raises ValueError where there is none."""
    found: dict[str, dict] = {"claims": {}, "claim_nulls": {}}
    for file in sorted(results.glob("*.json")):
        for some, intervals in zip(found.values(), intervals_in(file), strict=True):
            some |= {name: interval.claim() for name, interval in intervals.items() if name in known}
    if not found["claims"]:
        raise ValueError(f"{results} holds no results with claims: run a chapter with --to first.")
    return found


def commit(root: Path = ROOT) -> str:
    """The commit that is checked out, with a suffix for local changes. Raises ValueError outside git."""
    found = subprocess.run(["git", "-C", root, "describe", "--always", "--dirty"], capture_output=True, text=True)
    if found.returncode:
        raise ValueError(f"{root} is not a git checkout, so there is no commit to record.")
    return found.stdout.strip()


def keep(path: Path, head: dict[str, str], found: dict[str, dict]) -> None:
    """Write head and claims with date and hardware as readable JSON."""
    where = {"date": str(date.today()), "hardware": f"{platform.machine()}, {os.cpu_count()} cores"}
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(head | where | found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m book.tools.keep_measured", description=__doc__.splitlines()[0])
    parser.add_argument("name", help="of the file in assets/measured")
    parser.add_argument("folder", type=Path, help="what --to named")
    parser.add_argument("--about", required=True, help="encoder, judge and pictures, in a sentence")
    parser.add_argument("--command", required=True, help="the command, paths of your machine left out")
    options = parser.parse_args(arguments)
    try:
        if not NAME.fullmatch(options.name):
            raise ValueError(f"{options.name!r} is no name of a file: use letters, digits, dots, - and _ only.")
        found = collected(options.folder / "results", {claim.id for claim in load_claims(ROOT / "book/claims.yaml")})
        path = ROOT / "assets" / "measured" / f"{options.name}.json"
        keep(path, {"about": options.about, "command": options.command, "commit": commit()}, found)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"Kept {len(found['claims'])} claims in {path.relative_to(ROOT)}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
