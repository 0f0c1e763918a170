"""Pairs of features with common top pictures, and how many chance gives (arXiv 2504.02821, appendix G)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from scipy.stats import hypergeom, spearmanr
from torch import Tensor
from torch.nn.functional import normalize

from experiments.nulls import drawn_directions
from experiments.published import UNIQUENESS
from experiments.tables import number
from lib import metrics
from lib.devices import rows_at_once
from lib.metrics.intervals import Interval

Counts = tuple[Tensor, Tensor]
"""Distinct Jaccard indices, ascending, and how many pairs have each."""


BOUNDS = {"J > 0": 0.0, "J > 1/3": 1 / 3, "J > 0.5": 0.5}
"""Bounds of the Jaccard index; sets of one size have more than half of their pictures in common above 1/3."""
OVER_UNIFORM = "J > 0, over uniform draws"


def least_common(n_top: int, bound: float) -> int:
    """The smallest number of common pictures that gives two sets of n_top a Jaccard index above a bound below 1."""
    common = np.arange(n_top + 1)
    return int(np.argmax(common / (2 * n_top - common) > bound))


def by_chance(n_pictures: int, n_top: int, bound: float = 0.0) -> float:
    """Probability that two random sets of n_top of n_pictures pictures have a Jaccard index above the bound."""
    return float(hypergeom(n_pictures, n_top, n_top).sf(least_common(n_top, bound) - 1))


def scaled(interval: Interval, factor: float) -> Interval:
    """An interval times a number."""
    return Interval(*(None if x is None else factor * x for x in interval))


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

    def of_directions(self, rows: Tensor, seed: int = 0) -> Overlaps:
        """A null: Gaussian directions, as many as `full`, on the rows (N, d) that the dictionary reads.

        Made as sparse as the features, they would have the same top pictures.
        """
        directions, centred = drawn_directions(rows.shape[1], len(self.full), seed), rows.float() - rows.float().mean(0)
        parts = (centred @ some for some in directions.split(rows_at_once(len(rows)), dim=1))
        n_top = min(self.top.shape[1], len(rows))  # fewer rows have no direction
        top = torch.cat([part.topk(n_top, dim=0).indices.t() for part in parts])
        return Overlaps(top, self.n_pictures, directions.t())

    def blind(self, bound: float = 0.0) -> float:
        """Expected share of pairs above the bound if every set were drawn uniformly from all pictures."""
        return by_chance(self.n_pictures, self.top.shape[1], bound)

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
        """Counts of pairs, the share with a common picture, and two baselines of it: the columns of `overlap_table`."""
        values, pairs = self.counts
        counts = {f"pairs with {name}": int(pairs[values > bound].sum()) for name, bound in BOUNDS.items()}
        shares = {"J > 0": share_above(self.counts, 0), "uniform draws": self.blind()}
        shares["shuffled"] = share_above(self.shuffled_pictures, 0)
        return {"excluded": len(self.top) - len(self.full), "pairs": int(pairs.sum())} | counts | shares

    def describe(self, name: str) -> list[str]:
        """How many pairs are above each bound, and how many chance gives, in sentences; name: of the dictionary."""
        n_top, n_pairs = self.top.shape[1], int(self.counts[1].sum())
        if len(self.full) < 2:
            return [f"{name} has fewer than two features with {n_top} pictures, so there is no pair."]
        lines = []
        for above, bound in BOUNDS.items():
            found, shuffled = (int(n[index > bound].sum()) for index, n in (self.counts, self.shuffled_pictures))
            drawn = self.blind(bound) * n_pairs
            lines.append(
                f"In {name}, **{found:,}** of {n_pairs:,} pairs share {least_common(n_top, bound)} or more of their "
                f"{n_top} pictures ({above}); shuffled: {shuffled:,}, uniform draws: {drawn:,.1f}."
            )
        return lines

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

    def shares(self, n: int) -> dict[str, Interval]:
        """Share of the pairs above each bound, with intervals over n resamples, and the first over uniform draws."""
        found = {name: self.share_of_pairs(bound, n) for name, bound in BOUNDS.items()}
        return {OVER_UNIFORM: scaled(found["J > 0"], 1 / self.blind())} | found

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


def overlap_table(found: Mapping[str, Overlaps], rows: Tensor, seed: int = 0) -> pd.DataFrame:
    """A row for every dictionary, with `of_directions` on its rows (N, d), and one for the paper's."""
    table = {
        name: one.row() | {"sparse directions": share_above(one.of_directions(rows, seed).counts, 0)}
        for name, one in found.items()
    }
    paper = {f"pairs with {name}": UNIQUENESS[name] for name in ("J > 0", "J > 0.5")}
    paper |= {"excluded": UNIQUENESS["excluded"], "pairs": UNIQUENESS["pairs"], "uniform draws": paper_by_chance()}
    table["the paper's matryoshka ×16"] = paper | {"J > 0": UNIQUENESS["J > 0"] / UNIQUENESS["pairs"]}
    return pd.DataFrame([{"dictionary": name} | row for name, row in table.items()])


def beside_nulls(features: Overlaps, nulls: Mapping[str, Overlaps], n: int) -> pd.DataFrame:
    """`shares` of a dictionary's features and of nulls, a row each; its shuffled pictures and uniform draws last."""
    found = {name: one.shares(n) for name, one in ({"features": features} | dict(nulls)).items()}
    for name, share in {
        "shuffled": lambda bound: share_above(features.shuffled_pictures, bound),
        "uniform draws": features.blind,
    }.items():
        shares = {above: Interval(share(bound)) for above, bound in BOUNDS.items()}
        found[name] = {OVER_UNIFORM: scaled(shares["J > 0"], 1 / features.blind())} | shares
    return pd.DataFrame(found).T


def describe_beside(beside: pd.DataFrame, name: str, n_top: int) -> list[str]:
    """How often pairs of features and of nulls overlap, a sentence a measure; beside: of `beside_nulls`."""
    says = {
        OVER_UNIFORM: (".2f", "pairs with a common picture, over those of uniform draws"),
        "J > 1/3": (".3%", f"pairs with {least_common(n_top, 1 / 3)} or more of {n_top} pictures in common"),
        "J > 0.5": (".4%", f"pairs with {least_common(n_top, 0.5)} or more of {n_top} pictures in common"),
    }
    lines = []
    for measure, (form, what) in says.items():
        own, *nulls = ((codes, row[measure].value) for codes, row in beside.iterrows())
        others = ", ".join(f"{codes} {number(value, form)}" for codes, value in nulls)
        as_few = ", ".join(codes for codes, value in nulls if value <= own[1]) or "none"
        lines.append(f"{name}, {what}: **{number(own[1], form)}**; nulls: {others}. Nulls with as few: {as_few}.")
    return lines


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
