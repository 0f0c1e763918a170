"""Monosemanticity Score (Pach et al., arXiv 2504.02821, section 3.2), exact and in linear time."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.columns import check_matrix, csr, transposed_csr

# Pairs are what is left of S1^2 after S2 is taken off. Where less than this share is left, float32 would show.
_WELL_CONDITIONED = 0.25


@torch.no_grad()
def monosemanticity(activations: Tensor, embeddings: Tensor, block: int = 1 << 20) -> Tensor:
    """How alike the images are that activate a feature together: mean pairwise cosine, weighted by joint activation.

    activations: `(N, F)`, dense or sparse CSR, signed or not. embeddings: `(N, E)`, any scale, one per image.
    Returns `(F,)` float32 in [-1, 1]; NaN marks a feature without a single weighted pair, that is a dead one: equal on
    all images, or above its minimum on exactly one. `block` bounds the working memory, in numbers.

    With a~ = (a - min) / (max - min) over the N images and unit embeddings e, the score of the paper's code
    (`metric.py`, behind all its tables; the printed equation lacks the denominator) and its closed form:

        MS = sum_{n<m} a~_n a~_m cos(e_n, e_m) / sum_{n<m} a~_n a~_m
           = (|sum a~ e|^2 - sum a~^2) / ((sum a~)^2 - sum a~^2)

    Raises ValueError when shapes do not fit, a value is not finite, or an embedding is zero and so has no direction.
    """
    check_matrix(activations)
    if embeddings.dim() != 2 or len(embeddings) != len(activations):
        raise ValueError(
            f"embeddings must be (N, E) with the activations' N = {len(activations)}, got {tuple(embeddings.shape)}."
        )
    unit = embeddings.to(activations.device, torch.double)
    length = torch.linalg.vector_norm(unit, dim=1, keepdim=True)
    if not (length.isfinite() & (length > 0)).all():
        raise ValueError("an embedding is zero or holds NaN or infinity, so it has no direction: check what made it.")
    score = _sparse if activations.layout == torch.sparse_csr else _dense
    return score(activations, unit / length, block).float()


def _check_finite(low: Tensor, high: Tensor) -> None:
    if not (low.isfinite().all() and high.isfinite().all()):
        raise ValueError("activations hold NaN or infinity: the score would be meaningless, check what made them.")


def _dense(activations: Tensor, unit: Tensor, block: int) -> Tensor:
    """Blocks of features by one product in their own precision; the few whose sums nearly cancel go the sparse way."""
    scores = []
    for columns in activations.split(max(1, block // len(activations)), dim=1):
        columns = columns if columns.dtype == torch.float64 else columns.float()
        low, high = columns.amin(0), columns.amax(0)
        _check_finite(low, high)
        shifted = (columns - low).mul_((high - low).reciprocal())  # (N, f); NaN where all are equal
        total_squared = shifted.sum(0).double().square()
        squares = torch.linalg.vector_norm(shifted, dim=0).double().square()
        direction = shifted.t() @ unit.to(shifted.dtype)  # (f, E)
        pairs = total_squared - squares
        score = (torch.linalg.vector_norm(direction, dim=1).double().square() - squares) / pairs
        redo = (pairs < _WELL_CONDITIONED * total_squared).nonzero().squeeze(1)  # never the dead: NaN compares false
        if len(redo):
            score[redo] = _sparse(columns[:, redo].to_sparse_csr(), unit, block)
        scores.append(score)
    return torch.cat(scores)


def _sparse(activations: Tensor, unit: Tensor, block: int) -> Tensor:
    """Float64 throughout, for the entries are few; images that are not stored share one value and need no memory.

    Each feature's largest activation, a~ = 1 on image m, is held apart: with the sums over the other images, twice the
    numerator is 2 e_m . V + |V|^2 - S2 and twice the denominator 2 S1 + S1^2 - S2. As S2 <= S1, nothing cancels.
    """
    n_images, n_features = activations.shape
    columns = transposed_csr(activations)  # (F, N)
    offsets, images, values = columns.crow_indices(), columns.col_indices(), columns.values().double()
    feature = torch.arange(n_features, device=values.device).repeat_interleave(offsets.diff())
    unstored = n_images - offsets.diff()
    low, high = _extremes(values, feature, unstored)
    _check_finite(low, high)
    spread = high - low

    entry = (values == high[feature]).nonzero().squeeze(1)
    top = torch.full_like(unstored, -1).scatter_(0, feature[entry], entry)  # (F,) of image m; -1: it is not stored
    apart = (top >= 0).double()
    shifted = ((values - low[feature]) / spread[feature]).index_fill(0, top[top >= 0], 0)
    elsewhere = torch.where((unstored > 0) & (low < 0), -low / spread, 0)  # a~ of the images that are not stored
    total = unstored * elsewhere + torch.zeros_like(low).index_add_(0, feature, shifted)
    squares = unstored * elsewhere.square() + torch.zeros_like(low).index_add_(0, feature, shifted.square())
    pairs = 2 * apart * total + total.square() - squares

    scores = []
    weights = shifted - elsewhere[feature]
    width = max(1, block // unit.shape[1])
    for start in range(0, n_features, width):
        stop = min(start + width, n_features)
        some, here = slice(start, stop), slice(int(offsets[start]), int(offsets[stop]))
        bounds = offsets[start : stop + 1] - offsets[start]
        rows = csr(bounds, images[here], weights[here], (stop - start, n_images))
        direction = rows @ unit  # (width, E)
        if elsewhere[some].any():
            direction += torch.outer(elsewhere[some], unit.sum(0))
        along = apart[some] * torch.linalg.vecdot(unit[images[top[some]]], direction) if len(images) else 0
        scores.append(2 * along + torch.linalg.vector_norm(direction, dim=1).square() - squares[some])
    return torch.where(pairs > 0, torch.cat(scores) / pairs, torch.nan)


def _extremes(values: Tensor, feature: Tensor, unstored: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest activation of each feature over all images: what is not stored is zero."""
    zeros = values.new_zeros(len(unstored))
    low, high = (zeros.scatter_reduce(0, feature, values, how, include_self=False) for how in ("amin", "amax"))
    return torch.where(unstored > 0, low.clamp(max=0), low), torch.where(unstored > 0, high.clamp(min=0), high)
