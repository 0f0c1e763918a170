"""Picture files below a folder: listed once, kept compactly, fingerprinted without reading them."""

import hashlib
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from lib.artifacts import code_fingerprint
from lib.image_sources.pictures import read_picture

if TYPE_CHECKING:
    import pandas as pd

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
SAMPLE = 10_000  # files of a large set whose sizes go into its fingerprint


class FileList(Sequence[str]):
    """Relative paths of files, in order, as a few flat buffers.

    A million names take some 30 MB, are pickled in one copy, and stay shared between forked worker processes (a list of
    strings would not: Python writes reference counts into every one that it touches).
    """

    def __init__(self, names: Iterable[tuple[str, str]]):
        """names: pairs of a folder, "" or "some/folder", and a file's name in it."""
        text, ends, folder_of = bytearray(), array("q", [0]), array("i")
        numbers: dict[str, int] = {}
        for folder, name in names:
            text += os.fsencode(name)
            ends.append(len(text))
            folder_of.append(numbers.setdefault(folder, len(numbers)))
        self.folders = list(numbers)
        self.folder_of = np.frombuffer(folder_of, np.int32)  # (N,) into folders
        self._text, self._ends = bytes(text), np.frombuffer(ends, np.int64)  # file i is text[ends[i] : ends[i + 1]]

    @classmethod
    def of_paths(cls, paths: Iterable[str]) -> "FileList":
        """Of relative paths with slashes."""
        return cls(path.rpartition("/")[::2] for path in paths)

    def __len__(self) -> int:
        return len(self.folder_of)

    def __getitem__(self, i: int) -> str:
        name = os.fsdecode(self._text[self._ends[i] : self._ends[i + 1]])
        folder = self.folders[self.folder_of[i]]
        return f"{folder}/{name}" if folder else name

    def digest(self) -> bytes:
        """Changes with any name and with their order."""
        ends, folder_of = self._ends.tobytes(), self.folder_of.tobytes()
        return hashlib.sha256(
            "\n".join(self.folders).encode("utf-8", "surrogateescape") + folder_of + ends + self._text
        ).digest()


def pictures_below(root: Path, folder: str = "") -> Iterator[tuple[str, str]]:
    """(folder, name) of all picture files below a folder, sorted by the parts of their paths; hidden ones left out.

    Links to folders are followed, except back to a folder that holds them. No file is opened or asked for its size.
    """
    here = root / folder
    with os.scandir(here) as entries:
        found = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in found:
        if entry.is_dir():
            if not (entry.is_symlink() and here.resolve().is_relative_to(Path(entry.path).resolve())):
                yield from pictures_below(root, f"{folder}/{entry.name}" if folder else entry.name)
        elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
            yield folder, entry.name


class FileSource:
    """Pictures that are files below `root`; what is known about them is added by the families of data sets.

    classes: (N,) positions in `class_names`, -1 for none. tables: files whose content also counts for the fingerprint.
    """

    counts_mtime = False  # else two copies of one data set have the same fingerprint, wherever they were unpacked

    def __init__(
        self,
        root: Path,
        files: FileList,
        classes: np.ndarray | None = None,
        class_names: Sequence[str] | None = None,
        tables: Sequence[Path] = (),
    ):
        self.root, self.files, self.tables = root, files, tuple(tables)
        self.class_names = None if class_names is None else tuple(class_names)
        self.classes = np.full(len(files), -1, np.int32) if classes is None else np.asarray(classes, np.int32)
        self._state: str | None = None

    def __len__(self) -> int:
        return len(self.files)

    def image(self, index: int) -> Image.Image:
        file = self.root / self.files[index]
        return read_picture(file, str(file))

    def name(self, index: int) -> str:
        return os.fsencode(self.files[index]).decode("utf-8", "replace")

    def labels(self, indices: np.ndarray) -> np.ndarray:
        return self.classes[indices].astype(np.int64)

    def facts(self, indices: np.ndarray) -> "pd.DataFrame | None":
        return None

    def paths(self, indices: np.ndarray) -> list[tuple[str, ...]] | None:
        return None

    def state(self) -> str:
        """12 hex digits of all names, the sizes of the files, the tables' content, and the code that reads pictures.

        Above SAMPLE files the sizes of SAMPLE of them, evenly spaced, stand for all: a million would take minutes on a
        network drive. A source with `counts_mtime` counts when files were last written as well.
        """
        if self._state is None:
            digest = hashlib.sha256(self.files.digest() + code_fingerprint("image_sources.pictures").encode())
            for table in self.tables:
                digest.update(table.read_bytes())
            for i in np.unique(np.linspace(0, len(self.files) - 1, min(len(self.files), SAMPLE)).round().astype(int)):
                digest.update(self._about(self.root / self.files[i]))
            self._state = digest.hexdigest()[:12]
        return self._state

    def _about(self, file: Path) -> bytes:
        try:
            about = file.stat()
        except FileNotFoundError:
            return b"gone\n"
        return f"{about.st_size} {about.st_mtime_ns if self.counts_mtime else ''}\n".encode()


class ClassFolders(FileSource):
    """Picture files in one folder per class, at any depth below it; without such folders there are no classes."""

    def __init__(self, root: Path, tables: Sequence[Path] = ()):
        files = FileList(pictures_below(root))
        if not len(files):
            raise ValueError(f"There are no pictures in {root}; files end in {', '.join(sorted(IMAGE_SUFFIXES))}.")
        tops = [folder.partition("/")[0] for folder in files.folders]
        names = sorted({top for top in tops if top})
        number = {name: k for k, name in enumerate(names)} | {"": -1}
        classes = np.array([number[top] for top in tops], np.int32)[files.folder_of]
        super().__init__(root, files, classes, names or None, tables)
