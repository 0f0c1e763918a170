"""Jaccard pairs and counts against Python sets, also where few pictures are shown by very many features."""

from collections import Counter

import pytest
import torch

from lib.metrics import jaccard, jaccard_counts, uniqueness


def by_sets(top_images, above):
    sets = [set(row) - {-1} for row in top_images.tolist()]
    pairs = [(i, j) for i in range(len(sets)) for j in range(i + 1, len(sets)) if sets[i] | sets[j]]
    index = {(i, j): len(sets[i] & sets[j]) / len(sets[i] | sets[j]) for i, j in pairs}
    return {pair: value for pair, value in index.items() if value > above}


def tables(n_features=80, n_images=60, k=8):
    """Top images spread evenly, by popularity, and with pictures that all or most features share."""
    generator = torch.Generator().manual_seed(0)
    even = torch.randint(-1, n_images, (n_features, k), generator=generator)
    even[10] = even[40]
    popular = (n_images * torch.rand(n_features, k, generator=generator) ** 4).long()
    shared = even.clone()
    shared[:, :2], shared[::3, 2] = torch.tensor([n_images, n_images + 1]), n_images + 2
    sparse = torch.randint(20 * n_images, (n_features, k), generator=generator)
    return {"even": even, "popular": popular, "shared": shared, "sparse": sparse, "nothing": torch.full((5, 3), -1)}


@pytest.mark.parametrize("above", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("block", [1, 300, 1 << 24])
@pytest.mark.parametrize("name", tables())
def test_pairs_equal_those_of_sets(name, above, block):
    top_images = tables()[name]
    pairs, index = jaccard(top_images, above, block)
    expected = by_sets(top_images, above)
    assert [tuple(pair) for pair in pairs.tolist()] == sorted(expected)
    torch.testing.assert_close(index, torch.tensor([expected[pair] for pair in sorted(expected)]))


@pytest.mark.parametrize("common", [1, 2, 32, 1000])
def test_which_pictures_count_as_common_changes_no_result(monkeypatch, common):
    monkeypatch.setattr(uniqueness, "_COMMON", common)
    for top_images in tables().values():
        expected = by_sets(top_images, 0)
        assert [tuple(pair) for pair in jaccard(top_images)[0].tolist()] == sorted(expected)


@pytest.mark.parametrize("block", [1, 300, 1 << 24])
@pytest.mark.parametrize("name", tables())
def test_counts_are_those_of_all_pairs_also_of_pairs_without_a_common_image(name, block):
    top_images = tables()[name]
    values, counts = jaccard_counts(top_images, block)
    n = len(top_images)
    expected = Counter(by_sets(top_images, 0).values())
    expected[0.0] = n * (n - 1) // 2 - sum(expected.values())
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == expected
    assert values.tolist() == sorted(values.tolist())


def test_counts_of_one_feature_are_of_no_pair():
    assert [part.tolist() for part in jaccard_counts(torch.tensor([[1, 2]]))] == [[0.0], [0]]


def test_more_pairs_than_fit_are_an_error_that_names_the_way_out(monkeypatch):
    monkeypatch.setattr(uniqueness, "_MOST_PAIRS", 10)
    with pytest.raises(ValueError, match="let jaccard_counts count them"):
        jaccard(torch.zeros(6, 1, dtype=torch.long))


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
