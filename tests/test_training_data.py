"""What an SAE can be trained on: everything that holds rows gives the SAE that a store of these rows gives."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

from lib.activations.extraction import ActivationStore, ActivationStream, extract
from lib.activations.store import ActivationStore as Store
from lib.encoders.encoder import load_encoder
from lib.sae.model import SAEConfig
from lib.sae.training import train_sae
from lib.sae.training_data import Setup, as_activations, batches
from storage import read_meta
from tests.small_images import Pictures
from tests.small_models import open_clip_folder

ROWS = torch.randn(256, 16, generator=torch.Generator().manual_seed(0))
CONFIG = SAEConfig(kind="topk", width=32, k=4, steps=5, batch_size=32)


def train(data, config=CONFIG, **options):
    return train_sae(data, config, device="cpu", progress=False, **options)


@pytest.mark.parametrize(
    "data",
    [
        ROWS,
        ROWS.double(),
        ROWS.clone().requires_grad_(),
        ROWS.numpy(),
        ROWS.flip(0).numpy()[::-1],
        ROWS.tolist(),
        list(ROWS),
        list(ROWS.split(50)),
        [part.numpy() for part in ROWS.split(50)],
        DataLoader(ROWS, batch_size=40),
        pd.DataFrame(ROWS.numpy()),
    ],
    ids=[
        "tensor",
        "double",
        "with gradient",
        "array",
        "reversed",
        "lists",
        "rows",
        "batches",
        "arrays",
        "loader",
        "table",
    ],
)
def test_whatever_holds_the_rows_trains_the_sae_of_their_store(data):
    expected = train(ActivationStore.from_tensor(ROWS))
    assert torch.equal(train(data, validation=data).W_dec, expected.W_dec)


def test_the_artifact_of_a_tensor_is_named_by_its_content(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    first = train(ROWS, out="~/sae")
    made = (tmp_path / "sae" / "model.safetensors").stat().st_mtime_ns
    assert torch.equal(train(ROWS.numpy(), out=tmp_path / "sae").W_dec, first.W_dec)
    assert (tmp_path / "sae" / "model.safetensors").stat().st_mtime_ns == made
    before = read_meta(tmp_path / "sae")["hash"]
    train(ROWS + 1, out=tmp_path / "other")
    assert read_meta(tmp_path / "other")["hash"] != before


def test_a_folder_of_activations_and_a_stream_are_taken(tmp_path):
    encoder = load_encoder(f"open_clip:{open_clip_folder(tmp_path)}", device="cpu")
    site = "2.resid_post"
    store = extract(encoder, Pictures(40), [site], out=tmp_path / "out", progress=False, workers=0)[site]
    expected = train(store).W_dec
    assert torch.equal(train(str(tmp_path / "out" / site)).W_dec, expected)
    assert torch.equal(train(Path(tmp_path / "out" / site)).W_dec, expected)
    assert train(ActivationStream(encoder, Pictures(40), site, workers=0)).d == store.d


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (ROWS[0], ValueError, r"are \(rows, d\), and these are \(16,\): flatten the tokens"),
        (ROWS.view(4, 64, 16), ValueError, r"these are \(4, 64, 16\)"),
        ([[1.0, 2.0], [3.0]], ValueError, r"in this list do not make one matrix \(rows, d\)"),
        ([torch.zeros(3, 2), torch.zeros(3, 4)], ValueError, "do not make one matrix"),
        (["a", "b"], ValueError, "do not make one matrix"),
        ((row for row in ROWS), TypeError, "not on generator"),
        ({"x": ROWS}, TypeError, "not on dict"),
        (5, TypeError, "not on int"),
        (None, TypeError, "not on NoneType"),
        ("nowhere", FileNotFoundError, "no activations in nowhere"),
        (ROWS[:0], ValueError, "store is empty"),
        (ROWS.to(torch.complex64), ValueError, "are real numbers, and these are of type complex64"),
        (pd.DataFrame([["a", "b"]]), ValueError, "are real numbers"),
        (ROWS * torch.nan, ValueError, "contain NaN or infinity"),
    ],
)
def test_what_holds_no_rows_is_refused_in_one_sentence(data, error, message):
    with pytest.raises(error, match=message):
        train(data)


@pytest.mark.parametrize("config", [{"k": 4}, [CONFIG, "topk"], "topk", None])
def test_what_is_no_config_is_refused_in_one_sentence(config):
    with pytest.raises(TypeError, match="is configured by an SAEConfig, or a list of them, not by"):
        train(ROWS, config)


def test_validation_of_another_width_is_refused_before_training():
    with pytest.raises(ValueError, match="validation activations have width 8, those to train on 16"):
        train(ROWS, validation=ROWS[:, :8])


def test_batches_travel_in_the_stores_own_type_and_are_the_float32_ones(monkeypatch):
    store = as_activations(ROWS.half())
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: pinned.append(x.dtype) or x)
    travelling = next(batches(store, CONFIG, 0, pinned=True))
    assert travelling.dtype == torch.float16
    assert torch.equal(travelling.float(), next(store.batches(32)))
    assert set(pinned) == {torch.float16}
    assert Setup(store, CONFIG, "cpu").b_dec.dtype == torch.float32
    assert Store.from_tensor(np.ones((2, 3)))[:].dtype == torch.float32
