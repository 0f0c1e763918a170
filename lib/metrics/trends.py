"""Is there a trend over ordered levels, or would shuffled levels show one as large?"""

from __future__ import annotations

from typing import TypedDict

import numpy as np

_ENTRIES = 1 << 22  # numbers of a block of permutations


class Trend(TypedDict):
    """Effect in [-1, 1], and how often shuffled levels give one as large: rising, falling, in either direction."""

    effect: float
    p_rising: float
    p_falling: float
    p: float
    n: int


def trend_test(values, levels, n_permutations: int = 9999, seed: int = 0) -> Trend:
    """Permutation test of Jonckheere and Terpstra for values that rise, or fall, from level to level.

    values: `(n,)` numbers; NaN are left out. levels: `(n,)` their levels, numbers whose order counts. The effect is
    how much more often the value of the higher level is the larger one, over all pairs of values of different levels:
    P(larger) - P(smaller), which is Somers' D of values given levels; the Jonckheere-Terpstra statistic is the same
    number on another scale. Ties count half to either side.

    The null hypothesis is that levels say nothing about values: each permutation deals the same levels out anew, and
    p = (1 + permutations with an effect as large) / (1 + permutations), which is valid for any number of them
    (Phipson and Smyth, 2010). `n` is the number of values that took part; with a single level all p are 1.

    Raises ValueError for shapes that differ or no permutations.
    """
    values, levels = np.asarray(values, dtype=np.float64), np.asarray(levels)
    if values.ndim != 1 or values.shape != levels.shape:
        raise ValueError(f"values and levels must be (n,) both, got {values.shape} and {levels.shape}.")
    if n_permutations < 1:
        raise ValueError(f"n_permutations is {n_permutations}: a permutation test needs at least one.")
    order = np.argsort(values, kind="stable")[: int((~np.isnan(values)).sum())]  # NaN sort last
    _, levels = np.unique(levels[order], return_inverse=True)
    n, n_levels = len(order), int(levels.max(initial=0)) + 1
    _, first, count = np.unique(values[order], return_index=True, return_counts=True)
    ties = np.repeat(first, count), np.repeat(first + count, count)  # (n,) where an entry's equals begin and end
    sizes = np.bincount(levels, minlength=1)
    pairs = (n * n - int((sizes * sizes).sum())) // 2
    observed = int(_lead(levels[None], n_levels, *ties)[0])

    rng = np.random.default_rng(seed)
    leads = [np.empty(0, dtype=np.int64)]
    for start in range(0, n_permutations, block := max(1, _ENTRIES // max(1, n))):
        shuffled = np.tile(levels, (min(block, n_permutations - start), 1))
        leads.append(_lead(rng.permuted(shuffled, axis=1, out=shuffled), n_levels, *ties))
    lead = np.concatenate(leads)
    larger, smaller, either = lead >= observed, lead <= observed, np.abs(lead) >= abs(observed)
    p_rising, p_falling, p = ((1 + int(hits.sum())) / (1 + n_permutations) for hits in (larger, smaller, either))
    return Trend(effect=observed / pairs if pairs else 0.0, p_rising=p_rising, p_falling=p_falling, p=p, n=n)


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
