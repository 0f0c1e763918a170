"""People: bust portraits whose attributes are known. Presentation shows in several cues (hair length, beard, lashes,
earrings, neckline), each of which is only likely, so that no single one gives it away."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from menagerie.world.paint import Color, Points, jitter, mix, pick, unit_circle

HAIRS: tuple[str, ...] = ("blond", "light brown", "brown", "black", "red", "grey")
PRESENTATIONS: tuple[str, ...] = ("woman", "man")
SKINS: tuple[str, ...] = ("light", "medium", "dark")

_HAIR_COLORS: dict[str, Color] = {
    "blond": (232, 196, 118), "light brown": (194, 149, 90), "brown": (108, 66, 40),
    "black": (34, 30, 34), "red": (190, 82, 34), "grey": (178, 178, 184),
}  # fmt: skip
_SKIN_COLORS: dict[str, Color] = {"light": (248, 214, 188), "medium": (222, 170, 128), "dark": (142, 94, 66)}
_CLOTHES: tuple[Color, ...] = (
    (60, 104, 160), (176, 62, 66), (70, 132, 98), (232, 172, 70), (116, 84, 150), (232, 232, 226), (52, 58, 74),
    (222, 128, 142), (70, 160, 168), (150, 110, 80), (120, 130, 142), (214, 108, 60),
)  # fmt: skip
_IRISES: tuple[Color, ...] = ((70, 46, 34), (52, 34, 26), (72, 112, 150), (84, 118, 82))
_FRAMES: tuple[Color, ...] = ((24, 24, 28), (120, 62, 34), (40, 60, 110), (150, 34, 44))
_GEMS: tuple[Color, ...] = ((250, 214, 90), (240, 240, 244), (80, 170, 190), (222, 80, 110))

_LONG_STYLES = ("straight", "wavy", "bob", "curly", "ponytail", "bun")
_SHORT_STYLES = ("crop", "quiff", "curls", "receding")
_RISE = {"quiff": 0.34, "curls": 0.26, "crop": 0.12, "receding": 0.02}  # how high the hair stands on the skull

# Outlines in the frame of `_Pen`. A symmetric one lists its right half, from the top middle to the bottom middle.
_HAIRLINES: dict[str, list[tuple[float, float]]] = {  # from the right temple to the left one
    "centre": [(0.74, -0.02), (0.58, -0.42), (0.3, -0.70), (0.0, -0.90), (-0.3, -0.70), (-0.58, -0.42), (-0.74, -0.02)],
    "side": [(0.74, -0.1), (0.62, -0.48), (0.42, -0.84), (0.1, -0.62), (-0.3, -0.46), (-0.6, -0.32), (-0.74, -0.06)],
    "bangs": [(0.74, -0.1), (0.58, -0.36), (0.3, -0.40), (0.0, -0.42), (-0.3, -0.40), (-0.58, -0.36), (-0.74, -0.1)],
    "swept": [(0.74, -0.12), (0.64, -0.5), (0.34, -0.72), (0.0, -0.76), (-0.34, -0.72), (-0.64, -0.5), (-0.74, -0.12)],
    "receding": [(0.76, -0.05), (0.7, -0.5), (0.52, -0.86), (0.0, -0.9), (-0.52, -0.86), (-0.7, -0.5), (-0.76, -0.05)],
}
# fmt: off
_MOUSTACHE = [(0, 0.36), (0.22, 0.37), (0.40, 0.52), (0.2, 0.48), (0, 0.46), (-0.2, 0.48), (-0.40, 0.52), (-0.22, 0.37)]
_KNITTED = [(-.94, -.42), (-.92, -.95), (-.5, -1.42), (0, -1.54), (.5, -1.42), (.92, -.95), (.94, -.42), (0, -.56)]
_CUFF = [(-0.98, -0.72), (0, -0.84), (0.98, -0.72), (0.98, -0.38), (0, -0.50), (-0.98, -0.38)]
_CAP = [(-0.92, -0.5), (-0.86, -1.05), (-0.3, -1.40), (0.4, -1.36), (0.88, -0.95), (0.92, -0.5), (0, -0.58)]
_PEAK = [(-0.2, -0.66), (0.7, -0.72), (1.45, -0.46), (1.4, -0.34), (0.7, -0.46), (-0.1, -0.48)]
_CROWN = [(-0.76, -0.6), (-0.70, -1.3), (-0.3, -1.48), (0.1, -1.40), (0.5, -1.46), (0.74, -1.2), (0.78, -0.6)]
_SQUARE_LENS = np.array([(-0.27, -0.2), (0.27, -0.2), (0.24, 0.2), (-0.24, 0.2), (-0.27, -0.2)])
_ROUND_LENS = 0.26 * unit_circle(16)[np.arange(17) % 16]
# fmt: on


@dataclass(frozen=True)
class Person:
    """What is known about a portrait: `hair` is one of HAIRS, `presentation` of PRESENTATIONS, `skin` of SKINS."""

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


@dataclass(frozen=True)
class _Look:
    """The free choices that several parts of one portrait share."""

    woman: bool
    hair: Color
    skin: Color
    style: str
    hairline: str
    jaw: float
    length: float


def _look(person: Person, rng: np.random.Generator) -> _Look:
    woman = person.presentation == "woman"
    long_hair = rng.random() < (0.92 if woman else 0.08)
    style = pick(rng, _LONG_STYLES if long_hair else _SHORT_STYLES[: 3 if woman else 4])
    fringe = pick(rng, ("centre", "side", "bangs", "swept") if long_hair else ("side", "bangs", "swept"))
    return _Look(
        woman=woman, hair=jitter(rng, _HAIR_COLORS[person.hair], 12), skin=jitter(rng, _SKIN_COLORS[person.skin], 9),
        style=style, hairline="receding" if style == "receding" else fringe,
        jaw=(0.50 if woman else 0.60) + 0.10 * rng.random(), length=rng.random(),
    )  # fmt: skip


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
        """A closed smooth curve through `points`."""
        self.polygon(_spline(len(points)) @ np.asarray(points, dtype=float), color)

    def even(self, *right: tuple[float, float], color: Color) -> None:
        """A blob that is its own mirror image; `right` is its right half with the middle points at both ends."""
        self.blob([*right, *((-x, y) for x, y in right[-2:0:-1])], color)

    def ellipse(self, x: float, y: float, rx: float, ry: float, color: Color) -> None:
        self.polygon(unit_circle(24) * (rx, ry) + np.array((x, y)), color)

    def line(self, points: Points, color: Color, width: float) -> None:
        self.draw.line(self._pixels(points), (*color, 255), max(1, round(width * self.unit)), joint="curve")


def _back_hair(pen: _Pen, look: _Look) -> None:
    """What hangs behind the face and shoulders."""
    shade = mix(look.hair, (30, 14, 10), 0.22)
    down, low = 1.15 + 0.75 * look.length, 0.72 + 0.3 * look.length
    if look.style == "straight":
        side = (0.72, -1.0), (1.0, -0.2), (1.04, 0.5 * down), (1.0, down), (0.4, down + 0.08)
        pen.even((0, -1.2), *side, (0, down), color=shade)
    elif look.style == "wavy":
        side = (0.78, -1.02), (1.02, -0.4), (0.98, 0.1), (1.2, 0.45), (1.08, 0.85), (1.24, down), (0.6, down + 0.1)
        pen.even((0, -1.24), *side, (0, down), color=shade)
    elif look.style == "bob":
        side = (0.78, -1.0), (1.06, -0.2), (1.1, low - 0.2), (0.9, low), (0.4, low)
        pen.even((0, -1.22), *side, (0, low), color=shade)
    elif look.style == "curly":
        for k, (x, y) in enumerate(unit_circle(12).tolist()):
            r = 0.42 + 0.08 * look.length + 0.06 * (k % 2)
            pen.ellipse(0.92 * x, 0.95 * y - 0.12 + (0.25 if y > 0 else 0), r, r, mix(shade, look.hair, 0.5 * (k % 2)))
    elif look.style == "ponytail":
        tail = (1.35, -0.4), (1.2, 0.3), (1.35, 0.9 + 0.4 * look.length), (1.05, 0.7), (0.85, 0.0)
        pen.blob([(0.4, -0.9), (1.0, -0.95), *tail, (0.8, -0.5)], shade)
    elif look.style == "bun":
        pen.ellipse(0.1, -1.28, 0.42, 0.38, shade)
        pen.ellipse(0.06, -1.32, 0.30, 0.26, look.hair)


def _body(pen: _Pen, look: _Look, rng: np.random.Generator) -> None:
    """Shoulders in a plain or striped garment, and the neck."""
    wide, top = (1.42 if look.woman else 1.72) + 0.2 * rng.random(), 1.34
    neck = 0.30 if look.woman else 0.38
    cloth = jitter(rng, pick(rng, _CLOTHES), 12)
    shoulder = (0.42, top - 0.02), (0.9, top + 0.12), (wide, top + 0.45), (wide + 0.14, top + 1.3)
    pen.even((0, top), *shoulder, (wide + 0.2, 6), (0, 6), color=cloth)
    if rng.random() < 0.25:
        stripe = mix(cloth, (255, 255, 255) if sum(cloth) < 560 else (70, 90, 130), 0.45)
        for y in np.arange(top + 0.5, 4.0, 0.42).tolist():
            pen.line([(-wide - 0.1, y + 0.1), (0, y), (wide + 0.1, y + 0.1)], stripe, 0.12)
    _neckline(pen, look, neck, top, cloth, rng)
    base = (neck + 0.04, top - 0.02), (0.0, top + 0.12), (-neck - 0.04, top - 0.02)
    pen.polygon([(-neck, 0.5), (neck, 0.5), *base], look.skin)
    chin = mix(look.skin, (110, 40, 30), 0.22)
    pen.polygon([(-neck, 0.6), (neck, 0.6), (neck, 1.02), (0.0, 1.2), (-neck, 1.02)], chin)


def _neckline(pen: _Pen, look: _Look, neck: float, top: float, cloth: Color, rng: np.random.Generator) -> None:
    """Open (more often and deeper for women), a shirt's collar (with a tie for some men), or a round neck."""
    cut, deep = rng.random(), 0.6 + 0.8 * rng.random()
    if cut < (0.6 if look.woman else 0.35):
        low = top + deep * (0.55 if look.woman else 0.26)
        pen.even((0, top - 0.3), (neck + 0.28, top - 0.04), (0.36, 0.5 * (top + low)), (0, low), color=look.skin)
    elif cut < 0.8:
        pen.polygon([(-neck - 0.1, top - 0.1), (0, top + 0.42), (neck + 0.1, top - 0.1)], look.skin)
        for side in (-1, 1):
            flap = (neck - 0.02, top - 0.22), (neck + 0.22, top - 0.02), (0.34, top + 0.46), (0, top + 0.2)
            pen.polygon([(side * x, y) for x, y in flap], mix(cloth, (255, 255, 255), 0.75))
        if not look.woman and rng.random() < 0.5:
            tie = pick(rng, _CLOTHES)
            knot = [(-0.15, top + 0.18), (0.15, top + 0.18), (0.09, top + 0.42), (-0.09, top + 0.42)]
            pen.polygon([(-0.12, top + 0.22), (0.12, top + 0.22), (0.2, 3.6), (-0.2, 3.6)], tie)
            pen.polygon(knot, mix(tie, (0, 0, 0), 0.25))
    else:
        rib = mix(cloth, (20, 16, 30), 0.28)
        pen.even((0, top - 0.24), (neck + 0.1, top - 0.22), (neck + 0.18, top + 0.08), (0, top + 0.2), color=rib)


