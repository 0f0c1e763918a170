"""Disentanglement: what suppressing features does to every group of pictures, and what else it breaks (ours).

Paper 2 (2504.08729, abstract) claims that suppression helps on CelebA, Waterbirds and typographic attacks; its protocol
could not be recovered, so this one is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_FEATURES = 8  # whose every subset is kept: 256 of them


@dataclass(eq=False)
class SubsetResults:
    """One task at one site: what is predicted with every subset of a few features suppressed.

    task, site: what they are called. features: m <= 8 dicts with `id` (its number in the dictionary) and `name`, and
    optionally `max` (its largest code), `value` (what it is set to when suppressed; 0 unless said) and `note` (a short
    line). classes, groups: names. truth, group: (N,) of each picture. predictions: (2**m, N) uint8; bit i of the first
    index says that features[i] is suppressed, so row 0 is the model as it is. ordinary: (2**m,) zero-shot accuracy in
    [0, 1] on `ordinary_count` ordinary pictures (None: it is shown without an interval). examples: which of the N
    pictures are shown. Raises ValueError where parts do not fit.
    """

    task: str
    site: str
    features: list[dict]
    classes: list[str]
    groups: list[str]
    truth: np.ndarray  # (N,)
    group: np.ndarray  # (N,)
    predictions: np.ndarray  # (2**m, N) uint8
    ordinary: np.ndarray  # (2**m,)
    examples: list[int]
    ordinary_count: int | None = None

    def __post_init__(self) -> None:
        self._check_features()
        self.truth = self._indices("truth", self.truth, len(self.classes), "classes")
        n_pictures = len(self.truth)
        self.group = self._indices("group", self.group, len(self.groups), "groups")
        self.predictions = self._indices("predictions", self.predictions, len(self.classes), "classes", dimensions=2)
        self.ordinary = np.asarray(self.ordinary, dtype=np.float64)
        self.examples = [int(i) for i in self.examples]
        expected = {"group": (n_pictures,), "predictions": (self.n_subsets, n_pictures), "ordinary": (self.n_subsets,)}
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                found, given = getattr(self, name).shape, f"{len(self.features)} features and {n_pictures} pictures"
                raise ValueError(f"{name} is {found}: with {given} it must be {shape}.")
        if not ((self.ordinary >= 0) & (self.ordinary <= 1)).all():
            raise ValueError("ordinary holds values outside [0, 1]: give accuracies as fractions.")
        wrong = [i for i in self.examples if not 0 <= i < n_pictures]
        if wrong:
            raise ValueError(f"there is no picture {wrong[0]} to show: the task has {n_pictures} pictures.")

    @property
    def n_subsets(self) -> int:
        """2**m: how many ways there are to suppress some of the features."""
        return 2 ** len(self.features)

    def subset(self, suppressed: list[int]) -> int:
        """The row of `predictions` with the features of these numbers suppressed."""
        place = {feature["id"]: i for i, feature in enumerate(self.features)}
        unknown = [number for number in suppressed if number not in place]
        if unknown:
            raise ValueError(f"feature {unknown[0]} is not among those of this result: choose from {list(place)}.")
        return sum(1 << place[number] for number in set(suppressed))

    def _check_features(self) -> None:
        if not 1 <= len(self.features) <= MAX_FEATURES:
            raise ValueError(
                f"there are {len(self.features)} features: give 1 to {MAX_FEATURES}, every subset is kept."
            )
        for feature in self.features:
            missing = [name for name in ("id", "name") if name not in feature]
            if missing:
                raise ValueError(f"a feature lacks {' and '.join(missing)}: give each its number and its name.")
        if len({feature["id"] for feature in self.features}) < len(self.features):
            raise ValueError("a feature is there twice: give different ones.")

    def _indices(self, name: str, values, limit: int, of: str, dimensions: int = 1) -> np.ndarray:
        """Positions 0 … limit - 1 in a list, as uint8; anything else is an error."""
        array = np.asarray(values)
        if array.ndim != dimensions or not array.size:
            raise ValueError(
                f"{name} is {array.shape}: give {dimensions} dimension{'s' * (dimensions > 1)}, not empty."
            )
        if not np.issubdtype(array.dtype, np.integer):
            raise ValueError(f"{name} holds {array.dtype}: give whole numbers, positions in {of}.")
        if limit > 256:
            raise ValueError(f"there are {limit} {of}: each is stored as one byte, give at most 256.")
        if array.min() < 0 or array.max() >= limit:
            raise ValueError(f"{name} goes from {array.min()} to {array.max()}: there are {limit} {of}.")
        return array.astype(np.uint8)
