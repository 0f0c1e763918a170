"""Suppression: features, neurons or directions are taken out, and what zero-shot classification gets right then.

Zero-ablation at all tokens, with what the dictionary cannot say kept. Which features are taken is the matter of
`feature_choice`; how many and how strongly is settled here, on the validation part of a `Protocol`, which no other part
may replace (ours: papers.md 2.6).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from experiments.disentanglement.protocol import NearestText, Part, SubsetResults, Task
from lib.activations.reader import batches_of, read_batches
from lib.devices import to_cpu
from lib.encoders.encoder import Encoder
from lib.steering.cached_forward import CachedForward, Variant
from lib.steering.interventions import Dictionary, Intervention

BATCH = 64  # pictures that go through the tower together


def suppress(dictionary: Dictionary, site: str, features: Iterable[int], strength: float = 1.0) -> Variant:
    """Take features out at all tokens: f_j becomes (1 - strength) f_j. 1 is zero-ablation, more turns the sign."""
    features = {int(j): 1.0 - strength for j in features}
    return (Intervention(dictionary, site, features, mode="scale"),) if features else ()


class Trials:
    """A task's pictures before one encoder, drawn or read once: what becomes of them under many interventions.

    pixels: those of other trials with the same pictures, where another task asks something else of them.
    """

    def __init__(self, encoder: Encoder, task: Task, pixels: list[Tensor] | None = None, workers: int | None = None):
        self.encoder, self.task, self.zero_shot = encoder, task, NearestText(encoder, task)
        self.pixels = _read(encoder, task, workers) if pixels is None else pixels
        self.truth, self.group = torch.from_numpy(task.truth), torch.from_numpy(task.group)
        self.spurious, self.lure = torch.from_numpy(task.spurious), torch.from_numpy(task.lure)

    def __len__(self) -> int:
        return len(self.task)

    def embeddings(self, variants: Sequence[Variant]) -> Tensor:
        """(variants, N, E), not normalised, on the CPU; the pictures pass once, then what lies behind each edit."""
        parts = []
        for pixels in self.pixels:
            parts.append(to_cpu(CachedForward(self.encoder, "proj", pixels, variants).values(variants)))
        return torch.cat(parts, dim=1)

    def correct(self, variants: Sequence[Variant]) -> Tensor:
        """(variants, N) bool: which pictures zero-shot classification gets right."""
        return self.zero_shot.predict(self.embeddings(variants)) == self.truth


def trials_of(encoder: Encoder, tasks: dict[str, Task], workers: int | None = None) -> dict[str, Trials]:
    """Trials of several tasks; those that ask about the same pictures read them once."""
    found: dict[str, Trials] = {}
    for name, task in tasks.items():
        same = next((one for one in found.values() if _same_pictures(one.task.images, task.images)), None)
        found[name] = Trials(encoder, task, same and same.pixels, workers)
    return found


def _same_pictures(a: Sequence, b: Sequence) -> bool:
    return a is b or (
        getattr(a, "images", None) is getattr(b, "images", 0) and a.indices.tolist() == b.indices.tolist()
    )


def _read(encoder: Encoder, task: Task, workers: int | None) -> list[Tensor]:
    """The pictures in batches. Raises ValueError for one that cannot be read."""
    found = []
    for batch in read_batches(encoder, task.images, batches_of(len(task), BATCH), workers):
        if batch.unreadable:
            first = batch.unreadable[0]
            raise ValueError(f"{task.name}: picture {first['index']} cannot be read: {first['reason']}")
        found.append(to_cpu(batch.pixels))  # a GPU sees one batch at a time
    return found


@dataclass(frozen=True, eq=False)
class Setting:
    """One way to intervene: some features of a dictionary at a site, at a strength.

    Without features it is the model as it is: `NOTHING`, at no site and of no dictionary.
    """

    method: str
    site: str | None
    dictionary: Dictionary | None
    features: tuple[int, ...]
    strength: float = 1.0

    @property
    def variant(self) -> Variant:
        return suppress(self.dictionary, self.site, self.features, self.strength)

    @property
    def key(self) -> tuple[str, str | None]:
        """Method and site."""
        return self.method, self.site

    def plan(self) -> dict:
        """What is laid down before the test, as JSON can hold it."""
        return {"method": self.method, "site": self.site, "features": list(self.features), "strength": self.strength}


NOTHING = Setting("nothing", None, None, ())


def numbered(
    method: str, site: str, dictionary: Dictionary, ranking: Sequence[int], counts: Sequence[int]
) -> list[Setting]:
    """The first so many features of a ranking at zero."""
    some = sorted({min(count, len(ranking)) for count in counts if count > 0})
    return [Setting(method, site, dictionary, tuple(ranking[:n])) for n in some]


@dataclass(frozen=True)
class Outcome:
    """What one setting does to a part's pictures: (N,) bool of the task, and (M,) of each task beside it."""

    setting: Setting
    correct: Tensor
    beside: dict[str, Tensor]

    def mean_beside(self, names: Iterable[str]) -> Tensor:
        """Share of the named tasks, on the same pictures, that are right on each of them: (M,) float64."""
        return torch.stack([self.beside[name].double() for name in names]).mean(0)


