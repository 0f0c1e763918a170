"""What is tried for a task, and what its validation pictures choose: a setting for each family of methods and site."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor
from torch.nn.functional import normalize

from experiments.disentanglement import group_accuracy
from experiments.disentanglement.baselines import balanced_probe, leace_eraser, mean_difference_eraser, token_rows
from experiments.disentanglement.feature_choice import RULES, evidence, rankings
from experiments.disentanglement.protocol import NearestText, Part, Task
from experiments.disentanglement.suppression import NOTHING, Outcome, Setting, Trials, numbered, worst_group
from experiments.tables import MISSING
from lib.steering.interventions import Dictionary

FAMILIES = {what: [f"{what}: {rule}" for rule in RULES] for what in ("SAE", "neurons")}
FAMILIES |= {"mean difference": ["mean difference"], "LEACE": ["LEACE"]}
"""The methods by the family in which validation compares them."""
METHODS = ["nothing", *FAMILIES, "prompts", "probe"]
RIVALS = [method for method in METHODS if method not in ("nothing", "SAE", "probe")]


@dataclass(frozen=True)
class Search:
    """How features are ranked: the most that are taken, and how many are clamped on how many pictures."""

    counts: Sequence[int]
    n_candidates: int
    n_pictures: int


def ranked_settings(
    part: Part, trials: Trials, dictionaries: Mapping[str, Mapping[str, Dictionary]], search: Search
) -> list[Setting]:
    """The first features of each rule's ranking at all layers; dictionaries: by site and by what they hold."""
    seen = evidence(part, trials, {site: list(some.values()) for site, some in dictionaries.items()})
    found = []
    for site, some in dictionaries.items():
        for (what, dictionary), one in zip(some.items(), seen[site], strict=True):
            most = max(search.counts), search.n_candidates, search.n_pictures
            for rule, ranking in rankings(part, trials, dictionary, site, one, *most).items():
                found += numbered(f"{what}: {rule}", site, dictionary, ranking, search.counts)
    return found


def linear_settings(part: Part, trials: Trials, sites: Sequence[str]) -> list[Setting]:
    """Settings that take one linear direction out, at every layer and at the embedding.

    None for a set with words on all pictures, which has no direction from one kind to the other.
    """
    if len(np.unique(part.task.spurious)) < 2:
        return []
    rows = token_rows(part, trials, [*sites, "proj"])
    erasers = {"mean difference": mean_difference_eraser, "LEACE": leace_eraser}
    return [Setting(method, site, make(*rows[site]), (0,)) for site in rows for method, make in erasers.items()]


def right_with(weights: Tensor, trials: Trials) -> Tensor:
    """Which pictures a linear classifier of the embeddings (C, E) gets right: (N,) bool."""
    return (normalize(trials.embeddings([()])[0], dim=-1) @ weights.T).argmax(1) == trials.truth


def right_with_prompts(trials: Trials) -> Tensor:
    """Which pictures are right with prompts that name the attribute: (N,) bool."""
    careful = NearestText(trials.encoder, trials.task, trials.task.careful_prompts)
    return careful.predict(trials.embeddings([()])[0]) == trials.truth


