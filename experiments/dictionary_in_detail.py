"""One dictionary in detail: its scores against frequency, between judges, and against known facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from experiments import ground_truth
from experiments.ground_truth import Facts
from experiments.nulls import sparse_directions
from experiments.repeated_runs import over_runs
from experiments.scored_dictionaries import widened
from experiments.tables import MISSING, number
from lib import metrics
from lib.features.one_pass import top_images
from lib.metrics.intervals import Interval

QUINTILES = ("lowest", "low", "middle", "high", "highest")
EDGES = tuple(i / 10 for i in range(10))
"""Bins of the difference of two scores in the paper's user study."""
BINS = tuple(f"{low:.1f}–{low + 0.1:.1f}" for low in EDGES[:-1])
ABOVE = "features above them"
TOP = 16  # pictures shown to people in the user study


@dataclass(frozen=True, eq=False)
class DictionaryDetail:
    """The features of one dictionary on N pictures.

    codes: (N, F); scores: (F,) by judge, the main one first, NaN for dead features; facts: what is known of the
    pictures; n: resamples behind an interval.
    """

    codes: Tensor
    scores: Mapping[str, Tensor]
    facts: Facts
    n: int = 2000

    @property
    def score(self) -> Tensor:
        """Scores (F,) by the main judge."""
        return next(iter(self.scores.values()))

    @cached_property
    def frequency(self) -> Tensor:
        """Share of the pictures on which each feature is active: (F,)."""
        return metrics.sparsity(self.codes)["density"]

    @cached_property
    def alive(self) -> Tensor:
        """The features that have a score."""
        return (~self.score.isnan()).nonzero().squeeze(1)

    @cached_property
    def top(self) -> Tensor:
        """(F, 16) positions of the pictures that activate each feature most, -1 for none."""
        return top_images(self.codes, TOP)[0]

    @cached_property
    def full(self) -> Tensor:
        """The live features with 16 active pictures."""
        return self.alive[(self.top[self.alive] >= 0).all(1)]

    def rarity(self) -> tuple[Interval, str]:
        """Rank correlation of score and frequency, and a text on rare features."""
        rho = metrics.bootstrap(metrics.rank_correlation, torch.stack([self.frequency, self.score], dim=1), n=self.n)
        counts, alive = (self.frequency * self.codes.shape[0]).round().long(), self.alive
        rare, of = float((counts[alive] <= 3).double().mean()), self.score[alive]
        best, worst = (int(counts[alive[pick]]) if len(alive) else 0 for pick in _ends(of))
        return rho, (
            f"Rank correlation of score and frequency: **{rho}**. Of the {len(alive):,} live features {rare:.0%} are "
            f"active on three pictures or fewer: their scores rest on three pairs or one. The best of all is active on "
            f"{best:,} pictures, the worst on {worst:,}."
        )

    def ends_and_middle(self, n: int) -> Tensor:
        """n features with 16 pictures from each end and the middle of the ranking."""
        ranked = self.full[self.score[self.full].argsort(descending=True)]
        middle = max(0, (len(ranked) - n) // 2)
        return torch.cat([ranked[:n], ranked[middle : middle + n], ranked[-n:]]).unique_consecutive()

    def top_rows(self, features: Tensor) -> dict[str, list[int]]:
        """The top pictures of some features, under score and number."""
        return {f"<b>{float(self.score[f]):.2f}</b><br>#{int(f)}": self.top[f].tolist() for f in features}

    def ranks_agree(self, one: str, other: str) -> Interval:
        """Rank correlation of two judges."""
        pair = torch.stack([self.scores[judge][self.full] for judge in (one, other)], dim=1)
        return metrics.bootstrap(metrics.rank_correlation, pair, n=self.n)

    @cached_property
    def best(self) -> pd.DataFrame:
        """The best fact of each feature."""
        return ground_truth.best_facts(self.codes, self.top, self.facts)

    @cached_property
    def fact_scores(self) -> dict[str, Tensor]:
        """Four measures of how well the best fact describes each feature: (F,) each."""
        return {
            "focus (bits)": ground_truth.of_best_fact(ground_truth.focus(self.top, self.facts)),
            "F1": ground_truth.of_best_fact(ground_truth.best_f1(self.codes, self.facts, above_chance=True)),
            "AUC": ground_truth.of_best_fact(ground_truth.auc(self.codes, self.facts)),
            "information (bits)": ground_truth.of_best_fact(ground_truth.mutual_information(self.codes, self.facts)),
        }

    def per_feature(self, judges: Sequence[str]) -> pd.DataFrame:
        """Scores, fact scores and the best fact, a row a feature."""
        figures = pd.DataFrame({name: values.numpy() for name, values in self.fact_scores.items()})
        by_judge = pd.DataFrame({f"MS {judge}": self.scores[judge].numpy() for judge in judges})
        return pd.concat([by_judge, figures, self.best[["fact", "share"]]], axis=1).rename_axis("feature")

    @cached_property
    def quintile(self) -> pd.Series:
        """Quintile of each feature of `full`, by score."""
        return pd.cut(pd.Series(self.score[self.full].numpy()).rank(pct=True), np.linspace(0, 1, 6), labels=QUINTILES)

    def correlations(self) -> dict[str, dict[str, Interval]]:
        """Rank correlation of each judge's score with each of `fact_scores`."""
        return {
            judge: {
                name: metrics.bootstrap(
                    metrics.rank_correlation, torch.stack([score[self.full], truth[self.full]], dim=1), n=self.n
                )
                for name, truth in self.fact_scores.items()
            }
            for judge, score in self.scores.items()
        }

    def agreement(self, judge: str) -> pd.DataFrame:
        """Share of pairs in which the feature of higher score has more focus, by the difference of scores."""
        return ground_truth.agreement_by_difference(*self._score_and_focus(judge), list(EDGES), self.n)

    def overall_agreement(self, judge: str) -> Interval:
        """The same over all pairs."""
        pairs = ground_truth.agreement_by_difference(*self._score_and_focus(judge), [0, 2.01], self.n).iloc[0]
        return Interval(*pairs[["agreement", "lower", "upper"]])

    def agreement_growth(self, judge: str) -> Interval:
        """Agreement in the highest bin less that in the lowest."""
        return ground_truth.agreement_growth(*self._score_and_focus(judge), list(EDGES), self.n)

    def _score_and_focus(self, judge: str) -> tuple[Tensor, Tensor]:
        return self.scores[judge][self.full], self.fact_scores["focus (bits)"][self.full]

    def focus_by_quintile(self) -> pd.Series:
        """Mean focus by quintile of the score."""
        focus = pd.Series(self.fact_scores["focus (bits)"][self.full].numpy())
        return focus.groupby(self.quintile, observed=False).mean()


def _ends(score: Tensor) -> tuple[Tensor | int, Tensor | int]:
    return (score.argmax(), score.argmin()) if len(score) else (0, 0)


def mean_scores(activations: Tensor, judges: Mapping[str, Tensor], facts: Facts, n: int) -> dict[str, Interval]:
    """Mean over the live features of each judge's score, and of F1 and AUC of the best fact; judges: (N, E) each."""
    figures = {f"MS, E = {judge}": metrics.monosemanticity(activations, e) for judge, e in judges.items()}
    by_fact = {"F1": ground_truth.best_f1(activations, facts, above_chance=True)}
    by_fact["AUC"] = ground_truth.auc(activations, facts)
    figures |= {f"{name} of the best fact": ground_truth.of_best_fact(values) for name, values in by_fact.items()}
    return {name: metrics.mean_interval(values, n) for name, values in figures.items()}


def beside_chance(
    codes: Mapping[str, Tensor], rows: Tensor, judges: Mapping[str, Tensor], facts: Facts, n: int
) -> pd.DataFrame:
    """`mean_scores` of dictionaries, and below each those of equally sparse random directions.

    codes: (N, F) by name, of dictionaries that read `rows` (N, d).
    """
    found = {
        (name, what): mean_scores(activations, judges, facts, n)
        for name, own in codes.items()
        for what, activations in (("features", own), ("sparse directions", sparse_directions(own, rows)))
    }
    return pd.DataFrame(found).T.map(str)


def beside_chance_over_seeds(
    codes: Mapping[int, Tensor], rows: Tensor, judges: Mapping[str, Tensor], facts: Facts
) -> pd.DataFrame:
    """`mean_scores` of one dictionary by training seed and of random directions; intervals over seeds and pictures.

    codes: (N, F) CSR by seed, of dictionaries that read `rows` (N, d); the directions are as sparse, and drawn by the
    same seeds. The last row is the difference, seed by seed.
    """
    pairs = {seed: (one, sparse_directions(one, rows, seed)) for seed, one in codes.items()}
    own, chance = ([_means_without(pair[i], judges, facts) for pair in pairs.values()] for i in (0, 1))
    above = [one - other for one, other in zip(own, chance, strict=True)]
    found = {"features": own, "sparse directions": chance, ABOVE: above}
    return pd.DataFrame({name: _over_seeds_and_pictures(of_seeds) for name, of_seeds in found.items()}).T


def _means_without(codes: Tensor, judges: Mapping[str, Tensor], facts: Facts, groups: int = 5) -> pd.DataFrame:
    """Values of `mean_scores`: of all pictures in the first row, below without every fifth of them in turn."""
    group, dense = torch.arange(codes.shape[0]) % groups, codes.to_dense()
    found = [mean_scores(codes, judges, facts, 1)]
    for kept in (group != left_out for left_out in range(groups)):
        judged, known = {judge: e[kept] for judge, e in judges.items()}, Facts(facts.names, facts.truth[kept])
        found.append(mean_scores(dense[kept].to_sparse_csr(), judged, known, 1))
    return pd.DataFrame([{name: interval.value for name, interval in row.items()} for row in found])


def _over_seeds_and_pictures(found: Sequence[pd.DataFrame]) -> dict[str, Interval]:
    """Means of the first rows of `_means_without` by column, with intervals over seeds and pictures."""
    means, without = (np.stack([one.iloc[rows] for one in found]) for rows in (slice(1), slice(1, None)))
    intervals = {}
    for i, column in enumerate(found[0]):
        of_seeds = over_runs(lambda some, i=i: float(means[some, 0, i].mean()), range(len(found)))
        left_out = torch.from_numpy(without[:, :, i].mean(0))  # (groups,)
        known = bool(left_out.isfinite().all())
        intervals[column] = widened(of_seeds, metrics.jackknife_error(left_out)) if known else of_seeds
    return intervals


def describe_seeds(over_seeds: pd.DataFrame, name: str, n: int) -> str:
    """How far n seeds of a dictionary are above random directions, as text; over_seeds: `beside_chance_over_seeds`."""
    score, f1 = over_seeds.loc[ABOVE].iloc[[0, -2]]
    return (
        f"- Trained from {n} seeds, with intervals over seeds and pictures, {name} is above random directions that are "
        f"as sparse by {score} in the score and by {f1} in the F1 of the best fact."
    )


def describe_nulls(beside: pd.DataFrame) -> str:
    """Features compared with equally sparse random directions, as text; beside: rows of `mean_scores`."""
    own, chance = (
        [number(row.iloc[i].value, ".2f") for i in (0, -2)]
        for row in (beside.loc["features"], beside.loc["sparse directions"])
    )
    text = f"- Random directions, as sparse as the features, score {chance[0]}."
    if MISSING in (own[1], chance[1]):  # no fact is known of enough pictures
        return text
    return f"{text} By the F1 of the best fact, features reach {own[1]} and these directions {chance[1]}."
