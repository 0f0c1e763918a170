"""Reconstruction figures against their formulas, whole and in batches."""

import math

import pytest
import torch

from lib.metrics import Reconstruction, reconstruction

X = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) * 3 + 100  # far from the origin, as activations are
X_HAT = X + torch.randn(50, 6, generator=torch.Generator().manual_seed(1))


def test_explained_variance_is_centred():
    residual = (X - X_HAT).double().square().sum()
    total = (X - X.mean(0)).double().square().sum()
    assert reconstruction(X, X_HAT)["explained_variance"] == pytest.approx(float(1 - residual / total), rel=1e-6)


def test_mse_and_cosine_are_means_over_rows():
    figures = reconstruction(X, X_HAT)
    assert figures["mse"] == pytest.approx(float((X - X_HAT).square().mean()), rel=1e-5)
    assert figures["cosine"] == pytest.approx(float(torch.cosine_similarity(X, X_HAT).mean()), rel=1e-6)


def test_a_perfect_reconstruction():
    assert reconstruction(X, X) == {"explained_variance": 1.0, "mse": 0.0, "cosine": pytest.approx(1.0)}


def test_the_mean_explains_nothing():
    assert reconstruction(X, X.mean(0).expand_as(X))["explained_variance"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("sizes", [[50], [1, 49], [10, 0, 15, 25]])
def test_batches_give_the_same_as_the_whole(sizes):
    meter = Reconstruction()
    for x, x_hat in zip(X.split(sizes), X_HAT.split(sizes), strict=True):
        meter.update(x, x_hat)
    assert meter.compute() == pytest.approx(reconstruction(X, X_HAT), rel=1e-9)


def test_constant_activations_have_no_variance_to_explain():
    assert math.isnan(reconstruction(torch.ones(4, 2), torch.zeros(4, 2))["explained_variance"])


def test_mismatched_shapes_are_an_error():
    with pytest.raises(ValueError, match="must both be"):
        reconstruction(X, X_HAT[:10])


def test_batches_of_another_width_are_an_error():
    with pytest.raises(ValueError, match="6 wide"):
        Reconstruction().update(torch.ones(2, 4), torch.ones(2, 4)).update(X, X_HAT)


def test_no_rows_are_an_error():
    with pytest.raises(ValueError, match="no rows"):
        Reconstruction().compute()
