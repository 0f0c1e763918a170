"""Figures of the chapter on metrics: what each metric's ranking of dictionaries is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go

from experiments.figures.panels import BELOW, DOTTED, side_by_side, with_bars
from experiments.metric_study.dictionaries import NEURONS, PLANTED, RANDOM, TRAINED
from experiments.metric_study.measures import TRUTH
from experiments.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, unless_empty
from lib.metrics.intervals import Interval

COLOURS = {TRAINED: ORANGE, RANDOM: GREY, NEURONS: BLUE, PLANTED: GREEN}
SYMBOLS = {TRAINED: "circle", RANDOM: "x", NEURONS: "square", PLANTED: "diamond"}


def against_truth(rows: pd.DataFrame, shown: Sequence[str], otherwise: str) -> go.Figure:
    """Each metric over the truth, a panel a metric, a point a dictionary."""
    figure = side_by_side(shown, 0.08, shared_yaxes=False)
    for column, metric in enumerate(shown, start=1):
        for family, part in rows.groupby("family"):
            size = [
                f"×{x:g}, k = {k}, {n} steps" for x, k, n in part[["expansion", "k", "steps"]].itertuples(index=False)
            ]
            style = {"marker": {"color": COLOURS[family], "symbol": SYMBOLS[family], "size": 8}, "mode": "markers"}
            points = {"x": part[TRUTH], "y": part[metric], "text": size, "name": family, "legendgroup": family}
            figure.add_scatter(**points, **style, showlegend=column == 1, row=1, col=column)
    figure.update_xaxes(rangemode="tozero").update_xaxes(
        title="truth: match of features and facts", col=len(shown) // 2 + 1
    )
    figure.update_layout(legend=BELOW, height=360)
    return unless_empty(figure, otherwise)


def rank_agreement(found: Mapping[str, Interval], null: Mapping[str, Interval], otherwise: str) -> go.Figure:
    """Rank correlation of each metric with the truth among dictionaries of one size, beside permuted truths."""
    figure = go.Figure()
    ordered = sorted(found, key=lambda name: found[name].value if found[name].value is not None else -2)
    for intervals, colour, name in ((null, GREY, "truth permuted"), (found, PURPLE, "as measured")):
        known = [metric for metric in ordered if metric in intervals]
        bars = with_bars([intervals[metric] for metric in known], "x")
        style = {"mode": "markers", "marker": {"color": colour, "size": 9}, "name": name}
        figure.add_scatter(y=known, **bars, **style)
    figure.add_vline(0, line=DOTTED)
    figure.update_xaxes(title="rank correlation with the truth", range=[-1.05, 1.05])
    figure.update_layout(height=520, legend={"orientation": "h", "y": 1.08})
    return unless_empty(figure, otherwise)


def score_and_steerability(rows: Mapping[str, pd.DataFrame], judge: str, otherwise: str) -> go.Figure:
    """Steerability over the Monosemanticity Score, a point a feature, a colour a dictionary."""
    figure = go.Figure()
    for (name, part), colour in zip(rows.items(), (ORANGE, GREY), strict=False):
        points = {"x": part["MS"], "y": part["steerability"], "text": [f"feature {f}" for f in part["feature"]]}
        figure.add_scatter(**points, mode="markers", marker={"color": colour, "size": 7}, name=name)
    figure.update_xaxes(title=f"MS, E = {judge}").update_yaxes(title="steerability")
    return unless_empty(figure.update_layout(height=380, legend={"orientation": "h", "y": 1.12}), otherwise)
