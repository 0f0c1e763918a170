"""The brush all creatures are painted with: smooth shapes in unit coordinates on a small transparent layer.

Coordinates: x runs to where the creature looks, y runs down, both 0..1 over the layer without its margin.
Every shape gets an outline in a darker shade of its own colour.
"""

from functools import cache, lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw

Color = tuple[int, int, int]
Points = list[tuple[float, float]]

_MARGIN = 0.12  # of the layer's side, on each side: room for outlines, tilt and antlers
_CIRCLE = np.stack([np.cos(np.linspace(0, 2 * np.pi, 28, False)), np.sin(np.linspace(0, 2 * np.pi, 28, False))], 1)


@cache
def _spline(n: int, closed: bool) -> np.ndarray:
    """(M, n) weights: control points -> points on a Catmull-Rom curve through them."""
    steps = 5
    t = np.arange(steps)[:, None] / steps
    weights = 0.5 * np.hstack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3])
    segments = n if closed else n - 1
    matrix = np.zeros((segments * steps + (not closed), n))
    for segment in range(segments):
        for k in range(4):
            j = segment + k - 1
            j = j % n if closed else min(max(j, 0), n - 1)
            matrix[segment * steps : (segment + 1) * steps, j] += weights[:, k]
    if not closed:
        matrix[-1, -1] = 1
    return matrix


@lru_cache(maxsize=4096)
def rgb(code: str) -> Color:
    """(r, g, b) of "#rrggbb"."""
    return int(code[1:3], 16), int(code[3:5], 16), int(code[5:7], 16)


def shade(color: Color, factor: float) -> Color:
    """The colour made darker (factor < 1) or mixed with white (factor > 1)."""
    if factor <= 1:
        return tuple(int(c * factor) for c in color)
    return tuple(int(c + (255 - c) * (factor - 1)) for c in color)


