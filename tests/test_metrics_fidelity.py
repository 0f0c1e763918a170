"""The figures of the released SAEs' tables, ours and the published forms, against loops over their formulas."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from experiments.published_fidelity import PublishedReconstruction, published_recovered
from lib.metrics import recovered, zero_shot


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


EMBEDDINGS = normalize(torch.randn(20, 8, generator=generator(1)), dim=1)
TEXTS = normalize(torch.randn(5, 8, generator=generator(2)), dim=1)
LABELS = torch.arange(20) % 5


@pytest.mark.parametrize("scale", [1.0, 14.2, 100.0])
def test_cross_entropy_is_minus_the_log_of_the_true_class_probability(scale):
    found = zero_shot(EMBEDDINGS, TEXTS, LABELS, scale)
    for i, label in enumerate(LABELS.tolist()):
        weights = [math.exp(scale * float(EMBEDDINGS[i] @ text)) for text in TEXTS]
        assert float(found.loss[i]) == pytest.approx(-math.log(weights[label] / sum(weights)), rel=1e-5)
        assert bool(found.correct[i]) == (max(range(5), key=weights.__getitem__) == label)


def test_without_the_logit_scale_every_model_is_near_the_log_of_the_number_of_classes():
    """Why the released tables' cross-entropy of 6.762 beside 6.908 = log 1000 says so little."""
    knows_all = zero_shot(TEXTS[LABELS], TEXTS, LABELS, 1.0)
    assert bool(knows_all.correct.all())
    assert math.log(5) - 1 < float(knows_all.loss.mean()) < math.log(5)
    assert float(zero_shot(TEXTS[LABELS], TEXTS, LABELS, 100.0).loss.mean()) < 1e-4


@pytest.mark.parametrize("labels", [LABELS - 1, LABELS + 1, LABELS[:3]])
def test_every_picture_needs_a_label_among_the_classes(labels):
    with pytest.raises(ValueError, match="each of the 20 pictures needs a label from 0 to 4"):
        zero_shot(EMBEDDINGS, TEXTS, labels, 1.0)


def test_embeddings_and_texts_share_a_width():
    with pytest.raises(ValueError, match="do not fit"):
        zero_shot(EMBEDDINGS, TEXTS[:, :4], LABELS, 1.0)


def losses(mean: float, seed: int) -> torch.Tensor:
    x = torch.rand(200, generator=generator(seed))
    return x - x.mean() + mean


def test_recovered_is_the_share_of_the_means_difference_within_its_interval():
    found = recovered(losses(1.0, 0), losses(1.5, 1), losses(3.0, 2))
    assert found.value == pytest.approx((3.0 - 1.5) / (3.0 - 1.0))
    assert found.low < found.value < found.high


def test_the_model_itself_recovers_all_and_the_ablation_nothing():
    clean, ablated = losses(1.0, 0), losses(3.0, 2)
    assert recovered(clean, clean, ablated).value == pytest.approx(1)
    assert recovered(clean, ablated, ablated).value == pytest.approx(0)
    assert recovered(clean, clean - 0.5, ablated).value > 1


def test_recovered_hits_count_upwards_as_losses_do_downwards():
    clean, spliced, ablated = losses(1.0, 0), losses(1.5, 1), losses(3.0, 2)
    assert recovered(-clean, -spliced, -ablated).value == pytest.approx(recovered(clean, spliced, ablated).value)


def test_no_share_is_given_of_an_ablation_whose_cost_may_be_nothing():
    clean = losses(1.0, 0)
    assert math.isnan(recovered(clean, clean, clean).value)
    assert math.isnan(recovered(clean, losses(0.9, 1), losses(1.001, 2)).value)  # its interval holds 0
    assert math.isnan(recovered(clean[:1], clean[:1], clean[:1] + 1).value)  # one picture tells nothing
    assert math.isfinite(recovered(clean, losses(0.9, 1), losses(1.2, 2)).value)


def test_the_published_form_is_a_percentage_with_a_guarded_denominator():
    clean, spliced, ablated = losses(6.762, 0), losses(6.759, 1), losses(6.768, 2)
    expected = (
        100 * (6.768 - 6.759) / (6.768 - 6.762 + 1e-6)
    )  # layer 11 mlp_out of the released table, which says 135.77
    assert published_recovered(clean, spliced, ablated) == pytest.approx(expected, rel=1e-3)
    assert published_recovered(clean, clean, clean) == pytest.approx(0)


X = 5 * torch.randn(12, 3, 6, generator=generator(3)) + torch.randn(3, 6, generator=generator(4))  # (P, T, d)
X_HAT = X + torch.randn(12, 3, 6, generator=generator(5))


def test_published_explained_variance_is_a_mean_of_ratios_about_the_mean_of_each_position():
    ratios = [
        float((X[p, t] - X_HAT[p, t]).square().sum() / (X[p, t] - X[:, t].mean(0)).square().sum())
        for p in range(12)
        for t in range(3)
    ]
    figures = PublishedReconstruction(X.mean(0)).update(X, X_HAT).compute()
    assert figures["explained_variance"] == pytest.approx(1 - sum(ratios) / len(ratios), rel=1e-4)


def test_published_cosine_is_that_of_each_dimension_across_tokens():
    cosines = [torch.cosine_similarity(X[..., j].flatten(), X_HAT[..., j].flatten(), dim=0) for j in range(6)]
    figures = PublishedReconstruction(X.mean(0)).update(X, X_HAT).compute()
    assert figures["cosine"] == pytest.approx(float(torch.stack(cosines).mean()), rel=1e-5)


@pytest.mark.parametrize("sizes", [[12], [1, 11], [5, 5, 2]])
def test_batches_give_the_same_as_the_whole(sizes):
    meter, whole = PublishedReconstruction(X.mean(0)), PublishedReconstruction(X.mean(0)).update(X, X_HAT)
    for x, x_hat in zip(X.split(sizes), X_HAT.split(sizes), strict=True):
        meter.update(x, x_hat)
    assert meter.compute() == pytest.approx(whole.compute(), rel=1e-9)


def test_shapes_and_nothing_to_measure_are_errors():
    with pytest.raises(ValueError, match=r"must both be \(B, 3, 6\)"):
        PublishedReconstruction(X.mean(0)).update(X, X_HAT[:, :2])
    with pytest.raises(ValueError, match="at least one picture"):
        PublishedReconstruction(X.mean(0)).compute()
