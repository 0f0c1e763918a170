"""`ImageSet`, a sequence of pictures with labels and facts, and `load_images(spec)`, which makes one of any source."""

import hashlib
import operator
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

import numpy as np
from PIL import Image

from lib.arguments import check_count, check_seed
from lib.images.folder import FolderSource
from lib.images.memory import MemorySource, PathsSource
from lib.images.source import ImageError, Source
from lib.registry import registered
from storage.files import quoted

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ImageError", "ImageSet", "Source", "as_image_set", "class_words", "load_images"]

_SLICE = re.compile(r"(?P<base>.*?)(?:\[(?P<start>-?\d*):(?P<stop>-?\d*)(?::(?P<step>-?\d+))?\])?", re.DOTALL)


class ImageSet(Sequence[Image.Image]):
    """N pictures with labels and facts where they are known; `images[i]` is a PIL image in RGB, read on access.

    spec: the canonical string that names this very set.
    """

    def __init__(self, source: Source, spec: str, indices: Iterable[int] | None = None):
        self.source, self.spec = source, spec
        self.indices = np.arange(len(source)) if indices is None else np.asarray(indices, np.int64)  # (N,) into source

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int | slice | Sequence[int]) -> "Image.Image | ImageSet":
        """Picture i; of a slice or of several positions, the set of these pictures."""
        if isinstance(i, slice):
            return self.subset(range(len(self))[i])
        if isinstance(i, Iterable) and not isinstance(i, str | bytes) and np.ndim(i):
            return self.subset(i)
        try:
            return self.source.image(self._at(operator.index(i)))
        except TypeError:
            raise TypeError(f"pictures are chosen by a number, a slice or positions, not by {quoted(i)}") from None

    def __repr__(self) -> str:
        return f"ImageSet({self.spec!r}, {len(self):,} pictures)"

    def __getstate__(self) -> dict[str, Any]:
        return {"source": self.source, "spec": self.spec, "indices": self.indices}  # tables are not sent to workers

    def _at(self, i: int) -> int:
        if not -len(self) <= i < len(self):
            raise IndexError(f"Picture {i} is not in {self.spec}, which has {len(self):,} pictures.")
        return int(self.indices[i])

    @cached_property
    def fingerprint(self) -> str:
        """The spec and, for files, a digest of their state. It is part of the hash of what is computed from them."""
        return f"{self.spec}@{state}" if (state := self.source.state()) else self.spec

    def name(self, i: int) -> str:
        """What picture i is called: a file's path below its folder, or split and number."""
        return self.source.name(self._at(i))

    def subset(self, indices: Iterable[int]) -> "ImageSet":
        """The pictures at these positions, in this order."""
        positions = np.fromiter((self._at(int(i)) for i in indices), np.int64)
        chosen = hashlib.sha256(positions.tobytes()).hexdigest()[:12]
        return ImageSet(self.source, f"{self.spec}#{chosen}", positions)

    def sample(self, n: int, seed: int = 0) -> "ImageSet":
        """min(n, N) pictures drawn by the seed, in random order, balanced over the classes while each of them lasts.

        Classes are drawn from in turn, so the first m of n are `sample(m, seed)`, and balanced too; pictures of no
        class (label -1) count as one more class. Without labels the draw is uniform. Raises ValueError for n < 1.
        """
        check_count("the size of a sample", n)
        order = np.random.default_rng(check_seed(seed)).permutation(len(self))  # (N,) positions
        if self.labels is not None:
            import pandas as pd

            turn = pd.Series(order).groupby(self.labels[order]).cumcount().to_numpy()  # pictures of its class before it
            order = order[turn.argsort(kind="stable")]
        return self.subset(order[:n])

    def readable(self) -> "ImageSet":
        """The pictures that can be read, found by reading each once; prints how many were left out, and one reason.

        Raises ValueError where none can be read.
        """
        if not self.source.state():
            return self  # drawn, not read

        def fault(i: int) -> str:  # "" where picture i can be read
            try:
                self[i]
            except ImageError as error:
                return str(error)
            return ""

        with ThreadPoolExecutor() as pool:
            faults = list(pool.map(fault, range(len(self))))
        broken = [fault for fault in faults if fault]
        if not broken:
            return self
        said = f"{len(broken):,} of {len(self):,} pictures of {self.spec} cannot be read; {broken[0]}"
        if len(broken) == len(self):
            raise ValueError(said)
        print(f"Left out: {said}")
        return self.subset(i for i, fault in enumerate(faults) if not fault)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes that `labels` counts; None where there are none."""
        return self.source.class_names

    @cached_property
    def labels(self) -> np.ndarray | None:
        """(N,) int64 positions in `class_names`, -1 for a picture of no class; None where there are no classes."""
        if self.class_names is None:
            return None
        return self.source.labels(self.indices)

    @cached_property
    def facts(self) -> "pd.DataFrame | None":
        """The ground truth, one row a picture; None where it is not known."""
        return self.source.facts(self.indices) if len(self) else None

    @cached_property
    def taxonomy(self) -> list[tuple[str, ...]] | None:
        """For each picture the taxa of what it shows, from kingdom to species; None where no picture has any."""
        return self.source.taxa(self.indices)


def load_images(spec: Any, on_error: str = "raise") -> ImageSet:
    """The pictures a spec names, such as "menagerie:val", "folder:PATH", "imagenet:val" or "hf:owner/name:train".

    Each can end in a slice: "[:1000]", or "[::50]" for every 50th picture of a set sorted by class. Whatever
    `as_image_set` takes is taken too. An unknown kind, split or slice raises ValueError; missing data raise
    FileNotFoundError, which says where to get them and how to lay them out.
    on_error: "raise" when a picture that cannot be read is accessed, or "skip" such pictures now, by reading all once.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error is 'raise' or 'skip', not {on_error!r}")
    images = as_image_set(spec)
    return images.readable() if on_error == "skip" else images


