"""The things that stand in habitats: sky, trees, buildings, rocks, boats … each painted on a `Canvas`.

Places and sizes are in fractions of the picture; (x, y) is where a thing touches the ground.
"""

from __future__ import annotations

import numpy as np

from menagerie.world.paint import Canvas, Color, jitter, mix, pick, unit_circle

Sky = tuple[Color, Color]  # top, horizon

_DAYS: tuple[Sky, ...] = (
    ((92, 168, 232), (206, 232, 246)),
    ((120, 186, 232), (232, 242, 244)),
    ((118, 160, 220), (252, 226, 196)),
    ((166, 186, 204), (222, 230, 234)),
    ((70, 148, 220), (178, 220, 244)),
)
_DUSKS: tuple[Sky, ...] = (((112, 110, 180), (252, 186, 150)), ((86, 96, 160), (246, 168, 168)))

# Outlines around their own origin, x to the right, y down.
# fmt: off
_WAVE = np.array([(-1, 0.3), (-0.5, -0.5), (0, -1), (0.5, -0.5), (1, 0.3), (0.4, 0.1), (0, -0.1), (-0.4, 0.1)])
_FERN = np.array([(-1, -0.5), (-0.26, -0.15), (-0.55, -1), (-0.09, -0.15), (0, -1.25), (0.09, -0.15), (0.55, -1),
                  (0.27, -0.15), (1, -0.5), (0.3, 0.05), (-0.3, 0.05)])
_TRUNK = np.array([(-1, 0), (1, 0), (1.05, 0.9), (1.8, 1), (-1.8, 1), (-1.05, 0.9)])
_TRUNK_SHADE = np.array([(-0.1, 0), (1, 0), (1.05, 0.9), (1.8, 1), (-0.2, 1)])
_TIER = np.array([(0, -1), (1, 0), (0.45, -0.1), (-0.1, 0.04), (-0.5, -0.08), (-1, 0)])
_TIER_SNOW = np.array([(0, -1), (0.5, -0.5), (0.2, -0.6), (0.05, -0.42), (-0.2, -0.58), (-0.5, -0.48)])
_MESA = np.array([(-1, 0), (-0.72, -0.8), (-0.66, -1), (0.56, -1), (0.64, -0.75), (1, 0)])
_MESA_SHADE = np.array([(0.1, 0), (0.2, -0.6), (0.16, -1), (0.56, -1), (0.64, -0.75), (1, 0)])
_STONE = np.array([(-1, 0.4), (-0.7, -0.4), (-0.1, -0.75), (0.6, -0.5), (1, 0.4)])
_STONE_SHADE = np.array([(0.1, 0.4), (0.25, -0.2), (0.6, -0.5), (1, 0.4)])
_PALM_TRUNK = np.array([(-0.1, 0), (0.3, -0.5), (1, -1), (1.12, -1), (0.48, -0.46), (0.16, 0)])
_PALM_LEAF = np.array([(0, 0), (0.4, -0.24), (0.8, -0.16), (1, 0.2), (0.72, 0), (0.62, 0.12), (0.5, -0.03),
                       (0.36, 0.08), (0.2, 0)])
_SAIL = np.array([(0.06, -1), (0.85, -0.16), (0.06, -0.16)])
_JIB = np.array([(-0.06, -0.9), (-0.06, -0.16), (-0.6, -0.16)])
_HULL = np.array([(-1, -0.1), (1, -0.1), (0.6, 0.16), (-0.6, 0.16)])
_SWAMP_TRUNK = np.array([(-1, -0.01), (0.8, -0.01), (1, 0.84), (2.6, 1), (-2.6, 1), (-1.1, 0.84)])
_MOSS = np.array([(2, 0.02), (7, 0), (6, 0.12), (4.8, 0.05), (3.6, 0.1), (2.8, 0.05)])
# fmt: on


def day_sky(rng: np.random.Generator, dusk: float = 0.15) -> Sky:
    """A sky by day, or with probability `dusk` one at sunset."""
    top, low = pick(rng, _DUSKS if rng.random() < dusk else _DAYS)
    return jitter(rng, top), jitter(rng, low, 8)


def sun(canvas: Canvas, sky: Sky, horizon: float) -> None:
    x, y, r = canvas.rng.random(3).tolist()
    x, y, r = 0.1 + 0.8 * x, 0.07 + max(0.0, horizon - 0.14) * y, 0.045 + 0.03 * r
    around = mix(*sky, y / horizon)
    canvas.ellipse(x, y, 1.75 * r, 1.75 * r, mix(around, (255, 246, 214), 0.3))
    canvas.ellipse(x, y, 1.35 * r, 1.35 * r, mix(around, (255, 246, 214), 0.6))
    canvas.ellipse(x, y, r, r, (255, 246, 206))


