"""Render the book: `python -m book.tools.render --profile tiny --out build/html`.

Prose, executed notebooks, generated pages and vendored scripts meet in a stage folder under `build`, jupyter-book
renders that folder with warnings as errors, and the finished site takes the old one's place in one step.
"""

import argparse
import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

from book.tools.profiles import Profile
from book.tools.status import status_page

PLOTLY_SCRIPT = '<script src="../_static/vendor/plotly.min.js"></script>\n'


def prepare_notebook(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """What a static page needs: plotly's script, once and only where it is used; alt texts; no progress bars."""
    script = PLOTLY_SCRIPT
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        cell.outputs = [output for output in cell.outputs if not is_progress_bar(output)]
        for output in cell.outputs:
            fragment = output.get("data", {}).get("text/html", "")
            if "plotly-graph-div" in fragment:
                opening = f'<div class="book-plot" role="img" aria-label="{html.escape(alt, quote=True)}">'
                output.data["text/html"] = f"{script}{opening}{fragment}</div>"
                script = ""
    return notebook


def is_progress_bar(output: nbformat.NotebookNode) -> bool:
    """Whether an output is nothing but what tqdm drew for those who waited."""
    if output.output_type != "stream" or output.name != "stderr":
        return False
    lines = [line for line in re.split(r"[\r\n]+", output.text) if line.strip("\x1b[A ")]
    return all(re.search(r"\d+%\||\d+it \[|\[\d\d:\d\d", line) for line in lines)


def stage(profile: Profile, folder: Path) -> Path:
    """Lay out everything jupyter-book reads."""
    root, build = profile.root, profile.root / "build" / profile.name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(root / "book", folder / "book", ignore=shutil.ignore_patterns("tools", "__pycache__"))
    shutil.copytree(root / "build" / "vendor", folder / "book" / "_static" / "vendor")
    shutil.copyfile(build / "cover.webp", folder / "book" / "_static" / "cover.webp")
    for name in ("_config.yml", "_toc.yml"):
        shutil.copyfile(root / name, folder / name)
    (folder / "notebooks").mkdir()
    executed = {name: nbformat.read(build / "notebooks" / f"{name}.ipynb", as_version=4) for name in profile.entries}
    for name, notebook in executed.items():
        nbformat.write(prepare_notebook(notebook), folder / "notebooks" / f"{name}.ipynb")
    (folder / "book" / "status.md").write_text(status_page(profile, executed))
    return folder


def render(staged: Path, out: Path) -> None:
    """Run jupyter-book on the stage; on success `out` holds the site, on failure the previous one stays."""
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(staged), "--path-output", str(staged)]
    command += ["--all", "-W", "-n", "--keep-going"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        text = re.sub(r"\x1b\[[\d;]*m", "", result.stdout + result.stderr)
        lines = [line for line in text.splitlines() if line.strip()]
        wrong = [line for line in lines if "WARNING" in line or "ERROR" in line] or lines[-25:]
        raise RuntimeError("the book has warnings:\n" + "\n".join(wrong))
    shutil.rmtree(out, ignore_errors=True)
    (staged / "_build" / "html").rename(out)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="tiny")
    parser.add_argument("--out", type=Path, default=Path("build/html"))
    options = parser.parse_args()
    try:
        staged = stage(Profile(options.profile), Path("build/stage"))
        render(staged, options.out)
    except (ValueError, RuntimeError, json.JSONDecodeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
