"""What an SAE was trained on: filled by training, kept through every file, checked before use."""

import warnings
from dataclasses import replace

import pytest
import torch

import lib.sae.origin
from experiments.ensembles import Bagging, Residuals
from lib import __version__
from lib.activations.extraction import ActivationStream, extract
from lib.encoders.encoder import load_encoder
from lib.features.table import FeatureTable
from lib.hub import load_sae, package_sae
from lib.sae.model import SAE, SAEConfig
from lib.sae.origin import Origin, check_origin
from lib.sae.training import train_sae
from peers import export_saelens
from steering.llava import load_llava
from tests.small_images import Pictures
from tests.small_models import open_clip_folder

SITE = "2.resid_post"
CONFIG = SAEConfig(kind="topk", width=32, k=4, steps=4, batch_size=16, log_every=2)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return load_encoder(f"open_clip:{open_clip_folder(tmp_path_factory.mktemp('clip'))}", device="cpu")


@pytest.fixture(scope="module")
def store(encoder, tmp_path_factory):
    out = tmp_path_factory.mktemp("activations")
    return extract(encoder, Pictures(24), [SITE], out=out, progress=False, workers=0)[SITE]


@pytest.fixture
def sae(store):
    return train_sae(store, CONFIG, device="cpu", progress=False)


@pytest.fixture(autouse=True)
def nothing_warned_yet(monkeypatch):
    monkeypatch.setattr(lib.sae.origin, "_warned", set())


def test_training_fills_in_what_the_store_or_stream_knows(sae, store, encoder):
    expected = Origin(
        encoder=encoder.spec,
        fingerprint=encoder.fingerprint,
        site=SITE,
        tokens="cls",
        images=Pictures(24).fingerprint,
        version=__version__,
        precision="torch.float32",
        mlp_norms=encoder.mlp_norms,
    )
    assert sae.origin == expected
    stream = ActivationStream(encoder, Pictures(24), SITE, workers=0)
    assert train_sae(stream, CONFIG, device="cpu", progress=False).origin == expected
    assert Origin.of(Residuals(store, Bagging([sae]))) == expected
    assert Bagging([sae]).origin == expected


def test_the_origin_travels_with_every_file_of_ours(sae, store, tmp_path):
    sae.save(tmp_path / "saved")
    package_sae(sae, tmp_path / "packed")
    export_saelens(sae, tmp_path / "exported")
    for name in ("saved", "packed", "exported"):
        assert load_sae(tmp_path / name).origin == sae.origin
    trained = train_sae(store, CONFIG, out=tmp_path / "trained", device="cpu", progress=False)
    assert SAE.load(tmp_path / "trained").origin == trained.origin == sae.origin
    card = (tmp_path / "packed" / "README.md").read_text()
    assert f"| site | {SITE} |" in card


def test_the_store_given_with_a_push_names_the_origin_of_an_sae_that_has_none(sae, store, tmp_path):
    expected, sae.origin = sae.origin, None
    package_sae(sae, tmp_path, store)
    assert load_sae(tmp_path).origin == expected
    assert sae.origin is None


def test_a_config_without_an_origin_or_with_a_strange_one_loads(sae, tmp_path):
    for origin in (None, Origin()):
        sae.origin = origin
        sae.save(tmp_path)
        assert SAE.load(tmp_path).origin == origin
    assert Origin.from_dict({"site": 5, "colour": "red", "tokens": "cls"}) == Origin(tokens="cls")
    assert Origin.from_dict(["cls"]) is None


def test_another_site_or_encoder_is_refused_in_one_sentence(sae, encoder):
    sae.origin.check(encoder, SITE)
    with pytest.raises(ValueError, match=r"trained at 2\.resid_post, not at 1\.mlp_out: .* check=False"):
        sae.origin.check(encoder, "1.mlp_out")
    other = replace(sae.origin, encoder="open_clip:ViT-B-32/openai", fingerprint="0" * 16)
    with pytest.raises(ValueError, match=r"trained on open_clip:ViT-B-32/openai, not on this open_clip:"):
        other.check(encoder, SITE)
    with pytest.raises(ValueError, match=r"trained on other weights or preprocessing of open_clip:"):
        replace(sae.origin, fingerprint="0" * 16).check(encoder, SITE)


def test_another_precision_of_the_same_encoder_is_the_same_and_of_another_is_another(sae, encoder):
    half = load_encoder(encoder.spec, device="cpu", dtype="bfloat16")
    assert half.fingerprint != encoder.fingerprint
    sae.origin.check(half, SITE)
    with torch.no_grad():
        next(half.model.parameters()).add_(1)
    with pytest.raises(ValueError, match="trained on other weights"):
        sae.origin.check(half, SITE)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_sae_of_a_clip_fits_the_image_tower_of_the_llava_that_reads_it_and_no_other(dtype):
    clip, llava = load_encoder("tiny", device="cpu"), load_llava("tiny", device="cpu", dtype=dtype)
    origin = Origin(encoder="tiny", fingerprint=clip.fingerprint, site=SITE, mlp_norms=clip.mlp_norms)
    assert len(origin.mlp_norms.split()) == clip.n_layers
    origin.check(llava.vision, SITE)
    with torch.no_grad():
        llava.vision.place("0.mlp_act").module.weight.mul_(1.01)
    with pytest.raises(ValueError, match=r"trained on .*tiny, not on this"):
        origin.check(llava.vision, SITE)
    replace(origin, mlp_norms=None).check(llava.vision, SITE)


def test_what_is_unknown_is_not_checked(sae, encoder):
    replace(sae.origin, fingerprint=None).check(encoder, SITE)
    Origin().check(encoder, SITE)


def test_a_feature_table_is_not_made_of_an_sae_from_elsewhere_unless_asked(sae, encoder):
    def table(site, **options):
        return FeatureTable.compute(encoder, sae, Pictures(5), site, workers=0, progress=False, **options)

    assert table(SITE).site == SITE
    with pytest.raises(ValueError, match=r"trained at 2\.resid_post, not at 0\.resid_post"):
        table("0.resid_post")
    assert table("0.resid_post", check=False).site == "0.resid_post"


def test_an_sae_without_an_origin_is_warned_of_once_and_what_is_no_sae_never(sae, encoder):
    sae.origin = None
    with pytest.warns(UserWarning, match="does not say which encoder and site it was trained on"):
        check_origin(sae, encoder, SITE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_origin(sae, encoder, SITE)
        check_origin(object(), encoder, SITE)


@pytest.mark.parametrize("folder", ["with", None])
def test_the_history_of_the_training_is_on_the_result_also_after_loading(store, folder, tmp_path):
    out = folder and tmp_path / folder
    sae = train_sae(store, CONFIG, validation=store, out=out, device="cpu", progress=False)
    assert [row["step"] for row in sae.history] == [2, 4]
    assert {"loss", "l0", "val_explained_variance", "seconds"} <= set(sae.history[0])
    if out:
        assert SAE.load(out).history == load_sae(out).history == sae.history
        assert train_sae(store, CONFIG, validation=store, out=out, device="cpu").history == sae.history
    assert SAE(CONFIG, store.d).history == []


def test_history_and_origin_are_no_weights(sae):
    assert set(sae.state_dict()) == {"W_enc", "b_enc", "W_dec", "b_dec", "threshold"}
    assert torch.equal(sae.to(torch.float64).W_dec.float(), sae.W_dec.float())
