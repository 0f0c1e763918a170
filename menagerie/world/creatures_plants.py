"""Flowers and mushrooms."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .creatures_brush import Brush, rgb, shade

Traits = Mapping[str, Any]

# Outlines are long lists of points: packed, they stay readable.
# fmt: off


def flower(b: Brush, t: Traits, pose: str) -> None:
    """A flower on its stem; the bloom (rose, disc, cup) is a trait."""
    lean = 0.03 if pose == "stand" else -0.04
    top = (0.5 + lean, 0.34)
    b.limb([(0.5, 0.97), (0.49 - lean, 0.66), top], 0.045, t["third"])
    for s, y in ((-1, 0.78), (1, 0.66)):
        b.blob([(0.5, y), (0.5 + s * 0.14, y - 0.13), (0.5 + s * 0.32, y - 0.14), (0.5 + s * 0.2, y + 0.01)],
            t["third"])
    {"rose": _rose, "disc": _disc, "cup": _cup}[t["bloom"]](b, t, *top)


def _rose(b: Brush, t: Traits, x: float, y: float) -> None:
    coat = rgb(t["coat"])
    for k in range(5):
        a = 2 * np.pi * k / 5 + 0.3
        b.oval(x + 0.13 * np.cos(a), y - 0.02 + 0.12 * np.sin(a), 0.14, 0.13, shade(coat, 0.9 if k % 2 else 1.0))
    b.oval(x, y - 0.03, 0.15, 0.14, coat)
    for r, dx in ((0.1, 0.0), (0.06, 0.02), (0.03, 0.0)):
        b.oval(x + dx, y - 0.04, r, r * 0.9, t["second"] if r == 0.06 else shade(coat, 0.8), outline=False)


def _disc(b: Brush, t: Traits, x: float, y: float) -> None:
    for ring, r in ((0.0, 0.25), (0.22, 0.21)):
        for k in range(14):
            a = 2 * np.pi * k / 14 + ring
            b.oval(x + r * np.cos(a), y - 0.02 + r * np.sin(a), 0.1, 0.045, shade(rgb(t["coat"]),
                0.88 if ring == 0 else 1.0), angle=a)
    mask = b.mask(b.oval(x, y - 0.02, 0.17, 0.17, t["second"]))
    b.inside(mask, [b.disc(x + 0.1 * np.cos(k * 2.4) * (k / 10) ** 0.5,
        y - 0.02 + 0.1 * np.sin(k * 2.4) * (k / 10) ** 0.5, 0.016) for k in range(16)], shade(rgb(t["second"]), 1.3))


def _cup(b: Brush, t: Traits, x: float, y: float) -> None:
    b.blob([(x, y + 0.08), (x - 0.1, y - 0.1), (x, y - 0.3), (x + 0.1, y - 0.1)], t["second"])
    for s in (-1, 1):
        b.blob([(x + s * 0.02, y + 0.1), (x + s * 0.19, y + 0.02), (x + s * 0.2, y - 0.16), (x + s * 0.17, y - 0.29),
            (x + s * 0.07, y - 0.14)], t["coat"])
    b.blob([(x, y + 0.11), (x - 0.11, y - 0.02), (x - 0.02, y - 0.2), (x + 0.02, y - 0.2), (x + 0.11, y - 0.02)],
        t["coat"])


def mushroom(b: Brush, t: Traits, pose: str) -> None:
    """A fly agaric."""
    b.blob([(0.42, 0.5), (0.4, 0.8), (0.32, 0.95), (0.5, 0.98), (0.68, 0.95), (0.6, 0.8), (0.58, 0.5)], t["second"])
    b.blob([(0.4, 0.6), (0.5, 0.57), (0.6, 0.6), (0.64, 0.7), (0.5, 0.68), (0.36, 0.7)], t["third"])
    b.oval(0.5, 0.5, 0.36, 0.07, t["third"])
    cap = b.blob([(0.06, 0.5), (0.1, 0.3), (0.28, 0.1), (0.5, 0.04), (0.72, 0.1), (0.9, 0.3), (0.94, 0.5),
        (0.7, 0.52), (0.5, 0.5), (0.3, 0.52)], t["coat"])
    b.inside(b.mask(cap), [b.disc(x, y, r, r * 0.85) for x, y, r in ((0.26, 0.3, 0.06), (0.44, 0.16, 0.05),
        (0.5, 0.36, 0.07), (0.7, 0.2, 0.055), (0.76, 0.4, 0.06), (0.15, 0.44, 0.04), (0.9, 0.46, 0.04))], t["second"])


PLANS = {"flower": flower, "mushroom": mushroom}
