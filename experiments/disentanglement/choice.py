"""Settings tried for a task, and those chosen on validation pictures: one for each family of methods and site."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor
from torch.nn.functional import normalize

from experiments.disentanglement import group_accuracy
from experiments.disentanglement.attention_heads import HEAD_RULES, HEADS, HEADS_BY_CHANCE, head_settings, random_heads
from experiments.disentanglement.baselines import (
    balanced_probe,
    best_offset,
    leace_eraser,
    mean_difference_eraser,
    resampled_probe,
    token_rows,
)
from experiments.disentanglement.feature_choice import RULES, at_random, feature_stats, rankings
from experiments.disentanglement.protocol import NearestText, Part, Task
from experiments.disentanglement.rivals import LABEL_FREE, PROJECTION, label_free_settings, projections
from experiments.disentanglement.suppression import (
    NOTHING,
    Outcome,
    Runner,
    Setting,
    by_count,
    correct_under,
    worst_group,
)
from experiments.tables import MISSING
from lib.devices import to_cpu
from lib.sae.model import SAE
from steering.interventions import Dictionary

FAMILIES = {what: [f"{what}: {rule}" for rule in RULES] for what in ("SAE", "neurons")}
CHANCE = "features by chance"
FAMILIES |= {CHANCE: [f"{CHANCE}: {draw}" for draw in range(len(RULES))]}  # as many choices as the rules have
FAMILIES |= {PROJECTION: [f"{PROJECTION}: {rule}" for rule in RULES], LABEL_FREE: [LABEL_FREE]}
FAMILIES |= {HEADS: [f"{HEADS}: {rule}" for rule in HEAD_RULES]}
FAMILIES |= {"mean difference": ["mean difference"], "LEACE": ["LEACE"]}
"""The methods by the family in which validation compares them; `CHANCE` is the null of features."""
PROBES = {"probe": balanced_probe, "group-balanced probe": resampled_probe}
"""Trained classifiers of the embeddings, by name: what they are compared with is a model that is not retrained."""
NULLS = (CHANCE, HEADS_BY_CHANCE)
"""Of features, through the same choices as the rules; of heads, as many as were chosen, in several draws."""
METHODS = ["nothing", *FAMILIES, "prompts", "offset", *PROBES]
METHODS.insert(METHODS.index(HEADS) + 1, HEADS_BY_CHANCE)
BASELINES = [method for method in METHODS if method not in ("nothing", "SAE", *NULLS, *PROBES)]


@dataclass(frozen=True)
class Search:
    """How features are ranked: counts to try, and how many are clamped on how many pictures (`by_steerability`)."""

    counts: Sequence[int]
    n_candidates: int
    n_pictures: int


def ranked_settings(
    part: Part, runner: Runner, dictionaries: Mapping[str, Mapping[str, Dictionary]], search: Search
) -> list[Setting]:
    """Settings of each rule's first features at all sites, of their encoder directions, and of random active features.

    dictionaries: by site and name.
    """
    seen = feature_stats(part, runner, {site: list(some.values()) for site, some in dictionaries.items()})
    found = []
    for site, some in dictionaries.items():
        for (what, dictionary), one in zip(some.items(), seen[site], strict=True):
            most = max(search.counts), search.n_candidates, search.n_pictures
            for rule, ranking in rankings(part, runner, dictionary, site, one, *most).items():
                found += by_count(f"{what}: {rule}", site, dictionary, ranking, search.counts)
                if what == "SAE":
                    found += projections(rule, site, dictionary, ranking, search.counts)
            if what == "SAE":
                for draw, method in enumerate(FAMILIES[CHANCE]):
                    found += by_count(method, site, dictionary, at_random(one, most[0], draw), search.counts)
    return found


def linear_settings(part: Part, runner: Runner, sites: Sequence[str]) -> list[Setting]:
    """Settings that erase one linear direction, at every site and at the embedding.

    Empty where the spurious attribute has one value only, so that no direction separates two.
    """
    if len(np.unique(part.task.spurious)) < 2:
        return []
    rows = token_rows(part, runner, [*sites, "proj"])
    erasers = {"mean difference": mean_difference_eraser, "LEACE": leace_eraser}
    return [
        Setting(method, site, make(*rows[site]), (0,), exact=True) for site in rows for method, make in erasers.items()
    ]


def other_settings(
    part: Part, runner: Runner, saes: Mapping[str, SAE], counts: Sequence[int], gains: Sequence[float]
) -> list[Setting]:
    """Settings that need no ranking of features: linear erasers, label-free steering by each gain, ablated heads."""
    found = linear_settings(part, runner, list(saes)) + label_free_settings(part, runner, saes, gains)
    return found + head_settings(part, runner, counts)


def correct_with_probe(weights: Tensor, runner: Runner) -> Tensor:
    """Which pictures a linear classifier of the embeddings (C, E) gets right: (N,) bool."""
    return (normalize(runner.embeddings([()])[0], dim=-1) @ weights.T).argmax(1) == runner.truth


def correct_with_offset(offset: Tensor, runner: Runner) -> Tensor:
    """Which pictures are right with an offset (C,) of the zero-shot logits: (N,) bool."""
    return to_cpu((_logits(runner) + offset).argmax(1) == runner.truth)


def _logits(runner: Runner) -> Tensor:
    """Zero-shot logits of the model as it is: (N, C)."""
    return to_cpu(runner.zero_shot.logits(runner.embeddings([()])[0]))


def correct_with_prompts(runner: Runner) -> Tensor:
    """Which pictures are right with prompts that name the attribute: (N,) bool."""
    careful = NearestText(runner.encoder, runner.task, runner.task.attribute_prompts)
    return careful.predict(runner.embeddings([()])[0]) == runner.truth


@dataclass(frozen=True)
class Choice:
    """The settings chosen on the validation pictures of one task.

    before: of the unchanged model; selected: as `select_settings` returns it, from among `tried`; sites: of the
    dictionaries; anchors, probes: how tightly each of `PROBES` is held, and its weights (C, E); head_draws: draws of
    random heads.
    """

    runner: Runner
    before: Outcome
    selected: Mapping[tuple[str, str], Outcome]
    tried: Sequence[Setting]
    sites: Sequence[str]
    anchors: Mapping[str, float]
    probes: Mapping[str, Tensor]
    head_draws: int = 3

    @classmethod
    def with_probe(cls, selecting: tuple[Part, Runner], anchors: Sequence[float], runner: Runner, **rest) -> Choice:
        """Of the probes trained on selection pictures, those with the best worst group on validation pictures."""
        best, probes = {}, {}
        for name, trained in PROBES.items():
            weights = {value: trained(*selecting, value) for value in anchors}
            right = {value: correct_with_probe(one, runner) for value, one in weights.items()}
            best[name] = max(anchors, key=lambda value, right=right: worst_group(right[value], runner.group))
            probes[name] = weights[best[name]]
        return cls(runner, anchors=best, probes=probes, **rest)

    def sites_of(self, family: str) -> list[str]:
        """Sites at which a family is tried; heads of all blocks count as one."""
        if family == HEADS:
            return ["heads"]
        return [*self.sites, "proj"] if family in ("mean difference", "LEACE") else list(self.sites)

    def best(self, family: str, sites: Iterable[str]) -> Setting:
        """The setting of a family with the highest worst-group accuracy, `NOTHING` where none was selected."""
        keys = [(method, site) for site in sites for method in FAMILIES[family]]
        rows = [self.selected[key] for key in keys if key in self.selected]
        return max(rows, key=lambda one: self.worst(one.correct)).setting if rows else NOTHING

    @cached_property
    def correct(self) -> dict[str, Tensor]:
        """(N,) by method: which pictures are right with what was chosen for it."""
        found = {family: self.outcome(setting).correct for family, setting in self.chosen.items()}
        found |= {"nothing": self.before.correct, "prompts": correct_with_prompts(self.runner)}
        found |= {"offset": correct_with_offset(self.offset, self.runner)}
        return found | {name: correct_with_probe(one, self.runner) for name, one in self.probes.items()}

    @cached_property
    def offset(self) -> Tensor:
        """Offset (C,) of the zero-shot logits, of the unchanged model."""
        return best_offset(_logits(self.runner), self.runner.truth, self.runner.group)

    @cached_property
    def chosen(self) -> dict[str, Setting]:
        """The best setting of all sites, by family."""
        return {family: self.best(family, self.sites_of(family)) for family in FAMILIES}

    @cached_property
    def drawn(self) -> dict[str, Setting]:
        """As many random heads as were chosen, by draw; empty where none were."""
        heads = self.chosen[HEADS].features
        return {one.method: one for one in random_heads(self.runner.encoder, len(heads), self.head_draws)}

    @cached_property
    def by_layer(self) -> dict[tuple[str, str], Setting]:
        """The best setting, by family and site."""
        return {(family, site): self.best(family, [site]) for family in FAMILIES for site in self.sites_of(family)}

    @cached_property
    def best_baseline(self) -> str:
        """The best of `BASELINES` on validation pictures, which SAE features are compared with."""
        return max(BASELINES, key=lambda method: self.worst(self.correct[method]))

    def outcome(self, setting: Setting) -> Outcome:
        return self.selected.get(setting.key, self.before)

    def worst(self, correct: Tensor) -> float:
        """Worst-group accuracy."""
        return worst_group(correct, self.runner.group)

    def worst_of(self, method: str) -> int:
        """Which group is the worst with a method."""
        return group_accuracy.group_accuracy(self.correct[method], self.runner.group).worst_group

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
        """The probes and the best baseline, as text."""
        probes = {f"{name}'s anchor": f"{value:g}" for name, value in self.anchors.items()}
        probes |= {f"worst group, {name}": f"{self.worst(self.correct[name]):.1%}" for name in self.anchors}
        return probes | {
            "best baseline": self.best_baseline,
            "worst group, best baseline": f"{self.worst(self.correct[self.best_baseline]):.1%}",
        }

    def plan(self, deal: int, sizes: Sequence[int]) -> dict:
        """All choices that the test will evaluate, as JSON."""
        return {
            "deal": deal,
            "sizes": list(sizes),
            "chosen": {family: setting.plan() for family, setting in self.chosen.items()},
            "drawn": {method: setting.plan() for method, setting in self.drawn.items()},
            "by layer": {f"{family} at {site}": setting.plan() for (family, site), setting in self.by_layer.items()},
            **{f"{name}'s anchor": value for name, value in self.anchors.items()},
            "offset": self.offset.tolist(),
            "rival": self.best_baseline,
        }

    def curves(self, methods: Sequence[str], site: str) -> dict[str, list[tuple[int, float]]]:
        """(number of features, worst-group accuracy) of each method at a site, from 0 features on, at strength 1."""
        found = {method: [(0, self.worst(self.before.correct))] for method in methods}
        some = [one for one in self.tried if one.method in found and one.site == site]
        for setting, correct in zip(some, correct_under(some, self.runner), strict=True):
            found[setting.method].append((len(setting.features), self.worst(correct)))
        return found


def sample_of_each_group(task: Task, n: int = 8) -> list[int]:
    """Positions of n pictures, equally many from each group."""
    per_group = n // len(task.groups)
    return [int(i) for g in range(len(task.groups)) for i in np.flatnonzero(task.group == g)[:per_group]]
