"""What every notebook of the book has in common, checked on the sources; nbval and the browser tests run them."""

import ast
import re
from pathlib import Path

import nbformat
import papermill
import pytest

from experiments.parameters import kind_of, read

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
CODE_LINES, CELL_LINES = 150, 12
CLOSING_SECTIONS = ("What this does not show", "Summary", "Exercises")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request) -> nbformat.NotebookNode:
    return nbformat.read(request.param, as_version=4)


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def imported(cell) -> set[str]:
    """The packages that a cell imports."""
    statements = ast.parse(cell.source).body
    names = [alias.name for node in statements if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in statements if isinstance(node, ast.ImportFrom)]
    return {name.split(".")[0] for name in names}


def is_parameters(cell) -> bool:
    return "parameters" in cell.metadata.get("tags", [])


def test_is_valid_and_stored_without_outputs(notebook):
    nbformat.validate(notebook)
    assert all(not cell.outputs and cell.execution_count is None for cell in code_cells(notebook))


def test_begins_with_a_title_and_closes_with_limits_summary_and_exercises(notebook):
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert re.match(r"# \S", prose[0])
    assert not re.match(r"# \d", prose[0]), "the table of contents numbers the chapters"
    headings = re.findall(r"^##+ (.+)$", "\n".join(prose), flags=re.MULTILINE)
    assert [section for section in CLOSING_SECTIONS if section in headings] == list(CLOSING_SECTIONS)


def test_imports_stand_in_one_cell_and_heavy_libraries_come_through_lib(notebook):
    importing = [cell for cell in code_cells(notebook) if imported(cell)]
    assert len(importing) == 1
    assert {"lib", "experiments"} & imported(importing[0])  # whose modules import lib
    assert not imported(importing[0]) & {"open_clip", "timm", "torchvision", "transformers"}


def test_tables_with_a_style_escape_their_texts(notebook):
    sources = [re.sub(r"^[%!].*", "", cell.source, flags=re.MULTILINE) for cell in code_cells(notebook)]
    own = [node for source in sources for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)]
    assert "style" not in {node.attr for node in own}, (
        "a Styler escapes nothing: use experiments.markup.styled or experiments.tables"
    )


def test_html_is_left_to_the_library(notebook):
    assert not [
        cell.source for cell in code_cells(notebook) if re.search(r"\bHTML\(|\.to_html\(|own_html", cell.source)
    ]


def lines_of(cell) -> int:
    return sum(1 for line in cell.source.splitlines() if line.strip())


def test_code_is_the_argument_and_no_more(notebook):
    """A chapter keeps 150 lines of code, its parameters aside, which argue nothing; its helpers are in experiments."""
    assert sum(lines_of(cell) for cell in code_cells(notebook) if not is_parameters(cell)) <= CODE_LINES


def test_code_cells_are_short(notebook):
    """Parameters and the one cell of imports aside."""
    free = [cell for cell in code_cells(notebook) if not is_parameters(cell) and not imported(cell)]
    assert {cell.id: lines_of(cell) for cell in free if lines_of(cell) > CELL_LINES} == {}


def test_every_parameter_has_a_type_a_value_and_a_comment(notebook):
    cells = [cell for cell in code_cells(notebook) if is_parameters(cell)]
    assert len(cells) == 1
    lines = [line for line in cells[0].source.splitlines() if line.strip()]
    assert [line for line in lines if not re.fullmatch(r"\w+: [\w\[\]]+ = .+  # \S.*", line)] == []
    assert any(line.startswith("profile_dir: str") for line in lines)


def test_every_default_is_a_value_of_the_type_that_it_is_declared_with(notebook):
    cell = next(cell for cell in code_cells(notebook) if is_parameters(cell))
    for declared in ast.parse(cell.source).body:
        name, default = declared.target.id, ast.literal_eval(declared.value)
        assert read(name, kind_of(ast.unparse(declared.annotation)), default) == default


def test_it_checks_its_parameters_before_it_uses_them(notebook):
    cells = code_cells(notebook)
    declared = next(i for i, cell in enumerate(cells) if is_parameters(cell))
    assert cells[declared + 1].source == "check_parameters(globals())"


def test_whoever_names_pictures_says_what_becomes_of_one_that_cannot_be_read(notebook):
    sources = "\n".join(cell.source for cell in code_cells(notebook))
    assert re.findall(r"load_images\((?!\"menagerie)(?![^()]*, on_error\))[^()]*\)", sources) == []


def test_every_figure_has_a_name_a_caption_and_an_alternative_text(notebook):
    for cell in code_cells(notebook):
        settings = cell.metadata.get("mystnb", {})
        if "figure" in settings:
            assert settings["figure"]["name"].startswith("fig-")
            assert len(settings["figure"]["caption"]) > 10
            assert len(settings["image"]["alt"]) > 10


def test_papermill_reads_its_parameters():
    for path in NOTEBOOKS:
        assert "profile_dir" in papermill.inspect_notebook(str(path))
