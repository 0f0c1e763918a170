"""Feature-fact agreement against scikit-learn's and plain-loop definitions, and on cases whose answer is known."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import f1_score, mutual_info_score, roc_auc_score

from experiments import ground_truth
from experiments.ground_truth import Facts, known_facts, oracle_embeddings
from lib.images.image_set import load_images


def sparse_matrix(n=60, f=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = (torch.rand(n, f, generator=generator) * 4).round() / 2  # many ties
    return torch.where(torch.rand(n, f, generator=generator) < 0.3, values, 0)


def random_facts(n=60, c=5, seed=1):
    truth = torch.rand(n, c, generator=torch.Generator().manual_seed(seed)) < torch.linspace(0.2, 0.8, c)
    return Facts([f"fact{i}" for i in range(c)], truth)


SIGNED = torch.randn(60, 9, generator=torch.Generator().manual_seed(3)).mul(2).round() / 2
MATRICES = {
    "sparse codes given dense": sparse_matrix(),
    "CSR": sparse_matrix().to_sparse_csr(),
    "signed neurons with ties": SIGNED,
    "CSR with negative entries": (SIGNED * (sparse_matrix() > 0)).to_sparse_csr(),
}


@pytest.fixture(params=MATRICES, ids=str)
def matrix(request):
    return MATRICES[request.param]


def as_columns(matrix):
    dense = matrix.to_dense() if matrix.layout == torch.sparse_csr else matrix
    return dense.t().numpy()


def test_auc_equals_scikit_learn_with_ties(matrix):
    facts = random_facts()
    expected = [[roc_auc_score(y, a) for y in facts.truth.t().numpy()] for a in as_columns(matrix)]
    np.testing.assert_allclose(ground_truth.auc(matrix, facts), expected, atol=1e-6)


def test_f1_equals_the_best_over_every_threshold(matrix):
    facts = random_facts()
    columns = as_columns(matrix)
    expected = np.array(
        [[max(f1_score(y, a >= t) for t in np.unique(a)) for y in facts.truth.t().numpy()] for a in columns]
    )
    found = ground_truth.best_f1(matrix, facts, cells=600).numpy()
    if (columns < 0).any() and matrix.layout == torch.sparse_csr:
        assert (found <= expected + 1e-6).all()  # thresholds below zero are not searched in sparse codes
    else:
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_detector_of_everything_is_at_chance():
    facts = random_facts()
    scores = ground_truth.best_f1(torch.ones(60, 2), facts, above_chance=True)
    torch.testing.assert_close(scores, torch.zeros(2, 5), atol=1e-6, rtol=0)
    perfect = ground_truth.best_f1(facts.truth.float(), facts, above_chance=True)
    torch.testing.assert_close(perfect.diagonal(), torch.ones(5))


def test_mutual_information_equals_scikit_learn_less_its_chance_level(matrix):
    facts = random_facts()
    chance = 1 / (2 * 60)  # nats
    expected = [[mutual_info_score(y, a > 0) - chance for y in facts.truth.t().numpy()] for a in as_columns(matrix)]
    np.testing.assert_allclose(
        ground_truth.mutual_information(matrix, facts), np.maximum(expected, 0) / np.log(2), atol=1e-6
    )


def test_blocks_do_not_change_the_result(monkeypatch):
    facts, codes = random_facts(), sparse_matrix().to_sparse_csr()
    whole = ground_truth.auc(codes, facts)
    from lib.metrics import columns

    monkeypatch.setattr(ground_truth, "sorted_columns", lambda a: columns.sorted_columns(a, entries=10))
    torch.testing.assert_close(ground_truth.auc(codes, facts), whole)


def test_a_feature_that_is_a_fact_matches_it_perfectly():
    facts = random_facts()
    codes = facts.truth.float() * torch.rand(60, 1).add(0.1)
    top_images = codes.topk(5, dim=0).indices.t()
    frame = ground_truth.best_facts(codes.to_sparse_csr(), top_images, facts)
    assert list(frame["fact"]) == facts.names
    for column in ("auc", "f1", "purity", "purity_above_chance"):
        np.testing.assert_allclose(frame[column], 1, atol=1e-6)


def test_purity_of_random_top_images_is_chance():
    facts = random_facts(n=2000)
    top_images = torch.randint(2000, (3000, 16), generator=torch.Generator().manual_seed(5))
    assert ground_truth.purity(top_images, facts, above_chance=True).mean(0).abs().max() < 0.03


def test_purity_leaves_out_missing_images():
    facts = Facts(["yes"], torch.tensor([[True], [False], [True], [False]]))
    shares = ground_truth.purity(torch.tensor([[0, 2, -1], [0, 1, -1], [-1, -1, -1]]), facts)
    torch.testing.assert_close(shares, torch.tensor([[1.0], [0.5], [float("nan")]]), equal_nan=True)


def test_focus_is_the_information_in_the_top_images():
    truth = torch.zeros(64, 2, dtype=torch.bool)
    truth[:32, 0] = True  # true of half of the images
    truth[:4, 1] = True  # true of one in sixteen
    facts = Facts(["common", "rare"], truth)
    top_images = torch.tensor([[0, 1, 2, 3], [28, 29, 30, 31], [60, 61, 62, 63], [0, 31, 32, 63], [-1, -1, -1, -1]])
    quarter = float(0.25 * np.log2(0.25 * 16) + 0.75 * np.log2(0.75 * 16 / 15))
    expected = torch.tensor([[1, 4], [1, 0], [0, 0], [0, quarter], [torch.nan, torch.nan]])
    torch.testing.assert_close(ground_truth.focus(top_images, facts), expected, equal_nan=True)


def test_a_dead_feature_has_no_best_fact():
    codes = sparse_matrix()
    codes[:, 2] = 0
    frame = ground_truth.best_facts(codes.to_sparse_csr(), torch.full((9, 4), -1), random_facts())
    assert frame["fact"][2] is None
    assert np.isnan(frame["auc"][2])
    assert frame["fact"].notna().sum() == 8


TABLE = pd.DataFrame(
    {
        "species": ["owl", "fox", "owl", "fox", "", None] * 5,
        "again": ["a", "b", "a", "b", "", None] * 5,
        "count": [1, 2, 1, 1, 1, 1] * 5,
        "water_bird": [True, False, False, False, False, False] * 5,
        "x": np.linspace(0, 1, 30),
        "rare": ["odd"] + [""] * 29,
    }
)


def test_facts_are_the_supported_values_of_categorical_columns():
    assert known_facts(TABLE, min_support=5).names == [
        "species=fox",
        "species=owl",
        "count=1",
        "count=2",
        "water_bird",
    ]


@pytest.mark.parametrize("table", [TABLE[["x", "rare"]], TABLE[[]]], ids=["too rare", "unknown"])
def test_where_nothing_is_known_no_feature_has_a_best_fact(table):
    facts = known_facts(table, min_support=5)
    codes, top = torch.rand(30, 4).to_sparse_csr(), torch.arange(12).view(4, 3)
    assert facts.names == []
    assert ground_truth.best_facts(codes, top, facts)["fact"].isna().all()
    for table_of in (ground_truth.best_f1(codes, facts), ground_truth.focus(top, facts)):
        assert ground_truth.of_best_fact(table_of).isnan().all()


def test_the_facts_table_is_as_good_as_what_is_known_about_the_images():
    known = {"facts": None, "taxonomy": None, "labels": np.array([1, 0, -1]), "class_names": ("crab", "owl")}
    assert ground_truth.facts_table(SimpleNamespace(facts=TABLE)) is TABLE
    assert ground_truth.facts_table(SimpleNamespace(**known))["class"].tolist() == ["owl", "crab", ""]


def test_ranks_of_the_taxonomy_are_facts_where_no_others_are_known():
    paths = [("Animalia", "Chordata"), ("Animalia", "Arthropoda"), ()]
    table = ground_truth.facts_table(SimpleNamespace(facts=None, taxonomy=paths))
    assert table.to_dict("list") == {"rank 1": ["Animalia", "Animalia", ""], "rank 2": ["Chordata", "Arthropoda", ""]}
    named = ground_truth.facts_table(SimpleNamespace(facts=None, taxonomy=[tuple("kpcofgs")]))
    assert named.iloc[0][["kingdom", "class", "species"]].tolist() == ["k", "c", "s"]


def test_the_oracle_tells_a_thousand_classes_apart():
    assert oracle_embeddings(pd.DataFrame({"class": [f"c{i % 1000}" for i in range(2000)]})).shape == (2000, 1000)


def test_the_facts_table_of_unknown_images_has_a_row_each_and_no_column(tmp_path):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    assert ground_truth.facts_table(load_images(f"folder:{tmp_path}")).shape == (2, 0)


def test_oracle_embeddings_are_centred_and_alike_for_equal_facts():
    embeddings = oracle_embeddings(TABLE)
    torch.testing.assert_close(embeddings.mean(0), torch.zeros(embeddings.shape[1]), atol=1e-6, rtol=0)
    torch.testing.assert_close(embeddings[1], embeddings[7])


def test_agreement_is_total_when_score_and_truth_rank_alike():
    score = torch.linspace(0, 1, 12)
    frame = ground_truth.agreement_by_difference(score, score**3, [0, 0.25, 0.5, 1.01], n_bootstrap=20)
    assert frame["pairs"].sum() == 66
    assert (frame[["agreement", "lower", "upper"]] == 1).all(axis=None)


def test_agreement_with_an_unrelated_truth_is_a_coin_flip():
    generator = torch.Generator().manual_seed(1)
    score, truth = torch.rand(300, generator=generator), torch.rand(300, generator=generator)
    row = ground_truth.agreement_by_difference(score, truth, [0, 1], n_bootstrap=100).iloc[0]
    assert row["lower"] < 0.5 < row["upper"]
    assert row["upper"] - row["lower"] < 0.2


def test_agreement_leaves_out_dead_features_and_halves_ties():
    score = torch.tensor([0.1, 0.2, float("nan")])
    frame = ground_truth.agreement_by_difference(score, torch.tensor([1.0, 1.0, 0.0]), [0, 1], n_bootstrap=10)
    assert frame["pairs"][0] == 1
    assert frame["agreement"][0] == 0.5


def test_facts_about_other_images_are_an_error():
    with pytest.raises(ValueError, match="facts are about 60 images"):
        ground_truth.auc(torch.zeros(10, 3), random_facts())


def test_agreement_grows_from_a_coin_flip_to_certainty():
    score = torch.cat([torch.zeros(20), torch.ones(20)]) + torch.linspace(0, 0.05, 40)
    truth = (score > 0.5).float() + torch.rand(40, generator=torch.Generator().manual_seed(5)) * 0.1
    edges = [0, 0.5, 0.8, 1.1]
    found = ground_truth.agreement_growth(score, truth, edges, n_bootstrap=200)
    bins = ground_truth.agreement_by_difference(score, truth, edges, n_bootstrap=20)
    assert found.value == pytest.approx(bins["agreement"].iloc[2] - bins["agreement"].iloc[0])
    assert found.low < found.value < found.high
    assert found.low > 0.2


def test_agreement_in_a_single_filled_bin_has_no_growth():
    score = torch.linspace(0, 1, 30)
    assert np.isnan(ground_truth.agreement_growth(score, score, [0, 1.1, 2], n_bootstrap=20).value)
    assert np.isnan(ground_truth.agreement_growth(score[:3], score[:3], [0, 0.4, 2], n_bootstrap=20).value)
