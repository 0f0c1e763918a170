"""Animals without a backbone, from bees to jellyfish."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from .creatures_brush import Brush, rgb, shade

Traits = Mapping[str, Any]

# Outlines are long lists of points: packed, they stay readable.
# fmt: off


def bee(b: Brush, t: Traits, pose: str) -> None:
    """A bee on the wing."""
    b.oval(0.42, 0.28, 0.13, 0.24, t["second"], angle=-0.5)
    b.oval(0.58, 0.26, 0.12, 0.24, t["second"], angle=0.25)
    b.poly([(0.1, 0.62), (0.0, 0.66), (0.12, 0.7)], t["third"])
    mask = b.mask(b.oval(0.42, 0.62, 0.34, 0.23, t["coat"]))
    for x in (0.2, 0.36, 0.52):
        b.inside(mask, [[(x, 0.3), (x + 0.08, 0.3), (x + 0.08, 0.9), (x, 0.9)]], t["third"])
    for x in (0.36, 0.48, 0.6):
        b.stroke([(x, 0.8), (x + 0.02, 0.9), (x - 0.03, 0.97)], 0.018, t["third"])
    for dx in (0.0, 0.07):
        b.stroke([(0.8 + dx, 0.46), (0.86 + dx, 0.32), (0.94 + dx, 0.3)], 0.018, t["third"])
    b.oval(0.79, 0.58, 0.16, 0.16, t["third"])
    b.eye(0.84, 0.55, 0.034, "#fff3c4")


def ant(b: Brush, t: Traits, pose: str) -> None:
    """An ant: three beads, six bent legs."""
    for s, x in ((-1, 0.44), (0, 0.5), (1, 0.56)):
        for dark, dy in ((0.7, -0.03), (1.0, 0.02)):
            foot = x + s * 0.26 + (0.05 if dark < 1 else -0.02)
            b.stroke([(x, 0.6 + dy), (x + s * 0.14 + 0.01, 0.42 + dy), (foot, 0.94)], 0.026, shade(rgb(t["second"]),
                dark))
    b.oval(0.2, 0.56, 0.2, 0.16, t["coat"], angle=-0.15)
    b.oval(0.5, 0.6, 0.13, 0.1, t["coat"])
    for dx in (0.0, 0.08):
        b.stroke([(0.8 + dx, 0.42), (0.86 + dx, 0.22), (0.99, 0.2 + dx)], 0.02, t["second"])
    b.blob([(0.94, 0.58), (1.02, 0.64), (0.92, 0.68)], t["second"])
    b.oval(0.8, 0.52, 0.16, 0.14, t["coat"])
    b.eye(0.84, 0.49, 0.034, "#fbe9d2")


def beetle(b: Brush, t: Traits, pose: str) -> None:
    """A ladybird from the side."""
    for x in (0.26, 0.46, 0.64):
        b.stroke([(x, 0.8), (x + 0.05, 0.88), (x + 0.03, 0.97)], 0.034, t["third"])
    for dx in (0.0, 0.06):
        b.stroke([(0.86, 0.62), (0.9 + dx, 0.48), (0.98 + dx * 0.5, 0.44 + dx)], 0.02, t["third"])
    b.oval(0.82, 0.72, 0.14, 0.14, t["third"])
    b.oval(0.86, 0.64, 0.035, 0.035, t["second"], outline=False)
    mask = b.mask(b.blob([(0.04, 0.82), (0.1, 0.54), (0.3, 0.34), (0.54, 0.32), (0.74, 0.5), (0.8, 0.84),
        (0.4, 0.88)], t["coat"]))
    b.inside(mask, [b.disc(x, y, 0.062) for x, y in ((0.24, 0.56), (0.46, 0.46), (0.64, 0.6), (0.4, 0.7), (0.2, 0.78),
        (0.6, 0.8))], t["third"])
    b.eye(0.87, 0.74, 0.03, "#ffffff")


def butterfly(b: Brush, t: Traits, pose: str) -> None:
    """A butterfly or moth with spread wings; venation, edges and eyespots are traits."""
    close = 1.0 if pose == "stand" else 0.8
    edge = t["third"] if not t.get("tails") else shade(rgb(t["coat"]), 0.8)
    for s in (-1, 1):
        at = partial(_across, s * close)
        hind = [(0.03, 0.52), (0.28, 0.5), (0.4, 0.64), (0.32, 0.86), (0.16, 0.88), (0.04, 0.66)]
        if t.get("tails"):
            hind = [(0.03, 0.5), (0.26, 0.52), (0.3, 0.68), (0.2, 0.8), (0.24, 1.0), (0.14, 0.98), (0.1, 0.78),
                (0.03, 0.66)]
        fore = [(0.02, 0.46), (0.14, 0.2), (0.36, 0.07), (0.5, 0.12), (0.46, 0.38), (0.3, 0.54), (0.04, 0.56)]
        inner = 0.84 if t["pattern"] != "eyespots" else 0.93
        for wing, centre in ((hind, (0.22, 0.68)), (fore, (0.28, 0.33))):
            b.blob(at(wing), edge)
            small = [(centre[0] + (x - centre[0]) * inner, centre[1] + (y - centre[1]) * inner) for x, y in wing]
            b.blob(at(small), t["coat"], outline=False)
        _wing_marks(b, t, at)
    b.oval(0.5, 0.52, 0.045, 0.24, "#3a2d2a" if not t.get("tails") else "#f4efe0")
    for s in (-1, 1):
        b.stroke([(0.5, 0.3), (0.5 + s * 0.06, 0.16), (0.5 + s * 0.13, 0.1)], 0.016 if not t.get("tails") else 0.035,
            "#3a2d2a" if not t.get("tails") else "#c9a44f")
    b.oval(0.5, 0.29, 0.05, 0.05, "#3a2d2a" if not t.get("tails") else "#f4efe0")


def _across(width: float, points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points given from the middle line outwards, on the side that the sign of `width` says."""
    return [(0.5 + width * dx, y) for dx, y in points]


