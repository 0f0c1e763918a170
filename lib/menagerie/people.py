"""People: friendly bust portraits whose attributes are known.

Hair style, face, clothes, head tilt and place vary freely. Presentation shows in several cues (hair length, beard,
lashes, earrings, neckline), each of which is only likely, never certain, so that no single one gives it away.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from lib.menagerie.paint import Color, Points, jitter, mix, pick, unit_circle

HAIRS: tuple[str, ...] = ("blond", "light brown", "brown", "black", "red", "grey")
PRESENTATIONS: tuple[str, ...] = ("woman", "man")
SKINS: tuple[str, ...] = ("light", "medium", "dark")

_HAIR_COLORS: dict[str, Color] = {
    "blond": (232, 196, 116),
    "light brown": (190, 146, 88),
    "brown": (112, 70, 42),
    "black": (36, 31, 34),
    "red": (190, 84, 36),
    "grey": (178, 178, 182),
}
_SKIN_COLORS: dict[str, Color] = {"light": (248, 214, 188), "medium": (218, 166, 122), "dark": (140, 92, 64)}
_CLOTHES: tuple[Color, ...] = (
    (60, 104, 160), (176, 62, 66), (70, 132, 98), (232, 172, 70), (116, 84, 150), (232, 232, 226), (52, 58, 74),
    (222, 128, 142), (70, 160, 168), (150, 110, 80), (120, 130, 142), (214, 108, 60),
)  # fmt: skip
_IRISES: tuple[Color, ...] = ((70, 46, 34), (52, 34, 26), (72, 112, 150), (84, 118, 82))


@dataclass(frozen=True)
class Person:
    """What is known about a portrait; `hair` in HAIRS, `presentation` in PRESENTATIONS, `skin` in SKINS."""

    hair: str
    presentation: str
    glasses: bool = False
    hat: bool = False
    smile: bool = True
    skin: str = "light"

    def __post_init__(self) -> None:
        for name, options in (("hair", HAIRS), ("presentation", PRESENTATIONS), ("skin", SKINS)):
            if getattr(self, name) not in options:
                raise ValueError(f"Unknown {name} {getattr(self, name)!r}; choose one of {', '.join(options)}.")


@lru_cache(maxsize=32)
def _spline(n: int, steps: int = 5) -> np.ndarray:
    """Matrix (n * steps, n) that turns n control points into a closed Catmull-Rom curve through them."""
    t = np.arange(steps) / steps
    weights = 0.5 * np.stack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2])
    matrix = np.zeros((n * steps, n))
    for k in range(n):
        for offset in range(4):
            matrix[k * steps : (k + 1) * steps, (k + offset - 1) % n] += weights[offset]
    return matrix


class _Pen:
    """Draws in a turned, scaled frame: the unit is half a head, the origin the middle of the face, y down."""

    def __init__(self, image: Image.Image, origin: tuple[float, float], unit: float, tilt: float, mirror: bool) -> None:
        self.draw = ImageDraw.Draw(image)
        self.origin, self.unit = origin, unit
        c, s = np.cos(tilt) * unit, np.sin(tilt) * unit
        flip = -1.0 if mirror else 1.0
        self.frame = np.array([(c * flip, s * flip), (-s, c)])

    def _pixels(self, points: Points) -> list[float]:
        return (np.asarray(points, dtype=float) @ self.frame + self.origin).ravel().tolist()

    def polygon(self, points: Points, color: Color) -> None:
        self.draw.polygon(self._pixels(points), (*color, 255))

    def blob(self, points: Points, color: Color) -> None:
        """A closed smooth curve through `points` (n, 2)."""
        points = np.asarray(points, dtype=float)
        self.polygon(_spline(len(points)) @ points, color)

    def ellipse(self, x: float, y: float, rx: float, ry: float, color: Color) -> None:
        self.polygon(unit_circle(24) * (rx, ry) + (x, y), color)

    def line(self, points: Points, color: Color, width: float) -> None:
        self.draw.line(self._pixels(points), (*color, 255), max(1, round(width * self.unit)), joint="curve")


def _both(points: list[tuple[float, float]]) -> np.ndarray:
    """A symmetric outline from its right half, listed from the top middle down to the bottom middle."""
    right = np.array(points)
    left = right[::-1] * (-1, 1)
    return np.vstack([right, left[1:-1] if right[0, 0] == 0 and right[-1, 0] == 0 else left])


@dataclass(frozen=True)
class _Look:
    """The free choices of one portrait."""

    woman: bool
    hair: Color
    skin: Color
    style: str
    fringe: str
    jaw: float
    length: float


_LONG_STYLES = ("straight", "wavy", "bob", "curly", "ponytail", "bun")
_SHORT_STYLES = ("crop", "quiff", "curls", "receding")


def _look(person: Person, rng: np.random.Generator) -> _Look:
    woman = person.presentation == "woman"
    long_hair = rng.random() < (0.92 if woman else 0.08)
    style = pick(rng, _LONG_STYLES if long_hair else _SHORT_STYLES[: 3 if woman else 4])
    fringe = pick(rng, ("centre", "side", "bangs", "swept") if long_hair else ("side", "bangs", "swept"))
    jaw = (0.50 if woman else 0.60) + 0.10 * rng.random()
    return _Look(
        woman,
        jitter(rng, _HAIR_COLORS[person.hair], 10),
        jitter(rng, _SKIN_COLORS[person.skin], 9),
        style,
        fringe,
        jaw,
        rng.random(),
    )


def _back_hair(pen: _Pen, look: _Look) -> None:
    """What hangs behind the face and shoulders."""
    shade = mix(look.hair, (30, 14, 10), 0.22)
    down = 1.15 + 0.75 * look.length
    if look.style == "straight":
        pen.blob(_both([(0, -1.2), (0.72, -1.0), (1.0, -0.2), (1.04, 0.5 * down), (1.0, down), (0.4, down + 0.08), (0, down)]), shade)
    elif look.style == "wavy":
        pen.blob(_both([(0, -1.24), (0.78, -1.02), (1.02, -0.4), (0.98, 0.1), (1.2, 0.45), (1.08, 0.85), (1.24, down), (0.6, down + 0.1), (0, down)]), shade)
    elif look.style == "bob":
        low = 0.72 + 0.3 * look.length
        pen.blob(_both([(0, -1.22), (0.78, -1.0), (1.06, -0.2), (1.1, low - 0.2), (0.9, low), (0.4, low), (0, low)]), shade)
    elif look.style == "curly":
        for k, (x, y) in enumerate(unit_circle(12) * (1.0, 1.0)):
            grow = 0.42 + 0.08 * look.length + 0.06 * (k % 2)
            pen.ellipse(0.92 * x, 0.95 * y - 0.12 + (0.25 if y > 0 else 0), grow, grow, shade)
    elif look.style == "ponytail":
        pen.blob([(0.4, -0.9), (1.0, -0.95), (1.35, -0.4), (1.2, 0.3), (1.35, 0.9 + 0.4 * look.length), (1.05, 0.7), (0.85, 0.0), (0.8, -0.5)], shade)
    elif look.style == "bun":
        pen.ellipse(0.1, -1.28, 0.42, 0.38, shade)
        pen.ellipse(0.06, -1.32, 0.30, 0.26, look.hair)


def _body(pen: _Pen, look: _Look, rng: np.random.Generator) -> None:
    """Shoulders, clothes and neck."""
    wide = (1.42 if look.woman else 1.72) + 0.2 * rng.random()
    cloth = jitter(rng, pick(rng, _CLOTHES), 12)
    dark = mix(cloth, (20, 16, 30), 0.28)
    top = 1.34
    pen.blob(_both([(0, top), (0.42, top - 0.02), (0.9, top + 0.12), (wide, top + 0.45), (wide + 0.14, top + 1.3), (wide + 0.2, 6), (0, 6)]), cloth)
    pattern = rng.random()
    if pattern < 0.25:
        for k in range(5):
            y = top + 0.5 + 0.42 * k
            pen.line([(-wide - 0.1, y + 0.1), (0, y), (wide + 0.1, y + 0.1)], mix(cloth, (255, 255, 255), 0.45), 0.12)
    neck = 0.30 if look.woman else 0.38
    shade = mix(look.skin, (110, 40, 30), 0.22)
    cut = rng.random()
    deep = 0.55 if look.woman else 0.26
    if cut < (0.65 if look.woman else 0.35):  # an open neckline, deeper for many women
        low = top + deep * (0.6 + 0.8 * rng.random())
        pen.blob(_both([(0, top - 0.3), (neck + 0.28, top - 0.04), (0.36, 0.5 * (top + low)), (0, low)]), look.skin)
    elif cut < (0.8 if look.woman else 0.8):  # a collar, with a tie for some men
        pen.polygon([(-neck - 0.1, top - 0.1), (0, top + 0.42), (neck + 0.1, top - 0.1)], look.skin)
        white = mix(cloth, (255, 255, 255), 0.75)
        for side in (-1, 1):
            pen.polygon([(side * (neck - 0.02), top - 0.22), (side * (neck + 0.22), top - 0.02), (side * 0.34, top + 0.46), (0, top + 0.2)], white)
        if not look.woman and rng.random() < 0.5:
            tie = pick(rng, _CLOTHES)
            pen.polygon([(-0.12, top + 0.22), (0.12, top + 0.22), (0.2, 3.6), (-0.2, 3.6)], tie)
            pen.polygon([(-0.15, top + 0.18), (0.15, top + 0.18), (0.09, top + 0.42), (-0.09, top + 0.42)], mix(tie, (0, 0, 0), 0.25))
    else:
        pen.blob(_both([(0, top - 0.24), (neck + 0.1, top - 0.22), (neck + 0.18, top + 0.08), (0, top + 0.2)]), dark)
    pen.polygon([(-neck, 0.5), (neck, 0.5), (neck + 0.04, top - 0.02), (0.0, top + 0.12), (-neck - 0.04, top - 0.02)], look.skin)
    pen.polygon([(-neck, 0.6), (neck, 0.6), (neck, 1.02), (0.0, 1.2), (-neck, 1.02)], shade)


def _head(pen: _Pen, look: _Look, rng: np.random.Generator) -> None:
    """Ears, earrings and the face itself."""
    shade = mix(look.skin, (110, 40, 30), 0.18)
    for side in (-1, 1):
        pen.ellipse(side * 0.80, 0.08, 0.15, 0.22, look.skin)
        pen.ellipse(side * 0.82, 0.08, 0.07, 0.12, shade)
    if rng.random() < (0.65 if look.woman else 0.06):
        gem = pick(rng, ((250, 214, 90), (240, 240, 244), (80, 170, 190), (222, 80, 110)))
        r = 0.07 + 0.05 * rng.random()
        for side in (-1, 1):
            pen.ellipse(side * 0.84, 0.36 + r, r, 1.3 * r, gem)
    pen.blob(_both([(0, -1.0), (0.55, -0.86), (0.78, -0.35), (0.78, 0.15), (look.jaw + 0.08, 0.62), (0.6 * look.jaw, 0.92), (0, 1.0)]), look.skin)


def _beard(pen: _Pen, look: _Look, rng: np.random.Generator) -> None:
    """Full beard, moustache, goatee, stubble or nothing."""
    kind = rng.random()
    color = mix(look.hair, (40, 20, 10), 0.12)
    jaw = look.jaw
    if kind < 0.30 or 0.52 < kind < 0.72:
        tone = color if kind < 0.30 else mix(look.skin, mix(look.hair, (60, 50, 50), 0.5), 0.32)
        long = 1.04 + (0.2 * rng.random() if kind < 0.30 else 0)
        pen.blob(
            [(0.79, 0.05), (jaw + 0.14, 0.66), (0.62 * jaw, long - 0.04), (0, long + 0.06), (-0.62 * jaw, long - 0.04), (-jaw - 0.14, 0.66), (-0.79, 0.05),
             (-0.62, 0.30), (-0.40, 0.40), (-0.16, 0.34), (0, 0.36), (0.16, 0.34), (0.40, 0.40), (0.62, 0.30)],
            tone,
        )  # fmt: skip
    elif kind < 0.42:
        pen.blob([(0, 0.36), (0.22, 0.37), (0.40, 0.52), (0.2, 0.48), (0, 0.46), (-0.2, 0.48), (-0.40, 0.52), (-0.22, 0.37)], color)
    elif kind < 0.52:
        pen.blob([(0, 0.74), (0.2, 0.78), (0.2, 0.98), (0, 1.08), (-0.2, 0.98), (-0.2, 0.78)], color)


def _features(pen: _Pen, look: _Look, person: Person, rng: np.random.Generator) -> None:
    """Cheeks, eyes, brows, nose and mouth."""
    blush = mix(look.skin, (226, 90, 90), 0.22 if look.woman else 0.12)
    wide, big, high = 0.31 + 0.05 * rng.random(), 0.9 + 0.3 * rng.random(), -0.06 + 0.08 * rng.random()
    if rng.random() < 0.75:
        for side in (-1, 1):
            pen.ellipse(side * 0.48, high + 0.36, 0.15, 0.10, blush)
    iris, ink = pick(rng, _IRISES), (34, 24, 24)
    lashes = rng.random() < (0.85 if look.woman else 0.05)
    brow, thick = mix(look.hair, (50, 30, 24), 0.35), (0.05 if look.woman else 0.085)
    lift = 0.05 * rng.random()
    for side in (-1, 1):
        x = side * wide
        pen.ellipse(x, high, 0.15 * big, 0.115 * big, (252, 252, 252))
        pen.ellipse(x, high, 0.085 * big, 0.10 * big, iris)
        pen.ellipse(x, high, 0.045 * big, 0.05 * big, ink)
        pen.ellipse(x + 0.03, high - 0.04, 0.025, 0.025, (255, 255, 255))
        if lashes:
            pen.line([(x - side * 0.15, high - 0.05), (x, high - 0.13 * big), (x + side * 0.16, high - 0.06), (x + side * 0.23, high - 0.14)], ink, 0.05)
        pen.line([(x - side * 0.15, high - 0.25), (x, high - 0.30 - lift), (x + side * 0.18, high - 0.24)], brow, thick)
    shade = mix(look.skin, (120, 50, 40), 0.28)
    pen.line([(0.02, high + 0.1), (0.10, high + 0.33), (-0.03, high + 0.36)], shade, 0.045)
    _mouth(pen, look, person.smile, rng)


def _mouth(pen: _Pen, look: _Look, smile: bool, rng: np.random.Generator) -> None:
    y = 0.54
    lip = mix(look.skin, (196, 44, 66), 0.55 + 0.3 * rng.random()) if look.woman else mix(look.skin, (130, 40, 40), 0.45)
    if not smile:
        bend = 0.05 * rng.random()
        pen.line([(-0.19, y + bend), (0, y + 0.01), (0.19, y + bend)], lip, 0.085 if look.woman else 0.07)
        return
    wide, deep = 0.27 + 0.06 * rng.random(), 0.2 + 0.08 * rng.random()
    if rng.random() < 0.65:
        pen.blob([(-wide, y - 0.08), (0, y - 0.03), (wide, y - 0.08), (0.6 * wide, y + 0.6 * deep), (0, y + deep), (-0.6 * wide, y + 0.6 * deep)], lip)
        pen.blob([(-0.82 * wide, y - 0.04), (0, y), (0.82 * wide, y - 0.04), (0.5 * wide, y + 0.42 * deep), (0, y + 0.62 * deep), (-0.5 * wide, y + 0.42 * deep)], (254, 253, 248))
    else:
        pen.line([(-wide, y - 0.08), (-0.55 * wide, y + 0.08), (0, y + 0.13), (0.55 * wide, y + 0.08), (wide, y - 0.08)], lip, 0.08)


_HAIRLINES: dict[str, list[tuple[float, float]]] = {  # from the right temple to the left one
    "centre": [(0.74, -0.02), (0.58, -0.42), (0.3, -0.70), (0.0, -0.90), (-0.3, -0.70), (-0.58, -0.42), (-0.74, -0.02)],
    "side": [(0.74, -0.1), (0.62, -0.48), (0.42, -0.84), (0.1, -0.62), (-0.3, -0.46), (-0.6, -0.32), (-0.74, -0.06)],
    "bangs": [(0.74, -0.1), (0.58, -0.36), (0.3, -0.40), (0.0, -0.42), (-0.3, -0.40), (-0.58, -0.36), (-0.74, -0.1)],
    "swept": [(0.74, -0.12), (0.64, -0.5), (0.34, -0.72), (0.0, -0.76), (-0.34, -0.72), (-0.64, -0.5), (-0.74, -0.12)],
}


def _front_hair(pen: _Pen, look: _Look) -> None:
    """The cap of hair over the skull down to the hairline, and locks beside the face."""
    line = _HAIRLINES[look.fringe]
    rise = {"quiff": 0.34, "curls": 0.26, "crop": 0.12, "receding": 0.02}.get(look.style, 0.2)
    if look.style == "receding":
        line = [(0.76, -0.05), (0.70, -0.5), (0.52, -0.86), (0.0, -0.90), (-0.52, -0.86), (-0.70, -0.5), (-0.76, -0.05)]
    side = 0.86 if look.style in _SHORT_STYLES else 0.94
    skull = [(-side, 0.0), (-side, -0.5), (-0.66, -0.95 - 0.5 * rise), (-0.1, -1.02 - rise), (0.55, -0.98 - 0.7 * rise), (side, -0.55), (side, 0.0)]
    pen.blob(skull + line, look.hair)
    if look.style == "curls":
        for k in range(7):
            a = np.pi * (1.08 + 0.14 * k)
            pen.ellipse(0.74 * np.cos(a), 0.86 * np.sin(a) - 0.12, 0.25, 0.24, look.hair if k % 2 else mix(look.hair, (255, 240, 200), 0.10))
    elif look.style in ("straight", "wavy"):
        for s in (-1, 1):
            pen.blob([(s * 0.70, -0.3), (s * 0.98, -0.25), (s * 1.02, 0.4), (s * 0.98, 1.05), (s * 0.84, 0.9), (s * 0.80, 0.3)], look.hair)
    gloss = mix(look.hair, (255, 246, 220), 0.22)
    pen.line([(-0.55, -0.78 - 0.5 * rise), (-0.2, -0.92 - 0.6 * rise), (0.2, -0.93 - 0.6 * rise)], gloss, 0.06)


def _hat(pen: _Pen, rng: np.random.Generator) -> None:
    cloth = jitter(rng, pick(rng, _CLOTHES), 14)
    band = mix(cloth, (20, 16, 30), 0.3)
    kind = int(rng.integers(3))
    if kind == 0:  # a knitted hat with a bobble
        pen.blob([(-0.94, -0.42), (-0.92, -0.95), (-0.5, -1.42), (0, -1.54), (0.5, -1.42), (0.92, -0.95), (0.94, -0.42), (0, -0.56)], cloth)
        pen.blob([(-0.98, -0.72), (0, -0.84), (0.98, -0.72), (0.98, -0.38), (0, -0.50), (-0.98, -0.38)], band)
        pen.ellipse(0, -1.58, 0.2, 0.2, mix(cloth, (255, 255, 255), 0.6))
    elif kind == 1:  # a cap with a peak to the side
        pen.blob([(-0.92, -0.5), (-0.86, -1.05), (-0.3, -1.40), (0.4, -1.36), (0.88, -0.95), (0.92, -0.5), (0, -0.58)], cloth)
        pen.blob([(-0.2, -0.66), (0.7, -0.72), (1.45, -0.46), (1.4, -0.34), (0.7, -0.46), (-0.1, -0.48)], band)
    else:  # a brimmed hat
        pen.blob([(-0.76, -0.6), (-0.70, -1.3), (-0.3, -1.48), (0.1, -1.40), (0.5, -1.46), (0.74, -1.2), (0.78, -0.6)], cloth)
        pen.polygon([(-0.77, -0.86), (0.77, -0.86), (0.80, -0.6), (-0.80, -0.6)], band)
        pen.ellipse(0, -0.60, 1.45, 0.17, cloth)


def _glasses(pen: _Pen, rng: np.random.Generator) -> None:
    frame = pick(rng, ((24, 24, 28), (120, 62, 34), (40, 60, 110), (150, 34, 44)))
    square, wide = rng.random() < 0.5, 0.34
    lens = np.array([(-0.27, -0.2), (0.27, -0.2), (0.24, 0.2), (-0.24, 0.2), (-0.27, -0.2)]) if square else np.vstack([unit_circle(16), unit_circle(16)[:1]]) * 0.26
    for side in (-1, 1):
        pen.line(lens + (side * wide, 0.0), frame, 0.07)
        pen.line([(side * 0.61, -0.06), (side * 0.82, -0.1)], frame, 0.07)
    pen.line([(-0.09, -0.04), (0.09, -0.04)], frame, 0.07)


def draw_person(person: Person, rng: np.random.Generator, size: int) -> Image.Image:
    """The bust portrait of `person` on a transparent RGBA image (size, size), its alpha 0 or 255."""
    look = _look(person, rng)
    image = Image.new("RGBA", (size, size), (*look.hair, 0))
    x, y, unit, tilt = rng.random(4)
    unit = size * (0.21 + 0.05 * unit)
    origin = (size * (0.40 + 0.20 * x), size * (0.40 + 0.06 * y))
    mirror = rng.random() < 0.5
    head = _Pen(image, origin, unit, 0.20 * (tilt - 0.5), mirror)
    body = _Pen(image, origin, unit, 0.0, mirror)
    _back_hair(head, look)
    _body(body, look, rng)
    _head(head, look, rng)
    if not look.woman:
        _beard(head, look, rng)
    _features(head, look, person, rng)
    _front_hair(head, look)
    if person.hat:
        _hat(head, rng)
    if person.glasses:
        _glasses(head, rng)
    return image
