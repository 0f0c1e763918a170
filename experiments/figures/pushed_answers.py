"""Figures of the chapter on steering scores: strengths, methods and rates of LLaVA's steered answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from experiments.figures.panels import BELOW, DOTTED, THIN_BARS, side_by_side, with_bars
from experiments.plots import PALETTE
from experiments.steering_scores import Rates
from experiments.word_scores import CONDITIONS
from lib.metrics.intervals import Interval

SYMBOLS = ("circle", "x", "line-ns-open")


def score_over_strength(
    curves: Mapping[str, Mapping[float, Interval]], ticks: Sequence[float], scorer: str
) -> go.Figure:
    """The mean score of each method over its strengths, in units of the largest activation."""
    figure = go.Figure()
    for (method, found), colour in zip(curves.items(), PALETTE, strict=False):
        points = with_bars(list(found.values()), **THIN_BARS)
        figure.add_scatter(x=list(found), **points, name=method, line_color=colour)
    figure.update_xaxes(type="log", title="strength, in units of the largest activation", tickvals=ticks)
    figure.update_yaxes(title=f"mean score, E = {scorer}, selection set")
    return figure.update_layout(legend=BELOW)


def scores_of_methods(
    panels: Mapping[str, Mapping[str, Mapping[str, Interval]]], bounds: Sequence[Interval], scorer: str
) -> go.Figure:
    """By panel and method the mean score, steered, unsteered and reconstructed, between the two bounds."""
    figure = side_by_side(list(panels))
    for column, table in enumerate(panels.values(), 1):
        for condition, symbol, colour in zip(CONDITIONS, SYMBOLS, PALETTE, strict=False):
            points = with_bars([row[condition] for row in table.values()], "x", **THIN_BARS)
            marker = {"symbol": symbol, "size": 9, "color": colour}
            style = {"mode": "markers", "name": condition, "legendgroup": condition, "showlegend": column == 1}
            figure.add_scatter(y=list(table), **points, marker=marker, **style, row=1, col=column)
        for bound in bounds:
            figure.add_vline(bound.value, line=DOTTED, row=1, col=column)
    figure.update_xaxes(title=f"score, E = {scorer}").update_yaxes(autorange="reversed")
    return figure.update_layout(legend=BELOW)


def rates_over_strength(trials: Mapping[str, Mapping[tuple[str, float], Rates]]) -> go.Figure:
    """By task and method the shares of answers of which the concept, the rest and both are right, over the strength."""
    figure = side_by_side(list(trials))
    for column, found in enumerate(trials.values(), 1):
        methods = list(dict.fromkeys(method for method, _ in found))
        for method, colour in zip(methods, PALETTE, strict=False):
            strengths = [s for name, s in found if name == method]
            for part, dash in {"concept": "dot", "rest": "dash", "both": "solid"}.items():
                value = [getattr(found[method, s], part).value for s in strengths]
                style = {"line": {"color": colour, "dash": dash}, "name": f"{method}: {part}", "legendgroup": method}
                figure.add_scatter(x=strengths, y=value, **style, showlegend=column == 1, row=1, col=column)
    ticks = sorted({s for found in trials.values() for _, s in found})
    figure.update_xaxes(type="log", title="strength", tickvals=ticks)
    figure.update_yaxes(tickformat=".0%", range=[0, 1.02])
    return figure.update_layout(height=460, legend=BELOW)