def _wing_marks(b: Brush, t: Traits, at: Callable[[list[tuple[float, float]]], list[tuple[float, float]]]) -> None:
    if t["pattern"] == "veined":
        for x, y in ((0.3, 0.12), (0.42, 0.2), (0.42, 0.36)):
            b.stroke(at([(0.05, 0.47), (x, y)]), 0.018, t["third"])
        for x, y in ((0.34, 0.64), (0.28, 0.8), (0.15, 0.84)):
            b.stroke(at([(0.05, 0.56), (x, y)]), 0.018, t["third"])
        for x, y in ((0.45, 0.14), (0.48, 0.22), (0.46, 0.3), (0.38, 0.68), (0.34, 0.8), (0.24, 0.87)):
            ((px, py),) = at([(x, y)])
            b.oval(px, py, 0.013, 0.013, t["second"], outline=False)
    elif t["pattern"] == "edged":
        b.blob(at([(0.06, 0.46), (0.2, 0.26), (0.34, 0.22), (0.3, 0.4), (0.1, 0.5)]), t["second"], outline=False)
        b.blob(at([(0.06, 0.56), (0.24, 0.58), (0.26, 0.72), (0.12, 0.72)]), t["second"], outline=False)
    else:
        for x, y in ((0.28, 0.3), (0.18, 0.66)):
            ((px, py),) = at([(x, y)])
            b.oval(px, py, 0.05, 0.045, t["second"])
            b.oval(px, py, 0.025, 0.022, t["third"], outline=False)


