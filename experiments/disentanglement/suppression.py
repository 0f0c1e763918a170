"""Suppression: zero-shot accuracy when features, neurons or directions are zeroed.

Zero-ablation at all tokens, with the dictionary's error kept. `feature_choice` ranks the features; their number and
strength are selected in `selection`, on the validation part of a `Protocol` only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.disentanglement.protocol import NearestText, SubsetResults, Task
from lib.activations.reader import batches_of, read_batches
from lib.devices import to_cpu
from lib.encoders.encoder import Encoder
from steering.cached_forward import CachedForward, Variant
from steering.interventions import Dictionary, Intervention

BATCH = 64  # pictures that go through the tower together


def suppress(dictionary: Dictionary, site: str, features: Iterable[int], strength: float = 1.0) -> Variant:
    """Scale features at all tokens: f_j becomes (1 - strength) f_j. 1 is zero-ablation; more inverts the sign."""
    features = {int(j): 1.0 - strength for j in features}
    return (Intervention(dictionary, site, features, mode="scale"),) if features else ()


class Runner:
    """Runs one encoder on a task's N pictures, read once, under many interventions.

    pixels: those of another runner whose task has the same pictures. workers: processes that read pictures.
    """

    def __init__(self, encoder: Encoder, task: Task, pixels: list[Tensor] | None = None, workers: int | None = None):
        self.encoder, self.task, self.zero_shot = encoder, task, NearestText(encoder, task)
        self.pixels = _read(encoder, task, workers) if pixels is None else pixels
        self.truth, self.group = torch.from_numpy(task.truth), torch.from_numpy(task.group)
        self.spurious, self.suggested = torch.from_numpy(task.spurious), torch.from_numpy(task.suggested)

    def __len__(self) -> int:
        return len(self.task)

    def subset(self, indices: Sequence[int]) -> Runner:
        """A runner for these of the pictures, in this order."""
        pixels = torch.cat(self.pixels)[list(indices)].split(BATCH) if len(indices) else ()
        return Runner(self.encoder, self.task.subset(indices), list(pixels))

    def embeddings(self, variants: Sequence[Variant]) -> Tensor:
        """(variants, N, E), not normalised, on the CPU; blocks before an edit run once."""
        parts = []
        for pixels in self.pixels:
            parts.append(to_cpu(CachedForward(self.encoder, "proj", pixels, variants).values(variants)))
        return torch.cat(parts, dim=1)

    def correct(self, variants: Sequence[Variant]) -> Tensor:
        """(variants, N) bool: which pictures zero-shot classification gets right."""
        return self.zero_shot.predict(self.embeddings(variants)) == self.truth


def runners_of(encoder: Encoder, tasks: dict[str, Task], workers: int | None = None) -> dict[str, Runner]:
    """A runner for each task, by name; tasks on the same pictures read them once."""
    found: dict[str, Runner] = {}
    for name, task in tasks.items():
        same = next((one for one in found.values() if _same_pictures(one.task.images, task.images)), None)
        found[name] = Runner(encoder, task, same and same.pixels, workers)
    return found


def _same_pictures(a: Sequence, b: Sequence) -> bool:
    return a is b or (
        getattr(a, "images", None) is getattr(b, "images", 0) and a.indices.tolist() == b.indices.tolist()
    )


def _read(encoder: Encoder, task: Task, workers: int | None) -> list[Tensor]:
    """The pictures in batches of pixels. Raises ValueError for one that cannot be read."""
    found = []
    for batch in read_batches(encoder, task.images, batches_of(len(task), BATCH), workers):
        if batch.unreadable:
            first = batch.unreadable[0]
            raise ValueError(f"{task.name}: picture {first['index']} cannot be read: {first['reason']}")
        found.append(to_cpu(batch.pixels))  # a GPU sees one batch at a time
    return found


@dataclass(frozen=True, eq=False)
class Setting:
    """One intervention: features of a dictionary at a site, suppressed at one strength.

    Without features the model is unchanged: `NOTHING`, without site and dictionary. exact: defined at one strength
    only, as a linear eraser is. edits: interventions in place of suppressed codes; change: a context in which the
    encoder is another one, as with ablated heads. Both are exact.
    """

    method: str
    site: str | None
    dictionary: Dictionary | None
    features: tuple[int, ...]
    strength: float = 1.0
    exact: bool = False
    edits: Variant | None = None
    change: Callable[[Encoder], AbstractContextManager] | None = None

    @property
    def variant(self) -> Variant:
        """The interventions of this setting, for `CachedForward`."""
        if self.edits is not None or self.change is not None:
            return self.edits or ()
        return suppress(self.dictionary, self.site, self.features, self.strength)

    @property
    def key(self) -> tuple[str, str | None]:
        """Method and site."""
        return self.method, self.site

    def plan(self) -> dict:
        """The setting as JSON, for `Protocol.preregister`."""
        every = self.dictionary is not None and len(self.features) == self.dictionary.n_features > 1
        features = "all" if every else list(self.features)
        return {"method": self.method, "site": self.site, "features": features, "strength": self.strength}


NOTHING = Setting("nothing", None, None, ())


def by_count(
    method: str, site: str, dictionary: Dictionary, ranking: Sequence[int], counts: Sequence[int]
) -> list[Setting]:
    """A setting for each count: the first features of a ranking at zero, at most all of them."""
    some = sorted({min(count, len(ranking)) for count in counts if count > 0})
    return [Setting(method, site, dictionary, tuple(ranking[:n])) for n in some]


@dataclass(frozen=True)
class Outcome:
    """Which pictures are right under one setting: (N,) bool of the task, and (M,) of each other task by name."""

    setting: Setting
    correct: Tensor
    beside: dict[str, Tensor]

    def mean_beside(self, names: Iterable[str]) -> Tensor:
        """Mean of the named tasks' outcomes on each of their M common pictures: (M,) float64."""
        return torch.stack([self.beside[name].double() for name in names]).mean(0)


