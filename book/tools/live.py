"""Serve the steering panel with a kernel behind it: `python -m book.tools.live --profile tiny --port 8000`.

Voila (book/tools/live_server.py) starts a kernel for a reader who opens the page, and runs there the cells of
`06a_steering_panel` up to the panel. They use the dictionary of the profile's build, or else a small one that is
trained before the page is served.
"""

import argparse
import logging
import signal
import sys
from contextlib import chdir
from pathlib import Path

import nbformat
import papermill
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from papermill.exceptions import PapermillExecutionError
from papermill.translators import PythonTranslator

from book.tools import supervised
from book.tools.option_types import check_port, whole
from book.tools.profiles import Profile

NOTEBOOK = "06a_steering_panel"
PANEL = "fig-steering-panel"  # name of the figure in the notebook
LIVE = {"stored": [0, 0, 0]}  # with a kernel no stored answers are needed
QUIET = "%%capture\n"
ABOUT = """# Steering panel

Choose a picture and features, move them, and read what the embedded LLaVA then says of the picture."""


def _is_panel(cell: nbformat.NotebookNode) -> bool:
    return cell.metadata.get("mystnb", {}).get("figure", {}).get("name") == PANEL


def live_notebook(source: nbformat.NotebookNode, parameters: dict) -> nbformat.NotebookNode:
    """The notebook's code cells with these parameters, up to its panel, with all output but the panel hidden."""
    code = [cell for cell in source.cells if cell.cell_type == "code"]
    defaults = next(i for i, cell in enumerate(code) if "parameters" in cell.metadata.get("tags", []))
    panel = next(i for i, cell in enumerate(code) if _is_panel(cell))
    values = new_code_cell(PythonTranslator.codify({**parameters, **LIVE}))  # values are data: none of them runs
    before = [*code[: defaults + 1], values, *code[defaults + 1 : panel]]
    quiet = [new_code_cell(QUIET + cell.source) for cell in before]
    return new_notebook(cells=[new_markdown_cell(ABOUT), *quiet, code[panel]], metadata=source.metadata)


def prepare(profile: Profile) -> Path:
    """Write the notebook that Voila runs and make what it needs; returns its path."""
    built = profile.executed(NOTEBOOK).is_file()
    folder = profile.root / "build" / (profile.name if built else "live")
    parameters = {**(profile.parameters(NOTEBOOK) if built else {}), "profile_dir": str(folder)}
    served = profile.root / "build" / "live" / f"{NOTEBOOK}.ipynb"
    served.parent.mkdir(parents=True, exist_ok=True)
    source = nbformat.read(profile.notebook(NOTEBOOK), as_version=4)
    shown = live_notebook(source, parameters)
    nbformat.write(shown, served)
    if not built and not (folder / "llava").is_dir():
        print(f"The profile {profile.name} has not been built: making a small dictionary first (a minute, once) ...")
    print("Trying the notebook before it is served ...", flush=True)
    with chdir(served.parent):
        papermill.execute_notebook(_without_capture(shown), None, cwd=".", progress_bar=True)
    return served


def _without_capture(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without `%%capture`, which hides errors, so that later cells fail with another one."""
    cells = [{**cell, "source": cell.source.removeprefix(QUIET)} for cell in notebook.cells]
    return nbformat.from_dict({**notebook, "cells": cells})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="tiny")
    parser.add_argument("--port", type=whole, default=8000)
    options = parser.parse_args()
    logging.getLogger("papermill").setLevel(logging.ERROR)
    try:
        check_port(options.port)
        profile = Profile(options.profile)
        profile.check()
        served = prepare(profile)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except PapermillExecutionError as error:
        print(f"error: the panel's notebook failed with {error.ename}: {error.evalue}", file=sys.stderr)
        return 1
    print(f"The steering panel is on http://127.0.0.1:{options.port} - end with Ctrl-C", flush=True)
    try:
        return supervised.run([sys.executable, "-m", "book.tools.live_server", str(served), f"--port={options.port}"])
    except supervised.Terminated as ended:
        return 0 if ended.signal == signal.SIGINT else 128 + ended.signal


if __name__ == "__main__":
    sys.exit(main())
