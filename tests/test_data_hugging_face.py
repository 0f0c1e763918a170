"""`hf:` loads data sets through the `datasets` library; here from local folders, without the network."""

import pickle
import sys

import pytest
from PIL import Image

from lib.images.image_set import ImageError, load_images

datasets = pytest.importorskip("datasets", reason="the optional package datasets is not installed")


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


@pytest.fixture
def saved(tmp_path):
    """Two splits as `save_to_disk` writes them: a picture under an unusual name, a class, a caption and a list."""
    features = datasets.Features(
        {
            "caption": datasets.Value("string"),
            "photo": datasets.Image(),
            "animal": datasets.ClassLabel(names=["cat", "owl"]),
            "boxes": datasets.Sequence(datasets.Value("int32")),
        }
    )
    rows = {
        "caption": ["a cat", "an owl", "nothing"],
        "photo": [Image.new("RGB", (6, 4), color) for color in ("red", "green", "blue")],
        "animal": [0, 1, -1],
        "boxes": [[1], [2], []],
    }
    train = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": train, "test": train.select([1])}).save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


def test_columns_are_found_by_their_type(saved):
    images = load_images(f"hf:{saved}:train")
    assert len(images) == 3
    assert images[1].getpixel((0, 0)) == (0, 128, 0)
    assert images.class_names == ("cat", "owl")
    assert images.labels.tolist() == [0, 1, -1]
    assert images.facts.to_dict("list") == {"caption": ["a cat", "an owl", "nothing"], "animal": ["cat", "owl", ""]}
    assert images.taxonomy is None
    assert images.name(2) == "train/2"


def test_the_split_is_train_unless_said(saved):
    assert len(load_images(f"hf:{saved}")) == 3
    assert len(load_images(f"hf:{saved}:test")) == 1


def test_a_slice_of_a_data_set(saved):
    images = load_images(f"hf:{saved}:train[1:]")
    assert images.labels.tolist() == [1, -1]
    assert images.facts["caption"].tolist() == ["an owl", "nothing"]


def test_a_folder_of_pictures_is_loaded_as_datasets_understands_it(tmp_path):
    for name in ("cat/1.png", "owl/2.png"):
        (tmp_path / "set" / "train" / name).parent.mkdir(parents=True)
        Image.new("RGB", (6, 4), "red").save(tmp_path / "set" / "train" / name)
    images = load_images(f"hf:{tmp_path / 'set'}:train")
    assert images.labels.tolist() == [0, 1]
    assert images[0].size == (6, 4)


def test_a_data_set_travels_to_a_worker_and_keeps_its_fingerprint(saved):
    images = load_images(f"hf:{saved}:train")
    back = pickle.loads(pickle.dumps(images))
    assert back[0].tobytes() == images[0].tobytes()
    assert back.fingerprint == images.fingerprint == load_images(f"hf:{saved}:train").fingerprint
    assert load_images(f"hf:{saved}:test").fingerprint.partition("@")[2] != images.fingerprint.partition("@")[2]


def test_rows_without_a_readable_picture_are_errors_that_name_the_row(tmp_path):
    rows = {"photo": [{"bytes": b"no picture", "path": None}, None]}
    features = datasets.Features({"photo": datasets.Image()})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "broken"))
    images = load_images(f"hf:{tmp_path / 'broken'}")
    with pytest.raises(ImageError, match="train/0 is not a readable picture"):
        images[0]
    with pytest.raises(ImageError, match="train/1 is not a readable picture"):
        images[1]
    assert images.labels is None
    assert images.facts is None


def test_a_data_set_without_pictures_is_an_error(tmp_path):
    datasets.Dataset.from_dict({"text": ["a"], "n": [1]}).save_to_disk(str(tmp_path / "text"))
    with pytest.raises(ValueError, match="has no column of images; its columns are text, n"):
        load_images(f"hf:{tmp_path / 'text'}")


def test_a_split_that_is_not_there_is_an_error_with_those_that_are(saved):
    with pytest.raises(ValueError, match=r'cannot be loaded: Unknown split "val".*train.*test'):
        load_images(f"hf:{saved}:val")


def test_a_data_set_that_is_not_there_is_an_error_that_says_so(tmp_path):
    with pytest.raises(
        ConnectionError, match="hf:nobody/nothing:train is not in the cache, and HF_HUB_OFFLINE forbids"
    ):
        load_images("hf:nobody/nothing:train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty:train is not there: .* Write hf:OWNER/NAME:SPLIT"):
        load_images(f"hf:{tmp_path}/empty:train")


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ModuleNotFoundError, match="pip install datasets"):
        load_images("hf:owner/name:train")


@pytest.mark.parametrize(
    "content",
    [b"", b"PAR1", b"PAR1" + bytes(200) + b"PAR1", b"version https://git-lfs.github.com/spec/v1\n", bytes(999)],
)
@pytest.mark.parametrize("name", ["train.parquet", "train-00000-of-00001.arrow", "metadata.jsonl", "metadata.csv"])
def test_a_damaged_file_of_a_data_set_is_one_sentence_that_names_the_set(tmp_path, name, content):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / name).write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=f"hf:{folder}") as caught:
        load_images(f"hf:{folder}:train")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 800


@pytest.mark.parametrize("damage", ["data-00000-of-00001.arrow", "dataset_info.json", "state.json"])
@pytest.mark.parametrize("content", [b"", b"{", bytes(500)])
def test_a_damaged_file_that_was_saved_is_one_sentence_that_names_the_set(saved, damage, content):
    (saved / "train" / damage).write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=f"hf:{saved}") as caught:
        load_images(f"hf:{saved}:train")
    assert "\n" not in str(caught.value)


def test_a_data_set_in_a_folder_called_like_a_slice_or_a_split(saved):
    for name in ("set[1:2]", "set:train", "set[:]:x"):
        folder = saved.parent / name
        (saved / "test").rename(folder)
        for spec in (f"hf:{folder}", f"hf:{folder}:train"):
            assert len(load_images(spec)) == 1
        folder.rename(saved / "test")
