"""Figures in tables and sentences: one form a column, a dash for what is missing."""

import math

import pandas as pd
import pytest
from IPython.display import Markdown

from experiments.tables import number, percent, written
from lib.metrics.intervals import Interval


@pytest.mark.parametrize("missing", [None, math.nan, math.inf, -math.inf])
def test_a_figure_that_is_not_known_is_a_dash(missing):
    assert number(missing, ".1%") == "–"
    assert number(0.25, ".1%") == "25.0%"


def test_a_table_writes_each_column_in_its_form_and_no_nan():
    table = pd.DataFrame({"share": [0.5, math.nan], "score": [math.inf, 0.12345], "name": ["a", None]})
    html = written(table, {"share": "{:.0%}"}, precision=2).to_html()
    assert all(text in html for text in ("50%", "0.12", ">a<"))
    assert html.count(">–<") == 3
    assert "nan" not in html.lower()
    assert "inf" not in html.lower()


def test_a_column_whose_name_is_escaped_keeps_its_form():
    html = written(pd.DataFrame({"J > 0": [0.25], "a & b": [16000]}), {"J > 0": "{:.1%}", "a & b": "{:,}"}).to_html()
    assert all(text in html for text in ("25.0%", "16,000", "J &gt; 0"))


def test_a_table_without_rows_says_what_it_cannot_show():
    shown = written(pd.DataFrame({"share": []}), otherwise="No feature is alive.")
    assert isinstance(shown, Markdown)
    assert shown.data == "No feature is alive."


@pytest.mark.parametrize("missing", [math.nan, math.inf, None, "–"])
def test_a_table_of_nothing_but_dashes_says_so_too(missing):
    assert written(pd.DataFrame({"share": [missing] * 2}), otherwise="No fact is known.").data == "No fact is known."
    assert "0.25" in written(pd.DataFrame({"share": [missing, 0.25]}), otherwise="No fact is known.").to_html()


def test_shares_with_their_intervals_are_written_in_per_cent():
    assert percent(Interval(0.123, 0.1, 0.152)) == "12.3 [10, 15]"
    assert percent(Interval(0.123, -0.1, 0.152), "+") == "+12.3 [-10, +15]"
    assert percent(Interval(0.123)) == "12.3"
    assert percent(Interval(math.nan)) == "–"
