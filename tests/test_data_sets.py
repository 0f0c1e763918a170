"""Public data sets, each on a small tree in its true layout."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
from PIL import Image

from experiments.ground_truth import facts_table, known_facts
from lib.images import image_files as files
from lib.images.image_set import ImageError, load_images


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The folder that MV_DATA names, still empty."""
    monkeypatch.setenv("MV_DATA", str(tmp_path))
    return tmp_path


def draw(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 8), (40 * number, 0, 0)).save(root / name)


LUMBRICUS = "00000_Animalia_Annelida_Clitellata_Haplotaxida_Lumbricidae_Lumbricus_terrestris"
CYANISTES = "04815_Animalia_Chordata_Aves_Passeriformes_Paridae_Cyanistes_caeruleus"
PAPAVER = "05432_Plantae_Tracheophyta_Magnoliopsida_Ranunculales_Papaveraceae_Papaver_rhoeas"
ATTRIBUTES = ("5_o_Clock_Shadow", "Blond_Hair", "Male", "Wearing_Hat")
FACES = (  # split, and what holds of ATTRIBUTES
    (0, (-1, 1, -1, -1)),
    (0, (1, -1, 1, -1)),
    (1, (-1, -1, -1, 1)),
    (2, (-1, 1, 1, -1)),
)
BIRDS = """img_id,img_filename,y,split,place,place_filename
1,001.Black_footed_Albatross/Black_Footed_Albatross_0001_796111.jpg,1,0,1,/o/ocean/00002129.jpg
2,004.Groove_billed_Ani/Groove_Billed_Ani_0002_1670.jpg,0,2,0,/b/bamboo_forest/00000131.jpg
3,004.Groove_billed_Ani/Groove_Billed_Ani_0006_1653.jpg,0,2,1,/l/lake/natural/00000034.jpg
4,200.Common_Yellowthroat/Common_Yellowthroat_0003_190521.jpg,0,1,0,/f/forest/broadleaf/00000012.jpg
"""


def make_imagenet(root: Path) -> None:
    draw(root / "val", "n01440764/ILSVRC2012_val_00000293.JPEG", "n01443537/ILSVRC2012_val_00000236.JPEG")
    draw(root / "train", *(f"n01440764/n01440764_{i}.JPEG" for i in (18, 36)), "n02102040/n02102040_1.JPEG")
    (root / "meta.bin").write_bytes(b"a pickle that is left alone")


def make_inat21(root: Path) -> None:
    draw(root / "val", f"{LUMBRICUS}/5d4c63dc.jpg", f"{CYANISTES}/836c0cc8.jpg", f"{PAPAVER}/1.jpg", f"{PAPAVER}/2.jpg")
    draw(root / "train_mini", f"{PAPAVER}/3.jpg")
    draw(root / "2021_train", f"{PAPAVER}/4.jpg", f"{LUMBRICUS}/5.jpg")


def make_celeba(root: Path) -> None:
    names = [f"{i:06}.jpg" for i in range(1, len(FACES) + 1)]
    draw(root / "img_align_celeba", *names)
    rows = [
        f"{name} {' '.join(f'{value:2}' for value in values)}" for name, (_, values) in zip(names, FACES, strict=True)
    ]
    (root / "list_attr_celeba.txt").write_text("\n".join([str(len(rows)), " ".join(ATTRIBUTES) + " ", *rows, ""]))
    partition = [f"{name} {split}" for name, (split, _) in zip(names, FACES, strict=True)]
    (root / "list_eval_partition.txt").write_text("\n".join([*partition, ""]))


def make_waterbirds(root: Path) -> None:
    root /= "waterbird_complete95_forest2water2"
    draw(root, *(line.split(",")[1] for line in BIRDS.splitlines()[1:]))
    (root / "metadata.csv").write_text(BIRDS)


def make_rta100(root: Path) -> None:
    draw(root / "rta100" / "data", "label=dog_text=cat.png", "label=guinea pig_text=dog.png", "cover.png")
    draw(root / "__MACOSX", "._label=dog_text=cat.png")


def make_disentangling(root: Path) -> None:
    draw(root / "typographic_attack_dataset" / "images", "IMG_2934.jpg", "IMG_2935.jpg")
    about = {
        "IMG_2934.jpg": {"true object": "cup", "typographic attack label": "good"},
        "IMG_2935.jpg": {"true object": "bag", "typographic attack label": ""},
    }
    (root / "typographic_attack_dataset" / "annotations.json").write_text(json.dumps(about))
    (root / "typographic_attack_dataset" / "classes.json").write_text('{"cup": 0, "bag": 1}')


