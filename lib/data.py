"""Images in, from anywhere: `load_images(spec)` gives an `ImageSet`, whatever the pictures come from."""

import hashlib
import re
import struct
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image, ImageOps

if TYPE_CHECKING:
    import pandas as pd

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
_SLICE = re.compile(r"^(?P<base>.*?)(?:\[(?P<start>-?\d*):(?P<stop>-?\d*)\])?$")


# What Pillow raises for damaged files, by format.
_UNREADABLE = (OSError, EOFError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)


class ImageError(ValueError):
    """A picture that cannot be read; the message names it."""


class Source(Protocol):
    """Where pictures come from, by position; picklable, so that worker processes can read from it."""

    class_names: tuple[str, ...] | None

    def __len__(self) -> int: ...

    def image(self, index: int) -> Image.Image:
        """The picture, RGB; ImageError if it cannot be read."""

    def name(self, index: int) -> str:
        """What the picture is called in messages and tables."""

    def label(self, index: int) -> int:
        """Its class, -1 where it has none."""

    def facts(self, index: int) -> dict[str, Any] | None:
        """All that is known about it, None where nothing is."""

    def path(self, index: int) -> tuple[str, ...]:
        """Its taxa from kingdom to species, () where it shows none."""

    def state(self) -> str:
        """Changes when the pictures do; "" where they cannot change under the same name."""


class ImageSet(Sequence[Image.Image]):
    """N pictures with what is known about them; `images[i]` is a PIL image in RGB, read when asked for.

    spec: the canonical string that names this very set.
    """

    def __init__(self, source: Source, spec: str, indices: Iterable[int] | None = None):
        self.source, self.spec = source, spec
        self.indices = np.arange(len(source)) if indices is None else np.asarray(indices, np.int64)  # (N,) into source

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> Image.Image:
        return self.source.image(self._at(i))

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

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes that `labels` counts; None where there are none."""
        return self.source.class_names

    @cached_property
    def labels(self) -> np.ndarray | None:
        """(N,) int64 positions in `class_names`, -1 for a picture of no class; None where there are no classes."""
        if self.class_names is None:
            return None
        return np.fromiter((self.source.label(int(k)) for k in self.indices), np.int64, len(self))

    @cached_property
    def facts(self) -> "pd.DataFrame | None":
        """The ground truth, one row a picture; None where it is not known."""
        import pandas as pd

        rows = [self.source.facts(int(k)) for k in self.indices]
        return None if not rows or rows[0] is None else pd.DataFrame(rows)

    @cached_property
    def taxonomy(self) -> list[tuple[str, ...]] | None:
        """For each picture the taxa of what it shows, from kingdom to species; None where no picture has any."""
        paths = [self.source.path(int(k)) for k in self.indices]
        return paths if any(paths) else None


def load_images(spec: str) -> ImageSet:
    """The pictures a spec names: "menagerie:SPLIT" or "folder:PATH", each with an optional slice such as "[:1000]".

    An unknown kind, split or slice raises ValueError, a folder that is not there FileNotFoundError.
    """
    match = _SLICE.match(spec)
    base = match["base"]
    kind, _, rest = base.partition(":")
    makers = {"menagerie": _MenagerieSource, "folder": _FolderSource}
    if kind not in makers or not rest:
        raise ValueError(
            f"Unknown images {spec!r}; write menagerie:SPLIT or folder:PATH, such as menagerie:val[:1000]."
        )
    source = makers[kind](rest)
    images = ImageSet(source, base)
    if match["start"] is None:
        return images
    start, stop, _ = slice(*(int(end) if end else None for end in (match["start"], match["stop"]))).indices(len(source))
    if start >= stop:
        raise ValueError(f"The slice of {spec!r} holds no picture; {base} has {len(source):,}.")
    if (start, stop) == (0, len(source)):
        return images
    return ImageSet(source, f"{base}[{start}:{stop}]", range(start, stop))


class _MenagerieSource:
    """A split of the Menagerie, labelled by what the split is about."""

    def __init__(self, split: str):
        from lib.menagerie import SPECIES, STICKER_WORDS, Menagerie
        from lib.menagerie.people import HAIRS

        self.world = Menagerie(split)
        self.fact, self.class_names = {
            "people": ("person_hair", HAIRS),
            "waterbirds": ("water_bird", ("land bird", "water bird")),
            "signs": ("sticker_word", STICKER_WORDS),
        }.get(split, ("species", SPECIES))
        self._numbers = {name: k for k, name in enumerate(self.class_names)} | {False: 0, True: 1}  # or a yes/no fact

    def __len__(self) -> int:
        return len(self.world)

    def image(self, index: int) -> Image.Image:
        return self.world.image(index)

    def name(self, index: int) -> str:
        return f"{self.world.split}/{index}"

    def label(self, index: int) -> int:
        return self._numbers.get(self.facts(index)[self.fact], -1)

    def facts(self, index: int) -> dict[str, Any]:
        return self.world.facts_of(index)

    def path(self, index: int) -> tuple[str, ...]:
        return self.world.path_of(index)

    def state(self) -> str:
        return ""


class _FolderSource:
    """Picture files below a folder; its sub-folders, if any hold pictures, are the classes."""

    def __init__(self, path: str):
        self.root = Path(path).expanduser()
        if not self.root.is_dir():
            raise FileNotFoundError(f"There is no folder {path}; give the path of a folder with pictures in it.")
        self.files = sorted(
            file
            for file in self.root.rglob("*")
            if file.suffix.lower() in IMAGE_SUFFIXES
            and not any(part.startswith(".") for part in file.relative_to(self.root).parts)
        )
        if not self.files:
            raise ValueError(f"There are no pictures in {path}; files end in {', '.join(sorted(IMAGE_SUFFIXES))}.")
        folders = {file.relative_to(self.root).parts[0] for file in self.files if file.parent != self.root}
        self.class_names = tuple(sorted(folders)) or None

    def __len__(self) -> int:
        return len(self.files)

    def image(self, index: int) -> Image.Image:
        file = self.files[index]
        try:
            with Image.open(file) as opened:
                return ImageOps.exif_transpose(opened).convert("RGB")
        except FileNotFoundError:
            raise ImageError(f"{file} is no longer there; load the folder again.") from None
        except _UNREADABLE as error:
            reason = "it is empty" if file.stat().st_size == 0 else str(error).replace(str(file), "the file")
            raise ImageError(
                f"{file} is not a readable picture: {reason}; repair or remove it, or skip errors."
            ) from error

    def name(self, index: int) -> str:
        return self.files[index].relative_to(self.root).as_posix()

    def label(self, index: int) -> int:
        parts = self.files[index].relative_to(self.root).parts
        return self.class_names.index(parts[0]) if len(parts) > 1 else -1

    def facts(self, index: int) -> None:
        return None

    def path(self, index: int) -> tuple[str, ...]:
        return ()

    def state(self) -> str:
        digest = hashlib.sha256()
        for position, file in enumerate(self.files):
            about = file.stat()
            digest.update(f"{self.name(position)} {about.st_size} {about.st_mtime_ns}\n".encode())
        return digest.hexdigest()[:12]
