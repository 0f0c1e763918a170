"""Permutation test of a trend over ordered levels."""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from lib.devices import check_finite, rows_at_once, to_cpu, to_numpy


class Trend(TypedDict):
    """Effect in [-1, 1] and p-values: rising, falling, two-sided."""

    effect: float
    p_rising: float
    p_falling: float
    p: float
    n: int


def trend_test(values, levels, strata=None, n_permutations: int = 9999, seed: int = 0) -> Trend:
    """Permutation test of Jonckheere and Terpstra for values that rise, or fall, from level to level.

    values: `(n,)` numbers; NaN are left out. levels: `(n,)` their levels, numbers whose order counts. The effect is
    how much more often the value of the higher level is the larger one, over all pairs of values of different levels:
    P(larger) - P(smaller), which is Somers' D of values given levels; the Jonckheere-Terpstra statistic is the same
    number on another scale. Ties count half to either side. strata: `(n,)` groups; with them only values of the same
    group are compared, so that what the groups differ in cannot make a trend.

    The null hypothesis is that levels and values are independent (in a group): each permutation shuffles the levels
    (within groups), and p = (1 + permutations with an effect as large) / (1 + permutations), which is valid for
    any number of them (Phipson and Smyth, 2010). `n` is the number of values that took part; where no two of them can
    be compared all p are 1.

    Raises ValueError for shapes that differ or no permutations.
    """
    values, levels = to_numpy(values).astype(np.float64), to_numpy(levels)
    strata = np.zeros(values.shape) if strata is None else to_numpy(strata)
    if values.ndim != 1 or not values.shape == levels.shape == strata.shape:
        raise ValueError(f"values, levels and strata must be (n,), got {values.shape}, {levels.shape}, {strata.shape}.")
    if n_permutations < 1:
        raise ValueError(f"n_permutations is {n_permutations}: a permutation test needs at least one.")
    check_finite(to_cpu(values), "values", unknown=True)
    check_finite(to_cpu(levels), "levels")
    known = ~np.isnan(values)
    rng = np.random.default_rng(seed)
    lead, pairs = np.zeros(n_permutations + 1, dtype=np.int64), 0  # the first is the order that was observed
    for stratum in np.unique(strata[known]):
        here = known & (strata == stratum)
        leads, comparisons = _shuffled_leads(values[here], levels[here], n_permutations, rng)
        lead, pairs = lead + leads, pairs + comparisons
    observed = lead[0]  # counts itself in each of the following: the 1 of the formula
    p_rising, p_falling = float((lead >= observed).mean()), float((lead <= observed).mean())
    p = float((np.abs(lead) >= abs(observed)).mean())
    effect = float(observed / pairs) if pairs else 0.0
    return Trend(effect=effect, p_rising=p_rising, p_falling=p_falling, p=p, n=int(known.sum()))


def _shuffled_leads(values: np.ndarray, levels: np.ndarray, n: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Leads (n + 1,) of the levels as they are and of n shuffles, and over how many pairs of values they count."""
    order = np.argsort(values, kind="stable")
    _, levels = np.unique(levels[order], return_inverse=True)
    _, first, count = np.unique(values[order], return_index=True, return_counts=True)
    ties = np.repeat(first, count), np.repeat(first + count, count)  # (n,) where an entry's equals begin and end
    sizes = np.bincount(levels)
    parts, block = [_lead(levels[None], len(sizes), *ties)], rows_at_once(len(levels))
    for start in range(0, n, block):
        shuffled = np.tile(levels, (min(block, n - start), 1))
        parts.append(_lead(rng.permuted(shuffled, axis=1, out=shuffled), len(sizes), *ties))
    return np.concatenate(parts), (len(levels) ** 2 - int((sizes**2).sum())) // 2


def _lead(levels: np.ndarray, n_levels: int, tie_start: np.ndarray, tie_stop: np.ndarray) -> np.ndarray:
    """Pairs where the higher level has the larger value minus those where it has the smaller one, for each row.

    levels: (P, n) of values in ascending order, so that an entry is larger than all before its ties begin and smaller
    than all after they end. With T entries of lower levels, an entry leads by before - after = before + to_end - T.
    """
    lead = np.zeros(len(levels), dtype=np.int64)
    for level in range(1, n_levels):
        lower = np.zeros((len(levels), levels.shape[1] + 1), dtype=np.int64)
        np.cumsum(levels < level, axis=1, out=lower[:, 1:])
        leads = lower[:, tie_start] + lower[:, tie_stop] - lower[:, -1:]
        lead += np.where(levels == level, leads, 0).sum(1)
    return lead
