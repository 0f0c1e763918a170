"""How well columns of activations detect one known fact each: features beside their nulls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from experiments import ground_truth
from experiments.ground_truth import Facts
from experiments.nulls import nulls_of
from experiments.tables import number, percent
from lib import metrics
from lib.metrics.intervals import Interval

if TYPE_CHECKING:
    from lib.activations.store import ActivationStore

FEATURES, CHANCE = "features", "sparse directions"


def largest_rows(store: ActivationStore, n: int) -> Tensor:
    """(n, d) the largest activation of each picture's tokens, as feature tables pool codes; zero for one left out."""
    pictures, n_rows = store.image_index.long().unique_consecutive(return_counts=True)
    largest = torch.segment_reduce(store[:].float(), "max", lengths=n_rows)
    return torch.zeros(n, largest.shape[1]).index_copy_(0, pictures, largest)


def best_scores(activations: Tensor, facts: Facts) -> pd.DataFrame:
    """AUC and F1 above chance of each column's best fact in either respect; NaN for constant columns of (N, F)."""
    table = ground_truth.auc(activations, facts)
    f1 = ground_truth.best_f1(activations, facts, above_chance=True)
    found = pd.DataFrame({name: ground_truth.of_best_fact(of).numpy() for name, of in (("AUC", table), ("F1", f1))})
    found.loc[(table == 0.5).all(1).numpy()] = float("nan")
    return found


def detectors_of(codes: Tensor, rows: Tensor, facts: Facts, seed: int = 0) -> dict[str, pd.DataFrame]:
    """`best_scores` of features, and of their nulls on activations (N, d), by name."""
    every = {FEATURES: codes, **nulls_of(codes, rows, seed)}
    return {name: best_scores(activations, facts) for name, activations in every.items()}


def shares_of(found: Mapping[str, pd.DataFrame], bars: Mapping[str, float], n: int) -> pd.DataFrame:
    """Intervals over columns: the share that reaches each bar, and the mean; bars: by score; n: resamples."""
    rows = {}
    for name, scores in found.items():
        values = {score: torch.tensor(scores[score].dropna().to_numpy(float)) for score in bars}
        reached = {f"{s} ≥ {bar:g}": metrics.mean_interval((values[s] >= bar).double(), n) for s, bar in bars.items()}
        rows[name] = reached | {f"mean {score}": metrics.mean_interval(of, n) for score, of in values.items()}
    return pd.DataFrame(rows).T


def above_null(found: Mapping[str, pd.DataFrame], score: str, n: int, null: str = CHANCE) -> Interval:
    """Mean over features of their score minus that of the null column that is as sparse."""
    return metrics.mean_interval(torch.tensor((found[FEATURES][score] - found[null][score]).to_numpy(float)), n)


def describe_detectors(found: Mapping[str, pd.DataFrame], bars: Mapping[str, float], n_facts: int, n: int) -> list[str]:
    """What features detect, what their nulls do, and what is left above them, a sentence each."""
    shares, lines = shares_of(found, bars, n), []
    if not n_facts or shares.loc[FEATURES].map(lambda share: number(share.value) == "–").any():
        return ["No fact is known that a living feature could detect."]
    for score, bar in bars.items():
        column = shares[f"{score} ≥ {bar:g}"]
        nulls = column.drop(FEATURES)
        reached = [name for name, share in nulls.items() if share.value >= column[FEATURES].value]
        others = ", ".join(f"{name} {number(share.value, '.1%')}" for name, share in nulls.items())
        lines.append(
            f"One fact with {score} of at least {bar:g} is detected by **{percent(column[FEATURES])} %** of the living "
            f"features; of their nulls by: {others}. Nulls that reach as far: {', '.join(reached) or 'none'}."
        )
    means = [
        f"{name} " + ", ".join(f"{score} {number(shares.loc[name, f'mean {score}'].value, '.2f')}" for score in bars)
        for name in found
    ]
    left = ", ".join(f"{score} {above_null(found, score, n)}" for score in bars)
    return [
        *lines,
        f"Mean over columns of the best of {n_facts} facts: {'; '.join(means)}. What shuffled features reach is luck.",
        f"What remains of the mean above equally sparse random directions: {left}.",
    ]
