"""Claims of papers on other kinds of dictionaries and on ensembles, each as a difference over runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from experiments.repeated_runs import STABILITY, RepeatedRuns
from experiments.tables import MISSING, number
from lib.metrics.intervals import Interval

PLAIN, ARCHETYPES = ("topk", "random"), ("archetypal", "data")
"""Kind and initialisation of decoder rows: random, or the same data points in every run."""


def claims_of(kinds: RepeatedRuns, beginnings: RepeatedRuns, ensembles: RepeatedRuns) -> dict[str, Interval]:
    """Measurements by claim id; only those whose dictionaries were trained."""
    claims = {
        "gated-cures-shrinkage": kinds.gain("relu", "gated", "shrinkage"),
        "gated-beats-relu": kinds.gain("gated", "relu"),
        "jumprelu-beats-gated": kinds.gain("jumprelu", "gated"),
        "jumprelu-beats-topk": kinds.gain("jumprelu", "topk"),
        "jumprelu-as-monosemantic": kinds.gain("jumprelu", "gated", "MS"),
        "vsae-explains-less": kinds.gain("vsae", "topk"),
        "vsae-has-more-dead": kinds.gain("vsae", "topk", "dead"),
        "monoloss-raises-the-score": kinds.gain("monoloss", "batchtopk", "MS"),
        "monoloss-price": kinds.gain("monoloss", "batchtopk"),
        "archetypes-are-stable": beginnings.gain(ARCHETYPES, PLAIN, STABILITY),
        "archetypes-reconstruct": beginnings.gain(ARCHETYPES, PLAIN),
        "archetypes-without-their-beginning": beginnings.gain(("archetypal", "random"), PLAIN, STABILITY),
        "a-beginning-without-archetypes": beginnings.gain(("topk", "data"), PLAIN, STABILITY),
    }
    for name in ("bagging", "boosting"):
        claims |= {
            f"{name}-explains-more": ensembles.gain(name, "expanded"),
            f"{name}-at-equal-l0": ensembles.gain(name, "expanded, as many active"),
            f"{name}-is-more-stable": ensembles.gain(name, "expanded", STABILITY),
        }
    return {name: claim for name, claim in claims.items() if math.isfinite(claim.value)}


def claims_of_nulls(kinds: RepeatedRuns, beginnings: RepeatedRuns, ensembles: RepeatedRuns) -> dict[str, Interval]:
    """The same of nulls; none for dead latents, of which a null has as many as its dictionary by construction."""
    claims = claims_of(kinds, beginnings, ensembles)
    return {name: claim for name, claim in claims.items() if name != "vsae-has-more-dead"}


def beside_nulls(runs: RepeatedRuns, nulls: Mapping[str, RepeatedRuns], columns: Sequence[str]) -> pd.DataFrame:
    """Measures of each name and of its nulls, and how far it is above the last of them: a row a name."""
    above, last = list(nulls.items())[-1]
    return pd.DataFrame(
        {
            name: {
                **{(column, "features"): runs.mean(name, column, runs.runs) for column in columns},
                **{(c, null): of.mean(name, c, of.runs) for c in columns for null, of in nulls.items()},
                **{(column, f"above {above}"): runs.above(last, name, column) for column in columns},
            }
            for name in runs.names
        }
    ).T[[(column, of) for column in columns for of in ("features", *nulls, f"above {above}")]]


def describe_beside(beside: pd.DataFrame, frozen: Sequence[str] = ()) -> str:
    """How far features are above their nulls, a line a measure; beside: of `beside_nulls`; frozen: kinds that are
    nulls.
    """
    lines = []
    for column in dict.fromkeys(column for column, _ in beside):
        found = beside[column][[math.isfinite(gain.value) for gain in beside[column].iloc[:, -1]]]
        halves, found = found[found.index.isin(frozen)], found[~found.index.isin(frozen)]
        if not len(found):
            continue
        nulls, gains = found.iloc[:, 1:-1], found.iloc[:, -1]
        clear = sum(gain.low is not None and gain.low > 0 for gain in gains)
        reached = ", ".join(f"`{kind}`" for kind in found.index if nulls.loc[kind].max() >= found.loc[kind, "features"])
        told = [f"{name} as sparse {_range(nulls[name])}" for name in nulls]
        told += [f"`{kind}` {number(value, '.2f')}" for kind, value in halves["features"].items()]
        lines.append(
            f"- {column}: features {_range(found['features'])}; nulls: {', '.join(told)}. {clear} of {len(found)} "
            f"kinds are above {nulls.columns[-1]} by their whole interval; those as sparse reach {reached or 'none'}."
        )
    return "\n".join(lines)


def _range(values: pd.Series) -> str:
    return f"{number(values.min(), '.2f')} to {number(values.max(), '.2f')}"


def summary(claims: Mapping[str, Interval], null: Mapping[str, Interval], means: pd.DataFrame, k: float) -> str:
    """The chapter's result in four lines, differences beside those of nulls.

    means: a row a kind; k: active latents a picture, of all kinds.
    """

    def said(name: str, unit: float = 1) -> str:
        value, low, high = (number(x and unit * x, "+.3g") for x in claims.get(name, Interval(math.nan)))
        of_null = number(unit * null[name].value, "+.3g") if name in null else MISSING
        return f"{value} [{low}, {high}] (null: {of_null})"

    words = {"explained variance": "explains most", "MS": "has the most monosemantic features"}
    words[STABILITY] = "the most stable ones, with {:.0%} of its latents dead"
    best = {column: means[column].idxmax() for column in words if means[column].notna().any()}
    firsts = [f"`{kind}` {words[column].format(means.loc[kind, 'dead'])}" for column, kind in best.items()]
    return "\n".join(
        [
            f"- At {k} active latents a picture {', '.join(firsts)}.",
            f"- With its score in the loss, MS of BatchTopK changes by {said('monoloss-raises-the-score')}, and "
            f"explained variance by {said('monoloss-price', 100)} points.",
            f"- Archetypes with a shared beginning change stability by {said('archetypes-are-stable')}; without it by "
            f"{said('archetypes-without-their-beginning')}; the shared beginning alone, in TopK, by "
            f"{said('a-beginning-without-archetypes')}.",
            f"- Against a single SAE with as many latents, explained variance changes by "
            f"{said('bagging-explains-more', 100)} points with bagging and {said('boosting-explains-more', 100)} with "
            f"boosting; with as many of them active, by {said('bagging-at-equal-l0', 100)} and "
            f"{said('boosting-at-equal-l0', 100)}.",
        ]
    )
