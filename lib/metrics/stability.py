"""Stability: one-to-one matching of the features of two training runs, by direction or by codes.

As Paulo and Belrose (arXiv 2501.16615) and Fel et al. (arXiv 2502.12892) measure it: the pairing of the features of A
with those of B that has the largest mean similarity (Hungarian algorithm), and that mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lib.devices import metric, rows_at_once
from lib.metrics.columns import check_matrix, csr, transposed_csr

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

EXACT_UP_TO = 4096
"""Most features per side for the exact matching, which takes an (F, F) table and up to F³ steps."""

CANDIDATES = 32
"""Most similar partners of each feature that the matching of wider dictionaries considers."""

Similarities = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Function of features (n,) of A and (m,) of B to their similarities (n, m)."""


@dataclass(frozen=True)
class Matching:
    """Pairs of features, one-to-one: M = the smaller of the two numbers of live features."""

    left: Tensor
    """(M,) int64, features of A, ascending."""
    right: Tensor
    """(M,) int64, the partner of each in B."""
    similarity: Tensor
    """(M,) float32."""
    bound: float
    """No matching has a larger mean similarity than this: the mean itself where the matching is exact."""

    @property
    def mean(self) -> float:
        """Mean similarity of the pairs; NaN where there are none."""
        return float(self.similarity.double().mean())

    def share_above(self, level: float) -> float:
        """Share of the pairs that are more alike than `level`; NaN where there are none."""
        return float((self.similarity > level).double().mean())

    def partners(self, n_features: int) -> Tensor:
        """(F_a,) the partner of every feature of A, -1 for one without (dead, or unmatched)."""
        return torch.full((n_features,), -1).index_copy_(0, self.left, self.right)


