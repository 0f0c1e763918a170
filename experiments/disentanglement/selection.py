"""Selection of how many features are suppressed and how strongly, on validation pictures (ours: papers.md 2.6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from experiments.disentanglement.protocol import Part
from experiments.disentanglement.suppression import (
    NOTHING,
    Outcome,
    Runner,
    Setting,
    correct_beside,
    correct_under,
    outcomes,
    worst_group,
)

Key = tuple[str, str | None]


class Contest:
    """Settings on N validation pictures, of which the best that costs ordinary pictures little enough wins.

    What cannot win is not run to its end: a setting meets the group first that is worst in the unchanged model
    (`nothing`); the other groups only if it is better there than what it must beat; ordinary pictures, the best
    settings first, until one costs at most `most_lost` of their mean accuracy.
    """

    def __init__(self, runner: Runner, ordinary: Mapping[str, Runner], most_lost: float):
        self.runner, self.ordinary = runner, ordinary
        (self.nothing,) = outcomes([NOTHING], runner, ordinary)
        self.least = self.nothing.mean_beside(ordinary).mean() - most_lost - 1e-9
        groups = runner.group.unique().tolist()
        hardest = min(groups, key=lambda group: float(self.nothing.correct[runner.group == group].double().mean()))
        self.first, self.rest = (which.nonzero()[:, 0] for which in (runner.group == hardest, runner.group != hardest))
        self.runners = [runner.subset(some.tolist()) for some in (self.first, self.rest)]

    def winners(self, some: Sequence[Setting], holders: Mapping[Key, Outcome]) -> dict[Key, Outcome]:
        """For each method and site the best of its settings, or the holder where none beats its worst group.

        Of equals, the one with fewest features wins.
        """
        bars = {key: worst_group(one.correct, self.runner.group) for key, one in holders.items()}
        some, correct = self._above(some, bars)
        waiting: dict[Key, list[tuple[Setting, Tensor]]] = {}
        ranks = [
            (-worst_group(row, self.runner.group), len(one.features)) for one, row in zip(some, correct, strict=True)
        ]
        for i in sorted(range(len(some)), key=ranks.__getitem__):
            waiting.setdefault(some[i].key, []).append((some[i], correct[i]))
        found = dict(holders)
        while waiting:
            best = [queue[0] for queue in waiting.values()]
            beside = correct_beside([setting for setting, _ in best], self.ordinary)
            for (setting, row), right in zip(best, beside, strict=True):
                outcome = Outcome(setting, row, right)
                if outcome.mean_beside(self.ordinary).mean() >= self.least:
                    found[setting.key] = outcome
                    del waiting[setting.key]
            waiting = {key: queue[1:] for key, queue in waiting.items() if queue[1:]}
        return found

    def _above(self, some: Sequence[Setting], bars: Mapping[Key, float]) -> tuple[list[Setting], Tensor]:
        """The settings whose worst group is above the bar of their key, and which pictures each gets right: (S, N)."""
        on_first = correct_under(some, self.runners[0])
        promising = [i for i, one in enumerate(some) if float(on_first[i].double().mean()) > bars[one.key]]
        some, correct = [some[i] for i in promising], torch.zeros(len(promising), len(self.runner), dtype=torch.bool)
        correct[:, self.first] = on_first[promising]
        if len(self.rest):
            correct[:, self.rest] = correct_under(some, self.runners[1])
        above = [i for i, one in enumerate(some) if worst_group(correct[i], self.runner.group) > bars[one.key]]
        return [some[i] for i in above], correct[above]


def select_settings(
    part: Part,
    some: Sequence[Setting],
    runner: Runner,
    ordinary: Mapping[str, Runner],
    most_lost: float,
    strengths: Sequence[float] = (),
) -> dict[Key, Outcome]:
    """Select number and strength for each method and site on validation pictures.

    First the number of features, at zero; then the strength for that number, unless exact. The setting of the highest
    worst-group accuracy is selected, among those that cost ordinary pictures at most `most_lost` of their mean accuracy
    and the unchanged model (`NOTHING`); of equals, the one with fewest features. Raises ProtocolError for
    other than validation pictures.
    """
    part.only_for("validation")
    contest = Contest(runner, ordinary, most_lost)
    selected = contest.winners(some, {one.key: contest.nothing for one in some})
    chosen = [one.setting for one in selected.values() if one.setting.features and not one.setting.exact]
    stronger = [replace(setting, strength=strength) for setting in chosen for strength in strengths]
    return contest.winners(stronger, selected)
