"""The metrics of one dictionary, by name, and the truth that they are held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from experiments.ground_truth import Facts, best_f1
from experiments.metric_study import visaebench_metrics as visaebench
from experiments.metric_study.steered_words import GAIN, LEVEL, SteeredWords, evenly_spaced, word_scores
from experiments.repeated_runs import twins
from experiments.steerability import softmax_over, steerability
from lib import SAE, metrics
from lib.devices import bring, metric, to_cpu
from lib.encoders.encoder import Encoder
from lib.features.one_pass import top_images
from steering.cached_forward import CachedForward
from steering.interventions import Intervention

UP, DOWN = 1, -1
DIRECTION = {
    "explained variance": UP,
    "FVU": DOWN,
    "accuracy recovered": UP,
    "preservation": UP,
    "L0": DOWN,
    "dead": DOWN,
    "MS": UP,
    "MS of the top 16": UP,
    "sparse probing": UP,
    "localisation": UP,
    "absorption": DOWN,
    "cross-domain": UP,
    "overlap": DOWN,
    "twins": DOWN,
    "stability": UP,
    "naming": UP,
    "steerability": UP,
    LEVEL: UP,
    GAIN: UP,
}
"""Every metric, and which way its authors call better."""
FOUND, MEANT, TRUTH = "facts found", "features with a fact", "truth"


@dataclass(frozen=True, eq=False)
class Elsewhere:
    """Pictures of another kind: activations (M, P, d), and which class each shows (M,), None where unknown."""

    x: Tensor
    labels: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Steered:
    """What steering is measured on: pictures (n, 3, H, W), and embeddings (C, E) of the concepts asked about."""

    model: Encoder
    pixels: Tensor
    concepts: Tensor
    scale: float
    site: str
    features: int  # of each dictionary that are pushed


@dataclass(frozen=True, eq=False)
class StudyData:
    """What all dictionaries are measured on: N pictures with P patches on a grid.

    x: (N, P, d); labels: (N,) classes, -1 for none; siblings: classes by parent; facts: of the pictures; judge: (N, E)
    embeddings; own: (N, E') of the encoder itself, with words (V, E') to name features by.
    """

    x: Tensor
    grid: tuple[int, int]
    labels: np.ndarray
    siblings: Mapping[str, Sequence[int]]
    facts: Facts
    judge: Tensor
    own: Tensor
    words: Tensor
    elsewhere: Elsewhere | None
    steered: Steered
    spoken: SteeredWords | None = None

    @cached_property
    def shown(self) -> np.ndarray:
        """Positions of the pictures that show a class."""
        return np.flatnonzero(self.labels >= 0)


@torch.no_grad()
def measure(sae: SAE, data: StudyData, codes: Tensor, x_hat: Tensor) -> dict[str, float]:
    """All metrics of a dictionary by name, but for those that need another run or the encoder's answers; and the truth.

    codes, x_hat: of `codes_and_reconstruction`. NaN where the pictures do not allow a metric.
    """
    pooled = codes.amax(1)  # (N, F)
    fit = metrics.reconstruction(data.x.flatten(0, 1), x_hat.flatten(0, 1))
    row = {"explained variance": fit["explained_variance"]}
    row |= _of_sparsity(codes, pooled, sae) | _of_meaning(pooled, data)
    row |= _of_visaebench(codes, pooled, x_hat, data) | {"cross-domain": _abroad(sae, pooled, data)}
    scores = feature_steerability(sae, codes, data.steered)[1]
    row["steerability"] = float(scores.mean()) if len(scores) else float("nan")
    row |= word_scores(sae, codes, data.spoken) if data.spoken else dict.fromkeys((LEVEL, GAIN), float("nan"))
    return row | truth(pooled, data.facts)


@torch.no_grad()
def codes_and_reconstruction(sae: SAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (N, P, F) and reconstruction (N, P, d) of activations (N, P, d), on the CPU."""
    x = bring(x, sae)
    codes = sae.encode(x)
    return to_cpu(codes), to_cpu(sae.decode(codes, x))


def _of_sparsity(codes: Tensor, pooled: Tensor, sae: SAE) -> dict[str, float]:
    alive = pooled.amax(0) > 0
    overlap, pairs = metrics.jaccard_counts(top_images(pooled.to_sparse_csr())[0][alive])
    return {
        "L0": float((codes > 0).sum(-1).float().mean()),
        "dead": float((~alive).float().mean()),
        "overlap": float((overlap * pairs).sum() / pairs.sum()) if pairs.sum() else float("nan"),
        "twins": twins(to_cpu(sae.W_dec)[alive], 0.7),
    }


def _of_meaning(pooled: Tensor, data: StudyData) -> dict[str, float]:
    own, words = (normalize(e - e.mean(0), dim=1) for e in (normalize(data.own, dim=1), normalize(data.words, dim=1)))
    alive = pooled.amax(0) > 0
    named = normalize(pooled[:, alive].T @ own, dim=1) @ words.T
    return {
        "MS": float(metrics.monosemanticity(pooled, data.judge).nanmean()),
        "naming": float(named.amax(1).mean()) if alive.any() and len(words) else float("nan"),
    }


