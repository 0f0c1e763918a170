"""Ten habitats: the scenery behind a creature, as layered flat illustration.

Each habitat is a vertical gradient (sky over ground) with layers of hills, plants, buildings … from far to near.
Colours, horizon, weather and the number of things vary within a habitat; the layout tells habitats apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

HABITATS: tuple[str, ...] = (
    "water", "forest", "snow", "desert", "meadow", "city", "night", "mountain", "beach", "swamp",
)  # fmt: skip

Color = tuple[int, int, int]
Ground = tuple[float, float]  # y_min, y_max: where feet may stand, in fractions of the height


class Canvas:
    """A square picture drawn in fractions of its side, with the random numbers that vary it."""

    def __init__(self, rng: np.random.Generator, size: int, stops: Sequence[tuple[float, Color]]) -> None:
        """Starts from a vertical gradient through `stops`: (height as a fraction, colour), heights ascending."""
        self.size = size
        self.rng = rng
        self.image = _gradient(size, stops)
        self.pen = ImageDraw.Draw(self.image)

    def polygon(self, points: np.ndarray, color: Color) -> None:
        """`points` (n, 2) in fractions."""
        self.pen.polygon((points * self.size).ravel().tolist(), color)

    def box(self, x0: float, y0: float, x1: float, y1: float, color: Color) -> None:
        s = self.size
        self.pen.rectangle((x0 * s, y0 * s, x1 * s, y1 * s), color)

    def ellipse(self, x: float, y: float, rx: float, ry: float, color: Color) -> None:
        self.polygon(_unit_circle(20) * (rx, ry) + (x, y), color)

    def line(self, points: Sequence[float], color: Color, width: float) -> None:
        s = self.size
        self.pen.line([p * s for p in points], color, max(1, round(width * s)))

    def ridge(self, heights: np.ndarray, color: Color, bottom: float = 1.0) -> None:
        """Fills from a skyline of evenly spaced `heights` down to `bottom`."""
        n = len(heights)
        outline = np.empty((n + 2, 2))
        outline[:n, 0] = np.linspace(0, 1, n)
        outline[:n, 1] = heights
        outline[n:] = ((1, bottom), (0, bottom))
        self.polygon(outline, color)

    def hills(self, y: float, height: float, color: Color, bottom: float = 1.0, waves: float = 1.5) -> None:
        """Soft rolling hills around `y`, `height` fractions up and down, about `waves` of them across."""
        a, b, c = self.rng.random(3)
        x = _steps(25) * 2 * np.pi * waves
        self.ridge(y + height * (0.7 * np.sin(x * (0.7 + 0.5 * a) + 6.3 * b) + 0.3 * np.sin(2.3 * x + 6.3 * c)), color, bottom)


@lru_cache(maxsize=8)
def _unit_circle(n: int) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


@lru_cache(maxsize=8)
def _steps(n: int) -> np.ndarray:
    return np.linspace(0, 1, n)


def _gradient(size: int, stops: Sequence[tuple[float, Color]]) -> Image.Image:
    """RGB image (size, size): one column of interpolated colours, widened."""
    heights = [height for height, _ in stops]
    colors = np.array([color for _, color in stops], dtype=float)
    rows = _steps(size)
    column = np.stack([np.interp(rows, heights, colors[:, c]) for c in range(3)], axis=1)
    return Image.fromarray(column.astype(np.uint8)[:, None]).resize((size, size), Image.Resampling.NEAREST)


def pick(rng: np.random.Generator, options: Sequence):
    return options[int(rng.integers(len(options)))]


def jitter(rng: np.random.Generator, color: Color, amount: float = 12.0) -> Color:
    """The colour moved a little: one shift for all channels and a smaller one for each."""
    common, r, g, b = (rng.random(4) * 2 - 1) * amount
    return _clip(color[0] + common + 0.6 * r, color[1] + common + 0.6 * g, color[2] + common + 0.6 * b)


def _clip(r: float, g: float, b: float) -> Color:
    return min(255, max(0, int(r))), min(255, max(0, int(g))), min(255, max(0, int(b)))


def mix(a: Color, b: Color, t: float) -> Color:
    """Colour a fraction `t` of the way from `a` to `b`."""
    return _clip(a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t)


# Skies by day, (top, horizon): clear, pale, warm, overcast.
_SKIES: tuple[tuple[Color, Color], ...] = (
    ((92, 168, 232), (206, 232, 246)),
    ((120, 186, 232), (232, 242, 244)),
    ((118, 160, 220), (252, 226, 196)),
    ((166, 186, 204), (222, 230, 234)),
    ((70, 148, 220), (178, 220, 244)),
)
_DUSK: tuple[tuple[Color, Color], ...] = (((112, 110, 180), (252, 186, 150)), ((86, 96, 160), (246, 168, 168)))


def _sky(rng: np.random.Generator, dusk: float = 0.15) -> tuple[Color, Color]:
    top, low = pick(rng, _DUSK if rng.random() < dusk else _SKIES)
    return jitter(rng, top), jitter(rng, low, 8)


def _sun(canvas: Canvas, sky: Color, y_max: float) -> None:
    x, y, r = canvas.rng.random(3)
    x, y, r = 0.1 + 0.8 * x, 0.06 + (y_max - 0.1) * y, 0.045 + 0.03 * r
    canvas.ellipse(x, y, 1.7 * r, 1.7 * r, mix(sky, (255, 246, 214), 0.35))
    canvas.ellipse(x, y, r, r, (255, 244, 200))


def _clouds(canvas: Canvas, sky: Color, y_max: float, count: int) -> None:
    color = mix(sky, (255, 255, 255), 0.65)
    for x, y, w in canvas.rng.random((count, 3)):
        y, w = 0.04 + (y_max - 0.06) * y, 0.07 + 0.08 * w
        canvas.ellipse(x, y, w, 0.26 * w, color)
        canvas.ellipse(x - 0.35 * w, y - 0.16 * w, 0.42 * w, 0.30 * w, color)
        canvas.ellipse(x + 0.25 * w, y - 0.24 * w, 0.5 * w, 0.38 * w, color)


def _weather(canvas: Canvas, sky: tuple[Color, Color], horizon: float) -> None:
    """A sun, clouds, both or an empty sky."""
    if canvas.rng.random() < 0.45:
        _sun(canvas, sky[0], horizon)
    _clouds(canvas, mix(*sky, 0.4), horizon, int(canvas.rng.integers(4)))


def _water(rng: np.random.Generator, size: int) -> tuple[Image.Image, Ground]:
    horizon = 0.28 + 0.2 * rng.random()
    sky = _sky(rng)
    far, near = pick(rng, (((96, 172, 206), (22, 92, 150)), ((112, 190, 200), (18, 110, 128)), ((108, 150, 196), (32, 70, 132)), ((84, 164, 196), (14, 78, 120))))
    far, near = jitter(rng, far), jitter(rng, near)
    canvas = Canvas(rng, size, [(0, sky[0]), (horizon, sky[1]), (horizon + 0.003, far), (1, near)])
    _weather(canvas, sky, horizon)
    if rng.random() < 0.55:
        shore = mix(jitter(rng, (92, 140, 108), 20), sky[1], 0.45)
        canvas.hills(horizon - 0.03, 0.03, shore, horizon, 1.2)
    light, dark = mix(far, (255, 255, 255), 0.45), mix(near, (0, 0, 30), 0.2)
    for k, (x, y, w) in enumerate(rng.random((26, 3))):
        y = y**1.3
        width = (0.04 + 0.16 * y) * (0.6 + 0.8 * w)
        _wave(canvas, x, horizon + 0.02 + (0.97 - horizon) * y, width, 0.006 + 0.012 * y, light if k % 3 else dark)
    if rng.random() < 0.45:
        _reeds(canvas, jitter(rng, (58, 112, 60), 16), int(rng.integers(5, 11)))
    return canvas.image, (horizon + 0.16, 0.94)


def _wave(canvas: Canvas, x: float, y: float, width: float, height: float, color: Color) -> None:
    """A crest: a thin sickle, pointed at both ends."""
    points = np.array([(-1.0, 0.3), (-0.5, -0.5), (0, -1), (0.5, -0.5), (1, 0.3), (0.4, 0.1), (0, -0.1), (-0.4, 0.1)])
    canvas.polygon(points * (width / 2, height) + (x, y), color)


def _reeds(canvas: Canvas, color: Color, count: int) -> None:
    """Stems with brown cattails along the bottom of one side."""
    side = 0.0 if canvas.rng.random() < 0.5 else 0.78
    for x, h, lean in canvas.rng.random((count, 3)):
        x, top, lean = side + 0.22 * x, 1 - (0.22 + 0.28 * h), 0.06 * (lean - 0.5)
        canvas.line((x, 1, x + lean, top), color, 0.011)
        if h > 0.4:
            canvas.ellipse(x + lean, top, 0.013, 0.042, (112, 70, 40))


def _forest(rng: np.random.Generator, size: int) -> tuple[Image.Image, Ground]:
    floor = 0.56 + 0.12 * rng.random()
    leaf = jitter(rng, pick(rng, ((64, 122, 62), (52, 104, 66), (88, 130, 54), (150, 124, 44), (170, 96, 40))), 12)
    mist = mix(leaf, (226, 240, 200), 0.62)
    earth = jitter(rng, pick(rng, ((92, 84, 48), (76, 92, 48), (104, 78, 50))))
    canvas = Canvas(rng, size, [(0, mix(mist, leaf, 0.35)), (floor, mist), (floor + 0.01, mix(earth, leaf, 0.4)), (1, mix(earth, (20, 20, 10), 0.35))])
    for x, w in rng.random((7, 2)):
        _trunk(canvas, x, 0.010 + 0.012 * w, floor + 0.01, mix(mist, (70, 62, 46), 0.45))
    bark = jitter(rng, pick(rng, ((84, 58, 40), (66, 52, 42), (104, 76, 54), (206, 204, 196))))
    canvas.hills(floor + 0.02, 0.015, mix(earth, leaf, 0.45), 1.0, 2)
    for x, w in rng.random((int(rng.integers(3, 6)), 2)):
        _trunk(canvas, x, 0.022 + 0.022 * w, floor + 0.05 + 0.06 * w, bark)
    for x, y, r in rng.random((13, 3)):
        canvas.ellipse(x, 0.14 * y - 0.02, 0.10 + 0.08 * r, 0.07 + 0.05 * r, mix(leaf, (10, 40, 20), 0.15 + 0.35 * y))
    for x, y, r in rng.random((6, 3)):
        _fern(canvas, x, 0.98 - 0.12 * y, 0.05 + 0.05 * r, mix(leaf, (16, 60, 26), 0.4))
    return canvas.image, (floor + 0.12, 0.95)


def _trunk(canvas: Canvas, x: float, w: float, y: float, color: Color) -> None:
    points = np.array([(x - w, -0.01), (x + w, -0.01), (x + 1.05 * w, y - 0.06), (x + 1.7 * w, y), (x - 1.7 * w, y), (x - 1.05 * w, y - 0.06)])
    canvas.polygon(points, color)
    points[[1, 2, 3], 0] = x + w * np.array([-0.3, -0.3, -0.2])
    canvas.polygon(points, mix(color, (0, 0, 0), 0.22))


def _fern(canvas: Canvas, x: float, y: float, r: float, color: Color) -> None:
    """A tuft of five blades."""
    tips = np.array([(-1.0, -0.5), (-0.55, -1.0), (0, -1.25), (0.55, -1.0), (1.0, -0.5)])
    base = np.array([(-0.35, 0), (-0.18, 0), (0, 0), (0.18, 0), (0.35, 0)])
    points = np.empty((10, 2))
    points[0::2], points[1::2] = tips, base * (1, 0) + (0.09, -0.15)
    points[-1] = 0.3, 0.05
    points = np.vstack([points, (-0.3, 0.05)])
    canvas.polygon(points * r + (x, y), color)


def _snow(rng: np.random.Generator, size: int) -> tuple[Image.Image, Ground]:
    horizon = 0.42 + 0.16 * rng.random()
    sky = pick(rng, (((150, 186, 220), (226, 236, 244)), ((186, 196, 208), (230, 232, 236)), ((176, 170, 208), (252, 222, 218)), ((112, 166, 216), (214, 232, 246))))
    sky = jitter(rng, sky[0]), jitter(rng, sky[1], 6)
    shade = jitter(rng, (206, 220, 238), 8)
    canvas = Canvas(rng, size, [(0, sky[0]), (horizon, sky[1]), (horizon + 0.01, (238, 244, 252)), (1, shade)])
    canvas.hills(horizon - 0.05, 0.05, mix(sky[0], (236, 242, 250), 0.6), horizon + 0.1, 1.3)
    for x, y, h in rng.random((int(rng.integers(3, 9)), 3)):
        _spruce(canvas, x, horizon + 0.02 + 0.06 * y, 0.13 + 0.17 * h, mix((44, 84, 82), sky[1], 0.25 * (1 - y)), snow=True)
    canvas.hills(horizon + 0.09, 0.025, (246, 249, 254), 1.0, 1.2)
    canvas.hills(0.84, 0.03, shade, 1.0, 1.0)
    s = size
    for x, y, r in rng.random((int(rng.integers(2)) * 45, 3)):
        r = (0.003 + 0.005 * r) * s
        canvas.pen.ellipse((x * s - r, y * s - r, x * s + r, y * s + r), (255, 255, 255))
    return canvas.image, (horizon + 0.2, 0.95)


def _spruce(canvas: Canvas, x: float, y: float, h: float, color: Color, snow: bool = False) -> None:
    """A conifer of three tiers standing at (x, y), `h` tall, white on its tiers in `snow`."""
    canvas.box(x - 0.03 * h, y - 0.12 * h, x + 0.03 * h, y, (84, 62, 48))
    for k in range(3):
        top, bottom, w = y - h * (0.48 + 0.26 * k), y - h * (0.08 + 0.26 * k), h * (0.34 - 0.075 * k)
        canvas.polygon(np.array([(x, top), (x + w, bottom), (x - w, bottom)]), color)
        if snow:
            m = 0.45
            left, right = x - w * m, x + w * m
            edge = top + (bottom - top) * m
            canvas.polygon(np.array([(x, top), (right, edge), (x + 0.1 * w, edge - 0.03 * h), (left, edge)]), (248, 251, 255))


def _desert(rng: np.random.Generator, size: int) -> tuple[Image.Image, Ground]:
    horizon = 0.38 + 0.16 * rng.random()
    sky = pick(rng, (((92, 172, 226), (250, 232, 196)), ((238, 170, 110), (254, 224, 160)), ((130, 190, 224), (252, 240, 214)), ((226, 132, 104), (253, 206, 148))))
    sky = jitter(rng, sky[0]), jitter(rng, sky[1], 8)
    sand = jitter(rng, pick(rng, ((226, 176, 104), (214, 150, 88), (232, 192, 128), (204, 128, 78))))
    canvas = Canvas(rng, size, [(0, sky[0]), (horizon, sky[1]), (1, sky[1])])
    _sun(canvas, sky[0], horizon)
    if rng.random() < 0.5:
        _mesa(canvas, horizon, mix(jitter(rng, (176, 96, 66)), sky[1], 0.35))
    _dune(canvas, horizon, 0.05, mix(sand, sky[1], 0.35))
    for x, h in rng.random((int(rng.integers(1, 4)), 2)):
        _cactus(canvas, x, horizon + 0.07 + 0.05 * h, 0.12 + 0.14 * h, jitter(rng, (84, 128, 74)))
    _dune(canvas, horizon + 0.13, 0.06, sand)
    _dune(canvas, 0.82, 0.06, mix(sand, (255, 244, 206), 0.25))
    return canvas.image, (horizon + 0.18, 0.95)


def _mesa(canvas: Canvas, horizon: float, color: Color) -> None:
    for x, w, h in canvas.rng.random((2, 3)):
        w, h = 0.10 + 0.14 * w, 0.08 + 0.12 * h
        y = horizon + 0.04
        canvas.polygon(np.array([(x - w, y), (x - 0.7 * w, y - h), (x + 0.6 * w, y - h), (x + w, y)]), color)
        canvas.polygon(np.array([(x + 0.1 * w, y), (x + 0.25 * w, y - h), (x + 0.6 * w, y - h), (x + w, y)]), mix(color, (60, 20, 30), 0.2))


def _dune(canvas: Canvas, y: float, height: float, color: Color) -> None:
    """A sand ridge with a lit crest and a shaded slip face."""
    peak = 0.2 + 0.6 * canvas.rng.random()
    shade = mix(color, (120, 60, 40), 0.28)
    canvas.hills(y + 0.02, 0.2 * height, color, 1.0, 1.0)
    left = np.array([(-0.3, y + height), (peak - 0.3, y + 0.2 * height), (peak - 0.08, y - 0.7 * height), (peak, y - height)])
    right = np.array([(peak + 0.14, y - 0.3 * height), (peak + 0.4, y + 0.4 * height), (1.3, y + height)])
    canvas.polygon(np.vstack([left, right]), color)
    fold = np.array([(peak, y - height), (peak - 0.03, y), (peak + 0.08, y + 0.5 * height), (peak + 0.02, y + 1.6 * height), (peak + 0.6, y + 1.3 * height)])
    canvas.polygon(np.vstack([fold, right[::-1]]), shade)


def _cactus(canvas: Canvas, x: float, y: float, h: float, color: Color) -> None:
    w = 0.09 * h
    canvas.box(x - w, y - h + w, x + w, y, color)
    canvas.ellipse(x, y - h + w, w, w, color)
    for side, low in ((-1, 0.42), (1, 0.56)):
        out = x + side * 0.28 * h
        canvas.line((x, y - low * h, out, y - low * h), color, 0.13 * h)
        canvas.line((out, y - (low - 0.06) * h, out, y - (low + 0.26) * h), color, 0.13 * h)


def _meadow(rng: np.random.Generator, size: int) -> tuple[Image.Image, Ground]:
    horizon = 0.36 + 0.18 * rng.random()
    sky = _sky(rng)
    grass = jitter(rng, pick(rng, ((122, 184, 76), (146, 190, 80), (104, 172, 84), (170, 192, 88))))
    deep = mix(grass, (40, 110, 50), 0.5)
    canvas = Canvas(rng, size, [(0, sky[0]), (horizon, sky[1]), (horizon + 0.02, mix(grass, sky[1], 0.2)), (1, deep)])
    _weather(canvas, sky, horizon - 0.06)
    canvas.hills(horizon, 0.05, mix(deep, sky[1], 0.45), horizon + 0.12, 1.2)
    canvas.hills(horizon + 0.08, 0.03, mix(grass, (250, 240, 150), 0.2), 1.0, 1.0)
    canvas.hills(horizon + 0.24, 0.03, grass, 1.0, 1.1)
    canvas.hills(0.86, 0.02, deep, 1.0, 1.3)
    _blades(canvas, 0.87, 0.07, deep)
    _flowers(canvas, horizon + 0.14, int(rng.integers(14, 30)))
    return canvas.image, (horizon + 0.2, 0.95)


def _blades(canvas: Canvas, y: float, height: float, color: Color, count: int = 28) -> None:
    """A band of grass blades: one zigzag polygon."""
    u = canvas.rng.random((2, count))
    heights = np.empty(2 * count)
    heights[0::2] = y - height * (0.4 + 0.6 * u[0])
    heights[1::2] = y + 0.01 * u[1]
    canvas.ridge(heights, color, y + 0.06)


def _flowers(canvas: Canvas, y_min: float, count: int) -> None:
    petals = [pick(canvas.rng, ((250, 250, 246), (252, 214, 60), (230, 70, 84), (196, 120, 220), (250, 150, 190), (96, 120, 230))) for _ in range(2)]
    s = canvas.size
    places = canvas.rng.random((count, 2))
    for k, (x, y) in enumerate(places[places[:, 1].argsort()]):
        r = (0.010 + 0.016 * y) * s
        x, y = x * s, (y_min + (0.98 - y_min) * y) * s
        petal = petals[k % 2]
        canvas.pen.rectangle((x - 0.15 * r, y, x + 0.15 * r, y + 2.2 * r), (60, 120, 50))
        canvas.pen.ellipse((x - r, y - 0.8 * r, x + r, y + 0.8 * r), petal)
        canvas.pen.ellipse((x - 0.35 * r, y - 0.3 * r, x + 0.35 * r, y + 0.3 * r), (250, 190, 40) if petal[2] > 70 else (120, 70, 30))


def _city(rng: np.random.Generator, size: int) -> tuple[Image.Image, Ground]:
    street = 0.62 + 0.1 * rng.random()
    sky = _sky(rng, 0.3)
    asphalt = jitter(rng, (104, 106, 114))
    canvas = Canvas(rng, size, [(0, sky[0]), (street, sky[1]), (street + 0.003, mix(asphalt, (0, 0, 0), 0.05)), (1, asphalt)])
    _clouds(canvas, sky[0], 0.3, int(rng.integers(3)))
    x = -0.05
    while x < 1:
        w = 0.08 + 0.1 * rng.random()
        canvas.box(x, street - 0.30 - 0.26 * rng.random(), x + w, street, mix(sky[1], (96, 110, 140), 0.4))
        x += w
    x = -0.06 * rng.random()
    while x < 1:
        w, h = 0.15 + 0.13 * rng.random(), 0.22 + 0.36 * rng.random()
        _building(canvas, x, street, w, h, jitter(rng, pick(rng, _WALLS)))
        x += w + 0.012
    curb = street + 0.055
    canvas.box(0, street, 1, curb, (186, 184, 180))
    canvas.box(0, curb, 1, curb + 0.012, (140, 138, 136))
    lane, start = 0.5 * (curb + 1.02), rng.random() * 0.2 - 0.2
    for k in range(5):
        x = start + 0.28 * k
        canvas.polygon(np.array([(x, lane), (x + 0.15, lane), (x + 0.14, lane + 0.028), (x - 0.015, lane + 0.028)]), (236, 226, 170))
    return canvas.image, (street + 0.08, 0.95)


_WALLS: tuple[Color, ...] = (
    (196, 104, 84), (222, 178, 130), (120, 140, 168), (152, 92, 92), (210, 206, 196), (98, 120, 130), (230, 196, 96), (140, 164, 150),
)  # fmt: skip


def _building(canvas: Canvas, x: float, street: float, w: float, h: float, wall: Color) -> None:
    """A front with rows of windows, some of them lit, and a door."""
    top = street - h
    canvas.box(x, top, x + w, street, wall)
    canvas.box(x - 0.006, top - 0.012, x + w + 0.006, top + 0.006, mix(wall, (30, 30, 40), 0.35))
    columns, rows = max(2, round(w / 0.062)), max(2, round(h / 0.085))
    pane, lit = mix(wall, (24, 40, 70), 0.65), (255, 226, 138)
    on = canvas.rng.random(rows * columns) < 0.3
    dx, dy = w / columns, (h - 0.06) / rows
    for r in range(rows):
        for c in range(columns):
            left, high = x + dx * (c + 0.24), top + 0.02 + dy * (r + 0.12)
            canvas.box(left, high, left + 0.52 * dx, high + 0.6 * dy, lit if on[r * columns + c] else pane)
    door = x + w * 0.5
    canvas.box(door - 0.02, street - 0.055, door + 0.02, street, mix(wall, (40, 20, 10), 0.6))


def _night(rng: np.random.Generator, size: int) -> tuple[Image.Image, Ground]:
    ground = 0.66 + 0.1 * rng.random()
    top, low = pick(rng, (((10, 14, 44), (46, 58, 116)), ((14, 10, 40), (74, 52, 112)), ((6, 18, 40), (28, 78, 104)), ((16, 16, 30), (54, 60, 90))))
    top, low = jitter(rng, top, 6), jitter(rng, low, 8)
    dark = mix(top, (8, 16, 22), 0.5)
    canvas = Canvas(rng, size, [(0, top), (ground, low), (1, low)])
    s = size
    for x, y, r in rng.random((int(rng.integers(30, 60)), 3)):
        r = (0.002 + 0.005 * r**3) * s
        x, y = x * s, y * ground * s
        canvas.pen.rectangle((x - r, y - r, x + r, y + r), (244, 240, 220))
    x, y, r = rng.random(3)
    x, y, r = 0.12 + 0.76 * x, 0.1 + 0.16 * y, 0.055 + 0.035 * r
    canvas.ellipse(x, y, 1.5 * r, 1.5 * r, mix(top, (220, 220, 200), 0.16))
    canvas.ellipse(x, y, r, r, (248, 242, 208))
    if rng.random() < 0.5:
        canvas.ellipse(x + 0.42 * r, y - 0.12 * r, 0.86 * r, 0.86 * r, mix(top, low, 0.2))
    else:
        canvas.ellipse(x - 0.3 * r, y + 0.2 * r, 0.2 * r, 0.2 * r, (226, 218, 180))
        canvas.ellipse(x + 0.3 * r, y - 0.2 * r, 0.26 * r, 0.26 * r, (226, 218, 180))
    canvas.hills(ground - 0.07, 0.05, mix(low, dark, 0.45), 1.0, 1.3)
    for x, h in rng.random((int(rng.integers(3, 9)), 2)):
        _spruce(canvas, x, ground + 0.02, 0.1 + 0.16 * h, mix(low, dark, 0.8))
    canvas.hills(ground + 0.01, 0.02, mix(low, dark, 0.8), 1.0, 1.2)
    canvas.hills(0.88, 0.02, dark, 1.0, 1.0)
    return canvas.image, (ground + 0.06, 0.95)


def _mountain(rng: np.random.Generator, size: int) -> tuple[Image.Image, Ground]:
    base = 0.58 + 0.1 * rng.random()
    sky = _sky(rng, 0.2)
    rock = jitter(rng, pick(rng, ((112, 116, 136), (134, 122, 116), (96, 110, 126), (138, 118, 136))))
    foot = jitter(rng, pick(rng, ((128, 136, 108), (142, 132, 112), (112, 122, 112))))
    canvas = Canvas(rng, size, [(0, sky[0]), (base, sky[1]), (base + 0.01, foot), (1, mix(foot, (40, 44, 40), 0.35))])
    _clouds(canvas, sky[0], 0.3, int(rng.integers(3)))
    for x, h in rng.random((3, 2)):
        _peak(canvas, x, base + 0.02, 0.34 + 0.12 * h, 0.24 + 0.1 * h, mix(rock, sky[1], 0.5))
    for x, h in rng.random((int(rng.integers(2, 4)), 2)):
        _peak(canvas, 0.05 + 0.9 * x, base + 0.03, 0.30 + 0.14 * h, 0.36 + 0.2 * h, rock)
    canvas.hills(base + 0.03, 0.03, foot, 1.0, 1.5)
    for x, y, r in rng.random((9, 3)):
        _stone(canvas, x, base + 0.08 + (0.9 - base) * y, 0.015 + 0.04 * r * (0.4 + y), mix(rock, (210, 206, 200), 0.25 * r))
    return canvas.image, (base + 0.1, 0.95)


def _peak(canvas: Canvas, x: float, y: float, w: float, h: float, color: Color) -> None:
    """A peak with a lit and a shaded flank and a snow cap."""
    a, b, c = canvas.rng.random(3)
    tip = y - h
    canvas.polygon(np.array([(x - w, y), (x - 0.5 * w, y - h * (0.42 + 0.12 * a)), (x, tip), (x + 0.5 * w, y - h * (0.42 + 0.12 * b)), (x + w, y)]), color)
    canvas.polygon(np.array([(x, tip), (x + 0.5 * w, y - h * (0.42 + 0.12 * b)), (x + w, y), (x + 0.1 * w, y), (x - 0.06 * w, y - 0.4 * h), (x + 0.05 * w, y - 0.7 * h)]), mix(color, (40, 40, 70), 0.3))
    cap = 0.30 + 0.1 * c
    canvas.polygon(
        np.array([(x, tip), (x + 0.95 * cap * w, tip + cap * h), (x + 0.5 * cap * w, tip + 0.8 * cap * h), (x + 0.2 * cap * w, tip + 1.15 * cap * h), (x - 0.2 * cap * w, tip + 0.8 * cap * h), (x - 0.55 * cap * w, tip + 1.1 * cap * h), (x - 0.9 * cap * w, tip + cap * h)]),
        mix((252, 253, 255), color, 0.06),
    )


def _stone(canvas: Canvas, x: float, y: float, r: float, color: Color) -> None:
    canvas.polygon(np.array([(-1.0, 0.4), (-0.7, -0.4), (-0.1, -0.75), (0.6, -0.5), (1, 0.4)]) * r + (x, y), color)
    canvas.polygon(np.array([(0.1, 0.4), (0.25, -0.2), (0.6, -0.5), (1, 0.4)]) * r + (x, y), mix(color, (20, 20, 40), 0.25))


def _beach(rng: np.random.Generator, size: int) -> tuple[Image.Image, Ground]:
    horizon = 0.26 + 0.12 * rng.random()
    shore = horizon + 0.16 + 0.12 * rng.random()
    sky = _sky(rng, 0.25)
    sea = jitter(rng, pick(rng, ((40, 168, 190), (52, 150, 200), (64, 190, 186))))
    sand = jitter(rng, pick(rng, ((246, 222, 170), (240, 208, 160), (250, 232, 196))), 8)
    canvas = Canvas(rng, size, [(0, sky[0]), (horizon, sky[1]), (horizon + 0.003, mix(sea, (20, 80, 150), 0.4)), (shore, mix(sea, (200, 250, 240), 0.35)), (1, sand)])
    _weather(canvas, sky, horizon)
    if rng.random() < 0.5:
        x, w = 0.15 + 0.7 * rng.random(), 0.05
        canvas.polygon(np.array([(x, horizon - 0.12), (x + 0.055, horizon - 0.02), (x, horizon - 0.02)]), (250, 250, 250))
        canvas.polygon(np.array([(x - w, horizon - 0.014), (x + w, horizon - 0.014), (x + 0.6 * w, horizon + 0.015), (x - 0.6 * w, horizon + 0.015)]), (190, 70, 60))
    slope = 0.1 * (rng.random() - 0.5)
    x = _steps(25)
    edge = shore + slope * (x - 0.5) + 0.012 * np.sin(14 * x + 6 * rng.random())
    canvas.ridge(edge - 0.018, (252, 254, 252))
    canvas.ridge(edge, mix(sand, (150, 120, 90), 0.25))
    canvas.ridge(edge + 0.035, sand)
    for x, y, r in rng.random((12, 3)):
        y = shore + 0.08 + (0.94 - shore) * y
        canvas.ellipse(x, y, 0.02 + 0.04 * r, 0.004 + 0.003 * r, mix(sand, (190, 140, 90), 0.25))
    if rng.random() < 0.5:
        _palm(canvas, -0.01 if rng.random() < 0.5 else 1.01, shore + 0.22)
    for x, y in rng.random((int(rng.integers(5)), 2)):
        _star(canvas, x, shore + 0.14 + (0.82 - shore) * y, 0.022, (232, 120, 90))
    return canvas.image, (shore + 0.1, 0.95)


def _star(canvas: Canvas, x: float, y: float, r: float, color: Color) -> None:
    star = _unit_circle(10).copy()
    star[1::2] *= 0.45
    canvas.polygon(star * r + (x, y), color)


def _palm(canvas: Canvas, x: float, y: float) -> None:
    """A palm that leans into the picture from its edge."""
    side = 1 if x < 0.5 else -1
    top_x, top_y = x + side * (0.14 + 0.06 * canvas.rng.random()), 0.14 + 0.1 * canvas.rng.random()
    canvas.polygon(np.array([(x - 0.02, y), (x + side * 0.05, 0.5 * (y + top_y)), (top_x, top_y), (top_x + side * 0.02, top_y), (x + side * 0.08, 0.5 * (y + top_y)), (x + 0.03, y)]), (150, 108, 70))
    leaf = np.array([(0, 0), (0.4, -0.24), (0.8, -0.16), (1.0, 0.2), (0.7, 0.02), (0.4, -0.04)])
    for k, (sx, sy, turn) in enumerate(((1, 1, 0.0), (-1, 1, 0.0), (0.8, 1, 0.5), (-0.8, 1, -0.5), (0.7, 1, -0.6), (-0.7, 1, 0.6))):
        c, s = np.cos(turn), np.sin(turn)
        points = leaf * (0.24 * sx, 0.24 * sy) @ np.array([(c, s), (-s, c)])
        canvas.polygon(points + (top_x, top_y), (52, 136, 76) if k % 2 else (40, 112, 66))


def _swamp(rng: np.random.Generator, size: int) -> tuple[Image.Image, Ground]:
    horizon = 0.40 + 0.12 * rng.random()
    haze = jitter(rng, pick(rng, ((188, 196, 150), (170, 186, 168), (202, 190, 142))))
    murk = jitter(rng, pick(rng, ((72, 84, 50), (62, 80, 62), (88, 82, 48))))
    canvas = Canvas(rng, size, [(0, mix(haze, (90, 110, 90), 0.45)), (horizon, haze), (horizon + 0.004, mix(murk, haze, 0.4)), (1, mix(murk, (20, 30, 20), 0.3))])
    canvas.hills(horizon - 0.05, 0.04, mix(murk, haze, 0.5), horizon + 0.01, 2.5)
    for x, w in rng.random((int(rng.integers(2, 5)), 2)):
        _dead_tree(canvas, x, horizon + 0.02 + 0.08 * w, 0.012 + 0.014 * w, mix((62, 56, 44), haze, 0.3 * (1 - w)))
    for x, y, w in rng.random((9, 3)):
        _wave(canvas, x, horizon + 0.04 + (0.9 - horizon) * y, 0.1 + 0.2 * w, 0.008, mix(murk, haze, 0.5))
    pad = jitter(rng, (104, 146, 62))
    for x, y, r in rng.random((int(rng.integers(6, 12)), 3)):
        y, r = horizon + 0.08 + (0.9 - horizon) * y, 0.025 + 0.035 * r * (0.3 + y)
        canvas.ellipse(x, y, r, 0.36 * r, mix(pad, murk, 0.25 * (x + 0.2)))
        if r > 0.04:
            canvas.ellipse(x, y - 0.18 * r, 0.3 * r, 0.24 * r, (238, 178, 200))
    _reeds(canvas, mix(murk, (130, 150, 60), 0.4), int(rng.integers(3, 8)))
    return canvas.image, (horizon + 0.16, 0.94)


def _dead_tree(canvas: Canvas, x: float, y: float, w: float, color: Color) -> None:
    """A bare trunk standing in the water with hanging moss."""
    canvas.polygon(np.array([(x - w, -0.01), (x + 0.8 * w, -0.01), (x + w, y - 0.08), (x + 2.4 * w, y), (x - 2.4 * w, y), (x - 1.1 * w, y - 0.08)]), color)
    for side, h in ((1, 0.12), (-1, 0.22)):
        out = x + side * 7 * w
        canvas.line((x, h + 0.05, out, h), color, 0.7 * w)
        moss = mix(color, (140, 158, 96), 0.6)
        canvas.polygon(np.array([(x + side * 2 * w, h + 0.02), (out, h), (out - side * w, h + 0.12), (out - side * 2.2 * w, h + 0.05), (out - side * 3.4 * w, h + 0.1)]), moss)


_DRAWERS: dict[str, Callable[[np.random.Generator, int], tuple[Image.Image, Ground]]] = {
    "water": _water, "forest": _forest, "snow": _snow, "desert": _desert, "meadow": _meadow,
    "city": _city, "night": _night, "mountain": _mountain, "beach": _beach, "swamp": _swamp,
}  # fmt: skip


def draw_habitat(name: str, rng: np.random.Generator, size: int) -> tuple[Image.Image, Ground]:
    """The scenery `name` (one of HABITATS) as an RGB image (size, size), and the fractions where feet may stand."""
    if name not in _DRAWERS:
        raise ValueError(f"Unknown habitat {name!r}; choose one of {', '.join(HABITATS)}.")
    return _DRAWERS[name](rng, size)
