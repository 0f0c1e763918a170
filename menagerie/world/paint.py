"""Colours and a canvas: what habitats, people and stickers are painted with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw

Color = tuple[int, int, int]
Points = Sequence[tuple[float, float]] | np.ndarray  # (n, 2)
_Option = TypeVar("_Option")


def clip(r: float, g: float, b: float) -> Color:
    return min(255, max(0, int(r))), min(255, max(0, int(g))), min(255, max(0, int(b)))


def mix(a: Color, b: Color, t: float) -> Color:
    """The colour a fraction `t` of the way from `a` to `b`."""
    return clip(a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t)


def jitter(rng: np.random.Generator, color: Color, amount: float = 12.0) -> Color:
    """The colour moved a little: one shift for all channels and a smaller one for each."""
    common, r, g, b = ((rng.random(4) * 2 - 1) * amount).tolist()
    return clip(color[0] + common + 0.6 * r, color[1] + common + 0.6 * g, color[2] + common + 0.6 * b)


def pick(rng: np.random.Generator, options: Sequence[_Option]) -> _Option:
    """One of `options`, all equally likely (ten times faster than `rng.choice`)."""
    return options[int(rng.integers(len(options)))]


@lru_cache(maxsize=8)
def unit_circle(n: int) -> np.ndarray:
    """(n, 2) points on the unit circle, clockwise on the screen from three o'clock."""
    angles = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


@lru_cache(maxsize=8)
def steps(n: int) -> np.ndarray:
    return np.linspace(0, 1, n)


def gradient(size: int, stops: Sequence[tuple[float, Color]]) -> Image.Image:
    """RGB image (size, size) shaded from top to bottom through `stops`: (height as a fraction, colour), ascending."""
    heights = [height for height, _ in stops]
    colors = np.array([color for _, color in stops], dtype=float)
    rows = steps(size)
    column = np.stack([np.interp(rows, heights, colors[:, channel]) for channel in range(3)], axis=1)
    return Image.fromarray(column.astype(np.uint8)[:, None]).resize((size, size), Image.Resampling.NEAREST)


class Canvas:
    """A square picture painted in fractions of its side, with the random numbers that vary it."""

    def __init__(self, rng: np.random.Generator, size: int, stops: Sequence[tuple[float, Color]]) -> None:
        self.rng = rng
        self.size = size
        self.image = gradient(size, stops)
        self.draw = ImageDraw.Draw(self.image)

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def between(self, low: int, high: int) -> int:
        """An integer, both ends included."""
        return int(self.rng.integers(low, high + 1))

    def scatter(self, count: int, numbers: int) -> list[list[float]]:
        """`count` rows of uniform `numbers` in [0, 1)."""
        return self.rng.random((count, numbers)).tolist()

    def polygon(self, points: Points, color: Color) -> None:
        self.draw.polygon((np.asarray(points) * self.size).ravel().tolist(), color)

    def stamp(self, outline: np.ndarray, x: float, y: float, w: float, h: float, color: Color) -> None:
        """A ready outline (n, 2) around its own origin, scaled by `w` and `h` and put at (x, y)."""
        s = self.size
        self.draw.polygon((outline * (w * s, h * s) + (x * s, y * s)).ravel().tolist(), color)

    def box(self, x0: float, y0: float, x1: float, y1: float, color: Color) -> None:
        s = self.size
        self.draw.rectangle((x0 * s, y0 * s, x1 * s, y1 * s), color)

    def ellipse(self, x: float, y: float, rx: float, ry: float, color: Color) -> None:
        self.stamp(unit_circle(20), x, y, rx, ry, color)

    def dot(self, x: float, y: float, r: float, color: Color) -> None:
        """A small disc: quicker than `ellipse`, without fractions of a pixel."""
        s = self.size
        self.draw.ellipse(((x - r) * s, (y - r) * s, (x + r) * s, (y + r) * s), color)

    def line(self, points: Sequence[float], color: Color, width: float) -> None:
        """Through `points` x0, y0, x1, y1, …"""
        self.draw.line([p * self.size for p in points], color, max(1, round(width * self.size)))

    def ridge(self, heights: np.ndarray, color: Color, bottom: float = 1.0) -> None:
        """Fills from a skyline of evenly spaced `heights` (n,) down to `bottom`."""
        n = len(heights)
        outline = np.empty((n + 2, 2))
        outline[:n, 0] = steps(n)
        outline[:n, 1] = heights
        outline[n:] = ((1, bottom), (0, bottom))
        self.polygon(outline, color)

    def hills(self, y: float, height: float, color: Color, bottom: float = 1.0, waves: float = 1.5) -> None:
        """Soft rolling hills around `y`, `height` up and down, about `waves` of them across."""
        a, b, c = self.rng.random(3).tolist()
        x = steps(25) * 2 * np.pi * waves
        skyline = 0.7 * np.sin(x * (0.7 + 0.5 * a) + 6.3 * b) + 0.3 * np.sin(2.3 * x + 6.3 * c)
        self.ridge(y + height * skyline, color, bottom)
