"""Small sets of drawn pictures in the formats in which the public data sets come."""

import csv
import io
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

IMAGENETTE = {
    "n01440764": "tench, Tinca tinca",
    "n02102040": "English springer, English springer spaniel",
    "n02979186": "cassette player",
    "n03000684": "chain saw, chainsaw",
    "n03028079": "church, church building",
    "n03394916": "French horn, horn",
    "n03417042": "garbage truck, dustcart",
    "n03425413": "gas pump, gasoline pump, petrol pump, island dispenser",
    "n03445777": "golf ball",
    "n03888257": "parachute, chute",
}
TAXA = [  # kingdom to species, as in the names of iNaturalist's folders
    f"Animalia_{phylum}_{group}_{order}_{family}_{genus}_{epithet}"
    for phylum, group, order, family, genera in [
        ("Chordata", "Aves", "Passeriformes", "Paridae", ("Parus", "Poecile", "Baeolophus")),
        ("Chordata", "Aves", "Anseriformes", "Anatidae", ("Anas", "Aythya", "Branta")),
        ("Chordata", "Mammalia", "Carnivora", "Canidae", ("Canis", "Vulpes")),
        ("Arthropoda", "Insecta", "Lepidoptera", "Nymphalidae", ("Danaus", "Vanessa")),
        ("Arthropoda", "Insecta", "Coleoptera", "Coccinellidae", ("Coccinella", "Harmonia")),
    ]
    for genus in genera
    for epithet in ("major", "minor")
]
ATTRIBUTES = [
    name
    for line in (
        "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair",
        "Blond_Hair Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair",
        "Heavy_Makeup High_Cheekbones Male Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face",
        "Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks Sideburns Smiling Straight_Hair Wavy_Hair",
        "Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace Wearing_Necktie Young",
    )
    for name in line.split()
]


def drawn(*numbers: int, size: tuple[int, int] = (72, 60)) -> Image.Image:
    """A picture of coloured patches: the first number says what all pictures of a kind share, all together the rest."""
    shared, own = np.random.default_rng(numbers[0]), np.random.default_rng(numbers)
    grid = 0.65 * shared.random((4, 4, 3)) + 0.35 * own.random((4, 4, 3))
    return Image.fromarray((255 * grid).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)


def jpeg(*numbers: int, size: tuple[int, int] = (72, 60)) -> bytes:
    """The picture as a file."""
    stored = io.BytesIO()
    drawn(*numbers, size=size).save(stored, "JPEG", quality=80)
    return stored.getvalue()


def imagenette(n_train: int, n_validation: int, n_files: int = 2) -> dict[str, bytes]:
    """A data set of the hub: parquet in several files a split, described at the head of its card."""
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(IMAGENETTE.values()))}
    )
    files, splits = {}, []
    for kind, (split, count) in enumerate({"train": n_train, "validation": n_validation}.items()):
        labels = [i * len(IMAGENETTE) // count for i in range(count)]  # sorted by class, as it is
        images = [{"bytes": jpeg(label, kind, i), "path": None} for i, label in enumerate(labels)]
        whole = datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)
        for number in range(n_files):
            stored = io.BytesIO()
            whole.shard(n_files, number, contiguous=True).to_parquet(stored)
            files[f"data/{split}-{number:05d}-of-{n_files:05d}.parquet"] = stored.getvalue()
        splits.append(f"  - name: {split}\n    num_bytes: {100 * count}\n    num_examples: {count}")
    names = "\n".join(f"          '{i}': {name}" for i, name in enumerate(IMAGENETTE.values()))
    card = f"""---
dataset_info:
  features:
  - name: image
    dtype: image
  - name: label
    dtype:
      class_label:
        names:
{names}
  splits:
{chr(10).join(splits)}
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
  - split: validation
    path: data/validation-*
---
# ImageNette
"""
    return {**files, "README.md": card.encode()}


