"""How well each metric ranks dictionaries as the truth does, and what else moves it.

The rules below were set before any dictionary of the study was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from experiments.metric_study.dictionaries import NEURONS, PLANTED, RANDOM, TRAINED
from experiments.metric_study.measures import DIRECTION, TRUTH
from experiments.repeated_runs import UNKNOWN
from lib.metrics.intervals import Interval

SIZE, ENTRY = ["expansion", "k"], ["family", "kind", "expansion", "k", "steps", "planted"]
FOLLOWS, SIZE_ALONE, BLIND, AGAINST, OPEN = (
    "follows the truth",
    "follows size more than truth",
    "sees no quality",
    "goes against the truth",
    "undecided",
)
COLUMNS = {
    "all": "rank correlation with the truth, all dictionaries",
    "one size": "the same within dictionaries of one size",
    "planted": "rank correlation with the planted share",
    "steps": "rank correlation with the steps of training",
    "above null": "share of trained dictionaries above untrained ones of their size",
    "sparsity": "rank correlation with k, untrained dictionaries only",
    "width": "rank correlation with the width, untrained dictionaries only",
}


def rank_correlation(x: np.ndarray | pd.Series, y: np.ndarray | pd.Series) -> float:
    """Spearman's rank correlation; NaN with fewer than four pairs or where one side does not vary."""
    pairs = np.stack([x, y]).astype(float)
    pairs = pairs[:, np.isfinite(pairs).all(0)]
    if pairs.shape[1] < 4 or (np.ptp(pairs, axis=1) == 0).any():
        return float("nan")
    return float(np.corrcoef(rankdata(pairs, axis=1))[0, 1])


def within_sizes(rows: pd.DataFrame, metric: str) -> float:
    """Rank correlation with the truth inside each size, averaged over sizes by their numbers of dictionaries."""
    return _within(*_values(rows, metric))


def _values(rows: pd.DataFrame, metric: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every dictionary (n,): the metric, the truth, and the number of its size."""
    return rows[metric].to_numpy(float), rows[TRUTH].to_numpy(float), rows.groupby(SIZE).ngroup().to_numpy()


def _within(values: np.ndarray, truth: np.ndarray, size: np.ndarray) -> float:
    found = [
        (rank_correlation(values[size == one], truth[size == one]), (size == one).sum()) for one in np.unique(size)
    ]
    known, sizes = np.array([pair for pair in found if np.isfinite(pair[0])]).reshape(-1, 2).T
    return float(np.average(known, weights=sizes)) if len(known) else float("nan")


def above_null(rows: pd.DataFrame, metric: str) -> float:
    """Probability that a fully trained dictionary is ahead of an untrained one of its size; ties count one half."""
    of = rows[rows[metric].notna()]
    untrained = of[of["family"].isin([RANDOM, NEURONS])]
    trained = of[(of["family"] == TRAINED) & (of["steps"] == of["steps"].max())]
    found = [
        np.sign(np.subtract.outer(part[metric].to_numpy(), null[metric].to_numpy())).mean() / 2 + 0.5
        for size, part in trained.groupby(SIZE)
        for null in [untrained[(untrained[SIZE] == list(size)).all(axis=1)]]
        if len(null)
    ]
    return float(np.mean(found)) if found else float("nan")


def ladder(rows: pd.DataFrame, metric: str, family: str | Sequence[str], by: str) -> float:
    """Rank correlation with one property among dictionaries of a family that are equal in all others but the seed."""
    part = rows[rows["family"].isin([family] if isinstance(family, str) else family)]
    others = [name for name in ENTRY if name != by]
    found = [rank_correlation(one[metric], one[by]) for _, one in part.groupby(others) if one[by].nunique() > 1]
    return float(np.nanmean(found)) if np.isfinite(found).any() else float("nan")


def column(name: str, rows: pd.DataFrame, metric: str) -> float:
    """One figure of a metric; rows: dictionaries, with metrics turned so that larger is better."""
    untrained = [RANDOM, NEURONS]
    of: dict[str, Callable[[], float]] = {
        "all": lambda: rank_correlation(rows[metric], rows[TRUTH]),
        "one size": lambda: within_sizes(rows, metric),
        "planted": lambda: ladder(rows, metric, PLANTED, "planted"),
        "steps": lambda: ladder(rows, metric, TRAINED, "steps"),
        "above null": lambda: above_null(rows, metric),
        "sparsity": lambda: ladder(rows, metric, untrained, "k"),
        "width": lambda: ladder(rows, metric, untrained, "expansion"),
    }
    return of[name]()


def turned(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with every metric turned so that larger is better."""
    return rows.assign(**{name: rows[name] * sign for name, sign in DIRECTION.items() if name in rows})


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """All figures, a row a metric. rows: one a dictionary, with its entry, its metrics and its truth."""
    better = turned(rows)
    found = {metric: {name: column(name, better, metric) for name in COLUMNS} for metric in DIRECTION if metric in rows}
    return pd.DataFrame(found).T


def interval(rows: pd.DataFrame, metric: str, n: int = 200) -> Interval:
    """`within_sizes` with its 95 % interval over resamples of configurations, each with all its seeds."""
    better = turned(rows)
    values, entry = np.stack(_values(better, metric)), better.groupby(ENTRY).ngroup().to_numpy()
    places = [np.flatnonzero(entry == one) for one in np.unique(entry)]
    draws = np.random.default_rng(0).integers(len(places), size=(n, len(places)))
    found = [_within(*values[:, np.concatenate([places[i] for i in draw])]) for draw in draws]
    found = [one for one in found if np.isfinite(one)]
    value = _within(*values)
    if not np.isfinite(value) or len(found) < n / 2:
        return UNKNOWN
    return Interval(value, *np.quantile(found, [0.025, 0.975]).tolist())


def verdict(found: Interval, figures: pd.Series) -> str:
    """What a metric is worth, by its correlation with the truth within sizes and its other figures.

    It goes against the truth where that interval lies below 0. It follows the truth where the interval lies above 0
    and three of four trained dictionaries are ahead of untrained ones of their size; it follows size more where size
    alone moves it more than the truth does. It sees no quality where the interval holds 0 and is narrower than .6; else
    nothing is decided.
    """
    if found.low is None or not np.isfinite([found.low, found.high]).all():
        return OPEN
    if found.high < 0:
        return AGAINST
    if found.low <= 0:
        return BLIND if found.high - found.low < 0.6 else OPEN
    by_size = np.nanmax([abs(figures["sparsity"]), abs(figures["width"]), 0])
    if by_size > abs(found.value):
        return SIZE_ALONE
    return FOLLOWS if figures["above null"] >= 0.75 else OPEN


def permuted(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """The null: the truth of the dictionaries permuted within their sizes."""
    generator = np.random.default_rng(seed)
    mixed = rows.groupby(SIZE)[TRUTH].transform(lambda values: generator.permutation(values.to_numpy()))
    return rows.assign(**{TRUTH: mixed})
