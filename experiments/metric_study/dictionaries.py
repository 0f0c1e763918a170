"""Dictionaries of known quality: trained ones, untrained ones of equal size, and planted ones made from the facts.

All are SAEs, so that every metric sees the same kind of object. An untrained or planted one reads fixed directions,
each active on a share k / F of the tokens, and its decoder is the best one for these codes (least squares).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from experiments.ground_truth import Facts
from experiments.nulls import drawn_directions, drawn_neurons
from lib import SAE, SAEConfig
from lib.devices import metric

TRAINED, RANDOM, NEURONS, PLANTED = "trained", "random directions", "neurons", "planted"
RIDGE = 1e-3  # of the largest eigenvalue, in both regressions


@dataclass(frozen=True)
class Entry:
    """What a dictionary is: its family, kind, size, and what is known of its quality.

    steps: of training, 0 without; planted: share of the facts whose probe is among the features; seed: of the run.
    """

    family: str
    kind: str
    expansion: float
    k: int
    steps: int = 0
    planted: float = 0.0
    seed: int = 0

    @property
    def size(self) -> tuple[float, int]:
        """Expansion and k: what the size alone does to a metric is seen among dictionaries of other sizes."""
        return self.expansion, self.k

    @property
    def without_seed(self) -> Entry:
        """What it shares with its runs of other seeds."""
        return replace(self, seed=0)

    def config(self, **settings: object) -> SAEConfig:
        """The config of a trained one; settings: those that all share."""
        size = {"expansion": self.expansion, "k": self.k, "steps": self.steps}
        return SAEConfig(kind=self.kind, seed=self.seed, data_seed=self.seed, **size, **settings)

    def as_row(self) -> dict:
        """Its fields, for a table."""
        return asdict(self)


def trained_entries(
    kinds: Sequence[str], expansions: Sequence[float], ks: Sequence[int], steps: Sequence[int], seeds: Sequence[int]
) -> list[Entry]:
    """Every kind and size at the most steps, and the first kind and size at every number of steps; in every seed."""
    grid = [Entry(TRAINED, kind, x, k, max(steps)) for kind in kinds for x in expansions for k in ks]
    grid += [replace(grid[0], steps=fewer) for fewer in sorted(steps)[:-1]]
    return [replace(entry, seed=seed) for entry in grid for seed in seeds]


def fixed_entries(
    expansions: Sequence[float], ks: Sequence[int], planted: Sequence[float], seeds: Sequence[int]
) -> list[Entry]:
    """Random directions and neurons in every size, and planted ones of each share in the first size; in every seed."""
    grid = [Entry(family, "fixed", x, k) for family in (RANDOM, NEURONS) for x in expansions for k in ks]
    grid += [Entry(PLANTED, "fixed", expansions[0], ks[0], planted=share) for share in planted]
    return [replace(entry, seed=seed) for entry in grid for seed in seeds]


def fixed_dictionary(entry: Entry, tokens: Tensor, probes: Tensor) -> SAE:
    """The untrained or planted dictionary of an entry. tokens: (M, d) to set its biases by; probes: (d, C) of facts."""
    d = tokens.shape[1]
    width = round(entry.expansion * d)
    draw = drawn_neurons if entry.family == NEURONS else drawn_directions
    directions = draw(d, width, entry.seed)
    n = round(entry.planted * min(width, probes.shape[1]))
    order = torch.randperm(probes.shape[1], generator=torch.Generator().manual_seed(entry.seed))
    directions[:, :n] = probes[:, order[:n]]
    return from_directions(directions, tokens, entry.k)


@torch.no_grad()
def from_directions(directions: Tensor, tokens: Tensor, k: int) -> SAE:
    """An SAE that reads directions (d, F), each active on a share k / F of the tokens (M, d), with the best decoder."""
    d, width = directions.shape
    sae = SAE(SAEConfig(kind="relu", width=width, k=k), d)
    centre = tokens.mean(0)
    values = (tokens - centre) @ directions
    edge = values.quantile(1 - min(1.0, k / width), dim=0)
    decoder = ridge((values - edge).clamp_min(0), tokens - centre)  # (F, d)
    length = decoder.norm(dim=1)
    length = torch.where(length > 0, length, 1)
    sae.W_dec.copy_(torch.where(decoder.any(1, keepdim=True), normalize(decoder, dim=1), sae.W_dec))
    sae.W_enc.copy_(directions * length)  # codes in units of decoder rows of length 1
    sae.b_enc.copy_(-edge * length)
    sae.b_dec.copy_(centre)
    return sae


@metric()
def probes_of(facts: Facts, pooled: Tensor) -> Tensor:
    """Unit directions (d, C) that predict each fact from the mean patch (N, d), by ridge regression."""
    truth = facts.truth.float()
    found = ridge(pooled - pooled.mean(0), truth - truth.mean(0))  # (d, C)
    return normalize(found, dim=0)


def ridge(x: Tensor, y: Tensor) -> Tensor:
    """Coefficients (F, C) of y (M, C) on x (M, F), with a penalty of `RIDGE` times the largest eigenvalue of x'x."""
    gram = x.T @ x
    penalty = RIDGE * torch.linalg.matrix_norm(gram, 2).clamp_min(torch.finfo(x.dtype).tiny)
    return torch.linalg.solve(gram + penalty * torch.eye(len(gram)), x.T @ y)
