"""Figures of the chapter on disentanglement: numbers of features, groups of pictures, layers."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go

from experiments.disentanglement.choice import FAMILIES, METHODS, Choice
from experiments.disentanglement.examination import Examination
from experiments.disentanglement.feature_choice import RULES
from experiments.disentanglement.protocol import Part
from experiments.figures.panels import BELOW, THIN_BARS, side_by_side, with_bars
from experiments.plots import BLUE, GREEN, GREY, ORANGE, PALETTE, PURPLE, picture_grid

COLOURS = dict(zip(METHODS, [GREY, BLUE, ORANGE, GREEN, PURPLE, PALETTE[4], PALETTE[5]], strict=True))


def task_pictures(parts: Mapping[str, Part], shown: Mapping[str, list[int]]) -> go.Figure:
    """Eight pictures of each task with their groups; shown: their positions."""
    captions = [parts[name].task.groups[parts[name].task.group[i]] for name, some in shown.items() for i in some]
    captions = [text.replace(" hair", "").replace(" bird", "") for text in captions]
    pictures = [parts[name].task.images[i] for name, some in shown.items() for i in some]
    return picture_grid(pictures, captions, columns=8, row_titles=list(parts))


def number_of_features(choices: Mapping[str, Choice]) -> go.Figure:
    """Worst-group accuracy on validation pictures over the number of features, at the layer chosen for features."""
    figure = side_by_side(list(choices), 0.03)
    for column, choice in enumerate(choices.values(), start=1):
        site = choice.chosen["SAE"].site or choice.sites[0]
        for what, dash in {"SAE": "solid", "neurons": "dot"}.items():
            for rule, colour in zip(RULES, PALETTE, strict=False):
                method = f"{what}: {rule}"
                x, y = zip(*choice.curve(method, site), strict=True)
                label = {"name": method, "legendgroup": method, "showlegend": column == 1}
                figure.add_scatter(x=x, y=y, line={"color": colour, "dash": dash}, **label, row=1, col=column)
    figure.update_xaxes(title="features suppressed").update_yaxes(tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(title="worst-group accuracy", col=1)
    return figure.update_layout(height=430, legend=BELOW | {"y": -0.22})


def accuracy_of_groups(exams: Mapping[str, Examination]) -> go.Figure:
    """Accuracy of every group on test pictures with every method."""
    figure = side_by_side(list(exams), 0.03)
    for column, exam in enumerate(exams.values(), start=1):
        groups = [group.replace(" ", "<br>") for group in exam.trials.task.groups]
        for method in METHODS:
            bars = with_bars(exam.scored[method].per_group, **THIN_BARS)
            style = {"name": method, "legendgroup": method, "showlegend": column == 1}
            figure.add_bar(x=groups, **bars, marker_color=COLOURS[method], **style, row=1, col=column)
    figure.update_xaxes(tickangle=0, tickfont_size=11).update_yaxes(tickformat=".0%", range=[0, 1.02])
    figure.update_yaxes(title="accuracy on test pictures", col=1)
    return figure.update_layout(barmode="group", height=430, legend=BELOW | {"y": -0.3})


def accuracy_by_layer(exams: Mapping[str, Examination]) -> go.Figure:
    """Worst-group accuracy on test pictures by the site where something is taken out."""
    figure = side_by_side(list(exams), 0.03)
    for column, exam in enumerate(exams.values(), start=1):
        for family in FAMILIES:
            sites = exam.choice.places(family)
            settings = [exam.choice.by_layer[family, site] for site in sites]
            points = with_bars([exam.accuracy(exam.after[one].correct).worst for one in settings], thickness=1, width=2)
            style = {"name": family, "legendgroup": family, "showlegend": column == 1, "line_color": COLOURS[family]}
            x = [site.removesuffix(".resid_post") for site in sites]
            figure.add_scatter(x=x, **points, **style, row=1, col=column)
        for method in ("nothing", "prompts", "probe"):
            line = {"dash": "dash", "color": COLOURS[method], "width": 1.5}
            figure.add_hline(exam.scored[method].worst.value, line=line, row=1, col=column)
    figure.update_xaxes(type="category", title="behind block").update_yaxes(tickformat=".0%", range=[0, 1.02])
    return figure.update_layout(height=430, legend=BELOW | {"y": -0.25}, yaxis_title="worst-group accuracy")
