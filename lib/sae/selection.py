"""Sparse codes of a batch: selecting them exactly, decoding them, and the gradients they carry.

Only k of F latents are kept per row, so everything after the encoder's product uses only the kept codes:
sums of decoder rows and of gradient rows are `embedding_bag`s, and no (B, F) array of codes is ever built.
Shapes: B rows, F latents, d model width, nnz kept codes. Weights are stored by latent, (F, d), on both sides.
"""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")

MAX_ELEMENTS = {"cpu": 2**24, "mps": 2**26, "cuda": 2**28}
"""Pre-activations in memory at a time, by type of device; larger products run in chunks of rows. On a GPU each chunk
waits for the one before it, and 2**28 of them take half a gigabyte in bfloat16."""


class Codes(NamedTuple):
    """Kept codes in row order, as in CSR: row i owns the entries `offsets[i]:offsets[i + 1]`."""

    rows: Tensor  # (nnz,) int64
    features: Tensor  # (nnz,) int64
    values: Tensor  # (nnz,) positive
    offsets: Tensor  # (B + 1,) int64

    @classmethod
    def from_flat(cls, flat: Tensor, values: Tensor, n_rows: int, n_features: int) -> "Codes":
        """Codes from ascending indices `row * F + feature`."""
        rows = torch.div(flat, n_features, rounding_mode="floor")
        starts = torch.arange(n_rows + 1, device=flat.device)
        return cls(rows, flat - rows * n_features, values, torch.searchsorted(rows, starts))

    def to_csr(self, n_features: int) -> Tensor:
        """Torch sparse CSR tensor (B, F)."""
        size = (len(self.offsets) - 1, n_features)
        return torch.sparse_csr_tensor(self.offsets, self.features, self.values, size, check_invariants=False)


def order_by_feature(features: Tensor, n_features: int) -> tuple[Tensor, Tensor]:
    """Stable order of entries (nnz,) by latent, and offsets (F + 1,): latent j owns `order[offsets[j]:offsets[j + 1]]`.

    Keys are narrow because their radix sort is several times faster.
    """
    narrow = torch.int16 if n_features <= 2**15 else torch.int32
    keys, entries = features.to(narrow).sort(stable=True)
    starts = torch.arange(n_features + 1, device=features.device)
    return entries, torch.searchsorted(keys.to(torch.int64), starts)


