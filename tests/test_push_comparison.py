"""Pushes that compete: kinds, counts, sentences and figures, with measurements made by hand."""

import math
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from experiments.figures import steerable
from experiments.push_comparison import KINDS, ComparisonSettings, PushComparison, describe_patches, ratio_of_counts
from experiments.steerability import Steerability
from lib import SAE, SAEConfig
from steering.interventions import Directions, Neurons
from tests.test_figures import axis_titles

SITES, NOTHING = ["3.resid_post", "7.resid_post"], "Nothing to see."


def made(scores, concepts):
    score, concept = torch.tensor(scores), torch.tensor(concepts)
    return Steerability(score, 2 * score, score, concept, concept, score / 2, torch.zeros(len(score), 3))


@pytest.fixture
def pushed():
    """Eight features and four neurons a site; words owl, cat and bat; features carry owl and cat, neurons owl."""
    model = SimpleNamespace(width=lambda site: 4, d_model=4, grid=(2, 2), token_kinds=("cls", "spatial"))
    saes = {site: SAE(SAEConfig(kind="topk", width=8, k=2), 4) for site in SITES}
    settings = ComparisonSettings(threshold=0.1, n_last=6, n_elsewhere=2, n=20)
    found = PushComparison(model, saes, torch.zeros(3, 1), ["owl", "cat", "bat"], torch.eye(3), settings)
    measured = {what: made([0.0, 0.05], [2, 2]) for what in KINDS}
    measured |= {
        "SAE features": made([0.5, 0.25, 0.2, 0.0], [0, 1, 1, 2]),
        "neurons": made([0.5, 0.0, 0.0, 0.0], [0, 2, 2, 2]),
    }
    for what, one in measured.items():
        found._measured[SITES[1], what, 150] = one
        found._measured[SITES[0], what, 150] = one
    return found


def test_every_kind_has_a_dictionary_and_pushes_no_more_than_it_may(pushed):
    dictionaries = [pushed.dictionary(SITES[1], what) for what in KINDS]
    assert [type(one) for one in dictionaries] == [SAE, Neurons, Directions, SAE]
    assert dictionaries[0] is not dictionaries[3]
    assert [len(pushed.some(SITES[1], what)) for what in KINDS] == [6, 4, 6, 6]
    assert len(pushed.some(SITES[0], "neurons")) == 2
    assert pushed.few == 4
    assert len(pushed.pushes(SITES[1], "neurons", 150)) == 4


def test_rows_count_what_is_steerable_and_covered(pushed):
    assert pushed.at("SAE features", 150) == pytest.approx(
        {"steerable (S)": 0.75, "steerable (S′)": 0.75, "coverage": 2, "precision": 0.11875}
    )
    row = pushed.table_row("neurons", 150)
    assert (row["pushes"], row["coverage"], row["steerable"].value) == (4, 1, 0.25)
    row = pushed.at_site(SITES[0], "SAE features", 150, "s")
    assert (row["steerable"], row["strength"]) == (0.75, "s")
    assert pushed.count_gap(150).value == pytest.approx(8 * 0.75 - 4 * 0.25)
    able = pushed.measured(pushed.last, "random directions", 150).steerable(0.1).double().mean()
    assert pushed.count_gap(150, "random directions").value == pytest.approx(8 * float(able) - 4 * 0.25)


def test_concepts_that_only_features_carry_are_named(pushed):
    only, carriers, told = pushed.only_by_features(150)
    assert (only, carriers) == ({"cat"}, 2)
    assert told.endswith("the strongest: cat. The other way round: none.")


def test_features_that_never_fire_are_left_out_of_their_own_scale(pushed, monkeypatch):
    seen = []

    def steer(self, pushes):
        seen.extend(pushes)
        return made([0.5] * len(pushes), [0] * len(pushes))

    monkeypatch.setattr(PushComparison, "steer", steer)
    row = pushed.own_scale("neurons", 2.0, torch.tensor([[1.0, 0.0, 3.0, -1.0], [0.5, 0.0, 1.0, -2.0]]))
    assert [dict(push[0].features) for push in seen] == [{0: 2.0}, {2: 6.0}]
    assert row == {"pushes": 2, "median s": 2.0, "steerable": 1.0, "coverage": 1}


def test_a_ratio_of_counts_leaves_each_picture_out():
    counts = {"ours": lambda pictures: 4 * len(pictures), "theirs": lambda pictures: 2 * len(pictures)}
    found = ratio_of_counts(lambda what, pictures: counts[what](pictures), 3, "ours", "theirs")
    assert tuple(found) == pytest.approx((2, 2, 2))
    assert math.isnan(ratio_of_counts(lambda what, pictures: 0, 3, "ours", "theirs").value)


def test_coverage_by_picture_is_of_the_mean_change(pushed):
    before = torch.full((3, 3), 1 / 3)
    change = torch.tensor([[0.6, -0.3, -0.3], [0.0, 0.0, 0.0]]).expand(3, 2, 3)
    pushed._alone["neurons", 150] = pushed._alone["SAE features", 150] = before, change
    assert pushed.count("neurons", 150, torch.arange(3)) == 1
    assert pushed.count("neurons", 150, torch.arange(3), 1) == 0.5
    assert pushed.times_as_many(150).value == pytest.approx(1)


PATCHES = {"some": torch.tensor([0.1, 0.3]), "each": torch.tensor([0.0, 0.1, 0.1, 0.2]), "groups": {"all tokens": 0.4}}


def test_patches_are_told_by_the_half_that_they_reach():
    assert describe_patches(PATCHES, [1, 4]) == (
        "Half of the largest is reached with 4 patches; one patch brings +0.100 on average, +0.200 at most."
    )
    assert "not reached" in describe_patches(PATCHES | {"groups": {"all tokens": 0.8}}, [1, 4])


def test_its_figures_name_their_axes_and_take_nothing(pushed):
    rows = {(what, s): {"steerable (S)": 0.5, "coverage": 2} for what in KINDS for s in (20, 150)}
    assert "α" in axis_titles(steerable.over_strength(pd.DataFrame(rows).T, [20, 150], 40.0))
    assert axis_titles(steerable.rarefaction(pushed, 150)) == {"pushes drawn at random", "concepts covered"}
    layers = pd.DataFrame([pushed.at_site(SITES[0], what, 150, "s") for what in KINDS])
    assert axis_titles(steerable.by_layer(layers)) == {"steerable"}
    assert axis_titles(steerable.precision(pushed, 150, NOTHING)) == {"precision"}
    auc = torch.tensor([0.5, 0.9])
    assert axis_titles(steerable.detectors(auc, auc, NOTHING)) == {
        "AUC of the feature as a detector of a concept", "features",
    }  # fmt: skip
    assert steerable.detectors(auc[:0], auc[:0], NOTHING).layout.annotations[0].text == NOTHING
    assert axis_titles(steerable.patches(PATCHES, [1, 4], (2, 2), "owl")) == {"patches pushed", "ΔP of “owl”"}
