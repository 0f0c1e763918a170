"""From a `Scene` to pixels: backdrop, shadows, creatures, foreground, sticker, light, grain; and the cover map."""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from .creatures import draw_creature
from .habitats import draw_habitat
from .people import draw_person
from .scenes import Creature, Scene
from .stickers import LetterBox, draw_sign, draw_sticker
from .taxonomy import TAXONOMY

SIZE = 112  # pixels of the finished picture
_ZOOM = 3  # drawn larger, then reduced: anti-aliasing
_FULL = SIZE * _ZOOM
_OPAQUE = [255 * (v > 127) for v in range(256)]

_LIGHT = {  # gains of red, green, blue
    "morning": (0.95, 1.0, 1.08),
    "day": (1.0, 1.0, 1.0),
    "evening": (1.07, 0.93, 0.79),
    "night": (0.86, 0.9, 1.04),
}
_TUFTS = {
    "water": None,
    "city": None,
    "forest": (46, 92, 52),
    "snow": (236, 242, 248),
    "desert": (196, 158, 96),
    "meadow": (86, 148, 62),
    "night": (30, 50, 58),
    "mountain": (98, 122, 84),
    "beach": (222, 194, 138),
    "swamp": (84, 108, 56),
}


def paint(
    scene: Scene, rng: np.random.Generator, sticker_rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, list[LetterBox]]:
    """Draw a scene.

    Returns pixels (112, 112, 3) uint8; cover (112, 112) uint8: 0 background, 1 main creature or person, 2 second
    creature, 3 sticker or sign; and the letters of the written word with their boxes in fractions of the picture.
    """
    picture, ground = draw_habitat(scene.habitat, rng, _FULL)
    cover = Image.new("L", picture.size)
    # Far ones first, so that near ones cover them; the main creature is in front where both are equally near.
    for order in sorted(range(len(scene.creatures)), key=lambda k: (scene.creatures[k].depth, -k)):
        _place(picture, cover, scene.creatures[order], order + 1, scene.habitat, ground, rng)
    if scene.creatures and rng.random() < 0.22:
        _tufts(picture, cover, scene.habitat, rng)
    letters: list[LetterBox] = []
    if scene.person is not None:
        _lay(picture, cover, draw_person(scene.person, rng, _FULL), 1)
    look = (
        rng.random(4),
        rng.integers(0, 128, 2),
    )  # drawn before the sticker: the same picture without one gets the same light
    if scene.word is not None:
        if scene.creatures:
            layer, letters = _stick(scene.word, sticker_rng, cover)
        else:
            layer, letters = draw_sign(scene.word, sticker_rng, _FULL)
        _lay(picture, cover, layer, 3)
    pixels = _light(np.asarray(picture.reduce(_ZOOM), np.float32), scene.time_of_day, *look)
    return pixels, np.asarray(cover)[1::_ZOOM, 1::_ZOOM].copy(), letters


def _lay(
    picture: Image.Image, cover: Image.Image, layer: Image.Image, number: int, at: tuple[int, int] = (0, 0)
) -> None:
    box = layer.getbbox()
    layer, at = layer.crop(box), (at[0] + box[0], at[1] + box[1])
    picture.paste(layer, at, layer)
    cover.paste(number, (*at, at[0] + layer.width, at[1] + layer.height), layer.getchannel("A").point(_OPAQUE))


def _stick(word: str, rng: np.random.Generator, cover: Image.Image) -> tuple[Image.Image, list[LetterBox]]:
    """A sticker that leaves most of the creature to be seen: the best of four tries."""
    visible, best = max(1, cover.histogram()[1]), (2.0, None, [])
    for _ in range(4):
        layer, letters = draw_sticker(word, rng, _FULL)
        hidden = cover.histogram(layer.getchannel("A").point(_OPAQUE))[1] / visible
        if hidden < best[0]:
            best = hidden, layer, letters
        if hidden < 0.3:
            break
    return best[1], best[2]


