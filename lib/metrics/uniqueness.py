"""Do two features show the same pictures? (arXiv 2504.02821, appendix G)"""

from __future__ import annotations

import torch
from torch import Tensor


def jaccard(top_images: Tensor, above: float = 0.0, block: int = 1 << 24) -> tuple[Tensor, Tensor]:
    """All pairs of features whose sets of top images overlap more than `above`, by Jaccard index |A & B| / |A | B|.

    top_images: `(F, k)` integers, one row of image indices per feature; -1 stands for no image, and a row counts each
    image once. Returns pairs `(P, 2)` int64 with i < j, in ascending order, and their index `(P,)` float32, exact.
    The paper leaves out features with fewer than k images: pass `top_images[(top_images >= 0).all(1)]` for that.
    Pairs are counted by a sparse incidence product, `block` partial overlaps at a time: no F x F memory.

    Raises ValueError when `above` is negative (every pair would qualify) or the shape is wrong.
    """
    from scipy.sparse import csr_matrix

    if top_images.dim() != 2 or top_images.is_floating_point():
        raise ValueError(f"top_images must be (F, k) integers, got {tuple(top_images.shape)} {top_images.dtype}.")
    if above < 0:
        raise ValueError(f"above must be at least 0, got {above}: below it, every pair of features would qualify.")
    ordered = top_images.cpu().sort(dim=1).values
    first_seen = torch.ones_like(ordered, dtype=torch.bool)
    first_seen[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    feature, slot = (first_seen & (ordered >= 0)).nonzero().unbind(1)
    images, image = ordered[feature, slot].unique(return_inverse=True)
    incidence = csr_matrix(
        (torch.ones(len(feature), dtype=torch.int32).numpy(), (feature.numpy(), image.numpy())),
        shape=(len(ordered), len(images)),
    )
    size = torch.from_numpy(incidence.getnnz(axis=1)).long()  # (F,) images of each feature

    work = torch.zeros(len(ordered), dtype=torch.long).index_add_(0, feature, image.bincount()[image]).cumsum(0)
    pairs, indices = [torch.empty(0, 2, dtype=torch.long)], [torch.empty(0)]
    start = 0
    while start < len(ordered):
        done = int(work[start - 1]) if start else 0
        stop = max(start + 1, int(torch.searchsorted(work, done + block, right=True)))
        shared = (incidence[start:stop] @ incidence[start:].T).tocoo()
        i, j = torch.from_numpy(shared.row).long() + start, torch.from_numpy(shared.col).long() + start
        both = torch.from_numpy(shared.data)
        index = both.double() / (size[i] + size[j] - both)
        keep = ((i < j) & (index > above)).nonzero().squeeze(1)
        keep = keep[(i[keep] * len(ordered) + j[keep]).argsort()]
        pairs.append(torch.stack([i[keep], j[keep]], dim=1))
        indices.append(index[keep].float())
        start = stop
    return torch.cat(pairs), torch.cat(indices)
