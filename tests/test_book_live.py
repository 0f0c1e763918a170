"""What `make live` serves of the panel's notebook."""

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from book.tools.live import NOTEBOOK, live_notebook

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def served():
    figure = {"mystnb": {"figure": {"name": "fig-steering-panel"}}}
    cells = [
        new_markdown_cell("# A chapter"),
        new_code_cell("steps: int = 1", metadata={"tags": ["parameters"]}),
        new_code_cell("print(steps)"),
        new_code_cell("panel", metadata=figure),
        new_code_cell("plot()"),
    ]
    return live_notebook(new_notebook(cells=cells), {"steps": 7}).cells


def test_it_ends_with_the_panel_and_shows_nothing_else(served):
    assert served[-1].source == "panel"
    assert all(cell.source.startswith("%%capture\n") for cell in served[1:-1])
    assert [cell.cell_type for cell in served].count("markdown") == 1


def test_its_parameters_follow_the_defaults_and_it_stores_no_answers(served):
    assert served[1].source == "%%capture\nsteps: int = 1"
    assert "steps = 7" in served[2].source
    assert "stored = [0, 0, 0]" in served[2].source


def test_the_chapter_has_a_panel_to_serve():
    source = nbformat.read(ROOT / "notebooks" / f"{NOTEBOOK}.ipynb", as_version=4)
    panel = live_notebook(source, {}).cells[-1].source
    assert "SteeringPanel(" in panel
    assert "print(" not in panel
