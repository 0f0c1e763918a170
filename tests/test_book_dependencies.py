"""A notebook runs again for exactly those files that its result can depend on."""

import json
from pathlib import Path

import pytest

from book.tools.dependencies import Graph

NOTEBOOKS = sorted(path.stem for path in (Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.fixture
def project(tmp_path):
    """A small `lib` and a way to ask what a cell of code depends on."""
    modules = {
        "__init__.py": "_HOME = {'load': 'lib.data'}\ndef __getattr__(name): ...",
        "data.py": "import numpy",
        "models.py": "def late():\n    from lib.towers import Tower",
        "towers.py": "",
        "metrics/__init__.py": "from lib.metrics.score import score",
        "metrics/score.py": "from . import columns",
        "metrics/columns.py": "",
        "metrics/unused.py": "",
        "widgets/__init__.py": "",
        "widgets/explorer.py": "from pathlib import Path\nSCRIPT = Path(__file__).parent / 'explorer.js'",
        "widgets/explorer.js": "",
        "widgets/panel.js": "",
    }
    for name, text in modules.items():
        (tmp_path / "lib" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lib" / name).write_text(text)

    def depends(code: str) -> set[str]:
        notebook = tmp_path / "notebook.ipynb"
        notebook.write_text(json.dumps({"cells": [{"cell_type": "code", "source": [code]}]}))
        return {file.removeprefix("lib/") for file in Graph(tmp_path).of_notebook(notebook)}

    return depends


def test_only_the_package_itself_for_a_bare_import(project):
    assert project("import lib\nimport numpy") == {"__init__.py"}


def test_a_module_and_what_it_imports_inside_functions(project):
    assert project("from lib.models import late") == {"__init__.py", "models.py", "towers.py"}


def test_a_package_with_what_its_init_imports_and_no_more(project):
    assert project("from lib import metrics") == {
        "__init__.py", "metrics/__init__.py", "metrics/score.py", "metrics/columns.py",
    }  # fmt: skip


def test_a_lazy_export_is_followed_to_its_home(project):
    assert project("from lib import load") == {"__init__.py", "data.py"}
    assert project("import lib\nlib.load('x')") == {"__init__.py", "data.py"}


def test_the_scripts_that_a_module_names_and_not_those_of_its_neighbours(project):
    assert project("import lib.widgets.explorer") == {
        "__init__.py", "widgets/__init__.py", "widgets/explorer.py", "widgets/explorer.js",
    }  # fmt: skip


def test_magics_are_not_python_and_are_passed_over(project):
    assert project("%load_ext tensorboard\n!ls\nimport lib.data") == {"__init__.py", "data.py"}


def test_every_data_file_of_the_package_belongs_to_some_module(root):
    graph = Graph(root)
    claimed = {file for name in NOTEBOOKS for file in graph.of_notebook(root / "notebooks" / f"{name}.ipynb")}
    data = [
        path for folder in ("lib", "widgets", "assets/tiny") for path in (root / folder).rglob("*") if path.is_file()
    ]
    shipped = {str(path.relative_to(root)) for path in data if path.suffix not in {".py", ".pyc", ".md"}}
    assert shipped <= claimed


def test_the_scoreboard_depends_on_the_list_of_claims(root):
    assert "book/claims.yaml" in Graph(root).of_notebook(root / "notebooks/90_scoreboard.ipynb")


def test_what_is_registered_belongs_to_whoever_reads_specs(root):
    files = Graph(root).of_notebook(root / "notebooks/02_activations.ipynb")
    assert {"menagerie/images.py", "menagerie/shipped.py", "menagerie/world/people.py", "lib/registry.py"} <= set(files)
