"""The embedded world and the training of the models that live in it.

Importing it registers nothing: pyproject.toml names the pictures and the models to lib, as entry points.
"""

from menagerie.world import (
    HABITATS,
    LOOK_ALIKES,
    RANKS,
    SPECIES,
    SPLITS,
    STICKER_WORDS,
    TAXONOMY,
    Creature,
    Menagerie,
    Scene,
    zero_shot_prompts,
)

__all__ = [
    "HABITATS", "LOOK_ALIKES", "RANKS", "SPECIES", "SPLITS", "STICKER_WORDS", "TAXONOMY",
    "Creature", "Menagerie", "Scene", "zero_shot_prompts",
]  # fmt: skip
