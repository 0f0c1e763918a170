"""Ten habitats: the scenery behind a creature, as layered flat illustration.

Each is a vertical gradient (sky over ground) with layers from far to near. Colours, horizon, weather and the number
of things vary within a habitat; layout and palette tell habitats apart.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from menagerie.world import scenery
from menagerie.world.paint import Canvas, Color, jitter, mix, pick, steps

HABITATS: tuple[str, ...] = (
    "water", "forest", "snow", "desert", "meadow", "city", "night", "mountain", "beach", "swamp",
)  # fmt: skip

Ground = tuple[float, float]  # y_min, y_max: where feet may stand, in fractions of the height

_SEAS: tuple[tuple[Color, Color], ...] = (
    ((96, 172, 206), (22, 92, 150)), ((112, 190, 200), (18, 110, 128)), ((108, 150, 196), (32, 70, 132)),
    ((84, 164, 196), (14, 78, 120)), ((128, 176, 196), (40, 104, 140)),
)  # fmt: skip
_COLD_SKIES: tuple[scenery.Sky, ...] = (
    ((150, 186, 220), (226, 236, 244)), ((186, 196, 208), (230, 232, 236)), ((176, 170, 208), (252, 222, 218)),
    ((112, 166, 216), (214, 232, 246)),
)  # fmt: skip
_HOT_SKIES: tuple[scenery.Sky, ...] = (
    ((92, 172, 226), (250, 232, 196)), ((238, 170, 110), (254, 224, 160)), ((130, 190, 224), (252, 240, 214)),
    ((226, 132, 104), (253, 206, 148)),
)  # fmt: skip
_NIGHT_SKIES: tuple[scenery.Sky, ...] = (
    ((10, 14, 44), (46, 58, 116)), ((14, 10, 40), (84, 54, 118)), ((6, 18, 40), (28, 84, 108)),
    ((16, 16, 34), (58, 62, 98)),
)  # fmt: skip
_LEAVES: tuple[Color, ...] = ((64, 122, 62), (52, 104, 66), (88, 130, 54), (150, 124, 44), (170, 96, 40))
_BARKS: tuple[Color, ...] = ((84, 58, 40), (66, 52, 42), (104, 76, 54), (206, 204, 196))


def _water(rng: np.random.Generator, size: int) -> tuple[Image.Image, Ground]:
    horizon = 0.26 + 0.2 * rng.random()
    sky = scenery.day_sky(rng)
    far, near = pick(rng, _SEAS)
    far, near = jitter(rng, far), jitter(rng, near)
    canvas = Canvas(rng, size, [(0, sky[0]), (horizon, sky[1]), (horizon + 0.003, far), (1, near)])
    scenery.weather(canvas, sky, horizon)
    if canvas.chance(0.55):
        shore = mix(jitter(rng, (92, 140, 108), 20), sky[1], 0.4)
        canvas.hills(horizon - 0.035, 0.03, mix(shore, sky[1], 0.35), horizon, 1.0)
        canvas.hills(horizon - 0.012, 0.018, shore, horizon, 1.6)
    elif canvas.chance(0.4):
        scenery.sailboat(canvas, 0.1 + 0.8 * rng.random(), horizon + 0.012, 0.06)
    scenery.waves(canvas, horizon, 26, mix(far, (255, 255, 255), 0.45), mix(near, (0, 0, 30), 0.2))
    if canvas.chance(0.45):
        scenery.reeds(canvas, jitter(rng, (58, 112, 60), 16), canvas.between(5, 10))
    return canvas.image, (horizon + 0.16, 0.94)


def _forest(rng: np.random.Generator, size: int) -> tuple[Image.Image, Ground]:
    floor = 0.54 + 0.12 * rng.random()
    leaf = jitter(rng, pick(rng, _LEAVES))
    mist = mix(leaf, (232, 242, 204), 0.66)
    earth = mix(jitter(rng, pick(rng, ((92, 84, 48), (76, 92, 48), (104, 78, 50)))), leaf, 0.35)
    stops = [(0, mix(mist, leaf, 0.4)), (floor, mist), (floor + 0.01, earth), (1, mix(earth, (20, 20, 10), 0.45))]
    canvas = Canvas(rng, size, stops)
    for x, w in canvas.scatter(7, 2):
        scenery.trunk(canvas, x, 0.010 + 0.012 * w, floor + 0.01, mix(mist, (70, 62, 46), 0.4))
    for x, r in canvas.scatter(5, 2):
        canvas.ellipse(x, floor + 0.02, 0.10 + 0.08 * r, 0.04 + 0.05 * r, mix(mist, leaf, 0.55))
    canvas.hills(floor + 0.03, 0.015, earth, 1.0, 2)
    bark = jitter(rng, pick(rng, _BARKS))
    for x, w in canvas.scatter(canvas.between(3, 5), 2):
        scenery.trunk(canvas, x, 0.022 + 0.022 * w, floor + 0.05 + 0.06 * w, bark)
    for x, y, r in canvas.scatter(12, 3):
        shade = mix(leaf, (10, 40, 20), 0.1 + 0.4 * y) if r < 0.7 else mix(leaf, (236, 236, 120), 0.15)
        canvas.ellipse(x, 0.14 * y - 0.02, 0.09 + 0.08 * r, 0.07 + 0.05 * r, shade)
    for x, y, r in canvas.scatter(6, 3):
        scenery.fern(canvas, x, 0.98 - 0.14 * y, 0.05 + 0.05 * r, mix(leaf, (16, 70, 26), 0.35))
    for x, y in canvas.scatter(canvas.between(0, 2), 2):
        scenery.mushroom(canvas, x, 0.97 - 0.12 * y, 0.022)
    return canvas.image, (floor + 0.12, 0.95)


def _snow(rng: np.random.Generator, size: int) -> tuple[Image.Image, Ground]:
    horizon = 0.40 + 0.16 * rng.random()
    top, low = pick(rng, _COLD_SKIES)
    sky = jitter(rng, top), jitter(rng, low, 6)
    shade = mix(jitter(rng, (206, 220, 238), 8), sky[1], 0.2)
    stops = [(0, sky[0]), (horizon, sky[1]), (horizon + 0.01, (238, 244, 252)), (1, shade)]
    canvas = Canvas(rng, size, stops)
    canvas.hills(horizon - 0.05, 0.05, mix(sky[0], (236, 242, 250), 0.55), horizon + 0.1, 1.3)
    canvas.hills(horizon + 0.02, 0.03, mix(shade, sky[0], 0.2), 1.0, 1.0)
    if canvas.chance(0.25):
        scenery.cabin(canvas, 0.1 + 0.8 * rng.random(), horizon + 0.08, 0.07, (132, 88, 62), (250, 252, 255))
    for x, y, h in sorted(canvas.scatter(canvas.between(3, 8), 3), key=lambda tree: tree[1]):
        green = mix((44, 84, 82), sky[1], 0.3 * (1 - y))
        scenery.spruce(canvas, x, horizon + 0.03 + 0.07 * y, 0.13 + 0.18 * h, green, snowy=True)
    canvas.hills(horizon + 0.11, 0.025, (247, 250, 255), 1.0, 1.2)
    canvas.hills(0.78, 0.04, mix((247, 250, 255), shade, 0.55), 1.0, 0.8)
    canvas.hills(0.90, 0.03, shade, 1.0, 1.0)
    for x, y, r in canvas.scatter(45 if canvas.chance(0.5) else 0, 3):
        canvas.dot(x, y, 0.003 + 0.005 * r, (255, 255, 255))
    return canvas.image, (horizon + 0.2, 0.95)


def _desert(rng: np.random.Generator, size: int) -> tuple[Image.Image, Ground]:
    horizon = 0.36 + 0.16 * rng.random()
    top, low = pick(rng, _HOT_SKIES)
    sky = jitter(rng, top), jitter(rng, low, 8)
    sand = jitter(rng, pick(rng, ((226, 176, 104), (214, 150, 88), (232, 192, 128), (204, 128, 78))))
    canvas = Canvas(rng, size, [(0, sky[0]), (horizon, sky[1]), (1, sky[1])])
    scenery.sun(canvas, sky, horizon)
    if canvas.chance(0.5):
        rock = mix(jitter(rng, (176, 96, 66)), sky[1], 0.35)
        for x, w, h in canvas.scatter(2, 3):
            scenery.mesa(canvas, x, horizon + 0.04, 0.10 + 0.14 * w, 0.10 + 0.14 * h, rock)
    scenery.dune(canvas, horizon, 0.05, mix(sand, sky[1], 0.35))
    for x, h in canvas.scatter(canvas.between(1, 3), 2):
        scenery.cactus(canvas, x, horizon + 0.07 + 0.05 * h, 0.13 + 0.15 * h, jitter(rng, (84, 128, 74)))
    scenery.dune(canvas, horizon + 0.13, 0.06, sand)
    for x, y, r in canvas.scatter(canvas.between(0, 4), 3):
        scenery.stone(canvas, x, horizon + 0.2 + 0.3 * y, 0.015 + 0.02 * r, mix(sand, (120, 70, 60), 0.45))
    scenery.dune(canvas, 0.82, 0.06, mix(sand, (255, 244, 206), 0.25))
    return canvas.image, (horizon + 0.18, 0.95)


def _meadow(rng: np.random.Generator, size: int) -> tuple[Image.Image, Ground]:
    horizon = 0.34 + 0.18 * rng.random()
    sky = scenery.day_sky(rng)
    green = jitter(rng, pick(rng, ((122, 184, 76), (146, 190, 80), (104, 172, 84), (170, 192, 88))))
    deep = mix(green, (40, 110, 50), 0.5)
    canvas = Canvas(rng, size, [(0, sky[0]), (horizon, sky[1]), (horizon + 0.02, mix(green, sky[1], 0.2)), (1, deep)])
    scenery.weather(canvas, sky, horizon - 0.06)
    canvas.hills(horizon, 0.05, mix(deep, sky[1], 0.45), horizon + 0.14, 1.2)
    for x, y, h in canvas.scatter(canvas.between(0, 3), 3):
        scenery.round_tree(canvas, x, horizon + 0.07 + 0.03 * y, 0.12 + 0.08 * h, mix(deep, (30, 90, 60), 0.3))
    canvas.hills(horizon + 0.08, 0.03, mix(green, (250, 240, 150), 0.25), 1.0, 1.0)
    canvas.hills(horizon + 0.24, 0.03, green, 1.0, 1.1)
    canvas.hills(0.86, 0.02, deep, 1.0, 1.3)
    scenery.grass(canvas, 0.87, 0.07, deep)
    scenery.flowers(canvas, horizon + 0.14, canvas.between(14, 28))
    return canvas.image, (horizon + 0.2, 0.95)


def _city(rng: np.random.Generator, size: int) -> tuple[Image.Image, Ground]:
    street = 0.60 + 0.1 * rng.random()
    sky = scenery.day_sky(rng, 0.3)
    asphalt = jitter(rng, (108, 110, 118))
    canvas = Canvas(rng, size, [(0, sky[0]), (street, sky[1]), (street + 0.003, asphalt), (1, asphalt)])
    scenery.clouds(canvas, sky, 0.3, canvas.between(0, 2))
    x = -0.05
    while x < 1:
        w, h = (0.08, 0.30) + rng.random(2) * (0.1, 0.26)
        canvas.box(x, street - h, x + w, street, mix(sky[1], (96, 110, 140), 0.4))
        x += w
    x = -0.06 * rng.random()
    while x < 1:
        w, h = (0.15, 0.20) + rng.random(2) * (0.13, 0.34)
        scenery.building(canvas, x, street, w, h)
        x += w + (0.012 if rng.random() < 0.75 else 0.07)
    curb = street + 0.055
    canvas.box(0, street, 1, curb, (190, 188, 184))
    canvas.box(0, curb, 1, curb + 0.012, (144, 142, 140))
    for x, h in canvas.scatter(canvas.between(0, 2), 2):
        scenery.round_tree(canvas, x, street + 0.03, 0.22 + 0.08 * h, jitter(rng, (92, 146, 78)))
    for (x,) in canvas.scatter(canvas.between(0, 2), 1):
        scenery.street_lamp(canvas, x, street + 0.03)
    lane, start = 0.5 * (curb + 1.02), rng.random() * 0.2 - 0.2
    for k in range(5):
        x = start + 0.28 * k
        dash = [(x, lane), (x + 0.15, lane), (x + 0.14, lane + 0.028), (x - 0.015, lane + 0.028)]
        canvas.polygon(dash, (236, 226, 170))
    return canvas.image, (street + 0.08, 0.95)


def _night(rng: np.random.Generator, size: int) -> tuple[Image.Image, Ground]:
    ground = 0.64 + 0.1 * rng.random()
    top, low = pick(rng, _NIGHT_SKIES)
    top, low = jitter(rng, top, 6), jitter(rng, low, 8)
    dark = mix(top, (8, 16, 22), 0.5)
    canvas = Canvas(rng, size, [(0, top), (ground, low), (1, low)])
    scenery.night_sky(canvas, top, ground)
    canvas.hills(ground - 0.07, 0.05, mix(low, dark, 0.4), 1.0, 1.3)
    if canvas.chance(0.3):
        scenery.cabin(canvas, 0.1 + 0.8 * rng.random(), ground + 0.03, 0.07, mix(dark, low, 0.15), dark)
    for x, h in canvas.scatter(canvas.between(2, 7), 2):
        scenery.spruce(canvas, x, ground + 0.02, 0.1 + 0.16 * h, mix(low, dark, 0.8))
    canvas.hills(ground + 0.01, 0.02, mix(low, dark, 0.75), 1.0, 1.2)
    canvas.hills(0.88, 0.02, dark, 1.0, 1.0)
    scenery.grass(canvas, 0.95, 0.05, mix(dark, (0, 0, 0), 0.3))
    for x, y in canvas.scatter(canvas.between(0, 8), 2):
        canvas.dot(x, ground + 0.26 * y, 0.009, mix(dark, (236, 240, 120), 0.35))
        canvas.dot(x, ground + 0.26 * y, 0.005, (240, 246, 150))
    return canvas.image, (ground + 0.06, 0.95)


def _mountain(rng: np.random.Generator, size: int) -> tuple[Image.Image, Ground]:
    base = 0.56 + 0.1 * rng.random()
    sky = scenery.day_sky(rng, 0.2)
    rock = jitter(rng, pick(rng, ((112, 116, 136), (134, 122, 116), (96, 110, 126), (138, 118, 136))))
    foot = jitter(rng, pick(rng, ((134, 146, 108), (148, 136, 112), (116, 130, 116))))
    canvas = Canvas(rng, size, [(0, sky[0]), (base, sky[1]), (base + 0.01, foot), (1, mix(foot, (40, 44, 40), 0.3))])
    scenery.clouds(canvas, sky, 0.3, canvas.between(0, 2))
    if canvas.chance(0.3):
        scenery.birds(canvas, 0.3, mix(rock, (20, 20, 40), 0.5))
    for x, h in canvas.scatter(3, 2):
        scenery.peak(canvas, x, base + 0.02, 0.34 + 0.12 * h, 0.24 + 0.1 * h, mix(rock, sky[1], 0.5))
    for x, h in canvas.scatter(canvas.between(2, 3), 2):
        scenery.peak(canvas, 0.05 + 0.9 * x, base + 0.03, 0.30 + 0.14 * h, 0.36 + 0.2 * h, rock)
    for x, h in canvas.scatter(canvas.between(0, 9), 2):
        scenery.spruce(canvas, x, base + 0.05, 0.06 + 0.07 * h, mix((52, 88, 74), sky[1], 0.15))
    canvas.hills(base + 0.04, 0.03, foot, 1.0, 1.5)
    canvas.hills(0.86, 0.03, mix(foot, rock, 0.45), 1.0, 1.0)
    for x, y, r in sorted(canvas.scatter(9, 3), key=lambda rock: rock[1]):
        grey = mix(rock, (214, 210, 204), 0.4 * r)
        scenery.stone(canvas, x, base + 0.08 + (0.9 - base) * y, 0.015 + 0.045 * r * (0.4 + y), grey)
    return canvas.image, (base + 0.1, 0.95)


def _beach(rng: np.random.Generator, size: int) -> tuple[Image.Image, Ground]:
    horizon = 0.26 + 0.12 * rng.random()
    shore = horizon + 0.15 + 0.12 * rng.random()
    sky = scenery.day_sky(rng, 0.25)
    sea = jitter(rng, pick(rng, ((40, 168, 190), (52, 150, 200), (64, 190, 186))))
    sand = jitter(rng, pick(rng, ((246, 222, 170), (240, 208, 160), (250, 232, 196))), 8)
    deep, shallow = mix(sea, (20, 80, 150), 0.4), mix(sea, (200, 250, 240), 0.35)
    canvas = Canvas(rng, size, [(0, sky[0]), (horizon, sky[1]), (horizon + 0.003, deep), (shore, shallow), (1, sand)])
    scenery.weather(canvas, sky, horizon)
    if canvas.chance(0.5):
        scenery.sailboat(canvas, 0.15 + 0.7 * rng.random(), horizon + 0.01, 0.055 + 0.03 * rng.random())
    x, slope, phase = steps(25), 0.1 * (rng.random() - 0.5), 6.3 * rng.random()
    edge = shore + slope * (x - 0.5) + 0.012 * np.sin(14 * x + phase)
    canvas.ridge(edge - 0.018, (252, 254, 252))
    canvas.ridge(edge, mix(sand, (150, 120, 90), 0.25))
    canvas.ridge(edge + 0.035, sand)
    for x, y, r in canvas.scatter(10, 3):
        y = shore + 0.1 + (0.9 - shore) * y
        canvas.ellipse(x, y, 0.02 + 0.04 * r, 0.004 + 0.003 * r, mix(sand, (190, 140, 90), 0.25))
    if canvas.chance(0.45):
        scenery.palm(canvas, -0.01 if canvas.chance(0.5) else 1.01, shore + 0.24)
    elif canvas.chance(0.5):
        scenery.parasol(canvas, 0.12 + 0.7 * rng.random(), shore + 0.16, 0.13)
    for x, y, r in canvas.scatter(canvas.between(0, 5), 3):
        shell = pick(rng, ((232, 120, 90), (250, 244, 236), (236, 160, 150)))
        scenery.starfish(canvas, x, shore + 0.14 + (0.82 - shore) * y, 0.016 + 0.012 * r, shell)
    return canvas.image, (shore + 0.1, 0.95)


def _swamp(rng: np.random.Generator, size: int) -> tuple[Image.Image, Ground]:
    horizon = 0.38 + 0.12 * rng.random()
    haze = jitter(rng, pick(rng, ((196, 206, 150), (174, 194, 170), (210, 196, 142))))
    murk = jitter(rng, pick(rng, ((76, 92, 50), (64, 86, 64), (92, 86, 48))))
    stops = [(0, mix(haze, (90, 110, 90), 0.4)), (horizon, haze), (horizon + 0.004, mix(murk, haze, 0.4))]
    canvas = Canvas(rng, size, [*stops, (1, mix(murk, (20, 30, 20), 0.3))])
    canvas.hills(horizon - 0.06, 0.04, mix(murk, haze, 0.65), horizon + 0.01, 2.5)
    canvas.hills(horizon - 0.015, 0.025, mix(murk, haze, 0.4), horizon + 0.01, 3.5)
    for x, w in canvas.scatter(canvas.between(2, 4), 2):
        bark = mix((62, 56, 44), haze, 0.35 * (1 - w))
        scenery.swamp_tree(canvas, x, horizon + 0.02 + 0.08 * w, 0.012 + 0.014 * w, bark)
    scenery.waves(canvas, horizon, 9, mix(murk, haze, 0.5), mix(murk, haze, 0.3))
    scenery.lily_pads(canvas, horizon, canvas.between(6, 11), jitter(rng, (112, 156, 62)), murk)
    scenery.reeds(canvas, mix(murk, (130, 150, 60), 0.4), canvas.between(3, 7))
    return canvas.image, (horizon + 0.16, 0.94)


_DRAWERS: dict[str, Callable[[np.random.Generator, int], tuple[Image.Image, Ground]]] = {
    "water": _water, "forest": _forest, "snow": _snow, "desert": _desert, "meadow": _meadow,
    "city": _city, "night": _night, "mountain": _mountain, "beach": _beach, "swamp": _swamp,
}  # fmt: skip


def draw_habitat(name: str, rng: np.random.Generator, size: int) -> tuple[Image.Image, Ground]:
    """The scenery `name` (one of HABITATS) as an RGB image (size, size), and the heights where feet may stand."""
    if name not in _DRAWERS:
        raise ValueError(f"Unknown habitat {name!r}; choose one of {', '.join(HABITATS)}.")
    return _DRAWERS[name](rng, size)