def _head(pen: _Pen, look: _Look, rng: np.random.Generator) -> None:
    """Ears, earrings and the face itself."""
    shade = mix(look.skin, (110, 40, 30), 0.18)
    for side in (-1, 1):
        pen.ellipse(side * 0.80, 0.08, 0.15, 0.22, look.skin)
        pen.ellipse(side * 0.82, 0.08, 0.07, 0.12, shade)
    if rng.random() < (0.65 if look.woman else 0.04):
        gem, r = pick(rng, _GEMS), 0.07 + 0.05 * rng.random()
        for side in (-1, 1):
            pen.ellipse(side * 0.84, 0.36 + r, r, 1.3 * r, gem)
    cheek = (0.55, -0.86), (0.78, -0.35), (0.78, 0.15), (look.jaw + 0.08, 0.62), (0.6 * look.jaw, 0.92)
    pen.even((0, -1.0), *cheek, (0, 1.0), color=look.skin)


def _beard(pen: _Pen, look: _Look, rng: np.random.Generator) -> None:
    """A full beard, stubble, a moustache, a goatee or a clean chin."""
    kind, grown, jaw = rng.random(), rng.random(), look.jaw
    if look.style in _LONG_STYLES:
        kind *= 0.65  # cues add up: long hair more often comes with a beard
    color = mix(look.hair, (30, 14, 8), 0.18)
    if kind < 0.48:
        full = kind < 0.30
        tone = color if full else mix(look.skin, mix(look.hair, (50, 40, 44), 0.55), 0.36)
        chin = (1.06 + 0.18 * grown) if full else 1.0
        outer = (0.79, 0.1), (jaw + 0.10, 0.64), (0.62 * jaw, chin - 0.06), (0, chin)
        upper = (0.16, 0.34), (0.40, 0.40), (0.62, 0.34)
        pen.even((0, 0.36), *upper, *outer, color=tone)
    elif kind < 0.60:
        pen.blob(_MOUSTACHE, color)
    elif kind < 0.68:
        pen.even((0, 0.74), (0.2, 0.78), (0.2, 0.98), (0, 1.08), color=color)


