"""Data sets of the Hugging Face hub or in its formats: `hf:OWNER/NAME:SPLIT`, `hf:OWNER/NAME/CONFIG:SPLIT`."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from lib.images.pictures import read_picture
from lib.images.source import ImageError
from storage import code_fingerprint
from storage.downloads import plain_errors
from storage.files import one_sentence

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset


class HuggingFaceSource:
    """One split (`train` unless said) of a map-style data set; columns are found by their type, not by their name.

    Pictures are the first column of images, classes the ClassLabel called label or else the first one, and facts all
    columns of single values. A local folder is one that `save_to_disk` wrote or one that `load_dataset` understands.
    Code that comes with a data set is never run (`datasets` 4 has dropped it).
    """

    FORM = "hf:OWNER/NAME:SPLIT"

    def __init__(self, place: str):
        whole = ":" not in place or Path(place).expanduser().is_dir()  # the folder's own name may have a colon
        path, split = (place, "train") if whole else place.rsplit(":", 1)
        with plain_errors(f"hf:{path}:{split}"):
            features = _load(path, split)
        import datasets

        columns = features.features
        images = [name for name, column in columns.items() if isinstance(column, datasets.Image)]
        if not images:
            raise ValueError(f"hf:{place} has no column of images; its columns are {', '.join(columns)}.")
        labels = [name for name, column in columns.items() if isinstance(column, datasets.ClassLabel)]
        self.split, self.image_column = split, images[0]
        self.label_column = next((name for name in ("label", *labels) if name in labels), None)
        self.class_names = tuple(columns[self.label_column].names) if labels else None
        self.names = {name: [*columns[name].names, ""] for name in labels}  # the last one is -1: no class
        single = (datasets.Value, datasets.ClassLabel)
        self.fact_columns = [name for name, column in columns.items() if isinstance(column, single)]
        self.fingerprint = f"{features._fingerprint}-{code_fingerprint('lib.images.pictures')[:4]}"
        self.rows = features.cast_column(self.image_column, datasets.Image(decode=False))  # the bytes, or a path

    def __len__(self) -> int:
        return len(self.rows)

    def image(self, index: int) -> Image.Image:
        stored = self.rows[index][self.image_column] or {"bytes": b"", "path": None}
        if stored["bytes"] is None and not stored["path"]:
            raise ImageError(f"{self.name(index)} is not a readable picture: there is none in its row.")
        return read_picture(Path(stored["path"]) if stored["bytes"] is None else stored["bytes"], self.name(index))

    def name(self, index: int) -> str:
        return f"{self.split}/{index}"

    def labels(self, indices: np.ndarray) -> np.ndarray:
        return self._columns([self.label_column], indices)[self.label_column].fillna(-1).to_numpy(np.int64)

    def facts(self, indices: np.ndarray) -> "pd.DataFrame | None":
        if not self.fact_columns:
            return None
        table = self._columns(self.fact_columns, indices)
        for name, words in self.names.items():
            table[name] = [words[int(k)] for k in table[name].fillna(-1)]
        return table

    def _columns(self, names: list[str], indices: np.ndarray) -> "pd.DataFrame":
        return self.rows.select_columns(names).select(indices).to_pandas()

    def taxa(self, indices: np.ndarray) -> None:
        return None

    def state(self) -> str:
        return self.fingerprint


def _load(path: str, split: str) -> "Dataset":
    """The split by the real library; ValueError or FileNotFoundError in one sentence where that does not work."""
    try:
        import datasets
    except ImportError:
        raise ModuleNotFoundError(
            "Images of the kind hf: need the package datasets; run pip install datasets."
        ) from None
    local = Path(path).expanduser()
    try:
        if any((local / mark).is_file() for mark in ("dataset_dict.json", "state.json")):
            saved = datasets.load_from_disk(str(local))
            if isinstance(saved, datasets.Dataset):
                return saved
            if split not in saved:
                raise ValueError(f'Unknown split "{split}". Should be one of {list(saved)}.')
            return saved[split]
        if local.is_dir():
            return datasets.load_dataset(str(local), split=split)
        *owner_and_name, config = path.split("/") if path.count("/") == 2 else (path, None)
        return datasets.load_dataset("/".join(owner_and_name), config, split=split)
    except OSError as error:
        raise FileNotFoundError(
            f"hf:{path}:{split} is not there: {_sentence(error)} Write hf:OWNER/NAME:SPLIT or "
            "hf:OWNER/NAME/CONFIG:SPLIT of the hub, or the path of a local folder for OWNER/NAME."
        ) from error
    except Exception as error:  # of datasets, pyarrow, fsspec or json, for a split, a damaged file, an unknown format
        raise ValueError(f"hf:{path}:{split} cannot be loaded: {_sentence(error)}") from error


def _sentence(error: Exception) -> str:
    return one_sentence(error, 300).rstrip(".") + "."
