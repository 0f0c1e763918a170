"""The closed form against the definition, pair by pair in float64, and on features whose score is known."""

import pytest
import torch
import torch.nn.functional as F

from lib.metrics import monosemanticity


def by_definition(activations, embeddings):
    """Weighted mean cosine over all pairs n < m, straight from the formula of the paper's code."""
    activations = activations.double()
    low, high = activations.min(0).values, activations.max(0).values
    shifted = (activations - low) / (high - low)
    unit = F.normalize(embeddings.double(), dim=1)
    n, m = torch.triu_indices(len(shifted), len(shifted), 1)
    weights = shifted[n] * shifted[m]  # (pairs, F)
    cosines = (unit[n] * unit[m]).sum(1)
    return torch.where(weights.sum(0) > 0, (weights * cosines[:, None]).sum(0) / weights.sum(0), torch.nan)


def codes(n=120, f=30, density=0.05, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(n, f, generator=generator) ** 6 * 50  # a few large, many tiny
    return torch.where(torch.rand(n, f, generator=generator) < density, values, 0)


def embeddings(n=120, e=16, seed=1):
    return torch.randn(n, e, generator=torch.Generator().manual_seed(seed)) + 0.4


def assert_exact(found, expected):
    torch.testing.assert_close(found.double(), expected.double(), atol=1e-6, rtol=0, equal_nan=True)


def test_signed_neurons_equal_the_definition():
    neurons = torch.randn(120, 25, generator=torch.Generator().manual_seed(2)) - 3
    assert_exact(monosemanticity(neurons, embeddings()), by_definition(neurons, embeddings()))


@pytest.mark.parametrize("density", [0.01, 0.05, 0.5, 1.0])
def test_sparse_and_dense_codes_equal_the_definition(density):
    a, e = codes(density=density), embeddings()
    assert_exact(monosemanticity(a, e), by_definition(a, e))
    assert_exact(monosemanticity(a.to_sparse_csr(), e), by_definition(a, e))


def test_sparse_entries_below_zero_shift_the_images_that_are_not_stored():
    a, e = codes(density=0.3), embeddings()
    a[:, ::2] -= codes(density=0.3, seed=7)[:, ::2]
    assert_exact(monosemanticity(a.to_sparse_csr(), e), by_definition(a, e))


@pytest.mark.parametrize("block", [1, 500, 1 << 20])
def test_blocks_do_not_change_the_score(block):
    a, e = codes(density=0.2), embeddings()
    assert_exact(monosemanticity(a, e, block), by_definition(a, e))
    assert_exact(monosemanticity(a.to_sparse_csr(), e, block), by_definition(a, e))


def test_one_huge_activation_does_not_cost_accuracy():
    a, e = codes(density=0.1).clamp_min(1e-5), embeddings()
    a[0] = 1e4
    assert_exact(monosemanticity(a, e), by_definition(a, e))
    assert_exact(monosemanticity(a.to_sparse_csr(), e), by_definition(a, e))


def test_two_images_of_very_different_strength_are_scored_exactly():
    e, a = embeddings(), torch.zeros(120, 1)
    a[3], a[50] = 1e4, 1e-9
    expected = torch.cosine_similarity(e[3], e[50], dim=0)[None]
    assert_exact(monosemanticity(a, e), expected)
    assert_exact(monosemanticity(a.to_sparse_csr(), e), expected)


def test_half_precision_activations_are_scored_exactly():
    a, e = codes(density=0.2).half(), embeddings()
    assert_exact(monosemanticity(a, e), by_definition(a, e))


def test_a_feature_of_one_direction_scores_one():
    e = embeddings()
    a = torch.zeros(120, 1)
    a[:10] = torch.rand(10, 1) + 0.1
    e[:10] = e[0] * torch.arange(1, 11)[:, None]  # the same direction at any length
    assert monosemanticity(a, e).item() == pytest.approx(1, abs=1e-6)


def test_two_opposite_images_score_minus_one():
    e = embeddings()
    e[1] = -e[0]
    a = torch.zeros(120, 1)
    a[:2] = 1
    assert monosemanticity(a, e).item() == pytest.approx(-1, abs=1e-6)


def test_random_features_score_the_mean_cosine_of_all_pairs():
    e = embeddings(2000)
    unit = F.normalize(e.double(), dim=1)
    base = ((unit.sum(0) ** 2).sum() - 2000) / (2000 * 1999)
    scores = monosemanticity(torch.rand(2000, 50, generator=torch.Generator().manual_seed(3)), e)
    assert (scores - base).abs().max() < 0.01


def test_features_without_a_pair_are_dead():
    a = codes(density=0.2)
    a[:, 0] = 0  # never active
    a[:, 1] = 3  # the same on every image
    a[:, 2] = 0
    a[7, 2] = 1  # active on one image
    a[:, 3] = 0.1
    a[7, 3] = 2  # above its minimum on one image
    for layout in (a, a.to_sparse_csr()):
        scores = monosemanticity(layout, embeddings())
        assert scores[:4].isnan().all()
        assert not scores[4:].isnan().any()


def test_codes_without_any_activation_are_dead():
    assert monosemanticity(torch.zeros(120, 3).to_sparse_csr(), embeddings()).isnan().all()


def test_scale_and_shift_of_activations_change_nothing():
    a, e = torch.rand(120, 10), embeddings()
    assert_exact(monosemanticity(a * 7 - 2, e), monosemanticity(a, e))


def test_scale_of_embeddings_changes_nothing():
    a, e = codes(density=0.2), embeddings()
    assert_exact(monosemanticity(a, e * torch.rand(120, 1).add(0.1) * 100), monosemanticity(a, e))
    for tiny_or_huge in (1e-30, 1e30):  # their squares leave float32
        assert_exact(monosemanticity(a, e * tiny_or_huge), monosemanticity(a, e))


def test_order_of_images_changes_nothing():
    a, e, order = codes(density=0.2), embeddings(), torch.randperm(120)
    assert_exact(monosemanticity(a[order], e[order]), monosemanticity(a, e))


def test_nan_activations_are_an_error_and_not_a_dead_feature():
    a = codes(density=0.2)
    a[3, 4] = torch.nan
    for layout in (a, a.to_sparse_csr()):
        with pytest.raises(ValueError, match="activations holds NaN"):
            monosemanticity(layout, embeddings())


def test_embeddings_without_a_direction_are_an_error():
    e = embeddings()
    e[5] = 0
    with pytest.raises(ValueError, match="no direction"):
        monosemanticity(codes(), e)


def test_mismatched_rows_are_an_error():
    with pytest.raises(ValueError, match="N = 120"):
        monosemanticity(codes(), embeddings(60))


def test_other_sparse_layouts_are_an_error_that_says_what_to_do():
    with pytest.raises(ValueError, match="to_sparse_csr"):
        monosemanticity(codes().to_sparse_coo(), embeddings())


def test_sums_over_thousands_of_images_stay_exact():
    n = 20_000
    e = embeddings(n, 24) + 3  # all pictures alike: the sums grow with every image
    a = torch.rand(n, 3, generator=torch.Generator().manual_seed(4))
    a[:, 1] = (a[:, 1] - 0.5).clamp_min(0)  # every other image
    a[:, 2] *= torch.logspace(-6, 0, n)  # most of it on a few
    unit, shifted = F.normalize(e.double(), dim=1), a.double() - a.double().min(0).values
    squares = shifted.square().sum(0)
    expected = ((shifted.t() @ unit).square().sum(1) - squares) / (shifted.sum(0).square() - squares)
    for layout in (a, a.to_sparse_csr()):
        torch.testing.assert_close(monosemanticity(layout, e).double(), expected, atol=0, rtol=1e-6)
