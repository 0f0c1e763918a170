"""What is said of each feature: by hand on four pictures, two of owls by night and two of cats."""

from types import SimpleNamespace

import pytest
import torch

from experiments.described_features import describe, fact_lines, names_agree, names_of
from experiments.figures import feature_descriptions as figures
from experiments.ground_truth import Facts
from experiments.vocabulary import prompts_of
from tests.test_figures import axis_titles

NOTHING = "Nothing to see."
CODES = torch.tensor([[1.0, 0, 0], [2.0, 0, 0], [0, 1, 0], [0, 1, 0]])  # owls, cats, a dead one
FACTS = Facts(["kind_of_animal=barn_owl"], torch.tensor([[True], [True], [False], [False]]))
NAMES = [[("barn owl", 0.9), ("cat", 0.1)], [("cat", 0.8)], []]


def table(codes=CODES):
    alive = (codes > 0).any(0)
    return SimpleNamespace(
        codes=codes, top_images=codes.argsort(dim=0, descending=True).t()[:, :2], alive=alive,
        frequency=(codes > 0).float().mean(0), n_features=codes.shape[1],
        names=lambda words, encoder, embeddings, templates: [[(words[0], 0.5)], [(words[1], 0.4)], []],
    )  # fmt: skip


@pytest.fixture
def rows():
    return describe(table(), FACTS, torch.tensor([0.9, 0.8, float("nan")]), NAMES)


def test_a_feature_has_the_fact_that_it_detects_its_score_and_its_first_name(rows):
    owl = rows.loc[0]
    assert (owl["fact"], owl["auc"], owl["about"], owl["name"]) == (FACTS.names[0], 1, "kind of animal", "barn owl")
    assert (owl["score"], owl["frequency"]) == (pytest.approx(0.9), 0.5)
    assert rows["known"].tolist() == [True, True, False]
    assert fact_lines(rows) == [
        "Best known fact: kind of animal is barn owl (AUC 1.00, F1 1.00)",
        "Best known fact: kind of animal is barn owl (AUC 0.00, F1 0.67)",
        None,
    ]


def test_where_nothing_is_known_no_feature_has_a_fact():
    nothing = describe(table(), Facts([], torch.zeros(4, 0, dtype=torch.bool)), torch.zeros(3), NAMES)
    assert not nothing["known"].any()
    assert fact_lines(nothing) == [None] * 3


def test_names_are_the_words_of_the_texts():
    prompts = {"owl": "a photo of an owl", "cat": "a photo of a cat"}
    assert names_of(table(), prompts, None, None) == [[("owl", 0.5)], [("cat", 0.4)], []]


def test_a_detector_agrees_with_its_name_where_its_fact_is_a_word(rows):
    found = names_agree(rows[rows["known"]], NAMES, ["barn owl"])
    assert (found["first"].tolist(), found["among"].tolist()) == ([True, False], [True, False])
    assert names_agree(rows[rows["known"]], NAMES, []).empty
    assert names_agree(rows[:0], NAMES, ["barn owl"]).empty


def test_a_word_stands_for_itself_in_the_words_of_captions_or_as_a_photo():
    drawn = prompts_of("", SimpleNamespace(spec="menagerie:val[:60]"))
    assert {"owl", "water", "blond hair"} <= drawn.keys()
    assert "owl" in drawn["owl"]
    photographs = SimpleNamespace(spec="folder:photographs", class_names=["barn_owl", "cat"])
    assert prompts_of("", photographs) == {"barn owl": "a photo of a barn owl", "cat": "a photo of a cat"}
    assert prompts_of("menagerie", photographs)["owl"] == "a photo of a owl"


def test_its_figures_name_their_axes_and_take_nothing(rows):
    known = rows[rows["known"]]
    assert axis_titles(figures.what_about(known, 0.9, NOTHING)) == {"features with AUC of at least 0.9"}
    assert axis_titles(figures.score_over_frequency(known, "eye", NOTHING)) == {
        "share of pictures on which the feature is active", "MS, E = eye",
    }  # fmt: skip
    for empty in (figures.what_about(known[:0], 0.9, NOTHING), figures.score_over_frequency(known[:0], "eye", NOTHING)):
        assert empty.layout.annotations[0].text == NOTHING
