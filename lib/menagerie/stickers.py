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

from lib.menagerie.paint import Color, mix, pick

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
    "DejaVuSerif-BoldItalic",
)
_CAP_HEIGHT = 0.729  # of an em, the same in every DejaVu face
_SIZE_STEP = 3  # font sizes are rounded to this many pixels, which keeps the glyph cache small

_PAPERS: tuple[Color, ...] = (
    (255, 255, 255), (252, 250, 242), (255, 241, 150), (255, 228, 110), (214, 240, 255),
    (255, 221, 230), (220, 246, 214), (236, 226, 252), (255, 226, 196),
)  # fmt: skip
_INKS: tuple[Color, ...] = ((16, 16, 20), (24, 30, 62), (70, 16, 22), (20, 52, 34), (52, 26, 66))


class _Glyph(NamedTuple):
    mask: Image.Image  # mode L, the ink only
    left: float  # from the pen position to the ink
    top: float  # from the baseline to the top of the ink, negative above it
    advance: float


@lru_cache(maxsize=1)
def _font_folder() -> Path:
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("The DejaVu fonts come with matplotlib, which is not installed: pip install matplotlib.")
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


def draw_sticker(word: str, rng: np.random.Generator, size: int) -> tuple[Image.Image, list[LetterBox]]:
    """A paper label with `word` on it, somewhere on an otherwise transparent layer.

    Returns the RGBA layer (size, size) and, for each letter in order, (letter, x0, y0, x1, y1): the box of its ink
    in fractions of the picture. The letter is as written, upper or lower case.
    """
    text = _cased(word, rng)
    face = pick(rng, _FACES)
    paper = pick(rng, _PAPERS)
    ink = pick(rng, _INKS)
    tall, across, down, angle, pad, spacing = rng.random(6)
    line = _set_line(text, face, size * (15.5 + 8.5 * tall) / 112, 0.80 * size, 0.05 + 0.06 * spacing)

    pad_x, pad_y = size * (0.035 + 0.025 * pad), size * (0.03 + 0.025 * pad)
    half_w, half_h = (line.right - line.left) / 2 + pad_x, (line.bottom - line.top) / 2 + pad_y
    turn = 16 * angle - 8
    c, s = cos(radians(turn)), abs(sin(radians(turn)))
    margin = 0.02 * size
    reach_x, reach_y = c * half_w + s * half_h + margin, c * half_h + s * half_w + margin
    center = reach_x + across * max(0.0, size - 2 * reach_x), reach_y + down * max(0.0, size - 2 * reach_y)
    frame = _Frame(center, turn)

    layer = Image.new("RGBA", (size, size), (*paper, 0))
    draw = ImageDraw.Draw(layer)
    cut, edge = size * 0.02 * int(rng.integers(3)), size * 0.007
    shadow = _Frame((center[0] + 0.006 * size, center[1] + 0.013 * size), turn)
    draw.polygon(shadow.rectangle(-half_w, -half_h, half_w, half_h, cut), (10, 10, 20, 96))
    border = ink if rng.random() < 0.35 else mix(paper, (0, 0, 0), 0.2)
    draw.polygon(frame.rectangle(-half_w, -half_h, half_w, half_h, cut), (*border, 255))
    inner = half_w - edge, half_h - edge
    draw.polygon(frame.rectangle(-inner[0], -inner[1], *inner, cut), (*paper, 255))
    return layer, _write(layer, line, frame, ink)


