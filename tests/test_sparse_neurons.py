"""Units of siblings and of an SAE: how they are collected and what they are worth, by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from experiments.ground_truth import Facts
from experiments.sparse_neurons import right_gain, score_gain, units_of, worth, worth_row


def test_units_are_those_of_every_sibling_and_of_the_sae_by_pooling():
    surveys = {"dense": SimpleNamespace(cls={5: "cls of it"}, largest={5: "largest of it"})}
    features = {5: SimpleNamespace(codes={pooling: csr_array(np.eye(4)) for pooling in ("cls", "max")})}
    units = units_of(surveys, features, 2)
    assert units[5, "cls", "dense"] == "cls of it"
    assert units[5, "max", "dense"] == "largest of it"
    assert units[5, "max", "SAE of the MLP"].shape == (2, 4)
    assert units_of({}, {}, 2) == {}


def test_only_living_units_are_scored():
    x = torch.tensor([[1.0, 0.0, 2.0], [1.0, 0.0, 2.0], [0.0, 0.0, 2.0], [0.0, 0.0, 2.0]])
    judge = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    facts = Facts(["owl"], torch.tensor([[True], [True], [False], [False]]))
    about, score, f1 = found = worth(x, judge, facts)
    assert about["units"] == 3
    assert about["alive"] == pytest.approx(1 / 3)
    assert score.tolist() == [1.0]
    assert f1.tolist() == [1.0]
    assert worth_row(found, "eye", 5)["MS, E = eye"] == "1.000"


def test_gains_compare_pictures_in_pairs_and_units_apart():
    assert right_gain(np.array([True, True]), np.array([True, False]), 20).value == 0.5
    assert score_gain(torch.tensor([1.0, 0.5]), torch.tensor([0.25, 0.25]), 20).value == 0.5
