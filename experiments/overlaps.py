"""Pairs of features with common top pictures, and how many chance gives (arXiv 2504.02821, appendix G)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
import torch
from scipy.stats import hypergeom, spearmanr
from torch import Tensor
from torch.nn.functional import normalize

from experiments.published import UNIQUENESS
from experiments.tables import MISSING, number
from lib import metrics
from lib.metrics.intervals import Interval

Counts = tuple[Tensor, Tensor]
"""Distinct Jaccard indices, ascending, and how many pairs have each."""


def by_chance(n_pictures: int, n_top: int) -> float:
    """Probability that two random sets of n_top of n_pictures pictures have one in common."""
    return float(1 - hypergeom(n_pictures, n_top, n_top).pmf(0))


def share_above(counts: Counts, bound: float) -> float:
    """Share of all pairs with a Jaccard index above the bound; 0 without pairs."""
    values, pairs = counts
    return float(pairs[values > bound].sum() / pairs.sum().clamp_min(1))


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Overlaps of the top pictures of a dictionary's features, and cosines of their decoder directions.

    top: (F, n_top) positions of top pictures among n_pictures, -1 for none; decoder: (F, d).
    """

    top: Tensor
    n_pictures: int
    decoder: Tensor

    @cached_property
    def full(self) -> Tensor:
        """Features with n_top pictures; the others are excluded, as in the paper."""
        return (self.top >= 0).all(1).nonzero().squeeze(1)

    @cached_property
    def counts(self) -> Counts:
        """Jaccard indices of all pairs of features."""
        return metrics.jaccard_counts(self.top[self.full])

    @cached_property
    def shuffled_pictures(self) -> Counts:
        """The same for shuffled sets, in which each picture is as frequent as before."""
        sets = self.top[self.full]
        order = torch.randperm(sets.numel(), generator=torch.Generator().manual_seed(0))
        return metrics.jaccard_counts(sets.flatten()[order].view_as(sets))

    @cached_property
    def blind(self) -> float:
        """Expected share of pairs with a common picture if every set were drawn uniformly from all pictures."""
        return by_chance(self.n_pictures, self.top.shape[1])

    @cached_property
    def _common(self) -> tuple[Tensor, Tensor]:
        pairs, index = metrics.jaccard(self.top[self.full])
        return self.full[pairs], index

    @property
    def pairs(self) -> Tensor:
        """Features (P, 2) of the pairs with a common picture."""
        return self._common[0]

    @property
    def index(self) -> Tensor:
        """(P,) their Jaccard index."""
        return self._common[1]

    def row(self) -> dict[str, float]:
        """Counts and shares of pairs, and both baselines: the columns of `overlap_table`."""
        n_pairs = int(self.counts[1].sum())
        above = {f"J > {bound:g}": share_above(self.counts, bound) for bound in (0, 0.5)}
        counts = {f"pairs with {name}": round(share * n_pairs) for name, share in above.items()}
        chance = {"blind": self.blind, "dealt anew": share_above(self.shuffled_pictures, 0)}
        return {"excluded": len(self.top) - len(self.full), "pairs": n_pairs} | counts | above | chance

    def describe(self, name: str) -> list[str]:
        """How many pairs overlap, and how many chance gives, in sentences; name: of the dictionary."""
        if len(self.full) < 2:
            return [f"{name} has fewer than two features with {self.top.shape[1]} pictures, so there is no pair."]
        share = share_above(self.counts, 0)
        over_blind, over_shuffled = (
            f"{share / chance:.1f} times" if chance else MISSING
            for chance in (self.blind, share_above(self.shuffled_pictures, 0))
        )
        alike, shuffled = (int(pairs[values > 0.5].sum()) for values, pairs in (self.counts, self.shuffled_pictures))
        return [
            f"In {name}, pairs with a common picture are **{over_blind}** as many as uniform draws "
            f"give, and **{over_shuffled}** as many as when the same pictures are shuffled.",
            f"With more than half of the pictures in common: **{alike:,}** pairs; shuffled: {shuffled:,}.",
        ]

    def share_of_pairs(self, bound: float, n: int) -> Interval:
        """Share of the pairs with an index above the bound, with an interval over n resamples of the features.

        A feature that is drawn twice counts twice in its pairs with others.
        """
        size = len(self.full)
        ends = torch.searchsorted(self.full, self.pairs[self.index > bound]).t()
        ends = torch.cat([ends, ends.flip(0)], dim=1)
        ones = torch.ones(ends.shape[1], dtype=torch.double)
        alike = torch.sparse_coo_tensor(ends, ones, (size, size), check_invariants=True).coalesce()

        def share(drawn: Tensor) -> Tensor:  # (B, size) numbers of features
            weight = torch.zeros(drawn.shape, dtype=torch.double)
            weight.scatter_add_(1, drawn.long(), torch.ones_like(weight))
            found = ((alike @ weight.t()).t() * weight).sum(1)
            return found / (size * size - weight.square().sum(1)).clamp_min(1)

        return metrics.bootstrap(share, torch.arange(size), n=n)

    @cached_property
    def _direction(self) -> Tensor:
        return normalize(self.decoder, dim=1)

    @cached_property
    def cosine(self) -> Tensor:
        """(P,) cosine of their decoder directions."""
        one, other = self._direction[self.pairs].unbind(1)
        return (one * other).sum(1)

    @cached_property
    def mean_cosine(self) -> float:
        """Mean cosine of the decoder directions of all pairs of features."""
        everyone = self._direction[self.full]
        n = len(everyone)
        return float((everyone.sum(0).square().sum() - n) / max(1, n * (n - 1)))

    def most_alike(self, n: int) -> Tensor:
        """The n pairs with the highest index, as positions in `pairs`."""
        return self.index.argsort(descending=True, stable=True)[:n]

    def describe_directions(self) -> str:
        """Rank correlation of Jaccard index and cosine, as text."""
        index, alike = self.index, self.cosine[self.index > 0.5]
        rho = spearmanr(index, self.cosine).statistic if len(index) > 2 else None
        text = f"Rank correlation of Jaccard index and cosine over {len(index):,} pairs with a common picture: "
        text += f"**{number(rho, '.2f')}**."
        if len(alike):
            text += f" Mean cosine of the {len(alike):,} pairs with an index above 0.5: **{float(alike.mean()):.2f}**"
            text += f", of all pairs {self.mean_cosine:.2f}."
        return text