def _board(draw: ImageDraw.ImageDraw, frame: _Frame, half: tuple[float, float], size: int, kind: int, rng) -> Color:
    """Draws one of four boards (poster, chalkboard, wooden sign, road sign) and returns the colour of its letters."""
    w, h = half
    unit = size / 112
    draw.polygon(_Frame((frame.center[0] + unit, frame.center[1] + 2 * unit), frame.angle).rectangle(-w, -h, w, h, 3 * unit), (10, 10, 20, 96))
    if kind == 0:
        paper = pick(rng, _PAPERS)
        draw.polygon(frame.rectangle(-w, -h, w, h), (*mix(paper, (0, 0, 0), 0.14), 255))
        draw.polygon(frame.rectangle(-w + 2 * unit, -h + 2 * unit, w - 2 * unit, h - 2 * unit), (*paper, 255))
        return pick(rng, _INKS)
    if kind == 1:
        draw.polygon(frame.rectangle(-w, -h, w, h, 2 * unit), (150, 104, 62, 255))
        slate = pick(rng, ((38, 62, 54), (40, 46, 54), (34, 34, 36)))
        draw.polygon(frame.rectangle(-w + 4 * unit, -h + 4 * unit, w - 4 * unit, h - 4 * unit), (*slate, 255))
        return (246, 246, 238)
    if kind == 2:
        wood = pick(rng, ((214, 168, 112), (196, 146, 92), (226, 188, 138)))
        draw.polygon(frame.rectangle(-w, -h, w, h, 4 * unit), (*mix(wood, (0, 0, 0), 0.38), 255))
        planks = 3
        for k in range(planks):
            y0 = -h + unit + (2 * h - 2 * unit) * k / planks
            y1 = -h + unit + (2 * h - 2 * unit) * (k + 1) / planks
            draw.polygon(frame.rectangle(-w + unit, y0, w - unit, y1 - 0.7 * unit, 2 * unit), (*mix(wood, (0, 0, 0), 0.05 * (k % 2)), 255))
        return (44, 24, 14)
    plate = pick(rng, ((24, 104, 66), (22, 82, 158), (168, 30, 36), (30, 30, 34)))
    draw.polygon(frame.rectangle(-w, -h, w, h, 6 * unit), (*plate, 255))
    draw.polygon(frame.rectangle(-w + 2 * unit, -h + 2 * unit, w - 2 * unit, h - 2 * unit, 5 * unit), (250, 250, 250, 255))
    draw.polygon(frame.rectangle(-w + 3.4 * unit, -h + 3.4 * unit, w - 3.4 * unit, h - 3.4 * unit, 4 * unit), (*plate, 255))
    return (255, 255, 255)


def draw_sign(word: str, rng: np.random.Generator, size: int) -> tuple[Image.Image, list[LetterBox]]:
    """A large board (poster, chalkboard, wooden or road sign) with only `word` on it; returns as `draw_sticker`."""
    text = _cased(word, rng)
    face = pick(rng, _FACES)
    kind = int(rng.integers(4))
    tall, across, down, angle, wide, high, spacing = rng.random(7)
    line = _set_line(text, face, size * (18 + 10 * tall) / 112, 0.76 * size, 0.05 + 0.05 * spacing)
    turn = 8 * angle - 4
    half_w = max((line.right - line.left) / 2 + 0.07 * size, size * (0.30 + 0.12 * wide))
    half_h = max((line.bottom - line.top) / 2 + 0.07 * size, size * (0.20 + 0.18 * high))
    c, s = cos(radians(turn)), abs(sin(radians(turn)))
    reach_x, reach_y = c * half_w + s * half_h, c * half_h + s * half_w
    center = (
        reach_x + across * (size - 2 * reach_x) if 2 * reach_x < size else size / 2,
        reach_y + down * 0.8 * (size - 2 * reach_y),
    )
    frame = _Frame(center, turn)
    layer = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    if kind >= 2:  # boards that stand outdoors are on posts
        post = (112, 78, 48, 255) if kind == 2 else (150, 154, 160, 255)
        for x in (-0.6 * half_w, 0.6 * half_w):
            draw.polygon(frame.rectangle(x - 0.015 * size, 0, x + 0.015 * size, 1.5 * size), post)
    ink = _board(draw, frame, (half_w, half_h), size, kind, rng)
    return layer, _write(layer, line, frame, ink)
