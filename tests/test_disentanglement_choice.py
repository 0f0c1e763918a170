"""What validation chooses and what the test says of it: by hand, on eight pictures in two groups."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from experiments.disentanglement import choice as choosing
from experiments.disentanglement import examination
from experiments.disentanglement.choice import FAMILIES, METHODS, Choice, linear_settings, right_with, some_of_each
from experiments.disentanglement.examination import Examination, layer_row, middle_layers, verdict
from experiments.disentanglement.panel_data import PanelData, fact_title, top_rows
from experiments.disentanglement.protocol import Task
from experiments.disentanglement.suppression import NOTHING, Outcome, Setting
from experiments.figures import suppressed_features
from lib.metrics.intervals import Interval
from tests.test_figures import axis_titles

GROUP = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
SITES = ["3.resid_post", "7.resid_post"]
GREEDY = Setting("SAE: greedy", SITES[0], None, (4, 2))
RULED = Setting("SAE: difference", SITES[1], None, (9,), 1.5)
LEACE = Setting("LEACE", "proj", None, (0,))


def right(*numbers):
    """The pictures with these numbers are right."""
    return torch.isin(torch.arange(8), torch.tensor(numbers))


def outcome(setting, *numbers, usual=(0, 1, 2, 3)):
    return Outcome(setting, right(*numbers), {"species": right(*usual), "reading": right(0, 1)})


OUTCOMES = {
    one.setting: one
    for one in (
        outcome(NOTHING, 0, 1, 2, 3, 4),  # worst group .25
        outcome(GREEDY, 0, 1, 2, 4, 5, 6, usual=(0, 1, 2)),  # .75
        outcome(RULED, 0, 1, 4, 5),  # .5
        outcome(LEACE, 0, 1, 2, 3, 4, 5, usual=range(8)),  # .5
    )
}


@pytest.fixture
def trials(monkeypatch):
    """Zero-shot says of pictures 0 to 4 the truth; careful prompts of all but picture 4."""
    monkeypatch.setattr(choosing, "NearestText", lambda *_: SimpleNamespace(predict=lambda e: 1 - right(4).long()))
    task = SimpleNamespace(groups=("no word", "wrong word"), careful_prompts=(), name="stickers")
    embeddings = torch.nn.functional.one_hot(right(0, 1, 2, 3, 4).long(), 2).float()[None]
    return SimpleNamespace(
        task=task,
        group=GROUP,
        truth=torch.ones(8, dtype=torch.long),
        encoder=None,
        embeddings=lambda variants: embeddings,
    )


@pytest.fixture
def choice(trials):
    settled = {one.setting.key: one for one in list(OUTCOMES.values())[1:]}
    compared = [outcome(Setting("SAE: greedy", SITES[0], None, (4,)), 0, 1, 4, 5), *OUTCOMES.values()]
    return Choice(trials, OUTCOMES[NOTHING], settled, compared, SITES, 0.1, torch.eye(2))


@pytest.fixture
def exam(choice, trials):
    return Examination(choice, trials, OUTCOMES, ["species"], 50)


def test_a_family_takes_the_setting_with_the_best_worst_group_over_its_sites(choice):
    assert choice.chosen == {"SAE": GREEDY, "neurons": NOTHING, "mean difference": NOTHING, "LEACE": LEACE}
    assert choice.by_layer["SAE", SITES[1]] is RULED
    assert choice.by_layer["LEACE", "proj"] is LEACE
    assert ("SAE", "proj") not in choice.by_layer
    assert len(choice.by_layer) == 2 * 2 + 2 * 3


def test_the_rival_is_the_best_but_features_and_probe(choice):
    assert set(choice.correct) == set(METHODS)
    assert choice.worst(choice.correct["prompts"]) == 0.75
    assert choice.rival == "prompts"
    assert choice.worst_of("nothing") == 1
    assert choice.others() == {
        "probe's anchor": "0.1", "worst group, probe": "25.0%", "rival": "prompts", "worst group, rival": "75.0%",
    }  # fmt: skip


def test_a_choice_is_described_by_rule_site_number_and_cost(choice):
    assert choice.described("SAE", ["species"]) == {
        "rule": "greedy", "site": SITES[0], "features": 2, "strength": 1.0, "worst group": 0.75, "ordinary": -0.125,
    }  # fmt: skip
    assert choice.described("neurons", ["species"])["site"] == "–"


def test_the_plan_holds_every_choice(choice):
    plan = choice.plan(3, (8, 8))
    assert plan["chosen"]["SAE"] == GREEDY.plan()
    assert plan["by layer"][f"SAE at {SITES[1]}"]["strength"] == 1.5
    assert (plan["deal"], plan["sizes"], plan["rival"], plan["probe's anchor"]) == (3, [8, 8], "prompts", 0.1)


def test_a_curve_begins_with_no_feature_and_knows_strength_one_alone(choice):
    assert choice.curve("SAE: greedy", SITES[0]) == [(0, 0.25), (1, 0.5), (2, 0.75)]
    assert choice.curve("SAE: difference", SITES[1]) == [(0, 0.25)]


def test_the_probe_s_anchor_is_chosen_by_the_worst_group(trials, monkeypatch):
    weights = {0.1: torch.eye(2).flip(0), 1.0: torch.eye(2)}
    monkeypatch.setattr(choosing, "balanced_probe", lambda part, selecting, value: weights[value])
    rest = {"before": OUTCOMES[NOTHING], "settled": {}, "compared": [], "sites": SITES}
    found = Choice.with_probe((None, None), [0.1, 1.0], trials, **rest)
    assert found.anchor == 1.0  # .25 against 0
    assert right_with(found.probe, trials).equal(right(0, 1, 2, 3, 4))


def test_where_all_pictures_have_the_attribute_no_direction_is_taken_out():
    part = SimpleNamespace(task=SimpleNamespace(spurious=np.ones(4)))
    assert linear_settings(part, None, SITES) == []


def test_pictures_are_shown_evenly_from_all_groups():
    task = SimpleNamespace(groups=("a", "b"), group=np.array([1, 0, 0, 0, 1]))
    assert some_of_each(task, 4) == [1, 2, 0, 4]
    assert some_of_each(task, 1) == []


class TestExamination:
    def test_gains_are_told_from_the_group_that_was_worst_on_validation(self, exam):
        assert exam.gain("SAE").value == 0.5
        assert exam.gain("nothing").value == 0
        assert exam.ahead_of("LEACE").value == 0.25
        assert exam.scored["LEACE"].worst.value == 0.5

    def test_ordinary_accuracy_is_lost_by_what_was_chosen_alone(self, exam):
        assert exam.lost("SAE").value == -0.125
        assert exam.lost("LEACE").value == 0.5
        assert exam.lost("probe") == Interval(0.0)

    def test_rows_say_where_and_how_much(self, exam):
        row = exam.row("SAE")
        assert row["where, features"] == f"{SITES[0]}, 2"
        assert row["average"].startswith("75.0 [")
        assert row["gain"].startswith("+50.0 [")
        assert exam.row("probe")["where, features"] == "–"
        assert exam.row("probe")["ordinary"] == "+0.0"

    def test_a_layer_has_all_groups(self, exam):
        row = exam.at_layer("SAE", SITES[1])
        assert {group: x.value for group, x in row["groups"].items()} == {"no word": 0.5, "wrong word": 0.5}
        text = layer_row(row)
        assert text["groups"].startswith("no word 50.0 [")
        assert row["worst group"].value == 0.5, "the row that is recorded stays as it was"

    def test_signs_are_read_as_before_or_not(self, exam):
        read = exam.reading()
        assert set(read) == {"nothing", *FAMILIES}
        assert read["SAE"]["signs read"].value == 0.25
        assert read["SAE"]["change"].value == 0
        assert read["SAE"]["beside a wrong word"].value == 0.75

    def test_the_result_is_told_with_its_price(self, exam):
        assert exam.told.startswith(f"2 features at `{SITES[0]}` (greedy) move worst-group accuracy from 25% to 75%, ")
        assert "the probe reaches 25%" in exam.told
        assert "Ordinary accuracy: -12.5 [" in exam.told

    def test_the_probe_is_a_bound_or_not(self, exam):
        assert examination.probe_told({"stickers": exam}).endswith("**no task**, and does not on **stickers**.")

    def test_every_bar_has_a_verdict(self, exam):
        (found,) = examination.verdicts({"stickers": exam}).values()
        assert list(found) == ["won (+15)", "ordinary (-3)", "more than neurons (+)"]
        assert ": met" in found["won (+15)"]
        assert ": missed" in found["ordinary (-3)"]

    def test_its_figures_have_names_at_their_axes(self, choice, exam):
        assert axis_titles(suppressed_features.number_of_features({"stickers": choice})) == {
            "features suppressed", "worst-group accuracy",
        }  # fmt: skip
        assert axis_titles(suppressed_features.accuracy_of_groups({"stickers": exam})) == {"accuracy on test pictures"}
        layers = suppressed_features.accuracy_by_layer({"stickers": exam})
        assert axis_titles(layers) == {"behind block", "worst-group accuracy"}
        assert list(layers.data[0].x) == ["3", "7"]


@pytest.mark.parametrize(
    ("interval", "least", "told"),
    [((0.2, 0.16, 0.3), 0.15, "met"), ((0.2, 0.1, 0.3), 0.15, "met, unsure"), ((0.1, 0, 0.3), 0.15, "missed, unsure"),
     ((0.0, None, None), 0.0, "missed"), ((0.0, None, None), -0.03, "met"), ((-0.1, -0.2, -0.05), -0.03, "missed")],
)  # fmt: skip
def test_a_bar_is_met_by_the_figure_and_surely_by_its_interval(interval, least, told):
    assert verdict(Interval(*interval), least).endswith(f": {told}")


def test_the_middle_is_between_a_quarter_and_three_quarters():
    depth = {"a": 0.25, "b": 0.5, "c": 0.9}
    chosen, told = middle_layers({"people": "a", "birds": "c", "stickers": None}, depth)
    assert chosen == [True, False]
    assert "people: `a`, at 25% of the depth; birds: `c`, at 90% of the depth; stickers: no layer helped" in told
    assert "**50%** of the chosen layers are middle ones, as are 67% of those that were tried." in told
    assert middle_layers({"people": None}, depth)[0] == []
    assert ": 67% of those that were tried" in middle_layers({"people": None}, depth)[1]


def test_a_deal_that_was_seen_before_is_said():
    task = Task("t", range(8), ("a",), ((("x",),),), np.zeros(8), ("some",), np.zeros(8, int), scene=np.arange(8))
    assert examination.seen_before(task, (3, 3, 2), 5, [5]) == 1.0
    assert "people: 25%" in examination.earlier_told({"people": 0.25})
    assert examination.earlier_told({}) == "No test of these pictures was opened before this one."


class TestPanelData:
    def test_the_panel_takes_the_rule_that_validation_chose(self, choice):
        panel = PanelData({"stickers": choice}, {}, {}, {}, {})
        assert panel.rule_at("stickers", SITES[1]) == "SAE: difference"
        missing = Choice(choice.trials, choice.before, {}, [], SITES, 0.1, torch.eye(2))
        assert PanelData({"stickers": missing}, {}, {}, {}, {}).rule_at("stickers", SITES[1]) == "SAE: greedy"

    def test_a_feature_is_called_by_its_best_fact(self):
        best = {"3": pd.Series(["person_hair=dark_red", None], dtype=object)}
        assert fact_title(best, "3", 0) == "hair dark red"
        assert fact_title(best, "3", 1) == "feature 1"

    def test_features_with_fewer_than_eight_top_pictures_have_no_row(self):
        tops = torch.full((3, 9), -1)
        tops[1] = torch.arange(9)
        tables = {SITES[0]: SimpleNamespace(top_images=tops)}
        setting = Setting("SAE: greedy", SITES[0], None, (0, 1))
        assert top_rows([setting, NOTHING], tables, lambda site, j: "owl") == {f"{SITES[0]} #1<br>owl": list(range(8))}
