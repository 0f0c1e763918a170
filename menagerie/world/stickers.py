"""Written words: paper labels stuck on a picture, and sign boards that fill one.

Glyphs are rendered one by one, turned, and pasted, so the box of every letter is that of its ink after rotation.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from math import cos, radians, sin
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from menagerie.world.paint import Color, mix, pick

STICKER_WORDS: tuple[str, ...] = (
    "fox", "owl", "duck", "swan", "crab", "bee", "wolf", "frog", "lion", "moth",
    "tiger", "zebra", "panda", "shark", "gull", "camel", "pig", "horse", "dove", "snake",
)  # fmt: skip

LetterBox = tuple[str, float, float, float, float]  # letter, x0, y0, x1, y1 as fractions of the picture

# The DejaVu faces in matplotlib's package data, found without importing matplotlib.
_FACES = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSans-BoldOblique",
)
_CAP_HEIGHT = 0.729  # of an em, the same in every DejaVu face
_SIZE_STEP = 3  # font sizes are rounded to this many pixels, which keeps the glyph cache small

_PAPERS: tuple[Color, ...] = (
    (255, 255, 255), (252, 250, 242), (255, 241, 150), (255, 228, 110), (214, 240, 255),
    (255, 221, 230), (220, 246, 214), (236, 226, 252), (255, 226, 196),
)  # fmt: skip
_INKS: tuple[Color, ...] = ((16, 16, 20), (24, 30, 62), (70, 16, 22), (20, 52, 34), (52, 26, 66))
_SHADOW = (10, 10, 20, 96)


class _Glyph(NamedTuple):
    mask: Image.Image  # mode L, the ink only
    left: float  # from the pen position to the ink
    top: float  # from the baseline to the top of the ink, negative above it
    advance: float


@lru_cache(maxsize=1)
def _font_folder() -> Path:
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("The DejaVu fonts come with matplotlib; install it with pip install matplotlib.")
    return Path(next(iter(spec.submodule_search_locations))) / "mpl-data" / "fonts" / "ttf"


@lru_cache(maxsize=256)
def _font(face: str, pixels: int) -> ImageFont.FreeTypeFont:
    path = str(_font_folder() / f"{face}.ttf")
    return ImageFont.truetype(path, pixels, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=4096)
def _glyph(face: str, pixels: int, letter: str) -> _Glyph:
    font = _font(face, pixels)
    x0, y0, x1, y1 = font.getbbox(letter, anchor="ls")
    mask = Image.new("L", (x1 - x0, y1 - y0), 0)
    ImageDraw.Draw(mask).text((-x0, -y0), letter, fill=255, font=font, anchor="ls")
    return _Glyph(mask, x0, y0, font.getlength(letter))


class _Line(NamedTuple):
    """A word set in one face: each glyph with its pen position, and the box of the ink around the origin."""

    word: str
    glyphs: list[_Glyph]
    pens: list[float]
    left: float
    top: float
    right: float
    bottom: float


def _set_line(word: str, face: str, cap_height: float, max_width: float, spacing: float) -> _Line:
    """`word` at `cap_height` px, smaller where it would pass `max_width` px; `spacing` in ems between letters."""
    em = cap_height / _CAP_HEIGHT
    for _ in range(2):
        pixels = max(_SIZE_STEP, round(em / _SIZE_STEP) * _SIZE_STEP)
        glyphs = [_glyph(face, pixels, letter) for letter in word]
        gap = spacing * pixels
        pens, pen = [], 0.0
        for glyph in glyphs:
            pens.append(pen)
            pen += glyph.advance + gap
        left = glyphs[0].left
        right = pens[-1] + glyphs[-1].left + glyphs[-1].mask.width
        if right - left <= max_width:
            break
        em = (pixels - _SIZE_STEP / 2) * max_width / (right - left)
    top = min(glyph.top for glyph in glyphs)
    bottom = max(glyph.top + glyph.mask.height for glyph in glyphs)
    return _Line(word, glyphs, pens, left, top, right, bottom)


class _Frame(NamedTuple):
    """Local coordinates turned by `angle` degrees (anticlockwise, as Pillow turns) around `center` px."""

    center: tuple[float, float]
    angle: float

    def point(self, x: float, y: float) -> tuple[float, float]:
        c, s = cos(radians(self.angle)), sin(radians(self.angle))
        return self.center[0] + c * x + s * y, self.center[1] - s * x + c * y

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, cut: float = 0.0) -> list[tuple[float, float]]:
        """Corner points; `cut` px chamfers each corner, which reads as rounded once the picture is reduced."""
        k = cut * 0.3
        corners = [
            (x0, y0 + cut), (x0 + k, y0 + k), (x0 + cut, y0), (x1 - cut, y0), (x1 - k, y0 + k), (x1, y0 + cut),
            (x1, y1 - cut), (x1 - k, y1 - k), (x1 - cut, y1), (x0 + cut, y1), (x0 + k, y1 - k), (x0, y1 - cut),
        ]  # fmt: skip
        return [self.point(x, y) for x, y in corners]


def _write(layer: Image.Image, line: _Line, frame: _Frame, ink: Color) -> list[LetterBox]:
    """Pastes the letters, the ink of the whole word centred in `frame`; returns the box of each letter's ink."""
    width, height = layer.size
    middle_x, middle_y = (line.left + line.right) / 2, (line.top + line.bottom) / 2
    boxes: list[LetterBox] = []
    for letter, glyph, pen in zip(line.word, line.glyphs, line.pens, strict=True):
        x = pen + glyph.left + glyph.mask.width / 2 - middle_x
        y = glyph.top + glyph.mask.height / 2 - middle_y
        turned = glyph.mask.rotate(frame.angle, Image.Resampling.BILINEAR, expand=True)
        cx, cy = frame.point(x, y)
        x0, y0 = round(cx - turned.width / 2), round(cy - turned.height / 2)
        layer.paste(ink, (x0, y0), turned)
        left, top, right, bottom = turned.getbbox() or (0, 0, *turned.size)
        boxes.append((letter, (x0 + left) / width, (y0 + top) / height, (x0 + right) / width, (y0 + bottom) / height))
    return boxes


