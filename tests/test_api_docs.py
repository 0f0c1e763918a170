"""The reference pages: every public name stands there, and docstrings become reStructuredText that says the same."""

import inspect
import pydoc
import re

import lib
import lib.hub
import menagerie
import peers
import storage
import widgets
from book.tools.api_docs import as_restructured_text
from book.tools.package_diagram import ABOVE, BELOW, DATA_FLOW, imports_in_lib, package_diagram
from lib.sae.config import CONFIGS


def test_every_public_name_is_documented(root):
    pages = "\n".join(page.read_text() for page in (root / "book/api").glob("*.md"))
    shown = set(re.findall(r"^\.\. auto\w+:: (\S+)$", pages, flags=re.MULTILINE))
    public = {f"lib.{name}" for name in lib.__all__ if name != "metrics"}
    public |= {f"lib.metrics.{name}" for name in lib.metrics.__all__}
    public |= {f"lib.hub.{name}" for name in lib.hub.__all__ if name not in lib.__all__}
    public |= {f"lib.sae.config.{config.__name__}" for config in CONFIGS.values()}
    for package in (peers, widgets, menagerie, storage):
        functions = {name for name in package.__all__ if callable(getattr(package, name))}
        public |= {f"{package.__name__}.{name}" for name in functions}
    assert {name for name in shown if not name.startswith("experiments.")} == public


def test_every_class_of_the_reference_names_its_arguments(root):
    pages = "\n".join(page.read_text() for page in (root / "book/api").glob("*.md"))
    classes = [pydoc.locate(name) for name in re.findall(r"^\.\. autoclass:: (\S+)$", pages, flags=re.MULTILINE)]
    assert len(classes) > 15
    assert [one for one in classes if "kwargs" in inspect.signature(one).parameters] == []


def test_every_page_of_the_reference_is_in_the_table_of_contents(root):
    listed = re.findall(r"book/api/(\w+)", (root / "_toc.yml").read_text())
    assert sorted(listed) == sorted(page.stem for page in (root / "book/api").glob("*.md"))


def test_names_are_literals_and_marks_are_kept():
    assert as_restructured_text(["`W_dec` is (F, d); a*b, x_ and |y|"]) == [
        "``W_dec`` is (F, d); a\\*b, x\\_ and \\|y\\|"
    ]


def test_indented_lines_are_code_and_stay_as_they_are():
    lines = ["It is called so:", "", "    f(*x)  # `y`", "", "More."]
    assert as_restructured_text(lines) == ["It is called so:", "", "::", "", "    f(*x)  # `y`", "", "More."]


def test_a_list_stands_apart_from_the_text_around_it():
    assert as_restructured_text(["One of:", "- a, which", "  goes on", "- b", "and more"]) == [
        "One of:", "", "- a, which", "  goes on", "- b", "", "and more",
    ]  # fmt: skip


def test_the_diagram_is_that_of_todays_imports(root):
    assert (root / "book/_static/packages.svg").read_text(encoding="utf-8") == package_diagram(root), (
        "run python -m book.tools.package_diagram"
    )


def test_the_diagram_shows_each_floor_and_package_and_an_arc_for_each_import(root):
    picture = package_diagram(root)
    assert all(f">{name}</text>" in picture for name in (*ABOVE, "lib", *BELOW, *DATA_FLOW))
    assert picture.count('class="arc"') == len(imports_in_lib(root))
    assert imports_in_lib(root)["hub", "sae"] > 0 == imports_in_lib(root)["images", "sae"]


def test_every_file_that_the_contributors_guide_names_is_there(root):
    named = re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", (root / "CONTRIBUTING.md").read_text())
    assert len(named) > 20
    assert [path for path in named if not (root / path).exists()] == []
