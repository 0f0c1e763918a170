"""Every figure of the chapters: drawn from ordinary data and from none, and its axes have names."""

import math

import pandas as pd
import pytest
import torch

from experiments.figures import probes, pushed_answers
from experiments.steering_scores import Rates
from lib.metrics.intervals import Interval

ONE, NONE = Interval(0.5, 0.25, 0.75), Interval(math.nan)


def axis_titles(figure) -> set[str]:
    """What stands at the axes of a figure."""
    return {axis.title.text for axis in (*figure.select_xaxes(), *figure.select_yaxes()) if axis.title.text}


def row(interval):
    return dict.fromkeys(("steered", "not steered", "reconstruction"), interval)


RATES = {"insertion": {("SAE", 1.0): Rates(ONE, ONE, ONE), ("SAE", 4.0): Rates(NONE, NONE, NONE)}}
NOTHING = "Nothing to see."
GAINS = {mark: {"codes": [ONE, NONE], "binary": [ONE, ONE]} for mark in ("auc", "f1")}
ELSEWHERE = pd.DataFrame(
    0.5,
    index=pd.MultiIndex.from_tuples([("night", "owl=yes")], names=["shift", "fact"]),
    columns=pd.MultiIndex.from_product([("home", "away"), ("raw", "codes")]),
)
SCORES = torch.tensor([0.5, math.nan, 0.25])
FIGURES = [
    (pushed_answers.score_over_strength, ({"SAE": {1.0: ONE, 4.0: NONE}}, [1, 4], "B/32"), ({}, [], "B/32"),
     {"strength, in units of the largest activation", "mean score, E = B/32, selection set"}),
    (pushed_answers.scores_of_methods, ({"white": {"SAE": row(ONE), "neuron": row(NONE)}}, [ONE], "B/32"),
     ({"white": {}}, [], "B/32"), {"score, E = B/32"}),
    (pushed_answers.rates_over_strength, (RATES,), ({"insertion": {}},), {"strength"}),
    (probes.ahead_of_raw, (GAINS, ["1", "all"], "columns"), ({"auc": {}, "f1": {}}, []),
     {"columns", "ahead of raw activations"}),
    (probes.auc_elsewhere, (ELSEWHERE, NOTHING), (None, NOTHING),
     {"AUC elsewhere, raw activations", "AUC elsewhere, SAE codes"}),
    (probes.auroc_by_site, ({"softmax": [0.5, math.nan]}, ["5", "7"], NOTHING), ({}, [], NOTHING),
     {"mean AUROC over kinds of strangers"}),
    (probes.worth_of_units, ({"dense": ({}, SCORES, SCORES)}, "eye", NOTHING), ({}, "eye", NOTHING), set()),
]  # fmt: skip


@pytest.mark.parametrize(("draw", "ordinary", "empty", "titles"), FIGURES, ids=lambda x: getattr(x, "__name__", ""))
def test_a_figure_takes_ordinary_and_no_data_and_names_its_axes(draw, ordinary, empty, titles):
    figure = draw(*ordinary)
    assert figure.data
    assert axis_titles(figure) == titles
    draw(*empty).to_json()


def test_error_bars_reach_to_the_bounds():
    figure = pushed_answers.score_over_strength({"SAE": {1.0: Interval(0.5, 0.25, 1.0)}}, [1], "B/32")
    assert figure.data[0].error_y.array.tolist() == [0.5]
    assert figure.data[0].error_y.arrayminus.tolist() == [0.25]
