"""Fish, reptiles and frogs."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .creatures_brush import Brush, rgb, shade

Traits = Mapping[str, Any]

# Outlines are long lists of points: packed, they stay readable.
# fmt: off


def fish(b: Brush, t: Traits, pose: str) -> None:
    """A bony fish from the side; depth and fins are traits."""
    d, dark = t["depth"], shade(rgb(t["coat"]), 0.85)
    wave = 0.05 if pose == "walk" else -0.02
    if t["fin"] == "veil":
        b.blob([(0.3, 0.5), (0.12, 0.3 + wave), (0.0, 0.36), (0.05, 0.52), (0.0, 0.72), (0.12, 0.76 + wave)],
            t["third"])
        b.blob([(0.4, 0.3), (0.46, 0.1), (0.66, 0.2), (0.7, 0.34)], t["third"])
        b.blob([(0.42, 0.68), (0.38, 0.88), (0.54, 0.74)], t["third"])
    else:
        b.blob([(0.25, 0.5), (0.1, 0.32 + wave), (0.02, 0.34), (0.08, 0.52), (0.02, 0.7), (0.1, 0.7 + wave)], dark)
        b.blob([(0.34, 0.5 - d * 0.8), (0.46, 0.46 - d * 1.35), (0.66, 0.5 - d * 0.75)], dark)
        b.blob([(0.46, 0.5 + d * 0.8), (0.44, 0.54 + d * 1.25), (0.58, 0.5 + d * 0.8)], dark)
    mask = b.mask(b.blob([(0.2, 0.5), (0.36, 0.5 - d * 0.8), (0.6, 0.5 - d), (0.84, 0.5 - d * 0.65), (0.95, 0.52),
        (0.84, 0.5 + d * 0.7), (0.6, 0.5 + d), (0.36, 0.5 + d * 0.75)], t["coat"]))
    if t["pattern"] == "banded":
        for x in (0.36, 0.56, 0.76):
            b.inside(mask, [b.disc(x, 0.5, 0.065, 0.4)], t["third"])
            b.inside(mask, [b.disc(x, 0.5, 0.045, 0.4)], t["second"])
    else:
        b.inside(mask, [b.disc(0.6, 0.5 + d * 0.95, 0.4, d * 0.55)], t["second"])
    if t["pattern"] == "spotted":
        b.inside(mask, [b.disc(x, 0.5 - d * (0.55 if i % 2 else 0.15), 0.018) for i, x in enumerate(np.linspace(0.3,
            0.78, 10))], t["third"])
    if t["fin"] == "veil":
        for x in (0.42, 0.52, 0.62):
            b.stroke([(x, 0.42), (x + 0.03, 0.5), (x, 0.58)], 0.012, t["third"])
    b.blob([(0.6, 0.55), (0.5, 0.56 + d * 0.3), (0.46, 0.6 + d * 0.5), (0.58, 0.58 + d * 0.3)], dark)
    b.stroke([(0.73, 0.5 - d * 0.6), (0.7, 0.5), (0.73, 0.5 + d * 0.6)], 0.012, shade(rgb(t["coat"]), 0.7))
    b.eye(0.83, 0.46, 0.03, "#fffdf2")
    b.stroke([(0.95, 0.55), (0.9, 0.565)], 0.014, shade(rgb(t["coat"]), 0.5))


def puffer(b: Brush, t: Traits, pose: str) -> None:
    """A blown-up puffer, all spines."""
    for angle in np.linspace(0, 2 * np.pi, 20, False):
        x, y = 0.53 + 0.44 * np.cos(angle), 0.5 + 0.42 * np.sin(angle)
        nx, ny = -np.sin(angle) * 0.05, np.cos(angle) * 0.05
        b.poly([(0.53 + (x - 0.53) * 0.8 + nx, 0.5 + (y - 0.5) * 0.8 + ny), (x, y), (0.53 + (x - 0.53) * 0.8 - nx,
            0.5 + (y - 0.5) * 0.8 - ny)], t["third"])
    b.blob([(0.2, 0.48), (0.06, 0.36), (0.0, 0.44), (0.04, 0.5), (0.0, 0.6), (0.07, 0.62)], t["third"])
    mask = b.mask(b.oval(0.53, 0.5, 0.37, 0.35, t["coat"]))
    b.inside(mask, [b.disc(0.56, 0.78, 0.36, 0.24)], t["second"])
    b.inside(mask, [b.disc(x, y, 0.032, 0.028) for x, y in ((0.3, 0.4), (0.42, 0.26), (0.58, 0.22), (0.48, 0.4),
        (0.34, 0.54), (0.62, 0.36))], t["third"])
    b.blob([(0.5, 0.56), (0.38, 0.52), (0.34, 0.66), (0.46, 0.66)], t["third"])
    b.eye(0.72, 0.4, 0.045, "#ffffff")
    b.oval(0.87, 0.54, 0.035, 0.045, "#c9764f")


def seahorse(b: Brush, t: Traits, pose: str) -> None:
    """A seahorse, upright with a curled tail."""
    b.blob([(0.36, 0.42), (0.2, 0.4), (0.18, 0.56), (0.35, 0.58)], t["second"])
    b.limb([(0.46, 0.5), (0.5, 0.72), (0.4, 0.88), (0.54, 0.96), (0.64, 0.88), (0.57, 0.82)], 0.19, t["coat"],
        tip=0.035)
    mask = b.mask(b.blob([(0.45, 0.16), (0.6, 0.24), (0.64, 0.46), (0.57, 0.7), (0.42, 0.68), (0.34, 0.48),
        (0.38, 0.3)], t["coat"]))
    b.inside(mask, [b.disc(0.61, 0.48, 0.1, 0.24)], t["second"])
    for k in range(6):
        b.stroke([(0.38, 0.36 + k * 0.065), (0.62, 0.38 + k * 0.065)], 0.012, t["third"])
    for x, y in ((0.36, 0.06), (0.44, 0.01), (0.53, 0.03)):
        b.poly([(0.4, 0.16), (x, y), (0.52, 0.14)], t["third"])
    b.limb([(0.58, 0.2), (0.8, 0.27)], 0.08, t["coat"], tip=0.06)
    b.oval(0.8, 0.27, 0.03, 0.042, t["coat"])
    b.oval(0.49, 0.19, 0.14, 0.11, t["coat"])
    b.eye(0.55, 0.17, 0.028, "#fff9e0")


def shark(b: Brush, t: Traits, pose: str) -> None:
    """A great shark from the side."""
    dark = shade(rgb(t["coat"]), 0.85)
    b.poly([(0.14, 0.5), (0.0, 0.18), (0.08, 0.48), (0.02, 0.74), (0.16, 0.56)], dark)
    b.poly([(0.44, 0.38), (0.47, 0.1), (0.62, 0.37)], dark)
    mask = b.mask(b.blob([(0.1, 0.51), (0.3, 0.4), (0.56, 0.32), (0.82, 0.36), (0.99, 0.47), (0.86, 0.6),
        (0.58, 0.68), (0.3, 0.6)], t["coat"]))
    b.inside(mask, [[(0.1, 0.56), (0.5, 0.56), (0.8, 0.5), (1.0, 0.5), (0.9, 0.75), (0.2, 0.75)]], t["second"])
    b.poly([(0.6, 0.58), (0.44, 0.86), (0.7, 0.62)], dark)
    b.stroke([(0.93, 0.56), (0.84, 0.56), (0.78, 0.52)], 0.014, (60, 30, 40))
    for x in (0.82, 0.86, 0.9):
        b.poly([(x - 0.016, 0.555), (x + 0.016, 0.555), (x, 0.59)], "#ffffff", outline=False)
    for x in (0.66, 0.69, 0.72):
        b.stroke([(x, 0.43), (x - 0.015, 0.53)], 0.011, shade(rgb(t["coat"]), 0.6))
    b.eye(0.84, 0.44, 0.024)


def turtle(b: Brush, t: Traits, pose: str) -> None:
    """A turtle with a domed, tiled shell."""
    b.limb([(0.12, 0.8), (0.02, 0.88)], 0.06, t["coat"], tip=0.01)
    for x, dx in ((0.28, -0.06), (0.64, 0.1)):
        b.blob([(x - 0.06, 0.76), (x + dx - 0.04, 0.97), (x + dx + 0.08, 0.98), (x + 0.08, 0.78)], t["coat"])
    b.limb([(0.7, 0.74), (0.82, 0.62), (0.87, 0.56)], 0.14, t["coat"], tip=0.1)
    b.oval(0.88, 0.55, 0.11, 0.095, t["coat"])
    b.eye(0.92, 0.52, 0.026, "#f5efc0")
    b.stroke([(0.98, 0.59), (0.9, 0.61)], 0.012, (50, 60, 30))
    mask = b.mask(b.blob([(0.08, 0.8), (0.1, 0.6), (0.24, 0.42), (0.44, 0.36), (0.64, 0.44), (0.76, 0.64),
        (0.78, 0.8), (0.44, 0.86)], t["second"]))
    tiles = [b.disc(x, y, 0.082, 0.075) for x, y in ((0.26, 0.56), (0.44, 0.5), (0.62, 0.58), (0.18, 0.72),
        (0.36, 0.69), (0.54, 0.69), (0.7, 0.74))]
    b.inside(mask, tiles, shade(rgb(t["second"]), 1.25))
    b.inside(mask, [[(0.0, 0.78), (0.85, 0.78), (0.85, 0.95), (0.0, 0.95)]], t["third"])


def snake(b: Brush, t: Traits, pose: str) -> None:
    """A snake in loops with its head raised."""
    path = [(0.02, 0.86), (0.12, 0.93), (0.26, 0.9), (0.34, 0.74), (0.48, 0.7), (0.56, 0.84), (0.68, 0.93),
        (0.8, 0.84), (0.79, 0.62), (0.7, 0.46), (0.74, 0.3), (0.84, 0.26)]
    curve = b.curve(path, closed=False)
    width = np.interp(np.linspace(0, 1, len(curve)), [0, 0.25, 0.75, 1], [0.02, 0.12, 0.13, 0.1])
    for grow, color in ((0.02, shade(rgb(t["coat"]), 0.6)), (0.0, rgb(t["coat"]))):
        for (x, y), w in zip(curve[::2], width[::2], strict=True):
            b.oval(x, y, w / 2 + grow, w / 2 + grow, color, outline=False)
    for k in range(6, len(curve) - 8, 6):
        (x, y), (ux, uy) = curve[k], curve[k + 1] - curve[k - 1]
        n = np.array([-uy, ux]) / (np.hypot(ux, uy) + 1e-9) * width[k] * 0.48
        b.stroke([(x - n[0], y - n[1]), (x + n[0], y + n[1])], 0.034, t["second"] if (k // 6) % 2 else t["third"])
    b.stroke([(0.94, 0.29), (1.0, 0.3), (1.05, 0.27)], 0.014, "#d8324a")
    b.oval(0.86, 0.25, 0.105, 0.08, t["coat"], angle=0.15)
    b.eye(0.88, 0.22, 0.028, "#f7e06a")


def _sprawl(b: Brush, t: Traits, legs: tuple[float, ...], y: float, dark: float) -> None:
    for x in legs:
        b.limb([(x, y), (x - 0.06, y + 0.08), (x + 0.02, 0.95)], 0.075, shade(rgb(t["coat"]), dark), tip=0.05)
        b.stroke([(x - 0.0, 0.96), (x + 0.08, 0.965)], 0.026, shade(rgb(t["coat"]), dark * 0.85))


def lizard(b: Brush, t: Traits, pose: str) -> None:
    """An iguana: long tail, a comb of spines, a dewlap."""
    _sprawl(b, t, (0.42, 0.68), 0.76, 0.75)
    b.limb([(0.4, 0.74), (0.24, 0.78), (0.12, 0.88), (0.02, 0.74), (0.08, 0.6), (0.14, 0.66)], 0.13, t["coat"],
        tip=0.015)
    for k in np.linspace(0, 1, 8):
        x, y = 0.32 + 0.42 * k, 0.69 - 0.2 * k**1.5
        b.poly([(x - 0.035, y + 0.02), (x - 0.03, y - 0.09), (x + 0.035, y + 0.02)], t["third"])
    mask = b.mask(b.blob([(0.28, 0.78), (0.4, 0.66), (0.62, 0.62), (0.76, 0.52), (0.84, 0.6), (0.76, 0.78),
        (0.56, 0.88), (0.38, 0.86)], t["coat"]))
    b.inside(mask, [b.disc(0.56, 0.9, 0.25, 0.07)], t["second"])
    b.inside(mask, [b.disc(x, 0.72, 0.018, 0.07) for x in (0.42, 0.5, 0.58, 0.66)], t["third"])
    b.blob([(0.78, 0.6), (0.88, 0.6), (0.86, 0.76), (0.78, 0.72)], t["second"])
    b.blob([(0.7, 0.52), (0.76, 0.42), (0.88, 0.42), (1.0, 0.52), (0.96, 0.6), (0.8, 0.62)], t["coat"])
    b.eye(0.84, 0.48, 0.03, "#f0d257")
    b.stroke([(0.98, 0.56), (0.86, 0.57)], 0.012, (50, 60, 30))
    _sprawl(b, t, (0.36, 0.62), 0.78, 1.0)


def crocodile(b: Brush, t: Traits, pose: str) -> None:
    """A crocodile, low and long, teeth showing."""
    _sprawl(b, t, (0.34, 0.62), 0.82, 0.75)
    for k in np.linspace(0, 1, 11):
        x, y = 0.06 + 0.54 * k, 0.78 - 0.1 * min(1, k * 1.6)
        b.poly([(x - 0.03, y + 0.02), (x, y - 0.06), (x + 0.03, y + 0.02)], t["third"])
    b.blob([(0.0, 0.66), (0.08, 0.78), (0.26, 0.7), (0.5, 0.66), (0.68, 0.7), (0.68, 0.86), (0.5, 0.92), (0.3, 0.91),
        (0.08, 0.88)], t["coat"])
    b.blob([(0.28, 0.91), (0.5, 0.87), (0.68, 0.86), (0.66, 0.9), (0.48, 0.94)], t["second"], outline=False)
    b.blob([(0.64, 0.82), (0.76, 0.83), (1.0, 0.87), (0.98, 0.92), (0.7, 0.92)], t["coat"])
    for k in range(6):
        b.poly([(0.76 + k * 0.038, 0.8), (0.79 + k * 0.038, 0.8), (0.775 + k * 0.038, 0.85)], "#ffffff", outline=False)
    b.blob([(0.62, 0.8), (0.64, 0.66), (0.72, 0.62), (0.78, 0.69), (0.98, 0.72), (1.0, 0.79), (0.8, 0.82)], t["coat"])
    b.eye(0.72, 0.66, 0.026, "#f2df5c")
    b.oval(0.96, 0.73, 0.016, 0.012, t["third"], outline=False)
    _sprawl(b, t, (0.28, 0.56), 0.84, 1.0)


def frog(b: Brush, t: Traits, pose: str) -> None:
    """A squatting frog with bulging eyes."""
    far = shade(rgb(t["coat"]), 0.78)
    b.limb([(0.66, 0.68), (0.74, 0.82), (0.7, 0.94)], 0.08, far)
    b.blob([(0.14, 0.8), (0.2, 0.6), (0.4, 0.44), (0.62, 0.34), (0.86, 0.42), (0.92, 0.56), (0.82, 0.74),
        (0.56, 0.92), (0.28, 0.94)], t["coat"])
    b.blob([(0.9, 0.58), (0.8, 0.76), (0.56, 0.92), (0.6, 0.74)], t["second"], outline=False)
    for x, y, r in ((0.36, 0.56, 0.04), (0.5, 0.47, 0.035), (0.48, 0.62, 0.03)):
        b.oval(x, y, r * 1.2, r, t["third"], outline=False)
    b.blob([(0.12, 0.82), (0.2, 0.64), (0.36, 0.64), (0.42, 0.78), (0.32, 0.94), (0.16, 0.95)], t["coat"])
    b.blob([(0.12, 0.92), (0.3, 0.9), (0.46, 0.94), (0.46, 0.98), (0.14, 0.98)], t["third"])
    b.limb([(0.62, 0.7), (0.6, 0.84), (0.66, 0.95)], 0.09, t["coat"])
    b.oval(0.69, 0.96, 0.08, 0.025, t["third"])
    b.stroke([(0.9, 0.58), (0.8, 0.6), (0.7, 0.57)], 0.014, shade(rgb(t["coat"]), 0.45))
    b.oval(0.74, 0.36, 0.1, 0.1, t["coat"])
    b.eye(0.76, 0.35, 0.042, "#f6d94e")


PLANS = {"fish": fish, "puffer": puffer, "seahorse": seahorse, "shark": shark, "turtle": turtle, "snake": snake,
    "lizard": lizard, "crocodile": crocodile, "frog": frog}
