"""Figures of the chapter that steers LLaVA: answers beside their pictures, and concepts that are named."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd
import plotly.graph_objects as go
from PIL import Image

from experiments.plots import data_uri


def answer_grid(
    pictures: Sequence[Image.Image],
    answers: Sequence[Sequence[str]],
    columns: Sequence[str],
    named: Callable[[str], bool],
) -> go.Figure:
    """Answers beside their pictures; blue where they name the concept, amber where they have changed otherwise.

    The first answer to each picture is the unsteered one.
    """
    z = [[2 if named(answer) else int(answer != said[0]) for answer in said] for said in answers]
    scale = [[0, "#F4F7F9"], [0.5, "#FBE3B3"], [1, "#A9CFE6"]]
    words = go.Heatmap(z=z, text=answers, texttemplate="%{text}", x=columns, zmin=0, zmax=2, showscale=False)
    figure = go.Figure(words)
    figure.update_traces(colorscale=scale, xgap=3, ygap=3, hoverinfo="skip", textfont_size=12)
    for row, picture in enumerate(pictures):
        place = {"xref": "paper", "yref": "y", "x": -0.01, "xanchor": "right", "y": row, "yanchor": "middle"}
        place |= {"sizex": 1, "sizey": 0.92}
        figure.add_layout_image(source=data_uri(picture, 140), **place)
    figure.update_yaxes(visible=False, autorange="reversed").update_xaxes(side="top", type="category")
    return figure.update_layout(height=70 * len(pictures) + 60, margin={"l": 90, "t": 50, "b": 10})


def share_named(obeyed: pd.DataFrame) -> go.Figure:
    """Share of the pictures whose answer names the concept; obeyed: concepts by strengths."""
    figure = go.Figure(go.Heatmap(z=obeyed.T, x=obeyed.index, y=obeyed.columns, zmin=0, zmax=1, colorscale="Blues"))
    figure.update_traces(xgap=1, ygap=1, colorbar={"tickformat": ".0%", "title": "named"})
    figure.update_traces(hovertemplate="%{x} at %{y} × the maximum: %{z:.0%}<extra></extra>")
    figure.update_xaxes(tickangle=-60, dtick=1).update_yaxes(title="α / largest activation", type="category")
    return figure.update_layout(height=330, margin={"b": 90, "t": 20})
