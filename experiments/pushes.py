"""Pushes (interventions on one feature, neuron or direction) with strengths in units of its range of codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.directions import largest_codes
from lib.activations.store import ActivationStore
from lib.sae.model import SAE
from steering.interventions import Dictionary, Intervention


@dataclass(frozen=True)
class CodeRange:
    """Range of the F codes of a dictionary at one site: their values at rest and their peaks, both (F,)."""

    dictionary: Dictionary
    site: str
    rest: Tensor
    peak: Tensor

    @classmethod
    def of(cls, dictionary: Dictionary, store: ActivationStore, mean: Tensor) -> CodeRange:
        """Range on a store. rest: 0 for SAE features, else codes of the mean activation (d,); peak: largest code."""
        resting = isinstance(dictionary, SAE)
        rest = torch.zeros(dictionary.n_features) if resting else dictionary.encode(mean)
        return cls(dictionary, str(store.site), rest, largest_codes(dictionary, store))

    @property
    def median_peak(self) -> float:
        """Median peak of the features that are ever active."""
        return float(self.peak[self.peak > 0].median())

    def push(self, j: int, strength: float, mode: str = "clamp", keep_error: bool = True) -> Intervention:
        """Clamp feature j at rest + strength (peak - rest); mode "add": add strength (peak - rest)."""
        start = float(self.rest[j]) if mode == "clamp" else 0.0
        value = strength * float((self.peak - self.rest)[j]) + start
        return Intervention(self.dictionary, self.site, {int(j): value}, mode=mode, keep_error=keep_error)


@dataclass(frozen=True)
class Method:
    """A steering method: the name of its dictionary, top pictures (F, 16), and the push of a feature by a strength."""

    dictionary: str
    tops: Tensor
    push: Callable[[int, float], Intervention]


def shuffled(items: Tensor, generator: torch.Generator) -> Tensor:
    """The items in a random order."""
    return items[torch.randperm(len(items), generator=generator)]


def usable(tops: Tensor) -> Tensor:
    """Features with a full row of top pictures (F, k); -1 is none."""
    return (tops >= 0).all(1).nonzero().squeeze(1)


def by_level(features: Tensor, ends: Sequence[int], n: int, generator: torch.Generator) -> dict[int, Tensor]:
    """n random features of each level of a Matryoshka dictionary whose levels end before `ends`, by level."""
    level = torch.bucketize(features, torch.tensor(ends), right=True)
    return {int(one): shuffled(features[level == one], generator)[:n] for one in level.unique()}
