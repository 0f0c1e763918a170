"""Pictures as they are at hand: `as_image_set` takes them, and all that takes pictures asks it."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from lib import SAE, FeatureTable, SAEConfig
from lib.activations.extraction import ActivationStream, extract
from lib.encoders.encoder import load_encoder
from lib.images.image_set import ImageSet, as_image_set, class_words, load_images
from tests.small_images import Pictures
from tests.small_models import open_clip_folder

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 20, 30, 3), dtype=np.uint8)


class Folder(Dataset):
    """A map-style data set as torchvision's are: a picture and its class."""

    def __init__(self, as_item=lambda x: (x, 1)):
        self.as_item, self.classes, self.targets = as_item, ["cat", "owl"], [0, 1, 0, 1, 0]

    def __len__(self) -> int:
        return len(PIXELS)

    def __getitem__(self, i: int):
        return self.as_item(Image.fromarray(PIXELS[i]))


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("files") / "pictures"
    folder.mkdir()
    for i, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return sorted(folder.iterdir())


FORMS = {
    "opened pictures": lambda files: [Image.open(file) for file in files],
    "a tuple of pictures": lambda files: tuple(Image.fromarray(pixels) for pixels in PIXELS),
    "an iterator of pictures": lambda files: (Image.fromarray(pixels) for pixels in PIXELS),
    "paths": lambda files: files,
    "paths as text": lambda files: [str(file) for file in files],
    "an iterator of paths": lambda files: iter(files),
    "paths and pictures": lambda files: [*files[:2], *(Image.fromarray(pixels) for pixels in PIXELS[2:])],
    "the path of a folder": lambda files: files[0].parent,
    "the path of a folder as text": lambda files: str(files[0].parent),
    "an array": lambda files: PIXELS,
    "an array that is read only": lambda files: np.frombuffer(PIXELS.tobytes(), np.uint8).reshape(PIXELS.shape),
    "a tensor": lambda files: torch.from_numpy(PIXELS).permute(0, 3, 1, 2),
    "a tensor with channels last": lambda files: torch.from_numpy(PIXELS),
    "a list of arrays": lambda files: list(PIXELS),
    "a data set of pictures and classes": lambda files: Folder(),
    "a data set of pictures": lambda files: Folder(lambda x: x),
    "a data set of dictionaries": lambda files: Folder(lambda x: {"label": 3, "image": x}),
    "a data set of tensors": lambda files: Folder(lambda x: (torch.from_numpy(np.array(x)).permute(2, 0, 1), 1)),
    "an image set": lambda files: load_images(f"folder:{files[0].parent}"),
    "a spec": lambda files: f"folder:{files[0].parent}",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_pictures(files, form):
    images = as_image_set(FORMS[form](files))
    assert isinstance(images, ImageSet)
    assert [np.asarray(image).tolist() for image in images] == PIXELS.tolist()
    assert images[0].mode == "RGB"
    assert load_images(FORMS[form](files)).fingerprint == images.fingerprint


def test_a_single_picture_or_file_is_a_set_of_one(files):
    assert (
        len(as_image_set(files[0])) == len(as_image_set(str(files[0]))) == len(as_image_set(Image.open(files[0]))) == 1
    )


def test_a_column_of_a_table_is_taken_by_its_order(files):
    import pandas as pd

    table = pd.DataFrame({"file": [str(file) for file in files]}).iloc[[3, 1]]
    assert [image.tobytes() for image in as_image_set(table["file"])] == [PIXELS[3].tobytes(), PIXELS[1].tobytes()]


def test_home_is_a_tilde(files, monkeypatch):
    monkeypatch.setenv("HOME", str(files[0].parent.parent))
    monkeypatch.setenv("USERPROFILE", str(files[0].parent.parent))
    assert len(as_image_set("~/pictures")) == 5
    assert as_image_set([Path("~/pictures/0.png")])[0].size == (30, 20)
    assert as_image_set(["~/pictures/0.png", Image.fromarray(PIXELS[0])])[0].size == (30, 20)


def test_pictures_in_memory_are_known_by_their_content():
    one, same = as_image_set(list(PIXELS)), as_image_set(torch.from_numpy(PIXELS.copy()))
    assert one.fingerprint == same.fingerprint == as_image_set(PIXELS).fingerprint
    changed = PIXELS.copy()
    changed[4, 19, 29, 2] ^= 1
    assert len({as_image_set(x).fingerprint for x in (PIXELS, changed, PIXELS[::-1], PIXELS[:4])}) == 4
    assert one.spec.startswith("memory:")


def test_paths_are_known_by_their_files(files, tmp_path):
    copies = [tmp_path / file.name for file in files]
    for copy, file in zip(copies, files, strict=True):
        copy.write_bytes(file.read_bytes())
    before = as_image_set(copies)
    assert before.spec == as_image_set(copies).spec != as_image_set(copies[::-1]).spec
    assert before.fingerprint == as_image_set(copies).fingerprint
    Image.fromarray(255 - PIXELS[0]).save(copies[0])
    assert as_image_set(copies).spec == before.spec
    assert as_image_set(copies).fingerprint != before.fingerprint
    assert before.name(0) == str(copies[0])


def test_classes_of_a_data_set_are_its_labels():
    images = as_image_set(Folder())
    assert images.class_names == ("cat", "owl")
    assert images.labels.tolist() == [0, 1, 0, 1, 0]
    assert np.bincount(images.sample(4).labels).tolist() == [2, 2]
    assert as_image_set(PIXELS).labels is None


def test_other_modes_become_rgb_upright_and_on_white():
    turned = Image.new("RGB", (20, 10))
    turned.getexif()[0x0112] = 6
    images = as_image_set([turned, Image.new("RGBA", (4, 4)), Image.fromarray(np.full((4, 4), 0.5, np.float32))])
    assert [image.mode for image in images] == ["RGB"] * 3
    assert images[0].size == (10, 20)
    assert images[1].getpixel((0, 0)) == (255, 255, 255)
    assert images[2].getpixel((0, 0)) == (128, 128, 128)


def test_a_set_in_memory_travels_to_a_worker():
    images = as_image_set(Folder(lambda x: x).__getitem__(i) for i in range(3))
    assert pickle.loads(pickle.dumps(images))[2].tobytes() == images[2].tobytes()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (7, "7 is no set of pictures: give load_images"),
        (None, "None is no set of pictures"),
        ({"a": 1}, "is no set of pictures"),
        ("webcam", "Unknown images 'webcam'"),
        (PIXELS / 255, r"pixels are uint8 .* not float64 of \(20, 30, 3\): of floats from 0 to 1 give \(255 \* x\)"),
        (torch.rand(2, 3, 20, 30), r"pixels are uint8 .* not float32 of \(20, 30, 3\): of floats from 0 to 1 give"),
        (PIXELS[..., :1], r"pixels are uint8 .* not uint8 of \(20, 30, 1\)"),
        (PIXELS[0], r"has the shape \(N, H, W, 3\), not \(20, 30, 3\)"),
    ],
)
def test_what_is_no_set_of_pictures_is_an_error_that_says_what_is(images, message):
    with pytest.raises(ValueError, match=message):
        as_image_set(images)


