"""Depths of lowest common ancestors against loops over pairs, clades against counting, levels against their rows."""

import random
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import torch

from experiments.hierarchy import by_level, clades, lca_depth, majority_depth, parents
from menagerie import TAXONOMY

MENAGERIE = [species.path for species in TAXONOMY.values()]


def common(a, b):
    """Length of the common beginning of two paths."""
    depth = 0
    while depth < min(len(a), len(b)) and a[depth] == b[depth]:
        depth += 1
    return depth


def pair_depths(row, paths):
    """Depths of all pairs, or None for a row with a missing image."""
    return None if min(row) < 0 else [common(paths[a], paths[b]) for a, b in combinations(row, 2)]


def random_paths(seed, n=40):
    """Paths of different lengths, some empty, whose taxa have namesakes below other ancestors."""
    rng = random.Random(seed)
    return [tuple(rng.choice("ab") + str(rank) for rank in range(rng.choice([0, 2, 3, 5]))) for _ in range(n)]


def random_top(seed, n_images=40, n_features=60, k=5):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-1 if seed % 2 else 0, n_images, (n_features, k), generator=generator)


@pytest.mark.parametrize("seed", range(10))
def test_mean_depth_equals_that_of_a_loop_over_pairs(seed):
    paths, top = random_paths(seed), random_top(seed)
    loops = [pair_depths(row, paths) for row in top.tolist()]
    expected = torch.tensor([np.nan if depths is None else np.mean(depths) for depths in loops], dtype=torch.double)
    torch.testing.assert_close(lca_depth(top, paths), expected, equal_nan=True, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_majority_depth_is_the_commonest_of_a_loop_over_pairs(seed):
    paths, top = random_paths(seed), random_top(seed, k=4)
    for row, found in zip(top.tolist(), majority_depth(top, paths).tolist(), strict=True):
        depths = pair_depths(row, paths)
        if depths is None:
            assert np.isnan(found)
        else:
            counts = Counter(depths)
            assert found == min(depth for depth in counts if counts[depth] == max(counts.values()))


def test_rounding_the_depth_is_what_python_makes_of_a_loops_mean():
    paths = [("a",), ("a", "b"), ("a", "b"), ("c",), ("a", "b", "d", "e"), ("a", "b", "d", "e")]
    top = torch.tensor([*combinations(range(6), 3), (4, 4, 4), (1, 2, 4)])
    rounded = [round(np.mean(pair_depths(row, paths))) for row in top.tolist()]
    assert lca_depth(top, paths).round().tolist() == rounded
    halves = torch.tensor([[1, 1, 1, 3], [4, 4, 4, 1]])  # means of 1 and of 3; then exact halves
    assert lca_depth(halves, paths).tolist() == [1.0, 3.0]
    half = torch.tensor([[0, 3, 0, 0], [1, 1, 1, 0]])
    assert lca_depth(half, paths).tolist() == [0.5, 1.5]
    assert lca_depth(half, paths).round().tolist() == [round(0.5), round(1.5)] == [0, 2]


def test_images_of_one_species_lie_as_deep_as_the_tree():
    assert lca_depth(torch.full((1, 16), 3), MENAGERIE).tolist() == [7.0]


def test_duck_and_swan_share_their_family_and_duck_and_cat_their_phylum():
    duck, swan, cat = (list(TAXONOMY).index(name) for name in ("duck", "swan", "cat"))
    assert lca_depth(torch.tensor([[duck, swan], [duck, cat]]), MENAGERIE).tolist() == [5.0, 2.0]


def test_an_image_without_a_path_shares_no_ancestor():
    assert lca_depth(torch.tensor([[0, 1], [1, 1]]), [("a",), ()]).tolist() == [0.0, 0.0]


def test_namesakes_below_different_ancestors_are_different_taxa():
    assert lca_depth(torch.tensor([[0, 1]]), [("a", "x"), ("b", "x")]).tolist() == [0.0]


def test_features_without_enough_images_are_excluded():
    assert lca_depth(torch.tensor([[0, -1], [-1, -1]]), [("a",)]).isnan().all()
    assert lca_depth(torch.tensor([[0], [1]]), [("a",), ("b",)]).isnan().all()


def test_a_clade_is_the_narrowest_taxon_that_holds_enough_images():
    paths = [("animal", "bird", "duck"), ("animal", "bird", "owl"), ("animal", "cat"), ()]
    rows = torch.tensor([[0, 0, 0, 1], [0, 1, 1, 2], [0, 0, 2, 2], [3, 3, 3, 0], [0, 0, -1, -1], [-1, -1, -1, -1]])
    wide = [("animal", "bird", "duck"), ("animal", "bird"), ("animal",), (), ("animal", "bird", "duck"), ()]
    assert clades(rows, paths, share=0.75) == wide
    assert clades(rows, paths, share=1) == [("animal", "bird"), ("animal",), ("animal",), (), wide[4], ()]


@pytest.mark.parametrize("seed", range(5))
def test_clades_equal_those_of_counting_every_prefix(seed):
    paths, top = random_paths(seed), random_top(seed)
    for row, found in zip(top.tolist(), clades(top, paths, share=0.6), strict=True):
        shown = [paths[i] for i in row if i >= 0]
        counts = Counter(path[:depth] for path in shown for depth in range(1, len(path) + 1))
        held = [taxon for taxon, count in counts.items() if count >= 0.6 * len(shown)]
        assert found == max(held, key=len, default=())


def test_one_single_image_is_its_own_clade():
    assert clades(torch.tensor([[-1, 0, -1]]), [("a", "b")]) == [("a", "b")]


@pytest.mark.parametrize("layout", [torch.strided, torch.sparse_csr])
@pytest.mark.parametrize("seed", range(5))
def test_a_parent_is_the_feature_of_the_level_before_with_the_highest_conditional_activation(seed, layout):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.rand(50, 20, generator=generator) * (torch.rand(50, 20, generator=generator) < 0.3)
    codes[:, [4, 17]] = 0
    found = parents(codes.to_sparse_csr() if layout == torch.sparse_csr else codes, (3, 8, 20))
    active = codes > 0
    for child in range(20):
        above = range(3) if child in range(3, 8) else range(3, 8) if child >= 8 else ()
        options = []
        for parent in above:
            if active[:, child].any() and active[:, parent].any():
                share = float(active[active[:, child], parent].double().mean())
                options.append((share, share / float(active[:, parent].double().mean()), -parent))
        share, lift, parent = max([option for option in options if option[1] > 1], default=(np.nan, np.nan, 1))
        assert int(found.feature[child]) == -parent
        assert [float(found.conditional[child]), float(found.lift[child])] == pytest.approx([share, lift], nan_ok=True)


def test_a_feature_that_is_always_active_is_no_parent():
    codes = torch.tensor([[1.0, 0, 1], [1, 0, 0], [1, 1, 1]])
    assert parents(codes, (1, 3)).feature.tolist() == [-1, -1, -1]
    assert parents(codes, (2, 3)).feature.tolist() == [-1, -1, 1]


def test_levels_count_living_dead_and_excluded_features():
    values = torch.tensor([1.0, 3.0, torch.nan, 5.0, torch.nan, 7.0])
    alive = torch.tensor([True, True, True, True, False, False])
    coarse, fine = by_level(values, (2, 6), alive)
    assert coarse == {
        "level": 0, "start": 0, "end": 2, "mean": 2, "std": 1, "max": 3, "min": 1, "live": 2, "dead": 0, "excluded": 0
    }  # fmt: skip
    assert (fine["mean"], fine["live"], fine["dead"], fine["excluded"]) == (5, 1, 2, 1)


def test_a_level_without_a_living_feature_has_no_mean():
    level = by_level(torch.tensor([2.0]), (1,), torch.tensor([False]))[0]
    assert np.isnan(level["mean"])
    assert level["dead"] == 1


@pytest.mark.parametrize("ends", [(2,), (3, 2, 4), (2, 2, 4)])
def test_levels_must_rise_to_the_number_of_features(ends):
    with pytest.raises(ValueError, match="rising widths up to F = 4"):
        by_level(torch.zeros(4), ends, torch.ones(4, dtype=torch.bool))


def test_an_image_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="name image 5"):
        lca_depth(torch.tensor([[0, 5]]), [("a",)])


def test_images_must_be_integers():
    with pytest.raises(ValueError, match="integers"):
        lca_depth(torch.rand(2, 2), [("a",)])


@pytest.mark.parametrize("share", [0.5, 1.1])
def test_a_share_that_two_taxa_could_hold_is_an_error(share):
    with pytest.raises(ValueError, match=r"more than 0\.5"):
        clades(torch.tensor([[0]]), [("a",)], share)
