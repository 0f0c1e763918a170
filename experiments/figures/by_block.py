"""Figures of the chapter on activations: quantities of tokens over the blocks of an encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
import torch
from PIL import Image
from torch import Tensor

from experiments.figures.panels import BELOW, side_by_side
from experiments.plots import BLUE, GREEN, ORANGE, unless_empty


def norms(
    quantiles: Mapping[str, Mapping[str, Tensor]], layers: Sequence[int], colours: Mapping[str, str]
) -> go.Figure:
    """Bands between quantiles of the norm and a line at their middle; quantiles: (3, blocks) by kind and tokens."""
    figure = side_by_side(quantiles, 0.08, shared_yaxes=False)
    layers = list(layers)
    for column, by_tokens in enumerate(quantiles.values(), start=1):
        for name, (low, middle, high) in by_tokens.items():
            colour, low, middle, high = colours[name], *(x.numpy() for x in (low, middle, high))
            band = {"x": layers + layers[::-1], "y": [*high, *low[::-1]], "fill": "toself", "fillcolor": colour}
            figure.add_scatter(**band, opacity=0.18, mode="none", hoverinfo="skip", showlegend=False, row=1, col=column)
            line = {"x": layers, "y": middle, "name": name, "legendgroup": name, "line_color": colour}
            figure.add_scatter(**line, mode="lines+markers", showlegend=column == 1, row=1, col=column)
    figure.update_yaxes(rangemode="tozero").update_xaxes(title="block", dtick=max(1, len(layers) // 8))
    return figure.update_layout(yaxis_title="norm", legend=BELOW)


def principal_maps(x: Tensor, grid: tuple[int, int], n: int) -> list[Image.Image]:
    """Patch tokens (N, T, d) of the first n pictures along three principal directions: n small RGB pictures."""
    flat = x.flatten(0, 1) - x.mean(dim=(0, 1))
    _, _, axes = torch.pca_lowrank(flat, q=3, center=False)
    z = flat @ axes
    low, high = z.quantile(0.02, dim=0), z.quantile(0.98, dim=0)
    rgb = ((z - low) / (high - low)).clamp(0, 1).view(len(x), *grid, 3)[:n]
    return [Image.fromarray((m * 255).byte().numpy()).resize((112, 112), Image.Resampling.NEAREST) for m in rgb]


def chance(labels: np.ndarray) -> float:
    """Share of pairs of pictures with one label, among the pictures that have any; "" is none."""
    _, counts = np.unique(labels[labels != ""], return_counts=True)
    return float(counts @ (counts - 1)) / counts.sum() / (len(labels) - 1)


def nearest_agree(
    read: Mapping[tuple[str, str], Sequence[float]],
    facts: Mapping[str, np.ndarray],
    layers: Sequence[int],
    titles: Sequence[str],
    otherwise: str,
) -> go.Figure:
    """How often the nearest picture shares a fact; read: by fact and tokens, one share a block; dotted: chance."""
    figure = side_by_side(titles, 0.06)
    for (fact, name), shares in read.items():
        column, colour = 1 + list(facts).index(fact), ORANGE if name == "CLS" else BLUE
        line = {"x": list(layers), "y": shares, "name": name, "legendgroup": name, "line_color": colour}
        figure.add_scatter(**line, mode="lines+markers", showlegend=column == 1, row=1, col=column)
        figure.add_hline(chance(facts[fact]), line={"dash": "dot", "color": GREEN, "width": 1}, row=1, col=column)
    figure.update_xaxes(title="block").update_yaxes(tickformat=".0%", rangemode="tozero")
    figure.update_layout(legend=BELOW, yaxis_title="nearest picture agrees")
    return unless_empty(figure, otherwise)