def dragonfly(b: Brush, t: Traits, pose: str) -> None:
    """A dragonfly: four glassy wings, a long jewelled tail."""
    for x, y, a in ((0.5, 0.26, 0.35), (0.66, 0.24, -0.1)):
        b.oval(x, y, 0.09, 0.26, t["second"], angle=-a)
        b.stroke([(x, y - 0.2), (x + 0.02, y + 0.22)], 0.009, shade(rgb(t["second"]), 0.7))
    for x, y, a in ((0.46, 0.8, -0.45), (0.62, 0.8, 0.0)):
        b.oval(x, y, 0.08, 0.22, t["second"], angle=-a)
    b.limb([(0.56, 0.54), (0.3, 0.56), (0.0, 0.66)], 0.1, t["coat"], tip=0.06)
    for k in np.linspace(0.1, 0.9, 6):
        x = 0.56 - 0.54 * k
        b.stroke([(x, 0.5 + 0.06 * k), (x, 0.6 + 0.06 * k)], 0.014, shade(rgb(t["coat"]), 0.55))
    b.oval(0.64, 0.53, 0.15, 0.1, t["coat"])
    b.oval(0.84, 0.52, 0.1, 0.1, shade(rgb(t["coat"]), 0.8))
    b.oval(0.87, 0.47, 0.065, 0.07, "#c5482f")
    b.eye(0.88, 0.46, 0.025)


def spider(b: Brush, t: Traits, pose: str) -> None:
    """A spider from the front: eight legs, four eyes."""
    for s in (-1, 1):
        for knee, foot in (((0.26, 0.3), (0.36, 0.06)), ((0.34, 0.4), (0.49, 0.34)), ((0.34, 0.46), (0.49, 0.78)),
                ((0.24, 0.56), (0.32, 0.96))):
            b.stroke([(0.5 + s * 0.1, 0.5), (0.5 + s * knee[0], knee[1]), (0.5 + s * foot[0], foot[1])], 0.034,
                shade(rgb(t["coat"]), 0.75))
            b.oval(0.5 + s * knee[0], knee[1], 0.022, 0.022, t["second"], outline=False)
    mask = b.mask(b.oval(0.5, 0.36, 0.2, 0.24, t["coat"]))
    cross = [b.disc(0.5, 0.32, 0.028, 0.13), b.disc(0.5, 0.3, 0.1, 0.028), b.disc(0.5, 0.46, 0.03, 0.03)]
    b.inside(mask, cross, t["second"])
    b.oval(0.5, 0.64, 0.15, 0.14, shade(rgb(t["coat"]), 0.88))
    for s in (-1, 1):
        b.eye(0.5 + s * 0.055, 0.63, 0.03, "#fff7e2")
        b.eye(0.5 + s * 0.11, 0.57, 0.015)
        b.poly([(0.5 + s * 0.02, 0.75), (0.5 + s * 0.06, 0.75), (0.5 + s * 0.035, 0.82)], "#efe5cf")


def scorpion(b: Brush, t: Traits, pose: str) -> None:
    """A scorpion with raised claws and sting."""
    for k, x in enumerate((0.36, 0.44, 0.52, 0.6)):
        b.stroke([(x, 0.76), (x - 0.05 + 0.03 * k, 0.84), (x - 0.08 + 0.05 * k, 0.96)], 0.026, t["third"])
    tail = [(0.26, 0.72), (0.1, 0.6), (0.05, 0.38), (0.14, 0.18), (0.32, 0.12)]
    curve = b.curve(tail, closed=False)
    for k in range(0, len(curve), 3):
        b.oval(*curve[k], 0.064 - 0.001 * k, 0.06 - 0.001 * k, t["coat"])
    b.poly([(0.34, 0.06), (0.5, 0.16), (0.34, 0.2)], t["third"])
    mask = b.mask(b.blob([(0.2, 0.74), (0.3, 0.64), (0.56, 0.62), (0.7, 0.7), (0.68, 0.8), (0.5, 0.84), (0.28, 0.82)],
        t["coat"]))
    b.inside(mask, [[(x, 0.6), (x + 0.014, 0.6), (x + 0.014, 0.86), (x, 0.86)] for x in (0.32, 0.4, 0.48, 0.56)],
        t["third"])
    b.limb([(0.66, 0.72), (0.78, 0.7), (0.8, 0.56)], 0.05, t["coat"])
    for s in (0, 1):
        b.blob([(0.76, 0.56), (0.74 - s * 0.02, 0.44), (0.78 + s * 0.08, 0.32), (0.82 + s * 0.1, 0.34),
            (0.82 + s * 0.04, 0.48), (0.84, 0.56)], t["second"])
    b.eye(0.64, 0.7, 0.022, "#fff2d0")


