"""The study of metrics: its truth, its dictionaries, ViSAEBench's seven metrics, and how metrics are marked."""

from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression

from experiments.ground_truth import Facts
from experiments.metric_study import study as study_of_metrics
from experiments.metric_study import visaebench_metrics as visaebench
from experiments.metric_study.agreement import (
    AGAINST,
    BLIND,
    FOLLOWS,
    OPEN,
    SIZE_ALONE,
    above_null,
    interval,
    permuted,
    rank_correlation,
    turned,
    verdict,
    within_sizes,
)
from experiments.metric_study.dictionaries import (
    NEURONS,
    PLANTED,
    RANDOM,
    Entry,
    fixed_dictionary,
    fixed_entries,
    from_directions,
    probes_of,
    trained_entries,
)
from experiments.metric_study.measures import FOUND, MEANT, TRUTH, best_threshold, truth
from lib import SAE, SAEConfig, metrics
from lib.metrics.intervals import Interval
from tests.peers.compare_metrics import LIMIT, differences

PEER = Path(__file__).parent / "fixtures/peers_metrics/visaebench.safetensors"


@pytest.fixture
def draw():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(("name", "gap"), differences(PEER).items())
def test_the_seven_metrics_are_those_of_the_package(name, gap):
    assert gap <= LIMIT


def test_logistic_regressions_fitted_together_are_those_of_scikit_learn():
    x, truth = np.random.default_rng(0).normal(size=(3, 40, 4)), np.arange(120).reshape(3, 40) % 3 == 0
    x[0][truth[0]] += 3  # nearly separable
    for rows, known, logits in zip(x, truth, visaebench._logits(x, truth), strict=True):
        theirs = LogisticRegression(tol=1e-8, max_iter=1000).fit(rows, known).decision_function(rows)
        assert np.allclose(logits, theirs, atol=1e-3)


def test_morans_index_is_that_of_the_formula(draw):
    codes, (h, w) = torch.rand(60, 12, 3, generator=draw).relu(), (3, 4)
    places = list(product(range(h), range(w)))
    near = np.array([[0 < max(abs(a - c), abs(b - d)) <= 1 for c, d in places] for a, b in places], float)
    centred = (codes - codes.mean(1, keepdim=True)).numpy()
    slow = [12 / near.sum() * x @ near @ x / (x @ x) for picture in centred for x in picture.T]
    assert visaebench.localisation(codes, (h, w), 1, 1, 1.0) == pytest.approx(np.mean(slow), abs=1e-5)


def test_scattered_codes_have_no_localisation_and_a_blob_has(draw):
    scattered = torch.rand(200, 49, 2, generator=draw)
    blob = torch.zeros(60, 7, 7, 2)
    blob[:, 1:4, 2:5] = 1
    assert abs(visaebench.localisation(scattered, (7, 7), 1, 1, 1.0)) < 0.05
    assert visaebench.localisation(blob.flatten(1, 2), (7, 7), 1) > 0.5


def test_the_best_threshold_is_the_best_of_all(draw):
    values, known = torch.rand(30, 4, generator=draw).sub(0.3).relu(), torch.rand(30, 4, generator=draw) > 0.6
    for column, right, edge in zip(values.T, known.T, best_threshold(values, known), strict=True):

        def f1(t, column=column, right=right):
            called = column > t
            return float(2 * (called & right).sum() / (called.sum() + right.sum()))

        assert f1(edge) == pytest.approx(max(f1(t) for t in [0.0, *column.tolist()]))


def test_features_that_are_the_facts_are_the_whole_truth_and_shuffled_ones_none(draw):
    known = torch.rand(400, 6, generator=draw) > 0.7
    facts = Facts([f"fact {i}" for i in range(6)], known)
    assert truth(known.float(), facts) == {FOUND: 1, MEANT: 1, TRUTH: 1}
    mixed = known[torch.randperm(400, generator=draw)].float()
    assert truth(mixed, facts)[TRUTH] < 0.1


def test_half_of_the_facts_and_as_many_features_of_nothing_are_half_of_the_truth(draw):
    known = torch.rand(2000, 8, generator=draw) > 0.7
    nothing = torch.rand(2000, 4, generator=draw) > 0.7
    found = truth(torch.cat([known[:, :4], nothing], dim=1).float(), Facts([""] * 8, known))
    assert found[FOUND] == pytest.approx(0.5, abs=0.05)
    assert found[MEANT] == pytest.approx(0.5, abs=0.05)


def test_an_untrained_dictionary_has_the_k_that_was_asked_for_and_the_best_decoder(draw):
    tokens = torch.randn(4000, 12, generator=draw) @ torch.randn(12, 12, generator=draw)
    sae = from_directions(torch.randn(12, 24, generator=draw), tokens, k=4)
    codes = sae.encode(tokens)
    assert (codes > 0).sum(1).float().mean() == pytest.approx(4, rel=0.02)
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(24), atol=1e-5)
    codes, centred, left = (part.detach().numpy() for part in (codes, tokens - sae.b_dec, tokens - sae(tokens)))
    least = np.square(centred - codes @ np.linalg.lstsq(codes, centred, rcond=None)[0]).mean()
    assert np.square(left).mean() == pytest.approx(least, rel=0.02)


@pytest.mark.parametrize("family", [RANDOM, NEURONS])
def test_planted_probes_find_facts_that_directions_without_training_do_not(family, draw):
    known = torch.rand(600, 6, generator=draw) > 0.7
    pictures = known.float() @ torch.randn(6, 24, generator=draw) * 3 + torch.randn(600, 24, generator=draw)
    facts = Facts([""] * 6, known)
    probes = probes_of(facts, pictures)
    found = {
        share: truth(fixed_dictionary(Entry(PLANTED if share else family, "fixed", 0.5, 3, 0, share), pictures, probes)
                     .encode(pictures).detach(), facts)[FOUND]
        for share in (0.0, 1.0)
    }  # fmt: skip
    assert found[1.0] > found[0.0] + 0.1


