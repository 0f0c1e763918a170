"""What figures of several chapters share: panels side by side, and lines whose points have intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lib.metrics.intervals import Interval
from lib.plots import GREY, error_bars

DASHED = {"dash": "dash", "color": GREY, "width": 1}
DOTTED = {"dash": "dot", "color": GREY, "width": 1}
BELOW = {"orientation": "h", "y": -0.2}
THIN_BARS = {"thickness": 1, "width": 0}


def side_by_side(titles: Sequence[str], spacing: float = 0.05) -> go.Figure:
    """One row of panels with these titles, which share their y axis."""
    return make_subplots(1, len(titles), subplot_titles=list(titles), shared_yaxes=True, horizontal_spacing=spacing)


def values_of(intervals: Iterable[Interval]) -> list[float]:
    """The figures without their bounds."""
    return [interval.value for interval in intervals]


def with_bars(intervals: Sequence[Interval], axis: str = "y", **style) -> dict:
    """A trace's values along an axis and their error bars, as `figure.add_scatter` and `add_bar` take them."""
    return {axis: values_of(intervals), f"error_{axis}": error_bars(intervals) | style}
