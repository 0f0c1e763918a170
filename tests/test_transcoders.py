"""Transcoders: they learn what is planted between two sites, resume, are kept, and stand in for an MLP."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import normalize

from lib import SAE, ActivationStream, PairedActivations, SAEConfig, extract, load_encoder, load_sae, metrics, train_sae
from lib.sae.config import BY_BATCH
from lib.sae.objectives import objective_of, trained_kinds
from lib.sae.origin import Origin, Target
from lib.sae.training import evaluate
from peers import export_saelens
from steering.interventions import Intervention
from steering.transcoders import transcoded
from tests.killed_training import Killed, kill_at
from tests.small_images import Pictures
from tests.small_models import open_clip_folder

D, D_OUT, F, B, K = 16, 10, 40, 64, 4
OWN = {"relu": {"l1": 0.01}, "gated": {"l1": 0.05}, "jumprelu": {"l0": 0.003, "bandwidth": 0.05}}
KINDS = [kind for kind in trained_kinds() if kind != "archetypal"]
SHORT = SAEConfig(
    kind="topk", width=48, k=4, steps=30, batch_size=128, dead_after=2000, log_every=10, checkpoint_every=10
)


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def train(store, config, **options):
    return train_sae(store, config, device="cpu", progress=False, **options)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_squared_error_of_the_prediction(kind, skip, monkeypatch):
    """But for what the kind adds to the error, which its own tests compare with its definition."""
    sae = SAE(SAEConfig(kind=kind, width=F, k=K, **OWN.get(kind, {})), D, Target(D_OUT, skip))
    with torch.no_grad():
        for i, parameter in enumerate(sae.parameters()):
            parameter.add_(0.1 * drawn(*parameter.shape, seed=i))
    objective, x, y = objective_of(kind)(sae, torch.float32), drawn(B, D, seed=8) / D**0.5, drawn(B, D_OUT, seed=9)
    if kind == "vsae":
        monkeypatch.setattr(objective, "_draw", torch.zeros_like)
    objective.backward(x, y)
    codes = codes_of(objective, sae, x)
    free = {
        n: p.detach().clone().requires_grad_() for n, p in sae.named_parameters() if n in ("W_dec", "b_dec", "W_skip")
    }
    predictions = [codes[:, :end] @ free["W_dec"][:end] + free["b_dec"] for end in sae.config.group_ends(F)]
    predictions = [p + x @ free["W_skip"].t() if skip else p for p in predictions]
    sum((p - y).square().sum(1).mean() for p in predictions).backward()
    assert objective.report()["mse"] == pytest.approx((predictions[-1] - y).square().sum(1).mean().item(), rel=1e-4)
    for name, parameter in free.items():
        torch.testing.assert_close(getattr(sae, name).grad, parameter.grad, rtol=1e-4, atol=1e-6, msg=name)


def codes_of(objective, sae, x):
    """Codes (B, F) of a batch in training: those of the encoder alone, which b_dec has no part in."""
    pre = (x @ sae.W_enc + sae.b_enc).detach()
    if sae.config.kind in BY_BATCH:
        return torch.where(pre >= pre.flatten().topk(K * len(x)).values.min(), pre, 0)
    return sae.encode(x).detach()


def planted(rows, seed, d_out=24):
    """What an MLP of 24 neurons, each active on a tenth of the rows, reads (rows, 32) and gives (rows, d_out)."""
    world, generator = torch.Generator().manual_seed(5), torch.Generator().manual_seed(seed)
    reads, writes = (normalize(torch.randn(24, d, generator=world), dim=1) for d in (32, d_out))
    hidden = (torch.rand(rows, 24, generator=generator) < 0.1) * (0.5 + torch.rand(rows, 24, generator=generator))
    x = hidden @ reads + 0.02 * torch.randn(rows, 32, generator=generator) + 1
    return 5 * x, 40 * (hidden @ writes) + 3


LONG = replace(SHORT, width=64, k=4, steps=400, batch_size=256, lr=0.01)


def test_it_learns_a_planted_mlp_and_nothing_where_rows_do_not_belong_together():
    x, y = planted(4000, 2)
    shuffled = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(0))]
    seen, unseen = planted(1000, 3)

    def explained(targets):
        transcoder = train(PairedActivations(x, targets), LONG)
        assert transcoder.W_dec.shape == (64, 24)
        codes = transcoder.encode_sparse(seen)
        assert metrics.sparsity(codes)["l0"] <= 4
        found = metrics.reconstruction(unseen, transcoder(seen))["explained_variance"]
        measured = evaluate(transcoder, PairedActivations(seen, unseen), n_batches=1)
        assert measured["explained_variance"] == pytest.approx(found, abs=1e-4)
        return found

    assert explained(y) > 0.8
    assert explained(shuffled) < 0.05


def test_a_skip_connection_learns_what_is_linear():
    x = drawn(3000, 12, seed=3)
    y = x @ drawn(12, 20, seed=4)
    config = replace(LONG, width=16, k=1, steps=300)
    plain, skipping = (train(PairedActivations(x, y, skip), config) for skip in (False, True))
    assert metrics.reconstruction(y, plain(x))["explained_variance"] < 0.6
    assert metrics.reconstruction(y, skipping(x))["explained_variance"] > 0.95
    with pytest.raises(ValueError, match=r"adds a linear map of each input: call decode\(codes, x\)"):
        skipping.decode(skipping.encode(x))


def test_a_killed_run_resumes_bit_for_bit_and_loads_as_it_was(tmp_path, monkeypatch):
    pairs = PairedActivations(*planted(600, 2), skip=True)
    whole = train(pairs, SHORT, validation=pairs)

    with monkeypatch.context() as patch:
        kill_at(patch, 25)
        with pytest.raises(Killed):
            train(pairs, SHORT, out=tmp_path / "t")
    resumed = train(pairs, SHORT, validation=pairs, out=tmp_path / "t")
    for again in (resumed, load_sae(tmp_path / "t", device="cpu"), SAE.load(tmp_path / "t", device="cpu")):
        assert again.target == Target(24, True)
        for name, tensor in whole.state_dict().items():
            assert torch.equal(tensor, again.state_dict()[name]), name
    assert whole.history[-1]["val_explained_variance"] == resumed.history[-1]["val_explained_variance"]
    about = json.loads((tmp_path / "t" / "meta.json").read_text())
    assert {"input_scale", "target_scale"} <= set(about)


def test_other_targets_are_other_data():
    x, y = planted(600, 2)
    hashes = {PairedActivations(*of).meta["hash"] for of in ((x, y), (x, 2 * y), (2 * x, y), (x, y, True))}
    assert len(hashes) == 4
    assert PairedActivations(x, y).meta["hash"] in hashes


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return load_encoder(f"open_clip:{open_clip_folder(tmp_path_factory.mktemp('clip'))}", device="cpu")


@pytest.fixture(scope="module")
def stores(clip, tmp_path_factory):
    sites, out = ["1.mlp_in", "1.mlp_out"], tmp_path_factory.mktemp("stores")
    return extract(clip, Pictures(12), sites, "all", out, "float32", workers=0, progress=False)


def test_the_site_before_an_mlp_is_what_it_reads(clip):
    values = clip.run([Pictures()[0]], ["1.mlp_in", "1.mlp_out"])
    block = clip.tower.blocks[1]
    torch.testing.assert_close(block.ls_2(block.mlp(values["1.mlp_in"])), values["1.mlp_out"])
    assert clip.width("1.mlp_in") == clip.d_model


def test_of_a_model_it_says_both_sites_and_takes_the_mlps_place(clip, stores, tmp_path):
    pairs = PairedActivations(stores["1.mlp_in"], stores["1.mlp_out"])
    transcoder = train(pairs, replace(SHORT, batch_size=64), out=tmp_path)
    assert (transcoder.origin.site, transcoder.origin.target) == ("1.mlp_in", "1.mlp_out")
    assert SAE.load(tmp_path, device="cpu").origin == transcoder.origin
    pixels = clip.pixels([Pictures()[i] for i in range(3)])
    sites = ["1.attn_out", "1.mlp_in", "1.mlp_out", "1.resid_post", "proj"]
    before = clip.run(pixels, sites)
    with transcoded(clip, transcoder):
        inside = clip.run(pixels, sites)
        with pytest.raises(ValueError, match="a steered encoder is not stored"):
            _ = clip.fingerprint
    expected = transcoder(before["1.mlp_in"])
    torch.testing.assert_close(inside["1.mlp_out"], expected)
    stream = before["1.resid_post"] - before["1.mlp_out"] + expected
    torch.testing.assert_close(inside["1.resid_post"], stream, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(inside["proj"], before["proj"], atol=1e-3)
    assert all(torch.equal(value, before[site]) for site, value in clip.run(pixels, sites).items())


def test_what_cannot_work_is_refused_in_one_sentence(clip, stores):
    x, y = planted(300, 2)
    transcoder = SAE(SHORT, 24, Target(24))
    for act, message in (
        (lambda: PairedActivations(x, y[1:]), "the same tokens at two sites, and these have 300 and 299 rows"),
        (lambda: PairedActivations(stores["1.mlp_in"], y[: len(stores["1.mlp_in"])]), "these have other encoder and"),
        (lambda: train(PairedActivations(x, y), replace(SHORT, init="data")), "does not begin from rows of its input"),
        (lambda: train(PairedActivations(x, y), replace(SHORT, kind="archetypal")), "another kind than archetypal"),
        (lambda: train(PairedActivations(x, y), SHORT, validation=x), "have width 32, those to train on 32 and 24"),
        (lambda: Intervention(transcoder, "1.mlp_out", {0: 1.0}), "a transcoder writes at another site than it reads"),
        (lambda: export_saelens(transcoder, "nowhere"), "it predicts another site than it reads"),
        (
            lambda: transcoded(clip, transcoder),
            r"does not record its sites: give them, such as sites=\('4\.mlp_in', '4\.mlp_out'\)",
        ),
        (lambda: transcoded(clip, SAE(SHORT, 24)), "this SAE predicts its own input"),
        (
            lambda: transcoded(clip, transcoder, ("1.mlp_out", "1.mlp_in")).__enter__(),
            "1.mlp_in comes before 1.mlp_out",
        ),
        (lambda: transcoded(clip, transcoder, ("1.mlp_in", "1.mlp_act")).__enter__(), "writes width 24, and 1.mlp_act"),
    ):
        with pytest.raises(ValueError, match=message):
            act()


def test_one_that_was_trained_elsewhere_does_not_stand_in(clip):
    transcoder = SAE(SHORT, 24, Target(24))
    transcoder.origin = Origin(encoder="other", fingerprint="0" * 16, site="1.mlp_in", target="1.mlp_out")
    with pytest.raises(ValueError, match="was trained on other"), transcoded(clip, transcoder):
        pass
    with transcoded(clip, transcoder, check=False):
        pass


def weights(d_in, d_out, n, seed=0, **more):
    shapes = {"encoder": (n, d_in), "b_enc": (n,), "W_dec": (n, d_out), "b_dec": (d_in,), "b_out": (d_out,), **more}
    return SimpleNamespace(**{name: drawn(*shape, seed=seed + i) for i, (name, shape) in enumerate(shapes.items())})


def largest(pre, k):
    kept = pre.topk(k, dim=1)
    return torch.zeros_like(pre).scatter(1, kept.indices, kept.values.relu())


@pytest.mark.parametrize(("transcode", "skip"), [(True, False), (True, True), (False, True)])
def test_sparsifys_are_read(transcode, skip, tmp_path):
    """Its forward pass, written anew: the input of an autoencoder is centred, that of a transcoder is not."""
    w, x = weights(12, 12, 30, W_skip=(12, 12)), drawn(20, 12, seed=50)
    state = {"encoder.weight": w.encoder, "encoder.bias": w.b_enc, "W_dec": w.W_dec, "b_dec": w.b_dec}
    save_file(state | ({"W_skip": w.W_skip} if skip else {}), tmp_path / "sae.safetensors")
    config = {"k": 5, "activation": "topk", "transcode": transcode, "skip_connection": skip, "d_in": 12}
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    read = load_sae(tmp_path, device="cpu")
    codes = largest((x if transcode else x - w.b_dec) @ w.encoder.t() + w.b_enc, 5)
    torch.testing.assert_close(read.encode(x), codes)
    torch.testing.assert_close(read(x), codes @ w.W_dec + w.b_dec + (x @ w.W_skip.t() if skip else 0))
    assert read.target == Target(12, skip)
    read.save(tmp_path / "ours")
    torch.testing.assert_close(load_sae(tmp_path / "ours", device="cpu")(x), read(x))


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("norm", ["none", "layer_norm"])
@pytest.mark.parametrize("kind", ["topk", "relu"])
def test_prismas_are_read(kind, norm, skip, tmp_path):
    """Its forward pass, written anew; layer_norm scales the whole prediction by the input's mean and deviation."""
    w, x = weights(12, 12, 30, W_skip=(12, 12)), 3 * drawn(20, 12, seed=50) + 2
    state = {"W_enc": w.encoder.t().contiguous(), "b_enc": w.b_enc, "W_dec": w.W_dec, "b_dec": w.b_dec}
    state |= {"b_dec_out": w.b_out} | ({"W_skip": w.W_skip} if skip else {})
    torch.save(state, tmp_path / "weights.pt")
    config = {"activation_fn_str": kind, "activation_fn_kwargs": {"k": 5} if kind == "topk" else {}, "d_out": 12}
    config |= {"is_transcoder": True, "transcoder_with_skip_connection": skip, "normalize_activations": norm}
    (tmp_path / "config.json").write_text(json.dumps({**config, "d_in": 12, "d_sae": 30}))
    read = load_sae(tmp_path, device="cpu")
    mean, deviation = (x.mean(1, keepdim=True), x.std(1, keepdim=True)) if norm == "layer_norm" else (0, 1)
    inner = (x - mean) / (deviation + (1e-5 if norm == "layer_norm" else 0))
    pre = (inner - w.b_dec) @ w.encoder.t() + w.b_enc
    codes = largest(pre, 5) if kind == "topk" else pre.relu()
    torch.testing.assert_close(read.encode(x), codes, rtol=1e-4, atol=1e-5)
    predicted = codes @ w.W_dec + w.b_out + (x @ w.W_skip.t() if skip else 0)
    torch.testing.assert_close(read(x), predicted * deviation + mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(read.decode(read.encode_sparse(x), x), read(x), rtol=1e-4, atol=1e-4)


def test_prismas_may_be_of_another_width_and_of_a_file_with_its_settings_pickled(tmp_path):
    w, x = weights(12, 7, 30), drawn(20, 12, seed=50)
    state = {"W_enc": w.encoder.t().contiguous(), "b_enc": w.b_enc, "W_dec": w.W_dec, "b_dec": w.b_dec}
    cfg = {"activation_fn_str": "relu", "is_transcoder": True, "normalize_activations": "none", "d_out": 7}
    torch.save({"cfg": cfg, "state_dict": state | {"b_dec_out": w.b_out}}, tmp_path / "weights.pt")
    read = load_sae(tmp_path, device="cpu")
    expected = ((x - w.b_dec) @ w.encoder.t() + w.b_enc).relu() @ w.W_dec + w.b_out
    torch.testing.assert_close(read(x), expected, rtol=1e-4, atol=1e-5)
    del state["b_enc"]
    torch.save({"cfg": cfg, "state_dict": state}, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="b_enc"):
        load_sae(tmp_path)


@pytest.mark.parametrize("seed", [0, 1])
def test_rows_that_do_not_belong_together_are_refused_however_many_there_are(seed, clip, tmp_path):
    """Random tokens of two seeds, a stream beside a store, and two streams that are shuffled in other buffers."""

    def extracted(site, seed):
        options = {"out": tmp_path / f"{site}-{seed}", "seed": seed, "workers": 0, "progress": False}
        return extract(clip, Pictures(12), [site], "random:2", **options)[site]

    def streamed(site, **options):
        return ActivationStream(clip, Pictures(12), site, "random:2", workers=0, **options)

    inputs, targets = extracted("1.mlp_in", 0), extracted("1.mlp_out", seed)
    if seed == 0:
        assert len(PairedActivations(inputs, targets)) == len(inputs)
        pairs = PairedActivations(streamed("1.mlp_in", buffer_rows=9), streamed("1.mlp_in", buffer_rows=9))
        batch = next(pairs.batches(4, seed=0))
        torch.testing.assert_close(batch[:, : pairs.d], batch[:, pairs.d :])
    else:
        with pytest.raises(ValueError, match="these have other seed: extract both at once"):
            PairedActivations(inputs, targets)
    for others in ((streamed("1.mlp_in"), targets), (inputs, streamed("1.mlp_out"))):
        with pytest.raises(ValueError, match="order"):
            PairedActivations(*others)
    for options in ({"buffer_rows": 9}, {"batch_size": 5}):
        with pytest.raises(ValueError, match="these have other order"):
            PairedActivations(streamed("1.mlp_in"), streamed("1.mlp_out", **options))
