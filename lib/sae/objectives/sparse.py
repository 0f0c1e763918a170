"""Kinds that keep k codes: TopK, BatchTopK and Matryoshka, without ever building a (B, F) array of codes."""

import torch
from torch import Tensor

from lib.sae.config import BY_BATCH
from lib.sae.model import SAE
from lib.sae.objectives.base import LatentSums, Objective
from lib.sae.selection import BatchTopK, Codes, TopK, by_latent, dot_products, weighted_sums

PREFIX_POWERS = {"paper": 0, "mean": 1, "code": 2}
"""By `matryoshka_loss`: the power of 1/G that weighs the sum of the G prefixes' losses."""


class SparseObjective(Objective):
    """Kinds that keep k codes: squared error of every nested prefix (a single one, all F, unless matryoshka).

    After the selection only the kept codes are used: their decoder rows, gradient rows and input rows.
    """

    def __init__(self, sae: SAE, encoder_dtype: torch.dtype) -> None:
        super().__init__(sae, encoder_dtype)
        self.ends = torch.tensor(self.config.group_ends(sae.n_features), device=sae.b_enc.device)  # (G,)
        nested = self.config.kind == "matryoshka"
        self.prefix_weight = len(self.ends) ** -(PREFIX_POWERS[self.config.matryoshka_loss] if nested else 0)
        self.select = (BatchTopK if self.config.kind in BY_BATCH else TopK)(self.config.k)
        self.memory = vars(self.select)

    @torch.no_grad()
    def backward(self, x: Tensor, y: Tensor | None = None) -> None:
        inputs, (x, y) = x, self._parts(x, y)
        codes = self.select(x, self.encoder)
        bags, offsets = self._bags(codes)
        upstream = weighted_sums(self.sae.W_dec, codes.features, offsets, codes.values).view(len(x), -1, y.shape[1])
        error = self._accumulate_errors(upstream, y)
        auxiliary = self._auxiliary(x, error)
        self._errors_to_gradients(upstream)
        upstream = upstream.view(-1, y.shape[1])  # (B * G, d)
        to_codes = dot_products(upstream, bags, offsets, self.sae.W_dec, codes.features)
        self._penalise(to_codes, codes, inputs)
        found = by_latent(codes, to_codes, x, upstream, bags, self.sae.n_features)
        output = upstream.view(len(x), -1, y.shape[1])[:, 0]
        self._set_gradients(LatentSums(found.encoder, found.bias, found.decoder, found.bias), x, output, auxiliary)
        self._fired(found.offsets.diff() > 0, len(x))
        self._last = (y, upstream, found.values, found.offsets)

    def _penalise(self, to_codes: Tensor, codes: Codes, inputs: Tensor) -> None:
        """Add a further loss's gradient, where a kind has one, to that for the codes (nnz,) of the inputs (B, d)."""

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

        A group is part of its own prefix and of all wider ones, so its gradient is the sum over these.
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
        upstream = upstream.view(len(x), -1, x.shape[1])
        errors = upstream.clone()
        errors[:, :-1] -= upstream[:, 1:]
        errors /= 2 * self.prefix_weight / len(x)
        prefixes = errors.square().sum((0, 2)) / len(x)  # (G,)
        row = self._report(x, errors[:, -1], len(values) / len(x))
        row["loss"] = float(prefixes.sum() * self.prefix_weight) + row.get("aux_loss", 0.0)
        if len(prefixes) > 1:
            row |= {f"mse_{end}": float(value) for end, value in zip(self.ends.tolist(), prefixes, strict=True)}
        return row