def embedded(some: Sequence[Setting], runner: Runner) -> Tensor:
    """Embeddings (S, N, E) under each setting; those that leave the encoder the same one share the forward pass."""
    found: list[Tensor | None] = [None] * len(some)
    for change in dict.fromkeys(setting.change for setting in some):
        members = [i for i, setting in enumerate(some) if setting.change is change]
        with change(runner.encoder) if change else nullcontext():
            values = runner.embeddings([some[i].variant for i in members])
        for i, value in zip(members, values, strict=True):
            found[i] = value
    return torch.stack(found) if found else torch.zeros(0, len(runner), runner.encoder.d_embed)


def correct_under(some: Sequence[Setting], runner: Runner) -> Tensor:
    """Which pictures zero-shot classification gets right under each setting: (S, N) bool."""
    return runner.zero_shot.predict(embedded(some, runner)) == runner.truth


def correct_beside(some: Sequence[Setting], others: Mapping[str, Runner]) -> list[dict[str, Tensor]]:
    """For each setting, (M,) bool of each other task by name; tasks on the same pictures share the forward pass."""
    found, seen = {}, {}
    for name, other in others.items():
        pictures = id(other.pixels)
        seen[pictures] = embedded(some, other) if pictures not in seen else seen[pictures]
        found[name] = other.zero_shot.predict(seen[pictures]) == other.truth
    return [{name: right[i] for name, right in found.items()} for i in range(len(some))]


def outcomes(some: Sequence[Setting], runner: Runner, beside: Mapping[str, Runner] | None = None) -> list[Outcome]:
    """Zero-shot classification under every setting, of the runner's task and of others."""
    pairs = zip(some, correct_under(some, runner), correct_beside(some, beside or {}), strict=True)
    return [Outcome(setting, own, others) for setting, own, others in pairs]


def worst_group(correct: Tensor, group: Tensor) -> float:
    """Lowest accuracy of a group; correct, group: (N,)."""
    return min(float(correct[group == g].double().mean()) for g in group.unique())


@torch.no_grad()
def every_subset(setting: Setting, runner: Runner) -> Tensor:
    """Embeddings (2**m, N, E) with every subset of a setting's m features at zero; bit i is features[i].

    A feature that is inactive on all tokens of a picture changes nothing there, so only subsets of active features are
    computed.
    """
    features = setting.features
    found = []
    for pixels in runner.pixels:
        values = runner.encoder.run(pixels, [setting.site])[setting.site]
        active = to_cpu((setting.dictionary.encode(values)[..., list(features)] != 0).any(1))  # (B, m)
        here = torch.zeros(2 ** len(features), len(pixels), runner.encoder.d_embed)
        for pattern in active.unique(dim=0):
            members = (active == pattern).all(1).nonzero()[:, 0]
            here[:, members] = _subsets_of(setting, runner, pixels[members], features, pattern)
        found.append(here)
    return torch.cat(found, dim=1)


def _subsets_of(setting: Setting, runner: Runner, pixels: Tensor, features: Sequence[int], pattern: Tensor) -> Tensor:
    """(2**m, n, E) embeddings of pictures (n, 3, H, W) on which the same features are active."""
    active = [i for i, is_active in enumerate(pattern.tolist()) if is_active]
    subsets = [[active[k] for k in range(len(active)) if number >> k & 1] for number in range(2 ** len(active))]
    variants = [suppress(setting.dictionary, setting.site, [features[i] for i in some]) for some in subsets]
    values = to_cpu(CachedForward(runner.encoder, "proj", pixels, variants).values(variants))
    place = {sum(1 << i for i in some): k for k, some in enumerate(subsets)}
    mask = sum(1 << i for i in active)
    return values[[place[number & mask] for number in range(2 ** len(features))]]


def subset_results(
    setting: Setting,
    runner: Runner,
    ordinary: dict[str, Runner],
    features: Sequence[dict],
    examples: Sequence[int],
) -> SubsetResults:
    """Predictions with every subset of a setting's features, as `SuppressionPanel` stores them.

    features: `id`, `name` and what else the panel shows of each feature, at most 8. ordinary: tasks on the same
    pictures. examples: positions of the runner's pictures that are shown.
    """
    task, some = runner.task, list(ordinary.values())
    predictions = runner.zero_shot.predict(every_subset(setting, runner))
    usual = every_subset(setting, some[0])
    right = torch.stack([one.zero_shot.predict(usual) == one.truth for one in some]).double().mean((0, 2))
    return SubsetResults(
        task=task.name,
        site=setting.site,
        features=list(features),
        classes=list(task.classes),
        groups=list(task.groups),
        truth=task.truth,
        group=task.group,
        predictions=predictions.numpy(),
        ordinary=right.numpy(),
        examples=list(examples),
        ordinary_count=len(some[0]),
    )