def overlap_table(found: Mapping[str, Overlaps]) -> pd.DataFrame:
    """A row for every dictionary, and one for the paper's."""
    shares = {name: UNIQUENESS[name] / UNIQUENESS["pairs"] for name in ("J > 0", "J > 0.5")}
    paper = {f"pairs with {name}": UNIQUENESS[name] for name in shares} | shares
    paper |= {"excluded": UNIQUENESS["excluded"], "pairs": UNIQUENESS["pairs"], "blind": paper_by_chance()}
    rows = {name: one.row() for name, one in found.items()} | {"the paper's matryoshka ×16": paper}
    return pd.DataFrame([{"dictionary": name} | row for name, row in rows.items()])


def paper_by_chance() -> float:
    """Expected share of the paper's pairs with a common picture, for uniform draws."""
    return by_chance(UNIQUENESS["pictures"], UNIQUENESS["n_top"])


def describe_paper() -> list[str]:
    """What the paper's own counts say about its share, in sentences."""
    overlapping, pairs, chance = UNIQUENESS["J > 0"], UNIQUENESS["pairs"], paper_by_chance()
    return [
        f"{overlapping:,} of {pairs:,} pairs share a picture: **{overlapping / pairs:.3%}**. The text says more than "
        "0.03 %, which its own counts do not give.",
        f"Two sets of {UNIQUENESS['n_top']} drawn uniformly from {UNIQUENESS['pictures']:,} pictures share one with a "
        f"probability of **{chance:.3%}**: that alone would give {chance * pairs:,.0f} pairs of the {overlapping:,}.",
    ]
