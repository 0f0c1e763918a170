"""The `Menagerie`: any picture of any split, its captions and its facts, drawn on demand from (seed, split, index)."""

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from . import scenes
from .captions import caption
from .painting import paint
from .scenes import Scene
from .stickers import LetterBox
from .taxonomy import RANKS, TAXONOMY

if TYPE_CHECKING:
    import pandas as pd

# split: (how scenes are sampled, pictures, number that goes into the random state)
_SPLITS: dict[str, tuple[Callable[[np.random.Generator, int], Scene], int, int]] = {
    "train": (scenes.sample_ordinary, 200_000, 0),
    "val": (scenes.sample_ordinary, 10_000, 1),
    "people": (scenes.sample_people, 8_000, 2),
    "waterbirds": (scenes.sample_waterbirds, 4_000, 3),
    "stickers": (scenes.sample_stickers, 4_000, 4),
    "stickers-off": (scenes.sample_stickers, 4_000, 4),  # the same pictures without their stickers
    "signs": (scenes.sample_signs, 4_000, 5),
}
SPLITS: tuple[str, ...] = tuple(_SPLITS)
_FACTS, _PIXELS, _STICKER, _WORDS = range(4)  # independent random streams of one picture


class Menagerie:
    """One split of the embedded world; a pure function of (seed, split, index), with nothing on disk.

    split: one of SPLITS; another one raises ValueError. Pictures are 112 x 112 RGB.
    """

    def __init__(self, split: str = "train", seed: int = 0):
        if split not in _SPLITS:
            raise ValueError(f"Unknown Menagerie split {split!r}; choose one of {', '.join(SPLITS)}.")
        self.split, self.seed = split, seed
        self._sample, self._length, self._number = _SPLITS[split]

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return f"Menagerie(split={self.split!r}, seed={self.seed})"

    def __reduce__(self) -> tuple[type, tuple[str, int]]:
        return Menagerie, (self.split, self.seed)  # workers get no table

    def _rng(self, index: int, stream: int, *more: int) -> np.random.Generator:
        if not 0 <= index < self._length:
            raise IndexError(f"Picture {index} is not in menagerie:{self.split}, which has {self._length:,} pictures.")
        return np.random.Generator(np.random.PCG64([self.seed, self._number, index, stream, *more]))

    def scene(self, index: int) -> Scene:
        """The scene of picture `index`."""
        scene = self._sample(self._rng(index, _FACTS), index)
        return scene.without_sticker() if self.split == "stickers-off" else scene

    def draw(self, index: int) -> tuple[np.ndarray, np.ndarray, list[LetterBox]]:
        """Pixels (112, 112, 3), cover (112, 112) and letter boxes of picture `index`; see `painting.paint`."""
        return paint(self.scene(index), self._rng(index, _PIXELS), self._rng(index, _STICKER))

    def render(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (112, 112, 3) uint8 and cover (112, 112) uint8: 0 background, 1 main, 2 second creature, 3 sticker."""
        return self.draw(index)[:2]

    def image(self, index: int) -> Image.Image:
        """Picture `index`, RGB."""
        return Image.fromarray(self.render(index)[0])

    def captions(self, index: int, n: int = 1, seed: int = 0) -> list[str]:
        """n captions of picture `index`; another `seed` gives other ones (an epoch's number, say)."""
        rng, scene = self._rng(index, _WORDS, seed), self.scene(index)
        return [caption(scene, rng) for _ in range(n)]

    def facts_of(self, index: int) -> dict[str, Any]:
        """Everything known about picture `index`; "" and None where a fact does not apply."""
        return _facts(self.scene(index))

    def path_of(self, index: int) -> tuple[str, ...]:
        """The main creature's taxa from kingdom to species; () where there is no creature."""
        species = self.scene(index).species
        return TAXONOMY[species].path if species else ()

    @cached_property
    def facts(self) -> "pd.DataFrame":
        """One row a picture, computed without drawing (some 20 thousand rows a second)."""
        import pandas as pd

        return pd.DataFrame([self.facts_of(index) for index in range(len(self))])


def _facts(scene: Scene) -> dict[str, Any]:
    main = scene.creatures[0] if scene.creatures else None
    leaf = TAXONOMY[main.species] if main else None
    person = scene.person
    return {
        "kind": scene.kind,
        "species": main.species if main else "",
        "second_species": scene.creatures[1].species if len(scene.creatures) > 1 else "",
        **{rank: leaf.ranks[k] if leaf else "" for k, rank in enumerate(RANKS[:-1])},
        "latin_name": leaf.ranks[-1] if leaf else "",
        "habitat": scene.habitat,
        "time_of_day": scene.time_of_day,
        "count": len(scene.creatures),
        "size": main.size if main else "",
        "facing": main.facing if main else "",
        "pose": main.pose if main else "",
        "main_color": leaf.traits["color"] if leaf else "",
        "pattern": leaf.traits["pattern"] if leaf else "",
        "water_bird": leaf.water_bird if leaf else None,
        "person_hair": person.hair if person else "",
        "person_presentation": person.presentation if person else "",
        "person_glasses": person.glasses if person else None,
        "person_hat": person.hat if person else None,
        "person_smile": person.smile if person else None,
        "person_skin": person.skin if person else "",
        "sticker_word": scene.word or "",
        "likeness": main.likeness if main else None,
        "x": main.x if main else None,
        "depth": main.depth if main else None,
    }