def _features(pen: _Pen, look: _Look, smile: bool, rng: np.random.Generator) -> None:
    """Cheeks, eyes, brows, nose and mouth."""
    wide, big, high, lift = (0.31, 0.9, -0.06, 0.0) + rng.random(4) * (0.05, 0.3, 0.08, 0.05)
    blush = mix(look.skin, (226, 90, 90), 0.22 if look.woman else 0.12)
    if rng.random() < 0.75:
        for side in (-1, 1):
            pen.ellipse(side * 0.48, high + 0.36, 0.15, 0.10, blush)
    iris, ink = pick(rng, _IRISES), (34, 24, 24)
    lashes = rng.random() < ((1.0 if look.style in _SHORT_STYLES else 0.85) if look.woman else 0.02)
    brow, thick = mix(look.hair, (50, 30, 24), 0.4), (0.05 if look.woman else 0.085)
    for side in (-1, 1):
        x = side * wide
        pen.ellipse(x, high, 0.15 * big, 0.115 * big, (252, 252, 252))
        pen.ellipse(x, high, 0.085 * big, 0.10 * big, iris)
        pen.ellipse(x, high, 0.045 * big, 0.05 * big, ink)
        pen.ellipse(x + 0.03, high - 0.04, 0.025, 0.025, (255, 255, 255))
        if lashes:
            lid = (0.15, -0.05), (0.0, -0.13 * big), (-0.16, -0.06), (-0.23, -0.14)
            pen.line([(x - side * dx, high + dy) for dx, dy in lid], ink, 0.05)
        arch = (0.15, -0.26 - lift), (0.0, -0.31 - lift), (-0.18, -0.24)
        pen.line([(x - side * dx, high + dy) for dx, dy in arch], brow, thick)
    nose = mix(look.skin, (120, 50, 40), 0.28)
    pen.line([(0.02, high + 0.1), (0.10, high + 0.33), (-0.03, high + 0.36)], nose, 0.045)
    _mouth(pen, look, smile, rng)


