"""Mammals: one four-legged plan with traits for most, and own plans where descent went its own way."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .creatures_brush import Brush, rgb, shade

Traits = Mapping[str, Any]

# Outlines are long lists of points: packed, they stay readable.
# fmt: off


def quadruped(b: Brush, t: Traits, pose: str) -> None:
    """A four-legged mammal from the side; legs are still (pose "stand") or in stride ("walk")."""
    leg, g, neck = t["leg"], t["girth"], t["neck"]
    length = t.get("length", 0.5)
    x0, x1 = 0.44 - length / 2, 0.44 + length / 2  # rump, chest
    cy = 0.97 - leg - g * 0.55
    stride = 0.07 if pose == "walk" else 0.015
    far = shade(rgb(t["coat"]), 0.75)
    _leg(b, t, x0 + 0.11, cy, stride, far)
    _leg(b, t, x1 - 0.02, cy, -stride, far)
    _tail(b, t, x0, cy - g * 0.3)
    head = (x1 + 0.1 + neck * 0.32, cy - g * 0.45 - neck * 0.85)
    if "mane" in t:
        b.oval(head[0] - 0.05, head[1] + 0.05, 0.2, 0.23, t["mane"])
    w = g * 1.05
    if neck > 0.2:
        b.limb([(x1 - 0.06, cy - 0.02), (x1 + 0.06 + neck * 0.05, cy - g * 0.3 - neck * 0.4),
            (head[0] - 0.02, head[1] + 0.02)], w * 1.15, t["coat"], tip=max(0.1, t["head"] * 0.85))
    top = [(x0 + 0.1, cy - g), (0.44, cy - g * 0.92), (x1 - 0.05, cy - g * 1.02)]
    if t.get("hump"):
        top = [(x0 + 0.07, cy - g * 0.85), (0.36, cy - g * 1.0), (0.44, cy - g * 1.95), (0.53, cy - g * 1.0),
            (x1 - 0.03, cy - g * 0.9)]
    body = [*top, (x1 + 0.05, cy - g * 0.35), (x1 + 0.03, cy + g * 0.45), (0.44, cy + g * 0.66),
        (x0 + 0.08, cy + g * 0.5), (x0 - 0.03, cy - g * 0.2)]
    if t.get("wool"):
        body = _woolly(body)
    near = ((x0 + 0.05, -stride), (x1 - 0.08, stride))
    for x, step in near:
        _leg(b, t, x, cy, step, rgb(t["coat"]))
    mask = b.mask(b.blob(body, t["coat"]))
    b.inside(mask, [b.disc(0.45, cy + g * 0.8, length * 0.42, g * 0.4)], shade(rgb(t["coat"]), 1.18))
    _pattern(b, t, mask, x0, x1, cy, g)
    for x, step in near:
        _thigh(b, t, x, cy, step)
    if neck > 0.2:
        b.oval(x1 - 0.03, cy - g * 0.3, g * 0.45, g * 0.5, t["coat"], outline=False)
        _neck_marks(b, t, (x1, cy - g * 0.45), head)
    _head(b, t, head)


def _woolly(body: list[tuple[float, float]]) -> list[tuple[float, float]]:
    centre = np.mean(body, axis=0)
    angles = np.linspace(0, 2 * np.pi, 22, False)
    bumps = 1 + 0.09 * (np.arange(22) % 2)
    spread = np.abs(np.asarray(body) - centre).max(0)
    return [(centre[0] + spread[0] * k * np.cos(a), centre[1] + spread[1] * k * np.sin(a)) for a, k in zip(angles,
        bumps, strict=True)]


def _leg(b: Brush, t: Traits, x: float, cy: float, stride: float, color: tuple[int, int, int]) -> None:
    width = 0.085 * t.get("thick", 1.0)
    foot = (x + stride, 0.95)
    b.limb([(x, cy + t["girth"] * 0.1), (x + stride * 0.3 - 0.008, (cy + 0.95) / 2 + 0.04), foot], width * 1.25,
        color, tip=width * 0.8)
    if "socks" in t:
        b.limb([(x + stride * 0.6, 0.97 - t["leg"] * 0.55), foot], width * 0.95, t["socks"], tip=width * 0.82,
            outline=False)
    paw = t.get("hoof", t.get("socks", shade(color, 0.9)))
    b.oval(foot[0] + 0.012, 0.955, width * 0.56, 0.026, paw)


def _thigh(b: Brush, t: Traits, x: float, cy: float, stride: float) -> None:
    """Blend a near leg into the body: cover the belly's outline where the leg begins."""
    width, g = 0.085 * t.get("thick", 1.0), t["girth"]
    low = cy + g * 0.6 + min(0.07, t["leg"] * 0.2)
    b.limb([(x, cy + g * 0.2), (x + stride * 0.15 - 0.004, low)], width * 1.22, t["coat"], tip=width * 1.12,
        outline=False)


