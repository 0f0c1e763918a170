"""Claims: what counts as agreement, and that the shipped list is whole and is measured by chapters that exist."""

import json
import re

import pytest
import yaml

from book.tools.dependencies import Graph
from experiments.claims import AGREES, DIFFERS, NOT_RUN, OURS, UNDECIDED, Claim, Measurement, load_claims, measurements


def claim(**changes) -> Claim:
    texts = {name: name for name in ("paper", "where", "claim", "published", "quantity", "measured_by")}
    return Claim(**{"id": "one", "unit": "number", **texts, **changes})


@pytest.mark.parametrize(
    ("criterion", "interval", "verdict"),
    [
        ({"above": 0}, (0.1, 0.3), AGREES),
        ({"above": 0}, (-0.1, 0.3), UNDECIDED),
        ({"above": 0}, (-0.3, -0.1), DIFFERS),
        ({"below": 0.5}, (0.1, 0.3), AGREES),
        ({"below": 0.2}, (0.1, 0.3), UNDECIDED),
        ({"below": 0.1}, (0.1, 0.3), DIFFERS),
        ({"between": [0, 1]}, (0.1, 0.3), AGREES),
        ({"between": [0, 0.2]}, (0.1, 0.3), UNDECIDED),
        ({"between": [0.5, 1]}, (0.1, 0.3), DIFFERS),
    ],
)
def test_the_verdict_asks_where_the_whole_interval_lies(criterion, interval, verdict):
    assert claim(agrees_when=criterion).verdict(Measurement(0.2, *interval, "04")) == verdict


def test_without_an_interval_the_value_decides():
    assert claim(agrees_when={"above": 0}).verdict(Measurement(0.2, None, None, "04")) == AGREES
    assert claim(agrees_when={"above": 0.3}).verdict(Measurement(0.2, None, None, "04")) == DIFFERS


def test_what_was_not_measured_is_not_run():
    assert claim(agrees_when={"above": 0}).verdict(None) == NOT_RUN


def test_a_question_of_our_own_has_nothing_to_agree_with():
    assert claim().verdict(Measurement(0.2, 0.1, 0.3, "04")) == OURS


def test_measurements_come_from_every_result_of_a_profile(tmp_path):
    one = {"claims": {"a": {"value": 1.0, "low": 0.5, "high": 1.5}, "dead": {"value": None, "low": None, "high": None}}}
    (tmp_path / "03.json").write_text(json.dumps(one))
    (tmp_path / "04.json").write_text(json.dumps({"claims": {"b": {"value": 2.0, "low": None, "high": None}}}))
    (tmp_path / "05.json").write_text(json.dumps({"other": 1}))
    assert measurements(tmp_path) == {"a": Measurement(1.0, 0.5, 1.5, "03"), "b": Measurement(2.0, None, None, "04")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unit": "percent"}, "share or number"),
        ({"agrees_when": {"over": 1}}, "above, below and between"),
        ({"remark": "x"}, "'one' is not as the file's head says"),
    ],
)
def test_an_entry_that_is_not_whole_is_refused(tmp_path, changes, message):
    entry = {**claim().__dict__, **changes}
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump([entry]))
    with pytest.raises(ValueError, match=message):
        load_claims(tmp_path / "claims.yaml")


def test_an_id_given_twice_is_refused(tmp_path):
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump([claim().__dict__] * 2))
    with pytest.raises(ValueError, match="twice"):
        load_claims(tmp_path / "claims.yaml")


def writes(source: str, name: str) -> bool:
    """Whether a source has the name in it, whole or as an f-string such as `f"{task}-beats-diffmean"`."""
    shapes = (re.sub(r"\{\w+\}", r"\\w+", text) for text in re.findall(r'f\\?"([\w-]*\{\w+\}[\w-]*)\\?"', source))
    return bool(re.search(rf"\b{name}\b", source)) or any(re.fullmatch(shape, name) for shape in shapes)


def test_every_claim_that_a_present_chapter_measures_is_written_there(root):
    """There, or in the modules that it imports."""
    graph = Graph(root)
    for one in load_claims(root / "book/claims.yaml"):
        notebook = root / "notebooks" / f"{one.measured_by}.ipynb"
        if notebook.is_file():
            read = [notebook, *(root / file for file in graph.of_notebook(notebook) if file.endswith(".py"))]
            assert any(writes(file.read_text(), one.id) for file in read), (
                f"{one.measured_by} does not measure {one.id}"
            )


def test_no_chapter_measures_a_claim_that_is_not_on_the_list(root):
    known = {one.id for one in load_claims(root / "book/claims.yaml")}
    for module in (root / "experiments").rglob("*.py"):
        for found in re.findall(r"\bclaims\[\"([\w-]+)\"\] = ", module.read_text()):
            assert found in known, f"{module.name} measures {found}, which is not in book/claims.yaml"
    for notebook in (root / "notebooks").glob("*.ipynb"):
        cells = json.loads(notebook.read_text())["cells"]
        source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        for found in re.findall(r"^claims\[\"([\w-]+)\"\]", source, re.MULTILINE):
            assert found in known, f"{notebook.name} measures {found}, which is not in book/claims.yaml"
