"""Baselines of suppression: linear directions taken out of the activations, and a linear probe as an upper bound."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from experiments.directions import difference_of_means
from experiments.disentanglement.protocol import Part
from experiments.disentanglement.suppression import Trials
from lib.devices import bring, to_cpu


class Eraser:
    """An affine map x - left @ right @ (x - bias) as a dictionary of r features, for `suppress`: code 0 is erased.

    left (d, r), right (r, d), bias (d,). Use it with keep_error=True, for it reconstructs nothing else.
    """

    def __init__(self, left: Tensor, right: Tensor, bias: Tensor):
        self.W_dec, self._right, self._bias = left.T.float().contiguous(), right.float(), bias.float()
        self.n_features, self.d = self.W_dec.shape

    def encode(self, x: Tensor) -> Tensor:
        return (x - bring(self._bias, x, x.dtype)) @ bring(self._right, x, x.dtype).T

    def decode(self, codes: Tensor, x: Tensor | None = None) -> Tensor:
        return codes @ bring(self.W_dec, codes, codes.dtype) + bring(self._bias, codes, codes.dtype)


def mean_difference_eraser(x: Tensor, concept: Tensor) -> Eraser:
    """Takes out the direction between the means of the rows x (N, d) with and without a concept (N,) of 0 and 1.

    The rows come to lie on the plane halfway between the two means.
    """
    direction = F.normalize(difference_of_means(x[concept == 1], x[concept == 0]), dim=0)
    halfway = (x[concept == 1].float().mean(0) + x[concept == 0].float().mean(0)) / 2
    return Eraser(direction[:, None], direction[None], halfway)


def leace_eraser(x: Tensor, concept: Tensor) -> Eraser:
    """LEACE (Belrose et al. 2023, arXiv 2306.03819): the least change after which no linear probe finds the concept.

    x (N, d), concept (N,) of 0 and 1. Fitted in float64 by the authors' package.
    """
    from concept_erasure import LeaceFitter

    eraser = LeaceFitter.fit(x.double(), concept.long()).eraser
    return Eraser(eraser.proj_left, eraser.proj_right, eraser.bias)


@torch.no_grad()
def token_rows(part: Part, trials: Trials, sites: list[str]) -> dict[str, tuple[Tensor, Tensor]]:
    """{site: (rows (N * T, d), spurious value (N * T,))} of the selection pictures. Raises ProtocolError for others."""
    part.only_for("selection")
    found = {site: [] for site in sites}
    for pixels in trials.pixels:
        for site, value in trials.encoder.run(pixels, sites).items():
            found[site].append(to_cpu(value))
    rows = {site: torch.cat(parts) for site, parts in found.items()}
    return {
        site: (x.flatten(0, -2), trials.spurious.repeat_interleave(x[0].numel() // x.shape[-1]))
        for site, x in rows.items()
    }


def balanced_probe(part: Part, trials: Trials, anchor_weight: float, steps: int = 60) -> Tensor:
    """A linear classifier of embeddings, each group weighing the same: weights (C, E) for unit embeddings.

    It starts from the classes' texts and is held to them by `anchor_weight`, so that classes with few pictures
    keep what zero-shot knows. Raises ProtocolError for other than selection pictures.
    """
    part.only_for("selection")
    embeddings = F.normalize(trials.embeddings([()])[0], dim=-1)
    share = trials.group.bincount().double().reciprocal()[trials.group]
    share = (share / share.sum()).float()
    of_class = F.one_hot(trials.zero_shot.class_of).float()  # (K, C)
    anchor = F.normalize(of_class.T @ to_cpu(trials.zero_shot.prototypes), dim=-1) * trials.zero_shot.scale
    weights = anchor.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([weights], max_iter=steps, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        errors = F.cross_entropy(embeddings @ weights.T, trials.truth, reduction="none")
        value = (share * errors).sum() + anchor_weight * (weights - anchor).square().mean()
        value.backward()
        return value

    optimiser.step(loss)
    return weights.detach()