def clouds(canvas: Canvas, sky: Sky, y_max: float, count: int) -> None:
    for x, y, w, tall in canvas.scatter(count, 4):
        y, w = 0.05 + max(0.0, y_max - 0.08) * y, 0.07 + 0.09 * w
        color = mix(mix(*sky, 0.4), (255, 255, 255), 0.72)
        h = w * (0.7 + 0.6 * tall)
        canvas.ellipse(x, y, w, 0.24 * w, mix(color, sky[0], 0.14))
        canvas.ellipse(x - 0.38 * w, y - 0.14 * h, 0.42 * w, 0.28 * h, color)
        canvas.ellipse(x + 0.22 * w, y - 0.22 * h, 0.5 * w, 0.40 * h, color)


def weather(canvas: Canvas, sky: Sky, horizon: float) -> None:
    """A sun, clouds, both or an empty sky."""
    if canvas.chance(0.45):
        sun(canvas, sky, horizon)
    clouds(canvas, sky, horizon, canvas.between(0, 3))


def birds(canvas: Canvas, y_max: float, color: Color) -> None:
    """A small far flock."""
    x0, y0 = canvas.rng.random(2).tolist()
    for dx, dy, r in canvas.scatter(canvas.between(2, 5), 3):
        x, y, r = x0 + 0.24 * (dx - 0.5), 0.05 + (y_max - 0.1) * y0 + 0.1 * dy, 0.014 + 0.01 * r
        canvas.line((x - r, y - 0.4 * r, x, y, x + r, y - 0.4 * r), color, 0.006)


def waves(canvas: Canvas, horizon: float, count: int, light: Color, dark: Color) -> None:
    """Crests that grow towards the viewer."""
    for k, (x, y, w) in enumerate(canvas.scatter(count, 3)):
        y **= 1.3
        width = (0.02 + 0.08 * y) * (0.6 + 0.8 * w)
        color = light if k % 3 else dark
        canvas.stamp(_WAVE, x, horizon + 0.02 + (0.97 - horizon) * y, width, 0.006 + 0.011 * y, color)


def reeds(canvas: Canvas, color: Color, count: int) -> None:
    """Stems with brown cattails along the bottom of one side."""
    left = 0.0 if canvas.chance(0.5) else 0.76
    for x, h, lean in canvas.scatter(count, 3):
        x, top, lean = left + 0.24 * x, 1 - (0.2 + 0.3 * h), 0.06 * (lean - 0.5)
        canvas.line((x, 1, x + lean, top), color, 0.011)
        if h > 0.4:
            canvas.ellipse(x + lean, top, 0.014, 0.042, (112, 70, 40))
        else:
            canvas.line((x, 0.9, x + 0.03 - 2 * lean, top + 0.08), mix(color, (210, 220, 120), 0.25), 0.012)


def sailboat(canvas: Canvas, x: float, y: float, r: float) -> None:
    sail = pick(canvas.rng, ((250, 250, 248), (250, 214, 120), (238, 120, 100)))
    canvas.stamp(_SAIL, x, y, r, 1.2 * r, sail)
    canvas.stamp(_JIB, x, y, r, 1.2 * r, mix(sail, (90, 110, 150), 0.18))
    canvas.stamp(_HULL, x, y, r, r, pick(canvas.rng, ((176, 66, 56), (60, 72, 100), (132, 88, 58))))


def trunk(canvas: Canvas, x: float, w: float, y: float, color: Color) -> None:
    """A straight trunk from above the picture down to `y`."""
    canvas.stamp(_TRUNK, x, -0.02, w, y + 0.02, color)
    canvas.stamp(_TRUNK_SHADE, x, -0.02, w, y + 0.02, mix(color, (16, 10, 20), 0.22))


def fern(canvas: Canvas, x: float, y: float, r: float, color: Color) -> None:
    canvas.stamp(_FERN, x, y, r, r, color)


def mushroom(canvas: Canvas, x: float, y: float, r: float) -> None:
    canvas.box(x - 0.25 * r, y - r, x + 0.25 * r, y, (244, 234, 212))
    canvas.ellipse(x, y - r, r, 0.6 * r, (206, 62, 48))
    canvas.dot(x - 0.3 * r, y - 1.1 * r, 0.16 * r, (250, 240, 226))
    canvas.dot(x + 0.35 * r, y - 1.0 * r, 0.14 * r, (250, 240, 226))


