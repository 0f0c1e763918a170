"""Kinds with a sparsity penalty: ReLU, JumpReLU and gated. Their codes start dense, so the products are dense."""

import torch
from torch import Tensor, nn

from lib.sae.model import SAE
from lib.sae.objectives.base import AuxiliaryGradients, LatentSums, Objective


class DenseObjective(Objective):
    """Base of kinds with dense codes (B, F): the weights' gradients from that for the pre-activations."""

    def _pass_on(
        self, x: Tensor, codes: Tensor, to_pre: Tensor, upstream: Tensor, auxiliary: AuxiliaryGradients | None
    ) -> None:
        """Set the gradients. x: what the encoder's matrix read (B, d); to_pre: the loss's gradient for x W_enc + b_enc
        (B, F); upstream: that for the reconstruction.
        """
        bias = to_pre.sum(0)
        sums = LatentSums(to_pre.t() @ x, bias, codes.t() @ upstream, bias)
        self._set_gradients(sums, x, upstream, auxiliary)
        self._fired((codes > 0).any(0), len(x))

    def _dense_report(self, **penalty: float) -> dict[str, float]:
        """The last batch's report with the named parts of the loss."""
        x, error, codes = self._last
        row = self._report(x, error, float((codes > 0).sum()) / len(x)) | penalty
        return row | {"loss": row["mse"] + sum(penalty.values()) + row.get("aux_loss", 0.0)}


class ReLUObjective(DenseObjective):
    """Squared error + l1 * sum of the codes."""

    @torch.no_grad()
    def backward(self, x: Tensor, y: Tensor | None = None) -> None:
        x, y = self._parts(x, y)
        codes = self.encoder.dense(x).relu_()  # (B, F)
        error = torch.addmm(y, codes, self.sae.W_dec, beta=-1)
        auxiliary = self._auxiliary(x, error)
        upstream = error * (2 / len(x))
        to_codes = (upstream @ self.sae.W_dec.t()).add_(self.config.l1 / len(x)).mul_(codes > 0)
        self._pass_on(x, codes, to_codes, upstream, auxiliary)
        self._last = (y, error, codes)

    def follow_threshold(self, beta: float) -> None:
        self.sae.threshold.zero_()

    def report(self) -> dict[str, float]:
        x, _, codes = self._last
        return self._dense_report(l1_loss=self.config.l1 * float(codes.sum()) / len(x))


class JumpReLUObjective(DenseObjective):
    """Squared error + l0 * number of active latents, a latent being active above a threshold of its own.

    Codes and count are steps where a pre-activation p crosses its threshold γ. As in Rajamanoharan et al. 2024 (arXiv
    2407.14435, section 3), their derivative is a pseudo-derivative with a rectangle kernel of width b, the `bandwidth`,
    K = 1 for |p - γ| < b/2: d codes / dγ = -(γ/b) K, d count / dγ = -(1/b) K, and for p only where it is active.
    The thresholds start at b, as in the paper, which trains their logarithms; here they are trained directly and
    clamped at 0, so that their speed does not depend on the initial value.
    """

    def __init__(self, sae: SAE, encoder_dtype: torch.dtype) -> None:
        super().__init__(sae, encoder_dtype)
        sae.threshold.fill_(self.config.bandwidth)
        self.parameters["threshold"] = nn.Parameter(sae.threshold)  # the same memory

    @torch.no_grad()
    def backward(self, x: Tensor, y: Tensor | None = None) -> None:
        x, y = self._parts(x, y)
        pre, threshold, width = self.encoder.dense(x), self.sae.threshold, self.config.bandwidth
        codes = torch.where(pre > threshold, pre, 0)  # (B, F)
        error = torch.addmm(y, codes, self.sae.W_dec, beta=-1)
        auxiliary = self._auxiliary(x, error)
        upstream = error * (2 / len(x))
        to_codes = upstream @ self.sae.W_dec.t()
        near = (pre - threshold).abs_() < width / 2
        jump = threshold * (to_codes * near).sum(0) + near.sum(0) * (self.config.l0 / len(x))
        self.parameters["threshold"].grad = jump / -width
        self._pass_on(x, codes, to_codes.mul_(codes > 0), upstream, auxiliary)
        self._last = (y, error, codes)

    def constrain_parameters(self) -> None:
        super().constrain_parameters()
        self.sae.threshold.clamp_(min=0)

    def report(self) -> dict[str, float]:
        x, _, codes = self._last
        return self._dense_report(l0_loss=self.config.l0 * float((codes > 0).sum()) / len(x))


class GatedObjective(DenseObjective):
    """Separate gate and magnitude of each latent: Rajamanoharan et al. 2024 (arXiv 2404.16014, section 3.2).

    gate g = x W_enc + b_enc, magnitude m = exp(r_mag) x W_enc + b_mag (tied weights), codes 1[g > 0] ReLU(m). The loss
    is the squared error + l1 * sum of ReLU(g) + the squared error with ReLU(g) for codes. In the last term the decoder
    is a constant; only this term trains the gate to reconstruct, because the step has no gradient.
    """

    @torch.no_grad()
    def backward(self, x: Tensor, y: Tensor | None = None) -> None:
        sae, (x, y) = self.sae, self._parts(x, y)
        gate = self.encoder.dense(x)
        product, gain, opened = gate - sae.b_enc, sae.r_mag.exp(), gate.relu()
        codes = product.mul(gain).add_(sae.b_mag).relu_().mul_(gate > 0)  # (B, F)
        error = torch.addmm(y, codes, sae.W_dec, beta=-1)
        gate_error = torch.addmm(y, opened, sae.W_dec, beta=-1)
        auxiliary = self._auxiliary(x, error)
        upstream = error * (2 / len(x))
        to_magnitude = (upstream @ sae.W_dec.t()).mul_(codes > 0)
        to_gate = (gate_error @ sae.W_dec.t()).mul_(2 / len(x)).add_(self.config.l1 / len(x)).mul_(gate > 0)
        sae.b_mag.grad, sae.r_mag.grad = to_magnitude.sum(0), (to_magnitude * product).sum(0) * gain
        to_product = (to_magnitude * gain).add_(to_gate)
        sums = LatentSums(to_product.t() @ x, to_gate.sum(0), codes.t() @ upstream, to_product.sum(0))
        self._set_gradients(sums, x, upstream, auxiliary)
        self._fired((codes > 0).any(0), len(x))
        self._last, self._gate = (y, error, codes), (opened, gate_error)

    def report(self) -> dict[str, float]:
        opened, gate_error = self._gate
        l1, mse = self.config.l1 * float(opened.sum()), float(gate_error.square().sum())
        return self._dense_report(l1_loss=l1 / len(opened), gate_mse=mse / len(opened))
