"""Disentanglement: tasks with groups of pictures, the protocol of selection and test, results of subsets (ours).

Paper 2 (2504.08729, abstract) claims that suppression helps on CelebA, Waterbirds and typographic attacks; its protocol
could not be recovered, so this one is ours: features are chosen on the selection part of a task's pictures, their
number and strength on the validation part, and the test part is used once, after all choices were registered.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lib.devices import bring, to_cpu
from storage import spec_hash

if TYPE_CHECKING:
    from PIL import Image

    from lib.encoders.encoder import Encoder

MAX_FEATURES = 8  # all 2**8 = 256 subsets of them are stored


@dataclass(eq=False)
class SubsetResults:
    """Predictions for one task at one site with every subset of m features suppressed.

    task, site: what they are called. features: m <= 8 dicts with `id` (its number in the dictionary) and `name`, and
    optionally `note` (a short line) and `chosen` (the protocol's choice, ticked at first). classes, groups: names.
    truth, group: (N,) of each picture. predictions: (2**m, N) uint8; bit i of the first index says that features[i] is
    suppressed, so row 0 is the model as it is. ordinary: (2**m,) zero-shot accuracy in
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
        """2**m, the number of subsets of the features."""
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
        """Positions 0 … limit - 1 in a list, as uint8. Raises ValueError for anything else."""
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


def with_informative_examples(results: Sequence[SubsetResults], count: int) -> list[SubsetResults]:
    """The results with about `count` example pictures of each task, the same at all its sites.

    Each group has equally many: one half are the pictures whose prediction most subsets change, over all sites, the
    other half those that the fewest change. Results of one task must be of the same pictures.
    """
    moved: dict[str, np.ndarray] = {}
    for result in results:
        changed = (result.predictions != result.predictions[0]).sum(0)  # (N,)
        moved[result.task] = moved.get(result.task, 0) + changed
    return [replace(result, examples=_informative(moved[result.task], result.group, count)) for result in results]


def _informative(moved: np.ndarray, group: np.ndarray, count: int) -> list[int]:
    """Positions, group by group, of the pictures whose prediction changed most and least; moved, group: (N,)."""
    found: list[int] = []
    for g in np.unique(group):
        members = np.flatnonzero(group == g)
        ordered = members[np.argsort(-moved[members], kind="stable")]
        share = min(len(members), -(-count // len(np.unique(group))))
        found += [*ordered[: -(-share // 2)], *ordered[len(ordered) - share // 2 :]]
    return found


@dataclass(frozen=True, eq=False)
class Task:
    """Zero-shot classification of pictures that fall into groups by a spurious attribute.

    images: a sequence of N pictures. classes: C names; prompts: the texts of each of them, as sets of which each makes
    one prototype (the mean of its texts' embeddings); a class has the similarity of its nearest prototype. truth: (N,).
    groups: G names, group: (N,). spurious: (N,) value of the spurious attribute, 0 or 1. suggested: (N,) the class
    that the attribute suggests, -1 for none. spurious_texts: texts that name the attribute. attribute_prompts: prompts
    that name the attribute too, the text baseline. scene: (N,) numbers, equal for pictures of the same thing, which
    must not be in different parts; None: each picture is its own scene. Raises ValueError for fields that do not fit.
    """

    name: str
    images: Sequence[Image.Image]
    classes: tuple[str, ...]
    prompts: tuple[tuple[tuple[str, ...], ...], ...]
    truth: np.ndarray
    groups: tuple[str, ...] = ("all",)
    group: np.ndarray | None = None
    spurious: np.ndarray | None = None
    suggested: np.ndarray | None = None
    spurious_texts: tuple[str, ...] = ()
    attribute_prompts: tuple[tuple[tuple[str, ...], ...], ...] = ()
    scene: np.ndarray | None = None

    def __post_init__(self) -> None:
        count = len(self.images)
        nothing = {name: np.full(count, value) for name, value in (("group", 0), ("spurious", 0), ("suggested", -1))}
        nothing["scene"] = np.arange(count)
        for name in ("truth", *nothing):
            values = getattr(self, name)
            values = nothing[name] if values is None else np.asarray(values, np.int64)
            object.__setattr__(self, name, values)
            if values.shape != (count,):
                raise ValueError(f"{self.name}: {name} is {values.shape}, for {count:,} pictures")
        if len(self.prompts) != len(self.classes):
            raise ValueError(f"{self.name}: {len(self.classes)} classes need as many sets of prompts")

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: Sequence[int]) -> Task:
        """The task on these of its pictures, in this order."""
        indices = np.asarray(indices, np.int64)
        tables = {name: getattr(self, name)[indices] for name in ("truth", "group", "spurious", "suggested", "scene")}
        return replace(self, images=_Chosen(self.images, indices), **tables)


class _Chosen(Sequence):
    """Some of a sequence's pictures, read when they are indexed."""

    def __init__(self, images: Sequence, indices: np.ndarray):
        self.images, self.indices = images, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> Image.Image:
        return self.images[int(self.indices[i])]


class NearestText:
    """Zero-shot classifier of a task: embeddings of pictures (.., E) to logits (.., C) and classes (..,).

    prompts: those of the task unless others are given.
    """

    def __init__(self, encoder: Encoder, task: Task, prompts: Sequence[Sequence[Sequence[str]]] = ()):
        prompts = prompts or task.prompts
        texts = [texts for sets in prompts for texts in sets]
        embedded = encoder.embed_texts([text for some in texts for text in some])
        means = [part.mean(0) for part in embedded.split([len(some) for some in texts])]
        self.prototypes = F.normalize(torch.stack(means), dim=-1)  # (K, E)
        self.class_of = torch.tensor([c for c, sets in enumerate(prompts) for _ in sets])  # (K,)
        self.n_classes, self.scale = len(prompts), encoder.logit_scale

    def logits(self, embeddings: Tensor) -> Tensor:
        """(.., E), of any length -> (.., C): the scaled cosine with each class's nearest prototype."""
        similar = self.scale * F.normalize(embeddings.float(), dim=-1) @ bring(self.prototypes, embeddings).T
        lowest = similar.new_full((*similar.shape[:-1], self.n_classes), -torch.inf)
        index = bring(self.class_of, similar).expand(similar.shape)
        return lowest.scatter_reduce(-1, index, similar, "amax")

    def predict(self, embeddings: Tensor) -> Tensor:
        """(.., E) -> (..,) classes, on the CPU."""
        return to_cpu(self.logits(embeddings).argmax(-1))


ROLES = ("selection", "validation", "test")


class ProtocolError(RuntimeError):
    """A use of pictures that the protocol forbids."""


@dataclass(frozen=True, eq=False)
class Part:
    """One part of the pictures: those of the task, and those of other tasks in the same role, by name (`beside`)."""

    role: str
    task: Task
    beside: dict[str, Task] = field(default_factory=dict)

    def only_for(self, *roles: str) -> Part:
        """The part itself. Raises ProtocolError unless its role is one of these: choices must not use the test."""
        if self.role not in roles:
            raise ProtocolError(
                f"this works on {' and '.join(roles)} pictures and was given the {self.role} part of "
                f"{self.task.name!r}: what is chosen on it would be tuned on it"
            )
        return self


class Protocol:
    """Three disjoint parts of a task's scenes; the test part can be read once, after all choices were registered.

    sizes: pictures for selection, validation and test, split by `split_scenes`: groups as equal as possible, no
    scene in two parts. beside: other tasks with their sizes, split alike. `record` lists the events in order.
    Raises ValueError for fewer pictures than the parts need.
    """

    def __init__(
        self,
        task: Task,
        sizes: Sequence[int],
        beside: dict[str, tuple[Task, Sequence[int]]] | None = None,
        seed: int = 0,
    ):
        self.task, self.record = task, []
        beside = beside or {}
        own = split_scenes(task, sizes, seed)
        others = {name: split_scenes(other, some, seed) for name, (other, some) in beside.items()}
        self._parts = {
            role: Part(
                role,
                task.subset(own[i]),
                {name: other.subset(others[name][i]) for name, (other, _) in beside.items() if len(others[name][i])},
            )
            for i, role in enumerate(ROLES)
        }
        self._plan: str | None = None
        self._opened = False

    @property
    def selection(self) -> Part:
        """Where features and directions are chosen. Raises ProtocolError once the choices are registered."""
        return self._choosing("selection")

    @property
    def validation(self) -> Part:
        """Where numbers, strengths and layers are chosen. Raises ProtocolError once the choices are registered."""
        return self._choosing("validation")

    def preregister(self, plan: dict) -> str:
        """Register all choices, a JSON object, before the test is opened; returns the hash that `record` keeps."""
        self._choosing("selection")
        self._plan = json.dumps(plan, sort_keys=True)
        self.record.append({"event": "choices registered", "hash": spec_hash(json.loads(self._plan))})
        return self.record[-1]["hash"]

    def open_test(self, plan: dict) -> Part:
        """The test pictures, once. Raises ProtocolError for choices that are not registered, and the second time."""
        if self._plan is None:
            raise ProtocolError(f"the test pictures of {self.task.name!r} stay closed until the choices are registered")
        if json.dumps(plan, sort_keys=True) != self._plan:
            raise ProtocolError("these are not the registered choices: only those may be tested")
        if self._opened:
            raise ProtocolError(f"the test pictures of {self.task.name!r} were opened before: they can be used once")
        self._opened = True
        self.record.append({"event": "test opened", "hash": spec_hash(plan)})
        return self._parts["test"]

    def _choosing(self, role: str) -> Part:
        if self._plan is not None:
            raise ProtocolError("the choices are registered: make a new Protocol to choose again")
        return self._parts[role]


def split_scenes(task: Task, sizes: Sequence[int], seed: int = 0) -> list[np.ndarray]:
    """Disjoint positions of a task's pictures, one sorted array for each size, with groups as equal as possible.

    A group that is too small is split in proportion to the sizes, and other groups do not replace it. Scenes are kept
    whole: a picture goes to the part that has its scene, and is left out where its group has no room there; a new scene
    goes to the first part with room for its group. Smaller groups come first. Raises ValueError for an empty part.
    """
    random = np.random.default_rng(seed)
    groups = [random.permutation(np.flatnonzero(task.group == g)) for g in range(len(task.groups))]
    wanted = np.array([-(-size // len(task.groups)) for size in sizes])
    parts: list[list[int]] = [[] for _ in sizes]
    home: dict[int, int] = {}  # scene: its part
    for members in sorted(groups, key=len):
        share = min(1.0, len(members) / max(1, wanted.sum()))
        room = np.floor(wanted * share).astype(int)
        for i in _scene_by_scene(members, task.scene, home):
            part = home.get(task.scene[i], int(np.argmax(room > 0)))
            if room[part]:
                home[task.scene[i]] = part
                room[part] -= 1
                parts[part].append(i)
    found = [np.sort(np.array(part, np.int64)) for part in parts]
    if any(size and not len(part) for size, part in zip(sizes, found, strict=True)):
        raise ValueError(f"{task.name}: {len(task):,} pictures are too few for parts of {', '.join(map(str, sizes))}")
    return found


def _scene_by_scene(members: np.ndarray, scene: np.ndarray, home: dict[int, int]) -> list[int]:
    """The members whose scene has a part already, then the rest, scene by scene in order of first picture."""
    first: dict[int, int] = {}
    for i in members:
        first.setdefault(scene[i], len(first))
    return sorted(members.tolist(), key=lambda i: (scene[i] not in home, first[scene[i]]))
