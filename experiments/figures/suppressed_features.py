"""Figures of the chapter on disentanglement: numbers of features, groups of pictures, layers."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go

from experiments.disentanglement.choice import FAMILIES, METHODS, NULLS, Choice
from experiments.disentanglement.examination import Examination
from experiments.disentanglement.feature_choice import RULES
from experiments.disentanglement.protocol import Part
from experiments.figures.panels import BELOW, DOTTED, THIN_BARS, side_by_side, with_bars
from experiments.plots import AMBER, BLUE, GREEN, GREY, ORANGE, PALETTE, PURPLE, SKY, picture_grid

_OF_RIVALS = ["#1F3A93", "#20B2AA", "#D81B60", "#8A8A8A", GREEN, PURPLE, AMBER, "#A0522D", SKY, "#7FB800"]
COLOURS = dict(zip(METHODS, [GREY, BLUE, ORANGE, "#C9C9C9", *_OF_RIVALS], strict=True))
_SHAPES = "circle circle square x hexagon hourglass diamond x-open triangle-up triangle-down pentagon cross star star"
SYMBOLS = dict(zip(METHODS, _SHAPES.split(), strict=True))


def task_pictures(parts: Mapping[str, Part], shown: Mapping[str, list[int]]) -> go.Figure:
    """Eight pictures of each task with their groups; shown: their positions."""
    captions = [parts[name].task.groups[parts[name].task.group[i]] for name, some in shown.items() for i in some]
    captions = [text.replace(" hair", "").replace(" bird", "") for text in captions]
    pictures = [parts[name].task.images[i] for name, some in shown.items() for i in some]
    return picture_grid(pictures, captions, columns=8, row_titles=list(parts))


def number_of_features(choices: Mapping[str, Choice]) -> go.Figure:
    """Worst-group accuracy on validation pictures over the number of features, at the layer chosen for features."""
    figure = side_by_side(list(choices), 0.03)
    dashes = {"SAE": "solid", "neurons": "dot"}
    lines = {
        f"{what}: {rule}": {"color": colour, "dash": dash}
        for what, dash in dashes.items()
        for rule, colour in zip(RULES, PALETTE, strict=False)
    }
    for column, choice in enumerate(choices.values(), start=1):
        site = choice.chosen["SAE"].site or choice.sites[0]
        for method, points in choice.curves(list(lines), site).items():
            x, y = zip(*points, strict=True)
            label = {"name": method, "legendgroup": method, "showlegend": column == 1}
            figure.add_scatter(x=x, y=y, line=lines[method], **label, row=1, col=column)
    figure.update_xaxes(title="features suppressed").update_yaxes(tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(title="worst-group accuracy", col=1)
    return figure.update_layout(height=430, legend=BELOW)


def accuracy_of_groups(exams: Mapping[str, Examination]) -> go.Figure:
    """Accuracy of every group on test pictures with every method, one row a task."""
    figure = side_by_side(exams, 0, len(exams), 1, vertical_spacing=0.2 / len(exams))
    for row, exam in enumerate(exams.values(), start=1):
        for method in METHODS:
            bars = with_bars(exam.scored[method].per_group, **THIN_BARS)
            style = {"name": method, "legendgroup": method, "showlegend": row == 1}
            figure.add_bar(x=exam.runner.task.groups, **bars, marker_color=COLOURS[method], **style, row=row, col=1)
    figure.update_xaxes(tickangle=0, tickfont_size=11).update_yaxes(tickformat=".0%", range=[0, 1.02])
    figure.update_yaxes(title="accuracy on test pictures", row=1 + len(exams) // 2, col=1)
    return figure.update_layout(barmode="group", height=170 + 200 * len(exams), legend=BELOW)


def gain_against_price(exams: Mapping[str, Examination]) -> go.Figure:
    """What each method gains in the worst group over what it costs where it costs most, one row a task."""
    figure = side_by_side(exams, 0, len(exams), 1, shared_yaxes=False, vertical_spacing=0.24 / len(exams))
    for row, exam in enumerate(exams.values(), start=1):
        for method in METHODS[1:]:
            (where, price), gain = exam.highest_price(method), exam.gain(method)
            faint = {"color": GREY, "thickness": 0.5, "width": 0}
            outline = {"line": {"color": GREY, "width": 1}, "size": 10}
            marker = {"color": COLOURS[method], "symbol": SYMBOLS[method]} | outline
            label = {"name": f"{method} (null)" if method in NULLS else method, "legendgroup": method}
            style = {"marker": marker, "mode": "markers", "showlegend": row == 1} | label
            points = with_bars([price], "x", **faint) | with_bars([gain], "y", **faint) | {"text": [f"price: {where}"]}
            figure.add_scatter(**points, **style, row=row, col=1)
        figure.add_vline(0, line=DOTTED, row=row, col=1).add_hline(0, line=DOTTED, row=row, col=1)
    figure.update_xaxes(tickformat="+.0%").update_yaxes(tickformat="+.0%")
    figure.update_xaxes(title="change of accuracy where it falls most", row=len(exams), col=1)
    figure.update_yaxes(title="gain in the worst group", row=1 + len(exams) // 2, col=1)
    return figure.update_layout(height=220 + 260 * len(exams), legend=BELOW)


def accuracy_by_layer(exams: Mapping[str, Examination]) -> go.Figure:
    """Worst-group accuracy on test pictures by the site where something is taken out."""
    figure = side_by_side(list(exams), 0.03)
    for column, exam in enumerate(exams.values(), start=1):
        for family in FAMILIES:
            sites = exam.choice.sites_of(family)
            settings = [exam.choice.by_layer[family, site] for site in sites]
            points = with_bars([exam.accuracy(exam.after[one].correct).worst for one in settings], thickness=1, width=2)
            style = {"name": family, "legendgroup": family, "showlegend": column == 1, "line_color": COLOURS[family]}
            x = [site.removesuffix(".resid_post") for site in sites]
            figure.add_scatter(x=x, **points, **style, row=1, col=column)
        for method in [one for one in METHODS if one not in (*FAMILIES, *NULLS)]:
            line = {"dash": "dash", "color": COLOURS[method], "width": 1.5}
            figure.add_hline(exam.scored[method].worst.value, line=line, row=1, col=column)
    figure.update_xaxes(type="category", title="behind block").update_yaxes(tickformat=".0%", range=[0, 1.02])
    return figure.update_layout(height=430, legend=BELOW, yaxis_title="worst-group accuracy")
