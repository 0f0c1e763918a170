"""Every public metric: its figures are the CPU's, and on the CPU, wherever its operands lie and whatever holds them."""

import contextlib
import inspect
import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch

from experiments import (
    ground_truth,
    hierarchy,
    outliers,
    published_fidelity,
    steerability,
    steering_scores,
    token_suite,
    trends,
)
from experiments.disentanglement import group_accuracy
from experiments.ground_truth import Facts
from experiments.published_fidelity import PublishedReconstruction, published_recovered
from lib import metrics
from lib.features.one_pass import top_images
from tests.cuda.both import assert_same, cuda_device, devices, without_float64

N, F, E, K = 40, 12, 6, 5


def _drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


CODES = _drawn(N, F) * (_drawn(N, F, seed=1) < 0.4)
CSR = CODES.to_sparse_csr()
EMBEDDINGS, TEXTS = _drawn(N, E, seed=2) - 0.5, _drawn(4, E, seed=3) - 0.5
TOP = top_images(CODES, K)[0]
TRUTH = _drawn(N, 3, seed=4) < 0.5
FACTS = Facts(["a", "b", "c"], TRUTH)
GROUP, RIGHT = (_drawn(N, seed=5) * 3).long(), _drawn(N, seed=6) < 0.6
LABELS = (_drawn(N, seed=7) * 4).long()
LOSSES = _drawn(N, seed=8)
PATHS = [("life", "bird" if i % 2 else "plant", f"species {i % 7}") for i in range(N)]
SCORE = torch.where(_drawn(F, seed=9) < 0.2, torch.nan, _drawn(F, seed=10))
TABLE = torch.where(_drawn(F, N, seed=11) < 0.1, torch.nan, (_drawn(F, N, seed=12) < 0.5).float())
BASE, STEERED = _drawn(3, 4, seed=13).softmax(-1), _drawn(F, 3, 4, seed=14).softmax(-1)
CONCEPT = (_drawn(F, seed=15) * 4).long()
DECODER, OTHER = _drawn(F, E, seed=16) - 0.5, _drawn(F, E, seed=17) - 0.5
MAPS = _drawn(F, 4, 4, seed=18)
EDGES = [0.0, 0.3, 1.0]


def _facts(move) -> Facts:
    return Facts(FACTS.names, torch.as_tensor(move(FACTS.truth)))


