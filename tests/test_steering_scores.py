"""Steering scores and rates: against plain loops, on tables whose answer is known, and where there is none to give."""

import math

import numpy as np
import pytest
import torch

from experiments.steering_scores import (
    crossed_mean,
    feature_embeddings,
    mean_difference,
    name_bounds,
    rates,
    steering_score,
)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cosine(a, b):
    a, b = a.numpy(), b.numpy()
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_a_feature_stands_for_the_mean_of_its_top_images_of_unit_norm():
    images = normal(20, 5)
    top = torch.tensor([[3, 7, 11], [0, 19, 4]])
    found = feature_embeddings(top, images)
    for row, indices in zip(found, top.tolist(), strict=True):
        slow = sum(images[i] / images[i].norm() for i in indices) / len(indices)
        torch.testing.assert_close(row, slow)


def test_missing_top_images_are_left_out_and_a_dead_feature_stands_for_nothing():
    images = normal(6, 4)
    found = feature_embeddings(torch.tensor([[2, -1, -1], [-1, -1, -1]]), images)
    torch.testing.assert_close(found[0], images[2] / images[2].norm())
    assert found[1].isnan().all()


def test_the_score_is_the_cosine_of_every_answer_with_its_own_feature():
    answers, features = normal(4, 3, 6), normal(3, 6, seed=1)  # 4 pictures, 3 features
    found = steering_score(answers, features)
    slow = [[cosine(answers[n, f], features[f]) for f in range(3)] for n in range(4)]
    torch.testing.assert_close(found, torch.tensor(slow))


def test_one_unsteered_answer_is_scored_against_every_feature():
    answer, features = normal(1, 6), normal(3, 6, seed=1)
    torch.testing.assert_close(
        steering_score(answer, features), torch.tensor([cosine(answer[0], feature) for feature in features])
    )


def test_the_score_of_a_feature_that_stands_for_nothing_is_unknown():
    assert steering_score(normal(1, 4), torch.full((1, 4), math.nan)).isnan().all()


def test_embeddings_of_two_encoders_are_refused():
    with pytest.raises(ValueError, match="let one encoder embed both"):
        steering_score(normal(2, 4), normal(2, 5))


def test_the_bounds_are_the_cosines_with_true_and_with_shuffled_names():
    images, names = normal(30, 8), normal(30, 8, seed=1)
    upper, lower = name_bounds(images, names)
    torch.testing.assert_close(upper, torch.tensor([cosine(i, n) for i, n in zip(images, names, strict=True)]))
    every = {round(cosine(image, name), 5) for image in images for name in names}
    assert {round(value, 5) for value in lower.tolist()} <= every
    assert not torch.equal(upper, lower)


def test_names_that_fit_their_images_score_above_shuffled_ones():
    images = torch.eye(12)
    upper, lower = name_bounds(images, images)
    assert float(upper.mean()) == pytest.approx(1)
    assert float(lower.mean()) < 0.5


def test_a_crossed_mean_has_the_interval_of_a_plain_loop():
    table = normal(12, 1) + normal(1, 30, seed=1) + normal(12, 30, seed=2)
    draw, numbers = np.random.default_rng(0), table.numpy()
    loop = [
        numbers[draw.integers(0, 12, 12)][:, draw.integers(0, 30, 30)].mean() for _ in range(4000)
    ]  # rows and columns each drawn anew
    found = crossed_mean(table, n=4000)
    assert found.value == pytest.approx(float(table.mean()))
    assert found[1:] == pytest.approx(np.quantile(loop, [0.025, 0.975]), abs=0.06)


def test_unknown_cells_of_a_crossed_table_do_not_count():
    table = torch.ones(5, 6)
    table[2, 3] = math.nan
    assert crossed_mean(table) == pytest.approx((1, 1, 1))


def test_a_crossed_mean_of_one_row_has_no_interval():
    assert crossed_mean(torch.ones(1, 9)) == (1, None, None)
    assert math.isnan(crossed_mean(torch.full((3, 3), math.nan)).value)


def test_a_crossed_table_must_have_rows_and_columns():
    with pytest.raises(ValueError, match=r"\(R, C\)"):
        crossed_mean(torch.ones(4))


def test_rates_count_what_holds_alone_and_together():
    named = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0]], dtype=torch.bool)
    followed = torch.tensor([[1, 0, 1, 0], [1, 0, 1, 1]], dtype=torch.bool)
    found = rates(named, followed)
    assert [interval.value for interval in found] == [0.5, 0.625, 0.375]


def test_rates_resample_concepts_not_answers():
    """Where all answers about a concept agree, 10 concepts are 10 observations, however many prompts there are."""
    named = torch.tensor([[i % 2] for i in range(10)], dtype=torch.bool)
    always = torch.ones(10, 1)
    once, often = (rates(named.expand(-1, p), always.expand(-1, p)).concept for p in (1, 50))
    assert once == often


def test_answers_that_cannot_be_judged_do_not_count():
    named = torch.tensor([[1.0, math.nan], [0.0, 1.0]])
    followed = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    assert [interval.value for interval in rates(named, followed)] == [0.75, 1.0, 0.75]


def test_outcomes_of_different_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(C, P\)"):
        rates(torch.ones(2, 3), torch.ones(3, 2))


def test_a_difference_keeps_pairs_together():
    x = normal(40)
    assert mean_difference(x + 0.25, x) == pytest.approx((0.25, 0.25, 0.25))
    assert mean_difference(torch.stack([x, x + 1], 1), torch.stack([x, x], 1)) == pytest.approx((0.5, 0.5, 0.5))


def test_only_tensors_of_one_shape_are_compared():
    with pytest.raises(ValueError, match="must have the same shape"):
        mean_difference(normal(3), normal(4))
