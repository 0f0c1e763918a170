"""Join what the steps of run.sh left (NAME.status, NAME.json) into one JSON; exit with 1 where a step failed.

python tests/gpu/summary.py FOLDER RESULT.json SECONDS
"""

import json
import sys
from pathlib import Path

LIMIT = 480
"""Seconds that run.sh may take in all."""


def summary(folder: Path, seconds: int) -> dict:
    """Each step's outcome, seconds, hardware and figures."""
    steps = {}
    for path in sorted(folder.glob("*.status")):
        status, took, limit = map(int, path.read_text().split())
        outcome = {0: "passed", 124: f"stopped after {limit} s", 137: f"killed after {limit} s"}
        steps[path.stem] = {"outcome": outcome.get(status, f"failed with {status}"), "seconds": took}
        figures = path.with_suffix(".json")
        if figures.is_file():
            steps[path.stem] |= json.loads(figures.read_text(encoding="utf-8"))
    return {"seconds": seconds, "limit": LIMIT, "steps": steps}


def main() -> None:
    folder, result, seconds = sys.argv[1:]
    found = summary(Path(folder), int(seconds))
    Path(result).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for name, step in found["steps"].items():
        print(f"{name:<16}{step['outcome']:<24}{step['seconds']:>5} s")
    failed = [name for name, step in found["steps"].items() if step["outcome"] != "passed"]
    print(f"{seconds} s of {LIMIT}; {result}" + (f"; not passed: {', '.join(failed)}" if failed else ""))
    sys.exit(bool(failed) or int(seconds) > LIMIT)


if __name__ == "__main__":
    main()