def _cased(word: str, rng: np.random.Generator) -> str:
    return pick(rng, (word.upper(), word.lower(), word.capitalize()))


def _placed(half: tuple[float, float], angle: float, size: int, margin: float, place: tuple[float, float]) -> _Frame:
    """The frame of a turned rectangle of half-size `half` px at `place` (0 … 1 both ways) within the picture."""
    c, s = cos(radians(angle)), abs(sin(radians(angle)))
    reach = c * half[0] + s * half[1] + margin, c * half[1] + s * half[0] + margin
    x, y = (min(r, size / 2) + p * max(0.0, size - 2 * r) for r, p in zip(reach, place, strict=True))
    return _Frame((x, y), angle)


def draw_sticker(word: str, rng: np.random.Generator, size: int) -> tuple[Image.Image, list[LetterBox]]:
    """A paper label with `word` on it, somewhere on an otherwise transparent layer.

    Returns the RGBA layer (size, size) and, for each letter in order, (letter, x0, y0, x1, y1): the box of its ink
    in fractions of the picture. The letter is as written, upper or lower case.
    """
    text, face, paper, ink = _cased(word, rng), pick(rng, _FACES), pick(rng, _PAPERS), pick(rng, _INKS)
    tall, across, down, angle, pad, spacing, outlined = rng.random(7).tolist()
    line = _set_line(text, face, size * (15.5 + 8.5 * tall) / 112, 0.80 * size, 0.05 + 0.06 * spacing)
    w = (line.right - line.left) / 2 + size * (0.035 + 0.025 * pad)
    h = (line.bottom - line.top) / 2 + size * (0.03 + 0.025 * pad)
    frame = _placed((w, h), 16 * angle - 8, size, 0.02 * size, (across, down))

    layer = Image.new("RGBA", (size, size), (*paper, 0))
    draw = ImageDraw.Draw(layer)
    cut, edge = size * pick(rng, (0.0, 0.02, 0.04)), size * 0.007
    shadow = _Frame((frame.center[0] + 0.006 * size, frame.center[1] + 0.013 * size), frame.angle)
    draw.polygon(shadow.rectangle(-w, -h, w, h, cut), _SHADOW)
    border = ink if outlined < 0.35 else mix(paper, (0, 0, 0), 0.2)
    draw.polygon(frame.rectangle(-w, -h, w, h, cut), (*border, 255))
    draw.polygon(frame.rectangle(edge - w, edge - h, w - edge, h - edge, cut), (*paper, 255))
    return layer, _write(layer, line, frame, ink)