@metric(unknown=("a", "b"), on="cpu")
def match_directions(
    a: Tensor,
    b: Tensor,
    alive_a: Tensor | None = None,
    alive_b: Tensor | None = None,
    exact_up_to: int = EXACT_UP_TO,
    candidates: int = CANDIDATES,
) -> Matching:
    """Match the rows of two decoders, (F_a, d) and (F_b, d), by cosine.

    alive_a (F_a,), alive_b (F_b,): bool, which features take part; a dead one never moved from where the seed put it
    and would be matched with another run's noise. All of them by default.

    The matching is exact while both sides have at most `exact_up_to` live features. Beyond, a sparse assignment picks
    among the `candidates` most similar partners of each feature, repeated for the features that remain until none
    does: its mean is a lower bound on that of an exact matching, and `Matching.bound` an upper one.
    Raises ValueError when shapes do not fit or a row that takes part has no direction.
    """
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"decoders must be (F, d) with one d, got {tuple(a.shape)} and {tuple(b.shape)}.")
    live_a, live_b = _live(alive_a, len(a)), _live(alive_b, len(b))
    unit_a, unit_b = _unit_rows(a, live_a), _unit_rows(b, live_b)

    def cosine(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return (unit_a[left] @ unit_b[right].t()).numpy()

    return _match(cosine, live_a, live_b, exact_up_to, candidates)


@metric(on="cpu")
def match_codes(a: Tensor, b: Tensor, exact_up_to: int = EXACT_UP_TO, candidates: int = CANDIDATES) -> Matching:
    """Match two dictionaries by Pearson correlation of their codes (N, F_a) and (N, F_b) of the same N rows.

    Codes are dense or CSR; a CSR matrix is never made dense, only blocks of the (F_a, F_b) correlations are. Features
    whose code is constant over the rows, such as dead ones, take no part. The rest is as in `match_directions`.
    """
    left, right, n = *_by_feature(a, b), len(a)
    mean_a, spread_a = _moments(left)
    mean_b, spread_b = _moments(right)

    def correlation(i: np.ndarray, j: np.ndarray) -> np.ndarray:
        table = (left[i] @ right[j].T).toarray() / n - np.outer(mean_a[i], mean_b[j])
        return table / np.outer(spread_a[i], spread_b[j])

    return _match(correlation, np.flatnonzero(spread_a), np.flatnonzero(spread_b), exact_up_to, candidates)


@metric(on="cpu")
def random_directions(like: Tensor, seed: int = 0) -> Tensor:
    """A random decoder (F, d) that resembles `like` (F, d) in distribution: the baseline of `match_directions`.

    Gaussian draws with the mean and covariance of the unit rows of `like`, scaled to unit length.
    """
    unit = F.normalize(like.double(), dim=1)
    mean = unit.mean(0)
    centred = (unit - mean) / len(unit) ** 0.5
    draws = torch.randn(len(unit), len(unit), generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    return F.normalize(mean + draws @ centred, dim=1).to(like.dtype)


@metric(on="cpu")
def shuffled_codes(codes: Tensor, seed: int = 0) -> Tensor:
    """CSR codes (N, F) with each feature's values moved to other rows: the baseline of `match_codes`.

    The rows are put into one random order, in which each feature's codes are shifted by a random distance of its own.
    """
    check_matrix(codes, "codes")
    columns = transposed_csr(codes if codes.layout == torch.sparse_csr else codes.to_sparse_csr())  # (F, N)
    generator, (n_features, n) = torch.Generator().manual_seed(seed), columns.shape
    order = torch.randperm(n, generator=generator)
    distance = torch.randint(n, (n_features,), generator=generator)
    place = torch.empty_like(order).scatter_(0, order, torch.arange(n))
    feature = torch.arange(n_features).repeat_interleave(columns.crow_indices().diff())
    moved = order[(place[columns.col_indices()] + distance[feature]) % n]
    sorting = (feature * n + moved).argsort()
    parts = columns.crow_indices(), moved[sorting], columns.values()[sorting]
    return transposed_csr(csr(*parts, (n_features, n)))


def _unit_rows(decoder: Tensor, live: np.ndarray) -> Tensor:
    unit = F.normalize(decoder.float(), dim=1)
    length = torch.linalg.vector_norm(unit[live], dim=1)
    if not ((length - 1).abs() < 1e-3).all():
        raise ValueError("a direction is zero or holds NaN or infinity: leave its feature out by the alive mask.")
    return unit


def _live(alive: Tensor | None, n_features: int) -> np.ndarray:
    if alive is None:
        return np.arange(n_features)
    if alive.shape != (n_features,) or alive.dtype != torch.bool:
        raise ValueError(f"alive must be a bool tensor ({n_features},), got {tuple(alive.shape)} {alive.dtype}.")
    return np.flatnonzero(alive.numpy())


def _by_feature(a: Tensor, b: Tensor) -> list[csr_matrix]:
    """Both matrices of codes (N, F) feature by feature: scipy CSR (F, N) without stored zeros."""
    from scipy.sparse import csr_matrix

    sides = []
    for codes in (a, b):
        check_matrix(codes, "codes")
        columns = transposed_csr(codes if codes.layout == torch.sparse_csr else codes.to_sparse_csr())
        parts = columns.values().double().numpy(), columns.col_indices().numpy(), columns.crow_indices().numpy()
        sides.append(csr_matrix(parts, shape=tuple(columns.shape)))
        sides[-1].eliminate_zeros()
    if len(a) != len(b):
        raise ValueError(f"the codes must be of the same rows, but there are {len(a)} and {len(b)}.")
    return sides


def _moments(columns: csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (F,) over all N rows, stored or not; 0 for a feature that does not vary."""
    n = columns.shape[1]
    mean = np.asarray(columns.mean(axis=1)).ravel()
    deviation = columns.copy()
    deviation.data = (deviation.data - np.repeat(mean, np.diff(columns.indptr))) ** 2
    stored = np.asarray(deviation.sum(axis=1)).ravel()
    variance = (stored + (n - np.diff(columns.indptr)) * mean**2) / n
    return mean, np.sqrt(np.where(variance > 1e-12 * mean**2, variance, 0))


def _match(similarities: Similarities, left: np.ndarray, right: np.ndarray, exact_up_to: int, k: int) -> Matching:
    """Match the features `left` of A with the features `right` of B; all features of the smaller side are matched."""
    if len(left) > len(right):
        swapped = _match(lambda j, i: similarities(i, j).T, right, left, exact_up_to, k)
        order = swapped.right.argsort()
        return Matching(swapped.right[order], swapped.left[order], swapped.similarity[order], swapped.bound)
    partner, similarity = np.full(len(left), -1), np.zeros(len(left))
    bound, wide = np.nan, len(right) > exact_up_to
    while len(rows := np.flatnonzero(partner < 0)):
        free = np.setdiff1d(right, partner, assume_unique=False)
        if len(free) > exact_up_to:
            found, values, relaxed = _assign_candidates(similarities, left[rows], free, k)
            bound = relaxed if np.isnan(bound) else bound  # of the first round, which considers all features
        else:
            found, values = _assign(similarities(left[rows], free))
        partner[rows], similarity[rows] = np.where(found < 0, -1, free[found]), values
    matched = torch.from_numpy(similarity)
    parts = torch.from_numpy(left).long(), torch.from_numpy(partner).long(), matched.float()
    return Matching(*parts, float(bound) if wide else float(matched.mean()))


def _assign(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Column of each row (n,) in the assignment with the largest sum over a table (n, m), n <= m, and the values."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(table, maximize=True)
    return columns, table[rows, columns]


def _assign_candidates(
    similarities: Similarities, left: np.ndarray, right: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """`_assign` restricted to each row's k largest entries; -1 for rows whose candidates are all matched to others.

    A row may also remain unmatched, at the value of its k-th candidate. No entry outside its candidates is larger, so
    the mean at the optimum, the third value, is an upper bound on that of the exact assignment.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    k, n = min(k, len(right)), len(left)
    values, columns = np.empty((n, k)), np.empty((n, k), dtype=np.int64)
    step = rows_at_once(len(right))
    for start in range(0, n, step):
        top = torch.from_numpy(similarities(left[start : start + step], right)).topk(k, dim=1)
        values[start : start + step], columns[start : start + step] = top.values, top.indices
    unmatched = values[:, -1:]
    cost = 1 + values.max() - np.hstack([values, unmatched - 1e-9])  # positive, because scipy drops zeros
    edges = np.hstack([columns, len(right) + np.arange(n)[:, None]])
    offsets = np.arange(n + 1) * (k + 1)
    graph = csr_matrix((cost.ravel(), edges.ravel(), offsets), shape=(n, len(right) + n))
    _, chosen = min_weight_full_bipartite_matching(graph)
    taken = (edges == chosen[:, None]).argmax(1)  # (n,) which candidate; k: unmatched
    worth = np.hstack([values, unmatched])[np.arange(n), taken]
    return np.where(taken < k, chosen, -1), np.where(taken < k, worth, 0), float(worth.mean())