def _tail(b: Brush, t: Traits, x: float, y: float) -> None:
    kind, coat = t["tail"], t["coat"]
    if kind == "bush":
        flat = b.blob([(x + 0.06, y), (x - 0.08, y - 0.02), (x - 0.2, y + 0.12), (x - 0.21, y + 0.3),
            (x - 0.1, y + 0.26), (x + 0.04, y + 0.12)], coat)
        b.inside(b.mask(flat), [b.disc(x - 0.21, y + 0.29, 0.1, 0.1)], t["tail_tip"])
    elif kind == "hair":
        b.limb([(x + 0.04, y + 0.0), (x - 0.09, y + 0.06), (x - 0.1, y + 0.32)], 0.06, t["hair"], tip=0.1)
    elif kind == "tuft":
        b.limb([(x + 0.04, y), (x - 0.08, y + 0.08), (x - 0.09, y + 0.24)], 0.035, coat)
        b.oval(x - 0.09, y + 0.27, 0.034, 0.05, t["tail_tip"])
    elif kind == "long":
        b.limb([(x + 0.04, y), (x - 0.1, y + 0.06), (x - 0.14, y - 0.12), (x - 0.2, y - 0.18)], 0.055, coat)
        if t["pattern"] == "striped":
            b.oval(x - 0.2, y - 0.18, 0.034, 0.04, t["third"], outline=False)
    elif kind == "up":
        b.limb([(x + 0.05, y + 0.02), (x - 0.08, y - 0.08), (x - 0.04, y - 0.26), (x - 0.12, y - 0.36)], 0.055, coat)
    elif kind == "curl":
        b.stroke([(x + 0.03, y), (x - 0.05, y - 0.03), (x - 0.06, y + 0.04), (x - 0.02, y + 0.03),
            (x - 0.08, y - 0.06)], 0.022, shade(rgb(coat), 0.8))
    elif kind == "stub":
        b.oval(x, y, 0.05, 0.06, t["second"])


def _bands(x0: float, x1: float, top: float, bottom: float, n: int, width: float) -> list[list[tuple[float, float]]]:
    """Tapered vertical stripes from the back downwards."""
    xs = np.linspace(x0, x1, n)
    return [[(x - width, top), (x + width, top), (x + width * 0.7 - 0.015, (top + bottom) / 2), (x - 0.02, bottom),
        (x - width * 0.5 - 0.015, (top + bottom) / 2)] for x in xs]


def _pattern(b: Brush, t: Traits, mask: Any, x0: float, x1: float, cy: float, g: float) -> None:
    pattern, rng = t["pattern"], b.rng
    if pattern == "striped":
        b.inside(mask, _bands(x0 + 0.02, x1, cy - g * 1.2, cy + g * 0.55, 8, 0.02), t["third"])
    elif pattern == "patched":
        at = [(x0 + 0.08, cy - g * 0.4), (0.45 + rng.uniform(-0.05, 0.05), cy + g * 0.05), (x1 - 0.03, cy - g * 0.6),
            (0.36, cy - g * 0.95)]
        b.inside(mask, [b.disc(x, y, rng.uniform(0.07, 0.11), rng.uniform(0.06, 0.1)) for x, y in at], t["third"])
    elif pattern == "dotted":
        dots = [b.disc(x + rng.uniform(-0.01, 0.01), cy - g * k, 0.014) for k,
            shift in ((0.65, 0), (0.3, 0.04)) for x in np.arange(x0 + 0.04 + shift, x1, 0.085)]
        b.inside(mask, dots, "#f6e6c8")
    elif pattern == "blotched":
        at = [(x + rng.uniform(-0.01, 0.01), cy + g * k) for k, shift in ((-0.7, 0), (-0.1, 0.045),
            (0.4, 0)) for x in np.arange(x0 + shift, x1 + 0.05, 0.09)]
        b.inside(mask, [b.disc(x, y, 0.034, 0.034) for x, y in at], t["third"])
    if "saddle" in t:
        b.inside(mask, [b.disc(x1 - 0.02, cy, 0.11, g * 1.2)], t["saddle"])


