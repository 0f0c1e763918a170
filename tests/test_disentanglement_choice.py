"""What validation chooses and what the test says of it: by hand, on eight pictures in two groups."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from experiments.disentanglement import choice as choosing
from experiments.disentanglement import examination
from experiments.disentanglement.attention_heads import ablation
from experiments.disentanglement.baselines import best_offset
from experiments.disentanglement.choice import (
    BASELINES,
    FAMILIES,
    METHODS,
    NULLS,
    Choice,
    correct_with_probe,
    linear_settings,
    sample_of_each_group,
)
from experiments.disentanglement.examination import Examination, layer_row, middle_layers, verdict
from experiments.disentanglement.feature_choice import FeatureStats, at_random
from experiments.disentanglement.panel_data import PanelData, fact_title, top_rows
from experiments.disentanglement.protocol import Task
from experiments.disentanglement.suppression import NOTHING, Outcome, Setting
from experiments.figures import suppressed_features
from experiments.plots import GREY
from lib.metrics.intervals import Interval
from tests.test_figures import axis_titles

GROUP = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
SITES = ["3.resid_post", "7.resid_post"]
GREEDY = Setting("SAE: greedy", SITES[0], None, (4, 2))
RULED = Setting("SAE: difference", SITES[1], None, (9,), 1.5)
LEACE = Setting("LEACE", "proj", None, (0,))


ANCHORS = {"probe": 0.1, "group-balanced probe": 1.0}
WEIGHTS = {"probe": torch.eye(2), "group-balanced probe": torch.eye(2).flip(0)}


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
def runner(monkeypatch):
    """Zero-shot says of pictures 0 to 4 the truth; careful prompts of all but picture 4."""
    monkeypatch.setattr(choosing, "NearestText", lambda *_: SimpleNamespace(predict=lambda e: 1 - right(4).long()))
    given = {1: right(0, 1, 4, 5), 2: right(0, 1, 2, 4, 5, 6)}  # by the number of features
    monkeypatch.setattr(choosing, "correct_under", lambda some, _: torch.stack([given[len(s.features)] for s in some]))
    task = SimpleNamespace(groups=("no word", "wrong word"), attribute_prompts=(), name="stickers")
    suggested = torch.where(GROUP == 1, 0, -1)
    embeddings = torch.nn.functional.one_hot(right(0, 1, 2, 3, 4).long(), 2).float()[None]
    return SimpleNamespace(
        task=task,
        group=GROUP,
        truth=torch.ones(8, dtype=torch.long),
        suggested=suggested,
        encoder=None,
        embeddings=lambda variants: embeddings,
        zero_shot=SimpleNamespace(logits=lambda e: torch.zeros(8, 3)),  # three classes: no offset
    )


@pytest.fixture
def choice(runner):
    settled = {one.setting.key: one for one in list(OUTCOMES.values())[1:]}
    tried = [Setting("SAE: greedy", SITES[0], None, (4,)), GREEDY, replace(RULED, strength=1.0)]
    return Choice(runner, OUTCOMES[NOTHING], settled, tried, SITES, ANCHORS, WEIGHTS)


@pytest.fixture
def exam(choice, runner):
    return Examination(choice, runner, OUTCOMES, ["species"], 50)


def test_a_family_takes_the_setting_with_the_best_worst_group_over_its_sites(choice):
    assert choice.chosen == dict.fromkeys(FAMILIES, NOTHING) | {"SAE": GREEDY, "LEACE": LEACE}
    assert choice.by_layer["SAE", SITES[1]] is RULED
    assert choice.by_layer["LEACE", "proj"] is LEACE
    assert ("SAE", "proj") not in choice.by_layer
    assert choice.sites_of("attention heads") == ["heads"]
    assert len(choice.by_layer) == 5 * 2 + 2 * 3 + 1


def test_the_best_baseline_is_neither_features_nor_probe(choice):
    assert BASELINES == [
        "neurons", "encoder projection", "label-free steering", "attention heads", "mean difference", "LEACE",
        "prompts", "offset",
    ]  # fmt: skip
    assert set(choice.correct) == set(METHODS) - {"heads by chance"}
    assert choice.worst(choice.correct["prompts"]) == 0.75
    assert choice.best_baseline == "prompts"
    assert choice.worst_of("nothing") == 1
    assert choice.others() == {
        "probe's anchor": "0.1", "group-balanced probe's anchor": "1", "worst group, probe": "25.0%",
        "worst group, group-balanced probe": "0.0%", "best baseline": "prompts", "worst group, best baseline": "75.0%",
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
    assert plan["group-balanced probe's anchor"] == 1.0


def test_curves_begin_with_no_feature_and_have_what_was_tried_at_the_site(choice):
    expected = {"SAE: greedy": [(0, 0.25), (1, 0.5), (2, 0.75)], "SAE: difference": [(0, 0.25)]}
    assert choice.curves(list(expected), SITES[0]) == expected


def test_the_probe_s_anchor_is_chosen_by_the_worst_group(runner, monkeypatch):
    weights = {0.1: torch.eye(2).flip(0), 1.0: torch.eye(2)}
    fit = lambda part, selecting, value: weights[value]  # noqa: E731
    other = lambda part, selecting, value: weights[0.1 if value == 1 else 1.0]  # noqa: E731
    monkeypatch.setattr(choosing, "PROBES", {"probe": fit, "group-balanced probe": other})
    rest = {"before": OUTCOMES[NOTHING], "selected": {}, "tried": [], "sites": SITES}
    found = Choice.with_probe((None, None), [0.1, 1.0], runner, **rest)
    assert found.anchors == {"probe": 1.0, "group-balanced probe": 0.1}  # .25 against 0
    assert all(correct_with_probe(one, runner).equal(right(0, 1, 2, 3, 4)) for one in found.probes.values())


def test_an_offset_lifts_the_worst_group_where_one_number_can():
    gap = torch.tensor([-3.0, -1, -2, -4, -3, 5])
    truth, group = torch.tensor([0, 1, 1, 0, 0, 1]), torch.tensor([0, 1, 1, 0, 0, 2])
    logits = torch.stack([torch.zeros(6), gap], dim=1)
    offset = best_offset(logits, truth, group)
    assert ((logits + offset).argmax(1) == truth).all()
    assert offset.tolist() == [0, 2.5], "halfway between -2 and -3"
    assert best_offset(logits[[0, 3, 5]], truth[[0, 3, 5]], group[[0, 3, 5]]).tolist() == [0, 0], "nothing to gain"
    assert best_offset(torch.randn(6, 3), truth, group).tolist() == [0, 0, 0]


def test_chance_draws_active_features_and_another_draw_draws_others():
    codes = torch.zeros(5, 40)
    codes[0, ::2] = 1.0
    seen = FeatureStats(codes, codes, codes[0], codes[:, 0])
    draws = [at_random(seen, 8, seed) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert all(len(set(draw)) == 8 and all(j % 2 == 0 for j in draw) for draw in draws)
    assert sorted(at_random(seen, 100, 0)) == list(range(0, 40, 2))


def test_where_all_pictures_have_the_attribute_no_direction_is_taken_out():
    part = SimpleNamespace(task=SimpleNamespace(spurious=np.ones(4)))
    assert linear_settings(part, None, SITES) == []


def test_other_tasks_are_asked_beside_the_test_alone():
    tasks = {"people": "P", "birds": "B", "stickers": "S"}
    assert examination.others(tasks, "birds", 40) == {"people": ("P", [0, 0, 40]), "stickers": ("S", [0, 0, 40])}
    assert examination.others(tasks, "birds", 0) == {}


def test_pictures_are_shown_evenly_from_all_groups():
    task = SimpleNamespace(groups=("a", "b"), group=np.array([1, 0, 0, 0, 1]))
    assert sample_of_each_group(task, 4) == [1, 2, 0, 4]
    assert sample_of_each_group(task, 1) == []


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

    def test_the_price_is_told_of_every_method(self, exam):
        """Of four pictures that are not misled, features lose one, prompts none; the heads changed nothing."""
        price = {method: {what: x.value for what, x in exam.price(method).items()} for method in METHODS}
        assert price["SAE"] == {"not misled": -0.25, "signs read": 0.0, "ordinary": -0.125}
        assert price["prompts"] == {"not misled": 0.0, "signs read": 0.0, "ordinary": 0.0}
        assert price["attention heads"] == price["prompts"]
        assert exam.row("SAE")["not misled"].startswith("-25.0 [")
        assert exam.row("SAE")["other tasks"] == "–", "no other task was asked"

    def test_other_tasks_count_by_picture(self, choice, runner):
        more = {NOTHING: {"birds": right(0, 1, 2, 3), "people": right(0, 1)[:4]}}
        more |= {GREEDY: {"birds": right(0, 1), "people": right(0)[:4]}}
        asked = {one: replace(OUTCOMES[one], beside=OUTCOMES[one].beside | some) for one, some in more.items()}
        exam = Examination(choice, runner, OUTCOMES | asked, ["species"], 50)
        assert exam.price("SAE")["other tasks"].value == pytest.approx(-3 / 12)
        assert exam.price("offset")["other tasks"].value == 0

    def test_where_no_heads_were_chosen_their_null_is_the_model_as_it_is(self, exam):
        assert exam.scored["heads by chance"] == exam.scored["nothing"]
        assert exam.row("heads by chance")["where, features"] == "–"
        assert "attention heads moves" not in exam.description

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
        assert exam.description.startswith(
            f"2 features at `{SITES[0]}` (greedy) move worst-group accuracy from 25% to 75%, "
        )
        assert "The other methods reach 75% (prompts), 50% (LEACE), " in exam.description
        assert "25% (probe)" in exam.description
        features, rival = exam.description.split("changes of accuracy elsewhere, in points: ")[1].split(". Price of ")
        assert features.startswith("not misled -25.0 [")
        assert "ordinary -12.5 [" in features
        assert features.endswith("(from 25.0% to 25.0%)")
        assert rival.startswith("the best other defence on validation pictures, prompts: not misled +0.0")

    def test_the_probe_is_a_bound_or_not(self, exam):
        assert examination.describe_probe({"stickers": exam}).endswith("**no task**, and does not on **stickers**.")

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


class TestHeadsByChance:
    """Two heads were chosen; three draws of two others, of which the second breaks ordinary pictures."""

    CHOSEN = ablation("attention heads: greedy", [5, 9])
    RIGHT = ((0, 1, 2, 3, 4), (0, 1, 4, 5), (0, 4, 5, 6))

    @pytest.fixture
    def exam(self, choice, runner, monkeypatch):
        drawn = [ablation(f"heads by chance: {i}", [i, i + 1]) for i in range(3)]
        monkeypatch.setattr(choosing, "random_heads", lambda encoder, n, draws: drawn[:draws] if n == 2 else [])
        after = [outcome(one, *some, usual=some[:2]) for one, some in zip(drawn, self.RIGHT, strict=True)]
        chosen = outcome(self.CHOSEN, 0, 1, 2, 4, 5, 6)
        asked = OUTCOMES | {one.setting: one for one in (chosen, *after)}
        settled = choice.selected | {self.CHOSEN.key: chosen}
        return Examination(replace(choice, selected=settled), runner, asked, ["species"], 50)

    def test_their_row_is_the_mean_and_the_range_of_the_draws(self, exam):
        slow = [min(np.mean([i in some for i in group]) for group in (range(4), range(4, 8))) for some in self.RIGHT]
        assert exam.scored["heads by chance"].worst == pytest.approx((np.mean(slow), min(slow), max(slow)))
        assert exam.gain("heads by chance") == pytest.approx((np.mean(slow) - 0.25, min(slow) - 0.25, max(slow) - 0.25))
        assert exam.price("heads by chance")["ordinary"] == pytest.approx((-0.25, -0.25, -0.25))
        assert exam.row("heads by chance")["where, features"] == "heads, 2, 3 draws"
        assert exam.row("attention heads")["where, features"] == "heads, 2"

    def test_they_are_planned_and_told_and_no_defence(self, exam):
        plan = exam.choice.plan(0, (8, 8))
        assert plan["drawn"]["heads by chance: 1"]["features"] == [1, 2]
        assert "Ablating 2 attention heads moves it to 75%, as many random ones to 33% (draws: 3, 25% to 50%)." in (
            exam.description
        )
        assert "(heads by chance)" not in exam.description
        assert exam.choice.best_baseline == "attention heads"

    def test_a_figure_sets_gain_against_price_with_a_marker_a_method_and_nulls_crossed(self, exam):
        figure = suppressed_features.gain_against_price({"stickers": exam})
        assert axis_titles(figure) == {"change of accuracy where it falls most", "gain in the worst group"}
        marks = {trace.legendgroup: trace for trace in figure.data}
        assert list(marks) == METHODS[1:]
        assert {name for name, trace in marks.items() if trace.marker.symbol.startswith("x")} == set(NULLS)
        assert {name for name, trace in marks.items() if trace.name.endswith("(null)")} == set(NULLS)
        assert len({(trace.marker.color, trace.marker.symbol) for trace in figure.data}) == len(figure.data)
        assert all(trace.marker.line.color == GREY for trace in figure.data), "seen on a light page and on a dark one"
        assert (marks["SAE"].x[0], marks["SAE"].y[0], *marks["SAE"].text) == (-0.25, 0.5, "price: not misled")
        assert marks["prompts"].x[0] == 0


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
    assert "people: 25%" in examination.describe_earlier_tests({"people": 0.25})
    assert examination.describe_earlier_tests({}) == "No test of these pictures was opened before this one."


class TestPanelData:
    def test_the_panel_takes_the_rule_that_validation_chose(self, choice):
        panel = PanelData({"stickers": choice}, {}, {}, {}, {})
        assert panel.rule_at("stickers", SITES[1]) == "SAE: difference"
        missing = Choice(choice.runner, choice.before, {}, [], SITES, ANCHORS, WEIGHTS)
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
