"""Style of the book's figures: palette, plotly template, the `book` renderer, and shared helpers.

Importing this module applies the style (`use_book_style`). JupyterLab then draws figures from their plotly MIME bundle,
and the rendered book from a small HTML fragment that expects `Plotly` on the page, which serves one copy of plotly.js.
"""

import base64
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from textwrap import wrap
from typing import Any

import numpy as np
import plotly.graph_objects as go
import plotly.io as pio
from PIL import Image
from plotly.io.base_renderers import PlotlyRenderer

from lib.metrics.intervals import Interval

BLUE, ORANGE, GREEN, PURPLE, AMBER, SKY, GREY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#7A828C",
)
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, AMBER, SKY, GREY)
"""Okabe and Ito's palette for colour-blind readers, and a grey; use them in this order."""

SEQUENTIAL = ["#F4F7F9", "#C7DCE8", "#8DBBD3", "#4F94BA", "#1F6A98", "#0B4468", "#06263D"]
DIVERGING = ["#0B4468", "#2F7FAF", "#9CC5DC", "#F5F5F3", "#F2BC94", "#D9762F", "#8F3F05"]

FONT = "Inter, 'Helvetica Neue', Helvetica, Arial, sans-serif"
INK, GRID = "#3B434C", "rgba(128, 140, 152, 0.22)"
PAGE_WIDTH = 780  # pixels that a figure has on a page of the book
PHONE_LINE = 40  # characters beside each other in the plot of a figure on a page that is 390 pixels wide
_FOREIGN_MARK = re.compile(r"<(?!(?:br|/?(?:b|i|sub|sup|extra))>)|\$")
CONFIG = {"displaylogo": False, "responsive": True, "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"]}


class BookRenderer(PlotlyRenderer):
    """Plotly renderer of the book: plotly's MIME bundle for JupyterLab, and HTML without external URLs or plotly.js.

    Plotly's own HTML renderers load MathJax from a CDN, or put 5 MB of JavaScript into every page.
    """

    def to_mimebundle(self, fig_dict: Mapping) -> dict[str, Any]:
        figure = with_broken_axis_titles(with_plain_texts(fig_dict))
        html = pio.to_html(
            figure,
            config=CONFIG,
            include_plotlyjs=False,
            include_mathjax=False,
            full_html=False,
            validate=False,
            default_width="100%",
        )
        return {**super().to_mimebundle(figure), "text/html": html}


def with_plain_texts(part: Any) -> Any:
    """A figure, or a part of one, with all tags in texts escaped but br, b, i, sub, sup and extra.

    Plotly would drop other tags in class names and words, turn some into links, and `$x$` into a formula.
    """
    if isinstance(part, str):
        return _FOREIGN_MARK.sub(lambda found: "&lt;" if found[0] == "<" else "&#36;", part)
    if isinstance(part, Mapping):
        return {name: with_plain_texts(value) for name, value in part.items()}
    if isinstance(part, list | tuple):
        return [with_plain_texts(value) for value in part]
    if isinstance(part, np.ndarray) and part.dtype.kind in "OU":
        return with_plain_texts(part.tolist())
    return part


def phone_lines(title: str, share: float) -> list[str]:
    """A title in lines that have room above or below a panel on a phone; share: of the plot's width, the panel's."""
    return wrap(title, max(8, int(share * PHONE_LINE)), break_long_words=False, break_on_hyphens=False)


def with_broken_axis_titles(figure: Mapping) -> dict:
    """A figure, as a dictionary, whose panels' titles of x axes do not run into those beside them on a phone."""
    layout = dict(figure["layout"])
    for name, axis in layout.items():
        text = axis.get("title", {}).get("text") if name.startswith("xaxis") else None
        low, high = axis.get("domain", (0, 1)) if text else (0, 1)
        if high - low < 0.9:
            lines = "<br>".join(phone_lines(text, high - low))
            layout[name] = axis | {"title": {"font": {"size": 13}} | axis["title"] | {"text": lines}}
    return {**figure, "layout": layout}


