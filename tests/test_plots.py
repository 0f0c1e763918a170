"""Figures: what nothing is drawn in says so in words."""

import math

import numpy as np
import plotly.graph_objects as go
import pytest
from PIL import Image

from experiments.plots import error_bars, picture_grid, unless_empty
from lib.metrics.intervals import Interval

SENTENCE = "No feature is active on 16 pictures."
EMPTY = {
    "no trace": go.Figure(),
    "a line without points": go.Figure(go.Scatter(x=[], y=[])),
    "a line of NaN": go.Figure(go.Scatter(x=[1, 2], y=[math.nan, math.nan])),
    "a line without y": go.Figure(go.Scatter(x=["a", "b"], y=[])),
    "boxes of nothing": go.Figure(go.Box(x=["low", "high"], y=[None, math.nan])),
    "a heat map of NaN": go.Figure(go.Heatmap(z=np.full((2, 2), math.nan))),
    "a histogram of nothing": go.Figure(go.Histogram(x=[])),
}
FULL = {
    "a line": go.Figure(go.Scatter(x=[1, 2], y=[math.nan, 3])),
    "bars by name": go.Figure(go.Bar(x=["a"], y=[0.0])),
    "bars across": go.Figure(go.Bar(x=[3], y=["a"], orientation="h")),
    "a histogram": go.Figure(go.Histogram(x=[1.0])),
    "a violin": go.Figure(go.Violin(y=[1.0, 2.0])),
    "a heat map": go.Figure(go.Heatmap(z=[[0.0]])),
    "pictures": picture_grid([Image.new("RGB", (8, 8))]),
}


@pytest.mark.parametrize("what", EMPTY)
def test_an_empty_figure_becomes_the_sentence(what):
    shown = unless_empty(EMPTY[what], SENTENCE)
    assert [note.text for note in shown.layout.annotations] == [SENTENCE]
    assert not shown.data


@pytest.mark.parametrize("what", FULL)
def test_a_figure_with_something_in_it_stays(what):
    assert unless_empty(FULL[what], SENTENCE) is FULL[what]


def test_error_bars_reach_to_the_bounds_and_are_missing_where_there_are_none():
    bars = error_bars([Interval(1.0, 0.5, 2.0), Interval(3.0)])
    np.testing.assert_array_equal(bars["array"], [1.0, np.nan])
    np.testing.assert_array_equal(bars["arrayminus"], [0.5, np.nan])
    assert len(error_bars([])["array"]) == 0
