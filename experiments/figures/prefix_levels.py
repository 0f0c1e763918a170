"""Figures of the chapter on hierarchy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from experiments.feature_taxa import FeatureTaxa
from experiments.figures.panels import BELOW, DASHED, with_bars
from experiments.levels import ORDERS, Levels, Values
from experiments.plots import PALETTE, SEQUENTIAL, unless_empty


def means_by_level(
    levels: Levels, panels: Mapping[str, Values], otherwise: str, chance: float | None = None
) -> go.Figure:
    """The mean of each level in every order, a panel for each of some values by title; dashed: what chance gives."""
    figure = make_subplots(1, len(panels), horizontal_spacing=0.1)
    for column, (title, values) in enumerate(panels.items(), 1):
        for shift, (order, colour) in enumerate(zip(ORDERS, PALETTE, strict=False)):
            line = {"color": colour, "dash": "solid" if order == "Matryoshka" else "dot"}
            style = {"name": order, "legendgroup": order, "showlegend": column == 1, "line": line}
            bars = with_bars(levels.means(values, order), thickness=1)
            places = np.arange(len(levels.ends)) + 0.06 * (shift - 1.5)  # beside each other
            figure.add_scatter(x=places, **bars, **style, row=1, col=column)
        figure.update_yaxes(title=title, col=column)
    if chance is not None:
        figure.add_hline(chance, line=DASHED)
    figure.update_xaxes(title="level (the last ends at the full width)", dtick=1)
    return unless_empty(figure.update_layout(legend=BELOW), otherwise)


def rank_of_taxa(placed: FeatureTaxa, otherwise: str) -> go.Figure:
    """Share of each level's features by the rank of their taxon."""
    shares = placed.ranks()
    heat = go.Heatmap(z=shares, x=shares.columns, y=[f"level {level}" for level in shares.index], zmin=0)
    figure = go.Figure(heat).update_traces(colorscale=SEQUENTIAL, colorbar={"tickformat": ".0%"}, xgap=2, ygap=2)
    figure.update_traces(texttemplate="%{z:.0%}").update_yaxes(autorange="reversed")
    return unless_empty(figure.update_layout(height=320, xaxis_title="rank of the feature's taxon"), otherwise)


def features_in_taxonomy(placed: FeatureTaxa, otherwise: str) -> go.Figure:
    """A box for each taxon, as high as the number of features in it; colour: their mean level."""
    found = placed.by_taxon()
    ids = ["/".join(("life", *path)) for path in found]
    figure = go.Figure(go.Icicle(ids=ids, parents=[name.rpartition("/")[0] for name in ids]))
    text = [f"{own:,} of {len(levels):,} features stand for it itself" for levels, own in found.values()]
    figure.update_traces(labels=[name.rpartition("/")[2] for name in ids], text=text)
    figure.update_traces(values=[len(levels) for levels, _ in found.values()], branchvalues="total")
    bar = {"title": "mean level", "thickness": 12, "outlinewidth": 0}
    colours = {"colors": [np.mean(levels) for levels, _ in found.values()], "colorscale": SEQUENTIAL[1:5]}
    figure.update_traces(tiling={"orientation": "h"}, marker=colours | {"colorbar": bar, "showscale": True})
    figure.update_traces(textinfo="label", hovertemplate="%{id}<br>%{text}<extra></extra>")
    figure.update_layout(
        height=620, margin={"l": 0, "r": 0, "t": 8, "b": 8}, uniformtext={"minsize": 9, "mode": "hide"}
    )
    return unless_empty(figure, otherwise)
