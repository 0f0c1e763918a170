"""Pushes along features, neurons and directions, each in units of how far it goes by itself on training pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.directions import largest_codes
from lib.activations.store import ActivationStore
from lib.sae.model import SAE
from lib.steering.interventions import Dictionary, Intervention


@dataclass(frozen=True)
class Reach:
    """Where the F codes of a dictionary stand at rest and where their peaks lie, both (F,), at one site."""

    dictionary: Dictionary
    site: str
    rest: Tensor
    peak: Tensor

    @classmethod
    def of(cls, dictionary: Dictionary, store: ActivationStore, mean: Tensor) -> Reach:
        """rest: zero for features of an SAE, the codes of the mean activation (d,) for others; peak: on any row."""
        resting = isinstance(dictionary, SAE)
        rest = torch.zeros(dictionary.n_features) if resting else dictionary.encode(mean)
        return cls(dictionary, str(store.site), rest, largest_codes(dictionary, store))

    @property
    def median_peak(self) -> float:
        """The median over the features that are active at all."""
        return float(self.peak[self.peak > 0].median())

    def push(self, j: int, strength: float, mode: str = "clamp", keep_error: bool = True) -> Intervention:
        """Clamp feature j so far between its rest (0) and its peak (1), or beyond; mode "add": add as much."""
        start = float(self.rest[j]) if mode == "clamp" else 0.0
        value = strength * float((self.peak - self.rest)[j]) + start
        return Intervention(self.dictionary, self.site, {int(j): value}, mode=mode, keep_error=keep_error)


@dataclass(frozen=True)
class Arm:
    """A method that is compared: a dictionary by name, its features' top pictures (F, 16), how one is pushed."""

    dictionary: str
    tops: Tensor
    push: Callable[[int, float], Intervention]


def dealt(items: Tensor, generator: torch.Generator) -> Tensor:
    """The items in a random order."""
    return items[torch.randperm(len(items), generator=generator)]


def usable(tops: Tensor) -> Tensor:
    """The features that have as many top pictures as there are columns; -1 stands for none."""
    return (tops >= 0).all(1).nonzero().squeeze(1)


def by_level(features: Tensor, ends: Sequence[int], n: int, generator: torch.Generator) -> dict[int, Tensor]:
    """n random features of each level of a Matryoshka dictionary whose levels end before `ends`, by level."""
    level = torch.bucketize(features, torch.tensor(ends), right=True)
    return {int(one): dealt(features[level == one], generator)[:n] for one in level.unique()}
