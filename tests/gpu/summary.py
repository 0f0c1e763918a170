"""Join what the steps of run.sh left (NAME.status, NAME.json) into one JSON; exit with 1 where a step failed.

python tests/gpu/summary.py FOLDER RESULT.json SECONDS LIMIT
"""

import json
import sys
from pathlib import Path


def summary(folder: Path, seconds: int, limit: int) -> dict:
    """Each step's outcome, seconds, hardware and figures; seconds and limit of all of them."""
    steps = {}
    for path in sorted(folder.glob("*.status")):
        status, took, allowed = map(int, path.read_text().split())
        outcome = {0: "passed", 124: f"stopped after {allowed} s", 137: f"killed after {allowed} s"}
        steps[path.stem] = {"outcome": outcome.get(status, f"failed with {status}"), "seconds": took}
        figures = path.with_suffix(".json")
        if figures.is_file():
            steps[path.stem] |= json.loads(figures.read_text(encoding="utf-8"))
    return {"seconds": seconds, "limit": limit, "steps": steps}


def main() -> None:
    folder, result, seconds, limit = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    found = summary(folder, seconds, limit)
    result.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for name, step in found["steps"].items():
        print(f"{name:<16}{step['outcome']:<24}{step['seconds']:>5} s")
    failed = [name for name, step in found["steps"].items() if step["outcome"] != "passed"]
    print(f"{seconds} s of {limit}; {result}" + (f"; not passed: {', '.join(failed)}" if failed else ""))
    sys.exit(bool(failed) or seconds > limit)


if __name__ == "__main__":
    main()