def crab(b: Brush, t: Traits, pose: str) -> None:
    """A crab from the front, claws up."""
    raise_ = 0.0 if pose == "stand" else 0.06
    for s in (-1, 1):
        for k in range(3):
            b.stroke([(0.5 + s * 0.22, 0.66 + k * 0.05), (0.5 + s * (0.38 + 0.02 * k), 0.66 + k * 0.08),
                (0.5 + s * (0.46 - 0.06 * k), 0.86 + k * 0.05)], 0.036, shade(rgb(t["coat"]), 0.85))
        b.limb([(0.5 + s * 0.24, 0.58), (0.5 + s * 0.4, 0.52), (0.5 + s * 0.38, 0.36 - raise_)], 0.07, t["coat"])
        claw = [(0.3, 0.36), (0.27, 0.2), (0.36, 0.08), (0.39, 0.22), (0.46, 0.1), (0.5, 0.24), (0.44, 0.38)]
        b.blob([(0.5 + s * x, y - raise_) for x, y in claw], t["coat"])
        b.stroke([(0.5 + s * 0.1, 0.52), (0.5 + s * 0.11, 0.4)], 0.026, t["coat"])
        b.eye(0.5 + s * 0.11, 0.38, 0.034, "#ffffff")
    mask = b.mask(b.blob([(0.5, 0.48), (0.72, 0.52), (0.8, 0.64), (0.68, 0.82), (0.5, 0.86), (0.32, 0.82),
        (0.2, 0.64), (0.28, 0.52)], t["coat"]))
    b.inside(mask, [b.disc(0.5, 0.86, 0.26, 0.12)], t["second"])
    b.inside(mask, [b.disc(x, y, 0.022) for x, y in ((0.36, 0.6), (0.44, 0.56), (0.58, 0.57), (0.66, 0.62))],
        t["second"])
    b.stroke([(0.42, 0.7), (0.5, 0.74), (0.58, 0.7)], 0.016, shade(rgb(t["coat"]), 0.5))


def snail(b: Brush, t: Traits, pose: str) -> None:
    """A snail with a spiral house."""
    for x, tip in ((0.84, 0.82), (0.92, 0.99)):
        b.stroke([(x - 0.02, 0.62), (tip, 0.42)], 0.024, t["coat"])
        b.oval(tip, 0.42, 0.026, 0.026, (40, 34, 34), outline=False)
    b.blob([(0.02, 0.95), (0.2, 0.84), (0.6, 0.82), (0.76, 0.66), (0.88, 0.58), (0.98, 0.66), (0.94, 0.8),
        (0.8, 0.95), (0.4, 0.975)], t["coat"])
    b.oval(0.42, 0.56, 0.32, 0.32, t["second"])
    for r, x, y, color in ((0.24, 0.44, 0.58, t["third"]), (0.2, 0.45, 0.59, t["second"]),
            (0.13, 0.45, 0.59, t["third"]), (0.095, 0.46, 0.6, t["second"]), (0.04, 0.46, 0.6, t["third"])):
        b.oval(x, y, r, r, color, outline=False)
    b.stroke([(0.95, 0.74), (0.9, 0.77), (0.85, 0.75)], 0.014, shade(rgb(t["coat"]), 0.5))


