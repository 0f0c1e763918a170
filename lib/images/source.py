"""`Source`, the interface of all image sources, and the error for a picture that cannot be read."""

from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import pandas as pd


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

    def labels(self, indices: np.ndarray) -> np.ndarray:
        """(n,) int64 classes of these pictures, -1 for none; called only where there are class names."""

    def facts(self, indices: np.ndarray) -> "pd.DataFrame | None":
        """A table of facts about these pictures, one row each; None where nothing is known."""

    def taxa(self, indices: np.ndarray) -> list[tuple[str, ...]] | None:
        """Their taxa from kingdom to species, () for a picture that shows none; None where no picture has any."""

    def state(self) -> str:
        """Text that changes when the pictures do; "" where they cannot change under the same spec."""