def spruce(canvas: Canvas, x: float, y: float, h: float, color: Color, snowy: bool = False) -> None:
    """A conifer of three tiers, `h` tall, white on its tiers where `snowy`."""
    canvas.box(x - 0.03 * h, y - 0.12 * h, x + 0.03 * h, y, mix(color, (84, 62, 48), 0.7))
    for k in range(3):
        bottom, w = y - h * (0.08 + 0.26 * k), h * (0.34 - 0.075 * k)
        canvas.stamp(_TIER, x, bottom, w, 0.42 * h, mix(color, (255, 255, 255), 0.05 * k))
        if snowy:
            canvas.stamp(_TIER_SNOW, x, bottom, w, 0.42 * h, (248, 251, 255))


def round_tree(canvas: Canvas, x: float, y: float, h: float, leaf: Color) -> None:
    """A broad-leaved tree with a round crown, `h` tall."""
    canvas.box(x - 0.05 * h, y - 0.5 * h, x + 0.05 * h, y, (104, 76, 56))
    canvas.ellipse(x, y - 0.66 * h, 0.34 * h, 0.34 * h, leaf)
    canvas.ellipse(x - 0.1 * h, y - 0.74 * h, 0.2 * h, 0.2 * h, mix(leaf, (250, 250, 170), 0.22))


def cactus(canvas: Canvas, x: float, y: float, h: float, color: Color) -> None:
    w = 0.09 * h
    canvas.box(x - w, y - h + w, x + w, y, color)
    canvas.ellipse(x, y - h + w, w, w, color)
    for side, low in ((-1, 0.42), (1, 0.56)):
        out = x + side * 0.28 * h
        canvas.line((x, y - low * h, out, y - low * h), color, 0.13 * h)
        canvas.line((out, y - (low - 0.06) * h, out, y - (low + 0.26) * h), color, 0.13 * h)
    canvas.line((x + 0.3 * w, y - h + w, x + 0.3 * w, y), mix(color, (20, 40, 30), 0.25), 0.05 * h)


def mesa(canvas: Canvas, x: float, y: float, w: float, h: float, color: Color) -> None:
    canvas.stamp(_MESA, x, y, w, h, color)
    canvas.stamp(_MESA_SHADE, x, y, w, h, mix(color, (60, 20, 30), 0.2))


def dune(canvas: Canvas, y: float, height: float, color: Color) -> None:
    """A sand ridge with a lit crest and a shaded slip face."""
    p = 0.2 + 0.6 * canvas.rng.random()
    h = height
    canvas.hills(y + 0.02, 0.2 * h, color, 1.0, 1.0)
    right = [(1.3, y + h), (p + 0.4, y + 0.4 * h), (p + 0.14, y - 0.3 * h)]
    left = [(-0.3, y + h), (p - 0.3, y + 0.2 * h), (p - 0.08, y - 0.7 * h), (p, y - h)]
    canvas.polygon(left + right[::-1], color)
    fold = [(p, y - h), (p - 0.03, y), (p + 0.08, y + 0.5 * h), (p + 0.02, y + 1.6 * h), (p + 0.6, y + 1.3 * h)]
    canvas.polygon(fold + right, mix(color, (120, 60, 40), 0.28))


def grass(canvas: Canvas, y: float, height: float, color: Color, count: int = 28) -> None:
    """A band of blades: one zigzag outline."""
    tips, feet = canvas.rng.random((2, count))
    heights = np.empty(2 * count)
    heights[0::2] = y - height * (0.4 + 0.6 * tips)
    heights[1::2] = y + 0.01 * feet
    canvas.ridge(heights, color, y + 0.06)


_PETALS: tuple[Color, ...] = (
    (250, 250, 246), (252, 214, 60), (230, 70, 84), (196, 120, 220), (250, 150, 190), (96, 120, 230), (250, 140, 60),
)  # fmt: skip


def flowers(canvas: Canvas, y_min: float, count: int) -> None:
    """Flowers of two kinds, larger towards the viewer."""
    petals = pick(canvas.rng, _PETALS), pick(canvas.rng, _PETALS)
    for k, (x, y) in enumerate(sorted(canvas.scatter(count, 2), key=lambda place: place[1])):
        r, y = 0.011 + 0.018 * y, y_min + (0.98 - y_min) * y
        petal = petals[k % 2]
        canvas.box(x - 0.12 * r, y, x + 0.12 * r, y + 2.2 * r, (60, 120, 50))
        for dx, dy in ((-0.5, 0), (0.5, 0), (0, -0.5), (0, 0.5)):
            canvas.dot(x + dx * r, y + dy * r, 0.55 * r, petal)
        canvas.dot(x, y, 0.38 * r, (250, 190, 40) if petal[2] > 70 else (120, 70, 30))