def _neck_marks(b: Brush, t: Traits, base: tuple[float, float], head: tuple[float, float]) -> None:
    (xa, ya), (xb, yb) = base, head
    if t["pattern"] == "striped":
        for k in (0.15, 0.38, 0.6):
            x, y = xa + (xb - xa) * k, ya + (yb - ya) * k
            b.stroke([(x - 0.06, y - 0.05), (x + 0.045, y + 0.025)], 0.026, t["third"])
    if t["pattern"] == "blotched":
        for k in np.linspace(0.05, 0.85, 6):
            for dx in (-0.024, 0.028):
                b.oval(xa + (xb - xa) * k + dx - 0.01, ya + (yb - ya) * k + dx * 0.6, 0.021, 0.026, t["third"],
                    outline=False)
    if "hair" in t:
        b.limb([(xa - 0.09, ya - 0.03), ((xa + xb) / 2 - 0.09, (ya + yb) / 2 - 0.03), (xb - 0.08, yb - 0.08)], 0.06,
            t["hair"], tip=0.05)


def _ears(b: Brush, t: Traits, x: float, y: float, r: float) -> None:
    kind, color = t["ears"], t.get("ear_color", t.get("face", t["coat"]))
    for dx, dark in ((0.02, 0.8), (-0.09, 1.0)):
        c = shade(rgb(color), dark)
        if kind == "point":
            b.poly([(x + dx - 0.035, y - r * 0.45), (x + dx + 0.01, y - r * 1.75), (x + dx + 0.075, y - r * 0.5)], c)
        elif kind == "leaf":
            b.oval(x + dx - 0.01, y - r * 0.95, 0.03, 0.07, c, angle=-0.5 if dx < 0 else 0.1)
        else:
            b.oval(x + dx, y - r * 0.82, 0.052, 0.055, c)
    if kind == "round" and "ear_color" not in t:
        b.oval(x - 0.09, y - r * 0.82, 0.026, 0.028, t["second"], outline=False)


def _horns(b: Brush, t: Traits, x: float, y: float, r: float) -> None:
    if t.get("horns") == "antlers":
        for dx, s in ((0.0, 1), (-0.06, -1)):
            tip = (x + dx + s * 0.13 - 0.02, y - r - 0.22)
            b.stroke([(x + dx, y - r * 0.7), (x + dx + s * 0.08, y - r - 0.08), tip], 0.026, "#6e4a2c")
            b.stroke([(x + dx + s * 0.07, y - r - 0.07), (x + dx + s * 0.0 + 0.01, y - r - 0.17)], 0.022, "#6e4a2c")
            b.stroke([(x + dx + s * 0.1, y - r - 0.13), (x + dx + s * 0.2, y - r - 0.14)], 0.022, "#6e4a2c")
    elif t.get("horns") == "short":
        b.limb([(x - 0.01, y - r * 0.8), (x + 0.05, y - r * 1.25), (x + 0.03, y - r * 1.6)], 0.04, "#e9dcc3", tip=0.01)
    elif t.get("horns") == "knobs":
        for dx in (-0.04, 0.03):
            b.stroke([(x + dx, y - r * 0.7), (x + dx, y - r * 1.5)], 0.02, t["coat"])
            b.oval(x + dx, y - r * 1.5, 0.02, 0.02, t["third"])


def _head(b: Brush, t: Traits, at: tuple[float, float]) -> None:
    x, y = at
    r, muzzle = t["head"] * (0.62 if t["neck"] > 0.2 else 0.85), t["muzzle"]
    color = t.get("face", t["coat"])
    _horns(b, t, x, y, r)
    _ears(b, t, x, y, r)
    face = [(x - r, y), (x - r * 0.55, y - r * 0.85), (x + r * 0.5, y - r * 0.75),
        (x + r * 0.7 + muzzle, y + r * 0.2), (x + r * 0.75 + muzzle, y + r * 0.6), (x + r * 0.3, y + r * 0.92),
        (x - r * 0.65, y + r * 0.8)]
    mask = b.mask(b.blob(face, color))
    if t.get("bib"):
        b.inside(mask, [b.disc(x + r * 0.4, y + r * 0.85, r * 0.5 + muzzle, r * 0.62)], t["second"])
    if t["pattern"] == "striped":
        b.inside(mask, _bands(x - r * 0.8, x + r * 0.1, y - r * 1.2, y + r * 0.3, 3, 0.016), t["third"])
    if t["pattern"] == "patched":
        b.inside(mask, [b.disc(x - r * 0.2, y - r * 0.3, r * 0.6, r * 0.8)], t["third"])
    if "snout" in t:
        b.oval(x + r * 0.72 + muzzle * 0.8, y + r * 0.4, 0.055, 0.07, t["snout"])
    elif "face" not in t and t["color"] not in ("black",) and not t.get("bib"):
        b.inside(mask, [b.disc(x + r * 0.6 + muzzle, y + r * 0.55, r * 0.25 + muzzle * 0.65, r * 0.5)], t["second"])
    if "eye_patch" in t:
        b.oval(x + r * 0.25, y - r * 0.05, 0.05, 0.062, t["eye_patch"], angle=0.5, outline=False)
    b.eye(x + r * 0.28, y - r * 0.14, 0.026, t.get("eye", "#d9d4cc" if "face" in t or "eye_patch" in t else None))
    b.oval(x + r * 0.72 + muzzle, y + r * 0.24, 0.026, 0.022,
        "#2c2224" if "snout" not in t else shade(rgb(t["snout"]), 0.6), outline=False)
    b.stroke([(x + r * 0.6 + muzzle, y + r * 0.62), (x + r * 0.25 + muzzle * 0.5, y + r * 0.6)], 0.012, (60, 40, 40))
    if t.get("whiskers") and t["color"] != "black":
        b.stroke([(x + r * 0.5, y + r * 0.45), (x + r * 0.3, y + r * 0.6)], 0.008, "#ffffff")


