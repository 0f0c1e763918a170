"""Monosemanticity Scores of many dictionaries and of raw neurons, and the paper's claims about them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import NormalDist

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from experiments.nulls import sparse_directions
from experiments.tables import MISSING, number
from lib import metrics
from lib.metrics.columns import csr
from lib.metrics.intervals import Interval

Key = tuple[str, str, float, int]
"""Site, kind, expansion and k of a dictionary."""
NEURONS = "neurons"


def mean_similarity(embedding: Tensor) -> float:
    """Mean cosine of all pairs of pictures (N, E): the score of a feature that fires at random."""
    unit, n = torch.nn.functional.normalize(embedding, dim=1).double(), len(embedding)
    return float((unit.sum(0).square().sum() - n) / (n * (n - 1)))


def widened(found: Interval, error: float, level: float = 0.95) -> Interval:
    """An interval with a second, independent source of error added in quadrature, given by its standard error."""
    if found.low is None or found.high is None or not math.isfinite(error):
        return found
    reach = NormalDist().inv_cdf((1 + level) / 2) * error
    below, above = math.hypot(found.value - found.low, reach), math.hypot(found.high - found.value, reach)
    return Interval(found.value, found.value - below, found.value + above)


def in_paper_format(rows: pd.DataFrame) -> dict[str, pd.Series]:
    """A summary in the format of arXiv 2504.02821, without the zero before the point."""
    digits = {"best": 2, "worst": 2, "mean": 3, "std": 3}
    texts = {name: rows[name].map(lambda x, n=n: number(round(x, n) + 0, f".{n}f")) for name, n in digits.items()}
    best, worst, mean, std = (column.str.replace("0.", ".", regex=False) for column in texts.values())
    return {"Best / worst": best + " / " + worst, "Mean ± std": mean + " ± " + std}


@dataclass(frozen=True, eq=False)
class Scored:
    """Dictionaries and neurons on the same N pictures, scored by several judges, the first of which is the main one.

    codes: (N, F) by key, neurons under `neurons_at`; embeddings: (N, E) by judge; n: resamples behind an interval.
    """

    codes: Mapping[Key, Tensor]
    embeddings: Mapping[str, Tensor]
    n: int = 2000
    _left_out: dict[Key, Tensor] = field(default_factory=dict)

    @staticmethod
    def neurons_at(site: str) -> Key:
        """The key of the neurons of a site."""
        return site, NEURONS, 1, 0

    @property
    def main(self) -> str:
        return next(iter(self.embeddings))

    def of_sparse_directions(self, seed: int = 0) -> Scored:
        """The null: each dictionary replaced by equally sparse random directions; neurons stay."""
        codes = {
            key: own if key[1] == NEURONS else sparse_directions(own, self.codes[self.neurons_at(key[0])], seed)
            for key, own in self.codes.items()
        }
        return Scored(codes, {self.main: self.embeddings[self.main]}, self.n)

    @cached_property
    def scores(self) -> dict[tuple, Tensor]:
        """(F,) by judge and key, NaN for dead features."""
        return {
            (judge, *key): metrics.monosemanticity(codes, embedding)
            for judge, embedding in self.embeddings.items()
            for key, codes in self.codes.items()
        }

    @cached_property
    def table(self) -> pd.DataFrame:
        """Best, worst, mean and std of the live features and the share of dead ones, a row a judge and dictionary."""
        return pd.DataFrame([self._summary(*key) for key in self.scores])

    @property
    def neurons(self) -> pd.DataFrame:
        """The rows of the neurons, by judge and site."""
        return self.table[self.table["kind"] == NEURONS].set_index(["judge", "site"])

    def _summary(self, judge: str, site: str, kind: str, expansion: float, k: int) -> dict:
        score = pd.Series(self.scores[judge, site, kind, expansion, k].numpy())  # pandas leaves NaN, the dead, out
        figures = {"best": score.max(), "worst": score.min(), "mean": score.mean(), "std": score.std(ddof=0)}
        what = {"judge": judge, "site": site, "kind": kind, "expansion": expansion, "k": k}
        return what | figures | {"dead": score.isna().mean()}

    def wide(self, rows: pd.DataFrame, judge: str, order: Sequence[tuple[str, str]]) -> dict[str, pd.DataFrame]:
        """The paper's two tables by one judge: (kind, site) by expansion, neurons first."""
        rows, base = rows[rows["judge"] == judge], in_paper_format(self.neurons.loc[judge])
        tables = {}
        for what, texts in in_paper_format(rows).items():
            index = ["kind", "site"]
            wide = rows.assign(text=texts).pivot(index=index, columns="expansion", values="text").loc[list(order)]
            wide = wide.rename(columns="×{:g}".format).rename_axis(columns=None)
            wide.insert(0, "No SAE", base[what].loc[wide.index.get_level_values("site")].to_numpy())
            tables[what] = wide
        return tables

    def swept(self, of: tuple[str, str, float], by_k: Mapping[int, Key]) -> pd.DataFrame:
        """One dictionary (site, kind, expansion) by k, with its L0; a column a judge, neurons in the last row."""
        table, site, neurons = self.table, of[0], self.neurons.reset_index()
        size = (table["site"] == of[0]) & (table["kind"] == of[1]) & (table["expansion"] == of[2])
        rows = pd.concat([table[size].sort_values("k"), neurons[neurons["site"] == site]])
        rows["text"] = in_paper_format(rows)["Best / worst"] + " / " + in_paper_format(rows)["Mean ± std"]
        rows["k"] = [str(value) if value else "No SAE" for value in rows["k"]]
        wide = rows.pivot(index="k", columns="judge", values="text").loc[rows["k"].unique(), list(self.embeddings)]
        active = {str(value): f"{metrics.sparsity(self.codes[key])['l0']:.1f}" for value, key in by_k.items()}
        wide.insert(0, "L0", wide.index.map(active).fillna(MISSING))
        return wide.rename(columns={judge: f"best / worst / mean ± std, E = {judge}" for judge in self.embeddings})

    def on_pictures(self, key: Key, chosen: Tensor) -> Tensor:
        """Activations (N, F) set to each feature's minimum outside the chosen pictures, so that only these count."""
        codes = self.codes[key]
        activations = codes if key[1] != NEURONS else (codes - codes.amin(0)).to_sparse_csr()
        rows, features, values = activations.crow_indices(), activations.col_indices(), activations.values()
        return csr(rows, features, values * chosen.repeat_interleave(rows.diff()), activations.shape)

    def means_without(self, key: Key, groups: int = 10) -> Tensor:
        """Mean score by the main judge with every tenth picture left out in turn: (groups,)."""
        if key not in self._left_out:
            group = torch.arange(self.codes[key].shape[0]) % groups
            parts = (self.on_pictures(key, group != left_out) for left_out in range(groups))
            means = [metrics.monosemanticity(part, self.embeddings[self.main]).nanmean() for part in parts]
            self._left_out[key] = torch.stack(means)
        return self._left_out[key]

    def mean_gap(self, higher: Sequence[Key], lower: Sequence[Key]) -> Interval:
        """Mean score of some dictionaries minus that of others: bootstrap over features, jackknife over pictures."""

        def gap(means: Tensor) -> Tensor:
            return means[: len(higher)].mean(0) - means[len(higher) :].mean(0)

        keys = [*higher, *lower]
        drawn = [self.scores[self.main, *key] for key in keys]
        found = metrics.bootstrap(lambda *s: gap(torch.stack([x.mean(1) for x in s])), *drawn, n=self.n)
        return widened(found, metrics.jackknife_error(gap(torch.stack([self.means_without(key) for key in keys]))))

    def share_above_mean(self, keys: Sequence[Key], base: Key) -> Interval:
        """Share of features above the mean score of the base, averaged over dictionaries."""

        def share(*drawn: Tensor) -> Tensor:
            level = drawn[-1].mean(1)[:, None]
            return torch.stack([(x > level).double().mean(1) for x in drawn[:-1]]).mean(0)

        return metrics.bootstrap(share, *(self.scores[self.main, *key] for key in (*keys, base)), n=self.n)

    def extreme_elsewhere(self, how: str, key: Key, groups: int = 10) -> tuple[float, Tensor]:
        """Best (`max`) or worst (`min`) feature of half the pictures, scored on the other half: mean of both ways.

        Also with every tenth of the scoring pictures left out in turn: (groups,). Only features that are active on two
        pictures of each half whichever tenth is left out; NaN where there is none. Selection and scoring use different
        pictures, so the interval is valid.
        """
        even, judge = torch.arange(self.codes[key].shape[0]) % 2 == 0, self.embeddings[self.main]
        group = torch.arange(len(even)) // 2 % groups
        kept = torch.stack([torch.ones_like(even), *(group != left_out for left_out in range(groups))], dim=1)
        parts = {half: self.on_pictures(key, even if half else ~even) for half in (True, False)}
        scores = {half: metrics.monosemanticity(part, judge) for half, part in parts.items()}
        alive = torch.stack([_pairs_remain(part, group) for part in parts.values()]).all(0).nonzero().squeeze(1)
        if not len(alive):
            return float("nan"), torch.full((groups,), torch.nan)
        found = []
        for half in (True, False):
            chosen = alive[getattr(scores[half][alive], f"arg{how}")()]
            column = parts[not half].to_dense()[:, chosen, None] * kept  # (N, 1 + groups)
            found.append(metrics.monosemanticity(column, judge))
        whole, *left_out = torch.stack(found).mean(0)
        return float(whole), torch.stack(left_out)

    def extreme_gap(self, how: str, larger: Sequence[Key], smaller: Sequence[Key]) -> Interval:
        """Difference of two groups' best (`max`) or worst (`min`) scores on other pictures, mean over dictionaries."""
        found = {key: self.extreme_elsewhere(how, key) for key in (*larger, *smaller)}
        of = [np.mean([found[key][0] for key in group]) for group in (larger, smaller)]
        replicates = [torch.stack([found[key][1] for key in group]).mean(0) for group in (larger, smaller)]
        left_out = replicates[0] - replicates[1]
        value = float(of[0] - of[1])
        return Interval(value) if left_out.isnan().any() else metrics.jackknife_interval(value, left_out)

    def share_above_best(self, key: Key) -> str:
        """Share of the live features above the best neuron of the site, as text."""
        live = self.scores[self.main, *key]
        live = live[~live.isnan()]
        best = self.scores[self.main, *self.neurons_at(key[0])].max()
        return f"{float((live > best).double().mean()):.0%}" if len(live) else MISSING


