"""Nulls: codes that learned nothing, or nothing but sparsity, in place of a dictionary's on the same pictures (ours).

A figure about features says something beside the same figure of these. A headline that a null reaches is none.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lib import metrics
from lib.devices import bring, to_cpu
from lib.metrics.columns import csr, transposed_csr

BLOCK = 1 << 24  # numbers held at once


def nulls_of(codes: Tensor, rows: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """By name, what stands beside the codes (N, F) of a dictionary that read the activations `rows` (N, d).

    neurons: the rows themselves, (N, d). sparse neurons, sparse directions: F of them, CSR (N, F), the f-th active on
    as many pictures as feature f: neurons drawn with replacement, each with a sign by chance, and Gaussian directions.
    shuffled: the codes with each feature's pictures dealt out anew. Raises ValueError where N differs.
    """
    if len(rows) != len(codes):
        raise ValueError(
            f"codes are of {len(codes):,} pictures, rows of {len(rows):,}: give those of the same pictures."
        )
    sparse = codes if codes.layout == torch.sparse_csr else codes.to_sparse_csr()
    active = to_cpu(sparse.col_indices()[sparse.values() > 0])  # a zero may be stored
    counts = active.bincount(minlength=codes.shape[1])  # (F,)
    return {
        "neurons": to_cpu(rows),
        "sparse neurons": _projected(rows, drawn_neurons(rows.shape[1], len(counts), seed), counts),
        "sparse directions": _projected(rows, drawn_directions(rows.shape[1], len(counts), seed), counts),
        "shuffled": metrics.shuffled_codes(sparse, seed),
    }


def drawn_neurons(d: int, n: int, seed: int) -> Tensor:
    """(d, n) columns of one entry each, 1 or -1."""
    generator = torch.Generator().manual_seed(seed)
    chosen, sign = (torch.randint(high, (n,), generator=generator) for high in (d, 2))
    return torch.zeros(d, n).index_put_((chosen, torch.arange(n)), 2.0 * sign - 1)


def drawn_directions(d: int, n: int, seed: int) -> Tensor:
    """(d, n) Gaussian columns of unit length."""
    drawn = torch.randn(d, n, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=0)


def made_sparse(values: Tensor, counts: Tensor) -> Tensor:
    """Each column's `counts` (F,) largest values, less the largest value below them; zero elsewhere: (N, F) dense.

    That is what a ReLU leaves whose bias is set for each column by itself. Equal values at the edge are all zero.
    """
    ordered = values.sort(dim=0, descending=True).values
    edge = ordered.gather(0, counts.clamp_max(len(values) - 1)[None])  # (1, F)
    whole = counts == len(values)
    edge[0, whole] = torch.nextafter(ordered[-1, whole], torch.tensor(-torch.inf))  # every picture stays active
    return (values - edge).clamp_min_(0)


def _projected(rows: Tensor, directions: Tensor, counts: Tensor) -> Tensor:
    """The centred rows (N, d) along directions (d, F), made as sparse as the counts say: CSR (N, F)."""
    centred = rows.float() - rows.float().mean(0)
    blocks = list(_blocks(centred, bring(directions, centred), bring(counts, centred)))
    entries = torch.cat([block.crow_indices().diff() for block in blocks])
    parts = [torch.cat([getattr(block, what)() for block in blocks]) for what in ("col_indices", "values")]
    pointers = torch.cat([torch.zeros(1, dtype=torch.int64), entries.cumsum(0)])
    return transposed_csr(csr(pointers, *parts, (len(counts), len(rows))))


def _blocks(centred: Tensor, directions: Tensor, counts: Tensor) -> Iterator[Tensor]:
    """CSR (f, N) of some columns at a time."""
    width = max(1, BLOCK // len(centred))
    for start in range(0, len(counts), width):
        some = slice(start, start + width)
        yield to_cpu(made_sparse(centred @ directions[:, some], counts[some]).t()).to_sparse_csr()