def book_template() -> go.layout.Template:
    """The plotly template of the book: transparent, thin grid lines, the accessible palette."""
    axis = {
        "gridcolor": GRID,
        "linecolor": GRID,
        "zerolinecolor": GRID,
        "ticks": "",
        "automargin": True,
        "title": {"standoff": 10},
    }
    layout = {
        "font": {"family": FONT, "size": 13, "color": INK},
        "title": {"font": {"size": 15}, "x": 0, "xref": "paper", "xanchor": "left"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "colorway": list(PALETTE),
        "colorscale": {"sequential": SEQUENTIAL, "sequentialminus": SEQUENTIAL[::-1], "diverging": DIVERGING},
        "coloraxis": {"colorbar": {"outlinewidth": 0, "ticks": "", "thickness": 12}},
        "xaxis": axis,
        "yaxis": axis,
        "height": 400,
        "margin": {"l": 56, "r": 16, "t": 40, "b": 48},
        "hoverlabel": {"font": {"family": FONT, "size": 12}, "align": "left"},
        "legend": {"bgcolor": "rgba(0,0,0,0)", "title": {"font": {"size": 12}}},
    }
    data = {"heatmap": [{"colorbar": {"outlinewidth": 0, "ticks": "", "thickness": 12}}]}
    return go.layout.Template(layout=layout, data=data)


def use_book_style() -> None:
    """Make the book's template and renderers plotly's default in this process."""
    pio.templates["book"] = book_template()
    pio.templates.default = "book"
    pio.renderers["book"] = BookRenderer()
    pio.renderers.default = "book"


def data_uri(picture: Image.Image, size: int | None = None, quality: int = 85) -> str:
    """A picture as a WebP `data:` address; `size` is the longer side in pixels (None keeps the picture's own)."""
    if size is not None:
        picture = picture.copy()
        picture.thumbnail((size, size), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "WEBP", quality=quality)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def picture_grid(
    pictures: Sequence[Image.Image | None],
    captions: Sequence[str] | None = None,
    columns: int = 8,
    row_titles: Sequence[str] | None = None,
    cell: int = 112,
) -> go.Figure:
    """Pictures in rows of `columns`, each with an optional caption below it and, for each row, a title at its left.

    None leaves a cell empty. `cell` is the largest height of a picture in pixels; a row is at most as wide as a page.
    Raises ValueError when captions or titles do not match.
    """
    rows = -(-len(pictures) // columns)
    if captions is not None and len(captions) != len(pictures):
        raise ValueError(f"{len(pictures)} pictures need as many captions, not {len(captions)}.")
    if row_titles is not None and len(row_titles) != rows:
        raise ValueError(f"{rows} rows of pictures need as many row titles, not {len(row_titles)}.")
    pitch = 1.06 if captions is None else 1.24
    figure = go.Figure()
    for i, picture in enumerate(pictures):
        x, y = (i % columns) * 1.06, -(i // columns) * pitch
        if picture is not None:
            place = {"x": x, "y": y, "sizex": 1, "sizey": 1, "xref": "x", "yref": "y", "layer": "above"}
            figure.add_layout_image(source=data_uri(picture, 2 * cell), **place)
        if captions is not None:
            _write(figure, captions[i], x + 0.5, y - 1.01, xanchor="center", yanchor="top", size=11)
    for row, title in enumerate(row_titles or ()):
        _write(figure, title, -0.1, -row * pitch - 0.5, xanchor="right", yanchor="middle", size=12)
    left, right = (-1.1 if row_titles else 0.0), columns * 1.06 - 0.06
    cell = min(cell, int(PAGE_WIDTH / (right - left)))
    figure.update_xaxes(visible=False, range=[left, right], fixedrange=True)
    figure.update_yaxes(
        visible=False, range=[-(rows - 1) * pitch - pitch, 0], scaleanchor="x", constrain="domain", fixedrange=True
    )
    return figure.update_layout(height=int(rows * pitch * cell) + 16, margin={"l": 0, "r": 0, "t": 8, "b": 8})


def error_bars(intervals: Iterable[Interval]) -> dict[str, np.ndarray]:
    """Plotly's error bars of intervals; none where an interval has no bounds."""
    value, low, high = np.array([tuple(interval) for interval in intervals], float).reshape(-1, 3).T
    return {"array": high - value, "arrayminus": value - low}


def unless_empty(figure: go.Figure, otherwise: str) -> go.Figure:
    """The figure, or the sentence `otherwise` where it has neither a picture nor a finite number."""
    if figure.layout.images or any(_has_numbers(trace) for trace in figure.data):
        return figure
    empty = go.Figure()
    _write(empty, "<br>".join(wrap(otherwise, 90)), 0, 0, xanchor="center", yanchor="middle", size=14)
    empty.update_xaxes(visible=False, range=[-1, 1], fixedrange=True)
    empty.update_yaxes(visible=False, range=[-1, 1], fixedrange=True)
    return empty.update_layout(height=96, margin={"l": 0, "r": 0, "t": 8, "b": 8})


def _has_numbers(trace: go.Trace) -> bool:
    """Whether a trace has a finite number among what it draws: of a bar or a box its values, not its categories."""
    drawn_of = [trace[name] for name in ("z", "values") if name in trace and trace[name] is not None]
    drawn_of = drawn_of or [trace[name] for name in ("x", "y") if name in trace and trace[name] is not None]
    return bool(drawn_of) and all(_any_finite(values) for values in drawn_of)


def _any_finite(values: Sequence) -> bool:
    """Whether any value can be drawn: a finite number or the name of a category."""
    flat = np.asarray(values, dtype=object).ravel()
    return any(value is not None and (isinstance(value, str) or np.isfinite(float(value))) for value in flat)


def _write(figure: go.Figure, text: str, x: float, y: float, xanchor: str, yanchor: str, size: int) -> None:
    figure.add_annotation(
        text=text, x=x, y=y, xanchor=xanchor, yanchor=yanchor, showarrow=False, font={"size": size}, xref="x", yref="y"
    )


use_book_style()
