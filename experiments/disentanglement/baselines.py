"""Baselines of suppression: erasure of a linear direction, an offset of the logits, linear probes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from experiments.directions import difference_of_means
from experiments.disentanglement.protocol import Part
from experiments.disentanglement.suppression import Runner
from lib.devices import bring, to_cpu


class Eraser:
    """An affine map x - left @ right @ (x - bias) as a dictionary of r features: a feature set to 0 is erased.

    left (d, r), right (r, d), bias (d,). Use it with keep_error=True: it does not reconstruct the rest of x.
    """

    def __init__(self, left: Tensor, right: Tensor, bias: Tensor):
        self.W_dec, self._right, self._bias = left.T.float().contiguous(), right.float(), bias.float()
        self.n_features, self.d = self.W_dec.shape

    def encode(self, x: Tensor) -> Tensor:
        return (x - bring(self._bias, x, x.dtype)) @ bring(self._right, x, x.dtype).T

    def decode(self, codes: Tensor, x: Tensor | None = None) -> Tensor:
        return codes @ bring(self.W_dec, codes, codes.dtype) + bring(self._bias, codes, codes.dtype)


def mean_difference_eraser(x: Tensor, concept: Tensor) -> Eraser:
    """Erases the direction between the means of rows x (N, d) with and without a concept (N,) of 0 and 1.

    Rows are projected on the plane halfway between the two means.
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


def best_offset(logits: Tensor, truth: Tensor, group: Tensor) -> Tensor:
    """Offset (C,) of the logits (N, C) of two classes with the highest worst-group accuracy.

    Every threshold between two pictures is tried; of equals, the one nearest to zero. Zero for other than two classes.
    A control of ours: what an offset repairs needs no features.
    """
    offset = torch.zeros(logits.shape[1])
    if logits.shape[1] != 2:
        return offset
    gap = to_cpu(logits[:, 1] - logits[:, 0]).double()  # (N,)
    ordered = gap.unique()
    between = (ordered[1:] + ordered[:-1]) / 2
    tried = torch.cat([torch.zeros(1), ordered[:1] - 1, between, ordered[-1:] + 1])
    tried = tried[tried.abs().argsort(stable=True)]
    right = (gap > tried[:, None]) == truth.bool()  # (thresholds, N)
    worst = torch.stack([right[:, group == g].double().mean(1) for g in group.unique()]).amin(0)
    offset[1] = -tried[worst.argmax()]
    return offset


@torch.no_grad()
def token_rows(part: Part, runner: Runner, sites: list[str]) -> dict[str, tuple[Tensor, Tensor]]:
    """{site: (rows (N * T, d), spurious value (N * T,))} of the selection pictures. Raises ProtocolError for others."""
    part.only_for("selection")
    found = {site: [] for site in sites}
    for pixels in runner.pixels:
        for site, value in runner.encoder.run(pixels, sites).items():
            found[site].append(to_cpu(value))
    rows = {site: torch.cat(parts) for site, parts in found.items()}
    return {
        site: (x.flatten(0, -2), runner.spurious.repeat_interleave(x[0].numel() // x.shape[-1]))
        for site, x in rows.items()
    }


def balanced_probe(part: Part, runner: Runner, anchor_weight: float, steps: int = 60) -> Tensor:
    """Weights (C, E) of a linear classifier of unit embeddings, trained with equal weight for each group.

    It starts from the classes' text embeddings; `anchor_weight` penalises the distance to them, so that classes with
    few pictures stay near zero-shot. Raises ProtocolError for other than selection pictures.
    """
    part.only_for("selection")
    share = runner.group.bincount().double().reciprocal()[runner.group]
    of_class = F.one_hot(runner.zero_shot.class_of).float()  # (K, C)
    anchor = F.normalize(of_class.T @ to_cpu(runner.zero_shot.prototypes), dim=-1) * runner.zero_shot.scale
    return _fitted(_rows(runner), (share / share.sum()).float(), anchor, anchor_weight, steps)


def resampled_probe(part: Part, runner: Runner, penalty: float, steps: int = 60, draws: int = 5) -> Tensor:
    """Weights (C, E) of a linear classifier of unit embeddings, trained from zero on as many pictures of each group.

    The mean of `draws` fits, each on a random sample with the smallest group's size from every group: deep feature
    reweighting (Kirichenko et al. 2023, arXiv 2204.02937), with a square penalty for its absolute one. Raises
    ProtocolError for other than selection pictures.
    """
    part.only_for("selection")
    members = [(runner.group == g).nonzero()[:, 0] for g in runner.group.unique()]
    size, generator = min(map(len, members)), torch.Generator().manual_seed(0)
    zero = torch.zeros(runner.zero_shot.n_classes, runner.encoder.d_embed)
    rows, found = _rows(runner), []
    for _ in range(draws):
        drawn = torch.cat([some[torch.randperm(len(some), generator=generator)[:size]] for some in members])
        share = torch.zeros(len(runner.group)).index_fill_(0, drawn, 1 / len(drawn))
        found.append(_fitted(rows, share, zero, penalty, steps))
    return torch.stack(found).mean(0)


def _rows(runner: Runner) -> tuple[Tensor, Tensor]:
    """Unit embeddings (N, E) of a runner's pictures and their classes (N,)."""
    return F.normalize(runner.embeddings([()])[0], dim=-1), runner.truth


def _fitted(rows: tuple[Tensor, Tensor], share: Tensor, anchor: Tensor, weight: float, steps: int) -> Tensor:
    """Weights (C, E) of least cross-entropy, rows weighed by share (N,), plus weight * mean square from anchor."""
    embeddings, truth = rows
    weights = anchor.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([weights], max_iter=steps, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        errors = F.cross_entropy(embeddings @ weights.T, truth, reduction="none")
        value = (share * errors).sum() + weight * (weights - anchor).square().mean()
        value.backward()
        return value

    optimiser.step(loss)
    return weights.detach()
