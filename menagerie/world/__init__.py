"""The Menagerie: a small world drawn by code, in which every fact about every picture is known."""

from .captions import zero_shot_prompts
from .habitats import HABITATS
from .scenes import Creature, Scene
from .splits import SPLITS, Menagerie
from .stickers import STICKER_WORDS
from .taxonomy import LOOK_ALIKES, RANKS, SPECIES, TAXONOMY

__all__ = [
    "HABITATS", "LOOK_ALIKES", "RANKS", "SPECIES", "SPLITS", "STICKER_WORDS", "TAXONOMY",
    "Creature", "Menagerie", "Scene", "zero_shot_prompts",
]  # fmt: skip
