"""Draw any species: picks the plan its traits name and gives the individual its own shade, tilt and pose."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from . import creatures_birds, creatures_cold, creatures_invertebrates, creatures_mammals, creatures_plants
from .creatures_brush import Brush, rgb
from .taxonomy import LOOK_ALIKES, TAXONOMY

_PLANS = {
    **creatures_birds.PLANS, **creatures_mammals.PLANS, **creatures_cold.PLANS,
    **creatures_invertebrates.PLANS, **creatures_plants.PLANS,
}  # fmt: skip


_TWINS = {**dict(LOOK_ALIKES), **{land: water for water, land in LOOK_ALIKES}}


def draw_creature(
    species: str, side: int, flip: bool, pose: str, rng: np.random.Generator, likeness: float = 0.0
) -> Image.Image:
    """An individual of a species on a transparent layer, cropped to its outline.

    side: pixels of the unit square it is drawn in; flip: look left; pose: "stand", "walk" or "swim";
    likeness: for the birds in LOOK_ALIKES, 0 typical ... 0.5 half-way to the look-alike, could be either.
    """
    traits = TAXONOMY[species].traits
    if likeness > 0:
        traits = _between(traits, TAXONOMY[_TWINS[species]].traits, likeness, rng)
    tint = (1 + rng.uniform(-0.06, 0.06, 3)) * rng.uniform(0.88, 1.1)
    tilt = rng.uniform(-0.25, 0.25) if traits.get("floats") else rng.uniform(-0.05, 0.05)
    brush = Brush(side, flip, tilt, tint, rng)
    _PLANS[traits["plan"]](brush, traits, pose)
    return brush.finish()


def _between(
    own: Mapping[str, Any], other: Mapping[str, Any], share: float, rng: np.random.Generator
) -> dict[str, Any]:
    """Traits part-way to another species': colours and lengths are mixed, anything else is taken from either."""
    mixed = {}
    for key in sorted(own.keys() | other.keys()):
        a, b = own.get(key), other.get(key)
        if isinstance(a, str) and isinstance(b, str) and a[0] == b[0] == "#":
            mixed[key] = "#" + bytes(round(p + (q - p) * share) for p, q in zip(rgb(a), rgb(b), strict=True)).hex()
        elif isinstance(a, float) and isinstance(b, float):
            mixed[key] = a + (b - a) * share
        else:
            mixed[key] = b if rng.random() < share else a
    return {key: value for key, value in mixed.items() if value is not None}
