"""The variational SAE: codes are sampled around the pre-activations, with a Gaussian prior."""

import torch
from torch import Tensor

from lib.sae.model import SAE
from lib.sae.objectives.penalised import DenseObjective


class VariationalObjective(DenseObjective):
    """TopK of latents drawn from N(μ, σ²), + kl * their divergence from N(0, σ²): vSAE (arXiv 2509.22994).

    μ is the pre-activation, σ the fixed `noise`; measured in units of σ the prior is the standard normal one, and the
    divergence is sum of (μ/σ)² / 2 over all F latents. Drawn as μ + σ z, so that gradients reach μ. At inference z is
    0, which is TopK. As for TopK here, and other than in the authors' code, only positive latents are kept.
    """

    def __init__(self, sae: SAE, encoder_dtype: torch.dtype) -> None:
        super().__init__(sae, encoder_dtype)
        self.memory["batches"] = 0  # with the seed it determines z, so a resumed run samples the same

    @torch.no_grad()
    def backward(self, x: Tensor, y: Tensor | None = None) -> None:
        (x, y), noise = self._parts(x, y), self.config.noise
        mean = self.encoder.dense(x)  # (B, F)
        top = (mean + noise * self._draw(mean)).topk(self.config.k, dim=1)
        codes = torch.zeros_like(mean).scatter_(1, top.indices, top.values.relu_())
        error = torch.addmm(y, codes, self.sae.W_dec, beta=-1)
        auxiliary = self._auxiliary(x, error)
        upstream = error * (2 / len(x))
        to_mean = (upstream @ self.sae.W_dec.t()).mul_(codes > 0)
        to_mean.add_(mean, alpha=self.config.kl / (noise**2 * len(x)))
        self._pass_on(x, codes, to_mean, upstream, auxiliary)
        self._last, self._mean = (y, error, codes), mean

    def _draw(self, like: Tensor) -> Tensor:
        """Standard normal z of the next batch, of a tensor's shape."""
        generator = torch.Generator(like.device).manual_seed((self.config.seed << 32) + self.memory["batches"])
        self.memory["batches"] += 1
        return torch.randn(like.shape, generator=generator, device=like.device)

    def report(self) -> dict[str, float]:
        divergence = float(self._mean.square().sum()) / (2 * self.config.noise**2 * len(self._mean))
        return self._dense_report(kl_loss=self.config.kl * divergence)
