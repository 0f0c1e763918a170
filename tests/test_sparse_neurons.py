"""Units of siblings and of an SAE: how they are collected and what they are unit_scores, by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from experiments.ground_truth import Facts
from experiments.sparse_neurons import (
    NULLS,
    SAE_NAME,
    describe_units,
    interpretability_gains,
    right_gain,
    score_gain,
    unit_row,
    unit_scores,
    units_of,
)


def test_units_are_those_of_every_sibling_of_the_sae_and_directions_as_sparse_as_they_by_pooling():
    dense = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    topk = dense * (dense == dense.amax(1, keepdim=True))
    surveys = {"dense": SimpleNamespace(cls={5: dense}, largest={5: 2 * dense})}
    surveys["TopK"] = SimpleNamespace(cls={5: topk}, largest={5: topk})
    features = {5: SimpleNamespace(codes={pooling: csr_array(np.eye(8, 4)) for pooling in ("cls", "max")})}
    units = units_of(surveys, features, 6)
    assert units[5, "cls", "dense"] is dense
    assert torch.equal(units[5, "max", "dense"], 2 * dense)
    assert units[5, "max", SAE_NAME].shape == (6, 4)
    for name, null in NULLS.items():
        like = units[5, "cls", name]
        assert torch.equal((units[5, "cls", null] > 0).sum(0), (like > 0).sum(0))
        assert not torch.equal(units[5, "cls", null] > 0, like > 0)
    assert units_of({}, {}, 2) == {}


def test_only_living_units_are_scored():
    x = torch.tensor([[1.0, 0.0, 2.0], [1.0, 0.0, 2.0], [0.0, 0.0, 2.0], [0.0, 0.0, 2.0]])
    judge = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    facts = Facts(["owl"], torch.tensor([[True], [True], [False], [False]]))
    about, score, f1 = found = unit_scores(x, judge, facts)
    assert about["units"] == 3
    assert about["alive"] == pytest.approx(1 / 3)
    assert score.tolist() == [1.0]
    assert f1.tolist() == [1.0]
    assert unit_row(found, "eye", 5)["MS, E = eye"] == "1.000"


def test_gains_compare_pictures_in_pairs_and_units_apart():
    assert right_gain(np.array([True, True]), np.array([True, False]), 20).value == 0.5
    assert score_gain(torch.tensor([1.0, 0.5]), torch.tensor([0.25, 0.25]), 20).value == 0.5


def test_it_is_said_where_dense_neurons_tell_more_than_features_that_score_higher():
    level = {
        "dense": (0.1, 0.3),
        "TopK": (0.4, 0.2),
        SAE_NAME: (0.5, 0.1),
        NULLS["TopK"]: (0.2, 0.1),
        NULLS[SAE_NAME]: (0.3, 0.0),
    }
    units = {name: ({}, torch.full((3,), score), torch.full((3,), f1)) for name, (score, f1) in level.items()}
    ahead, told, left = describe_units(units, "eye", 5)
    assert ahead == (
        "Dense neurons are ahead of the SAE's features by F1 (0.200 [0.200, 0.200]) and behind the SAE's features by "
        "MS, E = eye (-0.400 [-0.400, -0.400])."
    )
    assert told.startswith("F1 with the best fact, mean over live units: dense 0.300 [0.300, 0.300]; TopK 0.200")
    assert left == "In F1 features are above random directions as sparse by 0.100 [0.100, 0.100]."
    unknown = {name: (about, score, f1 * float("nan")) for name, (about, score, f1) in units.items()}
    assert [line.split(" by ")[0] for line in describe_units(unknown, "eye", 5)] == [
        "Dense neurons are behind the SAE's features"
    ]
    assert [round(gain.value, 3) for gain in interpretability_gains(units, 5)] == [-0.1, -0.3]
    assert describe_units({}, "eye", 5) == []


def test_directions_as_sparse_as_units_that_know_a_fact_do_not_know_it():
    owl = torch.arange(200) % 4 == 0
    dense = torch.randn(200, 16, generator=torch.Generator().manual_seed(0)) + 0.3 * owl[:, None]
    knowing = (owl * torch.rand(200, generator=torch.Generator().manual_seed(1)))[:, None].expand(-1, 8)
    survey = SimpleNamespace(cls={5: dense}, largest={5: dense})
    features = {5: SimpleNamespace(codes={pooling: csr_array(knowing.numpy()) for pooling in ("cls", "max")})}
    siblings = {"dense": survey, "TopK": survey}
    facts, judge = Facts(["owl"], owl[:, None]), torch.eye(200)
    scored = {
        name: unit_scores(x, judge, facts)
        for (_, at, name), x in units_of(siblings, features, 200).items()
        if at == "cls"
    }
    assert float(scored[SAE_NAME][2].mean()) == pytest.approx(1)
    assert float(scored[NULLS[SAE_NAME]][2].mean()) < 0.8
