"""What a model loses when a reconstruction takes the place of an activation."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.devices import metric
from lib.metrics.intervals import Interval, bootstrap


class ZeroShot(NamedTuple):
    """Per picture, both (N,): cross-entropy in nats, and 1 where the most probable class is the true one, else 0."""

    loss: Tensor
    correct: Tensor


@metric()
def zero_shot(embeddings: Tensor, texts: Tensor, labels: Tensor, logit_scale: float) -> ZeroShot:
    """Zero-shot classification of pictures (N, E) by class texts (C, E), both of unit norm, with labels (N,).

    The logits are cosines times `logit_scale`: CLIP's own learned scale gives the cross-entropy in the usual sense, 1
    the published one, which stays near log C whatever the model does. Raises ValueError for shapes that do not fit.
    """
    if embeddings.ndim != 2 or texts.ndim != 2 or embeddings.shape[1] != texts.shape[1]:
        raise ValueError(f"embeddings (N, E) and texts (C, E) do not fit: {(*embeddings.shape,)}, {(*texts.shape,)}.")
    if labels.shape != embeddings.shape[:1] or bool((labels < 0).any()) or bool((labels >= len(texts)).any()):
        raise ValueError(f"each of the {len(embeddings)} pictures needs a label from 0 to {len(texts) - 1}.")
    logits = logit_scale * embeddings.double() @ texts.double().T  # (N, C)
    loss = F.cross_entropy(logits, labels, reduction="none")
    return ZeroShot(loss, (logits.argmax(1) == labels).double())


@metric(on="cpu")
def recovered(clean: Tensor, spliced: Tensor, ablated: Tensor, n: int = 2000) -> Interval:
    """Share of what an ablation costs that a reconstruction gives back, all (N,) per picture: losses, or hits alike.

    (mean ablated - mean spliced) / (mean ablated - mean clean), with an interval over pictures: 1 as good as the model
    itself, 0 as bad as the ablation, above 1 better than the model. NaN where these pictures do not tell whether the
    ablation costs or gains anything (its own interval holds 0): a share of nothing would be noise.
    """
    samples = torch.stack([clean, spliced, ablated], dim=1).double()  # (N, 3)
    cost = bootstrap(lambda drawn: drawn.mean(1), samples[:, 2] - samples[:, 0], n=n)
    if cost.low is None or cost.low <= 0 <= cost.high:
        return Interval(float("nan"))
    return bootstrap(_share_recovered, samples, n=n)


def _share_recovered(drawn: Tensor) -> Tensor:
    """(B, N, 3) -> (B,)"""
    clean, spliced, ablated = drawn.mean(1).unbind(1)
    return (ablated - spliced) / (ablated - clean)