def _mouth(pen: _Pen, look: _Look, smile: bool, rng: np.random.Generator) -> None:
    """A smile, with or without teeth, or a straight mouth."""
    y, (red, wide, deep) = 0.54, (0.5, 0.27, 0.22) + rng.random(3) * (0.3, 0.06, 0.08)
    lip = mix(look.skin, (196, 40, 66), red) if look.woman else mix(look.skin, (116, 24, 30), 0.6)
    if not smile:
        pen.line([(-0.19, y + 0.02), (0, y), (0.19, y + 0.02)], lip, 0.09 if look.woman else 0.075)
    elif rng.random() < 0.7:
        corner = wide, y - 0.09
        pen.even((0, y - 0.03), corner, (0.6 * wide, y + 0.6 * deep), (0, y + deep), color=lip)
        inner = (0.8 * wide, y - 0.045), (0.5 * wide, y + 0.42 * deep)
        pen.even((0, y), *inner, (0, y + 0.64 * deep), color=(254, 253, 248))
    else:
        half = (0.55 * wide, y + 0.08), (wide, y - 0.09)
        pen.line([(-x, y) for x, y in half[::-1]] + [(0, y + 0.13), *half], lip, 0.085)


def _front_hair(pen: _Pen, look: _Look) -> None:
    """The cap of hair over the skull down to the hairline, and locks beside the face."""
    rise, side = _RISE.get(look.style, 0.2), 0.86 if look.style in _SHORT_STYLES else 0.94
    top = (-0.66, -0.95 - 0.5 * rise), (-0.1, -1.02 - rise), (0.55, -0.98 - 0.7 * rise)
    skull = [(-side, 0.0), (-side, -0.5), *top, (side, -0.55), (side, 0.0)]
    line = _HAIRLINES[look.hairline]
    if look.style != "receding":  # the shadow that hair throws on the forehead
        inside = [(0.96 * x, y + 0.07) for x, y in line]
        pen.blob([(-0.72, -0.3), (-0.5, -0.8), (0.5, -0.8), (0.72, -0.3), *inside], mix(look.skin, (96, 40, 30), 0.2))
    pen.blob(skull + line, look.hair)
    if look.style == "curls":
        light = mix(look.hair, (255, 240, 200), 0.10)
        for k in range(7):
            a = np.pi * (1.08 + 0.14 * k)
            pen.ellipse(0.74 * np.cos(a), 0.86 * np.sin(a) - 0.12, 0.25, 0.24, look.hair if k % 2 else light)
    elif look.style in ("straight", "wavy"):
        lock = (0.70, -0.3), (0.98, -0.25), (1.02, 0.4), (0.98, 1.05), (0.84, 0.9), (0.80, 0.3)
        for s in (-1, 1):
            pen.blob([(s * x, y) for x, y in lock], look.hair)
    gloss = mix(look.hair, (255, 246, 220), 0.22)
    pen.line([(-0.55, -0.78 - 0.5 * rise), (-0.2, -0.92 - 0.6 * rise), (0.2, -0.93 - 0.6 * rise)], gloss, 0.06)


