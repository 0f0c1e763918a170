"""The Menagerie as an image source of lib: `load_images("menagerie:SPLIT")`."""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from menagerie import SPECIES, STICKER_WORDS, Menagerie
from menagerie.world.people import HAIRS

if TYPE_CHECKING:
    import pandas as pd


class MenagerieSource:
    """A split of the Menagerie, labelled by what the split is about; registered in pyproject.toml."""

    FORM = "menagerie:SPLIT"
    CODE = ("menagerie.world", "menagerie.images")

    def __init__(self, split: str):
        self.world = Menagerie(split)
        self.fact, self.class_names = {
            "people": ("person_hair", HAIRS),
            "waterbirds": ("water_bird", ("land bird", "water bird")),
            "signs": ("sticker_word", STICKER_WORDS),
        }.get(split, ("species", SPECIES))

    def __len__(self) -> int:
        return len(self.world)

    def image(self, index: int) -> Image.Image:
        return self.world.image(index)

    def name(self, index: int) -> str:
        return f"{self.world.split}/{index}"

    def labels(self, indices: np.ndarray) -> np.ndarray:
        numbers = {name: k for k, name in enumerate(self.class_names)} | {False: 0, True: 1}  # or a yes/no fact
        values = (self.world.facts_of(int(i))[self.fact] for i in indices)
        return np.fromiter((numbers.get(value, -1) for value in values), np.int64, len(indices))

    def facts(self, indices: np.ndarray) -> "pd.DataFrame":
        import pandas as pd

        return pd.DataFrame([self.world.facts_of(int(i)) for i in indices])

    def taxa(self, indices: np.ndarray) -> list[tuple[str, ...]] | None:
        paths = [self.world.path_of(int(i)) for i in indices]
        return paths if any(paths) else None

    def state(self) -> str:
        return ""