@pytest.mark.parametrize(
    "item", [7, "/nowhere/a.png", np.zeros((4, 4)), torch.zeros(3, 4, 4), Image.new("RGB", (1, 500))]
)
def test_an_item_that_is_no_picture_is_an_error_that_names_it(item):
    images = as_image_set([Image.new("RGB", (4, 4)), item])
    with pytest.raises(ValueError, match=r"picture 1 is not|/nowhere/a\.png is missing"):
        images[1]


# --- who takes them


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return load_encoder(f"open_clip:{open_clip_folder(tmp_path_factory.mktemp('clip'))}", device="cpu")


@pytest.mark.parametrize(
    "form", ["opened pictures", "paths", "an array", "a data set of pictures and classes", "a spec"]
)
def test_extract_a_stream_and_a_feature_table_take_them(encoder, files, tmp_path, form):
    images = FORMS[form]
    store = extract(encoder, images(files), "1.resid_post", out=tmp_path, dtype="float32", progress=False)[
        "1.resid_post"
    ]
    expected = encoder.run(encoder.pixels([Image.fromarray(x) for x in PIXELS]), ["1.resid_post"])["1.resid_post"][:, 0]
    assert torch.allclose(store[:], expected, atol=1e-5)
    stream = ActivationStream(encoder, images(files), "1.resid_post", batch_size=5)
    assert torch.cdist(next(stream.batches(5)), expected).min(dim=1).values.max() < 1e-4
    sae = SAE(SAEConfig(expansion=2, k=4), 24)
    table = FeatureTable.compute(encoder, sae, images(files), "1.resid_post", top=2, progress=False)
    assert table.codes.shape == (5, 48)


def test_a_changed_array_is_extracted_anew(encoder, tmp_path):
    first = extract(encoder, PIXELS, "proj", out=tmp_path, progress=False)["proj"][:]
    again = extract(encoder, 255 - PIXELS, "proj", out=tmp_path, progress=False)["proj"][:]
    assert not torch.equal(first, again)


@pytest.mark.parametrize("sites", ["proj", ["proj"], ("proj",), {"proj": 1}.keys(), iter(["proj"]), np.array(["proj"])])
def test_sites_are_one_name_or_any_iterable(encoder, tmp_path, sites):
    assert list(extract(encoder, PIXELS, sites, out=tmp_path, progress=False)) == ["proj"]


def test_no_site_is_an_error(encoder, tmp_path):
    with pytest.raises(ValueError, match=r"sites is empty: name at least one site of .*, such as proj"):
        extract(encoder, PIXELS, [], out=tmp_path, progress=False)


def test_a_folder_of_results_may_begin_with_a_tilde(encoder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    extract(encoder, PIXELS, "proj", out="~/out", progress=False)
    assert (tmp_path / "out" / "proj" / "meta.json").is_file()


def test_what_has_a_spec_and_a_fingerprint_is_taken_as_it_is():
    images = Pictures()
    assert as_image_set(images) is images


# --- class names in texts


def test_a_class_is_called_by_what_is_before_the_comma():
    assert class_words(["Bear, brown", "tench", "great white shark, white shark"]) == [
        "Bear",
        "tench",
        "great white shark",
    ]


@pytest.mark.parametrize(
    "names",
    [["Bear, brown", "Bear, polar"], ["owl", "owl"], ["Owl", "owl"], ["snowy_owl", "snowy owl"], ["a  b", "a b,c"]],
)
def test_classes_of_equal_texts_are_refused(names):
    with pytest.raises(
        ValueError, match=r"are both .* in a text, which takes what is before the first comma: rename one"
    ):
        class_words(["tench", *names])


@pytest.mark.parametrize("name", ["", ", brown"])
def test_a_class_without_a_name_is_refused(name):
    with pytest.raises(ValueError, match="has no name before its first comma"):
        class_words(["tench", name])


def test_imagenets_classes_have_different_texts():
    from open_clip import IMAGENET_CLASSNAMES

    from experiments.datasets.imagenet import DISTINCT_NAMES

    names = [DISTINCT_NAMES.get(k, name) for k, name in enumerate(IMAGENET_CLASSNAMES)]
    assert len(class_words(names)) == 1000
    assert [IMAGENET_CLASSNAMES[k] for k in DISTINCT_NAMES] == ["missile", "sunglasses"]
