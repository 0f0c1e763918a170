"""The scoreboard's rows, counts and sentence, on a handful of claims."""

from datetime import date

import pytest

from experiments.claims import AGREES, AS_NULL, NOT_RUN, OURS, UNTESTABLE, Claim, Measurement
from experiments.scoreboard import COLOURS, MARKS, Scoreboard
from lib.metrics.intervals import Interval


def claim(name: str, **changes) -> Claim:
    texts = {text: f"{text} of {name}" for text in ("where", "claim", "published", "quantity", "measured_by")}
    rule = {"agrees_when": {"above": 0}, "chance": 0, "planted": 1, "set": date(2026, 11, 30), "seen": True}
    return Claim(**{"id": name, "paper": "pach2025", "unit": "number", **texts, **rule, **changes})


@pytest.fixture
def board():
    claims = [
        claim("true"), claim("sparse"), claim("absent"), claim("stuck", untestable={"menagerie": "<no> tension"}),
        claim("ours", kind="question", agrees_when=None, unit="share"),
    ]  # fmt: skip
    measured = Measurement(0.2, 0.1, 0.3, "04_scores", Interval(0.0, -0.05, 0.05))
    sparse = Measurement(0.2, 0.1, 0.3, "04_scores", Interval(0.25, 0.2, 0.3))
    here = {"true": measured, "sparse": sparse, "stuck": measured, "ours": Measurement(0.5, None, None, "09")}
    return Scoreboard(claims, here, "menagerie", {"true": Measurement(0.4, 0.3, 0.5, "deit", Interval(0.35, 0.3, 0.4))})


def test_every_verdict_has_a_colour_and_a_mark_and_they_are_counted_in_one_order(board):
    assert set(COLOURS) == set(MARKS)
    assert board.verdicts == {
        "true": AGREES, "sparse": AS_NULL, "absent": NOT_RUN, "stuck": UNTESTABLE, "ours": OURS,
    }  # fmt: skip
    assert board.counts.to_dict() == dict.fromkeys((AGREES, AS_NULL, OURS, UNTESTABLE, NOT_RUN), 1)
    assert [bar.name for bar in board.figure().data] == list(board.counts.index)


def test_the_sentence_names_the_claims_that_a_null_reaches(board):
    assert board.describe().endswith("Reached by their nulls: claim of sparse.")
    assert "**1** agrees, **1** agrees, and so does its null" in board.describe()


def test_a_row_shows_the_figure_its_null_and_the_rule(board):
    table = board.table("claim").to_html()
    assert "<b>0.200</b> [0.100, 0.300]" in table
    assert "<b>0.250</b> [0.200, 0.300]" in table
    assert "<b>0.400</b> [0.300, 0.500]<br>null <b>0.350</b> [0.300, 0.400]" in table, "on photographs"
    assert "rule: above 0; set 2026-11-30, after a result was seen" in table
    assert 'href="04_scores.html"' in table
    assert "not run here (measured_by of absent)" in table
    assert "claim of ours" not in table


def test_texts_of_the_list_are_escaped_and_marks_of_the_table_are_not(board):
    table = board.table("claim").to_html()
    assert "&lt;no&gt; tension" in table
    assert "&lt;br&gt;" not in table
    assert "<b>50 %</b>" in board.table("question").to_html()


def test_a_kind_without_claims_and_a_board_without_photographs_show_no_empty_column(board):
    assert "<b>" not in board.table("check").to_html()
    assert "on photographs" not in Scoreboard(board.claims, board.here, "menagerie", {}).table("claim").to_html()
