"""Dictionaries from two seeds, by hand: four features on twenty pictures, of which the second seed has two swapped."""

import math

import pandas as pd
import pytest
import torch
from PIL import Image

from experiments.figures import seed_stability as figures
from experiments.figures.panels import picture_rows
from experiments.ground_truth import Facts
from experiments.reseeded import CODES, DIRECTIONS, MATCHED_BY, Reseeded, keys_of
from experiments.stable_features import Stability, beside_nulls, describe_beside, describe_seeds, spread_over_seeds
from lib import SAE, SAEConfig, metrics
from lib.metrics.intervals import Interval
from tests.test_figures import axis_titles

NOTHING = "Nothing to see."
OWL = torch.arange(20) < 10
SWAPPED = [1, 0, 2, 3]
"""The second seed's features, as those of the first."""


def small_codes():
    """Active on owls, on others, on the first three pictures; the last one is dead."""
    strength = 1 + torch.arange(20) / 20
    return torch.stack([OWL * strength, ~OWL * strength, (torch.arange(20) < 3) * 1.0, torch.zeros(20)], dim=1)


@pytest.fixture
def found():
    codes, decoder = small_codes(), torch.eye(4)
    turned = decoder[SWAPPED].clone()
    turned[2] = torch.tensor([0, 0, 0.6, 0.8])
    both = {("topk", 0): codes.to_sparse_csr(), ("topk", 1): codes[:, SWAPPED].to_sparse_csr()}
    return Reseeded(both, {("topk", 0): decoder, ("topk", 1): turned})


@pytest.fixture
def stability(found):
    judge = torch.stack([OWL, ~OWL], dim=1).float()
    return Stability(found, {"eye": judge, "facts": judge}, Facts(["owl", "other"], torch.stack([OWL, ~OWL], 1)), 4, 20)


@pytest.fixture
def nothing():
    codes = torch.zeros(20, 4).to_sparse_csr()
    dead = Reseeded(
        dict.fromkeys([("topk", 0), ("topk", 1)], codes), dict.fromkeys([("topk", 0), ("topk", 1)], torch.eye(4))
    )
    return Stability(dead, {"eye": torch.eye(20)}, Facts([], torch.zeros(20, 0, dtype=torch.bool)), 4, 20)


def test_each_kind_has_each_seed_once_and_one_seed_is_nothing_to_compare():
    assert keys_of(["topk", "relu", "topk"], [0, 1, 0]) == [("topk", 0), ("topk", 1), ("relu", 0), ("relu", 1)]
    with pytest.raises(ValueError, match=r"seeds is \[3, 3\]: name two or more"):
        keys_of(["topk"], [3, 3])


def test_features_are_matched_by_what_they_write_and_by_when_they_fire(found):
    assert found.pairs == [("topk", 0, 1)]
    assert found.partners(DIRECTIONS, ("topk", 0, 1)).tolist() == [1, 0, 2, -1], "the dead have no partner"
    assert found.partners(CODES, ("topk", 0, 1)).tolist() == [1, 0, 2, -1]
    assert found.same_partner("topk") == 1
    cosine = found.mean_to_partners(DIRECTIONS, ("topk", 1))
    torch.testing.assert_close(cosine, torch.tensor([1, 1, 0.6, math.nan]), equal_nan=True)
    assert found.agreement(20).value == pytest.approx(2.6 / 3)


def test_a_table_has_the_mean_of_the_pairs_and_what_chance_gives(found):
    table = found.table().set_index("by")
    assert list(table.index) == list(MATCHED_BY)
    assert table.loc[DIRECTIONS, ["mean", "least pair", "above 0.7"]].tolist() == pytest.approx(
        [2.6 / 3, 2.6 / 3, 2 / 3]
    )
    assert table.loc[CODES, "mean"] == pytest.approx(1)
    assert table.loc[CODES, "mean by chance"] < 0.9
    assert found.live().loc["topk"].tolist() == [3, 3, 4]


