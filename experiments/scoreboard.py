"""The scoreboard: each claim with its published value, the measured one, and that of its null."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
import plotly.graph_objects as go
from pandas.io.formats.style import Styler

from experiments.claims import (
    AGREES,
    AS_NULL,
    CHECK,
    DIFFERS,
    NOT_RUN,
    OURS,
    UNDECIDED,
    UNTESTABLE,
    Claim,
    Measurement,
)
from experiments.markup import as_html
from experiments.plots import AMBER, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY

COLOURS = {
    AGREES: GREEN, AS_NULL: PURPLE, DIFFERS: ORANGE, UNDECIDED: AMBER, CHECK: SKY, OURS: BLUE,
    UNTESTABLE: GREY, NOT_RUN: GREY,
}  # fmt: skip
MARKS = {
    AGREES: "✓", AS_NULL: "∅", DIFFERS: "✗", UNDECIDED: "≈", CHECK: "✓", OURS: "?", UNTESTABLE: "–", NOT_RUN: "–",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Scoreboard:
    """Claims and what a profile measured of them, by id; world: its pictures, menagerie or photographs.

    elsewhere: what committed runs on photographs measured (`assets/measured`), by id.
    """

    claims: Sequence[Claim]
    here: Mapping[str, Measurement]
    world: str
    elsewhere: Mapping[str, Measurement]

    @cached_property
    def verdicts(self) -> dict[str, str]:
        """Verdicts by id."""
        return {claim.id: claim.verdict(self.here.get(claim.id), self.world) for claim in self.claims}

    @property
    def counts(self) -> pd.Series:
        """Claims by verdict, in the order of the legend; without empty ones."""
        counts = pd.Series(self.verdicts).value_counts()
        return counts.reindex([verdict for verdict in COLOURS if verdict in counts.index])

    def figure(self) -> go.Figure:
        """How many claims have which verdict, as one bar."""
        figure = go.Figure()
        for verdict, n in self.counts.items():
            bar = {"text": [n], "textposition": "inside", "insidetextanchor": "middle", "orientation": "h"}
            figure.add_bar(x=[n], y=[""], name=verdict, marker_color=COLOURS[verdict], **bar)
        figure.update_layout(
            barmode="stack", height=260, legend={"orientation": "h", "y": -0.7, "traceorder": "normal"}
        )
        figure.update_xaxes(title="claims and questions").update_yaxes(showticklabels=False)
        return figure

    def table(self, *kinds: str) -> Styler:
        """A row a claim of some kinds; the texts of the claims are escaped."""
        rows = [self._row(claim) for claim in self.claims if claim.kind in kinds]
        left = {"text-align": "left", "vertical-align": "top", "white-space": "normal"}
        return pd.DataFrame(rows).style.hide(axis="index").set_properties(**left)

    def _row(self, claim: Claim) -> dict[str, str]:
        measured, verdict = self.here.get(claim.id), self.verdicts[claim.id]
        shown = f'<span style="color: {COLOURS[verdict]}">{MARKS[verdict]}</span> {as_html(verdict)}'
        row = {
            "claim": f"{as_html(claim.claim)}<br><i>{as_html(claim.paper)}, {as_html(claim.where)}</i>",
            "published": as_html(claim.published),
            "measured here": f"{as_html(claim.quantity)}:<br>{_measured(claim, measured)}",
            "its null": "" if measured is None or measured.null is None else _interval(claim, measured.null),
        }
        if self.elsewhere:
            other = self.elsewhere.get(claim.id)
            row["on photographs, its null"] = "" if other is None else _beside_null(claim, other)
        why = f"<br>{as_html(claim.untestable[self.world])}" if verdict == UNTESTABLE else ""
        rule = f"<br><i>{_rule(claim)}</i>" if claim.agrees_when else ""
        return row | {"verdict": shown + why + rule}

    def describe(self) -> str:
        """The verdicts in sentences: how many of each, and which claims their nulls reach."""
        counts = ", ".join(f"**{n}** {verdict}" for verdict, n in self.counts.items())
        description = f"Of {len(self.claims)} claims and questions in this profile: {counts}."
        reached = [claim.claim.rstrip(" .…") for claim in self.claims if self.verdicts[claim.id] == AS_NULL]
        return description + (f" Reached by their nulls: {'; '.join(reached)}." if reached else "")


def _rule(claim: Claim) -> str:
    (how, bound), seen = next(iter(claim.agrees_when.items())), "after" if claim.seen else "before"
    where = " and ".join(f"{x:g}" for x in bound) if how == "between" else f"{bound:g}"
    return f"rule: {how} {where}; set {claim.set}, {seen} a result was seen"


def _interval(claim: Claim, found: Measurement) -> str:
    bounds = [_number(bound, claim.unit) for bound in (found.low, found.high)]
    return f"<b>{_number(found.value, claim.unit)}</b>" + (f" [{bounds[0]}, {bounds[1]}]" if all(bounds) else "")


def _beside_null(claim: Claim, found: Measurement) -> str:
    return _interval(claim, found) + ("" if found.null is None else f"<br>null {_interval(claim, found.null)}")


def _measured(claim: Claim, found: Measurement | None) -> str:
    if found is None:
        return f"not run here ({as_html(claim.measured_by)})"
    return f'{_interval(claim, found)}<br><a href="{as_html(found.notebook)}.html">{as_html(found.notebook)}</a>'


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return f"{100 * value:.3g} %" if unit == "share" else f"{value:.3f}"
