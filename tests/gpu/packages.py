"""Install what run.sh needs and the machine lacks into a folder of its own; torch stays the one that is there.

python tests/gpu/packages.py FOLDER [WHEELS]

pip says which packages the project lacks beside this torch; those are installed at the versions that were tested
together (constraints.txt), from the index or from a folder of wheels. Peers come without what they ask for: training
uses little of it.
"""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TORCH = re.compile(r"(torch|torchvision)\b(?!-)")
FOR_TESTS = ("pytest", "pytest-xdist", "papermill", "nbformat", "accelerate", "torchvision")
PEERS = {
    "dictionary_learning": "dictionary-learning",
    "sparsify": "eai-sparsify",
    "einops": "einops",
    "simple_parsing": "simple-parsing",
    "docstring_parser": "docstring-parser",
    "schedulefree": "schedulefree",
    "natsort": "natsort",
}


def main(folder: Path, wheels: str | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    register(project, folder)
    constraints = folder / "constraints.txt"
    constraints.write_text(pins(), "utf-8")
    source = ["--constraint", str(constraints), *(["--no-index", "--find-links", wheels] if wheels else [])]
    needed = [one for one in project["dependencies"] if not TORCH.match(one)]
    report = json.loads(pip("--dry-run", "--report", "-", *source, *needed, *FOR_TESTS))
    missing = [f"{one['metadata']['name']}=={one['metadata']['version']}" for one in report["install"]]
    missing += [package for module, package in PEERS.items() if find_spec(module) is None]
    if missing:
        print("Installing", *missing, flush=True)
        pip("--no-deps", "--target", str(folder), *source, *missing)


def pip(*arguments: str) -> str:
    """What `pip install` prints. Raises SystemExit where it fails: nothing that follows would mean anything."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit("The packages could not be installed: pip says above why.")
    return done.stdout


def pins() -> str:
    """Constraints: torch as it is, torchvision whichever fits it, the rest as tested."""
    tested = [ROOT / "constraints.txt", ROOT / "benchmarks/requirements.txt"]
    lines = [line for path in tested for line in path.read_text("utf-8").splitlines() if not TORCH.match(line)]
    return "\n".join([*lines, f"torch=={version('torch')}"]) + "\n"


def register(project: dict, folder: Path) -> None:
    """Have the clone found with its entry points, as if it were installed: the world registers with lib by them."""
    about = folder / "monosemantic_vision-0.dist-info"
    about.mkdir(exist_ok=True)
    groups = [
        "\n".join([f"[{group}]", *(f"{name} = {value}" for name, value in points.items())])
        for group, points in project["entry-points"].items()
    ]
    (about / "entry_points.txt").write_text("\n".join(groups) + "\n", "utf-8")
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