def weighted_sums(table: Tensor, index: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """`out[b] = sum of weights[i] * table[index[i]] for i in offsets[b]:offsets[b + 1]`, (bags, d)."""
    return F.embedding_bag(index, table, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True)


def dot_products(left: Tensor, bags: Tensor, offsets: Tensor, right: Tensor, index: Tensor) -> Tensor:
    """`left[bags[i]] · right[index[i]]` for each i, (nnz,), without gathering (nnz, d) rows.

    This is the kernel behind embedding_bag's gradient for its weights; autograd offers it only after a forward pass.
    """
    if index.numel() == 0:
        return left.new_zeros(0)
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(left, right, index, offsets[:-1], bags, 0, -1)


class LatentGradients(NamedTuple):
    """Gradients of the weights of each latent from a batch's codes, and the codes' values ordered by latent."""

    encoder: Tensor  # (F, d)
    bias: Tensor  # (F,)
    decoder: Tensor  # (F, d)
    values: Tensor  # (nnz,): latent j owns `values[offsets[j]:offsets[j + 1]]`
    offsets: Tensor  # (F + 1,) int64


def by_latent(
    codes: Codes, to_codes: Tensor, x: Tensor, upstream: Tensor, bags: Tensor, n_features: int
) -> LatentGradients:
    """Sum over each latent's codes: `to_codes` (nnz,) times their input rows of x (B, d) for the encoder's side, their
    values times rows `bags` (nnz,) of the upstream gradient for the decoder's.
    """
    order, offsets = order_by_feature(codes.features, n_features)
    values, to_codes = codes.values[order], to_codes[order]
    return LatentGradients(
        weighted_sums(x, codes.rows[order], offsets, to_codes),
        torch.segment_reduce(to_codes, "sum", offsets=offsets),
        weighted_sums(upstream, bags[order], offsets, values),
        values,
        offsets,
    )


def flat_indices(hits: Tensor) -> Tensor:
    """Ascending flat indices of the non-zero entries; eight bytes at a time, since almost all are zero."""
    hits = hits.view(-1)
    lanes = 8 // hits.element_size()
    if hits.numel() % lanes or hits.device.type != "cpu":
        return hits.nonzero().squeeze(1)
    words = hits.view(torch.int64)
    filled = words.nonzero().squeeze(1)
    inside = words[filled].view(hits.dtype).nonzero().squeeze(1)
    word = torch.div(inside, lanes, rounding_mode="floor")
    return filled[word].mul_(lanes).add_(inside - word * lanes)


@contextmanager
def float32_sums(device: torch.device) -> Iterator[None]:
    """Context in which bfloat16 products are summed in float32; cuBLAS may otherwise add partial sums in bfloat16."""
    if device.type != "cuda":
        yield
        return
    settings = torch.backends.cuda.matmul
    before = settings.allow_bf16_reduced_precision_reduction
    settings.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        settings.allow_bf16_reduced_precision_reduction = before


def _row_norms(x: Tensor) -> Tensor:
    """Upper bound of the rows' norms: (n, d) -> (n,). Squares below the smallest normal number may have been lost."""
    return torch.linalg.vector_norm(x, dim=1) + math.sqrt(x.shape[1]) * 2.0**-63


@dataclass
class PreActivations:
    """Pre-activations `x @ weight.T + bias` of which only the large ones are needed.

    With `dtype=torch.bfloat16` the product in bfloat16 is only a screen: whatever could lie above the level, given the
    worst rounding error, is computed again in x's own precision, so the result is exact (`_error`).
    """

    weight: Tensor  # (F, d)
    bias: Tensor  # (F,)
    dtype: torch.dtype | None = None  # None: that of the weight
    _workspace: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def above(self, x: Tensor, level: float) -> tuple[Tensor, Tensor]:
        """Flat indices (m,) ascending and values (m,) of all pre-activations of x (B, d) greater than `level`."""
        n_features, step = len(self.weight), max(1, MAX_ELEMENTS[x.device.type] // len(self.weight))
        screening = self.dtype is not None and self.dtype != self.weight.dtype
        weight = self._buffer("weight", self.weight.shape, self.dtype).copy_(self.weight) if screening else self.weight
        norms = (_row_norms(self.weight), _row_norms(weight - self.weight)) if screening else None
        # The least product of a candidate; rounding in the difference and in adding the bias is relative to these two.
        bound, found = level - self.bias - 2.0**-22 * (self.bias.abs() + abs(level)), []
        for i, rows in enumerate(x.split(step)):  # (n, d)
            rounded = rows.to(weight.dtype)
            error = self._error(rows, rounded, norms) if screening else None
            if error is not None and not bool(error.isfinite().all()):  # a norm overflows, so there is no bound
                flat, exact = PreActivations(self.weight, self.bias).above(rows, level)
                found.append((flat + i * step * n_features, exact))
                continue
            shape = (len(rows), n_features)
            with float32_sums(x.device):
                product = torch.mm(rounded, weight.t(), out=self._buffer("product", shape, weight.dtype))
            if screening:
                least = bound - error
                least = least - 2.0**-8 * least.abs()  # the product is rounded to bfloat16, up or down
                flat = self._at_least(product, least.to(product.dtype), overwrite=True)
                exact = self._values(rows, flat)
            else:
                flat = self._at_least(product, bound)
                exact = product.view(-1)[flat] + self.bias[flat % n_features]
            inside = (exact > level).nonzero().squeeze(1)
            found.append((flat[inside] + i * step * n_features, exact[inside]))
        return torch.cat([flat for flat, _ in found]), torch.cat([values for _, values in found])

    def dense(self, x: Tensor) -> Tensor:
        """All pre-activations (B, F), in x's precision."""
        return torch.addmm(self.bias, x, self.weight.t())

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Memory that is reused between batches: allocating a (B, F) product costs as much as a pass over it."""
        kept = self._workspace.get(name)
        if kept is None or kept.shape[0] < shape[0] or kept.dtype != dtype:
            kept = self._workspace[name] = torch.empty(shape, dtype=dtype, device=self.weight.device)
        return kept[: shape[0]]

    def _at_least(self, product: Tensor, bound: Tensor, overwrite: bool = False) -> Tensor:
        """Flat indices (m,) ascending where the product (n, F) is at least the bound (F,)."""
        on_cpu = product.device.type == "cpu"
        # CPUs compare into a tensor of the operands' type in SIMD, into booleans one by one, which is much slower.
        if on_cpu and overwrite:
            return flat_indices(torch.ge(product, bound, out=product))
        mask = self._buffer("mask", product.shape, torch.bool)
        if on_cpu:
            hits = torch.ge(product, bound, out=self._buffer("hits", product.shape, product.dtype))
            return flat_indices(mask.copy_(hits))
        return flat_indices(torch.ge(product, bound, out=mask))

    @staticmethod
    def _error(x: Tensor, rounded: Tensor, norms: tuple[Tensor, Tensor]) -> Tensor:
        """Bound (F,) of |x · w - p| for rows x (n, d), latents w and the screening product p before it is rounded.

        With x' and w' what x and w became in bfloat16: x · w - x' · w' = (x - x') · w + x' · (w - w'), which is at most
        |x - x'||w| + |x'||w - w'| (Cauchy-Schwarz). Rounding moves each component by at most 2^-8 of itself, so this
        is at most 2^-7 (1 + 2^-9) |x||w|; as the norms of the differences, which float32 holds exactly, it is less than
        half as much for usual numbers. Products of two bfloat16 are exact in float32, and d of them summed there in any
        order, rounded or truncated, err by at most d 2^-23 |x'||w'|; the final float32 product errs by d 2^-24 |x||w|.
        `d 2^-21` covers both, and the factor 1 + d 2^-22 the rounding of the norms. `_row_norms` covers the loss where
        numbers below 2^-126 become 0.
        norms: |w| and |w - w'|, (F,) each. Where a norm overflows it is not finite.
        """
        d = x.shape[1]
        size, miss = (_row_norms(part).amax() if len(x) else x.new_zeros(()) for part in (x, rounded - x))
        w_size, w_miss = norms
        rounding = miss * w_size + (size + miss) * w_miss
        return (1 + d * 2.0**-22) * (rounding + d * 2.0**-21 * (size + miss) * (w_size + w_miss))

    def _values(self, x: Tensor, flat: Tensor) -> Tensor:
        codes = Codes.from_flat(flat, flat, len(x), len(self.weight))
        return dot_products(x, codes.rows, codes.offsets, self.weight, codes.features) + self.bias[codes.features]


class BatchTopK:
    """Exactly the k * B largest positive pre-activations of a batch (ties: the first in row order).

    Instead of a flat top-k over B * F values, candidates above a level that trails the last batch's cut are
    taken, and only these are partitioned; when too few survive, the level is lowered and the batch done again.
    """

    def __init__(self, k: int) -> None:
        self.k = k
        self.cut: float | None = None  # smallest value kept in the last batch
        self.margin = 0.05  # how far below the last cut the next level lies

    def __call__(self, x: Tensor, encoder: PreActivations) -> Codes:
        """Codes of x (B, d)."""
        wanted = self.k * len(x)
        level = self._first_level(x, encoder) if self.cut is None else self.cut * (1 - self.margin)
        flat, values = encoder.above(x, level)
        while len(values) < wanted and level > 0:
            level = min(self._first_level(x, encoder), level / 2) if level > 1e-6 else 0.0
            flat, values = encoder.above(x, level)
        if len(values) > wanted:
            flat, values = self._partition(flat, values, wanted)
        self._follow(values)
        return Codes.from_flat(flat, values, len(x), len(encoder.weight))

    def _first_level(self, x: Tensor, encoder: PreActivations) -> float:
        """Guess from a few rows where the cut lies, a little lower; 0 when fewer than k of a row are positive."""
        sample = encoder.dense(x[:: max(1, len(x) // 64)])
        wanted = min(self.k * len(sample), sample.numel())
        return max(0.0, 0.9 * float(sample.reshape(-1).topk(wanted, sorted=False).values.min()))

    @staticmethod
    def _partition(flat: Tensor, values: Tensor, wanted: int) -> tuple[Tensor, Tensor]:
        cut = values.kthvalue(len(values) - wanted + 1).values
        larger, ties = values > cut, values == cut
        keep = (larger | (ties & (ties.cumsum(0) <= wanted - larger.sum()))).nonzero().squeeze(1)
        return flat[keep], values[keep]

    def _follow(self, values: Tensor) -> None:
        if len(values) == 0:
            self.cut = None
            return
        cut = float(values.min())
        moved = abs(cut / self.cut - 1) if self.cut else self.margin
        self.margin = min(0.3, max(0.01, 0.9 * self.margin, 3 * moved))
        self.cut = cut


class TopK:
    """Exactly the k largest positive pre-activations of each row.

    Candidates above a level that most rows' k-th value exceeded in the last batch are ranked within their row; rows
    with fewer than k candidates are done densely, and so is everything once the level no longer separates.
    """

    def __init__(self, k: int) -> None:
        self.k = k
        self.level: float | None = None  # None: do the batch densely
        self.separates = True

    def __call__(self, x: Tensor, encoder: PreActivations) -> Codes:
        """Codes of x (B, d)."""
        n_features = len(encoder.weight)
        if self.level is None:
            kept = Codes.from_flat(*self._dense(x, encoder), len(x), n_features)
        else:
            flat, values = encoder.above(x, self.level)
            candidates = Codes.from_flat(flat, values, len(x), n_features)
            self.separates = len(flat) < 4 * self.k * len(x)
            keep = self._largest(candidates)
            short = candidates.offsets.diff() < self.k
            if self.level > 0 and short.any():
                keep &= ~short[candidates.rows]
                rows = short.nonzero().squeeze(1)
                again, again_values = self._dense(x[rows], encoder)
                again += (rows - torch.arange(len(rows), device=rows.device))[again // n_features] * n_features
                flat, order = torch.cat([flat[keep], again]).sort()
                kept = Codes.from_flat(flat, torch.cat([values[keep], again_values])[order], len(x), n_features)
            else:
                keep = keep.nonzero().squeeze(1)
                kept = Codes.from_flat(flat[keep], values[keep], len(x), n_features)
        self.level = self._next_level(kept) if self.separates else None
        return kept

    def _dense(self, x: Tensor, encoder: PreActivations) -> tuple[Tensor, Tensor]:
        """Flat indices, ascending, and values of the rows' positive top k, by a dense top-k of each row."""
        top = encoder.dense(x).topk(self.k, dim=1, sorted=False)
        features, order = top.indices.sort(dim=1)
        values = top.values.gather(1, order)
        starts = torch.arange(len(x), device=x.device)[:, None] * len(encoder.weight)
        return (starts + features)[values > 0], values[values > 0]

    def _largest(self, codes: Codes) -> Tensor:
        """Which codes (nnz,) are among the k largest of their row; the rows are padded to the longest."""
        width = int(codes.offsets.diff().max())
        if width <= self.k:
            return torch.ones_like(codes.rows, dtype=torch.bool)
        place = torch.arange(len(codes.rows), device=codes.rows.device) - codes.offsets[codes.rows]
        place += codes.rows * width
        padded = codes.values.new_full((len(codes.offsets) - 1, width), -float("inf"))
        padded.view(-1).index_copy_(0, place, codes.values)
        top = padded.topk(self.k, dim=1, sorted=False).indices
        return torch.zeros_like(padded, dtype=torch.bool).scatter_(1, top, True).view(-1)[place]

    @staticmethod
    def _next_level(kept: Codes) -> float | None:
        """A little below what all but a few rows' smallest kept value exceed."""
        smallest = torch.segment_reduce(kept.values, "min", offsets=kept.offsets, initial=float("inf"))
        smallest = smallest[smallest.isfinite()]
        return 0.95 * float(smallest.float().quantile(0.02)) if len(smallest) else None