def test_every_size_has_its_untrained_dictionaries_and_the_first_its_ladders():
    trained = trained_entries(["topk"], [1, 2], [4, 8], [10, 100], [0, 1])
    fixed = fixed_entries([1, 2], [4, 8], [0.5], [0, 1])
    assert len(trained) == len(set(trained)) == 2 * (4 + 1)
    assert len(fixed) == len(set(fixed)) == 2 * (2 * 4 + 1)
    assert {entry.size for entry in fixed if entry.family == RANDOM} == {entry.size for entry in trained}
    assert {entry.steps for entry in trained if entry.size == (1, 4)} == {10, 100}


def test_every_dictionary_encodes_the_pictures_once_and_its_live_rows_are_matched_with_the_other_seed_s(monkeypatch):
    def encoded(sae, x):
        asked.append(sae)
        return codes, x

    asked, codes = [], torch.zeros(5, 3, 8)
    codes[1, 2, :6] = 1.0  # features 6 and 7 are dead
    monkeypatch.setattr(study_of_metrics, "codes_and_reconstruction", encoded)
    monkeypatch.setattr(study_of_metrics, "measure", lambda sae, data, codes, x_hat: {"L0": float(codes.sum())})
    entries = [*trained_entries(["topk"], [1], [4], [10], [0, 1]), Entry(RANDOM, "fixed", 1, 4)]
    saes = {entry: SAE(SAEConfig(width=8, k=4, seed=i), 12) for i, entry in enumerate(entries)}
    rows = study_of_metrics.table_of(saes, SimpleNamespace(x=torch.zeros(5, 3, 12)), {entries[0]: 0.5})
    assert asked == list(saes.values())
    alive = torch.arange(8) < 6
    same = metrics.match_directions(*(saes[entry].W_dec for entry in entries[:2]), alive, alive).mean
    assert rows["stability"].tolist() == pytest.approx([same, same, np.nan], nan_ok=True)
    assert rows["accuracy recovered"].tolist() == pytest.approx([0.5, np.nan, np.nan], nan_ok=True)
    assert rows["L0"].tolist() == [6, 6, 6]


def study(metric, n_seeds: int = 2) -> pd.DataFrame:
    """Dictionaries whose truth rises with the steps, and with one metric that a function of (row, noise) gives."""
    generator = np.random.default_rng(0)
    entries = trained_entries(["topk", "batchtopk"], [1, 4], [4, 16], [1, 10, 100], range(n_seeds))
    entries += fixed_entries([1, 4], [4, 16], [0.25, 0.5, 1.0], range(n_seeds))
    rows = pd.DataFrame([entry.as_row() for entry in entries])
    quality = rows["steps"].map({0: 0.0, 1: 0.1, 10: 0.3, 100: 0.6}) + rows["planted"]
    rows[TRUTH] = quality + 0.1 * generator.random(len(rows))
    return rows.assign(MS=metric(rows, generator.random(len(rows))))


def judged(rows: pd.DataFrame) -> str:
    from experiments.metric_study.agreement import table

    return verdict(interval(rows, "MS", n=40), table(rows).loc["MS"])


def test_a_metric_of_the_truth_follows_it():
    assert judged(study(lambda rows, noise: rows[TRUTH] + 0.05 * noise)) == FOLLOWS


def test_a_metric_of_the_opposite_goes_against_it():
    assert judged(study(lambda rows, noise: -rows[TRUTH] + 0.05 * noise)) == AGAINST


def test_a_metric_of_size_alone_does_not_follow_the_truth():
    assert judged(study(lambda rows, noise: rows["k"] + noise, n_seeds=6)) == BLIND
    assert judged(study(lambda rows, noise: rows["k"] + 0.6 * rows[TRUTH] + 0.5 * noise)) in (SIZE_ALONE, OPEN)


def test_a_permuted_truth_is_followed_by_nothing():
    rows = study(lambda rows, noise: rows[TRUTH])
    found = interval(permuted(rows), "MS", n=40)
    assert found.low < 0 < found.high


def test_the_rank_correlation_is_spearmans(draw):
    x, y = (pd.Series(torch.randint(0, 6, (30,), generator=draw).numpy()) for _ in range(2))
    assert rank_correlation(x, y) == pytest.approx(spearmanr(x, y).statistic)
    assert np.isnan(rank_correlation(x, x * 0))


def test_correlation_inside_sizes_does_not_see_what_sizes_differ_in():
    rows = study(lambda rows, noise: noise)
    shifted = rows.assign(MS=rows["MS"] + 10 * rows["k"], **{TRUTH: rows[TRUTH] + 10 * rows["k"]})
    assert within_sizes(shifted, "MS") == pytest.approx(within_sizes(rows, "MS"))
    assert rank_correlation(shifted["MS"], shifted[TRUTH]) > 0.6


def test_metrics_of_which_less_is_better_are_turned():
    rows = study(lambda rows, noise: rows[TRUTH]).assign(FVU=lambda rows: -rows[TRUTH])
    better = turned(rows)
    assert within_sizes(better, "FVU") == pytest.approx(within_sizes(better, "MS"))
    assert above_null(better, "MS") == 1


def test_without_an_interval_nothing_is_decided():
    assert verdict(Interval(0.9), pd.Series({"sparsity": 0, "width": 0, "above null": 1})) == OPEN
