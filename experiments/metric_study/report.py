"""What the study found, as tables and sentences computed from it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from experiments.metric_study.agreement import (
    AGAINST,
    BLIND,
    COLUMNS,
    FOLLOWS,
    OPEN,
    SIZE_ALONE,
    interval,
    permuted,
    table,
    verdict,
)
from experiments.metric_study.dictionaries import NEURONS, PLANTED, RANDOM, TRAINED
from experiments.metric_study.measures import DIRECTION, FOUND, MEANT, TRUTH
from experiments.tables import MISSING, number
from lib.metrics.intervals import Interval

ARROWS = {1: "↑", -1: "↓"}
FAMILIES = (TRAINED, RANDOM, NEURONS, PLANTED)


def intervals(rows: pd.DataFrame, n: int) -> tuple[dict[str, Interval], dict[str, Interval]]:
    """Rank correlation of each metric with the truth inside sizes, and the same with the truth permuted."""
    mixed = permuted(rows)
    measured = [metric for metric in DIRECTION if rows[metric].notna().any()]
    return tuple({metric: interval(some, metric, n=n) for metric in measured} for some in (rows, mixed))


def verdicts(rows: pd.DataFrame, found: Mapping[str, Interval]) -> pd.DataFrame:
    """The chapter's table: a row a metric, the best ranked first."""
    figures = table(rows)
    shown = figures.loc[list(found)].drop(columns="one size")
    shown.insert(0, "one size", [_short(found[metric]) for metric in shown.index])
    shown.insert(1, "verdict", [verdict(found[metric], figures.loc[metric]) for metric in shown.index])
    shown = shown.loc[sorted(found, key=lambda metric: -np.nan_to_num(found[metric].value, nan=-2))]
    return shown.rename(index=lambda metric: f"{metric} {ARROWS[DIRECTION[metric]]}").rename_axis("metric")


def _short(one: Interval) -> str:
    parts = [number(part, ".2f") for part in one]
    return f"{parts[0]} [{parts[1]}, {parts[2]}]" if MISSING not in parts else parts[0]


def legend() -> str:
    """What each column of the table is, as a list."""
    return "\n".join(f"- *{name}*: {meaning}." for name, meaning in COLUMNS.items())


def families(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean truth and some metrics of each family of dictionaries, trained ones at the most steps."""
    full = rows[(rows["family"] != TRAINED) | (rows["steps"] == rows["steps"].max())]
    planted = full["planted"].map(lambda share: f" {share:.0%}" if share else "")
    means = full.assign(family=full["family"] + planted).groupby("family", sort=False)
    columns = [FOUND, MEANT, TRUTH, "explained variance", "L0", "MS", "sparse probing", "steerability"]
    return means[columns].mean().assign(n=means.size())


def summary(shown: pd.DataFrame, rows: pd.DataFrame, null: Mapping[str, Interval]) -> str:
    """What was found, in sentences; null: correlations with the truth permuted."""
    lines = []
    for what, text in (
        (FOLLOWS, "rank dictionaries of one size as the truth does, and trained ones above untrained ones"),
        (SIZE_ALONE, "follow the truth, but size alone moves them more"),
        (BLIND, "see no difference of quality among dictionaries of one size"),
        (AGAINST, "rank dictionaries of one size *against* the truth"),
        (OPEN, "are undecided: too few dictionaries, or too wide an interval"),
    ):
        named = [name for name, one in shown["verdict"].items() if one == what]
        lines.append(f"- **{len(named)} of {len(shown)}** metrics {text}{': ' + ', '.join(named) if named else ''}.")
    by_chance = sum(one.low is not None and (one.low > 0 or one.high < 0) for one in null.values())
    lines.append(f"- With the truth permuted, the intervals of {by_chance} of {len(null)} metrics leave 0 out.")
    full = rows[(rows["family"] == TRAINED) & (rows["steps"] == rows["steps"].max())][TRUTH].mean()
    untrained = rows[rows["family"].isin([RANDOM, NEURONS])][TRUTH].mean()
    lines.append(
        f"- The truth itself: {number(full, '.2f')} for trained dictionaries on average, {number(untrained, '.2f')} "
        "for untrained ones of the same sizes."
    )
    return "\n".join(lines)
