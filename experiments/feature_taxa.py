"""Taxa of a dictionary's features, and agreement of its co-activation tree with the taxonomy of the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from torch import Tensor

from experiments.ground_truth import rank_names
from experiments.hierarchy import Parents
from experiments.tables import number
from lib.devices import to_numpy

Taxon = tuple[str, ...]
"""A path from the widest taxon; `()` is none."""


class TreeAgreement(NamedTuple):
    """Agreement of a co-activation tree with the taxonomy."""

    linked: int  # features with a parent
    lift: float  # median of theirs
    pairs: int  # pairs of a feature and its parent that both have a taxon
    inside: float  # share of the pairs in which the feature's taxon lies in its parent's, or is the same
    by_chance: float  # the same with the parents shuffled

    def describe(self) -> list[str]:
        """In sentences."""
        return [
            f"{self.linked:,} features have a parent; half of them are active with it more than "
            f"**{number(self.lift, '.1f')} times** as often as by chance.",
            f"Of {self.pairs:,} pairs in which both features have a taxon, the feature's lies within its "
            f"parent's in **{number(self.inside, '.0%')}**; with the same parents shuffled in "
            f"{number(self.by_chance, '.0%')}.",
        ]


@dataclass(frozen=True, eq=False)
class FeatureTaxa:
    """The F features of a dictionary with levels.

    taxon: of each; level: (F,); known: (F,) bool, those with enough pictures; depth: ranks of the taxonomy.
    """

    taxon: Sequence[Taxon]
    level: Tensor
    known: Tensor
    depth: int

    def ranks(self) -> pd.DataFrame:
        """Share of each level's features by the rank of their taxon: levels by ranks."""
        found = {"level": to_numpy(self.level), "rank": [len(path) for path in self.taxon]}
        rows = pd.DataFrame(found)[to_numpy(self.known)]
        shares = pd.crosstab(rows["level"], rows["rank"], normalize="index")
        shares = shares.reindex(columns=range(self.depth + 1), fill_value=0)
        return shares.set_axis(["none", *rank_names(self.depth)], axis=1)

    def by_taxon(self) -> dict[Taxon, tuple[list[int], int]]:
        """For each taxon the levels of the features of it or a taxon below, and the number of features of it itself."""
        below: dict[Taxon, list[int]] = {}
        itself: dict[Taxon, int] = {}
        for feature in np.flatnonzero(to_numpy(self.known)):
            path = self.taxon[feature]
            itself[path] = itself.get(path, 0) + 1
            for rank in range(len(path) + 1):
                below.setdefault(path[:rank], []).append(int(self.level[feature]))
        return {path: (levels, itself.get(path, 0)) for path, levels in below.items()}

    def agreement_with(self, family: Parents, seed: int = 0) -> TreeAgreement:
        """How often a feature's taxon lies within its parent's; seed: of the shuffled parents."""
        linked, parent = to_numpy(family.feature >= 0), family.feature.tolist()
        known, taxon = to_numpy(self.known), self.taxon
        pairs = [
            (taxon[child], taxon[parent[child]])
            for child in np.flatnonzero(linked & known)
            if known[parent[child]] and taxon[child] and taxon[parent[child]]
        ]
        order = np.random.default_rng(seed).permutation(len(pairs))
        shuffled = [(below, pairs[i][1]) for (below, _), i in zip(pairs, order, strict=True)]
        lift = float(family.lift[family.feature >= 0].median()) if linked.any() else float("nan")
        return TreeAgreement(int(linked.sum()), lift, len(pairs), _inside(pairs), _inside(shuffled))


def _inside(pairs: Sequence[tuple[Taxon, Taxon]]) -> float:
    return float(np.mean([below[: len(above)] == above for below, above in pairs] or [np.nan]))
