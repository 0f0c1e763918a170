"""What columns detect: the best fact against a slow search; planted features are above their nulls, null ones not."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score

from experiments.detectors import above_null, best_scores, describe_detectors, detectors_of, largest_rows, shares_of
from experiments.figures import feature_descriptions as figures
from experiments.ground_truth import Facts
from tests.test_figures import axis_titles

N, D, C, BARS = 300, 16, 40, {"AUC": 0.9, "F1": 0.5}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


FACTS = Facts([f"fact {c}" for c in range(C)], torch.rand(N, C, generator=generator(0)) < 0.12)
DIRECTIONS = torch.nn.functional.normalize(torch.randn(C, D, generator=generator(1)), dim=1)
ROWS = FACTS.truth.float() @ DIRECTIONS


@pytest.fixture(scope="module")
def planted():
    """Features that are the facts themselves, the last one dead."""
    codes = FACTS.truth * (0.5 + torch.rand(N, C, generator=generator(2)))
    codes[:, -1] = 0
    return detectors_of(codes.to_sparse_csr(), ROWS, FACTS)


@pytest.fixture(scope="module")
def drawn():
    """Features that know nothing."""
    codes = torch.rand(N, C, generator=generator(3)) * (torch.rand(N, C, generator=generator(4)) < 0.12)
    return detectors_of(codes.to_sparse_csr(), ROWS, FACTS)


def test_the_best_fact_is_the_best_by_a_search_through_all():
    values = torch.randn(N, 3, generator=generator(5)).round(decimals=1)
    found = best_scores(values, FACTS)
    for column in range(3):
        x = values[:, column].numpy()
        aucs = [roc_auc_score(truth, x) for truth in FACTS.truth.t().numpy()]
        assert found["AUC"][column] == pytest.approx(max(aucs), abs=1e-6)
        best = []
        for truth in FACTS.truth.t().numpy():
            f1, base = max(f1_score(truth, x >= t) for t in np.unique(x)), f1_score(truth, np.ones(N, bool))
            best.append((f1 - base) / (1 - base))
        assert found["F1"][column] == pytest.approx(max(best), abs=1e-5)


def test_planted_features_detect_their_facts_and_no_null_does(planted):
    assert planted["features"].iloc[-1].isna().all(), "dead"
    assert (planted["features"].iloc[:-1] == 1).all(axis=None)
    shares = shares_of(planted, BARS, 50)
    assert shares.loc["features", "F1 ≥ 0.5"].value == 1
    assert all(shares.loc[name, "F1 ≥ 0.5"].value < 0.5 for name in shares.index[1:])
    assert above_null(planted, "F1", 50).low > 0.3
    told = describe_detectors(planted, BARS, C, 50)
    assert told[1].startswith("One fact with F1 of at least 0.5 is detected by **100.0 [100, 100] %** of the living")
    assert told[1].endswith("Nulls that reach as far: none.")


def test_features_that_know_nothing_are_not_above_luck(drawn):
    luck = above_null(drawn, "F1", 500, "shuffled")
    assert luck.low < 0.01
    assert abs(luck.value) < 0.03
    assert above_null(drawn, "AUC", 500).low < 0.05
    told = describe_detectors(drawn, BARS, C, 50)
    assert told[0].split("Nulls that reach as far: ")[1] != "none."
    assert told[2].startswith(f"Mean over columns of the best of {C} facts: features AUC 0.")
    assert "; shuffled AUC 0." in told[2]


def test_where_no_fact_is_known_it_says_so():
    nothing = Facts([], torch.zeros(N, 0, dtype=torch.bool))
    found = detectors_of(torch.ones(N, 2).to_sparse_csr(), ROWS, nothing)
    assert describe_detectors(found, BARS, 0, 50) == ["No fact is known that a living feature could detect."]
    assert math.isnan(shares_of(found, BARS, 50).loc["features", "mean AUC"].value)
    assert figures.scores_beside_nulls(found, BARS, "Nothing.").layout.annotations[0].text == "Nothing."


def test_a_picture_has_the_largest_of_its_tokens_and_zeros_where_it_was_left_out():
    rows = torch.tensor([[-1.0, 2], [-3, 5], [4, -4]])
    store = type("Store", (), {"image_index": torch.tensor([0, 0, 2]), "__getitem__": lambda self, at: rows[at]})()
    assert largest_rows(store, 3).tolist() == [[-1, 5], [0, 0], [4, -4]]


def test_its_figure_falls_from_all_columns_to_none(planted):
    drawn = figures.scores_beside_nulls(planted, BARS, "Nothing.")
    assert axis_titles(drawn) == {"at least", "share of the columns"}
    assert [trace.name for trace in drawn.data][:2] == ["features", "neurons"]
    for trace in drawn.data:
        assert list(trace.x) == sorted(trace.x)
        assert trace.y[0] == 1
