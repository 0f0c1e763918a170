"""`load_images`: one face for pictures from everywhere; the Menagerie and folders of one's own."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib.images.image_set import ImageError, load_images
from menagerie import SPECIES, STICKER_WORDS, Menagerie


@pytest.fixture
def folder(tmp_path):
    """Two classes, cat (2 pictures) and owl (1), beside a note and a hidden file."""
    for name, color in (("cat/b.png", "black"), ("cat/a.jpg", "red"), ("owl/deep/c.webp", "white")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10), color).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / ".thumbs").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / ".thumbs" / "x.png")
    return tmp_path


# --- the Menagerie


def test_a_split_is_drawn_as_the_world_draws_it():
    images = load_images("menagerie:val")
    assert len(images) == 10_000
    assert images[5].mode == "RGB"
    assert images[5].tobytes() == Menagerie("val").image(5).tobytes()


@pytest.mark.parametrize(
    ("text", "spec", "first", "length"),
    [
        ("menagerie:val[:10]", "menagerie:val[0:10]", 0, 10),
        ("menagerie:val[4:7]", "menagerie:val[4:7]", 4, 3),
        ("menagerie:val[-5:]", "menagerie:val[9995:10000]", 9995, 5),
        ("menagerie:val[:]", "menagerie:val", 0, 10_000),
        ("menagerie:val[:99999]", "menagerie:val", 0, 10_000),
        ("menagerie:val[6::1000]", "menagerie:val[6:10000:1000]", 6, 10),
        ("menagerie:val[::1]", "menagerie:val", 0, 10_000),
    ],
)
def test_a_slice_takes_a_range_and_has_one_canonical_spec(text, spec, first, length):
    images = load_images(text)
    assert images.spec == spec
    assert len(images) == length
    assert images.name(0) == f"val/{first}"


@pytest.mark.parametrize(
    ("split", "fact", "class_names"),
    [
        ("val", "species", SPECIES),
        ("people", "person_hair", None),
        ("signs", "sticker_word", STICKER_WORDS),
    ],
)
def test_labels_count_what_the_split_is_about(split, fact, class_names):
    images = load_images(f"menagerie:{split}[:50]")
    if class_names:
        assert images.class_names == class_names
    assert images.labels.dtype == np.int64
    named = [images.class_names[label] if label >= 0 else "" for label in images.labels]
    assert named == images.facts[fact].tolist()


def test_waterbirds_are_labelled_land_bird_or_water_bird():
    images = load_images("menagerie:waterbirds[:20]")
    assert images.class_names == ("land bird", "water bird")
    assert images.labels.tolist() == images.facts["water_bird"].astype(int).tolist()


def test_the_taxonomy_gives_the_ranks_of_each_pictures_creature():
    images = load_images("menagerie:val[:40]")
    for path, species in zip(images.taxonomy, images.facts["species"], strict=True):
        assert path == () if not species else (len(path) == 7 and path[-1] == species)
    assert load_images("menagerie:people[:5]").taxonomy is None


@pytest.mark.parametrize("step", ["-1", "0"])
def test_a_slice_that_goes_back_is_refused(step):
    with pytest.raises(ValueError, match="step of 1 or more"):
        load_images(f"menagerie:val[::{step}]")


def test_a_slice_or_positions_give_the_set_of_these_pictures():
    images = load_images("menagerie:val[:12]")
    assert images[2:8:3].spec == images[[2, 5]].spec == images[np.array([2, 5])].spec == images.subset([2, 5]).spec
    assert np.array_equal(images[np.int64(-1)], images[11])
    for wrong in ("a", 1.5, None):
        with pytest.raises(TypeError, match="chosen by a number, a slice or positions"):
            images[wrong]


def test_a_subset_keeps_order_facts_and_gets_its_own_spec():
    images = load_images("menagerie:val[100:200]")
    some = images.subset([7, 3])
    assert [some.name(0), some.name(1)] == ["val/107", "val/103"]
    assert some.labels.tolist() == images.labels[[7, 3]].tolist()
    assert some.facts["habitat"].tolist() == images.facts["habitat"].iloc[[7, 3]].tolist()
    assert len({images.spec, some.spec, images.subset([3, 7]).spec}) == 3


# --- samples


@pytest.fixture
def sorted_folder(tmp_path):
    """Pictures sorted by class, as data sets are: 40 cats, 12 owls, 3 toads."""
    for name, count in (("cat", 40), ("owl", 12), ("toad", 3)):
        (tmp_path / name).mkdir()
        for i in range(count):
            (tmp_path / name / f"{i:02}.png").touch()
    return load_images(f"folder:{tmp_path}")


@pytest.mark.parametrize(("n", "counts"), [(3, [1, 1, 1]), (9, [3, 3, 3]), (27, [12, 12, 3]), (99, [40, 12, 3])])
def test_a_sample_has_as_equal_a_share_of_each_class_as_there_are(sorted_folder, n, counts):
    assert np.bincount(sorted_folder.sample(n).labels).tolist() == counts


def test_every_class_is_as_likely_in_a_sample_smaller_than_the_number_of_classes(sorted_folder):
    drawn = [int(sorted_folder.sample(1, seed).labels[0]) for seed in range(300)]
    assert np.bincount(drawn).min() >= 1  # a toad is one picture in 18
    assert len({sorted_folder.sample(1, seed).name(0) for seed in range(300)}) > 20


def test_a_sample_is_drawn_by_its_seed_without_doubles_and_each_start_of_it_is_a_smaller_sample(sorted_folder):
    def names(sample):
        return [sample.name(i) for i in range(len(sample))]

    chosen = names(sorted_folder.sample(20, seed=3))
    assert chosen == names(sorted_folder.sample(20, seed=3))
    assert chosen != names(sorted_folder.sample(20, seed=4))
    assert len(set(chosen)) == 20
    assert names(sorted_folder.sample(7, seed=3)) == chosen[:7]
    assert names(sorted_folder.subset(range(52)).sample(99, seed=1)).count("toad/00.png") == 0
    assert sorted_folder.sample(20, seed=3).spec != sorted_folder.sample(20, seed=4).spec


def test_of_a_set_without_classes_every_picture_is_as_likely(sorted_folder):
    flat = load_images(sorted_folder.spec + "/cat")
    drawn = [flat.sample(10, seed).name(i) for seed in range(60) for i in range(10)]
    counts = np.bincount([int(name[:2]) for name in drawn], minlength=40)  # 15 each are expected
    assert 3 <= counts.min() <= counts.max() <= 32


def test_pictures_of_no_class_are_one_more_class_of_a_sample():
    images = load_images("menagerie:val[:400]")
    sample = images.sample(200)
    without = int((sample.labels == -1).sum())
    assert 0 < without <= np.bincount(sample.labels[sample.labels >= 0]).max() + 1


def test_a_sample_of_nothing_is_an_error(sorted_folder):
    with pytest.raises(ValueError, match=r"an integer of at least 1 \(pictures\), not 0"):
        sorted_folder.sample(0)


# --- travelling


class TestPicturesThatCannotBeRead:
    @pytest.fixture
    def broken(self, folder):
        (folder / "cat" / "b.png").write_bytes(b"no picture")
        return folder

    def test_they_stop_who_asks_for_them_as_a_rule(self, broken):
        with pytest.raises(ImageError):
            list(load_images(f"folder:{broken}"))

    def test_they_are_left_out_and_counted_where_that_is_asked_for(self, broken, capsys):
        whole, images = load_images(f"folder:{broken}"), load_images(f"folder:{broken}", on_error="skip")
        assert len(list(images)) == len(whole) - 1
        assert [images.name(i) for i in range(len(images))] == [whole.name(i) for i in range(len(whole)) if i != 1]
        assert (images.labels == np.delete(whole.labels, 1)).all()
        assert f"Left out: 1 of {len(whole)} pictures of folder:" in capsys.readouterr().out

    def test_a_set_that_can_be_read_is_itself(self, folder):
        assert load_images(f"folder:{folder}", on_error="skip").spec == f"folder:{folder}"
        assert load_images("menagerie:val[0:3]", on_error="skip").spec == "menagerie:val[0:3]"

    def test_a_set_of_nothing_else_is_an_error_that_says_why(self, folder):
        for name in ("cat/a.jpg", "cat/b.png", "owl/deep/c.webp"):
            (folder / name).write_bytes(b"no picture")
        with pytest.raises(ValueError, match=r"of folder:.* cannot be read; .* is not a readable picture"):
            load_images(f"folder:{folder}", on_error="skip")

    def test_another_word_is_refused(self):
        with pytest.raises(ValueError, match="on_error is 'raise' or 'skip', not 'ignore'"):
            load_images("menagerie:val", on_error="ignore")


def test_images_travel_to_a_worker_without_their_tables():
    images = load_images("menagerie:people[:2000]")
    assert len(images.facts) == 2000
    data = pickle.dumps(images)
    assert len(data) < 50_000
    assert pickle.loads(data)[2].tobytes() == images[2].tobytes()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("menagerie:nowhere", "Unknown Menagerie split 'nowhere'; choose one of train"),
        (
            "webcam",
            "Unknown images 'webcam'; write one of folder:PATH, .*imagenet:train|val, inat21.*, menagerie:SPLIT",
        ),
        ("zoo:val", "Unknown images 'zoo:val'"),
        ("rta100:test", "Unknown images 'rta100:test'; write one of .* rta100, "),
        ("celeba", "Unknown images 'celeba'"),
        ("menagerie:", "Unknown images"),
        ("menagerie:val[9:3]", "selects no picture; menagerie:val has 10,000"),
        ("menagerie:val[3]", "Unknown Menagerie split"),
    ],
)
def test_a_spec_that_names_nothing_is_an_error_that_says_what_to_write(spec, message):
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        load_images(spec)


def test_a_picture_past_the_end_is_an_index_error():
    with pytest.raises(IndexError, match=r"menagerie:val\[0:10\], which has 10 pictures"):
        load_images("menagerie:val[:10]")[10]


# --- folders


def test_a_folders_sub_folders_are_its_classes(folder):
    images = load_images(f"folder:{folder}")
    assert [images.name(i) for i in range(len(images))] == ["cat/a.jpg", "cat/b.png", "owl/deep/c.webp"]
    assert images.class_names == ("cat", "owl")
    assert images.labels.tolist() == [0, 0, 1]
    assert images.facts is None
    assert images.taxonomy is None
    assert images[1].size == (20, 10)


def test_a_folder_without_sub_folders_has_no_labels(folder):
    images = load_images(f"folder:{folder / 'cat'}[1:]")
    assert images.name(0) == "b.png"
    assert images.labels is None
    assert images.class_names is None


def test_a_missing_folder_is_an_error_that_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*nowhere"):
        load_images(f"folder:{tmp_path / 'nowhere'}")


def test_a_folder_with_no_pictures_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="There are no pictures in"):
        load_images(f"folder:{tmp_path}")


def test_a_folder_whose_files_changed_has_another_fingerprint_and_the_same_spec(folder):
    before = load_images(f"folder:{folder}")
    assert load_images(f"folder:{folder}").fingerprint == before.fingerprint
    Image.new("RGB", (20, 10), "blue").save(folder / "cat" / "new.png")
    after = load_images(f"folder:{folder}")
    assert after.fingerprint != before.fingerprint
    assert after.spec == before.spec


def test_two_folders_with_the_same_pictures_are_two_sets_of_images(folder, tmp_path_factory):
    copy = shutil.copytree(folder, tmp_path_factory.mktemp("copy") / "same")
    assert load_images(f"folder:{copy}").fingerprint != load_images(f"folder:{folder}").fingerprint


def test_a_rewritten_picture_of_the_same_size_changes_the_fingerprint(folder):
    before = load_images(f"folder:{folder}").fingerprint
    file = folder / "cat" / "a.jpg"
    file.write_bytes(file.read_bytes())
    assert load_images(f"folder:{folder}").fingerprint != before


def test_links_to_folders_are_followed_but_not_in_a_circle(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    Image.new("RGB", (4, 4)).save(elsewhere / "z.png")
    (folder / "zebra").symlink_to(elsewhere)
    (folder / "owl" / "up").symlink_to(folder)
    assert load_images(f"folder:{folder}").class_names == ("cat", "owl", "zebra")
    assert len(load_images(f"folder:{folder}")) == 4


def test_a_folder_travels_to_a_worker_as_a_few_flat_buffers(tmp_path):
    (tmp_path / "a-class-with-a-long-name").mkdir()
    for i in range(2000):
        (tmp_path / "a-class-with-a-long-name" / f"{i:05}.jpg").touch()
    images = load_images(f"folder:{tmp_path}")
    data = pickle.dumps(images)
    assert len(data) < 2000 * 40
    back = pickle.loads(data)
    assert back.name(1234) == images.name(1234) == "a-class-with-a-long-name/01234.jpg"
    assert back.fingerprint == images.fingerprint


# --- facts of a folder


@pytest.mark.parametrize("name", ["facts.csv", "metadata.csv"])
def test_a_table_in_the_folder_gives_facts_in_the_order_of_the_pictures(folder, name):
    (folder / name).write_text("file_name,indoors,light\nowl/deep/c.webp,True,dim\ncat/a.jpg,False,bright\n")
    facts = load_images(f"folder:{folder}").facts
    assert facts["class"].tolist() == ["cat", "cat", "owl"]
    assert facts["light"].fillna("").tolist() == ["bright", "", "dim"]
    assert facts["indoors"].tolist()[::2] == [False, True]
    assert load_images(f"folder:{folder}[2:]").facts["light"].tolist() == ["dim"]


def test_another_table_of_facts_changes_the_fingerprint(folder):
    before = load_images(f"folder:{folder}").fingerprint
    (folder / "facts.csv").write_text("file_name,light\ncat/a.jpg,dim\n")
    assert load_images(f"folder:{folder}").fingerprint != before


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("picture,light\ncat/a.jpg,dim\n", "name the files in a column file_name"),
        ("file_name,light\na.jpg,dim\n", r"names no picture of the folder \(its first is a\.jpg\).*such as cat/a\.jpg"),
        ("file_name,light\ncat/a.jpg,dim\ncat/a.jpg,dim\n", r"several rows for cat/a\.jpg"),
        ("file_name,light\n", "names no picture"),
    ],
)
def test_a_table_that_does_not_fit_the_folder_is_an_error(folder, table, message):
    (folder / "facts.csv").write_text(table)
    with pytest.raises(ValueError, match=message):
        _ = load_images(f"folder:{folder}").facts


# --- real photographs

PHOTOS = Path(__file__).parents[2] / "shared" / "real" / "imagenette-mini" / "val"


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="no Imagenette photographs beside the project")
def test_a_folder_of_real_photographs():
    images = load_images(f"folder:{PHOTOS}")
    assert len(images.class_names) == 10
    assert "French horn" in images.class_names
    assert set(images.labels) == set(range(10))
    photograph = images[0]
    assert photograph.mode == "RGB"
    assert np.asarray(photograph).std() > 10
