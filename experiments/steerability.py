"""Steerability: how far a push changes an encoder's zero-shot probabilities, and toward which concept.

The probabilities are a softmax over a vocabulary of C concepts. In the authors' code (arXiv 2504.08729) the change of
each probability is averaged over the pictures, its squares are summed over the concepts, and above 0.1 a feature counts
as steerable. Elsewhere the paper has the square inside the mean. Both are computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.devices import metric

STEERABLE = 0.1
"""The authors' threshold of the score."""


class Steerability(NamedTuple):
    """Measures of F pushes over C concepts, each `(F,)`, or `()` for a single push."""

    score: Tensor
    """Sum over the concepts of the squared mean change: the authors' code. Between 0 and 2."""
    score_by_picture: Tensor
    """The other published order: each picture's sum of squared changes, averaged. Never below `score`."""
    power: Tensor
    """The largest mean change of a concept."""
    concept: Tensor
    """int64: the concept of the highest mean probability after the push (the authors' top-1)."""
    risen: Tensor
    """int64: the concept whose probability rises the most, ours, independent of what was likely before."""
    precision: Tensor
    """Rise of `risen` over the sum of all rises, ours: 1 where a push raises one concept only."""
    change: Tensor
    """`(F, C)` mean change of each concept's probability."""

    @property
    def ratio(self) -> Tensor:
        """score / power (the authors' code): large where few concepts change; NaN where nothing moves."""
        return self.score / self.power

    def steerable(self, above: float = STEERABLE) -> Tensor:
        """`(F,)` bool: the score lies above the threshold."""
        return self.score > above

    @classmethod
    def joined(cls, parts: Sequence[Steerability]) -> Steerability:
        """Concatenate measures of several sets of pushes."""
        batches = [part if part.score.ndim else cls(*(field[None] for field in part)) for part in parts]
        return cls(*(torch.cat(fields) for fields in zip(*batches, strict=True)))


@metric()
def concept_probabilities(images: Tensor, concepts: Tensor, logit_scale: float) -> Tensor:
    """Zero-shot probabilities: softmax over the concepts, `(..., N, E)`, `(C, E)` -> `(..., N, C)`.

    Both are made unit vectors first. logit_scale: the encoder's own; the authors' 100 is that of their CLIP.
    """
    return softmax_over(images, concepts, logit_scale)


def softmax_over(images: Tensor, concepts: Tensor, logit_scale: float) -> Tensor:
    """`concept_probabilities` on the device of the operands."""
    logits = F.normalize(images.float(), dim=-1) @ F.normalize(concepts.float(), dim=-1).T
    return logits.mul_(logit_scale).softmax(-1)


@metric()
def steerability(base: Tensor, steered: Tensor) -> Steerability:
    """Compare probabilities of C concepts on N pictures before and after one or many pushes.

    base: `(N, C)`; steered: `(N, C)`, or `(F, N, C)` for F pushes. Raises ValueError for shapes that do not fit.
    """
    if base.ndim != 2 or steered.ndim not in (2, 3) or steered.shape[-2:] != base.shape or not base.numel():
        raise ValueError(
            f"probabilities are (N, C) before and (N, C) or (F, N, C) after, not {tuple(base.shape)} and "
            f"{tuple(steered.shape)}: give the same pictures and concepts."
        )
    after = steered.float().mean(-2)  # (..., C)
    change = (steered.float() - base.float()).mean(-2)
    squares = (steered.float() - base.float()).square_().sum(-1).mean(-1)
    power, risen = change.max(-1)
    rise = change.clamp_min(0).sum(-1)
    return Steerability(
        score=change.square().sum(-1),
        score_by_picture=squares,
        power=power,
        concept=after.argmax(-1),
        risen=risen,
        precision=torch.where(rise > 0, power / rise, torch.nan),
        change=change,
    )


@metric(on="cpu")
def coverage(concept: Tensor, score: Tensor, above: float = STEERABLE) -> Tensor:
    """The different concepts that pushes with a score above the threshold steer to, ascending (arXiv 2504.08729).

    concept, score: `(F,)`. How many there are is the paper's "concept space coverage".
    """
    if concept.shape != score.shape:
        raise ValueError(f"every push needs its score: {tuple(concept.shape)} against {tuple(score.shape)}.")
    return concept[score > above].unique()


@metric(on="cpu")
def expected_coverage(concept: Tensor, score: Tensor, sizes: Sequence[int], above: float = STEERABLE) -> Tensor:
    """Expected number of concepts that a random subset of the pushes covers, for each size; ours: `(sizes,)`.

    For comparing dictionaries of different width at equal numbers. A concept of m of F pushes is missed by a subset of
    s with the probability C(F - m, s) / C(F, s) (Hurlbert 1971, rarefaction).
    """
    n, counts = len(score), concept[score > above].unique(return_counts=True)[1].double()
    if not all(0 <= size <= n for size in sizes):
        raise ValueError(f"sizes of subsets of {n} pushes are 0 to {n}, not {max(sizes)}.")
    found = []
    for size in map(float, sizes):
        possible = n - counts - size >= 0
        log_missed = (
            torch.lgamma(n - counts + 1)
            - torch.lgamma((n - counts - size).clamp_min(0) + 1)
            - torch.lgamma(torch.tensor(n + 1.0, dtype=torch.double))
            + torch.lgamma(torch.tensor(n - size + 1.0, dtype=torch.double))
        )
        found.append((1 - torch.where(possible, log_missed.exp(), 0)).sum())
    return torch.stack(found)
