"""Reading a dense or sparse activation matrix feature by feature."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.sae.selection import order_by_feature


def check_matrix(activations: Tensor, name: str = "activations") -> None:
    """Raise ValueError unless `activations` is an `(N, F)` matrix, dense or CSR, that holds at least one row."""
    if activations.dim() != 2 or activations.shape[0] == 0:
        raise ValueError(f"{name} must be an (N, F) matrix with N >= 1, got shape {tuple(activations.shape)}.")
    if activations.layout not in (torch.strided, torch.sparse_csr):
        raise ValueError(f"{name} must be dense or sparse CSR, got {activations.layout}: call .to_sparse_csr() first.")


def transposed_csr(codes: Tensor) -> Tensor:
    """The `(F, N)` CSR form of an `(N, F)` CSR matrix: one row per feature, images ascending."""
    n_images, n_features = codes.shape
    images = torch.arange(n_images, device=codes.device).repeat_interleave(codes.crow_indices().diff())
    order, offsets = order_by_feature(codes.col_indices(), n_features)
    return csr(offsets, images[order], codes.values()[order], (n_features, n_images))


def csr(offsets: Tensor, columns: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    """A sparse CSR matrix from parts that are valid by construction, so that torch's checks are skipped."""
    return torch.sparse_csr_tensor(offsets, columns, values, size, check_invariants=False)


@dataclass(frozen=True)
class ColumnBlock:
    """The stored entries of features `start … start + width - 1`, sorted by feature, then value (largest first).

    What is not stored is zero; a dense matrix stores all of its entries.
    """

    start: int
    width: int
    counts: Tensor  # (width,) stored entries of each feature
    feature: Tensor  # (nnz,) 0-based within the block
    image: Tensor  # (nnz,)
    value: Tensor  # (nnz,)


def sorted_columns(activations: Tensor, entries: int = 1 << 22) -> Iterator[ColumnBlock]:
    """Blocks of features with about `entries` stored entries each, for rank statistics in bounded memory."""
    n_images, n_features = activations.shape
    if activations.layout == torch.strided:
        width = max(1, entries // n_images)
        for start in range(0, n_features, width):
            value, image = activations[:, start : start + width].t().sort(dim=1, descending=True, stable=True)
            counts = torch.full((len(value),), n_images, device=value.device)
            feature = torch.arange(len(value), device=value.device).repeat_interleave(n_images)
            yield ColumnBlock(start, len(value), counts, feature, image.reshape(-1), value.reshape(-1))
        return
    columns = transposed_csr(activations)
    offsets, images, values = columns.crow_indices(), columns.col_indices(), columns.values()
    start = 0
    while start < n_features:
        stop = int(torch.searchsorted(offsets, offsets[start] + entries, right=True)) - 1
        stop = min(max(stop, start + 1), n_features)
        here = slice(int(offsets[start]), int(offsets[stop]))
        counts = offsets[start + 1 : stop + 1] - offsets[start:stop]
        feature = torch.arange(stop - start, device=counts.device).repeat_interleave(counts)
        order = values[here].argsort(descending=True, stable=True)
        order = order[feature[order].argsort(stable=True)]
        yield ColumnBlock(start, stop - start, counts, feature, images[here][order], values[here][order])
        start = stop
