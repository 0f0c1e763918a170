"""Monosemanticity Scores of many dictionaries beside those of raw neurons, and what papers say about such tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from experiments.tables import MISSING, number
from lib import metrics
from lib.metrics.columns import csr
from lib.metrics.intervals import Interval

Key = tuple[str, str, float, int]
"""Site, kind, expansion and k of a dictionary."""
NEURONS = "neurons"


def mean_similarity(embedding: Tensor) -> float:
    """Mean cosine of all pairs of pictures (N, E): what a feature scores that fires at random."""
    unit, n = torch.nn.functional.normalize(embedding, dim=1).double(), len(embedding)
    return float((unit.sum(0).square().sum() - n) / (n * (n - 1)))


def as_the_paper(rows: pd.DataFrame) -> dict[str, pd.Series]:
    """A summary's figures as arXiv 2504.02821 writes them, without the zero before the point."""
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
        return site, NEURONS, 1, 0

    @property
    def main(self) -> str:
        return next(iter(self.embeddings))

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
        rows, base = rows[rows["judge"] == judge], as_the_paper(self.neurons.loc[judge])
        tables = {}
        for what, texts in as_the_paper(rows).items():
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
        rows["text"] = as_the_paper(rows)["Best / worst"] + " / " + as_the_paper(rows)["Mean ± std"]
        rows["k"] = [str(value) if value else "No SAE" for value in rows["k"]]
        wide = rows.pivot(index="k", columns="judge", values="text").loc[rows["k"].unique(), list(self.embeddings)]
        active = {str(value): f"{metrics.sparsity(self.codes[key])['l0']:.1f}" for value, key in by_k.items()}
        wide.insert(0, "L0", wide.index.map(active).fillna(MISSING))
        return wide.rename(columns={judge: f"best / worst / mean ± std, E = {judge}" for judge in self.embeddings})

    def on_pictures(self, key: Key, chosen: Tensor) -> Tensor:
        """Activations (N, F) with every feature at its least on all but the chosen pictures: these alone are scored."""
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
        """Mean score of some dictionaries minus that of others: features resampled, pictures left out."""

        def gap(means: Tensor) -> Tensor:
            return means[: len(higher)].mean(0) - means[len(higher) :].mean(0)

        keys = [*higher, *lower]
        drawn = [self.scores[self.main, *key] for key in keys]
        found = metrics.bootstrap(lambda *s: gap(torch.stack([x.mean(1) for x in s])), *drawn, n=self.n)
        return found.widened(metrics.jackknife_error(gap(torch.stack([self.means_without(key) for key in keys]))))

    def share_above_mean(self, keys: Sequence[Key], base: Key) -> Interval:
        """Share of each dictionary's features that lie above the mean of the base, averaged."""

        def share(*drawn: Tensor) -> Tensor:
            level = drawn[-1].mean(1)[:, None]
            return torch.stack([(x > level).double().mean(1) for x in drawn[:-1]]).mean(0)

        return metrics.bootstrap(share, *(self.scores[self.main, *key] for key in (*keys, base)), n=self.n)

    def extreme_gap(self, how: str, larger: Sequence[Key], smaller: Sequence[Key]) -> Interval:
        """Difference of two groups' best (`max`) or worst (`min`) scores, mean over their dictionaries."""
        scores = {key: pd.Series(self.scores[self.main, *key].numpy()) for key in (*larger, *smaller)}
        of = [np.mean([getattr(scores[key], how)() for key in group]) for group in (larger, smaller)]
        return Interval(float(of[0] - of[1]))

    def best_elsewhere(self, key: Key) -> float:
        """Score of one half's best feature on the other half; mean of both ways. It must be alive in both."""
        even = torch.arange(self.codes[key].shape[0]) % 2 == 0
        judge = self.embeddings[self.main]
        halves = [metrics.monosemanticity(self.on_pictures(key, half), judge) for half in (even, ~even)]
        one, other = (score[~sum(halves).isnan()] for score in halves)
        return float(other[one.argmax()] + one[other.argmax()]) / 2 if len(one) else float("nan")

    def share_above_best(self, key: Key) -> str:
        """Share of the live features above the best neuron of the site, as text."""
        live = self.scores[self.main, *key]
        live = live[~live.isnan()]
        best = self.scores[self.main, *self.neurons_at(key[0])].max()
        return f"{float((live > best).double().mean()):.0%}" if len(live) else MISSING


@dataclass(frozen=True)
class PaperClaims:
    """What arXiv 2504.02821 says about its tables, each as one number, at the last site and over all kinds.

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
        """By claim; only what this grid can tell."""
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

    def told(self, claims: Mapping[str, Interval]) -> dict[str, str]:
        """The claims as text, each under what was measured."""
        least, most = min(self.expansions), max(self.expansions)
        quantities = {
            "sae-beats-neurons": "mean of ×1 features minus mean of neurons",
            "x1-above-neurons": "share of ×1 features above the mean neuron",
            "best-beats-neurons": f"best of ×{most:g} minus best neuron",
            "best-grows": f"best of ×{most:g} minus best of ×{least:g}",
            "worst-falls": f"worst of ×{most:g} minus worst of ×{least:g}",
            "mean-rises-to-x4": "mean of ×4 minus mean of ×1",
            "mean-falls-after-x4": f"mean of ×{most:g} minus mean of ×4",
            "deeper-is-higher": f"mean at {self.sites[-1]} minus mean at {self.sites[0]}, over all expansions",
            "matryoshka-higher": "mean of Matryoshka minus mean of BatchTopK, up to ×16",
        }
        return {text: str(claims[name]) for name, text in quantities.items() if name in claims}
