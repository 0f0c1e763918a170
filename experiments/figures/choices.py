"""Figures of the chapter on choices that paper and code leave open."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots

from experiments.choice_findings import PrintedScore
from experiments.figures.panels import DOTTED, side_by_side, with_bars
from experiments.plots import BLUE, GREY, ORANGE
from experiments.recipe_effects import clear
from lib.metrics.intervals import Interval

DRAWN = 2000  # points that a page can draw


def effects(changes: Mapping[str, Mapping[str, Interval]], titles: Mapping[str, str]) -> go.Figure:
    """Effects of variants with intervals, a panel a measure, a row a variant; filled: the interval excludes zero."""
    figure = side_by_side((f"change of {title}" for title in titles.values()), names=changes)
    for column, quantity in enumerate(titles, 1):
        found = [effect[quantity] for effect in changes.values()]
        marker = {"size": 10, "color": [ORANGE if clear(effect) else GREY for effect in found]}
        marker["symbol"] = ["circle" if clear(effect) else "circle-open" for effect in found]
        points = with_bars(found, "x", thickness=1.5, color=GREY) | {"y": list(changes)}
        figure.add_scatter(**points, mode="markers", marker=marker, row=1, col=column)
        figure.add_vline(0, line=DOTTED, row=1, col=column)
        figure.update_xaxes(tickformat=".0%" if quantity == "dead" else None, col=column)
    figure.update_yaxes(autorange="reversed").update_xaxes(nticks=5)
    return figure.update_layout(height=90 + 44 * len(changes), showlegend=False)


def denominator(scores: PrintedScore) -> go.Figure:
    """The printed form of the score over the code's and over frequency, a point a feature."""
    pick = torch.randperm(len(scores.score), generator=torch.Generator().manual_seed(0))[:DRAWN]
    figure = make_subplots(1, 2, horizontal_spacing=0.1, shared_yaxes=True)
    for column, values in enumerate((scores.score, scores.frequency), 1):
        style = {"mode": "markers", "marker": {"size": 4, "opacity": 0.4, "color": BLUE}}
        figure.add_scatter(x=values[pick], y=scores.printed[pick].abs(), **style, row=1, col=column)
    figure.update_yaxes(type="log", exponentformat="power").update_yaxes(title="|score as printed|", col=1)
    figure.update_xaxes(title="score as computed by the code", col=1)
    share = {"title": "share of pictures on which it is active", "type": "log", "tickformat": ".1~%", "dtick": 1}
    return figure.update_xaxes(**share, col=2).update_layout(showlegend=False)