def elephant(b: Brush, t: Traits, pose: str) -> None:
    """An elephant from the side."""
    coat, far = t["coat"], shade(rgb(t["coat"]), 0.75)
    stride = 0.05 if pose == "walk" else 0.0
    for x, color in ((0.24 + stride, far), (0.56 - stride, far)):
        b.limb([(x, 0.55), (x, 0.94)], 0.13, color)
    b.limb([(0.1, 0.42), (0.05, 0.6), (0.06, 0.68)], 0.03, coat, tip=0.02)
    near = (0.17 - stride, 0.49 + stride)
    for x in near:
        b.limb([(x, 0.56), (x, 0.94)], 0.14, coat)
    b.blob([(0.08, 0.48), (0.16, 0.28), (0.38, 0.2), (0.6, 0.24), (0.68, 0.42), (0.62, 0.64), (0.38, 0.72),
        (0.15, 0.66)], coat)
    for x in near:
        b.limb([(x, 0.56), (x, 0.78)], 0.135, coat, tip=0.135, outline=False)
        for k in (-0.04, 0.0, 0.04):
            b.oval(x + k, 0.975, 0.018, 0.018, "#e8e3da", outline=False)
    b.limb([(0.82, 0.3), (0.93, 0.5), (0.9, 0.72), (0.97, 0.8)], 0.16, coat, tip=0.06)
    b.blob([(0.6, 0.3), (0.66, 0.13), (0.8, 0.12), (0.91, 0.26), (0.86, 0.45), (0.7, 0.5)], coat)
    b.limb([(0.82, 0.46), (0.9, 0.58), (0.99, 0.56)], 0.05, "#fbf6e6", tip=0.01)
    b.blob([(0.68, 0.16), (0.56, 0.12), (0.44, 0.24), (0.45, 0.44), (0.56, 0.54), (0.68, 0.42)], t["second"])
    b.eye(0.79, 0.28, 0.026)


def rabbit(b: Brush, t: Traits, pose: str) -> None:
    """A sitting rabbit."""
    for x0, tip, dark in ((0.66, 0.72, 0.85), (0.58, 0.52, 1.0)):
        b.oval((x0 + tip) / 2, 0.2, 0.06, 0.2, shade(rgb(t["coat"]), dark), angle=0.2 if tip > x0 else -0.2)
        b.oval((x0 + tip) / 2, 0.21, 0.028, 0.14, t["third"], angle=0.2 if tip > x0 else -0.2, outline=False)
    b.oval(0.13, 0.74, 0.085, 0.085, t["second"])
    mask = b.mask(b.blob([(0.14, 0.75), (0.22, 0.55), (0.42, 0.47), (0.62, 0.5), (0.68, 0.7), (0.6, 0.92),
        (0.3, 0.95), (0.16, 0.9)], t["coat"]))
    b.inside(mask, [b.disc(0.62, 0.78, 0.1, 0.2)], t["second"])
    b.oval(0.32, 0.78, 0.15, 0.14, t["coat"])
    b.oval(0.36, 0.94, 0.13, 0.04, t["coat"])
    b.oval(0.62, 0.94, 0.07, 0.035, t["coat"])
    b.oval(0.66, 0.46, 0.16, 0.14, t["coat"])
    b.oval(0.76, 0.52, 0.075, 0.06, t["second"], outline=False)
    b.eye(0.69, 0.43, 0.032)
    b.oval(0.82, 0.48, 0.022, 0.018, t["third"], outline=False)