def test_means_over_three_seeds_are_over_the_partners_in_the_other_two():
    codes = small_codes().to_sparse_csr()
    decoders = {("topk", seed): torch.eye(4) for seed in range(3)}
    decoders["topk", 2] = torch.eye(4) + 0.75 * torch.eye(4).roll(1, 1)  # a cosine of 0.8
    found = Reseeded(dict.fromkeys(decoders, codes), decoders)
    assert found.mean_to_partners(DIRECTIONS, ("topk", 0))[:3].tolist() == pytest.approx([0.9] * 3)
    assert len(found.of_kind(CODES, "topk")) == 3


def test_every_live_feature_is_described(stability):
    rows = stability.features.set_index(["seed", "feature"])
    assert rows.index.tolist() == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    owls = rows.loc[(1, 1)]
    assert (owls["fact"], owls["F1"], owls["pictures"], owls[stability.main]) == ("owl", 1, 10, 1)
    assert len(stability.enough) == 4


def test_what_goes_with_stability_is_a_rank_correlation_by_kind(stability):
    found = stability.goes_with()["topk"]
    assert list(found) == [
        "frequency", "MS, E = eye", "MS, E = facts", "MS, E = eye, within fifths of frequency", "F1 of the best fact",
    ]  # fmt: skip
    assert found["frequency"].value == pytest.approx(1), "the rare one differs"
    assert stability.describe_two_matchings()[0].startswith("topk: the same partner for **100%**")


def test_partners_mean_the_same_where_their_best_facts_are_one(stability, found):
    assert stability.named[["left", "right", "fact", "same"]].values.tolist() == [[0, 1, "owl", 1], [1, 0, "other", 1]]
    assert stability.same_fact() == {"topk": 1}
    assert stability.same_fact_by_chance() == {"topk": 0.5}
    assert stability.describe_facts() == ["topk: **100%**, by chance 50%"]


def test_the_first_seeds_most_and_least_stable_features_stand_above_their_partners(stability):
    rows = stability.most_and_least("topk")
    assert [title.split("<br>")[0] for title in rows] == [
        "<b>seed 0</b> #1", "<b>seed 1</b> #0", "<b>seed 0</b> #0", "<b>seed 1</b> #1",
    ]  # fmt: skip
    assert next(iter(rows)).endswith("<br>cosine 1.00<br>MS 1.00, E = eye")
    assert all(len(row) == 8 for row in rows.values())
    few = Stability(stability.found, stability.judges, stability.facts, 2, 20).most_and_least("topk")
    assert list(few.values())[-1] == [0, 1, 2, -1, -1, -1, -1, -1]
    drawn = picture_rows([Image.new("RGB", (8, 8))] * 20, few, NOTHING)
    assert len(drawn.layout.images) == 2 * 8 + 2 * 3, "no picture stands where a feature is not active"


def test_figures_move_from_seed_to_seed(stability):
    headlines = stability.headlines({("topk", 0): 0.5, ("topk", 1): 0.7})
    assert headlines["topk", 0]["dead"].value == 0.25
    moves = spread_over_seeds(headlines).set_index("figure")
    assert moves.loc["explained variance", "s.d. over seeds"] == pytest.approx(0.2 / math.sqrt(2))
    assert math.isnan(moves.loc["explained variance", "± bootstrap"])
    assert moves.loc["best MS, E = eye", ["lowest", "highest"]].tolist() == [1, 1]
    spread = spread_over_seeds({("topk", 0): {"mean": Interval(1, 0, 2)}, ("topk", 1): {"mean": Interval(3, 2, 6)}})
    assert spread["± bootstrap"].tolist() == [1.5]
    told = describe_seeds(stability, stability.goes_with(), moves.reset_index())
    assert told[0].startswith("topk: matched directions have a mean cosine of **0.87** (by chance ")
    assert "The mean score moves by 0.000 (s.d.) from seed to seed." in told[0]


