"""Images in, from anywhere: `load_images(spec)` gives an `ImageSet`, whatever the pictures come from."""

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
from lib.files import quoted
from lib.images import sources
from lib.images.memory import MemorySource, PathsSource
from lib.images.source import ImageError, Source

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ImageError", "ImageSet", "Source", "as_image_set", "class_words", "load_images"]

_SLICE = re.compile(r"(?P<base>.*?)(?:\[(?P<start>-?\d*):(?P<stop>-?\d*)(?::(?P<step>[1-9]\d*))?\])?", re.DOTALL)


class ImageSet(Sequence[Image.Image]):
    """N pictures with what is known about them; `images[i]` is a PIL image in RGB, read when asked for.

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
        """The spec and, for files, what they are at present: goes into the hash of whatever is computed from them."""
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
        """min(n, N) pictures drawn by the seed, in random order, with as equal a share of each class as there are.

        The classes are dealt from in turn, so the first m of n are `sample(m, seed)` and as balanced; pictures of no
        class (label -1) count as one more. Without labels every picture is as likely. Raises ValueError for n < 1.
        """
        check_count("the size of a sample", n)
        order = np.random.default_rng(check_seed(seed)).permutation(len(self))  # (N,) positions
        if self.labels is not None:
            import pandas as pd

            turn = pd.Series(order).groupby(self.labels[order]).cumcount().to_numpy()  # of its class come before it
            order = order[turn.argsort(kind="stable")]
        return self.subset(order[:n])

    def readable(self) -> "ImageSet":
        """The pictures that can be read, found by reading each once; says how many were left out, and why the first.

        Raises ValueError where none can be read.
        """
        if not self.source.state():
            return self  # drawn, not read
        with ThreadPoolExecutor() as pool:
            faults = list(pool.map(self._fault, range(len(self))))
        broken = [fault for fault in faults if fault]
        if not broken:
            return self
        said = f"{len(broken):,} of {len(self):,} pictures of {self.spec} cannot be read; {broken[0]}"
        if len(broken) == len(self):
            raise ValueError(said)
        print(f"Left out: {said}")
        return self.subset(i for i, fault in enumerate(faults) if not fault)

    def _fault(self, i: int) -> str:
        """Why picture i cannot be read; "" where it can."""
        try:
            self[i]
        except ImageError as error:
            return str(error)
        return ""

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
        return self.source.paths(self.indices)


def load_images(spec: Any, on_error: str = "raise") -> ImageSet:
    """The pictures a spec names, such as "menagerie:val", "folder:PATH", "imagenet:val" or "hf:owner/name:train".

    Each can end in a slice: "[:1000]", or "[::50]" for every 50th picture of a set sorted by class. Whatever
    `as_image_set` takes is taken too. An unknown kind, split or slice raises ValueError; missing data raise
    FileNotFoundError: where to get them, how to lay them out.
    on_error: what a picture that cannot be read does; "raise" stops whoever asks for it, "skip" leaves it out here.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error is 'raise' or 'skip', not {on_error!r}")
    images = as_image_set(spec)
    return images.readable() if on_error == "skip" else images


@dataclass(frozen=True)
class Named:
    """What a spec names: the set without its slice, `kind:rest`, and what the slice takes of it, None for all."""

    base: str
    cut: slice | None

    @classmethod
    def read(cls, spec: str) -> "Named":
        """A folder may be called such as "set[1:2]": then that is no slice."""
        match = _SLICE.fullmatch(spec)
        base, start = match["base"], match["start"]
        ambiguous = start is not None and base.partition(":")[0] in ("folder", "hf")
        if start is None or (ambiguous and os.path.isdir(os.path.expanduser(spec.partition(":")[2]))):
            return cls(spec, None)
        return cls(base, slice(*(int(match[end]) if match[end] else None for end in ("start", "stop", "step"))))

    def written(self, n: int) -> tuple[str, range]:
        """The spec as image sets write it, where the set without a slice has n pictures; and which of them it takes."""
        name = self.base.encode("utf-8", "backslashreplace").decode()  # what is no UTF-8 cannot be written to a file
        whole = name if _SLICE.fullmatch(name)["start"] is None else f"{name}[:]"
        chosen = range(n)[self.cut or slice(None)]
        step = f":{chosen.step}" if chosen.step > 1 else ""
        return (whole if len(chosen) == n else f"{name}[{chosen.start}:{chosen.stop}{step}]"), chosen


def _named_by(spec: str) -> ImageSet:
    named = Named.read(spec)
    kind, _, rest = named.base.partition(":")
    make = sources.kind(kind) if kind in sources.kinds() else None
    if make is None or bool(rest) != (":" in make.FORM):
        forms = ", ".join(sources.kind(known).FORM for known in sources.kinds())
        raise ValueError(f"Unknown images {quoted(spec)}; write one of {forms}.")
    source = make(rest) if rest else make()
    written, chosen = named.written(len(source))
    if named.cut is not None and not chosen:
        raise ValueError(
            f"The slice of {quoted(spec)} holds no picture; {written.rpartition('[')[0]} has {len(source):,}."
        )
    return ImageSet(source, written, None if len(chosen) == len(source) else chosen)


def as_image_set(images: Any) -> ImageSet:
    """Pictures in whatever form they are at hand, as an image set; the door of all functions that take pictures.

    images: an `ImageSet`, or what else has its `spec` and `fingerprint`, is returned as it is. A spec of `load_images`;
    the path of a folder or of a file; a PIL picture; an array (N, H, W, 3) or a tensor (N, 3, H, W), uint8; any
    iterable of paths, PIL pictures or such pixels; a map-style data set of torch whose items are, or begin with, one of
    them. Pictures in memory are known by their content, for which each is read once. Raises ValueError for others.
    """
    if hasattr(images, "spec") and hasattr(images, "fingerprint"):
        return images
    if isinstance(images, str) and (images.partition(":")[0] in sources.kinds() or not os.path.exists(_home(images))):
        return _named_by(images)
    if isinstance(images, str | os.PathLike):
        path = _home(images)
        if os.path.isdir(path):
            return _named_by(f"folder:{path}")
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


def _home(path: str | os.PathLike) -> str:
    return os.path.expanduser(os.fspath(path))


def class_words(names: Iterable[str]) -> list[str]:
    """Class names as they stand in a text: what is before the first comma, for folders list all names of a class.

    Raises ValueError where that leaves nothing, or the same for two classes: a zero-shot answer would be a guess.
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
