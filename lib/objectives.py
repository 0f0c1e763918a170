"""What each kind of SAE minimises on a batch, with the gradients written by hand.

An objective works in the units of the normalised input (mean |x|² = 1) and leaves every parameter's gradient in
`.grad`; the trainer knows nothing else about kinds. Losses are means over the batch of squared errors summed over d.
Shapes: B rows, d width, F latents, G nested prefixes, nnz kept codes.
"""

from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.sae import SAE
from lib.sparse_codes import BatchTopK, Codes, Encoder, TopK, by_latent, dot_products, weighted_sums


class Objective(Protocol):
    """Loss and gradients of one SAE; what a new kind has to provide."""

    since_fired: Tensor  # (F,) int64, activations seen since each latent last fired
    memory: dict[str, float | None]  # what else is kept between batches; goes into checkpoints

    def __init__(self, sae: SAE, encoder_dtype: torch.dtype) -> None: ...

    def backward(self, x: Tensor) -> None:
        """Set `.grad` of the SAE's parameters for x (B, d)."""

    def follow_threshold(self, beta: float) -> None:
        """Move the inference threshold towards the last batch's smallest kept codes."""

    def report(self) -> dict[str, float]:
        """Losses, L0 and explained variance of the last batch."""


OBJECTIVES: dict[str, type[Objective]] = {}
"""By kind of SAE."""

PREFIX_POWERS = {"paper": 0, "mean": 1, "code": 2}
"""By `matryoshka_loss`: the power of 1/G that weighs the sum of the G prefixes' losses."""


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


class _Common:
    """Dead latents and the auxiliary loss, shared by all kinds."""

    def __init__(self, sae: SAE, encoder_dtype: torch.dtype) -> None:
        self.sae, self.config = sae, sae.config
        self.encoder = Encoder(sae.W_enc.detach().t(), sae.b_enc.detach(), encoder_dtype)
        self.since_fired = torch.zeros(sae.n_features, dtype=torch.int64, device=sae.b_enc.device)
        self.memory: dict[str, float | None] = {}
        self.aux_loss: Tensor | None = None

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

    def _set_gradients(
        self, encoder: Tensor, bias: Tensor, decoder: Tensor, output: Tensor, auxiliary: AuxiliaryGradients | None
    ) -> None:
        """Gradients by latent (F, d), (F,), (F, d), and the reconstruction's summed over the batch (d,)."""
        if auxiliary is not None:
            encoder.index_add_(0, auxiliary.dead, auxiliary.encoder)
            bias.index_add_(0, auxiliary.dead, auxiliary.bias)
            decoder.index_add_(0, auxiliary.dead, auxiliary.decoder)
        self.sae.W_enc.grad, self.sae.b_enc.grad, self.sae.W_dec.grad = encoder.t(), bias, decoder
        self.sae.b_dec.grad = output - bias @ self.encoder.weight  # b_dec is also subtracted from the encoder's input

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


