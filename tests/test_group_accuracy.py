"""Accuracy by group against counts by hand, and intervals against what they must enclose."""

import math

import pytest
import torch

from experiments.disentanglement.group_accuracy import (
    accuracy_change,
    group_accuracy,
    proportion,
    worst_group_change,
)


@pytest.fixture
def answers():
    """Which of 400 pictures are right, and their groups, of known accuracies .9, .5 and .6."""
    group = torch.arange(400) % 3
    chance = torch.tensor([0.9, 0.5, 0.6])[group]
    return torch.rand(400, generator=torch.Generator().manual_seed(0)) < chance, group


def test_the_accuracies_are_those_that_one_counts(answers):
    correct, group = answers
    found = group_accuracy(correct, group)
    by_hand = [sum(c for c, g in zip(correct.tolist(), group.tolist(), strict=True) if g == k) for k in range(3)]
    sizes = [group.tolist().count(k) for k in range(3)]
    assert [x.value for x in found.per_group] == pytest.approx(
        [n / size for n, size in zip(by_hand, sizes, strict=True)]
    )
    assert found.average.value == pytest.approx(sum(by_hand) / 400)
    assert found.worst.value == min(x.value for x in found.per_group)
    assert found.worst_group == 1


def test_a_proportion_has_wilsons_bounds():
    found = proportion(torch.tensor([True] * 9 + [False]))
    assert (found.low, found.high) == pytest.approx((0.5958, 0.9821), abs=1e-4)  # as tables of Wilson's interval say


def test_a_proportion_of_one_still_has_a_width():
    found = proportion(torch.ones(20))
    assert found.low < 0.9
    assert found.high == 1.0


def test_no_picture_is_no_proportion():
    assert math.isnan(proportion(torch.ones(0)).value)


def test_the_interval_of_the_worst_group_covers_the_least_true_accuracy():
    truth, group = torch.tensor([0.5, 0.5, 0.5, 0.8]), torch.arange(200) % 4
    generator, covered = torch.Generator().manual_seed(1), 0
    for _ in range(200):
        found = group_accuracy(torch.rand(200, generator=generator) < truth[group], group).worst
        covered += found.low <= 0.5 <= found.high
    assert covered >= 190


def test_the_change_of_the_worst_group_is_that_of_the_worst_after_against_the_one_before(answers):
    before, group = answers
    after = before | (group == 1)  # the second group is all right now, so that the third is the worst
    found = worst_group_change(before, after, group, worst=1)
    worst_after = float(before[group == 2].double().mean())
    assert found.value == pytest.approx(worst_after - float(before[group == 1].double().mean()))
    assert found.low < found.value < found.high


def test_nothing_changed_is_a_change_of_zero(answers):
    correct, group = answers
    assert worst_group_change(correct, correct, group, worst=1).value == 0
    assert accuracy_change(correct, correct) == (0, 0, 0)


def test_a_change_is_measured_on_pairs():
    before = torch.tensor([True, False] * 200)
    after = before.clone()
    after[1:80:2] = True  # forty of four hundred
    found = accuracy_change(before, after)
    assert found.value == pytest.approx(0.1)
    assert 0.06 < found.low < found.high < 0.14  # unpaired it would be .03 to .17


@pytest.mark.parametrize(
    ("correct", "group", "says"),
    [
        (torch.ones(3), torch.zeros(2), "one for each picture"),
        (torch.ones(0), torch.zeros(0), "one for each picture"),
        (torch.ones(2), torch.tensor([0, -1]), "negative"),
        (torch.ones(2), torch.tensor([0, 2]), "group 1 has no picture"),
    ],
)
def test_bad_input_is_named(correct, group, says):
    with pytest.raises(ValueError, match=says):
        group_accuracy(correct, group)
