"""Figures of the chapter on monosemanticity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots
from torch import Tensor

from experiments.dictionary_in_detail import BINS, QUINTILES, DictionaryDetail
from experiments.figures.panels import BELOW, DASHED, DOTTED, side_by_side, with_bars
from experiments.plots import BLUE, GREY, PALETTE, SEQUENTIAL, unless_empty
from experiments.scored_dictionaries import Key, Scored
from lib import metrics

DRAWN = 3000  # points that a page can draw


def best_mean_worst(scored: Scored, grid: pd.DataFrame, sites: Sequence[str], kinds: Sequence[str]) -> go.Figure:
    """Best, mean and worst score over the expansion, a row a judge, a column a site; dashed: the neurons' extremes."""
    judges = list(scored.embeddings)
    figure = make_subplots(len(judges), len(sites), column_titles=list(sites), shared_yaxes=True, vertical_spacing=0.08)
    for (judge, site), here in grid.groupby(["judge", "site"], sort=False):
        place = {"row": judges.index(judge) + 1, "col": list(sites).index(site) + 1}
        for kind, colour in zip(kinds, PALETTE, strict=False):
            rows, style = here[here["kind"] == kind], {"name": kind, "line_color": colour, "legendgroup": kind}
            for mark, symbol in {"mean": "circle", "best": "triangle-up", "worst": "triangle-down"}.items():
                style["showlegend"] = mark == "mean" and (judge, site) == (judges[0], sites[0])
                style["marker"] = {"symbol": symbol, "size": 8}
                figure.add_scatter(x=rows["expansion"], y=rows[mark], **style, **place)
        for level in scored.neurons.loc[(judge, site), ["best", "worst"]]:
            figure.add_hline(level, line=DASHED, **place)
        figure.update_yaxes(title=f"MS, E = {judge}", row=place["row"], col=1)
    figure.update_xaxes(type="log", tickvals=sorted(set(grid["expansion"])))
    figure.update_xaxes(title="expansion factor", row=len(judges))
    return figure.update_layout(height=520, legend=BELOW)


def thinned(score: Tensor, points: int = 300) -> tuple[np.ndarray, Tensor]:
    """Ranks (as shares) and sorted scores of the live features, thinned to `points`."""
    ranked = score[~score.isnan()].sort(descending=True).values
    places = np.unique(np.linspace(0, len(ranked) - 1, min(points, len(ranked))).astype(int))
    return (places + 0.5) / max(len(ranked), 1), ranked[places]


def ranked_scores(curves: Mapping[str, Mapping[str, Tensor]], base_rate: float, site: str, judge: str) -> go.Figure:
    """Sorted scores; curves: by kind, the neurons' first, then a shade of blue each."""
    figure = side_by_side(curves)
    for column, of in enumerate(curves.values(), 1):
        shades = sample_colorscale(SEQUENTIAL[2:6], np.linspace(0, 1, max(1, len(of) - 1)).tolist())
        lines = [{"color": GREY, "dash": "dash"}, *({"color": shade} for shade in shades)]
        for (name, score), line in zip(of.items(), lines, strict=False):
            share, ranked = thinned(score)
            figure.add_scatter(x=share, y=ranked, name=name, line=line, showlegend=column == 1, row=1, col=column)
        figure.add_hline(base_rate, line=DOTTED, row=1, col=column)
    figure.update_xaxes(title=f"share of live features ({site})", tickformat=".0%")
    return figure.update_yaxes(title=f"MS, E = {judge}", col=1)


def distributions(by_judge: Mapping[str, Mapping[str, Tensor]], base_rates: Mapping[str, float]) -> go.Figure:
    """Violins of the scores by each judge, the neurons' grey."""
    figure = make_subplots(1, len(by_judge), horizontal_spacing=0.12)
    for column, (judge, of) in enumerate(by_judge.items(), 1):
        for name, score in of.items():
            line = {"color": GREY if name == "neurons" else BLUE, "width": 1}
            style = {"line": line, "points": False, "meanline_visible": True, "spanmode": "hard"}
            figure.add_violin(y=thinned(score)[1], name=name, **style, showlegend=False, row=1, col=column)
        figure.update_yaxes(title=f"MS, E = {judge}", col=column)
        figure.add_hline(base_rates[judge], line=DOTTED, row=1, col=column)
    return figure


