"""Pushing to and pulling from a hub, played by a small server on loopback."""

import json

import pytest
import torch
from huggingface_hub import constants

from lib.activations.extraction import ActivationStore
from lib.hub import load_sae, package_sae, push_sae
from lib.hub.remote import download_sae
from lib.sae.model import SAEConfig
from lib.sae.training import train_sae
from tests.peers.exports import example
from tests.small_hub import TOKEN, SmallHub, serving


@pytest.fixture
def hub(monkeypatch, tmp_path):
    hub = SmallHub()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with serving(hub) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield hub


@pytest.fixture
def unreachable(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")


@pytest.fixture
def trained(tmp_path):
    store = ActivationStore.from_tensor(torch.randn(256, 16, generator=torch.Generator().manual_seed(0)))
    store.meta |= {"encoder": "tiny", "site": "5.resid_post", "tokens": "cls", "spec": {"images": "menagerie:train"}}
    config = SAEConfig(kind="matryoshka", width=64, k=4, steps=4, batch_size=64, log_every=2)
    train_sae(store, config, validation=store, out=tmp_path / "trained", device="cpu", progress=False)
    return tmp_path / "trained", store


def test_what_is_pushed_is_pulled_as_the_same_dictionary(hub):
    sae = example(kind="matryoshka")
    assert push_sae(sae, "someone/birds") == "hf:someone/birds"
    assert set(hub.repos["someone/birds"]) == {"config.json", "model.safetensors", "README.md"}
    loaded = load_sae("hf:someone/birds")
    assert loaded.config == sae.config
    assert torch.equal(loaded.W_enc, sae.W_enc)
    assert torch.equal(loaded.threshold, sae.threshold)


def test_a_repository_holds_several_dictionaries_in_folders(hub):
    for kind in ("relu", "topk"):
        push_sae(example(kind=kind), "someone/birds", path=f"saes/{kind}")
    assert load_sae("hf:someone/birds/saes/topk").config.kind == "topk"
    assert load_sae("hf:someone/birds/saes/relu/model.safetensors").config.kind == "relu"


def test_only_the_files_of_the_dictionary_are_downloaded(hub, tmp_path):
    push_sae(example(kind="relu"), "someone/birds", path="one")
    hub.repos["someone/birds"]["huge.bin"] = hub.repos["someone/birds"]["two/model.safetensors"] = b"\0" * 1000
    load_sae("hf:someone/birds/one")
    fetched = {line.split("/")[-1] for line in hub.log if "/resolve/" in line}
    assert fetched == {"config.json", "model.safetensors"}
    assert not any("two/" in line and "/resolve/" in line for line in hub.log)


def test_the_card_tells_what_was_trained_on_what_and_how_well(trained, tmp_path):
    folder, store = trained
    package_sae(folder, tmp_path / "packed", store, {"license": "mit"}, "hf:someone/birds")
    card = (tmp_path / "packed" / "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    values = {line.partition(": ")[0]: json.loads(line.partition(": ")[2]) for line in front.splitlines()}
    assert values["library_name"] == "monosemantic-vision"
    assert values["license"] == "mit"
    assert {"sparse-autoencoder", "matryoshka"} <= set(values["tags"])
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    for text in ("| encoder | tiny |", "| site | 5.resid_post |", "| images | menagerie:train |", "| tokens | cls |"):
        assert text in body
    assert f"| explained variance | {last['val_explained_variance']:.4g} |" in body
    assert f"| active latents a row (L0) | {last['val_l0']:.4g} |" in body
    assert "| widths of the levels | 4, 12, 28, 64 |" in body
    assert 'load_sae("hf:someone/birds")' in body


def test_a_card_without_known_facts_claims_none(tmp_path):
    package_sae(example(kind="jumprelu"), tmp_path)
    body = (tmp_path / "README.md").read_text()
    assert "explained variance" not in body
    assert "an encoder at an unknown site" in body


def test_pushing_without_a_token_that_may_write_is_a_permission_error(hub, monkeypatch):
    with pytest.raises(PermissionError, match=r"Your token may not do this with forbidden/birds \(status 403\)"):
        push_sae(example(kind="relu"), "forbidden/birds")
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    with pytest.raises(PermissionError, match="set HF_TOKEN or run `hf auth login`"):
        push_sae(example(kind="relu"), "someone/birds")
    assert hub.repos == {}


def test_a_missing_repository_is_told_with_where_it_was_looked_for(hub):
    with pytest.raises(FileNotFoundError, match=r"no repository someone/nothing on http://127\.0\.0\.1"):
        load_sae("hf:someone/nothing")


def test_a_repository_without_a_dictionary_is_told_with_what_it_holds(hub):
    hub.repos["someone/model"] = {"pytorch_model.bin": b"1", "tokenizer.json": b"2"}
    with pytest.raises(FileNotFoundError, match=r"The repository holds pytorch_model\.bin, tokenizer\.json; name"):
        load_sae("hf:someone/model")


def test_an_unreachable_hub_is_a_connection_error_in_one_sentence(unreachable):
    for act in (lambda: load_sae("hf:someone/birds"), lambda: push_sae(example(kind="relu"), "someone/birds")):
        with pytest.raises(ConnectionError, match=r"cannot be reached and someone/birds is not in the cache") as raised:
            act()
        assert "\n" not in str(raised.value)


def test_what_is_in_the_cache_is_loaded_offline(hub, monkeypatch):
    push_sae(example(kind="relu"), "someone/birds")
    load_sae("hf:someone/birds")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert load_sae("hf:someone/birds").config.kind == "relu"


def test_names_of_repositories_are_checked_before_anything_is_sent(hub):
    with pytest.raises(ValueError, match=r"write hf:owner/name, followed by /folder or /file"):
        load_sae("hf:birds")
    with pytest.raises(ValueError, match="write owner/name"):
        push_sae(example(kind="relu"), "birds")
    assert hub.log == []


def test_a_local_path_may_be_written_like_a_hub_spec(tmp_path):
    assert download_sae(f"hf:{tmp_path}", ()) == tmp_path
