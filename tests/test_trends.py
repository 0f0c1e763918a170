"""The trend test against loops over all pairs and all permutations, and its p-values where there is no trend."""

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import kstest, somersd

from experiments.trends import trend_test


def by_loops(values, levels):
    """P(the higher level's value is larger) - P(smaller) over all pairs of different levels."""
    ahead = pairs = 0
    for i in range(len(values)):
        for j in range(len(values)):
            if levels[i] < levels[j]:
                pairs += 1
                ahead += np.sign(values[j] - values[i])
    return ahead / pairs


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("distinct", [3, 1000])
def test_the_effect_is_the_lead_of_higher_levels_over_all_pairs(seed, distinct):
    rng = np.random.default_rng(seed)
    values, levels = rng.integers(distinct, size=40) / 7, rng.integers(5, size=40)
    effect = trend_test(values, levels, n_permutations=1)["effect"]
    assert effect == pytest.approx(by_loops(values, levels))
    assert effect == pytest.approx(somersd(levels, values).statistic)


def test_levels_count_by_their_order_only():
    values, levels = [0.1, 0.4, 0.2, 0.9, 0.8], np.array([0, 0, 1, 2, 2])
    assert trend_test(values, levels) == trend_test(values, 10.0**levels)


def test_values_that_are_not_there_are_left_out():
    with_gaps = trend_test([1.0, np.nan, 2.0, 3.0, np.nan], [0, 9, 1, 2, 0], n_permutations=50)
    assert with_gaps == trend_test([1.0, 2.0, 3.0], [0, 1, 2], n_permutations=50)
    assert with_gaps["n"] == 3


@pytest.mark.parametrize("values", [[1, 2, 3, 4, 5, 6], [3, 1, 1, 2, 5, 4], [6, 5, 4, 2, 2, 1]])
def test_p_values_approach_those_of_all_permutations(values):
    levels = [0, 0, 1, 1, 2, 2]
    observed = by_loops(values, levels)
    everything = np.array([by_loops(values, shuffled) for shuffled in permutations(levels)])
    found = trend_test(values, levels, n_permutations=20_000)
    for name, hits in {
        "p_rising": everything >= observed - 1e-9,
        "p_falling": everything <= observed + 1e-9,
        "p": np.abs(everything) >= abs(observed) - 1e-9,
    }.items():
        assert found[name] == pytest.approx(hits.mean(), abs=0.015)


def test_the_unshuffled_order_counts_as_a_permutation():
    found = trend_test(np.arange(40), np.arange(40) // 10, n_permutations=99)
    assert (found["effect"], found["p_rising"], found["p"], found["p_falling"]) == (1, 0.01, 0.01, 1)


def test_without_a_trend_every_p_value_is_equally_likely():
    rng = np.random.default_rng(0)
    levels = np.repeat([0, 1, 2], [4, 16, 40])
    found = [trend_test(rng.normal(size=60), levels, None, 199, seed) for seed in range(400)]
    for name in ("p", "p_rising", "p_falling"):
        assert kstest([trend[name] for trend in found], "uniform").pvalue > 0.01


def test_strata_compare_only_values_of_one_group():
    rng = np.random.default_rng(2)
    values, levels, groups = rng.integers(9, size=50), rng.integers(3, size=50), rng.integers(4, size=50)
    of_groups = [(values[groups == g], levels[groups == g]) for g in range(4)]
    sizes = [sum(a < b for a in of_levels for b in of_levels) for _, of_levels in of_groups]
    expected = np.average([by_loops(*group) for group in of_groups], weights=sizes)
    assert trend_test(values, levels, groups)["effect"] == pytest.approx(expected)


def test_strata_take_away_a_trend_that_is_only_theirs():
    rng = np.random.default_rng(3)
    groups = np.repeat([0, 1, 2, 3], 50)
    levels = rng.binomial(3, groups / 3 * 0.8 + 0.1)
    values = groups + rng.normal(size=200)
    assert trend_test(values, levels, n_permutations=999)["p"] == 0.001
    assert trend_test(values, levels, groups, n_permutations=999)["p"] > 0.05


def test_with_strata_every_p_value_is_equally_likely_too():
    rng = np.random.default_rng(4)
    levels, groups = np.tile([0, 1, 2], 20), np.repeat([0, 1, 2], 20)
    found = [trend_test(groups + rng.normal(size=60), levels, groups, 199, seed)["p"] for seed in range(300)]
    assert kstest(found, "uniform").pvalue > 0.01


def test_many_permutations_give_what_few_at_a_time_give(monkeypatch):
    rng = np.random.default_rng(1)
    values, levels = rng.normal(size=30), rng.integers(3, size=30)
    at_once = trend_test(values, levels, n_permutations=100)
    monkeypatch.setattr("lib.devices.AT_ONCE", 64)
    assert trend_test(values, levels, n_permutations=100) == at_once


@pytest.mark.parametrize("levels", [[], [4, 4, 4]])
def test_with_one_level_there_is_no_trend(levels):
    found = trend_test(np.ones(len(levels)), levels, n_permutations=10)
    assert (found["effect"], found["p"], found["p_rising"], found["p_falling"]) == (0, 1, 1, 1)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"got \(3,\), \(2,\)"):
        trend_test([1, 2, 3], [0, 1])


def test_at_least_one_permutation_is_needed():
    with pytest.raises(ValueError, match="at least one"):
        trend_test([1, 2], [0, 1], n_permutations=0)
