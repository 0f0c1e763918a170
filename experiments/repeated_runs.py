"""Dictionaries trained several times, measured on the same pictures: means with intervals over runs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from experiments.ensembles import Ensemble
from experiments.nulls import drawn_directions, null_dictionaries
from lib import SAE, metrics
from lib.devices import to_cpu
from lib.features.one_pass import top_images
from lib.metrics.intervals import Interval

UNKNOWN = Interval(*3 * [float("nan")])
STABILITY = "stability"


def over_runs(statistic: Callable[[Sequence], float], runs: Sequence) -> Interval:
    """A statistic of runs with a 95 % interval over runs, by the jackknife and Student's t.

    statistic: of a list of runs. `UNKNOWN` where it is not finite with some run left out; no bounds for a single run.
    """
    if len(runs) < 2:
        return Interval(statistic(list(runs)))
    without = [statistic([run for run in runs if run != left]) for left in runs]
    if not np.isfinite(without).all():  # some run has nothing to measure
        return UNKNOWN
    return metrics.jackknife_interval(statistic(list(runs)), torch.tensor(without, dtype=torch.double))


def fit(sae: SAE | Ensemble, rows: Tensor) -> dict[str, float]:
    """Explained variance and L0 on activations (N, d)."""
    codes = sae.encode_sparse(rows)
    explained = metrics.reconstruction(rows, sae.decode(codes))["explained_variance"]
    return {"explained variance": explained, "L0": metrics.sparsity(codes)["l0"]}


def scale(x: Tensor, x_hat: Tensor, offset: Tensor) -> float:
    """Relative reconstruction scale, both sides minus the offset: below 1 is shrinkage.

    E|x̂ - b|² / E (x̂ - b)·(x - b), arXiv 2404.16014; x, x_hat: (N, d), offset: (d,).
    """
    return float((x_hat - offset).square().sum() / ((x_hat - offset) * (x - offset)).sum())


def twins(rows: Tensor, alike: float) -> float:
    """Share of duplicates: decoder rows (F, d) with a cosine above `alike` to another row; NaN without rows."""
    if not len(rows):
        return float("nan")
    unit = torch.nn.functional.normalize(rows, dim=1)
    cosine = (unit @ unit.T).fill_diagonal_(-1)
    return float((cosine.amax(1) > alike).float().mean())


@dataclass(frozen=True, eq=False)
class EvaluationData:
    """Evaluation data of dictionaries: activations x (N, d) and a judge's embeddings of the same pictures (N, E).

    min_pictures: active pictures that a feature needs before its score counts; alike: cosine above which
    features are duplicates ("twins").
    """

    x: Tensor
    judge: Tensor
    min_pictures: int = 16
    alike: float = 0.7

    @torch.no_grad()
    def row(self, sae: SAE | Ensemble) -> tuple[dict[str, float], Tensor]:
        """Measures of one dictionary, and which of its features are alive (F,) bool."""
        x, codes = self.x, sae.encode_sparse(self.x)
        found, x_hat = metrics.sparsity(codes), to_cpu(sae.decode(codes))
        alive, enough = found["density"] > 0, found["density"] * len(x) >= self.min_pictures
        overlap, pairs = metrics.jaccard_counts(top_images(codes)[0][alive])
        row = {"explained variance": metrics.reconstruction(x, x_hat)["explained_variance"], "L0": found["l0"]}
        row |= {"dead": found["dead"], "scale": scale(x, x_hat, to_cpu(sae.b_dec))}
        row |= {"shrinkage": abs(1 - row["scale"]), "features": sae.n_features}
        row |= {"MS": float(metrics.monosemanticity(codes, self.judge)[enough].nanmean())}
        row |= {"twins": twins(sae.W_dec[alive], self.alike), "overlap": float(pairs[overlap > 0].sum() / pairs.sum())}
        return row | {"distinct": float(alive.sum()) * (1 - row["twins"])}, alive


@dataclass(frozen=True, eq=False)
class RepeatedRuns:
    """Dictionaries by (name, run), every name in the same runs.

    more: further measures by (name, run).
    """

    saes: Mapping[tuple[Hashable, int], SAE | Ensemble]
    evaluation: EvaluationData
    more: Mapping[tuple[Hashable, int], Mapping[str, float]] = field(default_factory=dict)
    _agreement: dict[tuple, float] = field(default_factory=dict)

    @property
    def names(self) -> list:
        return list(dict.fromkeys(name for name, _ in self.saes))

    @property
    def runs(self) -> list[int]:
        return list(dict.fromkeys(run for _, run in self.saes))

    def of_nulls(self, rows: Tensor, drawn: Callable[[int, int, int], Tensor] = drawn_directions) -> RepeatedRuns:
        """The same of nulls as sparse as each dictionary on rows (N, d), drawn by their runs."""
        return RepeatedRuns(null_dictionaries(self.saes, rows, drawn), self.evaluation)

    def above(self, null: RepeatedRuns, name: Hashable, column: str) -> Interval:
        """A measure of one name minus that of its null."""
        return over_runs(lambda some: self.mean(name, column, some) - null.mean(name, column, some), self.runs)

    @cached_property
    def _measured(self) -> dict[tuple, tuple[dict, Tensor]]:
        return {key: self.evaluation.row(sae) for key, sae in self.saes.items()}

    @cached_property
    def rows(self) -> dict[tuple, dict[str, float]]:
        """All measures of each dictionary, by (name, run)."""
        return {key: row | dict(self.more.get(key, {})) for key, (row, _) in self._measured.items()}

    def agreement(self, name: Hashable, a: int, b: int) -> float:
        """Mean cosine of the matched live features of two runs."""
        if (name, a, b) not in self._agreement:
            (one, two), alive = ([side[name, run] for run in (a, b)] for side in (self.saes, self._measured))
            matched = metrics.match_directions(one.W_dec, two.W_dec, *(live for _, live in alive))
            self._agreement[name, a, b] = matched.mean
        return self._agreement[name, a, b]

    def mean(self, name: Hashable, column: str, runs: Sequence[int]) -> float:
        """Mean of a measure over some runs; stability is a mean over pairs of runs."""
        if column == STABILITY:
            return float(np.mean([self.agreement(name, a, b) for a, b in combinations(runs, 2)] or [np.nan]))
        return float(np.mean([self.rows[name, run][column] for run in runs]))

    def table(self, columns: Sequence[str]) -> dict[Hashable, dict[str, Interval]]:
        """Means of measures with intervals over runs, by name."""
        return {
            name: {
                column: over_runs(lambda some, n=name, c=column: self.mean(n, c, some), self.runs) for column in columns
            }
            for name in self.names
        }

    def gain(self, better: Hashable, worse: Hashable, column: str = "explained variance") -> Interval:
        """A measure of `better` minus that of `worse`; `UNKNOWN` where one of them was not trained."""
        if not {better, worse} <= set(self.names):
            return UNKNOWN
        return over_runs(lambda some: self.mean(better, column, some) - self.mean(worse, column, some), self.runs)