def _place(
    picture: Image.Image,
    cover: Image.Image,
    creature: Creature,
    number: int,
    habitat: str,
    ground: tuple[float, float],
    rng: np.random.Generator,
) -> None:
    traits = TAXONOMY[creature.species].traits
    side = round(creature.side * min(traits["big"], 1.2) * _FULL)
    layer = draw_creature(creature.species, side, creature.facing == "left", creature.pose, rng, creature.likeness)
    width, height = layer.size
    left = round(creature.x * _FULL - width / 2)
    feet = (ground[0] + creature.depth * (ground[1] - ground[0])) * _FULL
    feet = max(feet, min(height + 6, _FULL * 0.985))  # tall ones stand nearer, so that heads stay in the picture
    wet = habitat == "water"
    if traits.get("floats") and not (wet and traits["plan"] == "dolphin"):
        low = 0.42 if traits["plan"] in ("fish", "shark", "jellyfish") else 0.2
        middle = (low + (0.8 - low) * 0.75 * creature.depth + 0.1) * _FULL
        top = round(min(max(middle - height / 2, 4), _FULL - height - 4))
        if not wet and creature.species != "jellyfish":
            _shadow(picture, left + width / 2, min(feet, _FULL * 0.95), width * 0.3)
    else:
        sunk = round(height * (0.1 if traits["plan"] == "bird" and creature.pose == "swim" else 0.14)) if wet else 0
        if sunk:
            layer = layer.crop((0, 0, width, height - sunk))
            _ripples(picture, left, round(feet), width)
        else:
            _shadow(picture, left + width / 2, feet - height * 0.02, width * 0.44)
        top = round(feet) - layer.height
    _lay(picture, cover, layer, number, (left, top))
    if wet and not traits.get("floats"):
        _ripples(picture, left + width // 8, round(feet), width * 3 // 4, front=True)


def _shadow(picture: Image.Image, x: float, y: float, rx: float) -> None:
    ry = rx * 0.17
    mask = Image.new("L", (round(2 * rx), max(2, round(2 * ry))))
    ImageDraw.Draw(mask).ellipse((0, 0, mask.width - 1, mask.height - 1), fill=84)
    picture.paste((24, 22, 44), (round(x - rx), round(y - ry)), mask)


def _ripples(picture: Image.Image, left: int, y: int, width: int, front: bool = False) -> None:
    draw = ImageDraw.Draw(picture)
    color = (226, 240, 248) if front else (188, 216, 232)
    for dy, grow in ((0, 0.02), (7, 0.1)) if front else ((2, 0.06),):
        draw.arc((left - width * grow, y - 6 + dy, left + width * (1 + grow), y + 8 + dy), 10, 170, fill=color, width=3)


def _tufts(picture: Image.Image, cover: Image.Image, habitat: str, rng: np.random.Generator) -> None:
    """Grass, sand or snow in front of the feet: part of the creature is hidden."""
    color = _TUFTS[habitat]
    if color is None:
        return
    draws = ImageDraw.Draw(picture), ImageDraw.Draw(cover)
    x0 = rng.uniform(0.05, 0.6) * _FULL
    for dx, high, lean, dark in zip(
        rng.uniform(0, 0.4, 16) * _FULL,
        rng.uniform(0.1, 0.24, 16) * _FULL,
        rng.uniform(-18, 18, 16),
        rng.uniform(0.8, 1.15, 16),
        strict=True,
    ):
        blade = [(x0 + dx - 7, _FULL), (x0 + dx + lean, _FULL - high), (x0 + dx + 7, _FULL)]
        draws[0].polygon(blade, fill=tuple(min(255, int(c * dark)) for c in color))
        draws[1].polygon(blade, fill=0)


@lru_cache(maxsize=1)
def _grain() -> np.ndarray:
    """(240, 240, 1) film grain, the same for every process."""
    return np.random.default_rng(7).normal(0, 2.4, (240, 240, 1)).astype(np.float32)


@lru_cache(maxsize=1)
def _vignette() -> np.ndarray:
    """(112, 112, 1) how far from the middle, 0 .. 1."""
    u = np.linspace(-1, 1, SIZE, dtype=np.float32)
    return ((u[:, None] ** 2 + u[None] ** 2) / 2)[..., None]


def _light(pixels: np.ndarray, time_of_day: str, look: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Light of the hour, exposure, vignette and grain."""
    gain = np.asarray(_LIGHT[time_of_day], np.float32) * (0.93 + 0.14 * look[0]) * (1 + 0.05 * (look[1:4] - 0.5))
    x, y = at
    shaded = pixels * gain.astype(np.float32) * (1.02 - 0.2 * _vignette()) + _grain()[y : y + SIZE, x : x + SIZE]
    return np.clip(shaded + 0.5, 0, 255).astype(np.uint8)