METRICS = {
    "accuracy_change": lambda m: group_accuracy.accuracy_change(m(RIGHT), m(LABELS > 1), n=20),
    "bootstrap": lambda m: metrics.bootstrap(lambda x, y: x.mean(1) - y.mean(1), m(LOSSES), m(SCORE), n=20),
    "by_level": lambda m: hierarchy.by_level(m(SCORE), (3, F), m(SCORE.nan_to_num() > 0.3)),
    "centre_minus_border": lambda m: token_suite.centre_minus_border(m(MAPS)),
    "clades": lambda m: hierarchy.clades(m(TOP), PATHS),
    "concept_probabilities": lambda m: steerability.concept_probabilities(m(EMBEDDINGS), m(TEXTS), 10.0),
    "coverage": lambda m: steerability.coverage(m(CONCEPT), m(SCORE.nan_to_num())),
    "crossed_mean": lambda m: steering_scores.crossed_mean(m(TABLE), n=20),
    "expected_coverage": lambda m: steerability.expected_coverage(m(CONCEPT), m(SCORE.nan_to_num()), [2, 5]),
    "feature_embeddings": lambda m: steering_scores.feature_embeddings(m(TOP), m(EMBEDDINGS)),
    "group_accuracy": lambda m: group_accuracy.group_accuracy(m(RIGHT), m(GROUP)),
    "jaccard": lambda m: metrics.jaccard(m(TOP)),
    "jaccard_counts": lambda m: metrics.jaccard_counts(m(TOP)),
    "jackknife_error": lambda m: metrics.jackknife_error(m(LOSSES)),
    "jackknife_interval": lambda m: metrics.jackknife_interval(0.5, m(LOSSES)),
    "lca_depth": lambda m: hierarchy.lca_depth(m(TOP), PATHS),
    "majority_depth": lambda m: hierarchy.majority_depth(m(TOP), PATHS),
    "match_codes": lambda m: metrics.match_codes(m(CODES), m(CODES.roll(1, 1))),
    "match_directions": lambda m: metrics.match_directions(m(DECODER), m(OTHER), m(torch.ones(F).bool())),
    "mean_difference": lambda m: steering_scores.mean_difference(m(TABLE), m(TABLE.roll(1, 0)), n=20),
    "mean_interval": lambda m: metrics.mean_interval(m(LOSSES), 20),
    "monosemanticity": lambda m: metrics.monosemanticity(m(CODES), m(EMBEDDINGS)),
    "name_bounds": lambda m: steering_scores.name_bounds(m(EMBEDDINGS), m(EMBEDDINGS.roll(1, 0))),
    "parents": lambda m: hierarchy.parents(m(CODES), (4, F)),
    "proportion": lambda m: group_accuracy.proportion(m(RIGHT)),
    "published_recovered": lambda m: published_recovered(m(LOSSES), m(LOSSES + 0.1), m(LOSSES + 0.5)),
    "PublishedReconstruction": lambda m: (
        PublishedReconstruction(m(MAPS[0])).update(m(MAPS), m(MAPS * 0.9)).update(m(MAPS), m(MAPS)).compute()
    ),
    "random_directions": lambda m: metrics.random_directions(m(DECODER)),
    "rank_correlation": lambda m: metrics.rank_correlation(m(EMBEDDINGS[None, :, :2])),
    "rates": lambda m: steering_scores.rates(m(TABLE), m(TABLE.roll(1, 0)), n=20),
    "reconstruction": lambda m: metrics.reconstruction(m(EMBEDDINGS), m(EMBEDDINGS * 0.9)),
    "recovered": lambda m: metrics.recovered(m(LOSSES), m(LOSSES + 0.1), m(LOSSES + 0.5), n=20),
    "shuffled_codes": lambda m: metrics.shuffled_codes(m(CODES)),
    "sparsity": lambda m: metrics.sparsity(m(CODES), ["cls", "spatial"] * (N // 2)),
    "steerability": lambda m: steerability.steerability(m(BASE), m(STEERED)),
    "steering_score": lambda m: steering_scores.steering_score(m(DECODER), m(OTHER)),
    "trend_test": lambda m: trends.trend_test(m(LOSSES), m(LABELS), m(GROUP), n_permutations=20),
    "worst_group_change": lambda m: group_accuracy.worst_group_change(m(RIGHT), m(LABELS > 1), m(GROUP), 0, n=20),
    "zero_shot": lambda m: metrics.zero_shot(m(EMBEDDINGS), m(TEXTS), m(LABELS), 10.0),
    # of single chapters
    "auc": lambda m: ground_truth.auc(m(CODES), _facts(m)),
    "best_f1": lambda m: ground_truth.best_f1(m(CODES), _facts(m)),
    "mutual_information": lambda m: ground_truth.mutual_information(m(CODES), _facts(m)),
    "purity": lambda m: ground_truth.purity(m(TOP), _facts(m)),
    "focus": lambda m: ground_truth.focus(m(TOP), _facts(m)),
    "best_facts": lambda m: ground_truth.best_facts(m(CODES), m(TOP), _facts(m)),
    "of_best_fact": lambda m: ground_truth.of_best_fact(m(EMBEDDINGS)),
    "agreement_by_difference": lambda m: ground_truth.agreement_by_difference(m(SCORE), m(SCORE), EDGES, 20),
    "agreement_growth": lambda m: ground_truth.agreement_growth(m(SCORE), m(SCORE), EDGES, 20, min_pairs=1),
    "auroc": lambda m: outliers.auroc(m(LOSSES), m(LOSSES / 2), n=20),
    "auroc_gain": lambda m: outliers.auroc_gain([m(EMBEDDINGS[:, :2])], m(EMBEDDINGS[:, 2:4]), n=20),
    "top_images": lambda m: top_images(m(CODES), K),
}
SPARSE = ("match_codes", "monosemanticity", "parents", "shuffled_codes", "sparsity", "auc")
SPARSE += ("best_f1", "mutual_information", "best_facts", "top_images")
TAKE_NAN = (
    "agreement_by_difference",
    "agreement_growth",
    "auroc",
    "auroc_gain",
    "bootstrap",
    "by_level",
    "crossed_mean",
)
TAKE_NAN += (
    "mean_difference",
    "mean_interval",
    "of_best_fact",
    "rates",
    "steering_score",
    "trend_test",
)  # for what is not known


def _alternating(first: str):
    """Put operands on CUDA and on the CPU in turn."""
    turns = [first]

    def move(x: torch.Tensor) -> torch.Tensor:
        turns.append("cpu" if turns[-1] == "cuda" else "cuda")
        return x.to(turns[-2])

    return move


PLACES = {
    "all on CUDA": lambda: lambda x: x.to("cuda"),
    "the first on CUDA": lambda: _alternating("cuda"),
    "the second on CUDA": lambda: _alternating("cpu"),
}
FLOAT64 = {"with float64": contextlib.nullcontext, "without float64": without_float64}


def test_every_public_metric_is_here():
    kept = ("Interval", "Matching", "Reconstruction", "Sparsity", "ZeroShot")  # answers, and what sums them up
    assert set(metrics.__all__) - set(kept) <= set(METRICS)
    others = {"facts_table", "known_facts", "oracle_embeddings", "rank_names", "softmax_over"}
    others |= {"over_draws", "accuracy_over_draws"}  # of intervals, not of tensors
    modules = ground_truth, group_accuracy, hierarchy, outliers, published_fidelity, steerability, steering_scores
    for module in (*modules, trends):
        here = {n for n, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__}
        assert {n for n in here if n[0] != "_" and inspect.isfunction(vars(module)[n])} <= {*METRICS, *others}


@pytest.mark.parametrize("float64", FLOAT64)
@pytest.mark.parametrize("name", METRICS)
def test_figures_are_those_of_the_cpu_and_on_the_cpu(name, float64):
    here = METRICS[name](lambda x: x)
    with FLOAT64[float64](), cuda_device():
        for where, moving in PLACES.items():
            there = METRICS[name](moving())
            assert devices(there) <= {"cpu"}, where
            assert_same(here, there)


@pytest.mark.parametrize("float64", FLOAT64)
@pytest.mark.parametrize("name", SPARSE)
def test_sparse_codes_may_lie_anywhere_too(name, float64):
    def sparse(move):
        return lambda x: move(x.to_sparse_csr() if x.shape == CODES.shape and x.dtype == CODES.dtype else x)

    here = METRICS[name](sparse(lambda x: x))
    with FLOAT64[float64](), cuda_device():
        for where, moving in PLACES.items():
            there = METRICS[name](sparse(moving()))
            assert devices(there) <= {"cpu"}, where
            assert_same(here, there)


@pytest.mark.parametrize("name", METRICS)
def test_an_operand_that_is_not_finite_is_refused_whichever_it_is(name):
    operands = []
    METRICS[name](lambda x: operands.append(x) or x)
    for place in (i for i, x in enumerate(operands) if x.is_floating_point()):
        for bad in (torch.inf,) if name in TAKE_NAN else (torch.inf, torch.nan):
            with pytest.raises(ValueError, match=r"holds (NaN or )?infinity"):
                METRICS[name](_poisoned(place, bad))


def _poisoned(place: int, bad: float):
    """Put a number that is not finite into one operand."""
    places = itertools.count()

    def move(x: torch.Tensor) -> torch.Tensor:
        return x.clone().index_put_((torch.tensor(0),) * x.ndim, torch.tensor(bad)) if next(places) == place else x

    return move


@pytest.mark.parametrize("name", METRICS)
def test_numpy_arrays_are_as_good(name):
    assert_same(METRICS[name](lambda x: x), METRICS[name](lambda x: x.numpy()))


def test_a_column_of_a_table_is_as_good():
    assert group_accuracy.proportion(pd.Series(RIGHT.numpy())) == group_accuracy.proportion(RIGHT)
    assert math.isnan(group_accuracy.proportion([]).value)
    assert isinstance(METRICS["best_facts"](lambda x: x), pd.DataFrame)
    assert np.isfinite(metrics.jackknife_error([0.5, 0.25]))
