"""Nulls: as sparse as the codes they stand beside, otherwise of chance; and worth no more than chance."""

import pytest
import torch
from torch.nn.functional import normalize

from experiments.nulls import DRAWN, PENALTIES, drawn_directions, drawn_neurons, made_sparse, null_dictionary, nulls_of
from lib import SAE, SAEConfig, metrics

N, D, F = 400, 12, 40


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def rows() -> torch.Tensor:
    return torch.randn(N, D, generator=generator()) + 3


@pytest.fixture
def codes(rows) -> torch.Tensor:
    """Codes (N, F) of very different density; feature 0 is dead, feature 1 always active."""
    share = torch.linspace(0.0, 0.4, F)
    codes = torch.rand(N, F, generator=generator(1)) * (torch.rand(N, F, generator=generator(2)) < share)
    codes[:, 0], codes[:, 1] = 0, 1
    return codes.to_sparse_csr()


def slow(values: torch.Tensor, count: int) -> list[float]:
    """One column by its definition: what exceeds the first value that is left out."""
    order = sorted(values.tolist(), reverse=True)
    return [max(0.0, value - order[count]) for value in values.tolist()]


def test_a_column_keeps_its_largest_values_less_the_largest_left_out(rows):
    counts = torch.tensor([0, 1, 7, 100, N - 1])
    found = made_sparse(rows[:, :5], counts)
    for column, count in enumerate(counts.tolist()):
        assert found[:, column].tolist() == pytest.approx(slow(rows[:, column], count))


@pytest.mark.parametrize("name", ["sparse neurons", "sparse directions"])
def test_each_null_feature_is_active_on_as_many_pictures_as_its_feature(codes, rows, name):
    wanted = (codes.to_dense() > 0).sum(0)
    assert torch.equal((nulls_of(codes, rows)[name].to_dense() > 0).sum(0), wanted)


def test_a_stored_zero_is_not_active(codes, rows):
    stored = torch.sparse_csr_tensor(codes.crow_indices(), codes.col_indices(), torch.zeros(codes._nnz()), codes.shape)
    assert nulls_of(stored, rows)["sparse neurons"]._nnz() == 0


def test_they_are_drawn_by_the_seed_and_block_by_block(codes, rows, monkeypatch):
    whole = {name: null.to_dense() for name, null in nulls_of(codes, rows, seed=3).items()}
    monkeypatch.setattr("lib.devices.AT_ONCE", 3 * N)
    for name, null in nulls_of(codes, rows, seed=3).items():
        assert torch.allclose(null.to_dense(), whole[name], atol=1e-6)
    other = nulls_of(codes, rows, seed=4)
    assert all(not torch.equal(other[name].to_dense(), whole[name]) for name in whole if name != "neurons")


def test_neurons_are_single_entries_and_directions_have_unit_length():
    neurons = drawn_neurons(D, F, seed=0)
    assert (neurons != 0).sum(0).tolist() == [1] * F
    assert set(neurons.unique().tolist()) == {-1.0, 0.0, 1.0}
    assert drawn_directions(D, F, seed=0).norm(dim=0).tolist() == pytest.approx([1.0] * F)


def test_shuffled_features_keep_their_values(codes, rows):
    shuffled = nulls_of(codes, rows)["shuffled"].to_dense()
    assert torch.equal(shuffled.sort(dim=0).values, codes.to_dense().sort(dim=0).values)


def test_where_pictures_are_alike_by_chance_no_null_scores_above_it(codes, rows):
    embeddings = normalize(torch.randn(N, 64, generator=generator(5)), dim=1)
    for null in nulls_of(codes, rows).values():
        scores = metrics.monosemanticity(null, embeddings)
        assert abs(float(scores[~scores.isnan()].median())) < 0.02


