"""Scores of strangeness against slow definitions."""

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.covariance import LedoitWolf

from experiments.outliers import Gaussians, Profiles, auroc, auroc_gain


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_auroc_counts_the_pairs_in_which_the_outlier_scores_higher(rng):
    ood, ordinary = rng.integers(0, 8, 30) + 1.0, rng.integers(0, 8, 50) + 0.0
    pairs = [(a > b) + 0.5 * (a == b) for a in ood for b in ordinary]
    assert auroc(ood, ordinary, n=10).value == pytest.approx(np.mean(pairs))


def test_the_interval_of_an_auroc_holds_the_truth_and_narrows_with_more_pictures(rng):
    few, many = (auroc(rng.standard_normal(n) + 1, rng.standard_normal(n), n=300) for n in (40, 1000))
    assert many.low < 0.760 < many.high  # Phi(1 / sqrt(2))
    assert few.high - few.low > 2 * (many.high - many.low)


def test_the_gain_is_the_mean_difference_of_two_aurocs_and_pictures_keep_their_pair_of_scores(rng):
    ordinary, kinds = (
        rng.standard_normal((60, 2)),
        [rng.standard_normal((n, 2)) + np.array([1.0, 0.4]) for n in (30, 50)],
    )
    values = [[auroc(kind[:, i], ordinary[:, i], n=2).value for kind in kinds] for i in range(2)]
    got = auroc_gain(kinds, ordinary, n=200)
    assert got.value == pytest.approx(np.mean(values[0]) - np.mean(values[1]))
    assert got.low < got.value < got.high
    same = [np.repeat(kind[:, :1], 2, axis=1) for kind in kinds]
    assert auroc_gain(same, np.repeat(ordinary[:, :1], 2, axis=1), n=50)[:] == (0, 0, 0)


def test_the_distance_is_mahalanobis_to_the_nearest_class(rng):
    labels = np.repeat(["a", "b", "c"], 30)
    x = rng.standard_normal((90, 4)) @ rng.standard_normal((4, 4)) + np.repeat(rng.standard_normal((3, 4)) * 5, 30, 0)
    means = {label: x[labels == label].mean(0) for label in "abc"}
    centred = np.stack([row - means[label] for row, label in zip(x, labels, strict=True)])
    inverse = np.linalg.inv(LedoitWolf(assume_centered=True).fit(centred).covariance_)
    asked = rng.standard_normal((5, 4)) * 4
    slow = [min((row - mean) @ inverse @ (row - mean) for mean in means.values()) for row in asked]
    np.testing.assert_allclose(Gaussians.fit(x, labels).distance(asked), slow, rtol=1e-5)


def test_a_profile_is_far_from_codes_that_use_other_features(rng):
    codes = np.zeros((20, 6), dtype=np.float32)
    codes[:10, :2], codes[10:, 2:4] = rng.random((10, 2)) + 1, rng.random((10, 2)) + 1
    labels = np.repeat(["fox", "owl"], 10)
    asked = np.array([[1.0, 1, 0, 0, 0, 0], [0, 0, 2, 1, 0, 0], [0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0]])
    slow = []
    for row in asked:
        means = [codes[labels == name].mean(0) for name in ("fox", "owl")]
        lengths = np.linalg.norm(row) or 1.0
        slow.append(1 - max(row @ mean / lengths / np.linalg.norm(mean) for mean in means))
    got = Profiles.fit(csr_array(codes), labels).distance(csr_array(asked))
    np.testing.assert_allclose(got, slow, atol=1e-6)
    assert got[2] == pytest.approx(1)
    assert got[3] == pytest.approx(1)
