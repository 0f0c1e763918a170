"""Levels of two dictionaries of six features on eight pictures, by hand: one of two features, one of four."""

import math

import pandas as pd
import pytest
import torch

from experiments.feature_taxa import FeatureTaxa, TreeAgreement
from experiments.figures import prefix_levels as figures
from experiments.hierarchy import Parents
from experiments.levels import ORDERS, Levels, describe_trends
from tests.test_figures import axis_titles

NOTHING = "Nothing to see."
ACTIVE = {"Matryoshka": [8, 6, 3, 2, 1, 0], "BatchTopK": [1, 2, 0, 8, 6, 3]}  # pictures of each feature
VALUES = {
    "Matryoshka": torch.tensor([1.0, 2, 3, 4, math.nan, math.nan]),
    "BatchTopK": torch.tensor([math.nan, 1.0, math.nan, 4, 3, 2]),
}


def codes(active):
    return (torch.arange(8)[:, None] < torch.tensor(active)).float()


@pytest.fixture
def levels():
    return Levels({name: codes(active) for name, active in ACTIVE.items()}, [2, 6], 20, 99)


@pytest.mark.parametrize(("order", "expected"), [
    ("Matryoshka", [1, 2, 3, 4, math.nan, math.nan]),
    ("Matryoshka, by frequency", [1, 2, 3, 4, math.nan, math.nan]),
    ("BatchTopK, by index", [math.nan, 1, math.nan, 4, 3, 2]),
    ("BatchTopK, by frequency", [4, 3, 2, 1, math.nan, math.nan]),
])  # fmt: skip
def test_features_stand_in_their_own_order_or_the_most_frequent_first(levels, order, expected):
    torch.testing.assert_close(levels.sorted(VALUES, order), torch.tensor(expected).float(), equal_nan=True)
    assert [len(part) for part in levels.parts(VALUES, order)] == [2, 4]


def test_both_dictionaries_are_cut_at_the_same_places(levels):
    assert levels.of_feature.tolist() == [0, 0, 1, 1, 1, 1]
    rows = levels.summary(VALUES, "Matryoshka")
    assert rows[["mean", "live", "dead", "excluded"]].values.tolist() == [[1.5, 2, 0, 0], [3.5, 2, 1, 1]]
    assert levels.summary(VALUES, "BatchTopK, by frequency")["mean"].tolist() == [3.5, 1.5]


def test_a_table_has_other_means_and_the_activity_beside_its_values(levels):
    table = levels.table(VALUES, "Matryoshka", {"twice": {name: 2 * v for name, v in VALUES.items()}})
    assert list(table)[-2:] == ["twice", "active on"]
    assert table["twice"].tolist() == [3, 7]
    assert table["active on"].tolist() == pytest.approx([7 / 8, 6 / 32])


def test_what_rises_from_level_to_level_has_a_positive_difference_and_effect(levels):
    rising, falling = (levels.last_minus_first(VALUES, order) for order in ("Matryoshka", "BatchTopK, by frequency"))
    assert (rising.value, falling.value) == (2, -2)
    assert [interval.value for interval in levels.means(VALUES, "Matryoshka")] == [1.5, 3.5]
    trends = levels.trends(VALUES)
    assert list(trends.index) == [*ORDERS, "Matryoshka, equally frequent"]
    assert trends["effect"].tolist()[:4] == [1, 1, -1, 1]
    assert trends["features"].tolist()[:4] == [4, 4, 4, 4]


def test_a_trend_counts_only_where_levels_dealt_by_lot_give_less():
    tests = pd.DataFrame({"effect": [0.5, -0.5, 0.5, math.nan], "p": [0.01, 0.01, 0.2, 1]}, index=list("abcd"))
    assert describe_trends("Depth", tests) == [
        "Depth, a: **rises with the level** (effect +0.50, p = 0.0100).",
        "Depth, b: **falls with the level** (effect -0.50, p = 0.0100).",
        "Depth, c: no more of a trend than shuffled levels give (effect +0.50, p = 0.2000).",
        "Depth, d: not enough features with a value to compare levels.",
    ]


