"""What the trainer asks of an objective, and what all of them share: constraints, dead latents, the report."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.sae.model import SAE
from lib.sae.selection import Codes, PreActivations, by_latent, dot_products, weighted_sums

Points = Callable[[int], Tensor]
"""n to n rows of the data (n, d), less b_dec and in units of the normalised input: the same for every seed."""


class Objective(Protocol):
    """Loss and gradients of one SAE; what a new kind has to provide."""

    parameters: dict[str, nn.Parameter]  # what the optimiser moves: the SAE's own, or others that decide them
    since_fired: Tensor  # (F,) int64, activations seen since each latent last fired
    memory: dict[str, float | None]  # what else is kept between batches; goes into checkpoints

    def __init__(self, sae: SAE, encoder_dtype: torch.dtype) -> None: ...

    def start(self, points: Points) -> None:
        """Set the first weights, where they depend on the data."""

    def backward(self, x: Tensor) -> None:
        """Set `.grad` of the parameters for x (B, d)."""

    def constrain_gradients(self) -> None:
        """Take out of the gradients what the constraints on the parameters would undo."""

    def constrain_parameters(self) -> None:
        """After a step: put the parameters back where they have to be, and `compose`."""

    def compose(self) -> None:
        """Bring the SAE in accord with parameters that are not its own."""

    def follow_threshold(self, beta: float) -> None:
        """Move the inference threshold towards the last batch's smallest kept codes."""

    def report(self) -> dict[str, float]:
        """Losses, L0 and explained variance of the last batch."""


class AuxiliaryGradients(NamedTuple):
    """Gradients of the auxiliary loss for the dead latents (n of F), and the loss itself."""

    dead: Tensor  # (n,) int64
    encoder: Tensor  # (n, d)
    bias: Tensor  # (n,)
    decoder: Tensor  # (n, d)
    loss: Tensor  # ()


def auxiliary_gradients(sae: SAE, dead: Tensor, x: Tensor, error: Tensor, k: int, alpha: float) -> AuxiliaryGradients:
    """Let dead latents reconstruct the residual: alpha |r - r̂|² / Var(r), with r̂ from the row's k largest dead ones.

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
    """Gradients by latent, summed over the batch; `product` is that of the bare product x · w, without its bias."""

    encoder: Tensor  # (F, d)
    bias: Tensor  # (F,)
    decoder: Tensor  # (F, d)
    product: Tensor  # (F,)


class Common:
    """Constraints, dead latents and the auxiliary loss, shared by all kinds."""

    def __init__(self, sae: SAE, encoder_dtype: torch.dtype) -> None:
        self.sae, self.config = sae, sae.config
        self.parameters = dict(sae.named_parameters())
        self.encoder = PreActivations(sae.W_enc.detach().t(), sae.b_enc.detach(), encoder_dtype)
        self.since_fired = torch.zeros(sae.n_features, dtype=torch.int64, device=sae.b_enc.device)
        self.memory: dict[str, float | None] = {}
        self.aux_loss: Tensor | None = None

    @torch.no_grad()
    def start(self, points: Points) -> None:
        """Decoder rows, and the encoder tied to them, along points of the data if the config says so."""
        if self.config.init == "data":
            self.sae.W_dec.copy_(F.normalize(points(self.sae.n_features), dim=1))
            self.sae.W_enc.copy_(self.sae.W_dec.t())

    def constrain_gradients(self) -> None:
        remove_parallel_(self.sae.W_dec.grad, self.sae.W_dec.data)

    def constrain_parameters(self) -> None:
        normalize_rows_(self.sae.W_dec.data)

    def compose(self) -> None:
        """Nothing to compose, unless a kind says otherwise: the parameters are the SAE's own."""

    def follow_threshold(self, beta: float) -> None:
        """Nothing to follow, unless a kind says otherwise: its codes need no threshold, or it is trained."""

    def _auxiliary(self, x: Tensor, error: Tensor) -> AuxiliaryGradients | None:
        """Its gradients for the latents dead before this batch; None while all are alive."""
        dead = (self.since_fired >= self.config.patience).nonzero().squeeze(1)
        if len(dead) == 0 or self.config.aux_alpha == 0:
            self.aux_loss = None
            return None
        k = self.config.aux_k or max(1, self.sae.d // 2)
        gradients = auxiliary_gradients(self.sae, dead, x, error, k, self.config.aux_alpha)
        self.aux_loss = gradients.loss
        return gradients

    def _set_gradients(self, sums: LatentSums, output: Tensor, auxiliary: AuxiliaryGradients | None) -> None:
        """From the gradients by latent and the reconstruction's, summed over the batch (d,)."""
        encoder, bias, decoder, product = sums
        if auxiliary is not None:
            encoder.index_add_(0, auxiliary.dead, auxiliary.encoder)
            bias.index_add_(0, auxiliary.dead, auxiliary.bias)
            decoder.index_add_(0, auxiliary.dead, auxiliary.decoder)
            if product is not bias:
                product.index_add_(0, auxiliary.dead, auxiliary.bias)
        self.sae.W_enc.grad, self.sae.b_enc.grad, self.sae.W_dec.grad = encoder.t(), bias, decoder
        # b_dec is also subtracted from the encoder's input
        self.sae.b_dec.grad = output - product @ self.encoder.weight

    def _fired(self, active: Tensor, rows: int) -> None:
        """Count on for every latent but those that are active (F,) in a batch of so many rows."""
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
