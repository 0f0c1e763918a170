"""Pairs of features that show the same pictures: by hand on four features, and intervals against drawing them anew."""

import math
from collections import Counter
from itertools import combinations

import pytest
import torch
from PIL import Image

from experiments import overlaps
from experiments.figures import top_image_overlap as figures
from experiments.overlaps import Overlaps, by_chance, describe_paper, overlap_table, paper_by_chance, share_above
from experiments.published import UNIQUENESS
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


def test_features_without_all_their_pictures_are_left_out(found):
    assert found.full.tolist() == [0, 1, 2, 4]
    assert found.pairs.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert found.index.tolist() == pytest.approx([1, 1 / 3, 1 / 3])
    assert found.row()["excluded"] == 1
    assert (found.row()["pairs"], found.row()["pairs with J > 0"], found.row()["pairs with J > 0.5"]) == (6, 3, 1)


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


def test_the_papers_row_stands_last(found):
    table = overlap_table({"topk ×1": found})
    assert table["dictionary"].tolist() == ["topk ×1", "the paper's matryoshka ×16"]
    assert table["blind"].tolist() == [by_chance(6, 2), paper_by_chance()]
    assert math.isnan(table["dealt anew"].iloc[1])


def test_it_is_said_how_many_pairs_overlap(found):
    share, alone = found.describe("topk ×1"), Overlaps(TOP[3:], 6, DECODER[3:]).describe("topk ×1")
    assert share[0].startswith(
        "In topk ×1, pairs with a common picture are **0.8 times** as many as uniform draws give"
    )
    assert "**1** pairs" in share[1]
    assert alone == ["topk ×1 has fewer than two features with 2 pictures, so there is no pair."]
    assert found.describe_directions().endswith("index above 0.5: **1.00**, of all pairs 0.50.")
    assert (
        Overlaps(TOP[3:], 6, DECODER[3:]).describe_directions().endswith("over 0 pairs with a common picture: **–**.")
    )


def test_its_figures_name_their_axes_and_show_pairs_in_two_rows(found):
    alone, pictures = Overlaps(TOP[3:], 6, DECODER[3:]), [Image.new("RGB", (8, 8))] * 6
    drawn = figures.share_of_pairs({1: found}, "topk", NOTHING)
    assert axis_titles(drawn) == {"Jaccard index", "share of pairs with this index or more"}
    assert drawn.data[0].y.tolist() == pytest.approx([3 / 6, 1 / 6])
    assert axis_titles(figures.cosine_over_index(found, 2, NOTHING)) == {
        "Jaccard index of the top pictures (slightly spread)", "cosine of decoder directions",
    }  # fmt: skip
    assert [text.text for text in figures.most_alike(pictures, found, 2, NOTHING).layout.annotations] == [
        "<b>J 1.00</b><br>#0", "cos 1.00<br>#1", "<b>J 0.33</b><br>#0", "cos 0.00<br>#2",
    ]  # fmt: skip
    for empty in (
        figures.share_of_pairs({1: alone}, "topk", NOTHING),
        figures.cosine_over_index(alone, 2, NOTHING),
        figures.most_alike(pictures, alone, 2, NOTHING),
    ):
        assert empty.layout.annotations[0].text == NOTHING