def mean_over_k(scored: Scored, by_k: Mapping[int, Key], site: str) -> go.Figure:
    """The mean score by each judge over k; dashed: the neurons' mean."""
    figure, judges = go.Figure(), list(scored.embeddings)
    for judge, colour in zip(judges, PALETTE, strict=False):
        drawn = [metrics.mean_interval(scored.scores[judge, *key], scored.n) for _, key in sorted(by_k.items())]
        figure.add_scatter(x=sorted(by_k), **with_bars(drawn), name=f"E = {judge}", line_color=colour)
        level = scored.neurons.loc[(judge, site), "mean"]
        figure.add_hline(level, line={"dash": "dash", "color": colour, "width": 1})
    figure.update_xaxes(type="log", title="k", tickvals=sorted(by_k))
    return figure.update_yaxes(title=f"mean MS, E = {' or '.join(judges)}", rangemode="tozero")


def score_over_frequency(detail: DictionaryDetail, base_rate: float, judge: str) -> go.Figure:
    """A point a live feature."""
    order = torch.randperm(len(detail.alive), generator=torch.Generator().manual_seed(0))[:DRAWN]
    chosen = detail.alive[order]
    text = [f"feature {f}" for f in chosen.tolist()]
    points = go.Scatter(x=detail.frequency[chosen], y=detail.score[chosen], text=text, mode="markers")
    figure = go.Figure(points).update_traces(marker={"size": 5, "opacity": 0.5, "color": BLUE})
    figure.add_hline(base_rate, line=DOTTED)
    ticks = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1]
    figure.update_xaxes(type="log", tickvals=ticks, tickformat=".1~%", title="share of pictures on which it is active")
    return figure.update_yaxes(title=f"MS, E = {judge}")


def two_judges(detail: DictionaryDetail, otherwise: str) -> go.Figure:
    """The score by the first judge and by the second, a point a feature with 16 pictures."""
    across, up = (list(detail.scores)[i] for i in (0, 1 if len(detail.scores) > 1 else 0))
    names = [f"feature {f}: {detail.best['fact'][f]}" for f in detail.full.tolist()]
    x, y = (detail.scores[judge][detail.full] for judge in (across, up))
    figure = go.Figure(go.Scatter(x=x, y=y, text=names, mode="markers"))
    figure.update_traces(marker={"size": 6, "opacity": 0.6, "color": BLUE})
    figure.update_xaxes(title=f"MS, E = {across}").update_yaxes(title=f"MS, E = {up}")
    return unless_empty(figure, otherwise)


def fact_scores_by_quintile(detail: DictionaryDetail, otherwise: str) -> go.Figure:
    """Boxes of each of `fact_scores` by quintile of the features' score."""
    figure = side_by_side(detail.fact_scores, 0.1, 2, 2, shared_yaxes=False, vertical_spacing=0.14)
    for i, (values, colour) in enumerate(zip(detail.fact_scores.values(), PALETTE, strict=False)):
        style = {"marker": {"color": colour, "size": 3}, "line_width": 1.5, "showlegend": False}
        figure.add_box(x=detail.quintile, y=values[detail.full], **style, row=i // 2 + 1, col=i % 2 + 1)
    figure.update_xaxes(categoryorder="array", categoryarray=list(QUINTILES))
    figure.update_xaxes(title="quintile of the features, by score", row=2).update_layout(height=560)
    return unless_empty(figure, otherwise)


def agreement_over_difference(
    agreement: Mapping[str, pd.DataFrame], people: Sequence[float], otherwise: str
) -> go.Figure:
    """How often facts agree with each judge by the difference of the scores, beside the paper's users.

    otherwise: said in the place of a figure without a pair.
    """
    figure = go.Figure()
    if not any(frame["pairs"].sum() for frame in agreement.values()):
        return unless_empty(figure, otherwise)
    for (judge, frame), colour in zip(agreement.items(), PALETTE, strict=False):
        text = [f"{pairs:,.0f} pairs" for pairs in frame["pairs"]]
        frame = frame.where(frame["pairs"] >= 10)  # fewer pairs say nothing
        spread = {"array": frame["upper"] - frame["agreement"], "arrayminus": frame["agreement"] - frame["lower"]}
        style = {"error_y": spread, "line_color": colour, "text": text}
        figure.add_scatter(x=list(BINS), y=frame["agreement"], name=f"E = {judge}", **style)
    style = {"symbol": "diamond", "size": 9, "color": GREY}
    figure.add_scatter(x=list(BINS), y=list(people), name="people (paper)", mode="markers", marker=style)
    figure.add_hline(0.5, line=DOTTED)
    main = next(iter(agreement), "")
    figure.update_xaxes(title=f"difference of MS, E = {main}", categoryorder="array", categoryarray=list(BINS))
    figure.update_yaxes(title="agreement", tickformat=".0%")
    return figure.update_layout(legend={"orientation": "h", "y": 1.12})