def imagenet(root: Path, per_class: dict[str, int]) -> None:
    """`imagenet/`: a folder for each of the thousand synsets, as torchvision unpacks the archives."""
    for split, (name, count) in enumerate(per_class.items()):
        for k, synset in enumerate(_synsets()):
            for i in range(count):
                file = f"{synset}_{i}.JPEG" if name == "train" else f"ILSVRC2012_val_{k * count + i + 1:08d}.JPEG"
                _write(root / "imagenet" / name / synset / file, jpeg(k, split, i))


def _synsets() -> list[str]:
    (timm,) = find_spec("timm").submodule_search_locations  # found, not imported: its list of the synsets is a file
    return Path(timm, "data/_info/imagenet_synsets.txt").read_text().split()


def inat21(root: Path, per_class: dict[str, int]) -> None:
    """`inat21/`: folders whose names are numbers and taxa."""
    for split, (name, count) in enumerate(per_class.items()):
        for k, taxon in enumerate(TAXA):
            for i in range(count):
                _write(root / "inat21" / name / f"{k:05d}_{taxon}" / f"{split}{k:03d}-{i:04d}.jpg", jpeg(k, split, i))


def celeba(root: Path, count: int) -> None:
    """`celeba/`: aligned faces beside the original lists, in the three splits in turn."""
    home, random = root / "celeba", np.random.default_rng(0)
    names = [f"{i + 1:06d}.jpg" for i in range(count)]
    truth = random.random((count, len(ATTRIBUTES))) < 0.5
    kinds = 2 * truth[:, ATTRIBUTES.index("Blond_Hair")] + truth[:, ATTRIBUTES.index("Male")]
    for i, name in enumerate(names):
        _write(home / "img_align_celeba" / name, jpeg(int(kinds[i]), i, size=(178, 218)))
    rows = [
        f"{name} {' '.join(f'{2 * value - 1:2d}' for value in row)}" for name, row in zip(names, truth, strict=True)
    ]
    (home / "list_attr_celeba.txt").write_text("\n".join([str(count), " ".join(ATTRIBUTES) + " ", *rows]) + "\n")
    parts = [f"{name} {(0, 1, 2, 2)[i % 4]}" for i, name in enumerate(names)]
    (home / "list_eval_partition.txt").write_text("\n".join(parts) + "\n")
    people = [f"{name} {random.integers(1, 10178)}" for name in names]
    (home / "identity_CelebA.txt").write_text("\n".join(people) + "\n")


def waterbirds(root: Path, count: int) -> None:
    """`waterbirds/`: group_DRO's folder with its table; birds on both places in every split."""
    home = root / "waterbirds" / "waterbird_complete95_forest2water2"
    birds = (("001.Black_footed_Albatross", 1), ("015.Lazuli_Bunting", 0), ("004.Groove_billed_Ani", 0))
    places = (("/o/ocean/00000001.jpg", 1), ("/b/bamboo_forest/00000002.jpg", 0))
    rows = []
    for i in range(count):
        (bird, y), (place_file, place) = birds[i % 3], places[i // 3 % 2]
        name = f"{bird}/{bird.partition('.')[2]}_{i:04d}_{i}.jpg"
        _write(home / name, jpeg(2 * y + place, i, size=(90, 70)))
        rows.append([i + 1, name, y, (0, 1, 2, 2)[i // 6 % 4], place, place_file])
    with (home / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["img_id", "img_filename", "y", "split", "place", "place_filename"], *rows])


def typographic(root: Path, count: int) -> None:
    """`rta100/` and `disentangling/`: words on objects, told by the names of the files and by a table of JSON."""
    things = ("dog", "cat", "banana", "clock", "umbrella", "spoon")
    about = {}
    for i in range(count):
        thing, word = things[i % 6], things[(i + 1 + i // 6 % 5) % 6]
        file = root / "rta100" / f"label={thing}_text={word}_{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        drawn(i % 6, i).save(file)
        name = f"IMG_{2900 + i}.JPG"
        _write(root / "disentangling" / "images" / name, jpeg(i % 6, i, size=(120, 90)))
        about[name] = {"true object": thing, "typographic attack label": word if i // 6 % 4 else ""}
    (root / "disentangling" / "annotations.json").write_text(json.dumps(about))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
