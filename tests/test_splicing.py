"""Reconstructions in the place of activations, against one hooked pass of the model for each."""

import json

import pytest
import torch
from torch.nn.functional import normalize

from experiments.splicing import fit_tokens, reconstruction_at, spliced_embeddings, zero_at
from lib.activations.extraction import extract
from lib.encoders.encoder import Encoder, load_encoder
from lib.hub import load_sae
from lib.metrics import reconstruction
from lib.sae.model import SAE, SAEConfig
from tests.small_images import Pictures
from tests.small_models import open_clip_folder

PICTURES = Pictures(7)
D, T = 24, 17


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Encoder:
    return load_encoder(f"open_clip:{open_clip_folder(tmp_path_factory.mktemp('clip') / 'model')}", device="cpu")


@pytest.fixture(scope="module")
def store(encoder, tmp_path_factory):
    out = tmp_path_factory.mktemp("store")
    return extract(encoder, PICTURES, ["1.mlp_out"], "all", out, dtype="float32", batch_size=3, progress=False)[
        "1.mlp_out"
    ]


def dictionary(kind: str, seed: int = 0) -> SAE:
    sae = SAE(SAEConfig(kind=kind, width=40, k=5, seed=seed), D)
    with torch.no_grad():
        sae.b_dec.copy_(0.2 * torch.randn(D, generator=torch.Generator().manual_seed(seed)))
    return sae


def prisma_file(folder, sae: SAE) -> str:
    """The SAE as ViT-Prisma stores one: a state dict, its settings beside it, each token's layer norm undone after."""
    folder.mkdir()
    torch.save(
        {name: tensor.clone() for name, tensor in sae.state_dict().items() if name != "threshold"},
        folder / "weights.pt",
    )
    settings = {"activation_fn_str": "relu", "normalize_activations": "layer_norm", "architecture": "standard"}
    (folder / "config.json").write_text(json.dumps({**settings, "d_in": D, "d_sae": 40}))
    return str(folder)


def hooked(encoder: Encoder, site: str, replace) -> torch.Tensor:
    """The definition: a pass of the model in which `replace` (B, T, d) -> (B, T, d) acts on a module's output."""
    layer, kind = site.split(".")
    module = encoder.tower.place(int(layer), kind).module
    handle = module.register_forward_hook(lambda _module, _inputs, output: replace(output))
    try:
        pixels = encoder.pixels([PICTURES[i] for i in range(len(PICTURES))])
        return normalize(encoder.tower.embed_images(pixels), dim=-1).detach()
    finally:
        handle.remove()


def only(positions: slice, change):
    def replace(x):
        x = x.clone()
        x[:, positions] = change(x[:, positions])
        return x

    return replace


SCOPES = {"all": slice(None), "cls": slice(0, 1), "spatial": slice(1, None)}


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("site", ["0.resid_post", "1.mlp_out", "3.resid_post"])
def test_only_the_tokens_of_the_scope_are_replaced_by_their_reconstruction_or_by_zero(encoder, site, scope):
    sae = dictionary("topk")
    splices = {"sae": (reconstruction_at(site, sae, scope),), "zero": (zero_at(site, D, scope),), "none": ()}
    found = spliced_embeddings(encoder, PICTURES, splices, batch_size=3, workers=0, progress=False)
    torch.testing.assert_close(found["sae"], hooked(encoder, site, only(SCOPES[scope], sae)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        found["zero"], hooked(encoder, site, only(SCOPES[scope], torch.zeros_like)), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(found["none"], hooked(encoder, site, lambda x: x), rtol=1e-4, atol=1e-5)


def test_splices_at_many_sites_share_one_reading_of_the_pictures_and_leave_no_trace(encoder):
    before = hooked(encoder, "0.resid_post", lambda x: x)
    places = [(site, dictionary(kind)) for site in ("0.mlp_out", "2.resid_post") for kind in ("relu", "topk")]
    splices = {(site, sae.config.kind): (reconstruction_at(site, sae),) for site, sae in places}
    found = spliced_embeddings(encoder, PICTURES, splices, batch_size=4, workers=0, progress=False)
    for site, sae in places:
        torch.testing.assert_close(found[site, sae.config.kind], hooked(encoder, site, sae), rtol=1e-4, atol=1e-5)
    assert torch.equal(hooked(encoder, "0.resid_post", lambda x: x), before)


def test_an_unreadable_picture_is_named(encoder):
    with pytest.raises(ValueError, match=r"cannot read image 2: picture-2\.png is no picture"):
        spliced_embeddings(encoder, Pictures(5, broken=(2,)), {"none": ()}, workers=0, progress=False)


@pytest.mark.parametrize("kind", ["relu", "topk"])
def test_a_fit_counts_latents_by_picture_and_token_and_measures_both_forms(store, kind, monkeypatch):
    sae, x = dictionary(kind), store[:]
    whole = fit_tokens(sae, store)
    monkeypatch.setattr("experiments.splicing._DENSE_CODES", 40 * T * 2)  # two pictures at a time
    fit, codes = fit_tokens(sae, store), sae.encode(x)
    assert torch.equal(fit.l0, (codes > 0).sum(1).float().view(7, T))
    assert torch.equal(fit.active, (codes > 0).sum(0))
    assert fit.ours == pytest.approx(reconstruction(x, sae(x)), rel=1e-6)
    tokens, means = x.view(7, T, D), x.view(7, T, D).mean(0)
    ratios = (tokens - sae(tokens)).square().sum(2) / (tokens - means).square().sum(2)
    assert fit.published["explained_variance"] == pytest.approx(float((1 - ratios.mean()).detach()), rel=1e-4)
    assert whole.published == pytest.approx(fit.published, rel=1e-9)


def test_a_released_dictionary_in_prismas_format_is_measured_and_spliced_as_ours_are(encoder, store, tmp_path):
    plain = dictionary("relu")
    sae = load_sae(prisma_file(tmp_path / "released", plain))

    def prisma(x):
        shift, scale = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
        inner = (x - shift) / (scale + 1e-5)
        codes = torch.relu((inner - plain.b_dec) @ plain.W_enc + plain.b_enc)
        return (codes @ plain.W_dec + plain.b_dec) * scale + shift

    splices = {"released": (reconstruction_at("1.mlp_out", sae),)}
    found = spliced_embeddings(encoder, PICTURES, splices, workers=0, progress=False)["released"]
    torch.testing.assert_close(found, hooked(encoder, "1.mlp_out", prisma), rtol=1e-3, atol=1e-4)
    x = store[:]
    assert fit_tokens(sae, store).ours == pytest.approx(reconstruction(x, prisma(x)), rel=1e-4)


def test_a_store_is_read_some_pictures_at_a_time(store, monkeypatch):
    """ImageNet's validation pictures at all tokens are 240 GB in float64: no more than a block is ever held."""
    from experiments import splicing as fidelity

    sae, read = dictionary("topk"), []
    whole = fit_tokens(sae, store)
    take = type(store)._read

    def counted(self, rows):
        read.append(len(rows))
        return take(self, rows)

    monkeypatch.setattr(type(store), "_read", counted)
    monkeypatch.setattr(fidelity, "_DENSE_CODES", 2 * T * sae.n_features)
    in_blocks = fit_tokens(sae, store)
    assert max(read) == 2 * T
    assert sum(read) == 2 * len(store)
    assert torch.equal(in_blocks.l0, whole.l0)
    assert in_blocks.ours == pytest.approx(whole.ours, rel=1e-9)
    assert in_blocks.published == pytest.approx(whole.published, rel=1e-9)