@dataclass(frozen=True)
class ImageSpec:
    """A parsed spec of images: `base`, the spec `kind:rest` without its slice, and the slice `cut`, None for all."""

    base: str
    cut: slice | None

    @classmethod
    def parse(cls, spec: str) -> "ImageSpec":
        """Split a spec; brackets are no slice where a folder of that name exists. Raises ValueError for a step < 1."""
        match = _SLICE.fullmatch(spec)
        base, start = match["base"], match["start"]
        ambiguous = start is not None and base.partition(":")[0] in ("folder", "hf")
        if start is None or (ambiguous and os.path.isdir(os.path.expanduser(spec.partition(":")[2]))):
            return cls(spec, None)
        if match["step"] and int(match["step"]) < 1:
            raise ValueError(f"the slice of {quoted(spec)} must have a step of 1 or more")
        return cls(base, slice(*(int(match[end]) if match[end] else None for end in ("start", "stop", "step"))))

    def canonical(self, n: int) -> tuple[str, range]:
        """The canonical spec for a base of n pictures, and the positions in the base that the slice selects."""
        name = self.base.encode("utf-8", "backslashreplace").decode()  # what is no UTF-8 cannot be written to a file
        whole = name if _SLICE.fullmatch(name)["start"] is None else f"{name}[:]"
        chosen = range(n)[self.cut or slice(None)]
        step = f":{chosen.step}" if chosen.step > 1 else ""
        return (whole if len(chosen) == n else f"{name}[{chosen.start}:{chosen.stop}{step}]"), chosen


def _kinds() -> list[str]:
    """Kinds of specs, the words before the colon: `folder`, and those that other packages register."""
    return ["folder", *registered("images")]


def _source_class(kind: str) -> type[Source]:
    """The class that is made with what follows the colon of a spec, if anything; `FORM` shows how to write the spec."""
    return FolderSource if kind == "folder" else registered("images")[kind].load()


def _from_spec(text: str) -> ImageSet:
    """The image set of a spec; see `load_images` for the errors."""
    spec = ImageSpec.parse(text)
    kind, _, rest = spec.base.partition(":")
    make = _source_class(kind) if kind in _kinds() else None
    if make is None or bool(rest) != (":" in make.FORM):
        forms = ", ".join(_source_class(known).FORM for known in _kinds())
        raise ValueError(f"Unknown images {quoted(text)}; write one of {forms}.")
    source = make(rest) if rest else make()
    canonical, chosen = spec.canonical(len(source))
    if spec.cut is not None and not chosen:
        raise ValueError(
            f"The slice of {quoted(text)} selects no picture; {canonical.rpartition('[')[0]} has {len(source):,}."
        )
    return ImageSet(source, canonical, None if len(chosen) == len(source) else chosen)


def as_image_set(images: Any) -> ImageSet:
    """An image set of pictures in any form; every function that takes pictures calls it.

    images: an `ImageSet`, or one with `spec` and `fingerprint`, is returned as it is. A spec of `load_images`; the
    path of a folder or of a file; a PIL picture; an array (N, H, W, 3) or a tensor (N, 3, H, W), uint8; any
    iterable of paths, PIL pictures or such pixels; a map-style data set of torch whose items are, or begin with, one of
    them. Pictures in memory are identified by their content, so each is read once. Raises ValueError for others.
    """
    if hasattr(images, "spec") and hasattr(images, "fingerprint"):
        return images
    if isinstance(images, str) and (images.partition(":")[0] in _kinds() or not os.path.exists(_expanded(images))):
        return _from_spec(images)
    if isinstance(images, str | os.PathLike):
        path = _expanded(images)
        if os.path.isdir(path):
            return _from_spec(f"folder:{path}")
        images = [path]
    if isinstance(images, Image.Image):
        images = [images]
    if hasattr(images, "iloc"):  # a column of a table, whose numbers are not its positions
        images = images.tolist()
    if isinstance(images, dict) or not (hasattr(images, "__iter__") or hasattr(images, "__getitem__")):
        raise ValueError(
            f"{quoted(images)} is no set of pictures: give load_images(...), a list of pictures or paths, a map-style "
            "data set or an array (N, H, W, 3) of uint8"
        )
    if not (hasattr(images, "__getitem__") and hasattr(images, "__len__")):
        images = list(images)
    paths = isinstance(images, list | tuple) and images and all(isinstance(i, str | os.PathLike) for i in images)
    source = PathsSource(images) if paths else MemorySource(images)
    return ImageSet(source, source.title)


def _expanded(path: str | os.PathLike) -> str:
    return os.path.expanduser(os.fspath(path))


def class_words(names: Iterable[str]) -> list[str]:
    """Class names for prompts: the part before the first comma, since folders may list all names of a class.

    Raises ValueError where that is empty, or equal for two classes, which zero-shot prompts could not tell apart.
    """
    names, seen = list(names), {}
    words = [name.split(",")[0].strip() for name in names]
    for i, word in enumerate(words):
        first = seen.setdefault(" ".join(normalize("NFC", word).lower().replace("_", " ").split()), i)
        if not word:
            raise ValueError(f"class {quoted(names[i])} has no name before its first comma: rename it")
        if first != i:
            raise ValueError(
                f"classes {quoted(names[first])} and {quoted(names[i])} are both {quoted(word)} in a text, which takes "
                "what is before the first comma: rename one of them"
            )
    return words
