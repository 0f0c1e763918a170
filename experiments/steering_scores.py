"""Scores of steered answers of a language model: similarity to the steered feature, insertion and suppression rates."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.devices import metric
from lib.metrics.intervals import Interval, bootstrap

_TAILS = torch.tensor([0.025, 0.975], dtype=torch.double)


@metric()
def feature_embeddings(top_images: Tensor, image_embeddings: Tensor) -> Tensor:
    """Embedding of each feature: the mean embedding of its top images, `(F, E)` (arXiv 2504.02821, section 4.4).

    top_images: `(F, k)` indices, -1 for none; image_embeddings: `(N, E)`, made unit vectors first. NaN for a feature
    without any top image.
    """
    unit = F.normalize(image_embeddings.float(), dim=1)
    shown = top_images >= 0
    sums = (unit[top_images.clamp_min(0)] * shown[..., None]).sum(1)  # (F, E)
    return sums / shown.sum(1, keepdim=True)


@metric(unknown=("features",))
def steering_score(answers: Tensor, features: Tensor) -> Tensor:
    """Cosine of an answer's text embedding with the embedding of the steered feature (ibid., section 4.4).

    answers: `(..., F, E)`, one for each feature, or what broadcasts to it: an unsteered answer is the same for all
    features; features: `(F, E)` of `feature_embeddings`. Returns `(..., F)`, NaN where a feature has none. Raises
    ValueError for widths that differ.
    """
    if answers.shape[-1] != features.shape[-1]:
        raise ValueError(
            f"answers have embeddings of width {answers.shape[-1]}, features of width {features.shape[-1]}: "
            "let one encoder embed both."
        )
    return (F.normalize(answers.float(), dim=-1) * F.normalize(features.float(), dim=-1)).sum(-1)


@metric(on="cpu")
def name_bounds(images: Tensor, names: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Cosines of images with their true names and with shuffled names, both `(N,)`.

    The paper's upper and lower bound for the score (ibid., Table 3). images, names: `(N, E)`, row by row.
    """
    if images.shape != names.shape:
        raise ValueError(f"every image needs its name's embedding: {tuple(images.shape)} against {tuple(names.shape)}.")
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))
    return steering_score(names, images), steering_score(names[order], images)


@metric(unknown=("table",), on="cpu")
def crossed_mean(table: Tensor, n: int = 2000, seed: int = 0) -> Interval:
    """Mean of a table `(R, C)` with an interval over both rows and columns, such as features and pictures.

    Rows and columns are resampled independently, and a cell is weighted by the product of their counts (Owen 2007, "The
    pigeonhole bootstrap"). Cells with NaN are left out. No interval for a single row or column: use
    `bootstrap` on the other side then.
    """
    table = table.double()
    if table.ndim != 2:
        raise ValueError(f"a crossed table is (R, C), rows by columns, not {tuple(table.shape)}.")
    known = ~table.isnan()
    value = float(table[known].mean()) if known.any() else math.nan
    if min(table.shape) < 2 or not known.any():
        return Interval(value)
    generator = torch.Generator().manual_seed(seed)
    rows, columns = (_times_drawn(size, n, generator) for size in table.shape)  # (n, R), (n, C)
    sums = ((rows @ table.nan_to_num()) * columns).sum(1)
    counts = ((rows @ known.double()) * columns).sum(1)
    low, high = (sums / counts).nanquantile(_TAILS).tolist()
    return Interval(value, low, high)


class Rates(NamedTuple):
    """Shares of answers, each with its interval: the concept is as wanted, the rest is, and both are."""

    concept: Interval
    rest: Interval
    both: Interval


@metric(unknown=("concept", "rest"), on="cpu")
def rates(concept: Tensor, rest: Tensor, n: int = 2000, seed: int = 0) -> Rates:
    """Insertion or suppression rates from two outcomes of every answer (arXiv 2504.02821 v3, Table 2).

    concept: `(C, P)` for C concepts and P prompts or pictures each, 1 or 0, NaN where there was nothing to judge;
    insertion: the concept is named; suppression: it is not. rest: `(C, P)` likewise: the prompt was followed; what else
    the picture shows was kept. Answers about one concept are correlated, so concepts are resampled.
    """
    if concept.shape != rest.shape or concept.ndim != 2:
        raise ValueError(f"both outcomes are (C, P), not {tuple(concept.shape)} and {tuple(rest.shape)}.")
    concept, rest = concept.double(), rest.double()
    outcomes = (concept + 0 * rest, rest + 0 * concept, concept * rest)  # NaN in either is NaN in all
    return Rates(*(bootstrap(_mean, outcome.nanmean(1), n=n, seed=seed) for outcome in outcomes))


@metric(unknown=("one", "other"), on="cpu")
def mean_difference(one: Tensor, other: Tensor, n: int = 2000, seed: int = 0) -> Interval:
    """Mean of `one - other`, both `(N,)` or `(N, P)` for the same N things, resampled together.

    Cells where either is NaN are left out.
    """
    if one.shape != other.shape:
        raise ValueError(f"one and other must have the same shape, got {tuple(one.shape)}, {tuple(other.shape)}.")
    difference = one.double() - other.double()
    return bootstrap(_mean, difference if difference.ndim == 1 else difference.nanmean(1), n=n, seed=seed)


def _mean(x: Tensor) -> Tensor:
    return x.mean(1)


def _times_drawn(size: int, n: int, generator: torch.Generator) -> Tensor:
    """How often each of `size` things is drawn, in n draws of as many with replacement: (n, size)."""
    drawn = torch.randint(size, (n, size), generator=generator)
    return torch.zeros(n, size, dtype=torch.double).scatter_add_(1, drawn, torch.ones(n, size, dtype=torch.double))
