"""Figures of the chapter that describes every feature."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.express as px
import plotly.graph_objects as go

from experiments.figures.panels import BELOW, DOTTED, side_by_side
from experiments.plots import AMBER, BLUE, GREY, ORANGE, PALETTE, PURPLE, unless_empty

COLUMNS = len(PALETTE) - 1  # of facts, that have a colour of their own


def what_about(detectors: pd.DataFrame, min_auc: float, otherwise: str) -> go.Figure:
    """Detectors by the column that holds their best fact; detectors: rows of `describe`."""
    counts = detectors["about"].value_counts().sort_values()
    figure = px.bar(counts.reset_index(), x="count", y="about", orientation="h", color_discrete_sequence=[BLUE])
    figure.update_layout(xaxis_title=f"features with AUC of at least {min_auc}", yaxis_title=None)
    return unless_empty(figure.update_layout(height=120 + 26 * len(counts)), otherwise)


def scores_beside_nulls(found: Mapping[str, pd.DataFrame], bars: Mapping[str, float], otherwise: str) -> go.Figure:
    """Share of the columns that reach a score, a panel a score, a line for features and each null; dotted: the bars."""
    figure = side_by_side((f"{score} of the best fact" for score in bars), 0.1, shared_yaxes=False)
    for column, (score, bar) in enumerate(bars.items(), 1):
        for (name, scores), colour in zip(found.items(), (BLUE, GREY, PURPLE, ORANGE, AMBER), strict=False):
            values = np.sort(scores[score].dropna())
            style = {"line": {"color": colour}, "name": name, "legendgroup": name, "showlegend": column == 1}
            share = 1 - np.arange(len(values)) / max(1, len(values))
            figure.add_scatter(x=values, y=share, mode="lines", **style, row=1, col=column)
        figure.add_vline(bar, line=DOTTED, row=1, col=column)
    figure.update_xaxes(title="at least").update_yaxes(tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(title="share of the columns", col=1).update_layout(legend=BELOW)
    return unless_empty(figure, otherwise)


def score_over_frequency(rows: pd.DataFrame, judge: str, otherwise: str) -> go.Figure:
    """A point a feature that has a best fact, in the colour of the fact's column; rows: of `describe`, by feature."""
    order = [*rows["about"].value_counts().index[:COLUMNS], "other"]
    shown = rows.assign(feature=rows.index, about=rows["about"].where(rows["about"].isin(order), "other"))
    figure = px.scatter(
        shown, x="frequency", y="score", color="about", log_x=True, opacity=0.75,
        hover_data=["feature", "name", "fact", "auc"], color_discrete_sequence=list(PALETTE),
        category_orders={"about": order},
    )  # fmt: skip
    ticks = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1]
    figure.update_xaxes(tickvals=ticks, tickformat=".1~%", title="share of pictures on which the feature is active")
    figure.update_yaxes(title=f"MS, E = {judge}").update_layout(legend_title="best known fact")
    return unless_empty(figure, otherwise)
