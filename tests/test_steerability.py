"""Steerability against its definition, number by number."""

import pytest
import torch

from experiments import steerability
from experiments.steerability import Steerability

N, C, F = 5, 4, 6


def probabilities(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).mul(2).softmax(-1)


BASE, STEERED = probabilities(N, C), probabilities(F, N, C, seed=1)


def by_hand(base: torch.Tensor, steered: torch.Tensor) -> dict[str, float]:
    """The published sums, one probability at a time."""
    change = [sum(float(steered[n, c] - base[n, c]) for n in range(N)) / N for c in range(C)]
    after = [sum(float(steered[n, c]) for n in range(N)) / N for c in range(C)]
    each = [sum(float(steered[n, c] - base[n, c]) ** 2 for c in range(C)) for n in range(N)]
    rises = [x for x in change if x > 0]
    return {
        "score": sum(x * x for x in change),
        "score_by_picture": sum(each) / N,
        "power": max(change),
        "concept": after.index(max(after)),
        "risen": change.index(max(change)),
        "precision": max(change) / sum(rises),
        "ratio": sum(x * x for x in change) / max(change),
    }


def test_every_number_is_that_of_the_definition():
    for push in STEERED:
        measured = steerability.steerability(BASE, push)
        for name, value in by_hand(BASE, push).items():
            assert float(getattr(measured, name)) == pytest.approx(value, abs=1e-6), name


def test_many_pushes_are_measured_as_one_by_one():
    together = steerability.steerability(BASE, STEERED)
    joined = Steerability.joined([steerability.steerability(BASE, push) for push in STEERED])
    in_parts = Steerability.joined([steerability.steerability(BASE, part) for part in STEERED.split(4)])
    for one, other, third in zip(together, joined, in_parts, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
        assert torch.equal(one, third)
    assert together.change.shape == (F, C)


def test_pictures_that_are_pushed_apart_count_in_the_one_order_and_not_in_the_other():
    base = torch.tensor([[0.5, 0.5], [0.5, 0.5]])
    measured = steerability.steerability(base, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert float(measured.score) == 0
    assert float(measured.score_by_picture) == 0.5


def test_the_squared_mean_is_never_above_the_mean_square():
    measured = steerability.steerability(BASE, STEERED)
    assert (measured.score <= measured.score_by_picture).all()


def test_all_pictures_turned_to_one_concept_is_a_precise_push():
    base = torch.tensor([[0.0, 0.5, 0.5], [0.0, 0.9, 0.1]])
    measured = steerability.steerability(base, torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))
    assert (int(measured.concept), int(measured.risen)) == (0, 0)
    assert (float(measured.power), float(measured.precision)) == (1, 1)
    assert bool(measured.steerable())


def test_a_concept_that_was_likely_before_is_the_top_one_and_has_not_risen():
    measured = steerability.steerability(torch.tensor([[0.9, 0.1]]), torch.tensor([[0.7, 0.3]]))
    assert (int(measured.concept), int(measured.risen)) == (0, 1)


def test_no_change_is_no_steerability_and_its_precision_is_unknown():
    measured = steerability.steerability(BASE, BASE)
    assert (float(measured.score), float(measured.power)) == (0, 0)
    assert measured.precision.isnan()
    assert not bool(measured.steerable())


def test_probabilities_are_the_softmax_of_scaled_cosines():
    images, words = torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, 0.0], [0.0, 0.5]])
    expected = torch.tensor([[6.0, 8.0]]).softmax(-1)
    assert torch.allclose(steerability.concept_probabilities(images, words, 10), expected)
    assert steerability.concept_probabilities(images.expand(7, 5, 2), words, 10).shape == (7, 5, 2)


CONCEPT, SCORE = torch.tensor([3, 3, 1, 8, 1, 7]), torch.tensor([0.5, 0.2, 0.1, 0.3, 0.4, 0.0])


def test_coverage_counts_each_concept_of_a_steerable_push_once():
    assert steerability.coverage(CONCEPT, SCORE).tolist() == [1, 3, 8]
    assert steerability.coverage(CONCEPT, SCORE, above=0.45).tolist() == [3]
    assert steerability.coverage(CONCEPT, SCORE, above=2).tolist() == []


def test_expected_coverage_is_the_mean_over_all_parts_of_a_size():
    from itertools import combinations

    expected = []
    for size in (0, 1, 2, 4, 6):
        parts = [list(part) for part in combinations(range(6), size)]
        expected.append(sum(len(steerability.coverage(CONCEPT[part], SCORE[part])) for part in parts) / len(parts))
    assert steerability.expected_coverage(CONCEPT, SCORE, (0, 1, 2, 4, 6)).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("steered", [STEERED[0, :3], STEERED[..., :3], torch.ones(4), STEERED[None]])
def test_probabilities_of_other_pictures_or_concepts_are_refused(steered):
    with pytest.raises(ValueError, match="give the same pictures and concepts"):
        steerability.steerability(BASE, steered)


def test_a_coverage_without_scores_for_all_is_refused():
    with pytest.raises(ValueError, match="every push needs its score"):
        steerability.coverage(CONCEPT, SCORE[:2])
    with pytest.raises(ValueError, match="are 0 to 6"):
        steerability.expected_coverage(CONCEPT, SCORE, [7])