def _pairs_remain(part: Tensor, group: Tensor) -> Tensor:
    """Which features (F,) of CSR activations (N, F) stay active on two pictures whichever group (N,) is left out."""
    active = part.values() > 0
    rows = torch.arange(len(group)).repeat_interleave(part.crow_indices().diff())[active]
    counts = torch.zeros(int(group.max()) + 1, part.shape[1])
    counts.index_put_((group[rows], part.col_indices()[active]), torch.ones(len(rows)), accumulate=True)
    return counts.sum(0) - counts.amax(0) >= 2


@dataclass(frozen=True)
class PaperClaims:
    """Claims of arXiv 2504.02821 about its tables, each as one number, at the last site and over all kinds.

    sites, kinds, expansions, k: of the grid that `scored` holds.
    """

    scored: Scored
    sites: Sequence[str]
    kinds: Sequence[str]
    expansions: Sequence[float]
    k: int

    def at(self, site: str, *expansions: float, kinds: Sequence[str] | None = None) -> list[Key]:
        """Keys of the dictionaries at a site: of each kind and each of the expansions."""
        return [(site, kind, x, self.k) for kind in kinds or self.kinds for x in expansions]

    def claims(self) -> dict[str, Interval]:
        """Measurements by claim id; only those that this grid allows."""
        scored, first, last = self.scored, self.sites[0], self.sites[-1]
        least, most, known = min(self.expansions), max(self.expansions), set(self.expansions)
        raw, small, large = [scored.neurons_at(last)], self.at(last, least), self.at(last, most)
        claims = {
            "best-beats-neurons": scored.extreme_gap("max", large, raw),
            "best-grows": scored.extreme_gap("max", large, small),
            "worst-falls": scored.extreme_gap("min", large, small),
        }
        if 1 in known:
            claims["sae-beats-neurons"] = scored.mean_gap(self.at(last, 1), raw)
            claims["x1-above-neurons"] = scored.share_above_mean(self.at(last, 1), raw[0])
        if {1, 4} <= known:
            claims["mean-rises-to-x4"] = scored.mean_gap(self.at(last, 4), self.at(last, 1))
        if 4 in known and most > 4:
            claims["mean-falls-after-x4"] = scored.mean_gap(large, self.at(last, 4))
        if first != last:
            both = (self.at(site, *self.expansions) for site in (last, first))
            claims["deeper-is-higher"] = scored.mean_gap(*both)
        if {"batchtopk", "matryoshka"} <= set(self.kinds) and least <= 16:
            upto_16 = [x for x in self.expansions if x <= 16]
            pair = (self.at(last, *upto_16, kinds=[kind]) for kind in ("matryoshka", "batchtopk"))
            claims["matryoshka-higher"] = scored.mean_gap(*pair)
        return claims

    def describe(self, claims: Mapping[str, Interval]) -> dict[str, str]:
        """The claims as text, by what was measured."""
        least, most = min(self.expansions), max(self.expansions)
        quantities = {
            "sae-beats-neurons": "mean of ×1 features minus mean of neurons",
            "x1-above-neurons": "share of ×1 features above the mean neuron",
            "best-beats-neurons": f"best of ×{most:g} minus best neuron, on other pictures",
            "best-grows": f"best of ×{most:g} minus best of ×{least:g}, on other pictures",
            "worst-falls": f"worst of ×{most:g} minus worst of ×{least:g}, on other pictures",
            "mean-rises-to-x4": "mean of ×4 minus mean of ×1",
            "mean-falls-after-x4": f"mean of ×{most:g} minus mean of ×4",
            "deeper-is-higher": f"mean at {self.sites[-1]} minus mean at {self.sites[0]}, over all expansions",
            "matryoshka-higher": "mean of Matryoshka minus mean of BatchTopK, up to ×16",
        }
        return {text: str(claims[name]) for name, text in quantities.items() if name in claims}
