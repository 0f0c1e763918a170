"""Ensembles: dictionaries of several SAEs, against the sums that define them."""

from dataclasses import replace

import pytest
import torch

from experiments.ensembles import Bagging, Boosting, Ensemble, Residuals, train_boosting
from lib.encoders.encoder import load_encoder
from lib.metrics import reconstruction
from lib.sae.model import SAE, SAEConfig
from lib.sae.training import train_sae
from steering.interventions import Intervention
from tests.sparse_world import sparse_world

D = 16
CONFIG = SAEConfig(kind="topk", width=48, k=3, steps=60, batch_size=128)


def make_sae(kind, width, seed, d=D):
    sae = SAE(SAEConfig(kind=kind, width=width, k=3, seed=seed), d)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        sae.threshold.fill_(0.4)
    return sae


@pytest.fixture
def members():
    return [make_sae("topk", 20, 1), make_sae("batchtopk", 30, 2), make_sae("gated", 25, 3)]


@pytest.fixture
def x():
    return torch.randn(40, D, generator=torch.Generator().manual_seed(0))


def test_bagging_averages_reconstructions(members, x):
    expected = sum(sae(x) for sae in members) / 3
    torch.testing.assert_close(Bagging(members)(x), expected)


def test_boosting_adds_reconstructions_of_what_is_left(members, x):
    first = members[0](x)
    second = members[1](x - first)
    expected = first + second + members[2](x - first - second)
    torch.testing.assert_close(Boosting(members)(x), expected)


@pytest.mark.parametrize("kind", [Bagging, Boosting])
def test_an_ensemble_is_a_dictionary_of_all_members_features(kind, members, x):
    ensemble = kind(members)
    codes = ensemble.encode(x)
    assert codes.shape == (40, 75) == (40, ensemble.n_features)
    torch.testing.assert_close(codes @ ensemble.W_dec + ensemble.b_dec, ensemble(x))
    assert torch.equal(ensemble.W_dec[20:50], members[1].W_dec)


@pytest.mark.parametrize("kind", [Bagging, Boosting])
def test_an_ensemble_reads_any_float_type_and_numpy_as_its_members_do(kind, members, x):
    ensemble, half = kind(members), x.half()
    same = half.float()
    for other in (half, half.double(), half.numpy()):
        assert torch.equal(ensemble.encode(other), ensemble.encode(same))
        assert torch.equal(ensemble(other), ensemble(same))
        assert torch.equal(ensemble.encode_sparse(other).to_dense(), ensemble.encode_sparse(same).to_dense())
    codes = ensemble.encode(same).detach()
    torch.testing.assert_close(ensemble.decode(codes.double().numpy()), ensemble(same))


@pytest.mark.parametrize("kind", [Bagging, Boosting])
def test_sparse_codes_of_no_rows_decode(kind, members):
    codes = kind(members).encode_sparse(torch.zeros(0, D))
    assert codes.shape == (0, 75)
    assert kind(members).decode(codes).shape == (0, D)


def test_decoder_rows_are_joined_once_and_follow_the_members(members):
    ensemble = Bagging(members)
    assert ensemble.W_dec is ensemble.W_dec
    with torch.no_grad():
        members[1].W_dec.mul_(2)
    assert torch.equal(ensemble.W_dec[20:50], members[1].W_dec)
    assert ensemble.double().W_dec.dtype == torch.float64


@pytest.mark.parametrize("kind", [Bagging, Boosting])
def test_sparse_codes_equal_dense_codes_and_decode_alike(kind, members, x):
    ensemble = kind(members)
    sparse = ensemble.encode_sparse(x)
    assert sparse.layout == torch.sparse_csr
    torch.testing.assert_close(sparse.to_dense(), ensemble.encode(x))
    torch.testing.assert_close(ensemble.decode(sparse), ensemble(x))


@pytest.mark.parametrize("kind", [Bagging, Boosting])
def test_a_saved_ensemble_loads_with_the_same_codes(kind, members, x, tmp_path):
    ensemble = kind(members)
    ensemble.save(tmp_path)
    loaded = Ensemble.load(tmp_path)
    assert type(loaded) is kind
    assert torch.equal(loaded.encode(x), ensemble.encode(x))


