"""Uniqueness: the overlap of two features' top images (arXiv 2504.02821, appendix G)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from lib.devices import AT_ONCE, metric

_COMMON = 32  # an image in the top lists of more than 1 / 32 of the features is counted by a dense product
_MOST_PAIRS = 1 << 26  # pairs that `jaccard` returns at most: about 1.3 GB


@metric(on="cpu")
def jaccard(top_images: Tensor, above: float = 0.0, block: int = AT_ONCE) -> tuple[Tensor, Tensor]:
    """All pairs of features whose sets of top images overlap more than `above`, by Jaccard index |A & B| / |A | B|.

    top_images: `(F, top)` integers, one row of image indices per feature; -1 stands for no image, and a row counts each
    image once. Returns pairs `(P, 2)` int64 with i < j, in ascending order, and their index `(P,)` float32, exact.
    The paper leaves out features with fewer than `top` images: pass `top_images[(top_images >= 0).all(1)]` for that.
    Overlaps are counted in parts of `block`, never as an (F, F) matrix.

    Raises ValueError when `above` is negative (every pair would qualify), the shape is wrong, or more than 67 million
    pairs qualify (`jaccard_counts` counts any number).
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


@metric(on="cpu")
def jaccard_counts(top_images: Tensor, block: int = AT_ONCE) -> tuple[Tensor, Tensor]:
    """The distribution of the Jaccard index over all pairs of features: distinct values, ascending, and their counts.

    Arguments as of `jaccard`. Returns values `(V,)` float64, exact, beginning with 0, and counts `(V,)` int64 whose sum
    is F (F - 1) / 2. Memory is one number for each possible overlap, however many pairs there are.
    """
    sets = _Sets(top_images)
    table = sets.tally(block)  # pairs by common images and by images of both together
    table[0, :] = 0
    table[0, 0] = len(sets) * (len(sets) - 1) // 2 - table.sum()  # all other pairs have no common image
    table[0, 0], rest = 1, int(table[0, 0])  # listed even where it is 0
    shared, together = table.nonzero().unbind(1)
    table[0, 0] = rest
    values, place = (shared.double() / (together - shared).clamp_min(1)).unique(return_inverse=True)
    return values, torch.zeros(len(values), dtype=torch.long).index_add_(0, place, table[shared, together])


class _Sets:
    """The sets of images of F features as a sparse incidence matrix; `size` (F,) int64 counts each set's images."""

    def __init__(self, top_images: Tensor) -> None:
        from scipy.sparse import csr_matrix

        if top_images.dim() != 2 or top_images.is_floating_point():
            raise ValueError(f"top_images must be (F, top) integers, got {tuple(top_images.shape)} {top_images.dtype}.")
        ordered = top_images.sort(dim=1).values
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
        """Every pair i < j with common images and how many there are, in parts of about `block` pairs and images."""
        for start, part in self._parts(block):
            if isinstance(part, Tensor):
                i, j = part.nonzero().unbind(1)
                yield i + start, j + start, part[i, j].long()
            else:
                i, j, shared = (torch.from_numpy(array) for array in (part.row, part.col, part.data))
                keep = (i < j).nonzero().squeeze(1)
                yield i[keep].long() + start, j[keep].long() + start, shared[keep].long()

    def tally(self, block: int) -> Tensor:
        """Entry (s, t): pairs i < j with s common images and t images summed over both sets; row 0 is not used."""
        largest = int(self.size.max()) if len(self) else 0
        width = 2 * largest + 1
        counts = torch.zeros((largest + 1) * width, dtype=torch.long)
        for start, part in self._parts(block):
            if isinstance(part, Tensor):  # all pairs at once, also those that share nothing
                together = self.size[start : start + len(part), None] + self.size[start:]
                places = part.mul_(width).add_(together).int().flatten()
            else:
                keep = part.row < part.col
                i, j, shared = (torch.from_numpy(array[keep]).long() for array in (part.row, part.col, part.data))
                places = shared * width + self.size[start + i] + self.size[start + j]
            counts += torch.bincount(places, minlength=len(counts))
        return counts.view(largest + 1, width)

    def _parts(self, block: int) -> Iterator[tuple[int, object]]:
        """Overlaps of features from `start` on with all features from there on: scipy COO, or dense above the diagonal.

        A sparse product takes a step for each pair of features that share an image, which is quadratic for images in
        very many top lists: those, a few hundred at most, go through a dense product.
        """
        shown_by = self._incidence.getnnz(axis=0)  # (V,) features that have each image
        common = shown_by > max(len(self) // _COMMON, 1)
        if np.square(shown_by[common], dtype=np.float64).sum() < len(self) ** 2 / 2:
            common[:] = False  # too few to be worth a dense product of all pairs
        rare = self._incidence[:, ~common]
        dense = torch.from_numpy(self._incidence[:, common].toarray()).float()  # (F, few)
        done = np.cumsum(rare @ shown_by[~common] + (len(self) if common.any() else 0))  # steps up to each row, at most
        start = 0
        while start < len(self):
            before = done[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(done, before + block, side="right")))
            part = (rare[start:stop] @ rare[start:].T).tocoo()
            if common.any():
                shared = dense[start:stop] @ dense[start:].T
                rows, columns = (torch.from_numpy(array).long() for array in (part.row, part.col))
                shared[rows, columns] += torch.from_numpy(part.data).float()
                part = shared.triu_(1)
            yield start, part
            start = stop
