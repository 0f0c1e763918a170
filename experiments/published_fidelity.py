"""Fidelity by the formulas of the released SAEs' tables: arXiv 2504.08729's code (ViT-Prisma's `evals`).

They differ from ours (`lib.metrics.recovered`, `lib.metrics.reconstruction`), so tables must say which they show.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lib.devices import bring, check_finite, metric, to_cpu


@metric(on="cpu")
def published_recovered(clean: Tensor, spliced: Tensor, ablated: Tensor) -> float:
    """Percent of cross-entropy recovered by the published formula, from losses (N,) with logit scale 1.

    The published ablation zeros *all* tokens, also where the SAE reads only some.
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
