"""Scores of one-word answers: by hand, with a LLaVA that answers exactly and a reader of three words."""

import pytest
import torch

from experiments.pushes import Method
from experiments.word_scores import WordScorer, describe, gain, mean_score, recorded, score_table, shown

WORDS = {"owl": [1.0, 0.0], "cat": [0.0, 1.0], "": [-1.0, 0.0]}
TOPS = torch.tensor([[0, 0], [1, 1]])  # feature 0 stands for owls, feature 1 for cats


class Reader:
    embedded = 0

    def embed_texts(self, words):
        self.embedded += len(words)
        return torch.tensor([WORDS[word] for word in words]).view(-1, 2)


class Model:
    """Says the name of the feature that is pushed, and else that it sees a cat."""

    def answers(self, pictures, prompt, pushes, max_new_tokens):
        return [[("cat here" if push is None else push) for push in pushes] for _ in pictures]


@pytest.fixture
def scorer():
    return WordScorer(Model(), Reader(), torch.eye(2), "What?", 5)


@pytest.fixture
def method():
    return Method("SAE", TOPS, lambda j, strength: ["owl", "cat"][int(j)] if strength > 1 else "")


def test_the_first_word_counts_and_each_word_is_embedded_once(scorer):
    found = scorer.embedded([["owl and cat", "cat"], ["owl", ""]])
    assert found.tolist() == [[WORDS["owl"], WORDS["cat"]], [WORDS["owl"], WORDS[""]]]
    scorer.embedded([["cat"]])
    assert scorer.reader.embedded == 3


def test_a_steered_answer_is_scored_by_what_its_feature_stands_for(scorer, method):
    features = torch.tensor([1, 0])
    assert scorer.steered(method, features, ["a", "b"], 2).tolist() == [[1.0, 1.0]] * 2
    assert scorer.steered(method, features, ["a"], 1).tolist() == [[0.0, -1.0]]
    assert scorer.rise(method, features, ["a"], 2).tolist() == [[0.0, 1.0]]  # a cat is what it saw before


def test_steered_unsteered_and_reconstructed_scores_stand_side_by_side(scorer, method):
    found = scorer.compared({"ours": (method, torch.tensor([0, 1]), 2.0)}, ["a"], "owl")["ours"]
    assert found.tolist() == [[[1.0, 1.0]], [[0.0, 1.0]], [[1.0, 0.0]]]
    assert gain(found).tolist() == [[1.0, 0.0]]
    assert describe({"ours": found, "worse": -found}) == "ours +0.500, worse -0.500"


def test_curves_have_a_point_for_each_strength(scorer, method):
    curves = scorer.curves({"ours": method}, {"SAE": torch.tensor([0, 1])}, {"ours": [1, 2]}, ["a", "b"], 10)
    assert {s: found.value for s, found in curves["ours"].items()} == {1: -0.5, 2: 1.0}


def test_one_picture_resamples_features_and_several_resample_both():
    assert mean_score(torch.tensor([[0.0, 1.0]]), 50).value == 0.5
    assert mean_score(torch.tensor([[0.5, 0.5]]), 50)[1:] == (0.5, 0.5)
    assert mean_score(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), 50).value == 0.5


def test_a_table_holds_the_three_ways_and_the_gain():
    table = score_table({"ours": torch.tensor([[[0.5, 0.75]], [[0.25, 0.25]], [[0.0, 0.0]]])}, 20)
    assert {condition: x.value for condition, x in table["ours"].items()} == {
        "steered": 0.625, "not steered": 0.25, "reconstruction": 0.0, "steered − not": 0.375,
    }  # fmt: skip
    assert shown(table, "score").loc["ours", "not steered"] == "0.250 [0.250, 0.250]"
    assert list(recorded(table)["ours"]) == ["steered", "unsteered", "reconstruction"]
    assert shown(score_table({}), "score").empty
