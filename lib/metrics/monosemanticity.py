"""Monosemanticity Score (Pach et al., arXiv 2504.02821, section 3.2), exact and in linear time."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.devices import metric
from lib.metrics.columns import check_matrix, csr, transposed_csr
from lib.sae.selection import dot_products, weighted_sums

# The denominator is S1^2 - S2. Below this share of S1^2, the subtraction costs more digits than float32 can spare.
_WELL_CONDITIONED = 0.25
# Terms that are summed in float32; the sums of such chunks are added in float64.
_CHUNK = 64


@metric(unknown=("embeddings",))
def monosemanticity(activations: Tensor, embeddings: Tensor, block: int = 1 << 20) -> Tensor:
    """Monosemanticity Score: mean pairwise cosine of the images' embeddings, weighted by their joint activation.

    activations: `(N, F)`, dense or sparse CSR, signed or not. embeddings: `(N, E)`, any scale, one per image.
    Returns `(F,)` float32 in [-1, 1]; NaN for a feature without a pair of nonzero weight, whose activation is equal on
    all images (a dead one), or above its minimum on exactly one. `block` bounds the working memory, in numbers.

    With a~ = (a - min) / (max - min) over the N images and unit embeddings e, the score of the paper's code
    (`metric.py`, used for all its tables; the printed equation lacks the denominator) and its closed form:

        MS = sum_{n<m} a~_n a~_m cos(e_n, e_m) / sum_{n<m} a~_n a~_m
           = (|sum a~ e|^2 - sum a~^2) / ((sum a~)^2 - sum a~^2)

    Raises ValueError when shapes do not fit, a value is not finite, or an embedding is zero and so has no direction.
    """
    check_matrix(activations)
    if embeddings.dim() != 2 or len(embeddings) != len(activations):
        raise ValueError(
            f"embeddings must be (N, E) with the activations' N = {len(activations)}, got {tuple(embeddings.shape)}."
        )
    unit = _unit(embeddings).to(torch.promote_types(activations.dtype, torch.float32))
    score = _sparse if activations.layout == torch.sparse_csr else _dense
    return score(activations, unit, block).float()


def _unit(embeddings: Tensor) -> Tensor:
    """Rows of unit norm, in float32 at least; in float64 where float32 has no room for their squares."""
    for precision in (torch.promote_types(embeddings.dtype, torch.float32), torch.double):
        rows = embeddings.to(precision)
        length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        if (length.isfinite() & (length > 0)).all():
            return rows / length
    raise ValueError("an embedding is zero or holds NaN or infinity, so it has no direction: check what made it.")


def _dense(activations: Tensor, unit: Tensor, block: int) -> Tensor:
    """Blocks of features by one product in their own precision; the few ill-conditioned ones by `_sparse`."""
    scores = []
    for columns in activations.split(max(1, block // len(activations)), dim=1):
        columns = columns if columns.dtype == torch.float64 else columns.float()
        low, high = columns.amin(0), columns.amax(0)
        shifted = (columns - low).mul_((high - low).reciprocal())  # (N, f); NaN where all are equal
        total_squared = shifted.sum(0).double().square()
        squares = torch.linalg.vector_norm(shifted, dim=0).double().square()
        direction = shifted.t() @ unit  # (f, E)
        pairs = total_squared - squares
        score = (torch.linalg.vector_norm(direction, dim=1).double().square() - squares) / pairs
        redo = (pairs < _WELL_CONDITIONED * total_squared).nonzero().squeeze(1)  # never the dead: NaN compares false
        if len(redo):
            score[redo] = _sparse(columns[:, redo].to_sparse_csr(), unit, block)
        scores.append(score)
    return torch.cat(scores)


def _sparse(activations: Tensor, unit: Tensor, block: int) -> Tensor:
    """Scores of CSR activations: images that are not stored share one value; all sums but V are in float64.

    Each feature's largest activation, a~ = 1 on image m, is kept apart: with S1, S2 and V = sum a~ e over the others,
    twice the numerator is 2 e_m . V + |V|^2 - S2 and twice the denominator 2 S1 + S1^2 - S2. As S2 <= S1, nothing
    cancels: a relative error of V moves the score by no more than twice itself, so that V may be summed in float32.
    """
    n_images, n_features = activations.shape
    columns = transposed_csr(activations)  # (F, N)
    offsets, images, values = columns.crow_indices(), columns.col_indices(), columns.values().double()
    feature = torch.arange(n_features, device=values.device).repeat_interleave(offsets.diff())
    unstored = n_images - offsets.diff()
    low, high = _extremes(values, feature, unstored)
    spread = high - low

    entry = (values == high[feature]).nonzero().squeeze(1)
    top = torch.full_like(unstored, -1).scatter_(0, feature[entry], entry)  # (F,) of image m; -1: it is not stored
    apart = (top >= 0).double()
    shifted = ((values - low[feature]) / spread[feature]).index_fill(0, top[top >= 0], 0)
    elsewhere = torch.where((unstored > 0) & (low < 0), -low / spread, 0)  # a~ of the images that are not stored
    total = unstored * elsewhere + torch.zeros_like(low).index_add_(0, feature, shifted)
    squares = unstored * elsewhere.square() + torch.zeros_like(low).index_add_(0, feature, shifted.square())
    pairs = 2 * apart * total + total.square() - squares

    scores, weights = [], shifted - elsewhere[feature]
    width = max(1, block // unit.shape[1])
    for start in range(0, n_features, width):
        stop = min(start + width, n_features)
        some, here = slice(start, stop), slice(int(offsets[start]), int(offsets[stop]))
        bounds = offsets[start : stop + 1] - offsets[start]
        tops = images[top[some]] if len(images) else top[some] * 0  # (width,) image m, or any where there is none
        if elsewhere[some].any():  # stored and other images can cancel each other
            rows = csr(bounds, images[here], weights[here], (stop - start, n_images))
            direction = rows @ unit.double() + torch.outer(elsewhere[some], unit.sum(0, dtype=torch.double))
        else:
            direction = _weighted_sums(unit, images[here], bounds, weights[here].to(unit.dtype))  # (width, E)
        each = torch.arange(len(tops) + 1, device=tops.device)
        along = apart[some] * dot_products(direction, each[:-1], each, unit.to(direction.dtype), tops)
        scores.append(2 * along + torch.linalg.vector_norm(direction, dim=1).double().square() - squares[some])
    return torch.where(pairs > 0, torch.cat(scores) / pairs, torch.nan)


def _weighted_sums(unit: Tensor, images: Tensor, bounds: Tensor, weights: Tensor) -> Tensor:
    """`out[f] = sum of weights[i] * unit[images[i]] for i in bounds[f]:bounds[f + 1]`, (f, E), in chunks of entries."""
    chunks = (bounds.diff() + _CHUNK - 1).div(_CHUNK, rounding_mode="floor").clamp_min(1)  # of each feature
    last = chunks.cumsum(0)
    owner = torch.arange(len(chunks), device=unit.device).repeat_interleave(chunks)
    place = torch.arange(len(owner), device=unit.device) - (last - chunks)[owner]
    starts = torch.cat([bounds[:-1][owner] + place * _CHUNK, bounds[-1:]])
    sums = weighted_sums(unit, images, starts, weights)
    if len(owner) == len(chunks):
        return sums
    return torch.zeros(len(chunks), unit.shape[1], dtype=torch.double, device=unit.device).index_add_(
        0, owner, sums.double()
    )


def _extremes(values: Tensor, feature: Tensor, unstored: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest activation of each feature over all images: what is not stored is zero."""
    zeros = values.new_zeros(len(unstored))
    low, high = (zeros.scatter_reduce(0, feature, values, how, include_self=False) for how in ("amin", "amax"))
    return torch.where(unstored > 0, low.clamp(max=0), low), torch.where(unstored > 0, high.clamp(min=0), high)
