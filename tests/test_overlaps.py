"""Pairs of features that show the same pictures: by hand on four features, and intervals against drawing them anew."""

import math
from collections import Counter
from itertools import combinations

import pytest
import torch
from PIL import Image

from experiments import overlaps
from experiments.figures import top_image_overlap as figures
from experiments.nulls import sparse_directions
from experiments.overlaps import (
    BOUNDS,
    OVER_UNIFORM,
    Overlaps,
    beside_nulls,
    by_chance,
    describe_beside,
    describe_paper,
    least_common,
    overlap_table,
    paper_by_chance,
    share_above,
)
from experiments.published import UNIQUENESS
from lib.features.one_pass import top_images
from tests.test_figures import axis_titles

NOTHING = "Nothing to see."
TOP = torch.tensor(
    [[0, 1], [1, 0], [1, 2], [3, -1], [4, 5]]
)  # twins, one that shares a picture, an excluded one, one alone
DECODER = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0], [1.0, 1.0], [1.0, 0.0]])


@pytest.fixture
def found():
    return Overlaps(TOP, 6, DECODER)


def random_sets(n_features=60, n_top=4, n_pictures=40):
    generator = torch.Generator().manual_seed(0)
    top = torch.stack([torch.randperm(n_pictures, generator=generator)[:n_top] for _ in range(n_features)])
    return Overlaps(top, n_pictures, torch.randn(n_features, 8, generator=generator))


def test_the_papers_pairs_are_those_of_its_features_and_its_share_is_nearly_that_of_chance():
    features = UNIQUENESS["latents"] - UNIQUENESS["excluded"]
    assert math.comb(features, 2) == UNIQUENESS["pairs"]
    assert UNIQUENESS["J > 0"] / UNIQUENESS["pairs"] == pytest.approx(paper_by_chance(), rel=0.1)
    assert "**0.021%**" in describe_paper()[0]


def test_chance_is_one_less_the_share_of_draws_that_avoid_the_set():
    assert by_chance(6, 2) == pytest.approx(1 - math.comb(4, 2) / math.comb(6, 2))


@pytest.mark.parametrize("bound", BOUNDS.values())
def test_chance_of_a_larger_overlap_is_its_share_among_all_sets(bound):
    fixed, sets = {0, 1, 2, 3}, [set(some) for some in combinations(range(9), 4)]
    above = [len(fixed & other) / len(fixed | other) > bound for other in sets]
    assert by_chance(9, 4, bound) == pytest.approx(sum(above) / len(sets))


def test_more_than_half_of_16_pictures_is_9_and_an_index_above_a_half_takes_11():
    assert [least_common(16, bound) for bound in BOUNDS.values()] == [1, 9, 11]


def test_features_without_all_their_pictures_are_left_out(found):
    assert found.full.tolist() == [0, 1, 2, 4]
    assert found.pairs.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert found.index.tolist() == pytest.approx([1, 1 / 3, 1 / 3])
    assert found.row()["excluded"] == 1
    assert [found.row()[name] for name in ("pairs", *(f"pairs with {name}" for name in BOUNDS))] == [6, 3, 1, 1]


def test_pictures_dealt_anew_are_as_many_and_each_as_often(monkeypatch, found):
    seen = []
    monkeypatch.setattr(overlaps.metrics, "jaccard_counts", lambda sets: seen.append(sets))
    assert found.counts is None
    assert found.shuffled_pictures is None
    before, after = seen
    assert before.shape == after.shape
    assert Counter(before.flatten().tolist()) == Counter(after.flatten().tolist())


def test_the_mean_cosine_is_that_of_a_loop_over_pairs():
    found = random_sets()
    unit = found.decoder / found.decoder.norm(dim=1, keepdim=True)
    loop = [float(unit[i] @ unit[j]) for i, j in combinations(range(len(unit)), 2)]
    assert found.mean_cosine == pytest.approx(sum(loop) / len(loop), abs=1e-6)
    i, j = found.pairs[3].tolist()
    assert found.cosine[3] == pytest.approx(float(unit[i] @ unit[j]), abs=1e-6)


def test_an_interval_draws_features_and_each_copy_is_in_pairs_of_its_own():
    found = random_sets()
    share = found.share_of_pairs(0, 400)
    assert share.value == pytest.approx(share_above(found.counts, 0))
    alike = torch.zeros(60, 60)
    alike[found.pairs[:, 0], found.pairs[:, 1]] = 1
    alike = alike + alike.t()
    generator, drawn = torch.Generator().manual_seed(1), []
    for _ in range(400):
        some = torch.randint(60, (60,), generator=generator)
        different = some[:, None] != some  # a feature makes no pair with a copy of itself
        drawn.append(float(alike[some][:, some].sum() / different.sum()))
    low, high = torch.tensor(drawn).quantile(torch.tensor([0.025, 0.975])).tolist()
    assert (share.low, share.high) == pytest.approx((low, high), abs=0.02)


