"""The same dictionaries trained again from other seeds, and their features matched (arXiv 2501.16615, 2502.12892)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib import SAE, metrics
from lib.devices import to_cpu
from lib.metrics.intervals import Interval
from lib.metrics.stability import Matching

DIRECTIONS, CODES = "decoder directions", "codes"
MATCHED_BY = (DIRECTIONS, CODES)
"""How features are matched: by the cosine of decoder rows, or by the correlation of codes."""

Key = tuple[str, int]
"""Kind and seed of a dictionary."""
Pair = tuple[str, int, int]
"""Two dictionaries of one kind, by their seeds."""


def keys_of(kinds: Sequence[str], seeds: Sequence[int]) -> list[Key]:
    """Every kind with every seed, each once. Raises ValueError for fewer than two seeds."""
    if len(set(seeds)) < 2:
        raise ValueError(
            f"seeds is {list(seeds)}: name two or more, for a dictionary is compared with its other seeds."
        )
    return list(dict.fromkeys((kind, seed) for kind in kinds for seed in seeds))


@dataclass(frozen=True, eq=False)
class Reseeded:
    """Dictionaries on the same N pictures.

    codes: (N, F) CSR by key, the keys those of `keys_of`; decoders: (F, d) by key, on the CPU.
    """

    codes: Mapping[Key, Tensor]
    decoders: Mapping[Key, Tensor]

    @classmethod
    def of(cls, saes: Mapping[Key, SAE], x: Tensor) -> Reseeded:
        """SAEs by key, on activations x (N, d)."""
        codes = {key: sae.encode_sparse(x) for key, sae in saes.items()}
        return cls(codes, {key: to_cpu(sae.W_dec).detach() for key, sae in saes.items()})

    @property
    def kinds(self) -> list[str]:
        return list(dict.fromkeys(kind for kind, _ in self.codes))

    @property
    def seeds(self) -> list[int]:
        return list(dict.fromkeys(seed for _, seed in self.codes))

    @cached_property
    def frequency(self) -> dict[Key, Tensor]:
        """(F,) share of the pictures on which each feature is active."""
        return {key: metrics.sparsity(codes)["density"] for key, codes in self.codes.items()}

    def live(self) -> pd.DataFrame:
        """Numbers of live features: kinds by seeds, and the width `of` the dictionaries."""
        live = pd.Series({key: int((share > 0).sum()) for key, share in self.frequency.items()}, name="live features")
        width = len(next(iter(self.decoders.values())))
        return live.rename_axis(["kind", "seed"]).unstack().assign(of=width)

    @property
    def pairs(self) -> list[Pair]:
        return [(kind, a, b) for kind in self.kinds for a, b in combinations(self.seeds, 2)]

    @cached_property
    def matched(self) -> dict[str, dict[Pair, Matching]]:
        """Matchings of live features, by criterion and pair."""
        return {by: {pair: self._match(by, *pair) for pair in self.pairs} for by in MATCHED_BY}

    @cached_property
    def by_chance(self) -> dict[str, dict[Pair, Matching]]:
        """The null: random directions of the second decoder's covariance, or its codes shuffled."""
        return {by: {pair: self._match_by_chance(by, *pair) for pair in self.pairs} for by in MATCHED_BY}

    def _match(self, by: str, kind: str, a: int, b: int) -> Matching:
        one, two = (kind, a), (kind, b)
        if by == CODES:
            return metrics.match_codes(self.codes[one], self.codes[two])
        alive = (self.frequency[key] > 0 for key in (one, two))
        return metrics.match_directions(self.decoders[one], self.decoders[two], *alive)

    def _match_by_chance(self, by: str, kind: str, a: int, b: int) -> Matching:
        one, two = (kind, a), (kind, b)
        if by == CODES:
            return metrics.match_codes(self.codes[one], metrics.shuffled_codes(self.codes[two], seed=b))
        first, second = (self.decoders[key][self.frequency[key] > 0] for key in (one, two))
        return metrics.match_directions(first, metrics.random_directions(second, seed=b))

    def of_kind(self, by: str, kind: str, chance: bool = False) -> list[Matching]:
        """The matchings of one kind, over all pairs of seeds."""
        return [m for (of, _, _), m in (self.by_chance if chance else self.matched)[by].items() if of == kind]

    def table(self) -> pd.DataFrame:
        """Mean similarity over all pairs of seeds, and of the pair that agrees least; a row a kind and criterion."""
        return pd.DataFrame([self._row(kind, by) for kind in self.kinds for by in MATCHED_BY])

    def _row(self, kind: str, by: str) -> dict:
        found, chance = (self.of_kind(by, kind, chance) for chance in (False, True))
        above = {f"above {level}": np.mean([m.share_above(level) for m in found]) for level in (0.7, 0.9)}
        middle = {"mean": np.mean([m.mean for m in found]), "least pair": min(m.mean for m in found)}
        return {"kind": kind, "by": by} | middle | above | {"mean by chance": np.mean([m.mean for m in chance])}

    def agreement(self, n: int) -> Interval:
        """Mean cosine of all matched features, over kinds and pairs of seeds, with an interval over n resamples."""
        return metrics.mean_interval(torch.cat([m.similarity for m in self.matched[DIRECTIONS].values()]), n)

    def mean_to_partners(self, by: str, key: Key) -> Tensor:
        """(F,) each feature's mean similarity to its partners in the other seeds; NaN where it has none."""
        kind, seed = key
        found = torch.full((len(self.decoders[key]), len(self.seeds)), float("nan"))
        for (of, a, b), m in self.matched[by].items():
            if of == kind and seed in (a, b):
                mine, other = (m.left, b) if seed == a else (m.right, a)
                found[mine, self.seeds.index(other)] = m.similarity
        return found.nanmean(1)

    def partners(self, by: str, pair: Pair) -> Tensor:
        """(F,) the partner of each feature of the first seed in the second, -1 for none."""
        return self.matched[by][pair].partners(len(self.decoders[pair[0], pair[1]]))

    def same_partner(self, kind: str) -> float:
        """Share of the features matched by both criteria that have one partner in both, over the pairs of seeds."""
        shares = []
        for pair in self.pairs:
            if pair[0] == kind:
                one, two = (self.partners(by, pair) for by in MATCHED_BY)
                shares.append(float((one == two)[(one >= 0) & (two >= 0)].double().mean()))
        return float(np.mean(shares))