class Brush:
    """Paints shapes on an RGBA layer of `side` pixels; `flip` mirrors, `tilt` turns (radians) about the centre."""

    def __init__(self, side: int, flip: bool, tilt: float, tint: np.ndarray, rng: np.random.Generator):
        self.side, self.flip, self.rng = side, flip, rng
        self.tint = tint  # (3,) multiplies every colour: individuals differ a little
        full = round(side * (1 + 2 * _MARGIN))
        self.layer = Image.new("RGBA", (full, full))
        self.draw = ImageDraw.Draw(self.layer)
        self.line = max(2, round(side * 0.013))
        cos, sin = np.cos(tilt) * side, np.sin(tilt) * side
        self.matrix = np.array([[cos, sin], [-sin, cos]])  # row vectors: p @ matrix
        if flip:
            self.matrix[:, 0] *= -1
        self.offset = np.array([full / 2, full / 2]) - np.array([0.5, 0.5]) @ self.matrix

    def color(self, code: str | Color) -> Color:
        """The individual's own shade of a colour."""
        base = rgb(code) if isinstance(code, str) else code
        tint = self.tint
        return min(int(base[0] * tint[0]), 255), min(int(base[1] * tint[1]), 255), min(int(base[2] * tint[2]), 255)

    def place(self, points: Points | np.ndarray) -> list[float]:
        """Unit coordinates -> flat pixel list x0, y0, x1, y1 ..."""
        return (np.asarray(points, float) @ self.matrix + self.offset).ravel().tolist()

    def curve(self, points: Points, closed: bool = True) -> np.ndarray:
        """(M, 2) points of the smooth curve through control points."""
        return _spline(len(points), closed) @ np.asarray(points, float)

    def _fill(self, flat: list[float], color: Color, outline: bool) -> None:
        if outline:
            edge = shade(color, 0.62)
            self.draw.line(flat + flat[:4], fill=edge, width=self.line * 2)
        self.draw.polygon(flat, fill=color)

    def blob(self, points: Points, color: str | Color, outline: bool = True) -> list[float]:
        """A smooth closed shape through control points; returns its pixel outline for `mask`."""
        flat = self.place(self.curve(points))
        self._fill(flat, self.color(color), outline)
        return flat

    def poly(self, points: Points, color: str | Color, outline: bool = True) -> None:
        """A shape with straight edges."""
        self._fill(self.place(points), self.color(color), outline)

    def oval(
        self, x: float, y: float, rx: float, ry: float, color: str | Color, angle: float = 0.0, outline: bool = True
    ) -> list[float]:
        """An ellipse about (x, y), turned by `angle` radians; returns its pixel outline for `mask`."""
        cos, sin = np.cos(angle), np.sin(angle)
        ring = _CIRCLE @ np.array([[rx * cos, rx * sin], [-ry * sin, ry * cos]]) + (x, y)
        flat = self.place(ring)
        self._fill(flat, self.color(color), outline)
        return flat

    def limb(
        self, points: Points, width: float, color: str | Color, tip: float | None = None, outline: bool = True
    ) -> None:
        """A smooth ribbon along points, `width` wide at the start and `tip` (default the same) at the end."""
        path = self.curve(points, closed=False) if len(points) > 2 else np.asarray(points, float)
        ends = np.concatenate([path[:1], path, path[-1:]])
        heading = ends[2:] - ends[:-2]
        normal = heading[:, ::-1] * (-1, 1) / (np.hypot(heading[:, :1], heading[:, 1:]) + 1e-9)
        half = np.linspace(width, width if tip is None else tip, len(path))[:, None] / 2
        ribbon = np.concatenate([path + normal * half, (path - normal * half)[::-1]])
        self._fill(self.place(ribbon), self.color(color), outline)
        if tip is None:
            self.oval(*path[-1], width / 2, width / 2, color, outline=False)

    def stroke(self, points: Points, width: float, color: str | Color) -> None:
        """A plain smooth line."""
        path = self.curve(points, closed=False) if len(points) > 2 else points
        self.draw.line(self.place(path), fill=self.color(color), width=max(1, round(width * self.side)))

    def eye(self, x: float, y: float, r: float, iris: str | None = None) -> None:
        """A round eye with a glint; with an iris colour, a ring round the pupil."""
        if iris:
            self.oval(x, y, r * 1.7, r * 1.7, iris)
        self.oval(x, y, r, r, (26, 22, 24), outline=False)
        px, py = self.place([(x, y)])
        g = max(1.0, r * self.side * 0.38)
        self.draw.ellipse((px - g * 1.3, py - g * 1.5, px + g * 0.7, py + g * 0.5), fill=(255, 255, 255))

    def mask(self, flat: list[float]) -> Image.Image:
        """L mask of a shape returned by `blob` or `oval`."""
        mask = Image.new("L", self.layer.size)
        ImageDraw.Draw(mask).polygon(flat, fill=255)
        return mask

    def inside(self, mask: Image.Image, shapes: list[np.ndarray | Points], color: str | Color) -> None:
        """Paint shapes (polygons in unit coordinates) only where the mask is: stripes, spots, bellies."""
        placed = [np.asarray(shape, float) @ self.matrix + self.offset for shape in shapes]
        low, high = np.vstack(placed).min(0).astype(int), np.vstack(placed).max(0).astype(int) + 2
        low, high = np.maximum(low, 0), np.minimum(high, self.layer.size)
        if (high <= low).any():
            return
        box = (*low.tolist(), *high.tolist())
        marks = Image.new("L", (box[2] - box[0], box[3] - box[1]))
        pen = ImageDraw.Draw(marks)
        for shape in placed:
            pen.polygon((shape - low).ravel().tolist(), fill=255)
        self.layer.paste(self.color(color), box, ImageChops.darker(marks, mask.crop(box)))

    def disc(self, x: float, y: float, rx: float, ry: float | None = None) -> np.ndarray:
        """(28, 2) points of an ellipse, for `inside`."""
        return _CIRCLE * (rx, rx if ry is None else ry) + (x, y)

    def finish(self) -> Image.Image:
        """The layer, shaded from the upper left, cropped to what was painted."""
        layer = self.layer.crop(self.layer.getbbox())
        alpha = layer.getchannel("A")  # 0 or 255
        step = max(2, round(self.side * 0.045))
        for color, dx, dy, strength in (
            ((30, 20, 50, 255), -step // 2, -step, 0.26),
            ((255, 250, 225, 255), step // 3, step // 2, 0.24),
        ):
            moved = Image.new("L", alpha.size)
            moved.paste(alpha, (dx, dy))
            layer.paste(color, (0, 0), ImageChops.subtract(alpha, moved, scale=1 / strength))
        return layer
