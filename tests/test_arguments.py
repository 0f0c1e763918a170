"""A number that is none is refused at every public door, in one sentence that names it."""

import numpy as np
import pytest
import torch

from lib import ActivationStream, FeatureTable, SAEConfig, extract, load_encoder, load_images
from lib.activations.store import ActivationStore
from lib.arguments import check_count, check_seed
from lib.sae.model import SAE

SITE = "1.resid_post"


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("tiny", device="cpu")


@pytest.fixture(scope="module")
def images():
    return load_images("menagerie:val[:4]")


def doors(encoder, images, folder):
    """Calls with an argument left open: {what it does: (name in the message, call)}."""
    sae, store = SAE(SAEConfig(width=8, k=2), encoder.d_model), ActivationStore.from_tensor(torch.ones(4, 3))
    stream = ActivationStream(encoder, images, SITE, workers=0)
    common = {"site": SITE, "progress": False, "workers": 0}

    def table(**options):
        return FeatureTable.compute(encoder, sae, images, **common, **options)

    return {
        "the seed of an extraction": ("seed", lambda x: extract(encoder, images, SITE, "random:2", folder, seed=x)),
        "the batches of one": ("batch_size", lambda x: extract(encoder, images, SITE, out=folder, batch_size=x)),
        "its shards": ("shard_images", lambda x: extract(encoder, images, SITE, out=folder, shard_images=x)),
        "a stream's batches": ("batch_size", lambda x: next(stream.batches(x))),
        "a store's batches": ("batch_size", lambda x: next(store.batches(x))),
        "a store's sample": ("size of a sample", store.sample),
        "a sample of pictures": ("size of a sample", images.sample),
        "its seed": ("seed", lambda x: images.sample(2, seed=x)),
        "a table's top images": ("top", lambda x: table(top=x)),
        "a table's batches": (
            "batch_size",
            lambda x: table(batch_size=x),
        ),
    }


@pytest.mark.parametrize("wrong", [-4, 2.5, "a", True, float("nan")], ids=str)
def test_every_door_refuses_what_is_no_such_number(encoder, images, tmp_path, wrong):
    for door, (name, call) in doors(encoder, images, tmp_path).items():
        with pytest.raises(ValueError, match=f"{name} must be an integer of at least") as error:
            call(wrong)
        assert "\n" not in str(error.value), door
    assert not list(tmp_path.iterdir())


def test_numbers_of_numpy_are_as_good(encoder, images, tmp_path):
    assert len(images.sample(np.int64(2), seed=np.int32(3))) == 2
    assert check_count("n", np.uint8(3)) == 3 == check_seed(np.int64(3))
    assert check_count("n", None) is None
