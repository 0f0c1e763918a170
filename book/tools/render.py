"""Render the book: `python -m book.tools.render --profile tiny --out build/html`.

Prose, executed notebooks, generated pages and vendored scripts meet in a stage folder under `build`, jupyter-book
renders that folder with warnings as errors, and the finished site takes the place of the old one (book/tools/site.py).
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import yaml

from book.tools.page_scripts import NAMED
from book.tools.pages import (
    figures_drawn,
    named_scripts,
    page_not_run,
    page_of_another_profile,
    prepare_notebook,
    without_dangling,
)
from book.tools.profiles import Profile, profiles_of_book
from book.tools.site import check_target, publish, stamp_of
from book.tools.status import status_page

HERE = Path(__file__).resolve().parents[2]  # this repository, for the diagram of its packages
MODEL = Path("assets/tiny/llava")  # which pages run in the reader's browser: widgets/llava_engine.js
MODEL_FILES = ("config.json", "generation_config.json", "model.safetensors", "processor_config.json", "tokenizer.json")


def stage(profiles: list[Profile], folder: Path) -> Path:
    """Write the folder that jupyter-book reads; the first profile is the book's, others add pages to its chapters."""
    main = profiles[0]
    root = main.root
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(root / "book", folder / "book", ignore=shutil.ignore_patterns("tools", "__pycache__"))
    shutil.copytree(root / "build" / "vendor", folder / "book" / "_static" / "vendor")
    shutil.copyfile(root / "build" / main.name / "cover.webp", folder / "book" / "_static" / "cover.webp")
    copy_page_files(profiles, folder / "book" / "_static")
    shutil.copyfile(root / "_config.yml", folder / "_config.yml")
    toc = yaml.safe_load((root / "_toc.yml").read_text())
    executed = {profile.name: _read_executed(profile) for profile in profiles}
    (folder / "book" / "status.md").write_text(status_page(profiles, executed))
    pages = _pages(toc, profiles, executed)
    named = [script for page in pages.values() for script in named_scripts(page)]
    (folder / NAMED).write_text(json.dumps(named))
    (folder / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False))
    _write(folder, pages)
    return folder


def copy_page_files(profiles: list[Profile], static: Path) -> None:
    """Copy files that pages load at reading time into `static`: `page_files` of the profiles, and the model they use.

    Notebooks write to `page_files/NAME` in their profile's folder. Raises ValueError where two profiles use a name.
    """
    root = profiles[0].root
    owner: dict[str, str] = {}
    for profile in profiles:
        for source in sorted((root / "build" / profile.name / "page_files").glob("*")):
            if source.name in owner:
                both = f"{owner[source.name]} and {profile.name}"
                raise ValueError(f"the profiles {both} both write page_files/{source.name}: name one otherwise.")
            owner[source.name] = profile.name
            shutil.copytree(source, static / "page_files" / source.name)
    if owner:
        (static / MODEL.name).mkdir(parents=True)
        for name in MODEL_FILES:
            shutil.copyfile(root / MODEL / name, static / MODEL.name / name)


def _read_executed(profile: Profile) -> dict[str, nbformat.NotebookNode]:
    return {name: nbformat.read(profile.executed(name), as_version=4) for name in profile.entries}


def _pages(toc: dict, profiles: list[Profile], executed: dict) -> dict[str, nbformat.NotebookNode]:
    """The notebooks' pages by name; those of other profiles become sections of their chapter in the contents."""
    main, *others = profiles
    chapters = {
        chapter["file"].removeprefix("notebooks/"): chapter
        for part in toc["parts"]
        for chapter in part["chapters"]
        if chapter["file"].startswith("notebooks/")
    }
    homeless = [(p.name, name) for p in profiles for name in p.entries if name not in chapters]
    if homeless:
        raise ValueError("profiles/{}.yaml runs {}, which _toc.yml does not list: add it there.".format(*homeless[0]))
    pages = {}
    for name, chapter in chapters.items():
        if name in main.entries:
            pages[name] = prepare_notebook(executed[main.name][name])
        else:
            source = nbformat.read(main.notebook(name), as_version=4)
            pages[name] = page_not_run(source, main.name, main.left_out.get(name))
        for other in (other for other in others if name in other.entries):
            page = page_of_another_profile(executed[other.name][name], other.name, other.title)
            pages[f"{name}-{other.name}"] = prepare_notebook(page)
            chapter.setdefault("sections", []).append({"file": f"notebooks/{name}-{other.name}"})
    return pages


def _write(folder: Path, pages: dict[str, nbformat.NotebookNode]) -> None:
    """Write the pages, with references to figures that no page shows replaced."""
    drawn = {figure for page in pages.values() for figure in figures_drawn(page)}
    (folder / "notebooks").mkdir()
    for name, page in pages.items():
        for cell in page.cells:
            if cell.cell_type == "markdown":
                cell.source = without_dangling(cell.source, drawn)
        nbformat.write(page, folder / "notebooks" / f"{name}.ipynb")
    for prose in (folder / "book").glob("*.md"):
        prose.write_text(without_dangling(prose.read_text(), drawn))


def render(staged: Path) -> Path:
    """Run jupyter-book on the stage folder; returns that of the site. Raises RuntimeError for warnings."""
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(staged), "--path-output", str(staged)]
    command += ["--all", "-W", "-n", "--keep-going"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)  # for book/tools/page_policy.py
    if result.returncode:
        text = re.sub(r"\x1b\[[\d;]*m", "", result.stdout + result.stderr)
        lines = [line for line in text.splitlines() if line.strip()]
        wrong = [line for line in lines if "WARNING" in line or "ERROR" in line] or lines[-25:]
        raise RuntimeError("the book has warnings:\n" + "\n".join(wrong))
    return staged / "_build" / "html"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="tiny")
    parser.add_argument("--out", type=Path, default=Path("build/html"))
    options = parser.parse_args()
    try:
        profiles = profiles_of_book(options.profile)
        check_target(options.out, profiles[0].root, [profile.name for profile in profiles])
        rendered = render(stage(profiles, Path("build/stage")))
        check_target(options.out, profiles[0].root, [profile.name for profile in profiles])  # it took a while
        publish(rendered, options.out, stamp_of(profiles[0], options.out))
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