def _hat(pen: _Pen, rng: np.random.Generator) -> None:
    """A knitted hat with a bobble, a cap with its peak to the side, or a brimmed hat."""
    cloth = jitter(rng, pick(rng, _CLOTHES), 14)
    band = mix(cloth, (20, 16, 30), 0.3)
    kind = pick(rng, ("knitted", "cap", "brimmed"))
    if kind == "knitted":
        pen.blob(_KNITTED, cloth)
        pen.blob(_CUFF, band)
        pen.ellipse(0, -1.58, 0.2, 0.2, mix(cloth, (255, 255, 255), 0.6))
    elif kind == "cap":
        pen.blob(_CAP, cloth)
        pen.blob(_PEAK, band)
    else:
        pen.blob(_CROWN, cloth)
        pen.polygon([(-0.77, -0.86), (0.77, -0.86), (0.80, -0.6), (-0.80, -0.6)], band)
        pen.ellipse(0, -0.60, 1.45, 0.17, cloth)


def _glasses(pen: _Pen, rng: np.random.Generator) -> None:
    frame, lens = pick(rng, _FRAMES), pick(rng, (_SQUARE_LENS, _ROUND_LENS))
    for side in (-1, 1):
        pen.line(lens + np.array((side * 0.34, 0.0)), frame, 0.07)
        pen.line([(side * 0.61, -0.06), (side * 0.82, -0.1)], frame, 0.07)
    pen.line([(-0.09, -0.04), (0.09, -0.04)], frame, 0.07)


def draw_person(person: Person, rng: np.random.Generator, size: int) -> Image.Image:
    """The bust portrait of `person` on a transparent RGBA image (size, size), its alpha 0 or 255."""
    look = _look(person, rng)
    image = Image.new("RGBA", (size, size), (*look.hair, 0))
    x, y, scale, tilt, turned = rng.random(5).tolist()
    unit = size * (0.21 + 0.05 * scale)
    origin = (size * (0.40 + 0.20 * x), size * (0.40 + 0.06 * y))
    head = _Pen(image, origin, unit, 0.20 * (tilt - 0.5), turned < 0.5)
    body = _Pen(image, origin, unit, 0.0, turned < 0.5)
    _back_hair(head, look)
    _body(body, look, rng)
    _head(head, look, rng)
    if not look.woman:
        _beard(head, look, rng)
    _features(head, look, person.smile, rng)
    _front_hair(head, look)
    if person.hat:
        _hat(head, rng)
    if person.glasses:
        _glasses(head, rng)
    return image
