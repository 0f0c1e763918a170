"""What the test of a task says about the choices that were laid down: accuracies, gains, losses, the bar."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from torch import Tensor

from experiments.disentanglement import group_accuracy
from experiments.disentanglement.choice import METHODS, Choice, right_with, right_with_prompts
from experiments.disentanglement.group_accuracy import GroupAccuracy
from experiments.disentanglement.protocol import Part, Task, dealt
from experiments.disentanglement.suppression import NOTHING, Outcome, Setting, Trials, outcomes, trials_of
from experiments.tables import MISSING, percent
from lib.encoders.encoder import Encoder
from lib.metrics.intervals import Interval

BAR = {"won": 0.15, "ordinary": -0.03, "more than neurons": 0.0}
"""Points of worst-group accuracy won, of ordinary accuracy lost, and won more than by neurons: set beforehand."""


@dataclass(frozen=True)
class Examination:
    """The test of one task: the outcome of each setting that was chosen, and what each method gets right.

    ordinary: the tasks about ordinary pictures; n: resamples behind an interval.
    """

    choice: Choice
    trials: Trials
    after: Mapping[Setting, Outcome]
    ordinary: Sequence[str]
    n: int = 2000

    @classmethod
    def of(cls, choice: Choice, part: Part, encoder: Encoder, ordinary: Iterable[str], n: int = 2000) -> Examination:
        """Runs every setting that was chosen once, on the test pictures and on those beside."""
        trials = trials_of(encoder, {part.task.name: part.task} | part.beside)
        own = trials.pop(part.task.name)
        once = list(dict.fromkeys([NOTHING, *choice.by_layer.values()]))
        return cls(choice, own, dict(zip(once, outcomes(once, own, trials), strict=True)), list(ordinary), n)

    @cached_property
    def correct(self) -> dict[str, Tensor]:
        """(N,) by method: which test pictures are right."""
        found = {family: self.after[setting].correct for family, setting in self.choice.chosen.items()}
        found |= {"nothing": self.after[NOTHING].correct, "probe": right_with(self.choice.probe, self.trials)}
        return found | {"prompts": right_with_prompts(self.trials)}

    @cached_property
    def scored(self) -> dict[str, GroupAccuracy]:
        return {method: self.accuracy(self.correct[method]) for method in METHODS}

    def accuracy(self, correct: Tensor) -> GroupAccuracy:
        return group_accuracy.group_accuracy(correct, self.trials.group)

    def gain(self, method: str) -> Interval:
        """Worst-group accuracy less that of the group that was worst on validation pictures before."""
        return self._change("nothing", method)

    def ahead_of(self, method: str) -> Interval:
        """Worst-group accuracy of SAE features less that of a method, whose worst group is told by validation."""
        return self._change(method, "SAE")

    def _change(self, before: str, after: str) -> Interval:
        rights = self.correct[before], self.correct[after]
        return group_accuracy.worst_group_change(*rights, self.trials.group, self.choice.worst_of(before), n=self.n)

    def lost(self, method: str) -> Interval:
        """Change of mean zero-shot accuracy on ordinary test pictures; none where the model stays as it was."""
        setting = self.choice.chosen.get(method)
        return Interval(0.0) if setting is None else self._ordinary(setting)

    def _ordinary(self, setting: Setting) -> Interval:
        before, after = (self.after[one].mean_beside(self.ordinary) for one in (NOTHING, setting))
        return group_accuracy.accuracy_change(before, after, n=self.n)

    def row(self, method: str) -> dict[str, str]:
        """A row of the table of methods, in per cent."""
        setting, score = self.choice.chosen.get(method), self.scored[method]
        where = f"{setting.site}, {len(setting.features)}" if setting and setting.features else MISSING
        return {
            "method": method,
            "where, features": where,
            "average": percent(score.average),
            "worst group": percent(score.worst),
            "gain": percent(self.gain(method), "+"),
            "ordinary": percent(self.lost(method), "+"),
        }

    def at_layer(self, family: str, site: str) -> dict:
        """Accuracies with what was chosen for one site, and what it costs ordinary pictures."""
        setting = self.choice.by_layer[family, site]
        score = self.accuracy(self.after[setting].correct)
        groups = dict(zip(self.trials.task.groups, score.per_group, strict=True))
        row = {"family": family, "site": site, "features": len(setting.features), "average": score.average}
        return row | {"worst group": score.worst, "groups": groups, "ordinary": self._ordinary(setting)}

    def bar(self) -> tuple[Interval, Interval, Interval]:
        """What `BAR` limits."""
        return self.gain("SAE"), self.lost("SAE"), self.ahead_of("neurons")

    def reading(self) -> dict[str, dict[str, Interval]]:
        """By family the share of signs that are still read, its change, and the accuracy beside a wrong word."""
        wrong = self.trials.task.groups.index("wrong word")
        settings = {"nothing": NOTHING} | self.choice.chosen
        right = {family: self.after[setting].beside["reading"] for family, setting in settings.items()}
        return {
            family: {
                "signs read": group_accuracy.proportion(read),
                "change": group_accuracy.accuracy_change(right["nothing"], read, n=self.n),
                "beside a wrong word": self.scored[family].per_group[wrong],
            }
            for family, read in right.items()
        }

    @property
    def told(self) -> str:
        """The result in a sentence."""
        setting = self.choice.chosen["SAE"]
        rule = setting.method.partition(": ")[2]
        what = f"{len(setting.features)} features at `{setting.site}` ({rule})"
        worst = {method: f"{score.worst.value:.0%}" for method, score in self.scored.items()}
        return (
            f"{what if setting.site else 'no layer helped: none'} move worst-group accuracy from {worst['nothing']} to "
            f"{worst['SAE']}, neurons to {worst['neurons']}, LEACE to {worst['LEACE']}, prompts to {worst['prompts']}; "
            f"the probe reaches {worst['probe']}. Ordinary accuracy: {percent(self.lost('SAE'), '+')} points."
        )


def verdict(interval: Interval, least: float) -> str:
    """Whether a figure meets its bar, and whether its whole interval does; a bar of zero must be passed."""
    met = "met" if interval.value >= least and (least or interval.value > 0) else "missed"
    sure = interval.low is None or (interval.low >= least) == (interval.high >= least)
    return f"{percent(interval, '+')}: {met}{'' if sure else ', unsure'}"


def verdicts(exams: Mapping[str, Examination]) -> dict[str, dict[str, str]]:
    """By task whether each bar was met."""
    titles = [f"{what} ({100 * least:+g})" if least else f"{what} (+)" for what, least in BAR.items()]
    return {
        name: dict(zip(titles, map(verdict, exam.bar(), BAR.values()), strict=True)) for name, exam in exams.items()
    }


def layer_row(row: Mapping) -> dict:
    """A row of `at_layer` as text, the groups in one cell."""
    groups = "; ".join(f"{group} {percent(interval)}" for group, interval in row["groups"].items())
    told = {what: percent(row[what]) for what in ("average", "worst group")}
    return dict(row) | told | {"groups": groups, "ordinary": percent(row["ordinary"], "+")}


def probe_told(exams: Mapping[str, Examination]) -> str:
    """Whether the probe, meant as an upper bound, is one."""
    above, below = [], []
    for name, exam in exams.items():
        best = max(exam.scored[method].worst.value for method in METHODS if method != "probe")
        (above if exam.scored["probe"].worst.value > best else below).append(name)
    return (
        "The probe was meant as an upper bound. Its worst group lies above that of every other method on "
        f"**{', '.join(above) or 'no task'}**" + (f", and does not on **{', '.join(below)}**." if below else ".")
    )


def middle_layers(best_site: Mapping[str, str | None], depth: Mapping[str, float]) -> tuple[list[bool], str]:
    """Whether each chosen site is a middle one, and what is to be said; depth: of the sites that were tried, 0 to 1.

    The middle is the half of the layers between 25 % and 75 % of the depth. Where no layer helped, none was chosen.
    """
    middle = {site: 0.25 <= at <= 0.75 for site, at in depth.items()}
    chosen = [middle[site] for site in best_site.values() if site]
    told = [
        f"{name}: `{site}`, at {depth[site]:.0%} of the depth" if site else f"{name}: no layer helped"
        for name, site in best_site.items()
    ]
    tried = f"{np.mean(list(middle.values())):.0%} of those that were tried"
    share = f"**{np.mean(chosen):.0%}** of the chosen layers are middle ones, as are " if chosen else ""
    return chosen, (
        "The layer that validation chose for SAE features: " + "; ".join(told) + '. "Middle" was fixed beforehand as '
        f"the half of the layers between 25 % and 75 % of the depth: {share}{tried}."
    )


def seen_before(task: Task, sizes: Sequence[int], deal: int, earlier: Sequence[int]) -> float:
    """Share of a task's test pictures whose scene an earlier test had, when every picture was dealt for itself."""
    alone, scene = replace(task, scene=None), task.scene
    opened = np.concatenate([scene[dealt(alone, sizes, other)[2]] for other in earlier])
    return float(np.isin(scene[dealt(task, sizes, deal)[2]], opened).mean())


def earlier_told(shares: Mapping[str, float]) -> str:
    """What is to be said of tests that were opened before; shares: of `seen_before`, by task."""
    if not shares:
        return "No test of these pictures was opened before this one."
    return (
        "**This is not the first deal.** Tests of earlier ones were seen. The last was given up after an audit: a\n"
        "picture with a sticker could be in the test, the same one without it where features were chosen; probe and "
        "rival were\nsettled after the test was opened. Scenes are now dealt whole, and all is laid down. Rules, grids "
        "and bars stayed, but\nthe pictures are partly the same. Share of test pictures whose scene was in an earlier "
        f"test: {'; '.join(f'{name}: {share:.0%}' for name, share in shares.items())}."
    )