def test_the_planted_features_score_above_every_null():
    """Pictures are sums of few of many directions, and alike where they share some: only the directions know."""
    directions = normalize(torch.randn(96, 32, generator=generator(1)), dim=1)
    strengths = torch.rand(2000, 96, generator=generator(2)) * (torch.rand(2000, 96, generator=generator(3)) < 0.04)
    judge = normalize(strengths + 1e-3, dim=1)
    planted = metrics.monosemanticity(strengths, judge)
    for name, null in nulls_of(strengths, strengths @ directions).items():
        beside = metrics.monosemanticity(null, judge)
        assert float(planted.nanmean()) > 1.5 * float(beside.nanmean()), name


def test_other_pictures_are_refused(codes, rows):
    with pytest.raises(ValueError, match="codes are of 400 pictures, rows of 399"):
        nulls_of(codes, rows[1:])


@pytest.fixture
def sae() -> SAE:
    """An SAE with a dead latent, and one that is always active."""
    made = SAE(SAEConfig(kind="relu", width=F, seed=5), D)
    with torch.no_grad():
        made.b_enc.copy_(torch.linspace(-8, 0, F))
        made.b_enc[0], made.b_enc[1] = -1e3, 1e3
    return made


@pytest.mark.parametrize("drawn", DRAWN.values(), ids=DRAWN)
def test_a_null_dictionary_is_as_sparse_as_the_one_beside_it_and_reads_what_was_drawn(sae, rows, drawn, monkeypatch):
    monkeypatch.setattr("lib.devices.AT_ONCE", 7 * N)
    null = null_dictionary(sae, rows, 3, drawn)
    wanted = (sae.encode(rows) > 0).sum(0)
    assert (wanted[0], wanted[1]) == (0, N)
    assert torch.equal((null.encode(rows) > 0).sum(0), wanted)
    assert torch.equal((null.encode_sparse(rows).to_dense() > 0).sum(0), wanted)
    alive = wanted > 0
    assert torch.equal(null.W_enc[:, alive], drawn(D, F, 3)[:, alive])
    assert not torch.equal(null.W_enc, null_dictionary(sae, rows, 4, drawn).W_enc)


@pytest.mark.parametrize("n", [N, 50])  # in the halves of 50 there are fewer rows than latents
def test_its_decoder_is_the_ridge_regression_that_fits_rows_best_that_it_has_not_seen(sae, rows, n):
    from sklearn.linear_model import Ridge

    rows = rows[:n]
    null = null_dictionary(sae, rows, 3)
    codes, target = null.encode(rows).detach().double().numpy(), (rows - rows.mean(0)).double().numpy()

    def ridge(penalty: float, some: slice) -> Ridge:
        strength = penalty * float((codes[some] ** 2).sum(0).mean())
        return Ridge(strength, fit_intercept=False).fit(codes[some], target[some])

    first, second = slice(0, n // 2), slice(n // 2, n)
    errors = {p: ((ridge(p, first).predict(codes[second]) - target[second]) ** 2).sum() for p in PENALTIES}
    expected = ridge(min(errors, key=errors.get), slice(None)).coef_.T
    torch.testing.assert_close(null.W_dec.double(), torch.from_numpy(expected), rtol=1e-3, atol=1e-4)
    assert torch.equal(null.b_dec, rows.mean(0))


def test_of_planted_activations_the_planted_dictionary_explains_more_than_its_null():
    directions = normalize(torch.randn(48, 32, generator=generator(1)), dim=1)
    strengths = torch.rand(3000, 48, generator=generator(2)) * (torch.rand(3000, 48, generator=generator(3)) < 0.04)
    planted, x = SAE(SAEConfig(kind="relu", width=48), 32), strengths @ directions
    with torch.no_grad():
        planted.W_enc.copy_(directions.t())
        planted.W_dec.copy_(directions)
        planted.b_enc.fill_(-0.2)
    null = null_dictionary(planted, x[:1500])
    of_planted, of_null = (metrics.reconstruction(x[1500:], s(x[1500:]))["explained_variance"] for s in (planted, null))
    assert 0 < of_null < of_planted - 0.1
