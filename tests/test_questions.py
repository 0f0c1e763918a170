"""What an encoder is asked about pictures: by texts, by means of training pictures, or by the pictures themselves."""

import math
from dataclasses import replace

import pytest
import torch
from PIL import Image

from experiments.questions import CLIP_SCALE, class_question
from experiments.recovered_accuracy import RecoveredAccuracy
from lib.encoders.encoder import load_encoder
from lib.images.image_set import load_images
from lib.sae.model import SAE, SAEConfig
from tests.small_hugging_face import hugging_face_folder
from tests.small_models import open_clip_folder

COLOURS = {"fox": (220, 90, 30), "owl": (120, 110, 90), "newt": (20, 160, 60)}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return load_encoder(f"open_clip:{open_clip_folder(tmp_path_factory.mktemp('clip'))}", device="cpu")


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    return load_encoder(f"hf:{hugging_face_folder(tmp_path_factory.mktemp('vit'), 'vit')}", device="cpu")


def pictures(folder, names=tuple(COLOURS), count: int = 4):
    for name in names:
        place = folder / name if name else folder
        place.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            shade = tuple(min(255, value + 4 * i) for value in COLOURS.get(name, (7, 7, 7)))
            Image.new("RGB", (40, 40), shade).save(place / f"{i}.png")
    return load_images(f"folder:{folder}")


def test_an_encoder_with_texts_is_asked_by_them(clip, tmp_path):
    images = pictures(tmp_path / "val")
    asked = class_question(clip, images, images, "a photo of a {}")
    expected = clip.embed_texts([f"a photo of a {name}" for name in images.class_names])
    torch.testing.assert_close(asked.answers, expected)
    torch.testing.assert_close(asked.bare, clip.embed_texts(list(images.class_names)))
    assert asked.scale == clip.logit_scale
    assert asked.truth.tolist() == images.labels.tolist()
    assert asked.name == "zero-shot class"


def test_an_encoder_of_images_only_is_asked_for_the_nearest_mean_of_training_pictures(vit, tmp_path):
    images = pictures(tmp_path / "val", ("newt", "fox"))
    train = pictures(tmp_path / "train", ("fox", "newt", "owl"))  # one more class, so that the numbers differ
    asked = class_question(vit, images, train, "a photo of a {}")
    embeddings = vit.embed_images(vit.pixels(list(train)))
    for answer, name in zip(asked.answers, images.class_names, strict=True):
        mean = embeddings[torch.from_numpy(train.labels == train.class_names.index(name))].mean(0)
        torch.testing.assert_close(answer, mean / mean.norm(), atol=1e-5, rtol=0)
    right = (vit.embed_images(vit.pixels(list(images))) @ asked.answers.T).argmax(1)
    assert right.tolist() == asked.truth.tolist(), "pictures of one colour lie nearest to their own"
    assert asked.scale == CLIP_SCALE
    assert "no texts" in asked.description


@pytest.mark.parametrize("train", ["without classes", "of other classes"])
def test_without_shared_classes_a_picture_is_asked_which_it_is(vit, tmp_path, train):
    images = pictures(tmp_path / "val", ("fox",)) if train == "of other classes" else pictures(tmp_path / "val", ("",))
    others = pictures(tmp_path / "train", ("owl",) if train == "of other classes" else ("",))
    asked = class_question(vit, images, others, "a photo of a {}")
    torch.testing.assert_close(asked.answers, vit.embed_images(vit.pixels(list(images))), atol=1e-5, rtol=0)
    assert asked.truth.tolist() == list(range(len(images)))


def test_some_pictures_are_drawn_from_all_classes(clip, tmp_path):
    images = pictures(tmp_path / "val")
    asked = class_question(clip, images, images, "{}", n=6)
    assert sorted(asked.images.labels.tolist()) == [0, 0, 1, 1, 2, 2]
    assert asked.truth.tolist() == asked.images.labels.tolist()


def test_accuracy_comes_back_as_far_as_a_reconstruction_answers_as_the_model_does(clip, tmp_path):
    images = pictures(tmp_path / "val")
    asked = class_question(clip, images, images, "{}")
    with torch.no_grad():
        right = (clip.embed_images(clip.pixels(list(images))) @ asked.answers.T).argmax(1)
    asked = replace(asked, truth=right.numpy())  # the untouched model is always right
    width, site = clip.width("3.resid_post"), "3.resid_post"
    sae = SAE(SAEConfig(kind="topk", width=2 * width, k=2 * width), width)  # its rows and their opposites: the identity
    with torch.no_grad():
        sae.W_dec.copy_(torch.cat([torch.eye(width), -torch.eye(width)]))
        sae.W_enc.copy_(sae.W_dec.T)
    zeros = SAE(SAEConfig(kind="topk", width=2 * width, k=1), width)
    zeros.W_dec.data.zero_()
    found = RecoveredAccuracy.of(clip, {"identity": sae, "nothing": zeros}, site, "mean", asked)
    assert (found.clean, found.tokens) == (1.0, "all")
    assert found.description.startswith("zero-shot class, 12 pictures: 100.0% right; with all tokens zeroed ")
    if found.cost > 0:
        assert found.back["identity"] == pytest.approx(1)
        assert found.back["nothing"] == pytest.approx(0)
    free = replace(found, zero=1.0)
    assert all(math.isnan(share) for share in free.back.values())
    assert free.description.endswith("zeroing costs nothing, so there is nothing to recover")
