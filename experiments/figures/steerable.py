"""Figures of the chapter on steerability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from torch import Tensor

from experiments.figures.panels import BELOW, DOTTED, side_by_side
from experiments.plots import BLUE, GREEN, GREY, ORANGE, SEQUENTIAL, unless_empty
from experiments.push_comparison import KINDS, PushComparison

COLOURS = dict(zip(KINDS, (BLUE, ORANGE, GREY, GREEN), strict=True))


def over_strength(sweep: pd.DataFrame, strengths: Sequence[float], length: float) -> go.Figure:
    """Share of steerable pushes and coverage over s; sweep: rows by (kind, s); dotted: the length of the stream."""
    figure = side_by_side(["steerable", "concepts covered"], 0.1, shared_yaxes=False)
    names = ["steerable (S)", "coverage"]
    for what, colour in COLOURS.items():
        for column, name in enumerate(names, 1):
            style = {"name": what, "legendgroup": what, "showlegend": column == 1, "line_color": colour}
            figure.add_scatter(x=list(strengths), y=sweep.loc[what, name], **style, row=1, col=column)
    for column, name in enumerate(names, 1):
        mark = {"mode": "lines", "line": DOTTED, "showlegend": column == 1}
        top = float(sweep[name].max())
        figure.add_scatter(x=2 * [length], y=[0, top], name="length of the stream", **mark, row=1, col=column)
    figure.update_xaxes(type="log", title="α", tickvals=list(strengths)).update_yaxes(rangemode="tozero")
    return figure.update_yaxes(tickformat=".0%", row=1, col=1).update_layout(legend=BELOW)


def rarefaction(found: PushComparison, strength: float) -> go.Figure:
    """Expected coverage over the number of pushes that are drawn."""
    figure = make_subplots()
    for what, colour in COLOURS.items():
        m = found.measured(found.last, what, strength)
        sizes = sorted({round(x) for x in np.geomspace(1, len(m.score), 30)})
        figure.add_scatter(x=sizes, y=found.coverage_of(m, sizes), name=what, line_color=colour)
    figure.update_xaxes(type="log", title="pushes drawn at random", tickvals=[1, 3, 10, 30, 100, 300, 1000])
    return figure.update_yaxes(title="concepts covered").update_layout(legend=BELOW)


def by_layer(layers: pd.DataFrame) -> go.Figure:
    """Share of steerable pushes by site, a panel a strength; layers: columns site, pushed, strength, steerable."""
    names = list(dict.fromkeys(layers["strength"]))
    figure = side_by_side(names)
    for (name, what), rows in layers.groupby(["strength", "pushed"], sort=False):
        style = {"name": what, "marker_color": COLOURS[what], "legendgroup": what, "showlegend": name == names[0]}
        figure.add_bar(x=rows["site"], y=rows["steerable"], **style, row=1, col=names.index(name) + 1)
    figure.update_yaxes(tickformat=".0%").update_yaxes(title="steerable", col=1)
    return figure.update_layout(legend=BELOW)


def precision(found: PushComparison, strength: float, otherwise: str) -> go.Figure:
    """Boxes of the steerable pushes' precision."""
    figure = make_subplots()
    for what, colour in COLOURS.items():
        m = found.measured(found.last, what, strength)
        steered = m.steerable(found.settings.threshold)
        name = f"{what} ({int(steered.sum())})"
        figure.add_box(y=m.precision[steered], name=name, marker_color=colour, boxpoints=False)
    figure.update_yaxes(title="precision", range=[0, 1]).update_layout(showlegend=False)
    return unless_empty(figure, otherwise)


def detectors(own: Tensor, another: Tensor, otherwise: str) -> go.Figure:
    """Histograms of AUC for the concept that a feature steers toward and for another feature's: (F,) each."""
    figure = make_subplots()
    style = {"opacity": 0.65, "xbins": {"start": 0, "end": 1.001, "size": 0.05}}
    for values, name, colour in ((own, "the concept it steers toward", BLUE), (another, "another feature's", GREY)):
        figure.add_histogram(x=values, name=name, marker_color=colour, **style)
    figure.update_xaxes(title="AUC of the feature as a detector of a concept", range=[0, 1])
    figure.update_yaxes(title="features").update_layout(barmode="overlay", legend=BELOW)
    return unless_empty(figure, otherwise)


def patches(found: Mapping, counts: Sequence[int], grid: tuple[int, int], word: str) -> go.Figure:
    """How a word rises with the number of patches, and by each patch; found: of `PushComparison.patchwise`."""
    titles = ["several patches", "one by one"]
    figure = side_by_side(titles, 0.14, shared_yaxes=False, column_widths=[0.56, 0.44])
    figure.add_scatter(x=list(counts), y=found["some"], name="patches", line_color=BLUE, row=1, col=1)
    places = {"all patches": "top right", "CLS alone": "bottom right", "all tokens": "top left"}
    for name, value in found["groups"].items():
        named = {"annotation_text": name, "annotation_position": places[name], "annotation_font_size": 11}
        figure.add_hline(float(value), line={"dash": "dot", "color": GREY}, **named, row=1, col=1)
    heat = {"colorscale": SEQUENTIAL, "colorbar": {"title": "ΔP", "tickformat": ".3f"}, "zmin": 0}
    each = found["each"]
    figure.add_heatmap(z=each.view(grid).flip(0), zmax=max(0.01, float(each.max())), **heat, row=1, col=2)
    figure.update_xaxes(title="patches pushed", row=1, col=1).update_yaxes(title=f"ΔP of “{word}”", row=1, col=1)
    figure.update_xaxes(visible=False, row=1, col=2).update_yaxes(visible=False, scaleanchor="x2", row=1, col=2)
    return figure.update_layout(showlegend=False)
