"""Results of registered choices on the test pictures of a task: accuracies, gains, losses, and the bar."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from experiments.disentanglement import group_accuracy
from experiments.disentanglement.attention_heads import HEADS, HEADS_BY_CHANCE
from experiments.disentanglement.choice import (
    CHANCE,
    METHODS,
    NULLS,
    PROBES,
    Choice,
    correct_with_offset,
    correct_with_probe,
    correct_with_prompts,
)
from experiments.disentanglement.group_accuracy import GroupAccuracy, accuracy_over_draws, over_draws
from experiments.disentanglement.protocol import Part, Task, split_scenes
from experiments.disentanglement.suppression import NOTHING, Outcome, Runner, Setting, outcomes, runners_of
from experiments.tables import MISSING, percent
from lib.encoders.encoder import Encoder
from lib.metrics.intervals import Interval

BAR = {"won": 0.15, "ordinary": -0.03, "more than neurons": 0.0}
"""Preset minimum of: worst-group accuracy gained, change of ordinary accuracy, gain above that of neurons."""

READING = "reading"
"""The other task that asks for the words on signs."""

PRICES = ("not misled", "other tasks", "ordinary", "signs read")
"""What `Examination.price` asks, in the order of the tables."""


@dataclass(frozen=True)
class Examination:
    """The chosen settings on the test pictures of one task.

    after: outcome of each setting; ordinary: names of the tasks on ordinary pictures; n: resamples of an interval.
    """

    choice: Choice
    runner: Runner
    after: Mapping[Setting, Outcome]
    ordinary: Sequence[str]
    n: int = 2000

    @classmethod
    def of(cls, choice: Choice, part: Part, encoder: Encoder, ordinary: Iterable[str], n: int = 2000) -> Examination:
        """Run every chosen setting once, on the test pictures and on those of the other tasks."""
        runner = runners_of(encoder, {part.task.name: part.task} | part.beside)
        own = runner.pop(part.task.name)
        once = list(dict.fromkeys([NOTHING, *choice.by_layer.values(), *choice.drawn.values()]))
        return cls(choice, own, dict(zip(once, outcomes(once, own, runner), strict=True)), list(ordinary), n)

    @cached_property
    def settings(self) -> dict[str, Setting]:
        """What was run, by family, and by draw of random heads."""
        return self.choice.chosen | self.choice.drawn

    def draws(self, method: str) -> list[str]:
        """The names that a method was run under: its own, or those of the draws of random heads."""
        return (list(self.choice.drawn) or ["nothing"]) if method == HEADS_BY_CHANCE else [method]

    @cached_property
    def correct(self) -> dict[str, Tensor]:
        """(N,) by method and draw: which test pictures are right."""
        found = {name: self.after[setting].correct for name, setting in self.settings.items()}
        found |= {name: correct_with_probe(one, self.runner) for name, one in self.choice.probes.items()}
        found |= {"nothing": self.after[NOTHING].correct}
        found |= {"offset": correct_with_offset(self.choice.offset, self.runner)}
        return found | {"prompts": correct_with_prompts(self.runner)}

    @cached_property
    def scored(self) -> dict[str, GroupAccuracy]:
        """By method; of draws, the mean and the range."""
        each = {method: [self.accuracy(self.correct[one]) for one in self.draws(method)] for method in METHODS}
        return {method: accuracy_over_draws(some) for method, some in each.items()}

    def accuracy(self, correct: Tensor) -> GroupAccuracy:
        return group_accuracy.group_accuracy(correct, self.runner.group)

    def gain(self, method: str) -> Interval:
        """Worst-group accuracy minus that of the unchanged model on the group that was worst in validation."""
        return over_draws([self._change("nothing", one) for one in self.draws(method)])

    def ahead_of(self, method: str) -> Interval:
        """Worst-group accuracy of SAE features minus that of a method; validation says which group is its worst."""
        return self._change(method, "SAE")

    def _change(self, before: str, after: str) -> Interval:
        rights = self.correct[before], self.correct[after]
        return group_accuracy.worst_group_change(*rights, self.runner.group, self.choice.worst_of(before), n=self.n)

    def lost(self, method: str) -> Interval:
        """Change of mean zero-shot accuracy on ordinary test pictures; 0 where the model is unchanged."""
        setting = self.settings.get(method)
        return Interval(0.0) if setting is None else self._ordinary(setting)

    def _ordinary(self, setting: Setting) -> Interval:
        before, after = (self.after[one].mean_beside(self.ordinary) for one in (NOTHING, setting))
        return group_accuracy.accuracy_change(before, after, n=self.n)

    def price(self, method: str) -> dict[str, Interval]:
        """Collateral damage: change of accuracy by what is asked elsewhere; only what was asked is there.

        not misled: the task's own pictures whose attribute suggests no wrong class; other tasks: their test pictures;
        ordinary: see `lost`; signs read: words on signs. All but the first are 0 where the model is unchanged.
        """
        prices = [self._price(one) for one in self.draws(method)]
        return {what: over_draws([price[what] for price in prices]) for what in prices[0]}

    def highest_price(self, method: str) -> tuple[str, Interval]:
        """Where accuracy falls most with a method, of `price`, and its change there."""
        return min(self.price(method).items(), key=lambda item: item[1].value)

    def _price(self, method: str) -> dict[str, Interval]:
        setting, beside = self.settings.get(method), self.after[NOTHING].beside
        misled = (self.runner.suggested >= 0) & (self.runner.suggested != self.runner.truth)
        found = {"ordinary": self.lost(method)}
        if (~misled).any():
            rights = (self.correct[one][~misled] for one in ("nothing", method))
            found["not misled"] = group_accuracy.accuracy_change(*rights, n=self.n)
        others = {name for name in beside if name not in self.ordinary and name != READING}
        for what, names in {"other tasks": sorted(others), "signs read": sorted(beside.keys() & {READING})}.items():
            if names and setting is None:
                found[what] = Interval(0.0)
            elif names:
                pair = (torch.cat([self.after[one].beside[name] for name in names]) for one in (NOTHING, setting))
                found[what] = group_accuracy.accuracy_change(*pair, n=self.n)
        return found

    def row(self, method: str) -> dict[str, str]:
        """A row of the table of methods, in per cent: what it gains, and what it costs elsewhere."""
        draws, score, price = self.draws(method), self.scored[method], self.price(method)
        setting = self.settings.get(draws[0])
        where = f"{setting.site}, {len(setting.features)}" if setting and setting.features else MISSING
        where += f", {len(draws)} draws" if len(draws) > 1 else ""
        return {
            "method": method,
            "where, features": where,
            "average": percent(score.average),
            "worst group": percent(score.worst),
            "gain": percent(self.gain(method), "+"),
            **{what: percent(price[what], "+") if what in price else MISSING for what in PRICES},
        }

    def at_layer(self, family: str, site: str) -> dict:
        """Accuracies with the setting chosen for one site, and the change of ordinary accuracy."""
        setting = self.choice.by_layer[family, site]
        score = self.accuracy(self.after[setting].correct)
        groups = dict(zip(self.runner.task.groups, score.per_group, strict=True))
        row = {"family": family, "site": site, "features": len(setting.features), "average": score.average}
        return row | {"worst group": score.worst, "groups": groups, "ordinary": self._ordinary(setting)}

    def bar(self) -> tuple[Interval, Interval, Interval]:
        """The quantities that `BAR` bounds, in its order."""
        return self.gain("SAE"), self.lost("SAE"), self.ahead_of("neurons")

    def reading(self) -> dict[str, dict[str, Interval]]:
        """Accuracy of reading signs, its change, and accuracy on pictures with a wrong word, by family."""
        wrong = self.runner.task.groups.index("wrong word")
        settings = {"nothing": NOTHING} | self.choice.chosen
        right = {family: self.after[setting].beside[READING] for family, setting in settings.items()}
        return {
            family: {
                "signs read": group_accuracy.proportion(read),
                "change": group_accuracy.accuracy_change(right["nothing"], read, n=self.n),
                "beside a wrong word": self.scored[family].per_group[wrong],
            }
            for family, read in right.items()
        }

    @property
    def description(self) -> str:
        """The result in a few sentences: what features gain, what the other methods reach, and what both cost."""
        setting = self.choice.chosen["SAE"]
        rule = setting.method.partition(": ")[2]
        what = f"{len(setting.features)} features at `{setting.site}` ({rule})"
        worst = {method: f"{score.worst.value:.0%}" for method, score in self.scored.items()}
        others = [method for method in METHODS if method not in ("nothing", "SAE", *NULLS)]
        others.sort(key=lambda method: -self.scored[method].worst.value)
        best = self.choice.best_baseline
        return (
            f"{what if setting.site else 'no layer helped: none'} move worst-group accuracy from {worst['nothing']} to "
            f"{worst['SAE']}, as many random choices of features to {worst[CHANCE]}.{self._heads_in_words()} The other "
            f"methods reach {', '.join(f'{worst[method]} ({method})' for method in others)}. Price of the features, as "
            f"changes of accuracy elsewhere, in points: {self._price_in_words('SAE')}. Price of the best other defence "
            f"on validation pictures, {best}: {self._price_in_words(best)}."
        )

    def _heads_in_words(self) -> str:
        """What ablated heads reach beside as many random ones; empty where no heads were chosen."""
        if not (draws := len(self.choice.drawn)):
            return ""
        n, chosen, drawn = (
            len(self.choice.chosen[HEADS].features),
            self.scored[HEADS].worst,
            self.scored[HEADS_BY_CHANCE].worst,
        )
        spread = f", {drawn.low:.0%} to {drawn.high:.0%}" if draws > 1 else ""
        return (
            f" Ablating {n} attention heads moves it to {chosen.value:.0%}, as many random ones to {drawn.value:.0%} "
            f"(draws: {draws}{spread})."
        )

    def _price_in_words(self, method: str) -> str:
        price = self.price(method)
        words = [f"{what} {percent(price[what], '+')}" for what in PRICES if what in price]
        if READING in self.after[NOTHING].beside:
            settings = NOTHING, self.choice.chosen.get(method) or NOTHING
            before, after = (float(self.after[one].beside[READING].double().mean()) for one in settings)
            words[-1] += f" (from {before:.1%} to {after:.1%})"
        return ", ".join(words)


def others(tasks: Mapping[str, Task], name: str, size: int) -> dict[str, tuple[Task, list[int]]]:
    """The other tasks, as a `Protocol` takes them beside the task of this name: `size` pictures, with the test only."""
    return {other: (task, [0, 0, size]) for other, task in tasks.items() if other != name and size}


def verdict(interval: Interval, least: float) -> str:
    """Whether a value meets its bar, and whether its whole interval agrees; a bar of zero must be exceeded."""
    met = "met" if interval.value >= least and (least or interval.value > 0) else "missed"
    sure = interval.low is None or (interval.low >= least) == (interval.high >= least)
    return f"{percent(interval, '+')}: {met}{'' if sure else ', unsure'}"


def verdicts(exams: Mapping[str, Examination]) -> dict[str, dict[str, str]]:
    """Whether each bar was met, by task."""
    titles = [f"{what} ({100 * least:+g})" if least else f"{what} (+)" for what, least in BAR.items()]
    return {
        name: dict(zip(titles, map(verdict, exam.bar(), BAR.values()), strict=True)) for name, exam in exams.items()
    }


def layer_row(row: Mapping) -> dict:
    """A row of `at_layer` as text, the groups in one cell."""
    groups = "; ".join(f"{group} {percent(interval)}" for group, interval in row["groups"].items())
    figures = {what: percent(row[what]) for what in ("average", "worst group")}
    return dict(row) | figures | {"groups": groups, "ordinary": percent(row["ordinary"], "+")}


def describe_probe(exams: Mapping[str, Examination]) -> str:
    """Whether the probe is the upper bound it was meant to be, as text."""
    above, below = [], []
    for name, exam in exams.items():
        best = max(exam.scored[method].worst.value for method in METHODS if method not in PROBES)
        (above if exam.scored["probe"].worst.value > best else below).append(name)
    return (
        "The probe was meant as an upper bound. Its worst group lies above that of every other method on "
        f"**{', '.join(above) or 'no task'}**" + (f", and does not on **{', '.join(below)}**." if below else ".")
    )


def middle_layers(best_site: Mapping[str, str | None], depth: Mapping[str, float]) -> tuple[list[bool], str]:
    """Whether each chosen site is a middle one, and the result as text; depth: of the sites tried, 0 to 1.

    The middle is the half of the layers between 25 % and 75 % of the depth. Where no layer helped, none was chosen.
    """
    middle = {site: 0.25 <= at <= 0.75 for site, at in depth.items()}
    chosen = [middle[site] for site in best_site.values() if site]
    description = [
        f"{name}: `{site}`, at {depth[site]:.0%} of the depth" if site else f"{name}: no layer helped"
        for name, site in best_site.items()
    ]
    tried = f"{np.mean(list(middle.values())):.0%} of those that were tried"
    share = f"**{np.mean(chosen):.0%}** of the chosen layers are middle ones, as are " if chosen else ""
    return chosen, (
        "The layer that validation chose for SAE features: "
        + "; ".join(description)
        + '. "Middle" was fixed beforehand as '
        f"the half of the layers between 25 % and 75 % of the depth: {share}{tried}."
    )


def seen_before(task: Task, sizes: Sequence[int], deal: int, earlier: Sequence[int]) -> float:
    """Share of a task's test pictures whose scene was in an earlier test, when pictures were split one by one."""
    alone, scene = replace(task, scene=None), task.scene
    opened = np.concatenate([scene[split_scenes(alone, sizes, other)[2]] for other in earlier])
    return float(np.isin(scene[split_scenes(task, sizes, deal)[2]], opened).mean())


def describe_earlier_tests(shares: Mapping[str, float]) -> str:
    """A note on tests that were opened before; shares: of `seen_before`, by task."""
    if not shares:
        return "No test of these pictures was opened before this one."
    return (
        "**This is not the first split.** Tests of earlier ones were seen. The last was dropped after an audit: a\n"
        "picture with a sticker could be in the test and the same one without it in the selection part; probe and best "
        "baseline\nwere chosen after the test was opened. Scenes now stay in one part, and all choices are registered. "
        "Rules, grids and bars\nare the same, and some of the pictures. Share of test pictures whose scene was in an "
        f"earlier test: {'; '.join(f'{name}: {share:.0%}' for name, share in shares.items())}."
    )