@dataclass(frozen=True)
class Choice:
    """What the validation pictures of one task choose.

    before: the model as it is; settled, compared: as `settle` returns them; sites: of the dictionaries; probe: the
    weights that `anchor` gave.
    """

    trials: Trials
    before: Outcome
    settled: Mapping[tuple[str, str], Outcome]
    compared: Sequence[Outcome]
    sites: Sequence[str]
    anchor: float
    probe: Tensor

    @classmethod
    def with_probe(cls, selecting: tuple[Part, Trials], anchors: Sequence[float], trials: Trials, **rest) -> Choice:
        """Of the probes trained on selection pictures, the one with the best worst group on validation pictures."""
        weights = {value: balanced_probe(*selecting, value) for value in anchors}
        worst = {value: worst_group(right_with(one, trials), trials.group) for value, one in weights.items()}
        anchor = max(anchors, key=worst.get)
        return cls(trials, anchor=anchor, probe=weights[anchor], **rest)

    def places(self, family: str) -> list[str]:
        """Where a family is tried."""
        return [*self.sites, "proj"] if family in ("mean difference", "LEACE") else list(self.sites)

    def best(self, family: str, places: Iterable[str]) -> Setting:
        """The setting of a family with the highest worst-group accuracy, `NOTHING` where none was settled."""
        keys = [(method, site) for site in places for method in FAMILIES[family]]
        rows = [self.settled[key] for key in keys if key in self.settled]
        return max(rows, key=lambda one: self.worst(one.correct)).setting if rows else NOTHING

    @cached_property
    def correct(self) -> dict[str, Tensor]:
        """(N,) by method: which pictures are right with what was chosen for it."""
        found = {family: self.outcome(setting).correct for family, setting in self.chosen.items()}
        found |= {"nothing": self.before.correct, "prompts": right_with_prompts(self.trials)}
        return found | {"probe": right_with(self.probe, self.trials)}

    @cached_property
    def chosen(self) -> dict[str, Setting]:
        """By family the best of all sites."""
        return {family: self.best(family, self.places(family)) for family in FAMILIES}

    @cached_property
    def by_layer(self) -> dict[tuple[str, str], Setting]:
        """By family and site the best there."""
        return {(family, site): self.best(family, [site]) for family in FAMILIES for site in self.places(family)}

    @cached_property
    def rival(self) -> str:
        """The method that features must beat: the best but the probe."""
        return max(RIVALS, key=lambda method: self.worst(self.correct[method]))

    def outcome(self, setting: Setting) -> Outcome:
        return self.settled.get(setting.key, self.before)

    def worst(self, correct: Tensor) -> float:
        """Worst-group accuracy."""
        return worst_group(correct, self.trials.group)

    def worst_of(self, method: str) -> int:
        """Which group is the worst with a method."""
        return group_accuracy.group_accuracy(self.correct[method], self.trials.group).worst_group

    def described(self, family: str, ordinary: Iterable[str]) -> dict:
        """A row of the table of choices; ordinary: the tasks that ask about ordinary pictures."""
        setting = self.chosen[family]
        found = self.outcome(setting)
        lost = found.mean_beside(ordinary).mean() - self.before.mean_beside(ordinary).mean()
        return {
            "rule": setting.method.partition(": ")[2] or MISSING,
            "site": setting.site or MISSING,
            "features": len(setting.features),
            "strength": setting.strength,
            "worst group": self.worst(found.correct),
            "ordinary": float(lost),
        }

    def others(self) -> dict[str, str]:
        """The probe and the rival, as text."""
        return {
            "probe's anchor": f"{self.anchor:g}",
            "worst group, probe": f"{self.worst(self.correct['probe']):.1%}",
            "rival": self.rival,
            "worst group, rival": f"{self.worst(self.correct[self.rival]):.1%}",
        }

    def plan(self, deal: int, sizes: Sequence[int]) -> dict:
        """All that the test will be used for."""
        return {
            "deal": deal,
            "sizes": list(sizes),
            "chosen": {family: setting.plan() for family, setting in self.chosen.items()},
            "by layer": {f"{family} at {site}": setting.plan() for (family, site), setting in self.by_layer.items()},
            "probe's anchor": self.anchor,
            "rival": self.rival,
        }

    def curve(self, method: str, site: str) -> list[tuple[int, float]]:
        """(number of features, worst-group accuracy) of a method at a site, from none on, at strength 1."""
        same = [one for one in self.compared if one.setting.key == (method, site) and one.setting.strength == 1]
        found = [(len(one.setting.features), self.worst(one.correct)) for one in same]
        return [(0, self.worst(self.before.correct)), *found]


def some_of_each(task: Task, n: int = 8) -> list[int]:
    """Positions of n pictures, evenly from all groups."""
    per_group = n // len(task.groups)
    return [int(i) for g in range(len(task.groups)) for i in np.flatnonzero(task.group == g)[:per_group]]