def octopus(b: Brush, t: Traits, pose: str) -> None:
    """An octopus on eight curling arms."""
    swing = 0.04 if pose == "stand" else -0.03
    for k, s in enumerate((-1, -0.62, -0.25, 0.25, 0.62, 1)):
        x = 0.5 + s * 0.2
        end = 0.5 + s * 0.46
        b.limb([(x, 0.56), (x + s * 0.14, 0.74 + swing), (end - s * 0.04, 0.92 - abs(s) * 0.06),
            (end + s * 0.04, 0.84 - abs(s) * 0.1)], 0.12, shade(rgb(t["coat"]), 0.88 if k % 2 else 1.0), tip=0.03)
        for j in (0.3, 0.6):
            b.oval(x + s * 0.14 * j * 1.6, 0.62 + 0.22 * j, 0.016, 0.014, t["second"], outline=False)
    mask = b.mask(b.blob([(0.5, 0.03), (0.72, 0.12), (0.78, 0.34), (0.7, 0.54), (0.64, 0.68), (0.36, 0.68),
        (0.3, 0.54), (0.22, 0.34), (0.28, 0.12)], t["coat"]))
    b.inside(mask, [b.disc(x, y, r) for x, y, r in ((0.4, 0.16, 0.04), (0.54, 0.12, 0.03), (0.62, 0.22, 0.035),
        (0.36, 0.28, 0.025))], t["second"])
    for s in (-1, 1):
        b.eye(0.5 + s * 0.11, 0.46, 0.042, "#fff6e8")
    b.stroke([(0.44, 0.6), (0.5, 0.63), (0.56, 0.6)], 0.016, t["third"])


def jellyfish(b: Brush, t: Traits, pose: str) -> None:
    """A jellyfish: a bell and trailing arms."""
    sway = 0.05 if pose == "stand" else -0.05
    for k, x in enumerate(np.linspace(0.24, 0.76, 7)):
        s = sway if k % 2 else -sway
        b.stroke([(x, 0.44), (x + s, 0.6), (x - s, 0.76), (x + s, 0.84 + 0.12 * (k % 2))], 0.022 if k % 2 else 0.034,
            t["third"] if k % 2 else t["second"])
    mask = b.mask(b.blob([(0.5, 0.03), (0.74, 0.1), (0.88, 0.32), (0.86, 0.47), (0.74, 0.44), (0.62, 0.5),
        (0.5, 0.45), (0.38, 0.5), (0.26, 0.44), (0.14, 0.47), (0.12, 0.32), (0.26, 0.1)], t["coat"]))
    b.inside(mask, [b.disc(0.42, 0.16, 0.2, 0.08)], t["second"])
    b.inside(mask, [b.disc(x, 0.33, 0.055, 0.07) for x in (0.28, 0.43, 0.57, 0.72)], t["third"])
    b.inside(mask, [b.disc(x, 0.33, 0.03, 0.042) for x in (0.28, 0.43, 0.57, 0.72)], t["second"])


def starfish(b: Brush, t: Traits, pose: str) -> None:
    """A starfish of five arms."""
    turn = -np.pi / 2 + (0.0 if pose == "stand" else 0.3)
    points = []
    for k in range(5):
        a = turn + 2 * np.pi * k / 5
        for da, r in ((-0.13, 0.44), (0.13, 0.44), (np.pi / 5, 0.19)):
            points.append((0.5 + r * np.cos(a + da), 0.54 + r * np.sin(a + da)))
    b.blob(points, t["coat"])
    for k in range(5):
        a = turn + 2 * np.pi * k / 5
        for r in (0.12, 0.2, 0.28, 0.35):
            b.oval(0.5 + r * np.cos(a), 0.54 + r * np.sin(a), 0.03 - r * 0.04, 0.03 - r * 0.04, t["second"],
                outline=False)
    for s in (-1, 1):
        b.eye(0.5 + s * 0.07, 0.52, 0.026, "#fff8ea")
    b.stroke([(0.45, 0.6), (0.5, 0.63), (0.55, 0.6)], 0.016, t["third"])


PLANS = {"bee": bee, "ant": ant, "beetle": beetle, "butterfly": butterfly, "dragonfly": dragonfly, "spider": spider,
    "scorpion": scorpion, "crab": crab, "snail": snail, "octopus": octopus, "jellyfish": jellyfish,
    "starfish": starfish}