def test_dictionaries_are_measured_on_the_same_activations():
    saes = {("topk", seed): SAE(SAEConfig(kind="topk", width=12, k=2, seed=seed), 6) for seed in range(2)}
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    found = Reseeded.of(saes, x)
    assert torch.equal(found.codes["topk", 1].to_dense(), saes["topk", 1].encode(x))
    assert torch.equal(found.decoders["topk", 1], saes["topk", 1].W_dec)
    assert not found.decoders["topk", 1].requires_grad


def test_features_stand_beside_nulls_whose_seeds_share_nothing(stability):
    codes = dict(stability.found.codes)
    codes["topk", 1] = torch.roll(codes["topk", 1].to_dense(), 5, 0).to_sparse_csr()  # owls and others half and half
    turned = torch.tensor([[1.0, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]]) / 2
    chance = Reseeded(codes, stability.found.decoders | {("topk", 1): turned})
    null = Stability(chance, stability.judges, stability.facts, 4, 20)
    beside = beside_nulls({"features": stability, "chance": null})
    own, other = beside.iloc[0], beside.iloc[1]
    assert (own["kind"], own["cosine"], own["same fact"]) == ("topk", pytest.approx(2.6 / 3), 1)
    assert own["same fact by chance"] == 0.5
    assert (other["codes"], other["cosine"]) == ("chance", pytest.approx(0.5))
    assert other["correlation"] < 0.5 < own["correlation"]
    told = describe_beside(beside, "topk")
    assert told[0] == "Two seeds of topk agree by cosine to **0.87**, nulls: chance 0.50. Nulls that reach it: none."
    swapped = beside_nulls({"features": null, "agreeing": stability})
    assert describe_beside(swapped, "topk")[0].endswith("nulls: agreeing 0.87. Nulls that reach it: agreeing.")


def test_its_figures_name_their_axes_and_take_nothing(stability, nothing):
    headlines = stability.headlines({("topk", 0): 0.5, ("topk", 1): 0.7})
    assert axis_titles(figures.similarities(stability.found)) == {"at least this similar", "share of matched pairs"}
    assert axis_titles(figures.cosine_by_quintile(stability, NOTHING)) == {"quintile", "mean cosine to the partners"}
    assert axis_titles(figures.cosine_and_correlation(stability, NOTHING)) == {
        "mean cosine to the partners matched by direction", "mean correlation with those matched by codes",
    }  # fmt: skip
    shown = figures.mean_scores(headlines, ["eye", "facts"], NOTHING)
    assert [list(trace.x) for trace in shown.data] == [["seed 0", "seed 1"]] * 2
    figures.similarities(nothing.found).to_json()
    none = nothing.headlines(dict.fromkeys(nothing.found.codes, 0.0))
    for empty in (
        figures.cosine_by_quintile(nothing, NOTHING),
        figures.cosine_and_correlation(nothing, NOTHING),
        figures.same_fact_by_cosine(nothing, NOTHING),
        figures.mean_scores(none, ["eye"], NOTHING),
        picture_rows([], nothing.most_and_least("topk"), NOTHING),
    ):
        assert empty.layout.annotations[0].text == NOTHING
    assert nothing.describe_facts() == ["topk: **–**, by chance –"]


def test_a_point_takes_ten_pairs(stability, monkeypatch):
    rows = {"kind": "topk", "cosine": [0.95] * 10 + [0.4] * 9, "fact": "owl", "same": [1.0] * 5 + [0.0] * 14}
    monkeypatch.setattr(Stability, "named", pd.DataFrame(rows))
    points = figures.same_fact_by_cosine(stability, NOTHING).data[0]
    assert list(points.x) == ["above 0.9"]
    assert list(points.y) == [0.5]
    assert metrics.mean_interval(torch.tensor(rows["same"][:10]), 20).low == pytest.approx(
        0.5 - points.error_y.arrayminus[0]
    )
