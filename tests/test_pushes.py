"""Pushes in units of a feature's own reach, and how features are drawn."""

import pytest
import torch

from experiments.pushes import CodeRange, by_level, shuffled, usable
from steering.interventions import Neurons


def seeded():
    return torch.Generator().manual_seed(0)


def reach(rest=(1.0, 0.0), peak=(5.0, -2.0)):
    return CodeRange(Neurons(2), "1.resid_post", torch.tensor(rest), torch.tensor(peak))


@pytest.mark.parametrize(("strength", "value"), [(0, 1.0), (1, 5.0), (2, 9.0), (-1, -3.0)])
def test_a_clamp_goes_from_rest_to_the_peak_and_beyond(strength, value):
    assert dict(reach().push(0, strength).features) == {0: value}


def test_adding_goes_as_far_as_a_clamp_of_the_same_strength():
    push = reach().push(torch.tensor(1), 0.5, mode="add", keep_error=False)
    assert dict(push.features) == {1: -1.0}
    assert (push.mode, push.keep_error) == ("add", False)


def test_the_median_peak_leaves_features_out_that_are_never_active():
    assert reach(peak=(4.0, 0.0)).median_peak == 4.0


def test_features_with_fewer_top_pictures_are_not_usable():
    assert usable(torch.tensor([[3, 1], [2, -1], [0, 0]])).tolist() == [0, 2]
    assert usable(torch.empty(0, 2, dtype=torch.long)).tolist() == []


def test_dealing_keeps_the_items_and_follows_the_generator():
    items = torch.arange(20)
    assert sorted(shuffled(items, seeded()).tolist()) == items.tolist()
    assert shuffled(items, seeded()).equal(shuffled(items, seeded()))
    assert not shuffled(items, seeded()).equal(items)


def test_a_level_ends_before_its_end():
    levels = by_level(torch.tensor([0, 2, 3, 5, 9]), [3, 6, 12], 8, seeded())
    assert {level: sorted(some.tolist()) for level, some in levels.items()} == {0: [0, 2], 1: [3, 5], 2: [9]}
    assert all(len(some) == 1 for some in by_level(torch.arange(12), [3, 6, 12], 1, seeded()).values())
