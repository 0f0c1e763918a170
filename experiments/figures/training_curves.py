"""Figures of the chapter that trains SAEs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import pandas as pd
import plotly.graph_objects as go

from experiments.figures.panels import BELOW, DOTTED, side_by_side
from experiments.plots import PALETTE

QUANTITIES = {"loss": "loss", "val_explained_variance": "explained variance", "val_l0": "latents active per picture"}


def curves(logs: Mapping[tuple[str, float], pd.DataFrame], k: int) -> go.Figure:
    """Loss, explained variance and active latents over the activations seen; logs: by kind and expansion.

    A dictionary that was trained without held-out pictures has a loss alone.
    """
    figure = side_by_side(QUANTITIES.values(), 0.08, shared_yaxes=False)
    kinds = dict(zip(dict.fromkeys(kind for kind, _ in logs), PALETTE, strict=False))
    drawn = dict(zip(dict.fromkeys(x for _, x in logs), cycle(["dot", "dash", "solid"]), strict=False))
    for (kind, expansion), rows in logs.items():
        rows = rows.query("threshold > 0").reindex(columns=["samples", *QUANTITIES])
        style = {"line": {"color": kinds[kind], "dash": drawn[expansion]}, "name": f"{kind} ×{expansion:g}"}
        for column, quantity in enumerate(QUANTITIES, 1):
            figure.add_scatter(x=rows["samples"], y=rows[quantity], **style, showlegend=column == 1, row=1, col=column)
    figure.add_hline(k, line=DOTTED, row=1, col=3)
    figure.update_xaxes(title="activations seen", rangemode="tozero", nticks=4)
    figure.update_yaxes(rangemode="tozero", col=3).update_yaxes(type="log", dtick=1, col=1)
    return figure.update_layout(legend=BELOW)


def over_expansion(grid: pd.DataFrame, sites: Sequence[str], kinds: Sequence[str]) -> go.Figure:
    """Explained variance and share of dead latents; grid: columns site, kind, expansion, explained variance, dead."""
    figure = side_by_side(
        sites, rows=2, columns=len(sites), shared_xaxes=True, shared_yaxes="rows", vertical_spacing=0.08
    )
    for column, site in enumerate(sites, 1):
        for kind, colour in zip(kinds, PALETTE, strict=False):
            rows = grid[(grid["site"] == site) & (grid["kind"] == kind)]
            style = {"line_color": colour, "name": kind, "legendgroup": kind, "mode": "lines+markers"}
            for row, measure in enumerate(("explained variance", "dead"), 1):
                style["showlegend"] = column == row == 1
                figure.add_scatter(x=rows["expansion"], y=rows[measure], **style, row=row, col=column)
    figure.update_xaxes(type="log", tickvals=sorted(set(grid["expansion"]))).update_xaxes(title="expansion", row=2)
    figure.update_yaxes(title="explained variance", row=1, col=1)
    figure.update_yaxes(title="dead", tickformat=".0%", rangemode="tozero", row=2, col=1)
    return figure.update_layout(height=520, legend=BELOW)
