"""Null models of a dictionary on the same pictures: codes without learning, some with the dictionary's sparsity (ours).

A result about features stands only if it exceeds that of these nulls, by the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Protocol

import torch
from torch import Tensor

from lib import metrics
from lib.devices import bring, rows_at_once, to_cpu
from lib.metrics.columns import csr, transposed_csr
from lib.sae.model import SAE, SAEConfig

PENALTIES = (0.01, 0.1, 1.0)  # of a null's decoder


def nulls_of(codes: Tensor, rows: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """Nulls by name, for codes (N, F) of a dictionary that read the activations `rows` (N, d).

    neurons: the rows themselves, (N, d). sparse neurons, sparse directions: F of them, CSR (N, F), the f-th active on
    as many pictures as feature f: neurons drawn with replacement, with a random sign, and Gaussian directions.
    shuffled: the codes with each feature's pictures permuted. Raises ValueError where N differs.
    """
    counts = _active(codes, rows)
    return {
        "neurons": to_cpu(rows),
        "sparse neurons": _projected(rows, drawn_neurons(rows.shape[1], len(counts), seed), counts),
        "sparse directions": sparse_directions(codes, rows, seed),
        "shuffled": metrics.shuffled_codes(_csr(codes), seed),
    }


def sparse_directions(codes: Tensor, rows: Tensor, seed: int = 0) -> Tensor:
    """Gaussian directions, the f-th active on as many pictures as feature f of the codes: CSR (N, F)."""
    counts = _active(codes, rows)
    return _projected(rows, drawn_directions(rows.shape[1], len(counts), seed), counts)


def drawn_neurons(d: int, n: int, seed: int) -> Tensor:
    """(d, n) columns of one entry each, 1 or -1."""
    generator = torch.Generator().manual_seed(seed)
    chosen, sign = (torch.randint(high, (n,), generator=generator) for high in (d, 2))
    return torch.zeros(d, n).index_put_((chosen, torch.arange(n)), 2.0 * sign - 1)


def drawn_directions(d: int, n: int, seed: int) -> Tensor:
    """(d, n) Gaussian columns of unit length."""
    drawn = torch.randn(d, n, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=0)


DRAWN: dict[str, Callable[[int, int, int], Tensor]] = {
    "sparse neurons": drawn_neurons,
    "sparse directions": drawn_directions,
}
"""By name, what draws the directions (d, n) of a null by d, n and a seed."""


def made_sparse(values: Tensor, counts: Tensor) -> Tensor:
    """Each column's `counts` (F,) largest values, less the largest value below them; zero elsewhere: (N, F) dense.

    This equals a ReLU with a bias for each column. Values equal to that largest value are zero.
    """
    ordered = values.sort(dim=0, descending=True).values
    edge = ordered.gather(0, counts.clamp_max(len(values) - 1)[None])  # (1, F)
    whole = counts == len(values)
    edge[0, whole] = torch.nextafter(ordered[-1, whole], ordered.new_tensor(-torch.inf))  # every picture stays active
    return (values - edge).clamp_min_(0)


def thresholds(values: Tensor, counts: Tensor) -> Tensor:
    """(F,) what `counts` (F,) of each column's values (N, F) exceed: the middle of the last kept and the first not."""
    ordered = values.t().contiguous().sort(dim=1, descending=True).values  # (F, N)
    found = ordered.gather(1, torch.stack([counts - 1, counts], dim=1).clamp(0, len(values) - 1)).mean(1)
    return torch.where(counts == len(values), found - (ordered[:, 0] - found) / len(values), found)


class Encodes(Protocol):
    """A dictionary, such as an SAE or an ensemble of SAEs."""

    def encode_sparse(self, x: Tensor) -> Tensor: ...


@torch.no_grad()
def null_dictionary(
    like: Encodes, rows: Tensor, seed: int = 0, drawn: Callable[[int, int, int], Tensor] = drawn_directions
) -> SAE:
    """A dictionary as sparse as another, which learned nothing but that: a ReLU SAE that reads directions by chance.

    Its latent f is active on as many of the rows (N, d) as feature f of `like`, on none where f is dead. The decoder
    reconstructs the rows by ridge regression, with the penalty that fits the second half of the rows best.
    """
    counts = _active(like.encode_sparse(rows), rows)
    rows = to_cpu(rows).float()
    sae, centred = SAE(SAEConfig(kind="relu", width=len(counts), seed=seed), rows.shape[1]), rows - rows.mean(0)
    directions = drawn(rows.shape[1], len(counts), seed) * (counts > 0)
    width = rows_at_once(len(rows))
    blocks = [slice(i, i + width) for i in range(0, len(counts), width)]
    found = torch.cat([thresholds(centred @ directions[:, some], counts[some]) for some in blocks])
    sae.b_dec.copy_(rows.mean(0))
    sae.W_enc.copy_(directions)
    sae.b_enc.copy_(-found)
    codes, half = sae.encode(rows), max(1, len(rows) // 2)
    fired = (codes > 0).any(0)  # the others are dead on all rows, as those are whose largest values are tied
    sae.W_enc.mul_(fired)
    sae.b_enc.mul_(fired)
    learned = _ridge(codes[:half], centred[:half], *PENALTIES)
    errors = torch.stack([(codes[half:] @ decoder - centred[half:]).square().sum() for decoder in learned])
    sae.W_dec.copy_(_ridge(codes, centred, PENALTIES[int(errors.argmin())])[0])
    return sae


def _ridge(codes: Tensor, target: Tensor, *penalties: float) -> list[Tensor]:
    """Decoders (F, d) of codes (N, F) for a target (N, d); penalties: in units of the latents' mean sum of squares."""
    tall = codes.shape[0] >= codes.shape[1]  # otherwise the same by the smaller (N, N) system
    gram = codes.t() @ codes if tall else codes @ codes.t()
    scales = [p * float(codes.square().sum()) / codes.shape[1] + 1e-12 for p in penalties]
    systems = (gram + scale * torch.eye(len(gram)) for scale in scales)
    if tall:
        return [torch.linalg.solve(system, codes.t() @ target) for system in systems]
    return [codes.t() @ torch.linalg.solve(system, target) for system in systems]


def null_dictionaries(
    saes: Mapping[tuple[Hashable, int], Encodes], rows: Tensor, drawn: Callable[[int, int, int], Tensor]
) -> dict[tuple[Hashable, int], SAE]:
    """A `null_dictionary` for each of several by (name, seed), drawn by its seed."""
    return {key: null_dictionary(sae, rows, key[1], drawn) for key, sae in saes.items()}


def _csr(codes: Tensor) -> Tensor:
    return codes if codes.layout == torch.sparse_csr else codes.to_sparse_csr()


def _active(codes: Tensor, rows: Tensor) -> Tensor:
    """On how many pictures each feature is active: (F,). Raises ValueError where codes and rows differ in pictures."""
    if len(rows) != len(codes):
        raise ValueError(
            f"codes are of {len(codes):,} pictures, rows of {len(rows):,}: give those of the same pictures."
        )
    sparse = _csr(codes)
    return to_cpu(sparse.col_indices()[sparse.values() > 0]).bincount(minlength=codes.shape[1])  # a zero may be stored


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
    width = rows_at_once(len(centred))
    for start in range(0, len(counts), width):
        some = slice(start, start + width)
        yield to_cpu(made_sparse(centred @ directions[:, some], counts[some]).t()).to_sparse_csr()