MAKERS = {
    "imagenet:val": make_imagenet,
    "inat21:val": make_inat21,
    "celeba:all": make_celeba,
    "waterbirds:test": make_waterbirds,
    "rta100": make_rta100,
    "paint": make_rta100,
    "disentangling": make_disentangling,
}


def kind(spec: str) -> str:
    return spec.partition(":")[0]


@pytest.fixture(params=MAKERS)
def spec(request, data):
    """Each data set in turn, made below MV_DATA."""
    MAKERS[request.param](data / kind(request.param))
    return request.param


# --- what holds of every set


def test_a_set_is_sliced_like_any_other(spec):
    whole, tail = load_images(spec), load_images(f"{spec}[1:]")
    assert [tail.name(i) for i in range(len(tail))] == [whole.name(i) for i in range(1, len(whole))]
    assert tail.labels.tolist() == whole.labels[1:].tolist()
    if whole.facts is not None:
        assert tail.facts.equals(whole.facts.iloc[1:].reset_index(drop=True))


def test_a_set_travels_to_a_worker_process(spec):
    images = load_images(spec)
    _ = images.facts
    back = pickle.loads(pickle.dumps(images))
    assert back[1].tobytes() == images[1].tobytes()
    assert (back.spec, back.fingerprint, back.class_names) == (images.spec, images.fingerprint, images.class_names)


def test_a_broken_picture_is_an_error_that_names_the_file(spec):
    images = load_images(spec)
    (images.source.root / images.name(1)).write_bytes(b"\xff\xd8 half a picture")
    assert images[0].size == (12, 8)
    with pytest.raises(ImageError, match=Path(images.name(1)).name):
        images[1]


def test_another_file_means_another_fingerprint_and_a_copy_elsewhere_does_not(
    spec, data, monkeypatch, tmp_path_factory
):
    images = load_images(spec)
    before = images.fingerprint
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "moved"
    shutil.copytree(data / kind(spec), elsewhere, copy_function=shutil.copyfile)
    Image.effect_noise((64, 64), 50).save(images.source.root / images.name(0))
    assert load_images(spec).fingerprint != before
    monkeypatch.setenv(f"MV_{kind(spec).upper()}", str(elsewhere))
    assert load_images(spec).fingerprint == before


def test_missing_data_say_where_to_get_them_and_where_to_put_them(spec, data, monkeypatch):
    shutil.rmtree(data / kind(spec))
    with pytest.raises(FileNotFoundError) as caught:
        load_images(spec)
    message = str(caught.value)
    assert "get it from https://" in message
    assert f"lay out {data / kind(spec)} as" in message
    assert f"MV_{kind(spec).upper()}" in message
    monkeypatch.delenv("MV_DATA")
    with pytest.raises(FileNotFoundError, match=rf"is not set up: get it from https://.* MV_DATA .* as {kind(spec)}\."):
        load_images(spec)


@pytest.mark.parametrize(
    ("spec", "choices"),
    [
        ("imagenet:test", "train, val"),
        ("inat21:valid", "train, mini, val"),
        ("celeba:valid", "train, val, test, all"),
        ("waterbirds:all", "train, val, test"),
    ],
)
def test_a_split_that_is_not_there_is_an_error_with_those_that_are(data, spec, choices):
    with pytest.raises(ValueError, match=f"Unknown split .* of {kind(spec)}; choose one of {choices}"):
        load_images(spec)


def test_of_a_large_set_a_sample_of_files_is_looked_at(data, monkeypatch):
    make_inat21(data / "inat21")
    monkeypatch.setattr(files, "SAMPLE", 2)
    images = load_images("inat21:val")
    before = images.fingerprint
    first, second = (images.source.root / images.name(i) for i in (0, 1))
    second.write_bytes(b"not in the sample")
    assert load_images("inat21:val").fingerprint == before
    first.write_bytes(b"in the sample")
    assert load_images("inat21:val").fingerprint != before


# --- ImageNet


def test_imagenets_classes_are_its_synsets_in_order(data):
    make_imagenet(data / "imagenet")
    images = load_images("imagenet:train")
    assert images.class_names == ("n01440764", "n02102040")
    assert images.labels.tolist() == [0, 0, 1]
    assert images.name(0) == "n01440764/n01440764_18.JPEG"
    assert images.taxonomy is None