def outcomes(some: Sequence[Setting], trials: Trials, beside: dict[str, Trials] | None = None) -> list[Outcome]:
    """Zero-shot classification under every setting. Tasks beside that share their pictures share the pass, too."""
    variants = [setting.variant for setting in some]
    own, found, seen = trials.correct(variants), {}, {}
    for name, other in (beside or {}).items():
        pictures = id(other.pixels)
        seen[pictures] = other.embeddings(variants) if pictures not in seen else seen[pictures]
        found[name] = other.zero_shot.predict(seen[pictures]) == other.truth
    return [
        Outcome(setting, own[i], {name: right[i] for name, right in found.items()}) for i, setting in enumerate(some)
    ]


def worst_group(correct: Tensor, group: Tensor) -> float:
    """Least accuracy of a group: (N,), (N,)."""
    return min(float(correct[group == g].double().mean()) for g in group.unique())


def settle(
    part: Part,
    some: Sequence[Setting],
    trials: Trials,
    ordinary: dict[str, Trials],
    most_lost: float,
    strengths: Sequence[float] = (),
) -> tuple[dict[tuple[str, str], Outcome], list[Outcome]]:
    """Number and strength for each method at each site, on validation pictures; and all outcomes that were compared.

    First the number of features, at zero; then, for that number, the strength. What wins has the highest worst-group
    accuracy of all that cost ordinary pictures no more than `most_lost` of their mean accuracy, with the model as it is
    among them (`NOTHING`); of equals, the one with fewest features. Raises ProtocolError for other than validation
    pictures.
    """
    part.only_for("validation")
    nothing, *found = outcomes([NOTHING, *some], trials, ordinary)

    def winner(candidates: Sequence[Outcome]) -> Outcome:
        least = nothing.mean_beside(ordinary).mean() - most_lost - 1e-9
        allowed = [one for one in candidates if one.mean_beside(ordinary).mean() >= least]
        return max(
            [nothing, *allowed], key=lambda one: (worst_group(one.correct, trials.group), -len(one.setting.features))
        )

    keys = list(dict.fromkeys(one.setting.key for one in found))
    settled = {key: winner([one for one in found if one.setting.key == key]) for key in keys}
    chosen = [one.setting for one in settled.values() if one.setting.features]
    stronger = [replace(setting, strength=strength) for setting in chosen for strength in strengths]
    more = outcomes(stronger, trials, ordinary) if stronger else []
    for key, one in settled.items():
        settled[key] = winner([one, *(other for other in more if other.setting.key == key)])
    return settled, [nothing, *found, *more]


@torch.no_grad()
def every_subset(setting: Setting, trials: Trials) -> Tensor:
    """Embeddings (2**m, N, E) with every subset of a setting's m features at zero; bit i is features[i].

    A feature that is silent on all tokens of a picture changes nothing there, so only subsets of those that speak are
    computed.
    """
    features = setting.features
    found = []
    for pixels in trials.pixels:
        values = trials.encoder.run(pixels, [setting.site])[setting.site]
        spoken = to_cpu((setting.dictionary.encode(values)[..., list(features)] != 0).any(1))  # (B, m)
        here = torch.zeros(2 ** len(features), len(pixels), trials.encoder.d_embed)
        for pattern in spoken.unique(dim=0):
            members = (spoken == pattern).all(1).nonzero()[:, 0]
            here[:, members] = _subsets_of(setting, trials, pixels[members], features, pattern)
        found.append(here)
    return torch.cat(found, dim=1)


def _subsets_of(setting: Setting, trials: Trials, pixels: Tensor, features: Sequence[int], pattern: Tensor) -> Tensor:
    """(2**m, n, E) of pictures on which the same features speak."""
    speaking = [i for i, speaks in enumerate(pattern.tolist()) if speaks]
    subsets = [[speaking[k] for k in range(len(speaking)) if number >> k & 1] for number in range(2 ** len(speaking))]
    variants = [suppress(setting.dictionary, setting.site, [features[i] for i in some]) for some in subsets]
    values = to_cpu(CachedForward(trials.encoder, "proj", pixels, variants).values(variants))
    place = {sum(1 << i for i in some): k for k, some in enumerate(subsets)}
    mask = sum(1 << i for i in speaking)
    return values[[place[number & mask] for number in range(2 ** len(features))]]


def subset_results(
    setting: Setting, trials: Trials, ordinary: dict[str, Trials], features: Sequence[dict], examples: Sequence[int]
) -> SubsetResults:
    """What a setting's features do in every combination, as `SuppressionPanel` stores it.

    features: `id`, `name` and what else the panel shows of each of the setting's features, 8 at most. ordinary: tasks
    that ask about the same pictures. examples: which of the trials' pictures are shown.
    """
    task, some = trials.task, list(ordinary.values())
    predictions = trials.zero_shot.predict(every_subset(setting, trials))
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