_BOARDS = ("poster", "chalkboard", "wooden", "road")


def _board(
    draw: ImageDraw.ImageDraw,
    frame: _Frame,
    half: tuple[float, float],
    unit: float,
    kind: str,
    rng: np.random.Generator,
) -> Color:
    """Draws the board `kind` of half-size `half` px, margins in `unit` px; returns the colour of its letters."""
    w, h = half

    def panel(inset: float, cut: float, color: Color) -> None:
        x, y = w - inset * unit, h - inset * unit
        draw.polygon(frame.rectangle(-x, -y, x, y, cut * unit), (*color, 255))

    if kind == "poster":
        paper = pick(rng, _PAPERS)
        panel(0, 0, mix(paper, (0, 0, 0), 0.14))
        panel(2, 0, paper)
        return pick(rng, _INKS)
    if kind == "chalkboard":
        panel(0, 2, (150, 104, 62))
        panel(4, 0, pick(rng, ((38, 62, 54), (40, 46, 54), (34, 34, 36))))
        return (246, 246, 238)
    if kind == "wooden":
        wood = pick(rng, ((214, 168, 112), (196, 146, 92), (226, 188, 138)))
        panel(0, 4, mix(wood, (0, 0, 0), 0.38))
        plank = (2 * h - 2 * unit) / 3
        for k in range(3):
            y = -h + unit + k * plank
            outline = frame.rectangle(-w + unit, y, w - unit, y + plank - 0.7 * unit, 2 * unit)
            draw.polygon(outline, (*mix(wood, (0, 0, 0), 0.05 * (k % 2)), 255))
        return (44, 24, 14)
    plate = pick(rng, ((24, 104, 66), (22, 82, 158), (168, 30, 36), (30, 30, 34)))
    panel(0, 6, plate)
    panel(2, 5, (250, 250, 250))
    panel(3.4, 4, plate)
    return (255, 255, 255)


def draw_sign(word: str, rng: np.random.Generator, size: int) -> tuple[Image.Image, list[LetterBox]]:
    """A large board (poster, chalkboard, wooden or road sign) with only `word` on it; returns as `draw_sticker`."""
    text, face, kind = _cased(word, rng), pick(rng, _FACES), pick(rng, _BOARDS)
    tall, across, down, angle, wide, high, spacing = rng.random(7).tolist()
    line = _set_line(text, face, size * (18 + 10 * tall) / 112, 0.76 * size, 0.05 + 0.05 * spacing)
    half_w = max((line.right - line.left) / 2 + 0.07 * size, size * (0.30 + 0.12 * wide))
    half_h = max((line.bottom - line.top) / 2 + 0.07 * size, size * (0.20 + 0.18 * high))
    frame = _placed((half_w, half_h), 8 * angle - 4, size, 0.01 * size, (across, 0.8 * down))

    layer = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    if kind in ("wooden", "road"):
        post = (112, 78, 48, 255) if kind == "wooden" else (150, 154, 160, 255)
        for x in (-0.6 * half_w, 0.6 * half_w):
            draw.polygon(frame.rectangle(x - 0.015 * size, 0, x + 0.015 * size, 1.5 * size), post)
    shadow = _Frame((frame.center[0] + 0.009 * size, frame.center[1] + 0.018 * size), frame.angle)
    draw.polygon(shadow.rectangle(-half_w, -half_h, half_w, half_h, 0.03 * size), _SHADOW)
    ink = _board(draw, frame, (half_w, half_h), size / 112, kind, rng)
    return layer, _write(layer, line, frame, ink)
