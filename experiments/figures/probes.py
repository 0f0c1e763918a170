"""Figures of the chapter on features as classifiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go

from experiments.figures.panels import BELOW, side_by_side, with_bars
from experiments.plots import BLUE, GREY, ORANGE, PALETTE, PURPLE, unless_empty
from experiments.probe_comparison import MARKS
from experiments.sparse_neurons import NULLS, SAE_NAME
from lib.metrics.intervals import Interval

ZERO = {"dash": "dot", "color": GREY}


def ahead_of_raw(
    gains: Mapping[str, Mapping[str, Sequence[Interval]]], x: Sequence[str], title: str | None = None
) -> go.Figure:
    """How far codes and binary codes are ahead of raw activations, by mark and kind one interval for each x."""
    figure = side_by_side(MARKS.values(), 0.12, shared_yaxes=False)
    for column, mark in enumerate(MARKS, start=1):
        for shift, (kind, values) in enumerate(gains[mark].items()):
            style = {"mode": "lines+markers", "line_color": (BLUE, ORANGE)[shift], "showlegend": column == 1}
            places = [i + 0.08 * (shift - 0.5) for i in range(len(x))]
            figure.add_scatter(x=places, **with_bars(values), name=kind, **style, row=1, col=column)
        figure.update_xaxes(tickvals=list(range(len(x))), ticktext=x, range=[-0.4, len(x) - 0.6], row=1, col=column)
        figure.add_hline(0, line=ZERO, row=1, col=column)
    if title:
        figure.update_xaxes(title=title)
    return figure.update_layout(height=360 if title else 340, legend=BELOW, yaxis_title="ahead of raw activations")


def auc_elsewhere(full: pd.DataFrame | None, otherwise: str) -> go.Figure:
    """AUC elsewhere of raw activations and of codes, a point a fact; full: (shift, fact) by (part, kind)."""
    figure = go.Figure()
    for (shift, part), colour in zip(() if full is None else full.groupby("shift"), PALETTE, strict=False):
        names = part.index.get_level_values("fact")
        text = [f"{name}<br>home: {h:.2f}" for name, h in zip(names, part["home"]["raw"], strict=True)]
        style = {"mode": "markers", "marker": {"size": 8, "opacity": 0.75, "color": colour}, "text": text}
        figure.add_scatter(x=part["away"]["raw"], y=part["away"]["codes"], name=shift, **style)
    figure.add_shape(type="line", x0=0.3, y0=0.3, x1=1, y1=1, line=ZERO)
    figure.update_xaxes(title="AUC elsewhere, raw activations").update_yaxes(title="AUC elsewhere, SAE codes")
    figure.update_layout(height=440, legend={"orientation": "h", "y": 1.16})
    return unless_empty(figure, otherwise)


def auroc_by_site(means: Mapping[str, Sequence[float]], sites: Sequence[str], otherwise: str) -> go.Figure:
    """Mean AUROC over kinds of out-of-distribution pictures, by site, a line a score."""
    figure = go.Figure()
    for (score, values), colour in zip(means.items(), PALETTE, strict=False):
        figure.add_scatter(x=list(sites), y=list(values), name=score, line_color=colour)
    figure.add_hline(0.5, line=ZERO)
    figure.update_yaxes(title="mean AUROC over out-of-distribution kinds").update_layout(height=360)
    return unless_empty(figure, otherwise)


def scores_of_units(scored: Mapping[str, tuple], judge: str, otherwise: str) -> go.Figure:
    """Boxes of the units' scores and of their F1 with the best fact; scored: by name, as `unit_scores` gives them."""
    titles = [f"MS, E = {judge}", "F1 with the best fact"]
    figure = side_by_side(titles, 0.12, shared_yaxes=False)
    short = {"TopK, not fine-tuned": "TopK, not<br>fine-tuned", SAE_NAME: "SAE of<br>the MLP"}
    short |= {null: f"null of<br>{short.get(name, name)}" for name, null in NULLS.items()}
    colours = {"dense": GREY, "TopK, not fine-tuned": PURPLE, "TopK": BLUE, NULLS["TopK"]: GREY, SAE_NAME: ORANGE}
    colours |= {NULLS[SAE_NAME]: GREY}
    for name, colour in ((name, colour) for name, colour in colours.items() if name in scored):
        for column in (1, 2):
            values = scored[name][column]
            style = {"marker": {"color": colour, "size": 3}, "line_width": 1.5, "showlegend": False}
            figure.add_box(y=values[~values.isnan()].numpy(), name=short.get(name, name), **style, row=1, col=column)
    figure.update_xaxes(tickangle=0).update_layout(height=380)
    return unless_empty(figure, otherwise)
