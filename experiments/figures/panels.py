"""Shared parts of figures: panels side by side, error bars, rows of pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from experiments.plots import GREY, error_bars, phone_lines, picture_grid, unless_empty
from lib.metrics.intervals import Interval

DASHED = {"dash": "dash", "color": GREY, "width": 1}
DOTTED = {"dash": "dot", "color": GREY, "width": 1}
BELOW = {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"}
THIN_BARS = {"thickness": 1, "width": 0}
NAMES_SHARE = 0.35  # of a figure's width, that names of rows take on a phone
TITLE_SIZE, LINE_HEIGHT = 13, 17  # pixels


def side_by_side(
    titles: Iterable[str],
    spacing: float = 0.05,
    rows: int = 1,
    columns: int | None = None,
    names: Iterable[str] = (),
    **settings,
) -> go.Figure:
    """Panels under these titles, in one row unless said, which share their y axis unless said.

    Titles are broken into lines that do not meet on a phone, and so are names of rows, which stand at the left.
    settings: of `make_subplots`.
    """
    titles, names = list(titles), [str(name) for name in names]
    room = 1 - NAMES_SHARE if names else 1
    columns = columns or max(1, len(titles))
    lines = [phone_lines(title, room / columns) for title in titles]
    settings = {"shared_yaxes": True, "horizontal_spacing": spacing} | settings
    figure = make_subplots(rows, columns, subplot_titles=["<br>".join(some) for some in lines], **settings)
    figure.update_annotations(font_size=TITLE_SIZE)
    if names:
        figure.update_yaxes(tickvals=names, ticktext=["<br>".join(phone_lines(name, NAMES_SHARE)) for name in names])
    return figure.update_layout(margin_t=24 + LINE_HEIGHT * max(map(len, lines), default=0))


def values_of(intervals: Iterable[Interval]) -> list[float]:
    """The values of intervals."""
    return [interval.value for interval in intervals]


def with_bars(intervals: Sequence[Interval], axis: str = "y", **style) -> dict:
    """A trace's values along an axis and their error bars, as `figure.add_scatter` and `add_bar` take them."""
    return {axis: values_of(intervals), f"error_{axis}": error_bars(intervals) | style}


def picture_rows(
    images: Sequence, rows: Mapping[str, Sequence[int]], otherwise: str, columns: int = 8, cell: int = 64
) -> go.Figure:
    """Rows of `columns` pictures by title and positions, -1 for none; `otherwise`: the sentence for no picture."""
    pictures = [images[int(i)] if i >= 0 else None for row in rows.values() for i in row]
    return unless_empty(picture_grid(pictures, columns=columns, row_titles=list(rows), cell=cell), otherwise)
