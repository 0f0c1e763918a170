"""Insertion and suppression in open answers: outcomes by hand, with a LLaVA that says what it is pushed to."""

import math
from collections import defaultdict

import pandas as pd
import pytest
import torch

from experiments import open_answers
from experiments.answer_judge import Concept, Judge
from experiments.open_answers import OpenQuestions, Scenes, Task

OWL, CAT, SNOW = Concept("species", "owl"), Concept("species", "cat"), Concept("habitat", "snow")
TRUTHS = [frozenset({CAT}), frozenset({OWL, Concept("sticker_word", "cat")}), frozenset({OWL, SNOW}), frozenset({OWL})]
SCENES = Scenes(["cat", "written", "owl in snow", "owl"], TRUTHS)
PROMPTS = {"plain": "What?"}


class Llava:
    """Answers with the picture's name; a push replaces it."""

    def answers(self, pictures, questions, pushes, max_new_tokens):
        assert questions == ["What?"] * len(pictures)
        return [[picture if push is None else push for push in pushes] for picture in pictures]


@pytest.fixture
def questions():
    judge = Judge({"owl": [OWL], "cat": [CAT], "snow": [SNOW]})
    return OpenQuestions(Llava(), judge, PROMPTS, defaultdict(lambda: r".+"), 8)


def test_a_picture_with_something_written_shows_nothing():
    assert SCENES.showing(OWL) == [2, 3]
    assert SCENES.of(OWL, PROMPTS) == [("owl in snow", TRUTHS[2], "plain")]
    assert SCENES.of(Concept("species", "dog"), PROMPTS) == []


def test_every_prompt_is_asked_about_the_white_picture_and_one_other():
    assert SCENES.plain("white", ["a", "b"], first=1) == [
        ("white", frozenset(), "a"), ("white", frozenset(), "b"),
        ("written", TRUTHS[1], "a"), ("owl in snow", TRUTHS[2], "b"),
    ]  # fmt: skip


def test_concepts_that_no_picture_shows_are_too_few():
    SCENES.check({0: OWL}, {1: CAT, 2: Concept("species", "dog")})
    with pytest.raises(ValueError, match="lower min_f1"):
        SCENES.check({0: OWL}, {2: Concept("species", "dog")})
    with pytest.raises(ValueError, match="lower min_f1"):
        SCENES.check({}, {0: OWL})


def test_what_is_there_already_cannot_be_inserted(questions):
    scenes = [("cat", TRUTHS[0], "plain"), ("snow", frozenset(), "plain"), ("owl", frozenset(), "plain")]
    pushes = {"good": lambda c: ["an owl", "a cat"][c], "bad": lambda c: "snow"}
    found = questions.insertion({0: OWL, 1: CAT}, pushes, scenes)
    assert found["good"].shape == (2, 3, 2)
    assert found["good"][0, :2].tolist() == [[1, 1], [1, 1]]
    assert found["good"][0, 2].isnan().all(), "an owl is named unsteered"
    assert found["good"][1, 0].isnan().all(), "the picture shows a cat"
    assert found["bad"][0, :2, 0].tolist() == [0, 0]


def test_what_is_suppressed_must_be_named_before_and_the_rest_kept(questions):
    pushes = {"neat": lambda c: "snow", "rough": lambda c: "a cat", "none": lambda c: "owl in snow"}
    found = questions.suppression({0: OWL}, pushes, SCENES)
    assert {name: outcome[0, 0].tolist() for name, outcome in found.items()} == {
        "neat": [1, 1], "rough": [1, 0], "none": [0, 1],
    }  # fmt: skip
    unnamed = Scenes(["snow"], [frozenset({OWL})])
    assert questions.suppression({0: OWL}, pushes, unnamed)["neat"].isnan().all()


def test_a_task_tries_each_strength_and_takes_the_best_for_each_rival(questions):
    rivals = {"ours": lambda c, strength: "owl" if strength > 1 else "snow", "theirs": lambda c, strength: "snow"}
    task = Task(questions.insertion, [("white", frozenset(), "plain")], 1, [1, 2])
    trials = task.trials({0: OWL}, rivals, 10)
    assert {key: rates.both.value for key, rates in trials.items()} == {
        ("ours", 1): 0, ("ours", 2): 1, ("theirs", 1): 0, ("theirs", 2): 0,
    }  # fmt: skip
    best = open_answers.best_strengths(trials)
    assert best == {"ours": 2, "theirs": 1}
    outcomes = task.outcomes({0: OWL}, rivals, best, "owl")
    assert {name: float(x[0, 0, 0]) for name, x in outcomes.items()} == {
        "ours": 1, "theirs": 0, "reconstruction only": 1,
    }  # fmt: skip


def test_suppression_turns_every_push_round():
    seen = []
    task = Task(
        lambda concepts, pushes, scenes: {key: seen.append(push(0)) for key, push in pushes.items()}, [], -1, [3]
    )
    task.outcomes({}, {"ours": lambda c, strength: strength}, {"ours": 3}, "control")
    assert seen == [-3, "control"]


def outcome(*pairs):
    return torch.tensor([[list(pair)] for pair in pairs], dtype=torch.double)


def test_rates_wins_and_kinds_of_concepts():
    nan = math.nan
    ours, theirs = outcome((1, 1), (1, 0), (nan, nan)), outcome((0, 1), (1, 0), (1, 1))
    measured = {"insertion": {"ours": ours, "theirs": theirs}}
    rates = {task: open_answers.judged(found, 20) for task, found in measured.items()}
    published = pd.DataFrame({"paper": [1.0, 2.0, 3.0]}, index=["named", "followed", "both"])
    table = open_answers.rates_table(rates, published)
    assert table.loc["named", "ours"].startswith("100.0 ")
    assert table.loc["both", "ours"].startswith("50.0 ")
    assert table["paper"].tolist() == ["1.0", "2.0", "3.0"]
    wins = open_answers.wins(measured, ["ours"], ["theirs"], 20)
    assert wins["insertion", "minus theirs"]["ours"].value == 0.5
    by_column = open_answers.by_column(measured["insertion"], [OWL, CAT, SNOW])
    assert by_column.loc["species"].tolist() == [0.5, 0.0]
    assert by_column.loc["habitat"].isna().tolist() == [True, False]


@pytest.mark.parametrize(
    ("interval", "word"),
    [((0.2, 0.1, 0.3), "more often"), ((-0.2, -0.3, -0.1), "less often"),
     ((0.0, -0.1, 0.1), "neither clearly more nor less often"), ((0.2, None, None), "undecided")],
)  # fmt: skip
def test_a_sentence_says_only_what_the_interval_allows(interval, word):
    won = {("insertion", "minus them"): {"ours": open_answers.metrics.Interval(*interval)}}
    (sentence,) = open_answers.describe(won, "ours")
    assert sentence.startswith(f"- Insertion, the feature gets both right: against them {word}")
