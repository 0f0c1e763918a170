"""Image sources for pictures in memory (PIL, arrays, a map-style data set of torch) and for paths of files."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from lib.devices import to_cpu
from lib.images.image_files import FileList, FileSource
from lib.images.one_picture import as_picture
from lib.images.pictures import upright_rgb
from lib.images.source import ImageError
from storage.files import one_sentence


class PathsSource(FileSource):
    """Picture files given by their paths, in any folders, without labels or facts."""

    counts_times = True

    def __init__(self, paths: Iterable[str | os.PathLike]):
        places = (os.path.abspath(os.path.expanduser(os.fspath(path))) for path in paths)
        super().__init__(Path(), FileList(os.path.split(place) for place in places))
        self.title = f"paths:{self.files.digest().hex()[:12]}"


class MemorySource:
    """N pictures of any sequence; an item is what `as_picture` takes, or a tuple or dictionary that holds it first.

    They are identified by their content, so each is read once. `classes` and `targets`, as data sets of torchvision
    have them, are taken as class names and labels.
    """

    def __init__(self, pictures: Sequence[Any]):
        self.pictures = to_cpu(pictures) if isinstance(pictures, Tensor) else pictures
        if isinstance(pictures, Tensor) or (isinstance(pictures, np.ndarray) and pictures.dtype.kind not in "OU"):
            if pictures.ndim != 4:
                raise ValueError(f"an array of pictures has the shape (N, H, W, 3), not {tuple(pictures.shape)}")
            _ = [as_picture(picture) for picture in self.pictures[:1]]
        names, targets = getattr(pictures, "classes", None), getattr(pictures, "targets", None)
        labelled = names is not None and targets is not None and len(targets) == len(pictures)
        self.class_names = tuple(map(str, names)) if labelled else None
        self.targets = np.asarray(targets, np.int64) if labelled else None  # (N,)
        digest = hashlib.sha256(repr(self.class_names).encode("utf-8", "surrogatepass"))
        digest.update(b"" if self.targets is None else self.targets.tobytes())
        for i in range(len(self)):
            digest.update(self._content(i))
        self.title = f"memory:{digest.hexdigest()[:12]}"

    def _content(self, index: int) -> bytes:
        try:
            image = self.image(index)
        except ImageError as error:
            return str(error).encode("utf-8", "surrogatepass")
        return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).digest()

    def __len__(self) -> int:
        return len(self.pictures)

    def image(self, index: int) -> Image.Image:
        """The picture, RGB. Raises ImageError where the item cannot be read or is no picture."""
        try:
            item = self.pictures[index]
        except (OSError, ValueError) as error:  # of a data set that reads files
            raise ImageError(f"{self.name(index)} is not a readable picture: {one_sentence(error)}") from error
        if isinstance(item, dict):
            item = next((value for value in item.values() if isinstance(value, Image.Image)), item)
        if isinstance(item, tuple | list) and item:
            item = item[0]
        if isinstance(item, str | os.PathLike):
            return as_picture(item)
        try:
            return upright_rgb(as_picture(item))
        except (OSError, ValueError) as error:
            raise ImageError(f"{self.name(index)} is not a readable picture: {one_sentence(error)}") from error

    def name(self, index: int) -> str:
        return f"picture {index}"

    def labels(self, indices: np.ndarray) -> np.ndarray:
        return self.targets[indices]

    def facts(self, indices: np.ndarray) -> None:
        return None

    def taxa(self, indices: np.ndarray) -> None:
        return None

    def state(self) -> str:
        return self.title.partition(":")[2]
