"""Figures of the chapter on uniqueness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
import torch

from experiments.figures.panels import BELOW, DOTTED
from experiments.overlaps import Counts, Overlaps
from experiments.plots import BLUE, GREY, PALETTE, picture_grid, unless_empty

DRAWN = 3000  # points that a page can draw


def share_of_pairs(by_size: Mapping[float, Overlaps], kind: str, null: Overlaps, otherwise: str) -> go.Figure:
    """Share of the pairs with at least an index, by expansion; dotted: with shuffled pictures; grey: of a null."""
    figure = go.Figure()
    for (size, found), colour in zip(by_size.items(), PALETTE * 2, strict=False):
        for counts, dash in ((found.counts, "solid"), (found.shuffled_pictures, "dot")):
            label = f"×{size:g}" + (", shuffled" if dash == "dot" else "")
            line = {"color": colour, "dash": dash, "width": 2 if dash == "solid" else 1}
            _add_steps(figure, counts, line, name=label, legendgroup=str(size), showlegend=dash == "solid")
    _add_steps(figure, null.counts, {"color": GREY, "dash": "dash"}, name="sparse directions")
    figure.update_xaxes(title="Jaccard index", range=[0, 1])
    figure.update_yaxes(title="share of pairs with this index or more", type="log", exponentformat="power", dtick=1)
    return unless_empty(figure.update_layout(legend=BELOW | {"title": kind}), otherwise)


def _add_steps(figure: go.Figure, counts: Counts, line: Mapping, **style) -> None:
    """Add the share of pairs from each value on."""
    values, pairs = counts
    above = pairs.flip(0).cumsum(0).flip(0) / pairs.sum().clamp_min(1)
    figure.add_scatter(x=values[1:], y=above[1:], line={"shape": "vh"} | line, mode="lines", **style)


def most_alike(images: Sequence, found: Overlaps, n: int, otherwise: str) -> go.Figure:
    """The top pictures of the n pairs with the highest index, two rows a pair."""
    rows, titles = [], []
    for p in found.most_alike(n).tolist():
        one, other = found.pairs[p].tolist()
        rows += [*found.top[one].tolist(), *found.top[other].tolist()]
        titles += [f"<b>J {found.index[p]:.2f}</b><br>#{one}", f"cos {found.cosine[p]:.2f}<br>#{other}"]
    pictures, columns = [images[i] for i in rows], found.top.shape[1]
    return unless_empty(picture_grid(pictures, columns=columns, row_titles=titles, cell=48), otherwise)


def cosine_over_index(found: Overlaps, n_alike: int, otherwise: str) -> go.Figure:
    """Pairs with a common picture, a random selection and the n most alike; dotted: mean cosine of all pairs."""
    pairs, index = found.pairs, found.index
    some = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))[:DRAWN]
    some = torch.cat([some, found.most_alike(n_alike)]).unique()
    names = [f"#{i} and #{j}" for i, j in pairs[some].tolist()]
    spread = torch.rand(len(some), generator=torch.Generator().manual_seed(1)) - 0.5  # indices are few fractions
    points = go.Scatter(x=index[some] + 0.012 * spread, y=found.cosine[some], text=names, mode="markers")
    figure = go.Figure(points).update_traces(marker={"size": 5, "opacity": 0.4, "color": BLUE})
    figure.add_hline(found.mean_cosine, line=DOTTED)
    figure.update_xaxes(title="Jaccard index of the top pictures (slightly spread)")
    return unless_empty(figure.update_yaxes(title="cosine of decoder directions"), otherwise)
