"""Base class of objectives: the trainer's interface, constraints, the auxiliary loss for dead latents, the report."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.sae.model import SAE
from lib.sae.selection import Codes, PreActivations, by_latent, dot_products, weighted_sums

Points = Callable[..., Tensor]
"""Returns n rows of the data (n, d), minus b_dec, in units of the normalised input (`Setup.points`)."""


class AuxiliaryGradients(NamedTuple):
    """Gradients of the auxiliary loss for the dead latents (n of F), and the loss itself."""

    dead: Tensor  # (n,) int64
    encoder: Tensor  # (n, d)
    bias: Tensor  # (n,)
    decoder: Tensor  # (n, d)
    loss: Tensor  # ()


def auxiliary_gradients(sae: SAE, dead: Tensor, x: Tensor, error: Tensor, k: int, alpha: float) -> AuxiliaryGradients:
    """Gradients of alpha |r - r̂|² / Var(r), where r̂ reconstructs the residual r from each row's k largest dead latents.

    x: centred input (B, d); error: reconstruction minus input (B, d), a constant here. Gao et al. 2024
    (arXiv 2406.04093), appendix A.2.
    """
    weight, decoder = sae.W_enc.t()[dead], sae.W_dec[dead]  # (n, d)
    top = torch.addmm(sae.b_enc[dead], x, weight.t()).topk(min(k, len(dead)), dim=1, sorted=False)  # (B, k)
    kept = top.values > 0
    rows, features, values = kept.nonzero()[:, 0], top.indices[kept], top.values[kept]  # (nnz,)
    offsets = F.pad(kept.sum(1).cumsum(0), (1, 0))
    miss = weighted_sums(decoder, features, offsets, values).add_(error)  # r̂ - r, (B, d)
    variance = (error - error.mean(0)).square().sum()
    scale = torch.where(variance > 0, alpha / variance, 0)
    loss = scale * miss.square().sum()
    upstream = miss.mul_(2 * scale)
    to_codes = dot_products(upstream, rows, offsets, decoder, features)
    gradients = by_latent(Codes(rows, features, values, offsets), to_codes, x, upstream, rows, len(dead))
    return AuxiliaryGradients(dead, gradients.encoder, gradients.bias, gradients.decoder, loss)


class LatentSums(NamedTuple):
    """Gradients by latent, summed over the batch; `product` is that for x · w without the bias."""

    encoder: Tensor  # (F, d)
    bias: Tensor  # (F,)
    decoder: Tensor  # (F, d)
    product: Tensor  # (F,)


class Objective:
    """Loss and gradients of one SAE: a kind provides `backward` and `report`; the rest is shared by all.

    Attributes: `parameters` that the optimiser updates: the SAE's own, or others that determine them; `since_fired`
    (F,) int64, activations seen since each latent last fired; `memory`, further state between batches that checkpoints
    hold.
    """

    def __init__(self, sae: SAE, encoder_dtype: torch.dtype) -> None:
        self.sae, self.config = sae, sae.config
        self.parameters = dict(sae.named_parameters())
        self.encoder = PreActivations(sae.W_enc.detach().t(), sae.b_enc.detach(), encoder_dtype)
        self.since_fired = torch.zeros(sae.n_features, dtype=torch.int64, device=sae.b_enc.device)
        self.memory: dict[str, float | None] = {}
        self.aux_loss: Tensor | None = None

    @torch.no_grad()
    def start(self, points: Points) -> None:
        """Initialise decoder rows, and the encoder tied to them, from rows of the data where the config says so."""
        if self.config.init == "data":
            self.sae.W_dec.copy_(F.normalize(points(self.sae.n_features), dim=1))
            self.sae.W_enc.copy_(self.sae.W_dec.t())

    def backward(self, x: Tensor, y: Tensor | None = None) -> None:
        """Set `.grad` of the parameters for x (B, d), and y (B, target.d), what a transcoder is to predict from x."""
        raise NotImplementedError

    def _parts(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """What the encoder's matrix reads, and what the codes' sum is to be: x less b_dec, both; of a transcoder x, and
        y less b_dec and W_skip x.
        """
        if y is None:
            x = x - self.sae.b_dec
            return x, x
        y = y - self.sae.b_dec
        return x, torch.addmm(y, x, self.sae.W_skip.t(), alpha=-1) if self.sae.target.skip else y

    def report(self) -> dict[str, float]:
        """Losses, L0 and explained variance of the last batch."""
        raise NotImplementedError

    def constrain_gradients(self) -> None:
        """Remove the components of the gradients that the constraints on the parameters would undo."""
        remove_parallel_(self.sae.W_dec.grad, self.sae.W_dec.data)

    def constrain_parameters(self) -> None:
        """After a step: project the parameters onto their constraints, and `compose`."""
        normalize_rows_(self.sae.W_dec.data)

    def compose(self) -> None:
        """Recompute the SAE's weights from parameters that are not its own, where a kind has any."""

    def follow_threshold(self, beta: float) -> None:
        """Update the moving average of the last batches' smallest kept codes, for kinds with an inference threshold."""

    def _auxiliary(self, x: Tensor, error: Tensor) -> AuxiliaryGradients | None:
        """Gradients of the auxiliary loss for the latents that were dead before this batch; None if there are none."""
        dead = (self.since_fired >= self.config.patience).nonzero().squeeze(1)
        if len(dead) == 0 or self.config.aux_alpha == 0:
            self.aux_loss = None
            return None
        k = self.config.aux_k or max(1, self.sae.d // 2)
        gradients = auxiliary_gradients(self.sae, dead, x, error, k, self.config.aux_alpha)
        self.aux_loss = gradients.loss
        return gradients

    def _set_gradients(
        self, sums: LatentSums, x: Tensor, upstream: Tensor, auxiliary: AuxiliaryGradients | None
    ) -> None:
        """Set `.grad` from the gradients by latent, what the encoder read (B, d), and the reconstruction's gradient."""
        encoder, bias, decoder, product = sums
        if auxiliary is not None:
            encoder.index_add_(0, auxiliary.dead, auxiliary.encoder)
            bias.index_add_(0, auxiliary.dead, auxiliary.bias)
            decoder.index_add_(0, auxiliary.dead, auxiliary.decoder)
            if product is not bias:
                product.index_add_(0, auxiliary.dead, auxiliary.bias)
        self.sae.W_enc.grad, self.sae.b_enc.grad, self.sae.W_dec.grad = encoder.t(), bias, decoder
        self.sae.b_dec.grad = upstream.sum(0)
        if self.sae.target is None:  # b_dec is also subtracted from the encoder's input
            self.sae.b_dec.grad -= product @ self.encoder.weight
        elif self.sae.target.skip:
            self.sae.W_skip.grad = upstream.t() @ x

    def _fired(self, active: Tensor, rows: int) -> None:
        """Update `since_fired`: add the rows of a batch, and reset the latents that are active (F,) in it."""
        self.since_fired.add_(rows).masked_fill_(active, 0)

    def _report(self, x: Tensor, error: Tensor, l0: float) -> dict[str, float]:
        residual = error.square().sum()
        aux = {} if self.aux_loss is None else {"aux_loss": float(self.aux_loss)}
        return {
            "mse": float(residual / len(x)),
            "l0": l0,
            "explained_variance": 1 - float(residual / (x - x.mean(0)).square().sum()),
            "dead": int((self.since_fired >= self.config.patience).sum()),
            **aux,
        }


def remove_parallel_(gradient: Tensor, decoder: Tensor) -> None:
    """Remove from each row of the gradient (F, d) its component along the unit decoder row, in place."""
    gradient.addcmul_(decoder, torch.linalg.vecdot(gradient, decoder)[:, None], value=-1)


def normalize_rows_(decoder: Tensor) -> None:
    """Scale the rows of the decoder (F, d) to unit norm, in place."""
    decoder.div_(torch.linalg.vector_norm(decoder, dim=1, keepdim=True))
