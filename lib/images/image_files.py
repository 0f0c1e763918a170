"""Picture files below a folder: listed once, kept compactly, fingerprinted by parts of their content."""

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

from lib.images.pictures import picture_suffixes, read_picture
from storage import code_fingerprint
from storage.files import inside, naming, quoted

if TYPE_CHECKING:
    import pandas as pd

SAMPLE = 10_000  # files whose content goes into the fingerprint of a large set
BLOCK = 1 << 14  # bytes read at each of three places of a file
READERS = 16  # threads that read files


class FileList(Sequence[str]):
    """Relative paths of files, in order, as a few flat buffers.

    A million names take some 30 MB, are pickled in one copy, and stay shared between forked worker processes. A list of
    strings would not, because Python writes reference counts into every string that it reads.
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
        """The list of a table's relative paths, with slashes. Raises ValueError for a path outside the folder."""
        return cls(str(path).rpartition("/")[::2] for path in paths if inside(table, path))

    def __len__(self) -> int:
        return len(self.folder_of)

    def __getitem__(self, i: int) -> str:
        name = os.fsdecode(self._text[self._ends[i] : self._ends[i + 1]])
        folder = self.folders[self.folder_of[i]]
        return f"{folder}/{name}" if folder else name

    def digest(self) -> bytes:
        """SHA-256 of all names in their order."""
        ends, folder_of = self._ends.tobytes(), self.folder_of.tobytes()
        return hashlib.sha256(
            "\n".join(self.folders).encode("utf-8", "surrogateescape") + folder_of + ends + self._text
        ).digest()


def readable(name: str) -> str:
    """A file's name as text: UTF-8, else Latin-1, in which older archives write names."""
    raw = os.fsencode(name)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def pictures_below(root: Path, left_out: Counter[str] | None = None) -> Iterator[tuple[str, str]]:
    """(folder, name) of all picture files below a folder, sorted by the parts of their paths; hidden ones left out.

    Links to folders are followed, except back to a folder that holds them. No file is opened.
    left_out: counter to which all other files are added, by their suffix or their type.
    """
    suffixes, left_out = picture_suffixes(), Counter() if left_out is None else left_out
    trail = [_folder(root, "")]  # from the root to the current folder, each with its entries not yet visited
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
    identity: tuple[int, int]  # device and inode


def _folder(root: Path, path: str) -> _Folder:
    here = root / path
    with os.scandir(here) as entries:
        found = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    about = here.stat()
    return _Folder(path, iter(found), (about.st_dev, about.st_ino))


def counted(left_out: Counter[str]) -> str:
    """Counts as text: "3 files (2 .heic, 1 no suffix)"."""
    most = left_out.most_common(8)
    parts = [f"{count:,} {quoted(what)[1:-1]}" for what, count in most]
    if rest := left_out.total() - sum(count for _, count in most):
        parts.append(f"{rest:,} others")
    return f"{left_out.total():,} file{'s' * (left_out.total() != 1)} ({', '.join(parts)})"


def warn_of_left_out(root: Path, left_out: Counter[str]) -> None:
    """Warn of the files below a folder that are not read as pictures, if there are any."""
    if left_out:
        folder = readable(os.fspath(root))
        warnings.warn(f"Left out of {folder}: {counted(left_out)}, not read as pictures.", stacklevel=3)


class FileSource:
    """Source of picture files below `root`; data sets add facts about them in subclasses.

    classes: (N,) positions in `class_names`, -1 for none. tables: files whose content also counts for the fingerprint.
    """

    counts_times = False  # True: file times count too, so two copies of one data set have different fingerprints

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

    def taxa(self, indices: np.ndarray) -> list[tuple[str, ...]] | None:
        return None

    def state(self) -> str:
        """12 hex digits of all names, parts of the files (`_content`), the tables, and the code that reads pictures.

        Above SAMPLE files only SAMPLE of them, evenly spaced, are read: a million would take minutes on a network
        drive. With `counts_times` the times of every file count too.
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

    def _digest_into(self, digest: Any, describe: Callable[[str], bytes], indices: np.ndarray) -> None:
        """Update the digest with `describe(path)` of each file, in order; threads hide the latency of the drive."""
        root = os.fspath(self.root)

        def describe_all(part: np.ndarray) -> bytes:
            return b"".join(describe(os.path.join(root, self.files[int(i)])) for i in part)

        with ThreadPoolExecutor(READERS) as readers:
            for described in readers.map(describe_all, np.array_split(indices, -(-len(indices) // 256))):
                digest.update(described)


def _content(path: str) -> bytes:
    """SHA-256 of a file's length and its first, middle and last BLOCK of bytes, or of all bytes of a short file."""
    try:
        nonblocking = getattr(os, "O_NONBLOCK", 0)  # opening a named pipe would block
        with open(path, "rb", buffering=0, opener=lambda name, flags: os.open(name, flags | nonblocking)) as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.sha256(str(size).encode())
            for place in (0, (size - BLOCK) // 2, size - BLOCK) if size > 3 * BLOCK else (0,):
                file.seek(place)
                digest.update(file.read(BLOCK if size > 3 * BLOCK else size))
            return digest.digest()
    except OSError:
        return bytes(32)


def _times(path: str) -> bytes:
    """A file's mtime and ctime; the ctime changes with every change, and no program can set it back."""
    try:
        about = os.stat(path)
    except OSError:
        return bytes(16)
    return struct.pack("<qq", about.st_mtime_ns, about.st_ctime_ns)


class ClassFolders(FileSource):
    """Picture files in one folder per class, at any depth below it; without such folders there are no classes.

    tables: names of files in the folder with facts about the pictures; the first that exists is used. Warns of files
    that are left out. Raises ValueError where there are no pictures.
    """

    def __init__(self, root: Path, tables: Sequence[str] = ()):
        left_out: Counter[str] = Counter()
        with naming(readable(os.fspath(root))):
            files = FileList(pictures_below(root, left_out))
        present = [root / name for name in tables if (root / name).is_file()]
        left_out -= Counter(table.suffix for table in present[:1])
        if not len(files):
            beside = f" but {counted(left_out)}" if left_out else ""
            folder = readable(os.fspath(root))
            raise ValueError(
                f"There are no pictures in {folder}{beside}; picture files end in .jpg, .png, .tif, .webp or the like."
            )
        warn_of_left_out(root, left_out)
        tops = [folder.partition("/")[0] for folder in files.folders]
        names = sorted({top for top in tops if top})
        number = {name: k for k, name in enumerate(names)} | {"": -1}
        classes = np.array([number[top] for top in tops], np.int32)[files.folder_of]
        super().__init__(root, files, classes, [readable(name) for name in names] or None, present[:1])