def test_all_thousand_synsets_have_names_in_words(data):
    synsets = [f"n{i:08}" for i in range(1000)]
    for synset in synsets:
        folder = data / "imagenet" / "val" / synset
        folder.mkdir(parents=True)
        (folder / "ILSVRC2012_val_1.JPEG").touch()
    images = load_images("imagenet:val")
    assert images.class_names[:2] == ("tench", "goldfish")
    assert images.class_names[999] == "toilet paper"
    assert images.labels.tolist() == list(range(1000))


def test_a_val_folder_as_the_archive_unpacks_is_an_error_that_says_what_to_do(data):
    draw(data / "imagenet" / "val", "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(ValueError, match=r"no synset folders; sort them into .*torchvision"):
        load_images("imagenet:val")


# --- iNaturalist


def test_inaturalists_folders_tell_the_seven_ranks(data):
    make_inat21(data / "inat21")
    images = load_images("inat21:val")
    assert images.class_names == ("Lumbricus terrestris", "Cyanistes caeruleus", "Papaver rhoeas")
    assert images.labels.tolist() == [0, 1, 2, 2]
    assert images.taxonomy[1] == (
        "Animalia", "Chordata", "Aves", "Passeriformes", "Paridae", "Cyanistes", "Cyanistes caeruleus",
    )  # fmt: skip
    assert images.facts["class"].tolist() == ["Clitellata", "Aves", "Magnoliopsida", "Magnoliopsida"]
    assert images.facts.columns[-1] == "species"


def test_inaturalists_ranks_are_facts_for_the_metrics(data):
    make_inat21(data / "inat21")
    facts = known_facts(facts_table(load_images("inat21:val")), min_support=1)
    assert {"kingdom=Plantae", "kingdom=Animalia", "phylum=Annelida"} <= set(facts.names)
    assert facts.truth[:, facts.names.index("kingdom=Plantae")].tolist() == [False, False, True, True]


@pytest.mark.parametrize(("split", "length"), [("mini", 1), ("train", 2)])
def test_inaturalists_folders_have_the_archives_names_or_torchvisions(data, split, length):
    make_inat21(data / "inat21")
    assert len(load_images(f"inat21:{split}")) == length


@pytest.mark.parametrize("name", ["Amphibians/1.jpg", "1.jpg"])
def test_another_years_inaturalist_is_an_error(data, name):
    draw(data / "inat21" / "val", name)
    with pytest.raises(ValueError, match=r"no folder of iNaturalist 2021; lay it out as .*00000_Animalia_"):
        load_images("inat21:val")


# --- CelebA


def test_celeba_is_labelled_blond_or_not_and_knows_every_attribute(data):
    make_celeba(data / "celeba")
    images = load_images("celeba:all")
    assert images.class_names == ("not blond", "blond")
    assert images.labels.tolist() == [1, 0, 0, 1]
    assert images.facts.columns.tolist() == ["5_o_clock_shadow", "blond_hair", "male", "wearing_hat"]
    assert images.facts["male"].tolist() == [False, True, False, True]
    assert {dtype.kind for dtype in images.facts.dtypes} == {"b"}


@pytest.mark.parametrize(("split", "names"), [("train", ["000001.jpg", "000002.jpg"]), ("val", ["000003.jpg"])])
def test_celebas_splits_are_those_of_its_list(data, split, names):
    make_celeba(data / "celeba")
    images = load_images(f"celeba:{split}")
    assert [images.name(i) for i in range(len(images))] == names


def test_celebas_attributes_are_facts_for_the_metrics(data):
    make_celeba(data / "celeba")
    assert known_facts(facts_table(load_images("celeba:all")), min_support=1).names == [
        "5_o_clock_shadow", "blond_hair", "male", "wearing_hat",
    ]  # fmt: skip


def test_kaggles_copy_of_celeba_is_read_too(data):
    make_celeba(data / "celeba")
    before = load_images("celeba:all")
    last = before[3]
    root = data / "celeba"
    rows = [line.split() for line in (root / "list_attr_celeba.txt").read_text().splitlines()[1:]]
    table = [["image_id", *rows[0]], *rows[1:]]
    (root / "list_attr_celeba.csv").write_text("\n".join(map(",".join, table)))
    partition = [line.split() for line in (root / "list_eval_partition.txt").read_text().splitlines()]
    (root / "list_eval_partition.csv").write_text("\n".join(map(",".join, [["image_id", "partition"], *partition])))
    for name in ("list_attr_celeba.txt", "list_eval_partition.txt"):
        (root / name).unlink()
    (root / "img_align_celeba").rename(root / "inner")
    (root / "img_align_celeba").mkdir()
    (root / "inner").rename(root / "img_align_celeba" / "img_align_celeba")
    images = load_images("celeba:all")
    assert images.facts.equals(before.facts)
    assert images[3].tobytes() == last.tobytes()


def test_lists_of_different_celebas_are_an_error(data):
    make_celeba(data / "celeba")
    (data / "celeba" / "list_eval_partition.txt").write_text("000001.jpg 0\n")
    with pytest.raises(ValueError, match="not about the same pictures"):
        load_images("celeba:train")


# --- Waterbirds


def test_waterbirds_are_labelled_by_the_bird_and_know_the_background(data):
    make_waterbirds(data / "waterbirds")
    images = load_images("waterbirds:test")
    assert images.class_names == ("land bird", "water bird")
    assert images.labels.tolist() == [0, 0]
    assert images.facts.to_dict("list") == {
        "water_bird": [False, False],
        "water_background": [False, True],
        "species": ["Groove billed Ani", "Groove billed Ani"],
        "place": ["bamboo forest", "lake natural"],
    }
    assert load_images("waterbirds:train").labels.tolist() == [1]


def test_waterbirds_of_wilds_and_a_folder_of_its_own_are_found(data, monkeypatch):
    make_waterbirds(data / "waterbirds")
    archive = data / "waterbirds" / "waterbird_complete95_forest2water2"
    wilds = archive.rename(data / "waterbirds" / "waterbirds_v1.0")
    assert len(load_images("waterbirds:val")) == 1
    monkeypatch.setenv("MV_WATERBIRDS", str(wilds))
    assert len(load_images("waterbirds:val")) == 1


def test_a_metadata_file_of_something_else_is_an_error(data):
    (data / "waterbirds").mkdir()
    (data / "waterbirds" / "metadata.csv").write_text("file_name,y\na.jpg,1\n")
    with pytest.raises(ValueError, match="has no column img_filename"):
        load_images("waterbirds:test")


# --- words on pictures


@pytest.mark.parametrize("spec", ["rta100", "paint"])
def test_a_typographic_set_is_labelled_by_the_object_and_knows_the_word(data, spec):
    make_rta100(data / spec)
    images = load_images(spec)
    assert images.class_names == ("cat", "dog", "guinea pig")
    assert images.labels.tolist() == [1, 2]
    assert images.facts.to_dict("list") == {"object": ["dog", "guinea pig"], "sticker_word": ["cat", "dog"]}


def test_disentangling_is_annotated_in_its_json_file(data):
    make_disentangling(data / "disentangling")
    images = load_images("disentangling")
    assert images.class_names == ("bag", "cup", "good")
    assert images.labels.tolist() == [1, 0]
    assert images.facts["sticker_word"].tolist() == ["good", ""]


def test_other_annotations_are_an_error(data):
    (data / "disentangling").mkdir()
    (data / "disentangling" / "annotations.json").write_text('{"a.jpg": {"label": "cup"}}')
    with pytest.raises(ValueError, match=r"is no annotation of this set; lay it out as images/IMG_2934"):
        load_images("disentangling")


@pytest.mark.parametrize(
    ("spec", "table", "old", "new", "message"),
    [
        (
            "celeba:all",
            "list_attr_celeba.txt",
            " 1 ",
            " x ",
            r"list_attr_celeba.txt has 'x' in column .*, not -1, 1; get",
        ),
        ("celeba:all", "list_eval_partition.txt", "jpg 2", "jpg 7", r"has '7' in column '1', not 0, 1, 2; get it anew"),
        ("celeba:all", "list_attr_celeba.txt", "Blond_Hair", "Blond", "lacks the attribute Blond_Hair or Male"),
        ("waterbirds:test", "metadata.csv", "1670.jpg,0,", "1670.jpg,5,", r"has '5' in column 'y', not 0, 1; get it"),
    ],
)
def test_values_that_a_table_cannot_hold_are_refused(data, spec, table, old, new, message):
    MAKERS[spec](data / kind(spec))
    (path,) = data.rglob(table)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        load_images(spec)
