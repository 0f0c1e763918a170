"""Execute a notebook's code cells in this process, and look at what they showed."""

import ast
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import papermill
from IPython.core.displayhook import CapturingDisplayHook
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from nbformat import NotebookNode
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from traitlets.config import Config

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


@dataclass(frozen=True)
class Shown:
    """What one cell showed: MIME type -> content; what it printed is `text/plain` too."""

    cell: str
    data: Mapping[str, Any]

    @property
    def text(self) -> str:
        """The richest of its texts, as a reader sees it: HTML of a table, Markdown, or plain text; "" for a figure."""
        if any("plotly" in kind or "widget" in kind for kind in self.data):
            return ""
        return next((self.data[kind] for kind in ("text/html", "text/markdown", "text/plain") if kind in self.data), "")


def parameters(name: str) -> dict[str, Any]:
    """The parameters that a notebook declares, with their defaults."""
    declared = papermill.inspect_notebook(str(NOTEBOOKS / f"{name}.ipynb"))
    return {name: ast.literal_eval(about["default"]) for name, about in declared.items()}


class CellError(AssertionError):
    """A cell raised; the message names the notebook, the cell and what it raised."""


def run_cells(name: str, **given: Any) -> list[Shown]:
    """Run `notebooks/<name>.ipynb` from its own folder with these parameters; return all that its cells showed.

    As with papermill, parameters are injected behind the cell of defaults. Raises ValueError for a parameter that the
    notebook does not have, CellError from the first exception in a cell.
    """
    if unknown := given.keys() - parameters(name).keys():
        raise ValueError(f"{name} has no parameter {', '.join(sorted(unknown))}")
    notebook = parameterize_notebook(load_notebook_node(str(NOTEBOOKS / f"{name}.ipynb")), given)
    shown = []
    with _fresh_shell() as shell, _inside(NOTEBOOKS):
        for cell in notebook.cells:
            if cell.cell_type == "code":
                shown += _run(shell, name, cell)
    return shown


def _run(shell: InteractiveShell, name: str, cell: NotebookNode) -> list[Shown]:
    with capture_output() as captured:
        shell.display_trap.hook = CapturingDisplayHook(shell=shell, outputs=captured._outputs)  # the cell's last value
        result = shell.run_cell(cell.source, silent=False)
    error = result.error_before_exec or result.error_in_exec
    if error is not None:
        raise CellError(f"{name}, cell {cell.get('id')}: {type(error).__name__}: {error}") from error
    printed = [Shown(cell.get("id", ""), {"text/plain": captured.stdout})] if captured.stdout else []
    return printed + [Shown(cell.get("id", ""), output.data) for output in captured.outputs]


@contextmanager
def _fresh_shell() -> Iterator[InteractiveShell]:
    """IPython without history, with nothing in its namespace; another one's state does not reach it."""
    InteractiveShell.clear_instance()
    settings = Config(
        {"HistoryManager": {"enabled": False}, "InteractiveShell": {"xmode": "Plain", "colors": "nocolor"}}
    )
    shell = InteractiveShell.instance(config=settings)
    shell.display_formatter.active_types = shell.display_formatter.format_types
    try:
        yield shell
    finally:
        shell.reset(new_session=False)
        InteractiveShell.clear_instance()


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
