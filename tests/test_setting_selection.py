"""What validation prefers, against trying everything on every picture; and what it leaves out because it cannot win."""

from dataclasses import replace

import pytest
import torch

from experiments.disentanglement import selection
from experiments.disentanglement.protocol import Part
from experiments.disentanglement.selection import select_settings
from experiments.disentanglement.suppression import NOTHING, Outcome, Setting, by_count, worst_group
from steering.interventions import Neurons

SITE = "6.resid_post"


class Pictures:
    """Made-up outcomes on N pictures in groups: which are right under a setting, and how many were asked."""

    def __init__(self, group, given, indices=None, asked=None):
        self.all_groups, self.given, self.asked = group, given, [] if asked is None else asked
        self.indices = torch.arange(len(group)) if indices is None else torch.tensor(indices, dtype=torch.long)
        self.group = group[self.indices]

    def __len__(self):
        return len(self.indices)

    def subset(self, indices):
        return Pictures(self.all_groups, self.given, indices, self.asked)

    def correct(self, some):
        self.asked += [(one, len(self)) for one in some]
        rows = [self.given[one.method, len(one.features), one.strength] for one in some]
        return torch.stack(rows)[:, self.indices] if rows else torch.zeros(0, len(self), dtype=torch.bool)


@pytest.fixture(autouse=True)
def no_model(monkeypatch):
    def outcomes(some, runner, ordinary):
        pairs = zip(some, runner.correct(some), beside(some, ordinary), strict=True)
        return [Outcome(*one) for one in pairs]

    def beside(some, ordinary):
        right = {name: other.correct(some) for name, other in ordinary.items()}
        return [{name: rows[i] for name, rows in right.items()} for i in range(len(some))]

    monkeypatch.setattr(selection, "outcomes", outcomes)
    monkeypatch.setattr(selection, "correct_under", lambda some, runner: runner.correct(some))
    monkeypatch.setattr(selection, "correct_beside", beside)


@pytest.fixture
def chosen():
    """Number and strength that are chosen, given (share of the task right, share of ordinary pictures right)."""

    def run(gives: dict, most_lost: float = 0.02, strengths=(), exact=False):
        shares = {(method, *one): pair for one, pair in gives.items() for method in ("rule", "nothing")}
        tables = [{one: torch.arange(100) < 100 * pair[i] for one, pair in shares.items()} for i in (0, 1)]
        task, species = (Pictures(torch.zeros(100, dtype=torch.long), table) for table in tables)
        some = [replace(one, exact=exact) for one in by_count("rule", SITE, Neurons(8), range(8), (1, 4))]
        found = select_settings(Part("validation", None), some, task, {"species": species}, most_lost, strengths)
        setting = found["rule", SITE].setting
        return len(setting.features), setting.strength

    return run


def test_the_best_worst_group_wins(chosen):
    assert chosen({(0, 1): (0.2, 0.9), (1, 1): (0.5, 0.9), (4, 1): (0.6, 0.9)}) == (4, 1)


def test_unless_it_costs_too_much_elsewhere(chosen):
    assert chosen({(0, 1): (0.2, 0.9), (1, 1): (0.5, 0.88), (4, 1): (0.6, 0.85)}) == (1, 1)


def test_of_equals_the_one_with_fewer_features(chosen):
    assert chosen({(0, 1): (0.2, 0.9), (1, 1): (0.6, 0.9), (4, 1): (0.6, 0.9)}) == (1, 1)


def test_nothing_at_all_may_be_best(chosen):
    assert chosen({(0, 1): (0.7, 0.9), (1, 1): (0.5, 0.9), (4, 1): (0.6, 0.9)}) == (0, 1)


def test_nothing_lies_at_no_layer():
    assert NOTHING.plan() == {"method": "nothing", "site": None, "features": [], "strength": 1.0}


def test_the_strength_is_tried_for_that_number_alone(chosen):
    gives = {(0, 1): (0.2, 0.9), (1, 1): (0.5, 0.9), (4, 1): (0.6, 0.9), (4, 2): (0.7, 0.9)}
    assert chosen(gives, strengths=(2,)) == (4, 2)


def test_a_linear_eraser_keeps_the_strength_that_defines_it(chosen):
    gives = {(0, 1): (0.2, 0.9), (1, 1): (0.5, 0.9), (4, 1): (0.6, 0.9), (4, 2): (0.7, 0.9)}
    assert chosen(gives, strengths=(2,), exact=True) == (4, 1)


