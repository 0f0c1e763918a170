"""Claims: what counts as agreement, and that the shipped list is whole and is measured by chapters that exist."""

import ast
import json
import re
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import yaml

from book.tools.dependencies import Graph
from experiments.claims import (
    AGREES,
    AS_NULL,
    CHECK,
    DIFFERS,
    NOT_RUN,
    OURS,
    UNDECIDED,
    UNTESTABLE,
    Claim,
    Measurement,
    load_claims,
    measurements,
)
from lib.metrics.intervals import Interval

RULE = {"kind": "claim", "chance": 0, "planted": 1, "set": date(2026, 11, 30), "seen": True}


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


def test_without_an_interval_nothing_is_decided():
    assert claim(agrees_when={"above": 0}).verdict(Measurement(0.2, None, None, "04")) == UNDECIDED


def test_a_check_needs_no_interval_and_no_null():
    check = claim(agrees_when={"above": 0}, kind="check")
    assert check.verdict(Measurement(0.2, None, None, "03")) == CHECK
    assert check.verdict(Measurement(-0.2, None, None, "03")) == DIFFERS


@pytest.mark.parametrize(
    ("criterion", "null", "verdict"),
    [
        ({"above": 0}, Interval(0.0, -0.05, 0.05), AGREES),
        ({"above": 0}, Interval(0.1, 0.05, 0.15), AS_NULL),
        ({"above": 0}, Interval(0.9, 0.8, 1.0), AS_NULL),
        ({"above": 0}, Interval(0.05), AGREES),
        ({"above": 0}, Interval(0.2), AS_NULL),
        ({"below": 1}, Interval(0.9, 0.8, 1.0), AGREES),
        ({"below": 1}, Interval(0.2, 0.1, 0.4), AS_NULL),
        ({"between": [0, 1]}, Interval(0.9, 0.8, 1.0), AGREES),
        ({"between": [0, 1]}, Interval(0.2, 0.1, 0.4), AS_NULL),
    ],
)
def test_what_the_null_reaches_too_is_no_finding(criterion, null, verdict):
    assert claim(agrees_when=criterion).verdict(Measurement(0.2, 0.1, 0.3, "04", null)) == verdict


def test_a_world_that_cannot_test_a_claim_gives_no_verdict():
    one = claim(agrees_when={"above": 0}, untestable={"menagerie": "why"})
    assert one.verdict(Measurement(0.2, 0.1, 0.3, "07"), "menagerie") == UNTESTABLE
    assert one.verdict(Measurement(0.2, 0.1, 0.3, "07"), "photographs") == AGREES


CLAIMS = [one for one in load_claims(Path(__file__).parents[1] / "book/claims.yaml") if one.kind == "claim"]


def share_that_agrees(one: Claim, around: float) -> float:
    """How often a claim agrees on 100 draws of 400 values around a level, scattered as far as the effect is large."""
    draws = np.random.default_rng(0).normal(around, abs(one.planted - one.chance), (100, 400))
    reach = 1.96 * draws.std(1) / 20
    verdicts = [one.verdict(Measurement(x, x - r, x + r, "")) for x, r in zip(draws.mean(1), reach, strict=True)]
    return verdicts.count(AGREES) / 100


@pytest.mark.parametrize("one", CLAIMS, ids=lambda one: one.id)
def test_a_rule_fails_on_null_data_and_passes_on_planted_data(one):
    assert share_that_agrees(one, one.chance) <= 0.06
    assert share_that_agrees(one, one.planted) >= 0.9


def test_what_was_not_measured_is_not_run():
    assert claim(agrees_when={"above": 0}).verdict(None) == NOT_RUN


def test_a_question_of_our_own_has_nothing_to_agree_with():
    assert claim().verdict(Measurement(0.2, 0.1, 0.3, "04")) == OURS


def test_measurements_come_from_every_result_of_a_profile(tmp_path):
    one = {"claims": {"a": {"value": 1.0, "low": 0.5, "high": 1.5}, "dead": {"value": None, "low": None, "high": None}}}
    one["claim_nulls"] = {
        "a": {"value": 0.5, "low": 0.4, "high": 0.6},
        "dead": {"value": None, "low": None, "high": None},
    }
    (tmp_path / "03.json").write_text(json.dumps(one))
    (tmp_path / "04.json").write_text(json.dumps({"claims": {"b": {"value": 2.0, "low": None, "high": None}}}))
    (tmp_path / "05.json").write_text(json.dumps({"other": 1}))
    assert measurements(tmp_path) == {
        "a": Measurement(1.0, 0.5, 1.5, "03", Interval(0.5, 0.4, 0.6)), "b": Measurement(2.0, None, None, "04"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unit": "percent"}, "share or number"),
        ({"agrees_when": {"over": 1}}, "above, below and between"),
        ({"remark": "x"}, "'one' is not as the file's head says"),
        ({"kind": "guess"}, "claim, question, check"),
        ({"agrees_when": None}, "agrees_when is missing"),
        ({"set": None}, "when the rule was set"),
        ({"planted": None}, "the value without the effect, and with it"),
    ],
)
def test_an_entry_that_is_not_whole_is_refused(tmp_path, changes, message):
    entry = {**claim(agrees_when={"above": 0}, **RULE).__dict__, **changes}
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump([entry]))
    with pytest.raises(ValueError, match=message):
        load_claims(tmp_path / "claims.yaml")


def test_an_id_given_twice_is_refused(tmp_path):
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump([claim(kind="question").__dict__] * 2))
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


def written_claims(source: str) -> set[str]:
    """Ids that a program gives its claims, in dict literals of `claims` and of a dict's entry "claims"."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        named = [isinstance(target, ast.Name) and target.id == "claims" for target in targets]
        if isinstance(node, ast.Assign | ast.AugAssign) and any(named):
            found |= keys_of(node.value)
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            found |= {node.slice.value} if ast.unparse(node.value) == "claims" and is_text(node.slice) else set()
        if isinstance(node, ast.Dict):
            values = [value for key, value in zip(node.keys, node.values, strict=True) if is_text(key, "claims")]
            found |= set().union(*map(keys_of, values))
    return found


def keys_of(value: ast.expr) -> set[str]:
    """The texts that are keys of the dict literals in an expression, of those in their values none."""
    if isinstance(value, ast.Dict):
        return {key.value for key in value.keys if is_text(key)}
    parts = [value.left, value.right] if isinstance(value, ast.BinOp) else []
    parts += [value.body, value.orelse] if isinstance(value, ast.IfExp) else []
    return set().union(*map(keys_of, parts))


def is_text(node: ast.expr | None, text: str | None = None) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and text in (None, node.value)


def test_ids_are_found_however_a_program_writes_claims():
    source = """
claims = {"a": {"value": 1}} | ({"b": 2} if x else {})
claims |= {"c": 3}
claims["d"] = 4
write({"claims": found | {"e": 5}, "other": {"f": 6}})
"""
    assert written_claims(source) == {"a", "b", "c", "d", "e"}


def test_no_chapter_measures_a_claim_that_is_not_on_the_list(root):
    known = {one.id for one in load_claims(root / "book/claims.yaml")}
    programs = {module.name: module.read_text() for module in (root / "experiments").rglob("*.py")}
    for notebook in (root / "notebooks").glob("*.ipynb"):
        cells = json.loads(notebook.read_text())["cells"]
        source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        programs[notebook.name] = re.sub(r"^[%!].*", "", source, flags=re.MULTILINE)
    found = {name: written_claims(source) - known for name, source in programs.items()}
    assert {name: ids for name, ids in found.items() if ids} == {}, "not in book/claims.yaml"
