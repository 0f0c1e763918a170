"""Effects of changing one setting of a training recipe, compared with the spread over seeds."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from torch import Tensor

from experiments.repeated_runs import over_runs
from experiments.tables import number
from lib import SAE, metrics
from lib.metrics.intervals import Interval

MEASURES = {"explained variance": ".3f", "L0": ".2f", "dead": ".1%", "mean MS": ".3f", "best MS": ".3f"}
"""Measures of a dictionary, with the format of each."""
OURS = "this book"
"""The variant that the others are compared with."""


def measure(sae: SAE, x: Tensor, judge: Tensor) -> dict[str, float]:
    """`MEASURES` of a dictionary on activations (N, d); judge: embeddings (N, E) of the same pictures."""
    codes = sae.encode_sparse(x)
    fit, sparse = metrics.reconstruction(x, sae.decode(codes)), metrics.sparsity(codes)
    score = metrics.monosemanticity(codes, judge)
    values = fit["explained_variance"], sparse["l0"], sparse["dead"], score.nanmean(), score.nan_to_num(-1).max()
    return dict(zip(MEASURES, map(float, values), strict=True))


def change(differences: Sequence[float]) -> Interval:
    """Mean of paired differences, one a seed, with its 95 % interval by Student's t."""
    values = np.asarray(differences, float)
    return over_runs(lambda some: float(values[some].mean()), range(len(values)))


def clear(effect: Interval) -> bool:
    """Whether the effect has an interval that excludes zero."""
    return effect.low is not None and (effect.low > 0 or effect.high < 0)


def describe(effect: Interval, name: str) -> str:
    """An effect as text, with the name of its measure."""
    form = "+" + MEASURES.get(name, ".3f")
    value, low, high = (number(part, form) for part in effect)
    return f"{name} {value} [{low}, {high}]" + ("" if clear(effect) else ", within the noise")


@dataclass(frozen=True, eq=False)
class Effects:
    """Recipes that differ from this book's in one setting; values: measures by kind, variant and seed."""

    values: Mapping[tuple[str, str, Hashable], Mapping[str, float]]

    @cached_property
    def by_variant(self) -> pd.core.groupby.DataFrameGroupBy:
        table = pd.DataFrame(self.values).T.rename_axis(["kind", "variant", "seed"])
        return table.groupby(level=["kind", "variant"], sort=False)

    def table(self) -> pd.DataFrame:
        """Mean and standard deviation over the seeds."""
        return self.by_variant.agg(["mean", "std"])

    def of(self, kind: str, name: str) -> pd.DataFrame:
        """The measures of one variant, a row a seed."""
        return self.by_variant.get_group((kind, name)).droplevel(["kind", "variant"])

    @cached_property
    def changes(self) -> dict[str, dict[str, Interval]]:
        """Effects by variant and measure, relative to this book's dictionaries of the same kind and seeds."""
        pairs = [(kind, name) for kind, name in dict.fromkeys(key[:2] for key in self.values) if name != OURS]
        return {
            name: {what: change(self.of(kind, name)[what] - self.of(kind, OURS)[what]) for what in MEASURES}
            for kind, name in pairs
        }

    def sentence(self, name: str, measures: Sequence[str] = ("explained variance", "mean MS")) -> str:
        return f"{name}: " + "; ".join(describe(self.changes[name][what], what) for what in measures)

    def beyond_noise(self, measures: Sequence[str]) -> dict[str, bool]:
        """Whether some measure of a variant changes beyond the spread over seeds."""
        return {name: any(clear(effect[what]) for what in measures) for name, effect in self.changes.items()}
