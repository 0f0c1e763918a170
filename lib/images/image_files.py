"""Picture files below a folder: listed once, kept compactly, fingerprinted by a little of their content."""

import hashlib
import os
import struct
import warnings
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from lib.artifacts import code_fingerprint
from lib.files import inside, naming, quoted
from lib.images.pictures import picture_suffixes, read_picture

if TYPE_CHECKING:
    import pandas as pd

SAMPLE = 10_000  # files of a large set of which the content goes into its fingerprint
BLOCK = 1 << 14  # bytes of the content at each of three places
READERS = 16  # files that are asked at a time


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
    def of_paths(cls, paths: Iterable[str], table: Path) -> "FileList":
        """Of relative paths with slashes, as a data set's table has them. ValueError for one that leaves the folder."""
        return cls(str(path).rpartition("/")[::2] for path in paths if inside(table, path))

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


def readable(name: str) -> str:
    """A file's name as text: bytes that are no UTF-8 are taken for Latin-1, as older archives write names."""
    raw = os.fsencode(name)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def pictures_below(root: Path, left_out: Counter[str] | None = None) -> Iterator[tuple[str, str]]:
    """(folder, name) of all picture files below a folder, sorted by the parts of their paths; hidden ones left out.

    Links to folders are followed, except back to a folder that holds them. No file is opened or asked for its size.
    left_out: is given the counts of all other files, by their suffix or by what they are.
    """
    suffixes, left_out = picture_suffixes(), Counter() if left_out is None else left_out
    trail = [_folder(root, "")]  # the folders that hold the present one, each with what is left of it
    while trail:
        folder, entries, _ = trail[-1]
        if (entry := next(entries, None)) is None:
            trail.pop()
            continue
        suffix = os.path.splitext(entry.name)[1].lower()
        try:
            if entry.is_dir():
                inner = _folder(root, f"{folder}/{entry.name}" if folder else entry.name)
                if not entry.is_symlink() or all(inner.identity != outer.identity for outer in trail):
                    trail.append(inner)
            elif not entry.is_file():
                left_out["no ordinary file"] += 1
            elif suffix in suffixes:
                yield folder, entry.name
            else:
                left_out[readable(suffix) or "no suffix"] += 1
        except OSError:
            left_out["cannot be opened"] += 1


class _Folder(NamedTuple):
    path: str  # below the root
    entries: Iterator[os.DirEntry]
    identity: tuple[int, int]


def _folder(root: Path, path: str) -> _Folder:
    here = root / path
    with os.scandir(here) as entries:
        found = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    about = here.stat()
    return _Folder(path, iter(found), (about.st_dev, about.st_ino))


def counted(left_out: Counter[str]) -> str:
    """Counts in words: "3 files (2 .heic, 1 no suffix)"."""
    most = left_out.most_common(8)
    parts = [f"{count:,} {quoted(what)[1:-1]}" for what, count in most]
    if rest := left_out.total() - sum(count for _, count in most):
        parts.append(f"{rest:,} others")
    return f"{left_out.total():,} file{'s' * (left_out.total() != 1)} ({', '.join(parts)})"


def tell(root: Path, left_out: Counter[str]) -> None:
    """Warn of files below a folder that are left out, if any are."""
    if left_out:
        folder = readable(os.fspath(root))
        warnings.warn(f"Left out of {folder}: {counted(left_out)}, not read as pictures.", stacklevel=3)


class FileSource:
    """Pictures that are files below `root`; what is known about them is added by the families of data sets.

    classes: (N,) positions in `class_names`, -1 for none. tables: files whose content also counts for the fingerprint.
    """

    counts_times = False  # else two copies of one data set have the same fingerprint, wherever they were unpacked

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
        return read_picture(file, readable(os.fspath(file)))

    def name(self, index: int) -> str:
        return readable(self.files[index])

    def labels(self, indices: np.ndarray) -> np.ndarray:
        return self.classes[indices].astype(np.int64)

    def facts(self, indices: np.ndarray) -> "pd.DataFrame | None":
        return None

    def paths(self, indices: np.ndarray) -> list[tuple[str, ...]] | None:
        return None

    def state(self) -> str:
        """12 hex digits of all names, what `_content` sees of the files, the tables, and the code that reads pictures.

        Above SAMPLE files the content of SAMPLE of them, evenly spaced, stands for all: a million would take minutes on
        a network drive. A source with `counts_times` counts the times of every file as well.
        """
        if self._state is None:
            digest = hashlib.sha256(self.files.digest() + code_fingerprint("lib.images.pictures").encode())
            for table in self.tables:
                digest.update(table.read_bytes())
            sample = np.linspace(0, len(self.files) - 1, min(len(self.files), SAMPLE)).round().astype(int)
            self._digest_into(digest, _content, np.unique(sample))
            if self.counts_times:
                self._digest_into(digest, _times, np.arange(len(self.files)))
            self._state = digest.hexdigest()[:12]
        return self._state

    def _digest_into(self, digest: Any, ask: Callable[[str], bytes], indices: np.ndarray) -> None:
        """Ask files in turn, several at a time: a drive, above all one of the network, answers them side by side."""
        root = os.fspath(self.root)

        def ask_all(part: np.ndarray) -> bytes:
            return b"".join(ask(os.path.join(root, self.files[int(i)])) for i in part)

        with ThreadPoolExecutor(READERS) as readers:
            for answer in readers.map(ask_all, np.array_split(indices, -(-len(indices) // 256))):
                digest.update(answer)


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a named pipe would be waited for


def _content(path: str) -> bytes:
    """32 bytes of a file's length and its first, middle and last BLOCK of bytes; all of it where these are all."""
    try:
        with open(path, "rb", buffering=0, opener=_at_once) as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.sha256(str(size).encode())
            for place in (0, (size - BLOCK) // 2, size - BLOCK) if size > 3 * BLOCK else (0,):
                file.seek(place)
                digest.update(file.read(BLOCK if size > 3 * BLOCK else size))
            return digest.digest()
    except OSError:
        return bytes(32)


def _times(path: str) -> bytes:
    """When a file was last written, and when it was last changed in any way, which no program can set back."""
    try:
        about = os.stat(path)
    except OSError:
        return bytes(16)
    return struct.pack("<qq", about.st_mtime_ns, about.st_ctime_ns)


class ClassFolders(FileSource):
    """Picture files in one folder per class, at any depth below it; without such folders there are no classes.

    tables: names of files in the folder that say something of the pictures, of which the first that is there counts.
    Warns of files that are left out.
    """

    def __init__(self, root: Path, tables: Sequence[str] = ()):
        left_out: Counter[str] = Counter()
        with naming(readable(os.fspath(root))):
            files = FileList(pictures_below(root, left_out))
        present = [root / name for name in tables if (root / name).is_file()]
        left_out -= Counter(table.suffix for table in present)
        if not len(files):
            beside = f" but {counted(left_out)}" if left_out else ""
            folder = readable(os.fspath(root))
            raise ValueError(
                f"There are no pictures in {folder}{beside}; files end in such as .jpg, .png, .tif or .webp."
            )
        tell(root, left_out)
        tops = [folder.partition("/")[0] for folder in files.folders]
        names = sorted({top for top in tops if top})
        number = {name: k for k, name in enumerate(names)} | {"": -1}
        classes = np.array([number[top] for top in tops], np.int32)[files.folder_of]
        super().__init__(root, files, classes, [readable(name) for name in names] or None, present[:1])
