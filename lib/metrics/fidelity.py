"""What a model loses when a reconstruction takes the place of an activation: the figures of the released SAEs' tables.

Each comes in our form and in that of arXiv 2504.08729's code (ViT-Prisma's `evals` and `train_sae`), whose names begin
with `published_` or `Published`. They differ, so tables must say which they show.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.devices import bring, check_finite, metric, to_cpu
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


@metric(on="cpu")
def published_recovered(clean: Tensor, spliced: Tensor, ablated: Tensor) -> float:
    """Percent of cross-entropy recovered as the released tables have it, from losses (N,) made with logit scale 1.

    Theirs ablate *all* tokens, also where the SAE reads only some, so that little is left to recover.
    """
    clean, spliced, ablated = (float(x.double().mean()) for x in (clean, spliced, ablated))
    return 100 * (ablated - spliced) / (ablated - clean + 1e-6)


class PublishedReconstruction:
    """Explained variance and cosine in the published forms, from batches of pictures' tokens (B, T, d).

    explained_variance: the mean over tokens of 1 - |x - x̂|² / |x - m|², a mean of ratios and not a ratio of sums, with
    m the mean of the token's own position, `means` (T, d). cosine: for each dimension across all tokens, then the mean
    over d; ours (`lib.metrics.reconstruction`) is for each token across d.
    """

    def __init__(self, means: Tensor) -> None:
        self._means = to_cpu(means).double()  # (T, d)
        check_finite(self._means, "means")
        self._ratios, self._tokens = 0.0, 0
        self._products = torch.zeros(3, self._means.shape[1], dtype=torch.double)  # x·x̂, x·x, x̂·x̂ by dimension

    @metric()
    def update(self, x: Tensor, x_hat: Tensor) -> PublishedReconstruction:
        """Add pictures' tokens (B, T, d) and their reconstructions; returns itself. Raises ValueError for shapes."""
        if x.shape != x_hat.shape or x.shape[1:] != self._means.shape:
            raise ValueError(f"x and x_hat must both be (B, {', '.join(map(str, self._means.shape))}).")
        x, x_hat = x.double(), x_hat.double()
        ratios = (x - x_hat).square().sum(-1) / (x - bring(self._means, x)).square().sum(-1)  # (B, T)
        self._ratios, self._tokens = self._ratios + float(ratios.sum()), self._tokens + ratios.numel()
        products = torch.stack([(a * b).sum((0, 1)) for a, b in ((x, x_hat), (x, x), (x_hat, x_hat))])
        self._products += to_cpu(products)
        return self

    def compute(self) -> dict[str, float]:
        """`{explained_variance, cosine}` of all tokens so far; ValueError when there are none."""
        if self._tokens == 0:
            raise ValueError("no tokens to measure: pass at least one picture.")
        dot, x, x_hat = self._products
        cosine = dot / (x.sqrt() * x_hat.sqrt()).clamp(min=1e-8)
        return {"explained_variance": 1 - self._ratios / self._tokens, "cosine": float(cosine.mean())}