def squirrel(b: Brush, t: Traits, pose: str) -> None:
    """A squirrel upright with a nut, its tail as big as itself."""
    b.blob([(0.36, 0.92), (0.14, 0.88), (0.04, 0.6), (0.08, 0.28), (0.24, 0.1), (0.4, 0.16), (0.36, 0.3),
        (0.27, 0.34), (0.28, 0.58), (0.4, 0.7)], shade(rgb(t["coat"]), 0.88))
    mask = b.mask(b.blob([(0.36, 0.9), (0.33, 0.68), (0.44, 0.46), (0.6, 0.42), (0.68, 0.6), (0.66, 0.82),
        (0.58, 0.94), (0.42, 0.95)], t["coat"]))
    b.inside(mask, [b.disc(0.64, 0.7, 0.09, 0.2)], t["second"])
    b.oval(0.46, 0.8, 0.12, 0.12, t["coat"])
    b.oval(0.56, 0.94, 0.12, 0.035, t["coat"])
    for dx in (-0.05, 0.06):
        b.poly([(0.6 + dx, 0.28), (0.62 + dx, 0.1), (0.69 + dx, 0.27)], t["coat"])
    mask = b.mask(b.blob([(0.52, 0.36), (0.58, 0.24), (0.72, 0.23), (0.86, 0.36), (0.82, 0.45), (0.64, 0.5)],
        t["coat"]))
    b.inside(mask, [b.disc(0.78, 0.46, 0.12, 0.06)], t["second"])
    b.eye(0.7, 0.33, 0.03)
    b.oval(0.86, 0.37, 0.02, 0.018, "#2c2224", outline=False)
    b.oval(0.76, 0.62, 0.055, 0.06, "#8a5a2c")
    b.limb([(0.6, 0.56), (0.68, 0.62), (0.75, 0.61)], 0.06, t["coat"])


def bat(b: Brush, t: Traits, pose: str) -> None:
    """A bat in flight, wings spread."""
    lift = 0.0 if pose == "stand" else 0.1
    for s in (-1, 1):
        wing = [(0.5 + s * 0.08, 0.42), (0.5 + s * 0.26, 0.24 + lift), (0.5 + s * 0.5, 0.3 - lift),
            (0.5 + s * 0.44, 0.52), (0.5 + s * 0.36, 0.5), (0.5 + s * 0.3, 0.62), (0.5 + s * 0.2, 0.56),
            (0.5 + s * 0.12, 0.68), (0.5 + s * 0.03, 0.6)]
        b.poly(wing, t["second"])
        for k in (3, 5):
            b.stroke([wing[1], wing[k]], 0.012, shade(rgb(t["second"]), 0.68))
        b.poly([(0.5 + s * 0.02, 0.32), (0.5 + s * 0.13, 0.13), (0.5 + s * 0.14, 0.36)], t["coat"])
    b.oval(0.5, 0.56, 0.1, 0.16, t["coat"])
    b.oval(0.5, 0.38, 0.13, 0.115, t["coat"])
    for s in (-1, 1):
        b.eye(0.5 + s * 0.055, 0.37, 0.026, "#f7e6a2")
        b.poly([(0.5 + s * 0.045, 0.44), (0.5 + s * 0.015, 0.44), (0.5 + s * 0.03, 0.48)], "#ffffff", outline=False)


def dolphin(b: Brush, t: Traits, pose: str) -> None:
    """A dolphin mid-leap."""
    b.blob([(0.1, 0.62), (0.0, 0.5), (0.06, 0.66), (0.0, 0.82), (0.13, 0.7)], t["coat"])
    b.blob([(0.45, 0.3), (0.34, 0.12), (0.58, 0.28)], shade(rgb(t["coat"]), 0.85))
    mask = b.mask(b.blob([(0.08, 0.64), (0.25, 0.44), (0.5, 0.28), (0.74, 0.28), (0.86, 0.4), (0.99, 0.5),
        (0.97, 0.55), (0.84, 0.54), (0.62, 0.6), (0.32, 0.62), (0.14, 0.7)], t["coat"]))
    b.inside(mask, [[(0.3, 0.62), (0.6, 0.52), (0.85, 0.5), (1.0, 0.52), (0.98, 0.7), (0.3, 0.75)]], t["second"])
    b.blob([(0.6, 0.54), (0.56, 0.72), (0.48, 0.78), (0.5, 0.58)], shade(rgb(t["coat"]), 0.85))
    b.eye(0.8, 0.42, 0.022)
    b.stroke([(0.97, 0.52), (0.88, 0.51), (0.83, 0.48)], 0.011, (50, 60, 80))


PLANS = {"quadruped": quadruped, "elephant": elephant, "rabbit": rabbit, "squirrel": squirrel, "bat": bat,
    "dolphin": dolphin}
