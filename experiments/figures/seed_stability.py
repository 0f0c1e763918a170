"""Figures of the chapter on other seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch

from experiments.dictionary_in_detail import QUINTILES
from experiments.figures.panels import BELOW, DOTTED, side_by_side, with_bars
from experiments.plots import PALETTE, unless_empty
from experiments.reseeded import MATCHED_BY, Key, Reseeded
from experiments.stable_features import Stability
from lib.metrics.intervals import Interval, mean_interval

DRAWN = 1200  # features of a kind that a page can draw
EDGES = (-1, 0.3, 0.5, 0.7, 0.9, 1.01)
BINS = ("below 0.3", "0.3 to 0.5", "0.5 to 0.7", "0.7 to 0.9", "above 0.9")
LEAST = 10  # pairs behind a point


def similarities(found: Reseeded) -> go.Figure:
    """Share of the matched pairs that are at least so similar, a panel for each of `MATCHED_BY`; dotted: by chance."""
    figure = side_by_side(f"by {by}" for by in MATCHED_BY)
    grid = np.linspace(-0.2, 1, 121)
    for column, by in enumerate(MATCHED_BY, 1):
        for chance, dash in ((False, "solid"), (True, "dot")):
            for kind, colour in zip(found.kinds, PALETTE, strict=False):
                values = torch.cat([m.similarity for m in found.of_kind(by, kind, chance)]).sort().values
                share = 1 - torch.searchsorted(values, torch.from_numpy(grid).float()) / max(1, len(values))
                style = {"line": {"color": colour, "dash": dash}, "name": f"{kind}, chance" if chance else kind}
                figure.add_scatter(x=grid, y=share, **style, showlegend=column == 1, row=1, col=column)
    figure.update_xaxes(title="at least this similar")
    figure.update_yaxes(tickformat=".0%", rangemode="tozero").update_yaxes(title="share of matched pairs", col=1)
    return figure.update_layout(legend=BELOW)


def cosine_by_quintile(stability: Stability, otherwise: str) -> go.Figure:
    """Boxes of the cosine to the partners, by quintile of frequency and of the main judge's score."""
    panels = {"frequency": stability.features, stability.main: stability.enough}
    figure = side_by_side(["all, by frequency", f"by {stability.main}"], 0.06)
    for column, (by, rows) in enumerate(panels.items(), 1):
        for kind, colour in zip(stability.found.kinds, PALETTE, strict=False):
            of_kind = rows[rows["kind"] == kind].dropna(subset=["cosine", by])
            quintile = pd.cut(of_kind[by].rank(pct=True), np.linspace(0, 1, 6), labels=list(QUINTILES))
            style = {"name": kind, "legendgroup": kind, "offsetgroup": kind, "showlegend": column == 1}
            figure.add_box(
                x=quintile, y=of_kind["cosine"], marker={"color": colour, "size": 3}, **style, row=1, col=column
            )
    figure.update_xaxes(title="quintile", categoryorder="array", categoryarray=list(QUINTILES))
    figure.update_yaxes(title="mean cosine to the partners", col=1)
    return unless_empty(figure.update_layout(boxmode="group", legend=BELOW), otherwise)


def cosine_and_correlation(stability: Stability, otherwise: str) -> go.Figure:
    """A point a live feature, at most `DRAWN` a kind: similar to its partners by direction and by codes."""
    figure = go.Figure()
    for (kind, rows), colour in zip(stability.features.groupby("kind", sort=False), PALETTE, strict=False):
        rows = rows.sample(min(len(rows), DRAWN), random_state=0)
        text = [f"seed {seed}, feature {f}" for seed, f in zip(rows["seed"], rows["feature"], strict=True)]
        style = {"mode": "markers", "marker": {"size": 4, "opacity": 0.4, "color": colour}}
        figure.add_scatter(x=rows["cosine"], y=rows["correlation"], name=kind, text=text, **style)
    figure = unless_empty(figure, otherwise)
    if not figure.data:
        return figure
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line=DOTTED, showlegend=False)
    figure.update_xaxes(title="mean cosine to the partners matched by direction")
    figure.update_yaxes(title="mean correlation with those matched by codes")
    return figure.update_layout(legend={"orientation": "h", "y": 1.08, "itemsizing": "constant"})


def same_fact_by_cosine(stability: Stability, otherwise: str) -> go.Figure:
    """How often two matched features have one best fact, by their cosine; dotted: two features drawn at random."""
    figure, named, chance = go.Figure(), stability.named, stability.same_fact_by_chance()
    for kind, colour in zip(stability.found.kinds, PALETTE, strict=False):
        rows = named[named["kind"] == kind]
        binned = rows.groupby(pd.cut(rows["cosine"], EDGES, labels=list(BINS), right=False), observed=True)["same"]
        found = {b: mean_interval(torch.tensor(same.tolist()), stability.n) for b, same in binned if len(same) >= LEAST}
        figure.add_scatter(x=list(found), **with_bars(list(found.values())), name=kind, line_color=colour)
        figure.add_hline(chance.get(kind, 0), line=DOTTED | {"color": colour})
    figure.update_xaxes(title="cosine of the matched pair", categoryorder="array", categoryarray=list(BINS))
    figure.update_yaxes(title="pairs with the same best fact", tickformat=".0%", range=[0, 1.02])
    return unless_empty(figure, otherwise)


def mean_scores(headlines: Mapping[Key, Mapping[str, Interval]], judges: Sequence[str], otherwise: str) -> go.Figure:
    """The mean score of each seed's features, a panel a judge."""
    titles = [f"mean MS, E = {judge}" for judge in judges]
    figure = side_by_side(titles, 0.1, shared_yaxes=False)
    kinds = dict.fromkeys(kind for kind, _ in headlines)
    for column, title in enumerate(titles, 1):
        for kind, colour in zip(kinds, PALETTE, strict=False):
            found = {f"seed {seed}": values[title] for (of, seed), values in headlines.items() if of == kind}
            style = {"mode": "markers", "marker": {"color": colour, "size": 9}, "legendgroup": kind, "name": kind}
            bars = with_bars(list(found.values()))
            figure.add_scatter(x=list(found), **bars, **style, showlegend=column == 1, row=1, col=column)
    return unless_empty(figure.update_layout(legend=BELOW, scattermode="group"), otherwise)
