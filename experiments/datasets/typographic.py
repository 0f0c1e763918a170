"""Photographs with a wrong word on them: `rta100`, `paint` and `disentangling`."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from experiments.datasets.locations import DataSet
from lib.images.image_files import FileList, FileSource, pictures_below, warn_of_left_out
from storage.files import read_json

if TYPE_CHECKING:
    import pandas as pd

_NAMED = re.compile(r"label=(?P<object>[^_]+)_text=(?P<word>[^_.]*)")
_LAYOUT = "pictures called such as label=dog_text=cat.png, in any sub-folder"
RTA100 = DataSet("rta100", "RTA-100", "https://github.com/azuma164/Defense-Prefix (rta100.zip)", _LAYOUT)
PAINT = DataSet(
    "paint",
    "PAINT's typographic set",
    "https://github.com/mlfoundations/patching (typographic_attack_data.zip)",
    _LAYOUT,
)
DISENTANGLING = DataSet(
    "disentangling",
    "the typographic set of Disentangling (Materzynska et al., 2022)",
    "https://github.com/joaanna/disentangling_spelling_in_clip",
    "images/IMG_2934.JPG … beside annotations.json, with each picture's true object and typographic attack label",
)


class TypographicSource(FileSource):
    """Pictures of objects with words on them, labelled by the object.

    The classes are all objects and all words, as in Defense-Prefix's evaluation: a model that reads can then name the
    word. Facts: object, and sticker_word as in the Menagerie, "" on a picture without one.
    """

    def __init__(self, root: Path, files: FileList, objects: Sequence[str], words: Sequence[str]):
        self.objects, self.words = list(objects), list(words)
        class_names = sorted({*objects, *words} - {""})
        number = {name: k for k, name in enumerate(class_names)}
        super().__init__(root, files, [number[name] for name in objects], class_names)

    def facts(self, indices: np.ndarray) -> "pd.DataFrame":
        import pandas as pd

        return pd.DataFrame(
            {"object": [self.objects[i] for i in indices], "sticker_word": [self.words[i] for i in indices]}
        )


class NamedSource(TypographicSource):
    """A set whose file names hold the object and the word on it; subclasses name the data set."""

    DATA_SET: DataSet

    def __init__(self) -> None:
        root = self.DATA_SET.find("")
        left_out: Counter[str] = Counter()
        below = list(pictures_below(root, left_out))
        found = [(folder, name, match) for folder, name in below if (match := _NAMED.match(name))]
        if not found:
            raise self.DATA_SET.missing(root / "label=…_text=….png")
        left_out["not called label=…_text=…"] += len(below) - len(found)
        warn_of_left_out(root, +left_out)
        files = FileList((folder, name) for folder, name, _ in found)
        matches = [match for *_, match in found]
        super().__init__(root, files, [m["object"] for m in matches], [m["word"] for m in matches])


class Rta100Source(NamedSource):
    """RTA-100, the set of Defense-Prefix."""

    FORM = "rta100"
    DATA_SET = RTA100


class PaintSource(NamedSource):
    """The set of PAINT."""

    FORM = "paint"
    DATA_SET = PAINT


class DisentanglingSource(TypographicSource):
    """The set of Materzynska et al., annotated in a JSON file."""

    FORM = "disentangling"

    def __init__(self) -> None:
        folders = ("", "typographic_attack_dataset/")
        table = DISENTANGLING.find(
            *(f"{folder}{name}.json" for folder in folders for name in ("annotations", "annotation"))
        )
        about = read_json(table)
        root = table.parent / "images" if (table.parent / "images").is_dir() else table.parent
        try:
            objects = [entry["true object"] for entry in about.values()]
            words = [entry["typographic attack label"] or "" for entry in about.values()]
        except (AttributeError, KeyError, TypeError):
            raise ValueError(f"{table} is no annotation of this set; lay it out as {DISENTANGLING.layout}.") from None
        super().__init__(root, FileList.of_paths(about, table), objects, words)
