"""Fidelity: how much a model's predictions suffer when a reconstruction replaces an activation."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.devices import metric
from lib.metrics.intervals import Interval, bootstrap


class ZeroShot(NamedTuple):
    """Results per picture, both (N,): cross-entropy in nats, and 1 where the most probable class is true, else 0."""

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
    """Loss recovered: the share of an ablation's cost that a reconstruction recovers, with an interval over pictures.

    clean, spliced, ablated: (N,) losses per picture, or correctness, of the model, with the reconstruction, and with
    the ablation. (mean ablated - mean spliced) / (mean ablated - mean clean): 1 as good as the model itself, 0 as bad
    as the ablation. NaN where the interval of the denominator contains 0: the share would be noise.
    """
    samples = torch.stack([clean, spliced, ablated], dim=1).double()  # (N, 3)
    cost = bootstrap(lambda drawn: drawn.mean(1), samples[:, 2] - samples[:, 0], n=n)
    if cost.low is None or cost.low <= 0 <= cost.high:
        return Interval(float("nan"))

    def share(drawn: Tensor) -> Tensor:  # (B, N, 3) -> (B,)
        clean, spliced, ablated = drawn.mean(1).unbind(1)
        return (ablated - spliced) / (ablated - clean)

    return bootstrap(share, samples, n=n)
