"""Models, dictionaries and pictures from a hub that answers, refuses, is slow or breaks off: one sentence each."""

import json
import os
import re
import subprocess
import sys

import pytest
from PIL import Image

from lib.hub import package_sae
from tests.peers.exports import example
from tests.small_hub import Fault, SmallHub, files_of, serving
from tests.small_hugging_face import hugging_face_folder
from tests.small_llava import llava_folder
from tests.small_models import open_clip_folder

datasets = pytest.importorskip("datasets", reason="the optional package datasets is not installed")

KINDS = ("clip", "converted", "open_clip", "llava", "sae", "pictures")
FAULTS = {
    "private": Fault("/private/", status=401),
    "gated": Fault("/gated/", status=403, code="GatedRepo"),
    "down": Fault("/down/", status=503),
    "slow": Fault("/slow/", seconds=0.5),
    "broken": Fault("GET /content/.*/broken/|GET .*/broken/.*parquet", breaks_after=0),
}
EXPECTED = {
    "missing": ("FileNotFoundError", "no repository|doesn't exist on the Hub"),
    "private": ("PermissionError", "Your token may not do this with .* [(]status 401[)]"),
    "gated": ("PermissionError|FileNotFoundError", "is gated|is a gated dataset"),
    "down": ("ConnectionError", "answered .* with status 503: try again later"),
    "slow": ("ConnectionError", "cannot be reached and .* is not in the cache"),
    "broken": ("ConnectionError", "The download of .* broke off: run the same again"),
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """One of everything, for an owner whose requests are answered and for one of each fault."""
    folder = tmp_path_factory.mktemp("repositories")
    pictures = datasets.Dataset.from_dict({"image": [Image.new("RGB", (8, 8), c) for c in ("red", "blue")]})
    pictures.cast_column("image", datasets.Image()).to_parquet(folder / "pictures/data/train-00000-of-00001.parquet")
    folders = {
        "clip": hugging_face_folder(folder / "clip", "clip"),
        "open_clip": open_clip_folder(folder / "open_clip"),
        "llava": llava_folder(folder / "llava"),
        "sae": package_sae(example(kind="relu"), folder / "sae"),
        "pictures": folder / "pictures",
    }
    hub = SmallHub()
    for owner in ("someone", *FAULTS):
        for kind, place in folders.items():
            hub.repos["datasets/" * (kind == "pictures") + f"{owner}/{kind}"] = files_of(place)
        safe = hub.repos[f"{owner}/clip"]  # the same as a pickle, whose pull request of the hub's converter is open
        hub.repos[f"{owner}/converted"] = {name: blob for name, blob in safe.items() if name != "model.safetensors"}
        hub.repos[f"{owner}/converted"]["pytorch_model.bin"] = b"never read"
        hub.repos[f"{owner}/converted@refs/pr/3"] = safe
    hub.faults = list(FAULTS.values())
    return hub


def fetched(address, cache, *owners, **environment):
    """What tests/fetch_from_hub.py was answered."""
    settings = {
        "HF_ENDPOINT": address,
        "HF_HOME": str(cache),
        "HF_HUB_ETAG_TIMEOUT": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "1",
    }
    command = [sys.executable, "-m", "tests.fetch_from_hub", *owners]
    ran = subprocess.run(command, env=os.environ | settings | environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def answers(hub, tmp_path_factory):
    """First from the hub as it is, then without it: {owner or "offline" or "gone": {kind: (error, sentence)}}."""
    cache = tmp_path_factory.mktemp("cache")
    with serving(hub) as address:
        online = fetched(address, cache, "someone", "missing", *FAULTS)
    offline = fetched(address, cache, "someone", "missing", HF_HUB_OFFLINE="1")
    return {**online, "in the cache": offline["someone"], "offline": offline["missing"]}


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_hub_has_is_loaded(answers, kind):
    assert answers["someone"][kind] == ["loaded", ""]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_in_the_cache_is_loaded_offline(answers, kind):
    assert answers["in the cache"][kind] == ["loaded", ""]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("owner", EXPECTED)
def test_a_hub_that_does_not_give_it_is_told_in_one_sentence(answers, owner, kind):
    error, sentence = answers[owner][kind]
    expected_error, expected_sentence = EXPECTED[owner]
    assert error in expected_error.split("|")
    assert re.search(expected_sentence, sentence)
    assert f"{owner}/{kind}" in sentence
    assert "\n" not in sentence
    assert len(sentence) < 300


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_network_by_wish_the_sentence_names_the_setting(answers, kind):
    error, sentence = answers["offline"][kind]
    assert error == "ConnectionError"
    assert f"missing/{kind}" in sentence
    assert "is not in the cache, and HF_HUB_OFFLINE forbids" in sentence
