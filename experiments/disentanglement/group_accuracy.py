"""Accuracy by group of pictures and of the worst group, and their changes (ours).

Groups are combinations of a class and a spurious attribute (Sagawa et al. 2020, arXiv 1911.08731): a model that relies
on the attribute fails where it contradicts the class. Arguments: `correct` (N,) bool and `group` (N,) int, 0 to G - 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import binomtest
from torch import Tensor

from lib.devices import metric
from lib.metrics.intervals import Interval, bootstrap


@dataclass(frozen=True)
class GroupAccuracy:
    """Accuracy of each group (G,), of all pictures, and of the worst group, with intervals."""

    per_group: tuple[Interval, ...]
    average: Interval
    worst: Interval

    @property
    def worst_group(self) -> int:
        """Which group has the lowest accuracy, the first of several."""
        return min(range(len(self.per_group)), key=lambda g: self.per_group[g].value)


@metric(on="cpu")
def proportion(right: Tensor, level: float = 0.95) -> Interval:
    """Share of true values (n,) with Wilson's score interval, which stays in [0, 1] and has a width at 0 and at 1."""
    n = len(right)
    if n == 0:
        return Interval(math.nan)
    found = binomtest(int(right.bool().sum()), n)
    bounds = found.proportion_ci(level, method="wilson")
    return Interval(float(found.statistic), float(bounds.low), float(bounds.high))


@metric(on="cpu")
def group_accuracy(correct: Tensor, group: Tensor, n_groups: int | None = None, level: float = 0.95) -> GroupAccuracy:
    """Accuracy by group, on average over all pictures, and of the worst group.

    The worst group's interval is simultaneous: each group's bounds are drawn at level 1 - (1 - level) / G (Bonferroni),
    and the least lower and the least upper bound enclose the least accuracy, whichever group has it. A bootstrap is
    biased here: a resample's minimum lies below the sample's. Raises ValueError for a group without a picture.
    """
    correct, group = _checked(correct, group)
    n_groups = int(group.max()) + 1 if n_groups is None else n_groups
    parts = [correct[group == g] for g in range(n_groups)]
    if empty := [g for g, part in enumerate(parts) if not len(part)]:
        raise ValueError(f"group {empty[0]} has no picture: leave it out, or draw more pictures")
    strict = [proportion(part, 1 - (1 - level) / n_groups) for part in parts]
    worst = Interval(*(min(bound) for bound in zip(*strict, strict=True)))
    return GroupAccuracy(tuple(proportion(part, level) for part in parts), proportion(correct, level), worst)


@metric(on="cpu")
def accuracy_change(before: Tensor, after: Tensor, n: int = 2000, level: float = 0.95) -> Interval:
    """Accuracy after minus before on the same pictures (N,), by a paired bootstrap. Raises ValueError for shapes."""
    if before.shape != after.shape or before.ndim != 1:
        raise ValueError(
            f"before {tuple(before.shape)} and after {tuple(after.shape)} must be (N,), of the same pictures"
        )
    return bootstrap(lambda x: x.mean(1), after.double() - before.double(), n=n, level=level)


@metric(on="cpu")
def worst_group_change(
    before: Tensor, after: Tensor, group: Tensor, worst: int, n: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Worst-group accuracy after, less that of group `worst` before, on the same pictures (N,).

    `worst` is the group that was worst before *on other pictures*: the lowest of the same pictures is biased down,
    and the change up. The accuracy of each group after is compared with that of `worst` before, paired where it is
    the same group; the least of the differences is the change, and the least of their bounds, each at level
    1 - (1 - level) / G, enclose it.
    """
    before, group = _checked(before, group)
    after, _ = _checked(after, group)
    n_groups = int(group.max()) + 1
    level, start = 1 - (1 - level) / n_groups, before[group == worst].double()
    found = []
    for g in range(n_groups):
        end = after[group == g].double()
        if g == worst:
            found.append(bootstrap(lambda x: x.mean(1), end - start, n=n, level=level, seed=seed))
        else:
            found.append(bootstrap(lambda x, y: x.mean(1) - y.mean(1), end, start, n=n, level=level, seed=seed))
    if any(None in interval for interval in found):
        return Interval(min(interval.value for interval in found))
    return Interval(*(min(bound) for bound in zip(*found, strict=True)))


def over_draws(found: Sequence[Interval]) -> Interval:
    """Mean, least and largest value over random draws; the interval itself where there is one."""
    values = [one.value for one in found]
    return Interval(sum(values) / len(values), min(values), max(values)) if len(found) > 1 else found[0]


def accuracy_over_draws(found: Sequence[GroupAccuracy]) -> GroupAccuracy:
    """`over_draws` of every figure."""
    groups = zip(*(one.per_group for one in found), strict=True)
    average, worst = ([getattr(one, name) for one in found] for name in ("average", "worst"))
    return GroupAccuracy(tuple(map(over_draws, groups)), over_draws(average), over_draws(worst))


def _checked(correct: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    correct, group = correct.bool(), group.long()
    if correct.ndim != 1 or correct.shape != group.shape or not len(group):
        raise ValueError(
            f"correct {tuple(correct.shape)} and group {tuple(group.shape)} must be (N,), one for each picture"
        )
    if int(group.min()) < 0:
        raise ValueError("group must be integers from 0 on, got a negative one")
    return correct, group
