"""A small book: the real tools over three notebooks of its own, with what takes long replaced by stubs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

KERNEL = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
PARAMETERS = 'n: int = 3  # a number\nprofile_dir: str = "../build/x"  # where artifacts are kept'


def notebook(*sources: str) -> nbformat.NotebookNode:
    cells = [new_markdown_cell("# A title"), new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})]
    return new_notebook(cells=[*cells, *map(new_code_cell, sources)], metadata=KERNEL)


STUBS = {
    "run_notebook": "build/{sys.argv[3]}/notebooks/{sys.argv[1]}.ipynb",
    "cover": "{sys.argv[1]}",
    "vendor": "{sys.argv[1]}/plotly.min.js",
    "render": "build/site/index.html",
}
STUB = """import sys
import time
from pathlib import Path
target = Path(f"{target}")
target.parent.mkdir(parents=True, exist_ok=True)
target.write_text(str(time.time_ns()))
with open("ran.txt", "a") as log:
    print(target.stem, file=log)
"""
PUBLISH = """
from book.tools.profiles import Profile
from book.tools.site import publish, stamp_of
profile, html = Profile(sys.argv[2]), Path(sys.argv[3].removeprefix("--out="))
publish(target.parent, html, stamp_of(profile, html))
"""


def write_stub(project: Path, name: str) -> None:
    """Replace a tool by one that touches what it would make and notes that it ran."""
    stub = STUB.replace("{target}", STUBS[name]) + (PUBLISH if name == "render" else "")
    (project / "book" / "tools" / f"{name}.py").write_text(stub)


def write_profile(project: Path, entries: dict, name: str = "tiny", **keys) -> None:
    (project / "profiles").mkdir(exist_ok=True)
    (project / "profiles" / f"{name}.yaml").write_text(yaml.safe_dump({**keys, "notebooks": entries}))


def tool(project: Path, *command: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(project)}
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=project, env=environment, capture_output=True, text=True
    )


def lay_out(project: Path, root: Path) -> None:
    """The tool chain with three notebooks of its own: `b` and `c` use modules, `c` waits for `b`."""
    for name in ("book", "menagerie", "experiments"):
        shutil.copytree(root / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "_config.yml", "_toc.yml", "package.json", "package-lock.json", "constraints.txt"):
        shutil.copy(root / name, project / name)
    (project / "lib").mkdir()
    (project / "lib" / "__init__.py").write_text("")
    (project / "lib" / "one.py").write_text("ONE = 1\n")
    (project / "lib" / "two.py").write_text("from lib.one import ONE\n")
    (project / "notebooks").mkdir()
    sources = {"a": "print(n)", "b": "from lib.one import ONE", "c": "from lib.two import ONE"}
    for name, source in sources.items():
        nbformat.write(notebook(source), project / "notebooks" / f"{name}.ipynb")
    write_profile(project, {"a": {}, "b": {}, "c": {"after": ["b"]}})
