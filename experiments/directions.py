"""Statistics of stored activations for steering: directions of concepts, largest codes, top pictures."""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.devices import bring, check_finite, metric, to_cpu
from steering.interventions import DENSE_CODES, Dictionary, home

if TYPE_CHECKING:
    from lib.activations.store import ActivationStore


@metric()
def difference_of_means(positive: Tensor, negative: Tensor) -> Tensor:
    """DiffMean (arXiv 2504.02821 v3, Table 2): mean activation with a concept minus mean without.

    (N, d), (M, d) -> (d,). Raises ValueError for an empty set or different widths.
    """
    for name, rows in (("positive", positive), ("negative", negative)):
        if rows.ndim != 2 or len(rows) == 0:
            raise ValueError(f"the {name} activations are rows (N, d), at least one, not {tuple(rows.shape)}")
    if positive.shape[1] != negative.shape[1]:
        raise ValueError(f"activations of widths {positive.shape[1]} and {negative.shape[1]} are not of one site")
    return positive.float().mean(0) - negative.float().mean(0)


@metric()
def difference_of_means_by_text(activations: Tensor, pictures: Tensor, texts: Tensor, n: int = 16) -> Tensor:
    """DiffMean without ground truth: mean over the n pictures nearest to a text minus that over the n farthest: (C, d).

    activations: (N, d); pictures (N, E), texts (C, E): embeddings by one encoder, compared by cosine. Raises
    ValueError for less than 2 n pictures, and for embeddings that do not fit.
    """
    if len(activations) != len(pictures) or pictures.shape[1] != texts.shape[1]:
        raise ValueError(
            f"{len(activations)} activations, pictures {tuple(pictures.shape)} and texts {tuple(texts.shape)} do not "
            "fit: embed every picture, and the texts by the same encoder"
        )
    if not 1 <= n <= len(pictures) // 2:
        raise ValueError(f"two sets of {n} cannot be taken from {len(pictures)} pictures: choose another n")
    unit, found = F.normalize(pictures.float(), dim=1), []
    for text in texts.float():
        nearness = unit @ text
        nearest, farthest = (nearness.topk(n, largest=largest).indices for largest in (True, False))
        found.append(difference_of_means(activations[nearest], activations[farthest]))
    return torch.stack(found)


@torch.no_grad()
def largest_codes(dictionary: Dictionary, store: "ActivationStore") -> Tensor:
    """Each feature's largest code (F,) on any row of a store, in which strengths are measured; encoded in blocks."""
    step = max(1, DENSE_CODES // dictionary.n_features)
    blocks = [_codes(dictionary, store[start : start + step]).amax(0) for start in range(0, len(store), step)]
    return torch.stack(blocks).amax(0)


@torch.no_grad()
def top_pictures(dictionary: Dictionary, store: "ActivationStore", k: int = 16) -> Tensor:
    """The pictures (F, k) of a store on which each feature has its largest codes, the largest first.

    A picture's code is the largest on any of its rows, which must be adjacent. With fewer than k pictures, all of them.
    """
    pictures, n_rows = store.image_index.long().unique_consecutive(return_counts=True)
    ends, step = n_rows.cumsum(0), max(1, DENSE_CODES // (dictionary.n_features * int(n_rows.max())))
    values, found = torch.empty(0, dictionary.n_features), torch.empty(0, dictionary.n_features, dtype=torch.long)
    for first in range(0, len(pictures), step):
        some = slice(first, first + step)
        codes = _codes(dictionary, store[int(ends[first] - n_rows[first]) : int(ends[some][-1])])
        codes = torch.segment_reduce(codes, "max", lengths=n_rows[some])  # one row a picture
        values, found = torch.cat([values, codes]), torch.cat([found, pictures[some, None].expand_as(codes)])
        values, order = values.topk(min(k, len(values)), dim=0)
        found = found.gather(0, order)
    return found.t()


def _codes(dictionary: Dictionary, rows: Tensor) -> Tensor:
    """Codes (n, F) of rows (n, d), on the CPU. Raises ValueError where one is not finite."""
    codes = to_cpu(dictionary.encode(bring(rows, home(dictionary, rows))))
    check_finite(codes, "the matrix of codes")
    return codes
