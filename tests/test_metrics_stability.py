"""Matchings against all permutations, and on dictionaries whose agreement is known."""

from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lib.metrics import match_codes, match_directions, random_directions, shuffled_codes


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def directions(n=6, d=4, seed=0):
    return torch.randn(n, d, generator=generator(seed))


def codes(n=200, f=6, density=0.2, seed=0):
    values = torch.rand(n, f, generator=generator(seed))
    return torch.where(torch.rand(n, f, generator=generator(seed + 1)) < density, values, 0)


def best_mean(table):
    """Over every way of giving the rows of a table (n, m) different columns."""
    n, m = table.shape
    return max(np.mean([table[i, j] for i, j in enumerate(order)]) for order in permutations(range(m), n))


def cosines(a, b):
    return np.array([[float(F.cosine_similarity(x, y, dim=0)) for y in b] for x in a])


def correlations(a, b):
    return np.array([[np.corrcoef(x, y)[0, 1] for y in b.T.numpy()] for x in a.T.numpy()])


def assert_pairs_are_worth(matching, table):
    left, right = matching.left.tolist(), matching.right.tolist()
    assert len(set(left)) == len(set(right)) == len(left)
    np.testing.assert_allclose(
        matching.similarity.numpy(), [table[i, j] for i, j in zip(left, right, strict=True)], atol=1e-6
    )


@pytest.mark.parametrize("sizes", [(6, 6), (4, 7), (7, 4)])
def test_directions_are_matched_as_the_best_permutation_does(sizes):
    a, b = directions(sizes[0], seed=0), directions(sizes[1], seed=1)
    matching, table = match_directions(a, b), cosines(a, b)
    assert_pairs_are_worth(matching, table)
    assert matching.mean == pytest.approx(best_mean(table if sizes[0] <= sizes[1] else table.T), abs=1e-6)
    assert matching.bound == pytest.approx(matching.mean)


@pytest.mark.parametrize("layout", ["dense", "csr"])
def test_codes_are_matched_as_the_best_permutation_does(layout):
    a, b = codes(f=5, seed=0), codes(f=6, seed=3)
    table = correlations(a, b)
    given = (a, b) if layout == "dense" else (a.to_sparse_csr(), b.to_sparse_csr())
    matching = match_codes(*given)
    assert_pairs_are_worth(matching, table)
    assert matching.mean == pytest.approx(best_mean(table), abs=1e-6)


def test_a_dictionary_and_a_permutation_of_it_agree_wholly():
    order = torch.randperm(50, generator=generator())
    a, c = directions(50, 16), codes(f=50)
    for matching in (match_directions(a, a[order] * 3), match_codes(c, c[:, order] * 3)):
        assert order[matching.right].tolist() == matching.left.tolist()
        assert matching.mean == pytest.approx(1, abs=1e-6)
        assert matching.share_above(0.9) == 1


def test_planted_noise_is_found_again():
    a = F.normalize(directions(40, 64), dim=1)
    order = torch.randperm(40, generator=generator(5))
    matching = match_directions(a, (a + 0.05 * directions(40, 64, seed=2))[order])
    assert order[matching.right].tolist() == list(range(40))
    assert 0.85 < matching.mean < 0.99


def test_a_direction_and_its_opposite_are_not_alike():
    assert match_directions(torch.eye(3), -torch.eye(3)).mean == pytest.approx(0)


def test_features_that_are_dead_take_no_part():
    a, b = directions(6), directions(6, seed=1)
    alive_a, alive_b = torch.tensor([1, 1, 0, 1, 1, 1]).bool(), torch.tensor([1, 0, 1, 1, 0, 1]).bool()
    matching = match_directions(a, b, alive_a, alive_b)
    assert set(matching.left.tolist()) <= {0, 1, 3, 4, 5}
    assert set(matching.right.tolist()) == {0, 2, 3, 5}
    assert matching.mean == pytest.approx(best_mean(cosines(a, b)[np.ix_(alive_a, alive_b)].T), abs=1e-6)


def test_codes_that_never_vary_take_no_part():
    a = codes()
    a[:, 2], a[:, 4] = 0, 0.3
    assert match_codes(a, a).left.tolist() == [0, 1, 3, 5]