def _of_visaebench(codes: Tensor, pooled: Tensor, x_hat: Tensor, data: StudyData) -> dict[str, float]:
    shown, labels = data.shown, data.labels[data.shown]
    row = {
        "FVU": visaebench.fvu(data.x.flatten(0, 1), x_hat.flatten(0, 1)),
        "MS of the top 16": visaebench.top_monosemanticity(pooled, data.judge),
        "localisation": visaebench.localisation(codes, data.grid, least_images=max(5, len(codes) // 20)),
    }
    if len(set(labels)) < 2:
        return row | dict.fromkeys(("preservation", "sparse probing", "absorption"), float("nan"))
    return row | {
        "preservation": visaebench.preservation(data.x[shown], x_hat[shown], labels),
        "sparse probing": visaebench.sparse_probing(pooled[shown].numpy(), labels, (1, 5, 20)),
        "absorption": visaebench.absorption(pooled[shown].numpy(), labels, data.siblings),
    }


def _abroad(sae: SAE, pooled: Tensor, data: StudyData) -> float:
    if data.elsewhere is None or data.elsewhere.labels is None or len(set(data.elsewhere.labels)) < 2:
        return float("nan")
    codes, x_hat = codes_and_reconstruction(sae, data.elsewhere.x)
    unexplained = visaebench.fvu(data.elsewhere.x.flatten(0, 1), x_hat.flatten(0, 1))
    there = codes.amax(1).numpy()
    return visaebench.cross_domain(pooled.numpy(), there, data.elsewhere.labels, unexplained)


def feature_steerability(sae: SAE, codes: Tensor, how: Steered) -> tuple[list[int], Tensor]:
    """Live features, evenly spaced, and the steerability (arXiv 2504.08729) of each, added at its largest code."""
    peak = codes.flatten(0, 1).amax(0)
    chosen = evenly_spaced((peak > 0).nonzero().squeeze(1), how.features).tolist()
    if not chosen:
        return [], torch.empty(0)
    pushes = [(Intervention(sae, how.site, {j: float(peak[j])}, mode="add", tokens="spatial"),) for j in chosen]
    forward = CachedForward(how.model, "proj", how.pixels, [(), *pushes])
    asked = softmax_over(to_cpu(forward.values([(), *pushes])), how.concepts, how.scale)  # (1 + features, n, C)
    return chosen, steerability(asked[0], asked[1:]).score


@metric()
def truth(pooled: Tensor, facts: Facts) -> dict[str, float]:
    """How far features (N, F) and facts match, on pictures that had no part in the matching.

    Features are matched to facts, and thresholds are set, on every other picture; F1 above chance counts on the rest,
    and the two halves change roles. found: mean over facts, each by its best feature; meant: mean over live features,
    each by its best fact; truth: their harmonic mean.
    """
    nothing = dict.fromkeys((FOUND, MEANT, TRUTH), float("nan"))
    if not facts.names or not (pooled.amax(0) > 0).any():
        return nothing
    even = torch.arange(len(pooled)) % 2 == 0
    both = [_matched(pooled, facts.truth, choose) for choose in (even, ~even)]
    found, meant = (float(np.nanmean([one[i] for one in both])) for i in range(2))
    return {FOUND: found, MEANT: meant, TRUTH: 2 * found * meant / (found + meant) if found + meant else 0.0}


def _matched(pooled: Tensor, known: Tensor, choose: Tensor) -> tuple[float, float]:
    """Means over facts and over features of the F1 above chance, on the pictures that do not choose."""
    alive = (pooled[choose].amax(0) > 0).nonzero().squeeze(1)
    table = best_f1(pooled[choose][:, alive], Facts([""] * known.shape[1], known[choose]), above_chance=True)
    every = torch.arange(known.shape[1])
    pairs = (alive[table.argmax(0)], every), (alive, table.argmax(1))
    return tuple(float(elsewhere_f1(pooled[:, f], known[:, c], choose).nanmean()) for f, c in pairs)


def elsewhere_f1(values: Tensor, known: Tensor, choose: Tensor) -> Tensor:
    """F1 of "value > threshold" above that of calling every picture positive, at least 0, (n,), for columns (N, n).

    The threshold is from the pictures that `choose`, the score from the others; NaN where a fact is true of none or
    all of them.
    """
    edge = best_threshold(values[choose], known[choose])
    called, right = values[~choose] > edge, known[~choose]
    hits, positives = (called & right).sum(0), right.sum(0)
    f1, chance = 2 * hits / (called.sum(0) + positives), 2 * positives / (len(right) + positives)
    return torch.where((positives > 0) & (chance < 1), ((f1 - chance) / (1 - chance)).clamp_min(0), torch.nan)


def best_threshold(values: Tensor, known: Tensor) -> Tensor:
    """The threshold t (n,) at which "value > t" has its best F1, for columns (N, n); never below 0."""
    ordered, order = values.sort(dim=0, descending=True)
    hits = known.gather(0, order).cumsum(0)
    called = torch.arange(1, len(values) + 1)[:, None]
    below = torch.cat([ordered[1:], ordered.new_zeros(1, ordered.shape[1])])
    f1 = torch.where((ordered > below) & (ordered > 0), 2 * hits / (called + known.sum(0)), -1.0)
    best = f1.argmax(0)
    edge = (ordered.gather(0, best[None]) + below.gather(0, best[None]).clamp_min(0)) / 2
    return torch.where(f1.amax(0) > 0, edge.squeeze(0), torch.inf)
