"""Probes of features: pooling, splits, choice of columns and strengths, marks, each against a slow definition."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression

from experiments import probing
from experiments.ground_truth import Facts, facts_table, known_facts
from experiments.probing import (
    Split,
    binarised,
    enough,
    fit_probe,
    joined,
    kept,
    marks,
    mean_gap,
    pool,
    probe_facts,
    random_split,
    read_pictures,
    scaled,
    varied_facts,
)
from lib import SAE, SAEConfig, extract, load_encoder, load_images
from lib.activations.store import ActivationStore


@pytest.fixture
def store(tmp_path):
    return extract(load_encoder("tiny"), load_images("menagerie:val[:6]"), ["1.resid_post"], "all", tmp_path)[
        "1.resid_post"
    ]


@pytest.fixture
def sae():
    return SAE(SAEConfig(kind="topk", width=64, k=4), 192).requires_grad_(False)


@pytest.fixture
def rows():
    """Three features that know the fact, seventeen that do not; sparse and non-negative, (300, 20)."""
    rng = np.random.default_rng(0)
    truth = rng.random(300) < 0.4
    x = np.maximum(rng.standard_normal((300, 20)), 0).astype(np.float32)
    x[:, :3] += truth[:, None] * np.array([2.0, 1.0, 0.7])
    return x, truth


def test_a_picture_is_its_first_token_or_the_mean_or_the_largest_over_all(store, sae, monkeypatch):
    monkeypatch.setattr(probing, "MAX_CODES", 4 * 50 * 64)  # four pictures at a time
    seen = read_pictures(store, sae)
    for i in range(6):
        tokens = torch.stack([store[row] for row in range(len(store)) if store.image_index[row] == i])
        codes = torch.stack([sae.encode(token) for token in tokens])
        for kind, values in (("raw", tokens), ("codes", codes)):
            wanted = {"cls": values[0], "mean": sum(values) / 50, "max": values.max(0).values}
            for pooling, vector in wanted.items():
                got = getattr(seen, kind)[pooling][[i]]
                got = got.toarray() if kind == "codes" else got
                np.testing.assert_allclose(got[0], vector.detach(), atol=1e-5)


def test_error_is_the_share_of_squared_length_that_the_sae_misses_and_active_counts_its_features(store, sae):
    seen, x = read_pictures(store, sae), store[:].unflatten(0, (6, 50))
    for i in range(6):
        codes = sae.encode(x[i])
        left = (x[i] - sae.decode(codes)).square().sum() / x[i].square().sum()
        assert seen.error[i] == pytest.approx(float(left), rel=1e-3)
        assert seen.active[i] == len({int(f) for token in codes for f in token.nonzero()[:, 0]})


def test_joined_sets_of_pictures_keep_their_order(store, sae):
    seen = read_pictures(store, sae)
    both = joined([seen, seen])
    np.testing.assert_array_equal(both.raw["max"], np.concatenate([seen.raw["max"]] * 2))
    np.testing.assert_array_equal(both.codes["cls"].toarray()[6:], seen.codes["cls"].toarray())
    assert both.error.tolist() == [*seen.error, *seen.error]
    assert both.active.tolist() == [*seen.active, *seen.active]


def test_pooling_refuses_a_store_without_all_tokens_and_an_unknown_pooling(store, sae):
    with pytest.raises(ValueError, match="tokens='all'"):
        read_pictures(ActivationStore.from_tensor(store[:]), sae)
    with pytest.raises(ValueError, match="unknown pooling 'sum'"):
        read_pictures(store, sae, ["sum"])


def test_the_largest_over_tokens_may_be_negative():
    assert pool(-torch.ones(1, 3, 2), "max").tolist() == [[-1, -1]]


def test_a_split_takes_every_picture_once_and_says_when_there_are_too_few():
    split = random_split(10, seed=3)
    assert sorted([*split.train, *split.validation, *split.test]) == list(range(10))
    assert [len(split.train), len(split.validation), len(split.test)] == [5, 2, 3]
    with pytest.raises(ValueError, match="2 pictures cannot be cut"):
        random_split(2)


def test_what_is_kept_of_a_split_stays_in_its_part():
    split = kept(Split(np.array([4, 0]), np.array([1, 2]), np.array([3])), np.array([1, 0, 1, 1, 0], dtype=bool))
    assert [part.tolist() for part in (split.train, split.validation, split.test)] == [[0], [2], [3]]


def test_varied_facts_take_turns_between_columns_the_commonest_first():
    names = ["kind=bird", "kind=fish", "kind=tree", "hat", "place=sea", "place=wood"]
    truth = torch.zeros(10, 6, dtype=torch.bool)
    for i, count in enumerate((5, 3, 2, 1, 4, 6)):
        truth[:count, i] = True
    chosen = [names[i] for i in varied_facts(Facts(names, truth), 5)]
    assert chosen == ["place=wood", "kind=bird", "hat", "place=sea", "kind=fish"]


def test_a_fact_is_enough_where_every_part_has_pictures_with_and_without_it():
    truth = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], dtype=bool)
    assert enough(truth, np.array([0, 2]), np.array([2, 3]), least=1).tolist() == [True, False, False]


def test_binarised_features_are_one_above_a_share_of_their_largest_training_code():
    codes = csr_array(np.array([[1.0, 0, 8], [3, 2, 0], [4, 0, 9]], dtype=np.float32))
    train = np.array([0, 1, 2])
    assert binarised(codes, train).toarray().tolist() == [[1, 0, 1], [1, 1, 0], [1, 0, 1]]
    assert binarised(codes, train, 0.5).toarray().tolist() == [[0, 0, 1], [1, 1, 0], [1, 0, 1]]
    assert binarised(codes, np.array([0]), 0.5).toarray()[:, 0].tolist() == [1, 1, 1]


@pytest.mark.parametrize("sparse", [False, True])
def test_scaled_training_rows_have_a_mean_square_length_of_one_whatever_the_units(rows, sparse):
    x, train = (csr_array(rows[0]) if sparse else rows[0]), np.arange(200)
    y, z = scaled(x, train), scaled(x * np.float32(50), train)
    dense = y.toarray() if sparse else y
    assert np.square(dense[:200]).sum(1).mean() == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(dense, z.toarray() if sparse else z, atol=1e-5)


@pytest.mark.parametrize("sparse", [False, True])
def test_the_mean_difference_is_in_standard_deviations_of_the_training_rows(rows, sparse):
    x, truth = rows
    got = mean_gap(csr_array(x) if sparse else x, truth, np.arange(200))
    for column in range(20):
        values, fact = x[:200, column].astype(float), truth[:200]
        assert got[column] == pytest.approx(abs(values[fact].mean() - values[~fact].mean()) / values.std(), rel=1e-3)


def test_a_sparse_probe_takes_the_columns_that_differ_most_in_training(rows):
    x, truth = rows
    probe = fit_probe(scaled(x, np.arange(150)), truth, random_split(300), k=3)
    assert probe.columns.tolist() == [0, 1, 2]


def test_validation_chooses_the_strength_and_testing_has_no_say(rows):
    x, truth = rows
    split = random_split(300, seed=1)
    strengths = (0.001, 1.0, 1e5)
    probe = fit_probe(x, truth, split, strengths)
    losses, aucs = [], []
    for strength in strengths:
        model = LogisticRegression(C=strength, max_iter=300, tol=1e-3).fit(x[split.train], truth[split.train])
        chance = 1 / (1 + np.exp(-model.decision_function(x[split.validation])))
        losses.append(-np.log(np.where(truth[split.validation], chance, 1 - chance)).mean())
        aucs.append(slow_auc(chance, truth[split.validation]))
    assert probe.strength == strengths[int(np.argmin(losses))]
    assert probe.validation == pytest.approx(aucs[int(np.argmin(losses))])
    other = truth.copy()
    other[split.test] = ~other[split.test]
    np.testing.assert_array_equal(fit_probe(x, other, split, strengths).scores(x), probe.scores(x))


def test_a_probe_of_one_column_says_yes_where_the_column_does():
    truth = np.arange(300) % 4 == 0
    x = truth[:, None] * np.random.default_rng(0).random((300, 1)).astype(np.float32)
    split = random_split(300)
    prepared = scaled(csr_array(x), split.train)
    assert marks(fit_probe(prepared, truth, split, k=1).scores(prepared)[split.test], truth[split.test])["f1"] > 0.9


def test_a_probe_of_what_never_differs_is_refused(rows):
    with pytest.raises(ValueError, match="with and without the fact"):
        fit_probe(rows[0], np.ones(300, dtype=bool), random_split(300))


def slow_auc(scores, truth):
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[truth] for b in scores[~truth]]
    return float(np.mean(pairs))


def slow_f1(said, truth):
    right = sum(s and t for s, t in zip(said, truth, strict=True))
    return 2 * right / (sum(said) + sum(truth))


def test_marks_are_the_auc_and_the_mean_f1_of_yes_and_no():
    rng = np.random.default_rng(0)
    scores, truth = rng.standard_normal(40).round(1), rng.random(40) < 0.3
    got = marks(scores, truth)
    assert got["auc"] == pytest.approx(slow_auc(scores, truth))
    assert got["f1"] == pytest.approx((slow_f1(scores > 0, truth) + slow_f1(scores <= 0, ~truth)) / 2)


def test_every_fact_is_probed_from_every_representation_and_marked_on_every_part(rows):
    x, truth = rows
    facts = Facts(["a", "b"], torch.from_numpy(np.stack([truth, x[:, 5] > 0.5], axis=1)))
    split = random_split(300)
    parts = {"home": split.test[:40], "away": split.test[40:]}
    table = probe_facts({"dense": x, "sparse": csr_array(x)}, facts, split, parts)
    assert table.groupby(["vectors", "fact", "part"]).size().tolist() == [1] * 8
    assert table["auc"].min() > 0.9
    prepared = scaled(x, split.train)
    again = fit_probe(prepared, truth, split).scores(prepared)[parts["away"]]
    row = table.query("vectors == 'dense' and fact == 'a' and part == 'away'").iloc[0]
    assert row["auc"] == pytest.approx(slow_auc(again, truth[parts["away"]]))


def test_a_folder_of_labelled_pictures_is_probed_for_its_classes(tmp_path):
    rng = np.random.default_rng(0)
    for name, colour in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(14):
            noise = rng.integers(0, 50, (32, 32, 3)) + np.array(colour)
            Image.fromarray(noise.astype(np.uint8)).save(tmp_path / "pictures" / name / f"{i}.png")
    images = load_images(f"folder:{tmp_path / 'pictures'}")
    facts = known_facts(facts_table(images), min_support=5)
    store = extract(load_encoder("tiny"), images, ["1.resid_post"], "all", tmp_path / "store", workers=0)
    seen = read_pictures(store["1.resid_post"], SAE(SAEConfig(kind="topk", width=64, k=8), 192))
    table = probe_facts({"raw": seen.raw["mean"], "codes": seen.codes["max"]}, facts, random_split(28))
    assert isinstance(table, pd.DataFrame)
    assert set(table["fact"]) == {"class=blue", "class=red"}
    assert table.loc[table["vectors"] == "raw", "auc"].min() > 0.95
