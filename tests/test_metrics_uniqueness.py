"""Jaccard pairs against Python sets."""

import pytest
import torch

from lib.metrics import jaccard


def by_sets(top_images, above):
    sets = [set(row) - {-1} for row in top_images.tolist()]
    pairs = [(i, j) for i in range(len(sets)) for j in range(i + 1, len(sets)) if sets[i] | sets[j]]
    index = {(i, j): len(sets[i] & sets[j]) / len(sets[i] | sets[j]) for i, j in pairs}
    return {pair: value for pair, value in index.items() if value > above}


@pytest.mark.parametrize("above", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("block", [1, 300, 1 << 24])
def test_pairs_equal_those_of_sets(above, block):
    top_images = torch.randint(-1, 60, (80, 8), generator=torch.Generator().manual_seed(0))
    top_images[10] = top_images[40]
    pairs, index = jaccard(top_images, above, block)
    expected = by_sets(top_images, above)
    assert [tuple(pair) for pair in pairs.tolist()] == sorted(expected)
    torch.testing.assert_close(index, torch.tensor([expected[pair] for pair in sorted(expected)]))


def test_features_with_the_same_images_in_any_order_have_index_one():
    pairs, index = jaccard(torch.tensor([[1, 2, 3], [4, 5, 6], [3, 1, 2]]))
    assert pairs.tolist() == [[0, 2]]
    assert index.tolist() == [1.0]


def test_a_pair_at_the_bound_is_left_out():
    assert len(jaccard(torch.tensor([[1, 2], [2, 3]]), above=1 / 3)[0]) == 0


def test_features_without_images_are_in_no_pair():
    pairs, index = jaccard(torch.full((3, 4), -1))
    assert pairs.shape == (0, 2)
    assert index.shape == (0,)


def test_a_negative_bound_is_an_error():
    with pytest.raises(ValueError, match="every pair"):
        jaccard(torch.tensor([[1]]), above=-0.1)


def test_images_must_be_integers():
    with pytest.raises(ValueError, match="integers"):
        jaccard(torch.rand(3, 4))
