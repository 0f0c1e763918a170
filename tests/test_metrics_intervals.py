"""Bootstrap intervals: against a plain loop, on distributions whose mean is known, and where there is none to give."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from scipy.stats import t as student

from lib.metrics.intervals import (
    Interval,
    bootstrap,
    jackknife_error,
    jackknife_interval,
    mean_interval,
    rank_correlation,
)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mean(x):
    return x.mean(1)


def difference(x, y):
    return x.mean(1) - y.mean(1)


def plain_loop(statistic, *samples, n=4000, seed=0):
    """The definition, one resample after the other, by numpy."""
    draw = np.random.default_rng(seed)
    samples = [sample.numpy() for sample in samples]
    drawn = [statistic(*(s[draw.integers(0, len(s), len(s))] for s in samples)) for _ in range(n)]
    return np.quantile(drawn, [0.025, 0.975])


def test_a_mean_has_the_interval_of_a_plain_loop():
    x = normal(80)
    found = bootstrap(mean, x, n=4000)
    assert found.value == pytest.approx(float(x.mean()), abs=1e-6)
    assert found[1:] == pytest.approx(plain_loop(np.mean, x), abs=0.02)


def test_two_samples_are_drawn_independently():
    x, y = normal(60), normal(90, seed=1) * 3 + 1
    expected = plain_loop(lambda a, b: a.mean() - b.mean(), x, y)
    assert bootstrap(difference, x, y, n=4000)[1:] == pytest.approx(expected, abs=0.06)


def test_the_columns_of_one_sample_are_drawn_together():
    x = normal(60)
    pairs = torch.stack([x, x + 1], dim=1)
    found = bootstrap(lambda p: (p[..., 1] - p[..., 0]).mean(1), pairs)
    assert found == pytest.approx((1, 1, 1), abs=1e-6)


def test_a_rank_correlation_has_the_interval_of_a_plain_loop():
    x = normal(70)
    pairs = torch.stack([x, x + normal(70, seed=1)], dim=1)
    expected = plain_loop(lambda p: spearmanr(p[:, 0], p[:, 1]).statistic, pairs, n=2000)
    assert bootstrap(rank_correlation, pairs, n=2000)[1:] == pytest.approx(expected, abs=0.03)


def test_rank_correlation_equals_scipys_with_ties():
    pairs = normal(5, 40, 2).mul(2).round()
    expected = [spearmanr(table[:, 0], table[:, 1]).statistic for table in pairs.numpy()]
    torch.testing.assert_close(rank_correlation(pairs), torch.tensor(expected, dtype=torch.double))


def test_nineteen_of_twenty_intervals_hold_the_true_mean():
    exponential = -torch.rand(400, 100, generator=torch.Generator().manual_seed(3)).log()  # mean 1
    found = [bootstrap(mean, x, n=400, seed=i) for i, x in enumerate(exponential)]
    covered = np.mean([interval.low <= 1 <= interval.high for interval in found])
    assert 0.91 < covered < 0.97


def test_a_lower_level_gives_a_narrower_interval_inside():
    x = normal(50)
    wide, narrow = bootstrap(mean, x), bootstrap(mean, x, level=0.5)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_blocks_leave_the_interval_as_wide(monkeypatch):
    whole = bootstrap(mean, normal(50), n=9000)
    monkeypatch.setattr("lib.devices.AT_ONCE", 7000)
    assert bootstrap(mean, normal(50), n=9000) == pytest.approx(whole, abs=0.02)


def test_dead_features_are_left_out():
    x = normal(50)
    with_dead = torch.cat([x, torch.full((20,), math.nan)])
    assert bootstrap(mean, with_dead) == bootstrap(mean, x)
    pairs = torch.stack([with_dead, with_dead.nan_to_num(0)], dim=1)
    assert bootstrap(rank_correlation, pairs).value == pytest.approx(1)


def test_the_same_seed_gives_the_same_interval():
    assert bootstrap(mean, normal(50)) == bootstrap(mean, normal(50))
    assert bootstrap(mean, normal(50), seed=1) != bootstrap(mean, normal(50))


def test_a_single_row_has_a_value_and_no_interval():
    assert bootstrap(mean, torch.tensor([2.0])) == Interval(2.0, None, None)


def test_nothing_known_is_nan_and_null_in_the_results():
    found = bootstrap(mean, torch.tensor([math.nan]))
    assert math.isnan(found.value)
    assert json.loads(json.dumps(found.claim(), allow_nan=False)) == {"value": None, "low": None, "high": None}


def test_an_interval_reads_as_value_and_bounds():
    assert str(Interval(0.5, 0.25, 0.75)) == "0.500 [0.250, 0.750]"
    assert str(Interval(0.5)) == "0.500"
    assert str(Interval(math.nan, math.nan, math.nan)) == "–"


def test_the_jackknife_of_a_mean_gives_the_textbook_error():
    x = normal(60).double()
    left_out = torch.stack([x[torch.arange(60) != i].mean() for i in range(60)])
    assert jackknife_error(left_out) == pytest.approx(float(x.std()) / math.sqrt(60))


def test_the_jackknife_interval_of_a_mean_is_students():
    x = normal(8).double()
    left_out = torch.stack([x[torch.arange(8) != i].mean() for i in range(8)])
    low, high = student.interval(0.9, df=7, loc=float(x.mean()), scale=float(x.std()) / math.sqrt(8))
    assert jackknife_interval(float(x.mean()), left_out, level=0.9) == pytest.approx((float(x.mean()), low, high))


def test_one_group_has_no_jackknife_interval():
    assert jackknife_interval(2.0, torch.tensor([2.0])) == Interval(2.0)


def test_a_jackknife_by_groups_meets_the_spread_of_new_samples():
    x = normal(300, 200)  # 300 samples
    group = torch.arange(200) % 10
    errors = [jackknife_error(torch.stack([row[group != g].mean() for g in range(10)])) for row in x]
    assert np.mean(errors) == pytest.approx(float(x.mean(1).std()), rel=0.1)


@pytest.mark.parametrize(("sample", "level"), [(torch.zeros(2, 2, 2), 0.95), (torch.zeros(3), 95)])
def test_bad_input_is_an_error(sample, level):
    with pytest.raises(ValueError, match=r"a sample is|level must"):
        bootstrap(mean, sample, level=level)


def test_the_mean_leaves_nan_out_and_has_the_bootstrap_s_interval():
    sample = torch.tensor([1.0, math.nan, 2.0, 6.0])
    assert mean_interval(sample, 100) == bootstrap(mean, sample, n=100)
    assert mean_interval(sample, 100).value == 3
    assert math.isnan(mean_interval(torch.tensor([])).value)