def test_without_a_live_feature_there_is_nothing_to_report():
    matching = match_codes(torch.zeros(5, 3), codes(5, 3, 1.0))
    assert len(matching.left) == 0
    assert np.isnan([matching.mean, matching.share_above(0.7), matching.bound]).all()


def test_partners_name_every_feature_of_the_first_dictionary():
    a, alive = directions(5), torch.tensor([1, 0, 1, 1, 1]).bool()
    assert match_directions(a, a, alive, alive).partners(5).tolist() == [0, -1, 2, 3, 4]


@pytest.mark.parametrize("k", [1, 2, 8, 300])
def test_candidates_bracket_the_exact_matching(k):
    a = directions(300, 24)
    b = (a + 0.6 * directions(300, 24, seed=1))[torch.randperm(300, generator=generator(2))]
    exact, found = match_directions(a, b), match_directions(a, b, exact_up_to=20, candidates=k)
    assert sorted(found.right.tolist()) == list(range(300))
    assert_pairs_are_worth(found, (F.normalize(a, dim=1) @ F.normalize(b, dim=1).t()).numpy())
    assert found.mean <= exact.mean + 1e-6 <= found.bound + 2e-6
    assert found.mean > exact.mean - (0.03 if k == 1 else 0.01)


def test_enough_candidates_find_the_exact_matching():
    a = directions(300, 24)
    b = a + 0.3 * directions(300, 24, seed=1)
    exact, found = match_directions(a, b), match_directions(a, b, exact_up_to=20, candidates=32)
    assert found.mean == pytest.approx(exact.mean, abs=1e-6)
    assert found.bound == pytest.approx(exact.mean, abs=1e-3)


@pytest.mark.parametrize("sizes", [(90, 130), (130, 90)])
def test_candidates_serve_codes_and_dictionaries_of_two_sizes(sizes):
    a, b = codes(f=sizes[0]).to_sparse_csr(), codes(f=sizes[1], seed=3).to_sparse_csr()
    exact, found = match_codes(a, b), match_codes(a, b, exact_up_to=20, candidates=16)
    assert len(found.left) == 90
    assert exact.mean - 0.02 < found.mean <= exact.mean + 1e-6 <= found.bound + 2e-6


def test_random_directions_share_the_covariance_and_nothing_else():
    scale = torch.linspace(2, 0.5, 64)
    like = F.normalize(directions(3000, 64) * scale + 0.5, dim=1)
    drawn = random_directions(like, seed=1)
    torch.testing.assert_close(torch.linalg.vector_norm(drawn, dim=1), torch.ones(3000))
    torch.testing.assert_close(drawn.mean(0), like.mean(0), atol=0.01, rtol=0)
    torch.testing.assert_close(drawn.t().cov(), like.t().cov(), atol=0.004, rtol=0)
    assert like.t().cov().diagonal()[0] > 0.02, "the tolerance could not tell the axes apart"
    assert match_directions(like[:100], drawn[:100]).mean < 0.6
    assert not torch.equal(drawn, random_directions(like, seed=2))


def test_shuffled_codes_keep_each_features_values_and_lose_its_rows():
    a = codes(400, 30).to_sparse_csr()
    shuffled = shuffled_codes(a, seed=1)
    torch.testing.assert_close(shuffled.to_dense().sort(0).values, a.to_dense().sort(0).values)
    assert match_codes(a, shuffled).mean < 0.3
    pairs = np.corrcoef(shuffled.to_dense().T.numpy())[np.triu_indices(30, 1)]
    assert abs(pairs.mean()) < 0.02, "features no longer know of each other"


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="one d"):
        match_directions(directions(3, 4), directions(3, 5))
    with pytest.raises(ValueError, match="alive mask"):
        match_directions(torch.zeros(2, 3), directions(2, 3))
    with pytest.raises(ValueError, match="bool tensor"):
        match_directions(directions(3), directions(3), alive_b=torch.ones(3))
    with pytest.raises(ValueError, match="same rows"):
        match_codes(codes(10), codes(11))
