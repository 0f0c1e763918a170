"""Figures of the chapter on other kinds of dictionaries and on ensembles."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import cycle

import plotly.graph_objects as go

from experiments.figures.panels import DOTTED, side_by_side, with_bars
from experiments.plots import BLUE, GREEN, GREY, ORANGE, PALETTE
from experiments.repeated_runs import STABILITY
from lib.metrics.intervals import Interval

SYMBOLS = ("circle", "square", "diamond", "x", "cross", "triangle-up", "star", "triangle-down", "pentagon")
OF_EARLIER_CHAPTERS = ("topk", "batchtopk", "matryoshka")


def frontier(
    chosen: Mapping[str, Mapping[str, float]], tried: Mapping[str, Sequence[Mapping[str, float]]], budget: float
) -> go.Figure:
    """Explained variance over L0, a line a kind; large: what was chosen, small: what was tried, dotted: the budget."""
    figure = go.Figure()
    for (kind, point), colour, symbol in zip(chosen.items(), cycle(PALETTE), cycle(SYMBOLS), strict=False):
        points = sorted([(point, 14), *((other, 6) for other in tried.get(kind, ()))], key=lambda pair: pair[0]["L0"])
        style = {"marker": {"color": colour, "symbol": symbol, "size": [size for _, size in points]}, "name": kind}
        values = {axis: [at[column] for at, _ in points] for axis, column in (("x", "L0"), ("y", "explained variance"))}
        figure.add_scatter(**values, **style, mode="lines+markers")
    figure.add_vline(budget, line=DOTTED)
    figure.update_xaxes(title="active latents a picture (L0)", type="log")
    figure.update_yaxes(title="explained variance", tickformat=".0%")
    return figure.update_layout(legend={"orientation": "h", "y": 1.18, "itemsizing": "constant"})


def _panels_of_dots(
    table: Mapping[Hashable, Mapping[str, Interval]],
    titles: Mapping[str, str],
    columns: int,
    colours: Mapping,
    null: Mapping[Hashable, Mapping[str, Interval]] | None = None,
) -> go.Figure:
    """Means with intervals, a panel a measure, a row a name; titles: by column of the table; crosses: of its nulls."""
    rows = -(-len(titles) // columns)
    figure = side_by_side(titles.values(), 0.04, rows, columns, names=table, vertical_spacing=0.16)
    for i, column in enumerate(titles):
        for name in reversed(list(table)):
            style = {"mode": "markers", "marker": {"color": colours[name], "size": 9}, "showlegend": False}
            point = with_bars([table[name][column]], "x")
            figure.add_scatter(y=[name], **point, **style, row=i // columns + 1, col=i % columns + 1)
        names = [name for name in reversed(list(null or ())) if column in null[name]]
        cross = {"mode": "markers", "marker": {"color": GREY, "symbol": "x-thin-open", "size": 8}, "showlegend": False}
        x = [null[name][column].value for name in names]
        figure.add_scatter(x=x, y=names, **cross, row=i // columns + 1, col=i % columns + 1)
    return figure


def kinds_compared(
    table: Mapping[str, Mapping[str, Interval]], judge: str, null: Mapping[str, Mapping[str, Interval]]
) -> go.Figure:
    """Six measures of every kind; orange: the kinds of earlier chapters; grey: nulls; crosses: of random directions."""
    colours = {kind: ORANGE if kind in OF_EARLIER_CHAPTERS else BLUE for kind in table}
    colours |= {kind: GREY for kind in table if kind.startswith("frozen")}
    shown = ["explained variance", "MS", STABILITY, "accuracy recovered", "dead", "twins"]
    return _panels_of_dots(table, _titles(shown, judge), 3, colours, null).update_layout(height=600)


def ensembles_compared(table: Mapping[str, Mapping[str, Interval]], judge: str) -> go.Figure:
    """Four measures of ensembles and of their baselines."""
    colours = dict(zip(table, (GREY, GREEN, GREEN, BLUE, ORANGE), strict=False))
    shown = ["explained variance", "MS", "distinct", STABILITY]
    return _panels_of_dots(table, _titles(shown, judge), 2, colours).update_layout(height=560)


def _titles(columns: Sequence[str], judge: str) -> dict[str, str]:
    return {column: f"MS, E = {judge}" if column == "MS" else column for column in columns}


def stability_by_beginning(crossed: Mapping[tuple[str, str], Mapping[str, Interval]]) -> go.Figure:
    """Bars of stability, a group a kind, a colour where its decoder rows begin."""
    figure, colours = go.Figure(), {"random": GREY, "data": ORANGE}
    for init, colour in colours.items():
        of = {kind: row[STABILITY] for (kind, begun), row in crossed.items() if begun == init}
        bars = with_bars(list(of.values()))
        figure.add_bar(x=list(of), **bars, name=f"rows begin: {init}", marker_color=colour)
    figure.update_yaxes(title="stability of two runs", range=[0, 1])
    return figure.update_layout(barmode="group", legend={"orientation": "h", "y": 1.12})