_WALLS: tuple[Color, ...] = (
    (196, 104, 84), (222, 178, 130), (120, 140, 168), (152, 92, 92), (210, 206, 196), (98, 120, 130), (230, 196, 96),
    (140, 164, 150),
)  # fmt: skip


def building(canvas: Canvas, x: float, street: float, w: float, h: float) -> None:
    """A front with rows of windows, some of them lit, a door, and a flat or pitched roof."""
    wall = jitter(canvas.rng, pick(canvas.rng, _WALLS))
    top, roof = street - h, mix(wall, (40, 30, 40), 0.4)
    if canvas.chance(0.3):
        canvas.polygon([(x - 0.01, top + 0.004), (x + 0.5 * w, top - 0.3 * w), (x + w + 0.01, top + 0.004)], roof)
    canvas.box(x, top, x + w, street, wall)
    canvas.box(x - 0.006, top - 0.012, x + w + 0.006, top + 0.006, roof)
    columns, rows = max(2, round(w / 0.066)), max(2, round(h / 0.088))
    pane, lit = mix(wall, (24, 40, 70), 0.65), (255, 226, 138)
    on = (canvas.rng.random(rows * columns) < 0.3).tolist()
    dx, dy = w / columns, (h - 0.06) / rows
    for k, shines in enumerate(on):
        left, high = x + dx * (k % columns + 0.24), top + 0.02 + dy * (k // columns + 0.12)
        canvas.box(left, high, left + 0.52 * dx, high + 0.6 * dy, lit if shines else pane)
    door = x + 0.5 * w
    canvas.box(door - 0.02, street - 0.055, door + 0.02, street, mix(wall, (40, 20, 10), 0.6))


def street_lamp(canvas: Canvas, x: float, y: float) -> None:
    canvas.line((x, y, x, y - 0.3, x + 0.05, y - 0.31), (58, 62, 70), 0.012)
    canvas.ellipse(x + 0.06, y - 0.30, 0.024, 0.016, (255, 234, 160))


def cabin(canvas: Canvas, x: float, y: float, r: float, wall: Color, roof: Color) -> None:
    """A hut with a lit window."""
    canvas.box(x - r, y - 0.8 * r, x + r, y, wall)
    canvas.box(x + 0.45 * r, y - 1.7 * r, x + 0.7 * r, y - r, mix(wall, (30, 20, 20), 0.3))
    canvas.polygon([(x - 1.3 * r, y - 0.72 * r), (x, y - 1.7 * r), (x + 1.3 * r, y - 0.72 * r)], roof)
    canvas.box(x - 0.6 * r, y - 0.56 * r, x - 0.15 * r, y - 0.16 * r, (255, 216, 116))
    canvas.box(x + 0.25 * r, y - 0.56 * r, x + 0.62 * r, y, mix(wall, (30, 16, 10), 0.5))


def peak(canvas: Canvas, x: float, y: float, w: float, h: float, color: Color) -> None:
    """A mountain with a lit and a shaded flank and a snow cap."""
    a, b, c = canvas.rng.random(3).tolist()
    bend_left, bend_right = 0.42 + 0.12 * a, 0.42 + 0.12 * b  # heights at which the flanks bend
    tip, left, right = y - h, y - h * bend_left, y - h * bend_right
    canvas.polygon([(x - w, y), (x - 0.5 * w, left), (x, tip), (x + 0.5 * w, right), (x + w, y)], color)
    shaded = [(x, tip), (x + 0.5 * w, right), (x + w, y), (x + 0.1 * w, y), (x - 0.06 * w, y - 0.4 * h)]
    canvas.polygon([*shaded, (x + 0.05 * w, y - 0.7 * h)], mix(color, (40, 40, 70), 0.3))
    k = 0.28 + 0.12 * c  # how far down the snow reaches
    ends = (0.5 / (1 - bend_right), 1), (-0.5 / (1 - bend_left), 1)  # on the flanks
    edge = [ends[0], (0.5, 0.76), (0.2, 1.14), (-0.2, 0.78), (-0.52, 1.1), ends[1]]
    snow = [(x, tip), *((x + k * w * dx, tip + k * h * dy) for dx, dy in edge)]
    canvas.polygon(snow, mix((252, 253, 255), color, 0.06))


def stone(canvas: Canvas, x: float, y: float, r: float, color: Color) -> None:
    canvas.stamp(_STONE, x, y, r, r, color)
    canvas.stamp(_STONE_SHADE, x, y, r, r, mix(color, (20, 20, 40), 0.25))


def starfish(canvas: Canvas, x: float, y: float, r: float, color: Color) -> None:
    star = unit_circle(10) * np.where(np.arange(10) % 2, 0.45, 1.0)[:, None]
    canvas.stamp(star, x, y, r, r, color)


def parasol(canvas: Canvas, x: float, y: float, r: float) -> None:
    """A striped sunshade stuck in the sand."""
    canvas.line((x, y, x + 0.2 * r, y - 1.5 * r), (150, 120, 90), 0.012)
    cloth = pick(canvas.rng, ((222, 74, 70), (60, 130, 190), (240, 180, 60), (80, 160, 120)))
    dome = np.vstack([unit_circle(20)[10:], [(1, 0)]])
    canvas.stamp(dome, x + 0.2 * r, y - 1.2 * r, r, 0.62 * r, cloth)
    canvas.stamp(dome, x + 0.2 * r, y - 1.2 * r, 0.36 * r, 0.62 * r, (252, 248, 240))


def palm(canvas: Canvas, x: float, y: float) -> None:
    """A palm that leans into the picture from its left or right edge."""
    side = 1 if x < 0.5 else -1
    reach, top = 0.14 + 0.07 * canvas.rng.random(), 0.16 + 0.1 * canvas.rng.random()
    canvas.stamp(_PALM_TRUNK, x, y, side * reach, y - top, (150, 108, 70))
    fronds = ((1, 0.0), (-1, 0.0), (0.8, 0.5), (-0.8, -0.5), (0.7, -0.6), (-0.7, 0.6))
    for k, (scale, turn) in enumerate(fronds):
        c, s = np.cos(turn), np.sin(turn)
        leaf = _PALM_LEAF * (scale, 1) @ np.array([(c, s), (-s, c)])
        canvas.stamp(leaf, x + side * reach, top, 0.25, 0.25, (52, 136, 76) if k % 2 else (40, 112, 66))


def swamp_tree(canvas: Canvas, x: float, y: float, w: float, color: Color) -> None:
    """A bare trunk with flared roots standing in the water, moss hanging from its branches."""
    canvas.stamp(_SWAMP_TRUNK, x, 0, w, y, color)
    for side, h in ((1, 0.12), (-1, 0.22)):
        canvas.line((x, h + 0.05, x + side * 7 * w, h), color, 0.7 * w)
        canvas.stamp(_MOSS, x, h, side * w, 1.0, mix(color, (140, 158, 96), 0.6))


def lily_pads(canvas: Canvas, horizon: float, count: int, pad: Color, water: Color) -> None:
    for x, y, r in canvas.scatter(count, 3):
        y, r = horizon + 0.08 + (0.9 - horizon) * y, 0.025 + 0.035 * r * (0.3 + y)
        canvas.ellipse(x, y, r, 0.36 * r, mix(pad, water, 0.25 * (x + 0.2)))
        if r > 0.04:
            canvas.ellipse(x, y - 0.18 * r, 0.3 * r, 0.24 * r, (238, 178, 200))


def night_sky(canvas: Canvas, top: Color, horizon: float) -> None:
    """Stars and a moon, full or a crescent."""
    for x, y, r in canvas.scatter(canvas.between(30, 60), 3):
        r = 0.002 + 0.005 * r**3
        canvas.box(x - r, y * horizon - r, x + r, y * horizon + r, (244, 240, 220))
    x, y, r = canvas.rng.random(3).tolist()
    x, y, r = 0.12 + 0.76 * x, 0.1 + 0.16 * y, 0.055 + 0.035 * r
    halo = mix(top, (220, 220, 200), 0.16)
    canvas.ellipse(x, y, 1.5 * r, 1.5 * r, halo)
    canvas.ellipse(x, y, r, r, (248, 242, 208))
    if canvas.chance(0.5):
        canvas.ellipse(x + 0.42 * r, y - 0.12 * r, 0.84 * r, 0.84 * r, halo)
    else:
        canvas.ellipse(x - 0.3 * r, y + 0.2 * r, 0.2 * r, 0.2 * r, (226, 218, 180))
        canvas.ellipse(x + 0.3 * r, y - 0.2 * r, 0.26 * r, 0.26 * r, (226, 218, 180))