def test_the_correlation_with_frequency_is_said(levels):
    assert levels.frequency_falls() == "Rank correlation of Matryoshka's level and frequency: **-0.83**."


OWL, DUCK, BIRD, CAT = ("animal", "bird", "owl"), ("animal", "bird", "duck"), ("animal", "bird"), ("animal", "cat")


@pytest.fixture
def placed():
    known = torch.tensor([True, True, True, True, True, False])
    return FeatureTaxa([BIRD, (), OWL, DUCK, CAT, ("animal",)], torch.tensor([0, 0, 1, 1, 1, 1]), known, 3)


def test_ranks_are_shares_of_the_known_features_of_a_level(placed):
    ranks = placed.ranks()
    assert ranks.columns.tolist() == ["none", "rank 1", "rank 2", "rank 3"]
    assert ranks.loc[0].tolist() == [0.5, 0, 0.5, 0]
    assert ranks.loc[1].tolist() == pytest.approx([0, 0, 1 / 3, 2 / 3])
    assert FeatureTaxa([()], torch.zeros(1), torch.tensor([True]), 7).ranks().columns[-1] == "species"


def test_a_taxon_holds_the_features_of_the_taxa_below_it(placed):
    found = placed.by_taxon()
    assert found[BIRD] == ([0, 1, 1], 1)
    assert found["animal",] == ([0, 1, 1, 1], 0)
    assert found[()] == ([0, 0, 1, 1, 1], 1)
    assert placed.by_taxon().keys() == {(), ("animal",), BIRD, OWL, DUCK, CAT}


def test_a_tree_follows_the_taxonomy_where_features_lie_inside_their_parents(placed):
    family = Parents(
        torch.tensor([-1, -1, 0, 0, 0, 0]), torch.full((6,), 0.5), torch.tensor([math.nan, math.nan, 2, 4, 6, 8])
    )
    followed = placed.agreement_with(family)
    assert (followed.linked, followed.pairs, followed.lift) == (4, 3, 4)
    assert followed.inside == pytest.approx(2 / 3), "owl and duck are birds, the cat is none"
    assert followed.by_chance == pytest.approx(2 / 3), "all have one parent, whoever it is dealt to"
    nobody = Parents(torch.full((6,), -1), *torch.full((2, 6), math.nan))
    assert placed.agreement_with(nobody).describe()[1].endswith("in **–**; with the same parents shuffled in –.")
    assert "**4.0 times**" in TreeAgreement(4, 4.0, 3, 0.5, 0.1).describe()[0]


def test_its_figures_name_their_axes_and_take_nothing(levels, placed):
    panels = {"depth": VALUES, "score": VALUES}
    drawn = figures.means_by_level(levels, panels, NOTHING, 1.5)
    assert axis_titles(drawn) == {"depth", "score", "level (the last ends at the full width)"}
    assert [trace.name for trace in drawn.data[:4]] == list(ORDERS)
    assert axis_titles(figures.rank_of_taxa(placed, NOTHING)) == {"rank of the feature's taxon"}
    boxes = figures.features_in_taxonomy(placed, NOTHING).data[0]
    assert dict(zip(boxes.ids, boxes.values, strict=True))["life/animal/bird"] == 3
    nowhere = FeatureTaxa([(), ()], torch.zeros(2), torch.zeros(2, dtype=torch.bool), 3)
    unknown = {name: torch.full((6,), math.nan) for name in VALUES}
    for empty in (
        figures.means_by_level(levels, {"depth": unknown}, NOTHING, 1.5),
        figures.rank_of_taxa(nowhere, NOTHING),
        figures.features_in_taxonomy(nowhere, NOTHING),
    ):
        assert empty.layout.annotations[0].text == NOTHING
