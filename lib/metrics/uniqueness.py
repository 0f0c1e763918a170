"""Do two features show the same pictures? (arXiv 2504.02821, appendix G)"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

_COMMON = 32  # a picture that more than one in so many features show is counted by a dense product
_MOST_PAIRS = 1 << 26  # pairs that `jaccard` gives: about 1.3 GB


def jaccard(top_images: Tensor, above: float = 0.0, block: int = 1 << 23) -> tuple[Tensor, Tensor]:
    """All pairs of features whose sets of top images overlap more than `above`, by Jaccard index |A & B| / |A | B|.

    top_images: `(F, k)` integers, one row of image indices per feature; -1 stands for no image, and a row counts each
    image once. Returns pairs `(P, 2)` int64 with i < j, in ascending order, and their index `(P,)` float32, exact.
    The paper leaves out features with fewer than k images: pass `top_images[(top_images >= 0).all(1)]` for that.
    Overlaps are counted `block` at a time: no F x F memory.

    Raises ValueError when `above` is negative (every pair would qualify), the shape is wrong, or more pairs qualify
    than a computer is happy to hold (67 million: `jaccard_counts` counts any number).
    """
    if above < 0:
        raise ValueError(f"above must be at least 0, got {above}: below it, every pair of features would qualify.")
    sets = _Sets(top_images)
    pairs, indices, found = [torch.empty(0, 2, dtype=torch.long)], [torch.empty(0)], 0
    for i, j, shared in sets.overlaps(block):
        index = shared.double() / (sets.size[i] + sets.size[j] - shared)
        keep = (index > above).nonzero().squeeze(1)
        found += len(keep)
        if found > _MOST_PAIRS:
            raise ValueError(
                f"more than {_MOST_PAIRS:,} pairs overlap by more than {above}: raise `above`, or let jaccard_counts "
                "count them."
            )
        keep = keep[(i[keep] * len(sets) + j[keep]).argsort()]
        pairs.append(torch.stack([i[keep], j[keep]], dim=1))
        indices.append(index[keep].float())
    return torch.cat(pairs), torch.cat(indices)


def jaccard_counts(top_images: Tensor, block: int = 1 << 23) -> tuple[Tensor, Tensor]:
    """How many pairs of features have which Jaccard index: the distinct values, ascending, and their counts.

    Arguments as of `jaccard`. Returns values `(V,)` float64, exact, beginning with 0, and counts `(V,)` int64 whose sum
    is F (F - 1) / 2. Holds one number for each possible overlap, however many pairs there are.
    """
    sets = _Sets(top_images)
    largest = int(sets.size.max()) if len(sets) else 0
    both = 2 * largest + 1  # numbers of images that two features can have together
    table = torch.zeros((largest + 1) * both, dtype=torch.long)
    for i, j, shared in sets.overlaps(block):
        table += torch.bincount(shared * both + sets.size[i] + sets.size[j], minlength=len(table))
    table[0] = len(sets) * (len(sets) - 1) // 2 - table.sum()  # the rest shares nothing
    found = torch.cat([torch.zeros(1, dtype=torch.long), table[1:].nonzero().squeeze(1) + 1])
    shared, together = found // both, found % both
    values, place = (shared.double() / (together - shared).clamp_min(1)).unique(return_inverse=True)
    return values, torch.zeros(len(values), dtype=torch.long).index_add_(0, place, table[found])


class _Sets:
    """The sets of images of F features as a sparse incidence matrix; `size` (F,) int64 counts each set's images."""

    def __init__(self, top_images: Tensor) -> None:
        from scipy.sparse import csr_matrix

        if top_images.dim() != 2 or top_images.is_floating_point():
            raise ValueError(f"top_images must be (F, k) integers, got {tuple(top_images.shape)} {top_images.dtype}.")
        ordered = top_images.cpu().sort(dim=1).values
        first_seen = torch.ones_like(ordered, dtype=torch.bool)
        first_seen[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
        feature, slot = (first_seen & (ordered >= 0)).nonzero().unbind(1)
        images, image = ordered[feature, slot].unique(return_inverse=True)
        ones = np.ones(len(feature), dtype=np.int32)
        self._incidence = csr_matrix((ones, (feature.numpy(), image.numpy())), shape=(len(ordered), len(images)))
        self.size = torch.from_numpy(self._incidence.getnnz(axis=1)).long()

    def __len__(self) -> int:
        return self._incidence.shape[0]

    def overlaps(self, block: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Every pair i < j with common images and how many there are, in parts of about `block` pairs and images.

        A sparse product costs as many steps as there are pairs of features behind each image, which a picture that
        very many features show would let explode: such pictures, a few hundred at most, go through a dense product.
        """
        shown_by = self._incidence.getnnz(axis=0)  # (V,) features behind each image
        common = shown_by > max(len(self) // _COMMON, 1)
        rare = self._incidence[:, ~common]
        dense = torch.from_numpy(self._incidence[:, common].toarray()).float()  # (F, few)
        work = rare @ shown_by[~common] + (len(self) if common.any() else 0)  # (F,) steps that a row costs at most
        done = np.cumsum(work)
        start = 0
        while start < len(self):
            before = done[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(done, before + block, side="right")))
            part = (rare[start:stop] @ rare[start:].T).tocoo()
            if common.any():
                yield self._merged(dense[start:stop] @ dense[start:].T, part, start)
            else:
                yield _above_diagonal(*(torch.from_numpy(array) for array in (part.row, part.col, part.data)), start)
            start = stop

    @staticmethod
    def _merged(shared: Tensor, part, start: int) -> tuple[Tensor, Tensor, Tensor]:
        """Overlaps in rare images, sparse, added to those in common ones, dense (B, F - start)."""
        rows, columns = torch.from_numpy(part.row).long(), torch.from_numpy(part.col).long()
        shared[rows, columns] += torch.from_numpy(part.data).float()
        i, j = shared.triu_(1).nonzero().unbind(1)
        return i + start, j + start, shared[i, j].long()


def _above_diagonal(i: Tensor, j: Tensor, shared: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
    """The entries of rows i and columns j > i, both counted from `start`."""
    keep = (i < j).nonzero().squeeze(1)
    return i[keep].long() + start, j[keep].long() + start, shared[keep].long()
