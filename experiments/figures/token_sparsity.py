"""Figures of the chapter on sparsity by layer and by token."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

import numpy as np
import plotly.graph_objects as go
from torch import Tensor

from experiments.figures.panels import BELOW, DOTTED, THIN_BARS, side_by_side, with_bars
from experiments.plots import BLUE, DIVERGING, GREEN, GREY, ORANGE, PURPLE, unless_empty
from experiments.published import RELEASED_ALIVE, RELEASED_L0
from experiments.spliced_suite import SplicedSuite
from experiments.token_suite import SCOPES, STREAM, Suite

LINES = {
    "CLS, SAE of all": ("all", "cls", ORANGE, "solid"),
    "patches, SAE of all": ("all", "spatial", BLUE, "solid"),
    "CLS, SAE of CLS": ("cls", "cls", ORANGE, "dot"),
    "patches, SAE of patches": ("spatial", "spatial", BLUE, "dot"),
}
"""By name: the tokens that the dictionary reads, those whose L0 is drawn, colour and dash."""
SCOPE_COLOURS = dict(zip(SCOPES, (GREEN, ORANGE, BLUE), strict=True))


def kind_colours(suite: Suite) -> dict[str, str]:
    return dict(zip(suite.kinds, cycle((PURPLE, BLUE, GREEN, ORANGE, GREY)), strict=False))


def l0_by_layer(suite: Suite, kind: str, name: str) -> go.Figure:
    """L0 of CLS and of patches over the layers, a panel a sublayer of the encoder `name`; at the right as published."""
    titles = [f"{sublayer} ({name})" for sublayer in suite.sublayers] + [f"{STREAM} (published)"]
    figure = side_by_side(titles, 0.07, shared_yaxes=False)
    drawn = {
        name: line for name, line in LINES.items() if line[0] in suite.scopes and line[1] in suite.model.token_kinds
    }
    for column, sublayer in enumerate(suite.sublayers, 1):
        for name, (scope, tokens, colour, dash) in drawn.items():
            found = suite.l0_by_layer(sublayer, scope, kind, tokens)
            style = {"name": name, "legendgroup": name, "line": {"color": colour, "dash": dash}}
            points = with_bars(found, **THIN_BARS) | {"x": suite.layers(sublayer), "showlegend": column == 1}
            figure.add_scatter(**points, **style, row=1, col=column)
    for tokens, colour in zip(RELEASED_L0, (ORANGE, GREY), strict=True):
        style = {"name": f"{tokens}, published", "showlegend": tokens != "CLS", "line_color": colour}
        figure.add_scatter(x=RELEASED_L0.index, y=RELEASED_L0[tokens], **style, row=1, col=len(titles))
    figure.update_xaxes(title="layer", dtick=2).update_yaxes(rangemode="tozero")
    figure.update_yaxes(title="L0: active latents a token", col=1)
    return figure.update_layout(height=380, legend=BELOW)


def l0_maps(maps: Mapping[int, Tensor], otherwise: str) -> go.Figure:
    """L0 of each patch relative to the mean of its layer; maps: (P, h, w) by layer."""
    rows, columns = max(1, -(-len(maps) // 4)), max(1, min(4, len(maps)))
    figure = side_by_side((f"layer {layer}" for layer in maps), rows=rows, columns=columns, shared_yaxes=False)
    relative = [(found.mean(0) / found.mean() - 1).numpy() for found in maps.values()]
    for i, found in enumerate(relative):
        style = {"coloraxis": "coloraxis", "hovertemplate": "%{z:+.0%}"}
        figure.add_heatmap(z=found, **style, row=i // 4 + 1, col=i % 4 + 1)
    reach = max((float(abs(found).max()) for found in relative), default=1.0)
    figure.update_xaxes(visible=False).update_yaxes(visible=False, autorange="reversed")
    figure.for_each_yaxis(lambda axis: axis.update(scaleanchor=axis.anchor))
    bar = {"tickformat": "+.0%", "title": {"text": "L0, less<br>the layer's<br>mean"}}
    colours = {"colorscale": DIVERGING, "cmin": -reach, "cmax": reach, "colorbar": bar}
    figure.update_layout(coloraxis=colours, height=60 + 190 * rows, margin={"t": 40, "b": 10})
    return unless_empty(figure, otherwise)


def alive(suite: Suite) -> go.Figure:
    """Share of latents alive over the depth, a panel a kind, a line a scope; dotted: the released SAEs of CLS."""
    figure, layers = side_by_side(suite.kinds), suite.layers()
    depth = [layer / max(1, suite.model.n_layers - 1) for layer in layers]
    for column, kind in enumerate(suite.kinds, 1):
        for scope in suite.scopes:
            shares = [suite.alive[f"{layer}.{STREAM}", scope, kind] for layer in layers]
            style = {"name": SCOPES[scope], "line_color": SCOPE_COLOURS[scope], "showlegend": column == 1}
            figure.add_scatter(x=depth, y=shares, **style, row=1, col=column)
        published = np.array(RELEASED_ALIVE.get(kind, [])) / 100
        style = {"name": "CLS only, published", "line": {"dash": "dot", "color": GREY}, "showlegend": column == 1}
        figure.add_scatter(x=np.linspace(0, 1, len(published)), y=published, **style, row=1, col=column)
    figure.update_xaxes(title="depth: 0 the first block, 1 the last")
    figure.update_yaxes(tickformat=".0%", range=[0, 1.05]).update_yaxes(title="latents alive", col=1)
    return figure.update_layout(height=360, legend=BELOW)


def recovered(spliced: SplicedSuite, otherwise: str) -> go.Figure:
    """Cross-entropy recovered over the layers, a row a sublayer, a column a scope; unknown shares are left out."""
    suite = spliced.suite
    panels = [(sublayer, scope) for sublayer in suite.sublayers for scope in suite.scopes]
    heads = [f"{SCOPES[scope]}, {sublayer}" for sublayer, scope in panels]
    shape, sharing = (max(1, len(suite.sublayers)), len(suite.scopes)), {"shared_xaxes": True, "shared_yaxes": False}
    figure = side_by_side(heads, 0.06, *shape, vertical_spacing=0.14, **sharing)
    for i, (sublayer, scope) in enumerate(panels):
        for kind, colour in kind_colours(suite).items():
            back = {x: spliced.back[f"{x}.{sublayer}", scope, kind]["loss"] for x in suite.layers(sublayer)}
            known = {layer: share for layer, share in back.items() if np.isfinite(share.value)}
            style = {"name": kind, "legendgroup": kind, "showlegend": i == 0, "line_color": colour}
            points = with_bars(list(known.values()), **THIN_BARS) | {"x": list(known)}
            figure.add_scatter(**points, **style, row=i // shape[1] + 1, col=i % shape[1] + 1)
    figure.add_hline(1, line=DOTTED)
    figure.update_yaxes(tickformat=".0%").update_yaxes(title="CE recovered", col=1)
    figure.update_xaxes(dtick=2, range=[-0.4, suite.model.n_layers - 0.6]).update_xaxes(title="layer", row=shape[0])
    figure.update_layout(height=520, legend=BELOW)
    return unless_empty(figure, otherwise)


def two_forms(spliced: SplicedSuite, otherwise: str) -> go.Figure:
    """Cross-entropy recovered in the published form over ours, a point a site; dotted: the model untouched."""
    scopes = spliced.suite.scopes
    figure = side_by_side((SCOPES[x] for x in scopes), 0.07, shared_yaxes=False)
    for column, scope in enumerate(scopes, 1):
        table = spliced.zero_shot(spliced.suite.of_scope(scope))
        for kind, colour in kind_colours(spliced.suite).items():
            rows = table[(table["kind"] == kind) & table["CE back"].notna()]
            style = {"mode": "markers", "name": kind, "marker_color": colour, "showlegend": column == 1}
            style["text"] = rows["layer"].astype(str) + "." + rows["sublayer"]
            figure.add_scatter(x=rows["CE back"], y=rows["publ. back"], **style, row=1, col=column)
        figure.add_hline(1, line=DOTTED, row=1, col=column).add_vline(1, line=DOTTED, row=1, col=column)
    figure.update_xaxes(title="our form", tickformat=".0%").update_yaxes(tickformat=".0%")
    figure.update_yaxes(title="published form", col=1)
    figure.update_layout(height=360, legend=BELOW)
    return unless_empty(figure, otherwise)
