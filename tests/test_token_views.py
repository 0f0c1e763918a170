"""CLS and spatial tokens out of a store of all: views, the same as extractions of their own would have given."""

from itertools import islice

import pytest
import torch

from lib.activations.extraction import ActivationStore, extract
from lib.encoders.encoder import Encoder, load_encoder
from tests.small_images import Pictures
from tests.small_models import open_clip_folder

SITE = "1.resid_post"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Encoder:
    return load_encoder(f"open_clip:{open_clip_folder(tmp_path_factory.mktemp('clip') / 'model')}", device="cpu")


@pytest.fixture(scope="module")
def stores(encoder, tmp_path_factory) -> dict[str, ActivationStore]:
    """Tokens -> a store that was extracted with them; three shards, one picture that cannot be read."""
    options = {"batch_size": 4, "shard_images": 8, "on_error": "skip", "workers": 0, "progress": False}
    out, pictures = tmp_path_factory.mktemp("stores"), Pictures(19, broken=(9,))
    names = ("all", "cls", "spatial")
    return {name: extract(encoder, pictures, [SITE], name, out / name, **options)[SITE] for name in names}


@pytest.mark.parametrize("tokens", ["all", "cls", "spatial"])
def test_a_view_has_the_rows_the_order_and_the_hash_of_an_extraction_of_its_own(encoder, stores, tokens):
    view, own = stores["all"].of_tokens(tokens, encoder), stores[tokens]
    assert view.shape == own.shape
    assert (view.site, view.tokens, view.meta["hash"]) == (own.site, own.tokens, own.meta["hash"])
    assert torch.equal(view[:], own[:])
    assert torch.equal(view.image_index, own.image_index)
    assert torch.equal(view.token_index, own.token_index)
    assert torch.equal(view.sample(50, seed=1), own.sample(50, seed=1))
    for ours, theirs in zip(
        islice(view.batches(16, seed=3, start=2), 4), islice(own.batches(16, 3, 2), 4), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_rows_of_a_view_come_by_number_mask_and_from_the_end(encoder, stores):
    view, own = stores["all"].of_tokens("spatial", encoder), stores["spatial"]
    index = torch.tensor([-1, 0, 17, 16, 200, 16])
    assert torch.equal(view[index], own[index])
    assert torch.equal(view[3], own[3])
    assert torch.equal(view[view.image_index == 10], own[own.image_index == 10])
    with pytest.raises(IndexError, match=f"{len(own)} rows"):
        view[len(own)]


def test_a_view_shares_the_memory_of_its_store(encoder, stores):
    """Nothing is copied: the view holds no tensor of activations of its own."""
    view = stores["all"].of_tokens("cls", encoder)
    held = [value for value in vars(view).values() if isinstance(value, torch.Tensor) and value.is_floating_point()]
    assert held == []
    assert view._store is stores["all"]


def test_only_a_store_of_all_tokens_can_be_viewed(encoder, stores):
    with pytest.raises(ValueError, match="holds the tokens 'cls': extract tokens='all'"):
        stores["cls"].of_tokens("spatial", encoder)


def test_a_kind_of_token_that_the_encoder_lacks_is_an_error(encoder, stores):
    with pytest.raises(ValueError, match="no 'register' tokens"):
        stores["all"].of_tokens("register", encoder)