def test_residuals_are_the_stores_batches_less_their_reconstructions():
    store = sparse_world(rows=500)
    ensemble = Bagging([make_sae("topk", 40, 1, d=32)])
    left = Residuals(store, ensemble)
    mine, theirs = next(left.batches(50, seed=3, start=2)), next(store.batches(50, seed=3, start=2))
    torch.testing.assert_close(mine, theirs - ensemble(theirs))
    others = Residuals(store, Bagging([make_sae("topk", 40, 2, d=32)]))
    assert len({store.meta["hash"], left.meta["hash"], others.meta["hash"]}) == 3


def train(function, *arguments, **options):
    return function(*arguments, device="cpu", progress=False, **options)


def test_each_boosted_member_is_the_sae_of_the_residuals_and_explains_some_of_them(tmp_path):
    store = sparse_world()
    folders = [tmp_path / str(i) for i in range(3)]
    ensemble = train(train_boosting, store, CONFIG, 3, out=folders)
    second = train(train_sae, Residuals(store, Boosting(ensemble.members[:1])), replace(CONFIG, seed=1))
    assert torch.equal(second.W_dec, ensemble.members[1].W_dec)
    x = store[:]
    explained = [reconstruction(x, Boosting(ensemble.members[:n])(x))["explained_variance"] for n in (1, 2, 3)]
    assert explained[0] < explained[1] < explained[2]
    again = train(train_boosting, store, CONFIG, 3, out=folders)
    assert torch.equal(again.W_dec, ensemble.W_dec)


def test_bagged_saes_explain_more_than_their_mean_member():
    store = sparse_world()
    ensemble = Bagging(train(train_sae, store, [replace(CONFIG, seed=seed) for seed in range(3)]))
    x = store[:]
    alone = [reconstruction(x, sae(x))["explained_variance"] for sae in ensemble.members]
    assert reconstruction(x, ensemble(x))["explained_variance"] > sum(alone) / 3


@pytest.mark.parametrize("kind", [Bagging, Boosting])
def test_an_intervention_steers_by_an_ensembles_feature(kind):
    encoder = load_encoder("tiny")
    ensemble = kind([make_sae("topk", 40, seed, d=encoder.d_model) for seed in (1, 2)])
    x = torch.randn(2, encoder.n_tokens, encoder.d_model, generator=torch.Generator().manual_seed(0))
    edited = Intervention(ensemble, "2.resid_post", {57: 5.0}).edit(x, encoder)
    codes = ensemble.encode(x)[..., 57:58]
    torch.testing.assert_close(edited, x + (5.0 - codes) * ensemble.W_dec[57])
    assert Intervention(ensemble, "2.resid_post", {57: 5.0}).describe()["dictionary"]["kind"] == kind.__name__.lower()


def test_what_cannot_be_an_ensemble_is_refused_in_one_sentence(members, tmp_path):
    with pytest.raises(ValueError, match="at least one SAE, and all of them must read one width"):
        Bagging([make_sae("topk", 20, 1), make_sae("topk", 20, 1, d=17)])
    with pytest.raises(ValueError, match="normalises each input"):
        Boosting([SAE(SAEConfig(width=48, input_norm="layer_norm"), D)])
    with pytest.raises(ValueError, match="has 75 features; the codes have"):
        Bagging(members).decode(torch.zeros(2, 74))
    with pytest.raises(ValueError, match="a folder for each; got n = 2, 1 folders"):
        train_boosting(sparse_world(rows=200), CONFIG, 2, out=[tmp_path])
    with pytest.raises(FileNotFoundError, match=r"ensemble\.json is missing"):
        Ensemble.load(tmp_path)


@pytest.mark.parametrize(("content", "message"), [
    ('{"kind": "bagging"}', "says that the ensemble has None members"),
    ('{"kind": "bagging", "members": "3"}', "says that the ensemble has '3' members"),
    ('{"kind": ["bagging"], "members": 3}', r"Unknown ensemble \['bagging'\]"),
    ("", "is empty"),
    ("[]", "holds a JSON list"),
])  # fmt: skip
def test_a_damaged_ensemble_json_gives_one_sentence_that_names_it(content, message, members, tmp_path):
    Bagging(members).save(tmp_path)
    (tmp_path / "meta.json").unlink()
    (tmp_path / "ensemble.json").write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        Ensemble.load(tmp_path)
    assert str(tmp_path / "ensemble.json") in str(caught.value)
