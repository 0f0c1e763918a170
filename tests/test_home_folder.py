"""Wherever lib takes a path, `~` is the home folder: of pictures see test_data_files and test_data_memory."""

import shutil

import pytest

from lib.activations.extraction import ActivationStore, extract
from lib.encoders.encoder import load_encoder
from lib.features.table import FeatureTable
from lib.hub import load_sae, package_sae
from lib.sae.model import SAE, SAEConfig
from lib.sae.training import train_sae
from peers import export_saelens
from tests.small_images import Pictures
from tests.small_models import open_clip_folder

SITE = "1.resid_post"
CONFIG = SAEConfig(kind="topk", k=2, expansion=1, steps=2, batch_size=4)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_is_written_below_the_home_folder_is_found_there(home):
    open_clip_folder(home / "clip")
    checkpoint = shutil.copy(home / "clip" / "open_clip_model.safetensors", home / "weights.safetensors")
    encoder = load_encoder("open_clip:~/clip", device="cpu")
    assert encoder.fingerprint == load_encoder("open_clip:~/clip", "cpu", weights=f"~/{checkpoint.name}").fingerprint

    extract(encoder, Pictures(6), SITE, out="~/activations", progress=False)
    store = ActivationStore.open(f"~/activations/{SITE}")
    sae = train_sae(f"~/activations/{SITE}", CONFIG, out="~/sae", progress=False)
    assert len(store) == 6
    assert SAE.load("~/sae").d == load_sae("~/sae").d == store.d

    table = FeatureTable.compute(encoder, sae, Pictures(6), SITE, out="~/table", progress=False)
    table.save("~/copy")
    assert FeatureTable.load("~/table").n_features == FeatureTable.load("~/copy").n_features == sae.n_features

    package_sae(sae, "~/package")
    export_saelens(sae, "~/exported")
    assert load_sae("~/package").d == load_sae("~/exported").d == sae.d
    assert not (home / "~").exists()
