"""Draw any species: picks the plan its traits name and gives the individual its own shade, tilt and pose."""

import numpy as np
from PIL import Image

from . import creatures_birds, creatures_cold, creatures_invertebrates, creatures_mammals, creatures_plants
from .creatures_brush import Brush
from .taxonomy import TAXONOMY

_PLANS = {
    **creatures_birds.PLANS, **creatures_mammals.PLANS, **creatures_cold.PLANS,
    **creatures_invertebrates.PLANS, **creatures_plants.PLANS,
}  # fmt: skip


def draw_creature(species: str, side: int, flip: bool, pose: str, rng: np.random.Generator) -> Image.Image:
    """An individual of a species on a transparent layer, cropped to its outline.

    side: pixels of the unit square it is drawn in; flip: look left; pose: "stand", "walk" or "swim".
    """
    traits = TAXONOMY[species].traits
    tint = (1 + rng.uniform(-0.06, 0.06, 3)) * rng.uniform(0.88, 1.1)
    tilt = rng.uniform(-0.25, 0.25) if traits.get("floats") else rng.uniform(-0.05, 0.05)
    brush = Brush(side, flip, tilt, tint, rng)
    _PLANS[traits["plan"]](brush, traits, pose)
    return brush.finish()