class _SparseObjective(_Common):
    """Kinds that keep k codes: squared error of every nested prefix (a single one, all F, unless matryoshka).

    Only the kept codes are touched after the selection: their decoder rows, gradient rows and input rows.
    """

    def __init__(self, sae: SAE, encoder_dtype: torch.dtype) -> None:
        super().__init__(sae, encoder_dtype)
        self.ends = torch.tensor(self.config.group_ends(sae.n_features), device=sae.b_enc.device)  # (G,)
        self.prefix_weight = len(self.ends) ** -PREFIX_POWERS[self.config.matryoshka_loss]
        self.select = TopK(self.config.k) if self.config.kind == "topk" else BatchTopK(self.config.k)
        self.memory = vars(self.select)

    @torch.no_grad()
    def backward(self, x: Tensor) -> None:
        x = x - self.sae.b_dec
        codes = self.select(x, self.encoder)
        bags, offsets = self._bags(codes)
        upstream = weighted_sums(self.sae.W_dec, codes.features, offsets, codes.values).view(len(x), -1, self.sae.d)
        error = self._accumulate_errors(upstream, x)
        auxiliary = self._auxiliary(x, error)
        self._errors_to_gradients(upstream)
        upstream = upstream.view(-1, self.sae.d)  # (B * G, d)
        to_codes = dot_products(upstream, bags, offsets, self.sae.W_dec, codes.features)
        found = by_latent(codes, to_codes, x, upstream, bags, self.sae.n_features)
        output = upstream.view(len(x), -1, self.sae.d)[:, 0].sum(0)
        self._set_gradients(found.encoder, found.bias, found.decoder, output, auxiliary)
        self.since_fired.add_(len(x)).masked_fill_(found.offsets.diff() > 0, 0)
        self._last = (x, upstream, found.values, found.offsets)

    def _bags(self, codes: Codes) -> tuple[Tensor, Tensor]:
        """One bag per row and group, in that order: each code's bag (nnz,) and the bags' offsets (B * G + 1,)."""
        groups = len(self.ends)
        if groups == 1:
            return codes.rows, codes.offsets
        bags = codes.rows * groups + torch.bucketize(codes.features, self.ends, right=True)
        starts = torch.arange((len(codes.offsets) - 1) * groups + 1, device=bags.device)
        return bags, torch.searchsorted(bags, starts)

    @staticmethod
    def _accumulate_errors(sums: Tensor, x: Tensor) -> Tensor:
        """Turn the groups' sums (B, G, d) into the prefixes' errors in place; returns the last (B, d)."""
        sums[:, 0].sub_(x)
        for group in range(1, sums.shape[1]):
            sums[:, group].add_(sums[:, group - 1])
        return sums[:, -1]

    def _errors_to_gradients(self, errors: Tensor) -> None:
        """Turn the prefixes' errors (B, G, d) into the loss's gradients for each group's sum, in place.

        A group takes part in its own prefix and in all wider ones, so its gradient sums over these.
        """
        errors.mul_(2 * self.prefix_weight / len(errors))
        for group in reversed(range(errors.shape[1] - 1)):
            errors[:, group].add_(errors[:, group + 1])

    def follow_threshold(self, beta: float) -> None:
        _, _, values, offsets = self._last
        threshold = self.sae.threshold
        if threshold.ndim:
            smallest = torch.segment_reduce(values, "min", offsets=offsets, initial=float("inf"))
        else:
            smallest = values.min() if len(values) else torch.full_like(threshold, float("inf"))
        average = torch.where(threshold < 0, smallest, torch.lerp(smallest, threshold, beta))
        threshold.copy_(torch.where(smallest.isfinite(), average, threshold))

    @torch.no_grad()
    def report(self) -> dict[str, float]:
        x, upstream, values, _ = self._last
        upstream = upstream.view(len(x), -1, self.sae.d)
        errors = upstream.clone()
        errors[:, :-1] -= upstream[:, 1:]
        errors /= 2 * self.prefix_weight / len(x)
        prefixes = errors.square().sum((0, 2)) / len(x)  # (G,)
        row = self._report(x, errors[:, -1], len(values) / len(x))
        row["loss"] = float(prefixes.sum() * self.prefix_weight) + row.get("aux_loss", 0.0)
        if len(prefixes) > 1:
            row |= {f"mse_{end}": float(value) for end, value in zip(self.ends.tolist(), prefixes, strict=True)}
        return row


class _ReLUObjective(_Common):
    """Squared error + l1 * sum of the codes. Its codes start dense, so the products are dense."""

    @torch.no_grad()
    def backward(self, x: Tensor) -> None:
        x = x - self.sae.b_dec
        codes = self.encoder.dense(x).relu_()  # (B, F)
        error = torch.addmm(x, codes, self.sae.W_dec, beta=-1)
        auxiliary = self._auxiliary(x, error)
        upstream = error * (2 / len(x))
        active = codes > 0
        to_codes = (upstream @ self.sae.W_dec.t()).add_(self.config.l1 / len(x)).mul_(active)
        self._set_gradients(to_codes.t() @ x, to_codes.sum(0), codes.t() @ upstream, upstream.sum(0), auxiliary)
        self.since_fired.add_(len(x)).masked_fill_(active.any(0), 0)
        self._last = (x, error, codes)

    def follow_threshold(self, beta: float) -> None:
        self.sae.threshold.zero_()

    def report(self) -> dict[str, float]:
        x, error, codes = self._last
        row = self._report(x, error, float((codes > 0).sum()) / len(x))
        row["l1_loss"] = self.config.l1 * float(codes.sum()) / len(x)
        return row | {"loss": row["mse"] + row["l1_loss"] + row.get("aux_loss", 0.0)}


OBJECTIVES.update(relu=_ReLUObjective, topk=_SparseObjective, batchtopk=_SparseObjective, matryoshka=_SparseObjective)