def test_a_strength_that_breaks_too_much_is_not_taken(chosen):
    gives = {(0, 1): (0.2, 0.9), (1, 1): (0.5, 0.9), (4, 1): (0.6, 0.9), (4, 2): (0.7, 0.5)}
    assert chosen(gives, strengths=(2,)) == (4, 1)


METHODS, COUNTS, STRENGTHS = ("a", "b", "c"), (1, 2, 4), (1.5, 2.0)


def drawn(seed: int) -> tuple[list[Setting], Pictures, dict[str, Pictures]]:
    """Settings of three methods, and outcomes by chance on 24 pictures in three groups and 20 ordinary pictures."""
    generator = torch.Generator().manual_seed(seed)
    some = [one for method in METHODS for one in by_count(method, SITE, Neurons(8), range(8), COUNTS)]
    keys = [(method, n, strength) for method in METHODS for n in COUNTS for strength in (1.0, *STRENGTHS)]
    keys.append(("nothing", 0, 1.0))
    tables = [
        {key: torch.rand(n, generator=generator) < torch.rand((), generator=generator) for key in keys}
        for n in (24, 20, 20)
    ]
    task = Pictures(torch.arange(24) % 3, tables[0])
    ordinary = {
        name: Pictures(torch.zeros(20), one) for name, one in zip(("species", "habitat"), tables[1:], strict=True)
    }
    return some, task, ordinary


def by_trying_everything(some, task, ordinary, most_lost) -> dict:
    """The definition: every setting on every picture, then the best that may be had."""

    def price(one):
        return torch.stack([other.correct([one])[0].double() for other in ordinary.values()]).mean()

    def best(candidates):
        allowed = [one for one in candidates if one is NOTHING or price(one) >= price(NOTHING) - most_lost - 1e-9]
        return max(allowed, key=lambda one: (worst_group(task.correct([one])[0], task.group), -len(one.features)))

    found = {}
    for key in dict.fromkeys(one.key for one in some):
        first = best([NOTHING, *(one for one in some if one.key == key)])
        stronger = [] if first is NOTHING else [replace(first, strength=strength) for strength in STRENGTHS]
        found[key] = best([NOTHING, first, *stronger]).plan()
    return found


@pytest.mark.parametrize("most_lost", [0.0, 0.1, 1.0])
def test_the_choice_is_that_of_trying_everything(most_lost):
    winners = set()
    for seed in range(150):
        some, task, ordinary = drawn(seed)
        found = select_settings(Part("validation", None), some, task, ordinary, most_lost, STRENGTHS)
        expected = by_trying_everything(some, task, ordinary, most_lost)
        assert {key: one.setting.plan() for key, one in found.items()} == expected
        for outcome in found.values():
            assert outcome.correct.tolist() == task.correct([outcome.setting])[0].tolist()
            expected = {name: other.correct([outcome.setting])[0].tolist() for name, other in ordinary.items()}
            assert {name: right.tolist() for name, right in outcome.beside.items()} == expected
        winners |= {(len(one.setting.features), one.setting.strength) for one in found.values()}
    assert {(0, 1.0), (1, 1.0), (4, 1.0), (2, 1.5), (2, 2.0)} <= winners, "some kinds of winner did not occur"


def test_what_cannot_win_meets_the_worst_group_alone():
    group = torch.tensor([0] * 10 + [1] * 10)
    right = {"nothing": [9, 5], "a": [10, 5], "b": [10, 8]}  # of ten pictures of each group
    given = {
        (name, n, 1.0): torch.cat([torch.arange(10) < k for k in counts])
        for name, counts in right.items()
        for n in (0, 1)
    }
    task, usual = Pictures(group, given), Pictures(torch.zeros(20), given)
    some = [Setting(name, SITE, Neurons(8), (0,)) for name in ("a", "b")]
    found = select_settings(Part("validation", None), some, task, {"usual": usual}, 0.0)
    assert [one.setting.method for one in found.values()] == ["nothing", "b"]
    assert sum(n for one, n in task.asked if one.method == "a") == 10
    assert sum(n for one, n in task.asked if one.method == "b") == 20
    assert [one.method for one, _ in usual.asked] == ["nothing", "b"]