ROWS = torch.randn(200, 8, generator=torch.Generator().manual_seed(2))


def test_random_directions_have_the_top_pictures_of_those_made_as_sparse_as_the_features():
    codes = (ROWS @ torch.randn(8, 12, generator=torch.Generator().manual_seed(3)) - 6).clamp_min_(0)
    own = Overlaps(top_images(codes, 4)[0], 200, torch.zeros(12, 8))
    sparse = top_images(sparse_directions(codes[:, own.full], ROWS, seed=5), 4)[0]
    assert 2 < len(own.full) < 12, "some features are active on fewer pictures than a set holds"
    assert own.of_directions(ROWS, seed=5).top.tolist() == sparse.tolist()


def test_directions_without_a_feature_are_none(found):
    alone = Overlaps(TOP[3:4], 6, DECODER[3:4])
    assert len(alone.of_directions(ROWS[:1]).full) == 0


def test_shares_of_sets_drawn_uniformly_are_those_of_chance():
    shares = random_sets(400).shares(200)
    assert shares[OVER_UNIFORM].low < 1 < shares[OVER_UNIFORM].high
    for name, bound in BOUNDS.items():
        assert shares[name].value == pytest.approx(by_chance(40, 4, bound), abs=0.01)


def test_the_papers_row_stands_last(found):
    table = overlap_table({"topk ×1": found}, ROWS[:6])
    assert table["dictionary"].tolist() == ["topk ×1", "the paper's matryoshka ×16"]
    assert table["uniform draws"].tolist() == [by_chance(6, 2), paper_by_chance()]
    assert table["sparse directions"][0] == share_above(found.of_directions(ROWS[:6]).counts, 0)
    assert table[["shuffled", "sparse directions", "pairs with J > 1/3"]].iloc[1].isna().all()


def test_features_stand_beside_nulls_that_overlap_as_little_and_those_that_do_not(found):
    apart = Overlaps(torch.tensor([[0, 1], [2, 3], [4, 5]]), 6, DECODER[:3])
    beside = beside_nulls(found, {"apart": apart}, 10)
    assert beside.index.tolist() == ["features", "apart", "shuffled", "uniform draws"]
    assert beside.loc["features", "J > 0"].value == 3 / 6
    assert beside.loc["features", OVER_UNIFORM].value == pytest.approx(3 / 6 / by_chance(6, 2))
    assert beside.loc["uniform draws", OVER_UNIFORM].value == pytest.approx(1)
    lines = describe_beside(beside, "topk ×1", 2)
    assert lines[0].startswith(f"topk ×1, pairs with a common picture, over those of uniform draws: **{5 / 6:.2f}**")
    assert lines[0].endswith("Nulls with as few: apart.")
    assert "pairs with 2 or more of 2 pictures in common: **16.667%**; nulls: apart 0.000%" in lines[1]


def test_it_is_said_how_many_pairs_overlap(found):
    first, *_, last = found.describe("topk ×1")
    assert first.startswith("In topk ×1, **3** of 6 pairs share 1 or more of their 2 pictures (J > 0); shuffled: ")
    assert first.endswith("uniform draws: 3.6.")
    assert last.startswith("In topk ×1, **1** of 6 pairs share 2 or more of their 2 pictures (J > 0.5)")
    alone = Overlaps(TOP[3:], 6, DECODER[3:])
    assert alone.describe("topk ×1") == ["topk ×1 has fewer than two features with 2 pictures, so there is no pair."]
    assert found.describe_directions().endswith("index above 0.5: **1.00**, of all pairs 0.50.")
    assert alone.describe_directions().endswith("over 0 pairs with a common picture: **–**.")


def test_its_figures_name_their_axes_and_show_pairs_in_two_rows(found):
    alone, pictures = Overlaps(TOP[3:], 6, DECODER[3:]), [Image.new("RGB", (8, 8))] * 6
    drawn = figures.share_of_pairs({1: found}, "topk", alone, NOTHING)
    assert axis_titles(drawn) == {"Jaccard index", "share of pairs with this index or more"}
    assert drawn.data[0].y.tolist() == pytest.approx([3 / 6, 1 / 6])
    assert axis_titles(figures.cosine_over_index(found, 2, NOTHING)) == {
        "Jaccard index of the top pictures (slightly spread)", "cosine of decoder directions",
    }  # fmt: skip
    assert [text.text for text in figures.most_alike(pictures, found, 2, NOTHING).layout.annotations] == [
        "<b>J 1.00</b><br>#0", "cos 1.00<br>#1", "<b>J 0.33</b><br>#0", "cos 0.00<br>#2",
    ]  # fmt: skip
    for empty in (
        figures.share_of_pairs({1: alone}, "topk", alone, NOTHING),
        figures.cosine_over_index(alone, 2, NOTHING),
        figures.most_alike(pictures, alone, 2, NOTHING),
    ):
        assert empty.layout.annotations[0].text == NOTHING
