"""Trends over the levels of a nested dictionary, compared with a dictionary without levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import Tensor

from experiments.hierarchy import by_level
from experiments.tables import number
from experiments.trends import trend_test
from lib import metrics
from lib.metrics.intervals import Interval

NESTED, CONTROL = "Matryoshka", "BatchTopK"
ORDERS = {
    "Matryoshka": (NESTED, "index"),
    "BatchTopK, by index": (CONTROL, "index"),
    "BatchTopK, by frequency": (CONTROL, "frequency"),
    "Matryoshka, by frequency": (NESTED, "frequency"),
}
"""Name of a comparison: its dictionary, and what its features are sorted by before they are split into levels."""
BANDS = 10  # quantile bands of frequency, within which features count as equally frequent

Values = Mapping[str, Tensor]
"""(F,) numbers by dictionary, NaN for a feature without one."""


@dataclass(frozen=True, eq=False)
class Levels:
    """A dictionary with levels and one without, both of F features, split at the same ends.

    codes: (N, F) by dictionary; ends: where levels end, the last one at F; n_bootstrap: resamples behind an interval;
    n_permutations: shuffles behind a p-value.
    """

    codes: Mapping[str, Tensor]
    ends: Sequence[int]
    n_bootstrap: int = 2000
    n_permutations: int = 9999

    @cached_property
    def frequency(self) -> dict[str, Tensor]:
        """(F,) by dictionary: share of the pictures on which each feature is active."""
        return {name: metrics.sparsity(codes)["density"] for name, codes in self.codes.items()}

    @cached_property
    def of_feature(self) -> Tensor:
        """(F,) the level of the feature at each place."""
        ends = torch.tensor(self.ends)
        return torch.arange(len(ends)).repeat_interleave(ends.diff(prepend=torch.zeros(1, dtype=ends.dtype)))

    @cached_property
    def _features(self) -> dict[str, Tensor]:
        """(F,) features in each order; sorting by frequency is stable."""
        by = {"index": lambda name: torch.arange(self.ends[-1])}
        by["frequency"] = lambda name: self.frequency[name].argsort(descending=True, stable=True)
        return {order: by[key](name) for order, (name, key) in ORDERS.items()}

    def sorted(self, values: Values, order: str) -> Tensor:
        """(F,) a dictionary's values in this order."""
        return values[ORDERS[order][0]][self._features[order]]

    def parts(self, values: Values, order: str) -> list[Tensor]:
        """`sorted`, split into a tensor for each level."""
        return [self.sorted(values, order)[self.of_feature == level] for level in range(len(self.ends))]

    def summary(self, values: Values, order: str) -> pd.DataFrame:
        """One row a level, as `by_level` gives it."""
        alive = self.sorted(self.frequency, order) > 0
        return pd.DataFrame(by_level(self.sorted(values, order), self.ends, alive)).rename_axis("level")

    def table(self, values: Values, order: str, beside: Mapping[str, Values]) -> pd.DataFrame:
        """One row a level: counts, statistics of the values, means of other values, share of active pictures."""
        rows = self.summary(values, order)[["live", "dead", "excluded", "mean", "std", "min", "max"]]
        others = {name: self.summary(other, order)["mean"] for name, other in beside.items()}
        active = [float(part.mean()) for part in self.parts(self.frequency, order)]
        return rows.assign(**others, **{"active on": active})

    def means(self, values: Values, order: str) -> list[Interval]:
        """The mean of each level."""
        return [metrics.mean_interval(part, self.n_bootstrap) for part in self.parts(values, order)]

    def last_minus_first(self, values: Values, order: str) -> Interval:
        """Difference of the means of the last and the first level."""
        parts = self.parts(values, order)
        return metrics.bootstrap(lambda a, b: b.mean(1) - a.mean(1), parts[0], parts[-1], n=self.n_bootstrap)

    def trends(self, values: Values) -> pd.DataFrame:
        """The permutation test for every order, and for the nested dictionary within bands of frequency."""
        rows = {order: self._trend(values, order) for order in ORDERS}
        valued = self.frequency[NESTED].where(~values[NESTED].isnan(), torch.nan).double().numpy()
        bands = pd.qcut(valued, BANDS, labels=False, duplicates="drop")
        rows["Matryoshka, equally frequent"] = self._trend(values, "Matryoshka", bands)
        names = {"p_rising": "p (rising)", "p_falling": "p (falling)", "n": "features"}
        return pd.DataFrame(rows).T.rename(columns=names)

    def _trend(self, values: Values, order: str, strata: np.ndarray | None = None) -> dict[str, float]:
        test = trend_test(self.sorted(values, order), self.of_feature, strata, self.n_permutations)
        return {key: test[key] for key in ("effect", "p", "p_rising", "p_falling", "n")}

    def frequency_falls(self) -> str:
        """Rank correlation of the nested dictionary's levels and frequencies, in a sentence."""
        rank = spearmanr(self.of_feature, self.frequency[NESTED]).statistic
        return f"Rank correlation of Matryoshka's level and frequency: **{number(rank, '.2f')}**."


def describe_trends(what: str, tests: pd.DataFrame) -> list[str]:
    """A sentence for each row of `Levels.trends`."""
    return [f"{what}, {order}: {_verdict(row)}" for order, row in tests.iterrows()]


def _verdict(row: pd.Series) -> str:
    if not np.isfinite(row["effect"]):
        return "not enough features with a value to compare levels."
    trend = "rises with the level" if row["effect"] > 0 else "falls with the level"
    trend = "no more of a trend than shuffled levels give" if row["p"] > 0.05 else f"**{trend}**"
    return f"{trend} (effect {row['effect']:+.2f}, p = {row['p']:.4f})."
