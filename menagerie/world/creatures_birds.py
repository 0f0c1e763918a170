"""Birds: one body plan for most, with neck, legs, bill, tail and crest as traits; owls and penguins stand upright."""

from collections.abc import Mapping
from typing import Any

from .creatures_brush import Brush, rgb, shade

Traits = Mapping[str, Any]

# Outlines are long lists of points: packed, they stay readable.
# fmt: off


def bird(b: Brush, t: Traits, pose: str) -> None:
    """A bird seen from the side, standing or (pose "swim") afloat without legs."""
    swim = pose == "swim"
    legs = 0.02 if swim else 0.04 + 0.3 * t["legs"]
    ry = 0.13 + 0.15 * t["plump"] - 0.03 * (t["neck"] > 0.5)
    rx = 0.27 if not t.get("upright") else 0.2
    cx, cy = 0.44, 0.97 - legs - ry
    if not swim:
        _legs(b, t, cx, cy + ry * 0.75, 0.97)
    lift = 0.32 if t.get("upright") else 0.06
    _tail(b, t, cx - rx * 0.75, cy + (0.08 if t.get("upright") else 0), rx)
    body = [(cx - rx * 1.08, cy + ry * (0.1 + lift)), (cx - rx * 0.5, cy - ry * 0.8),
        (cx + rx * 0.35, cy - ry * (1 + lift * 0.4)), (cx + rx * 0.95, cy - ry * (0.35 + lift)),
        (cx + rx * 0.9, cy + ry * 0.4), (cx + rx * 0.25, cy + ry), (cx - rx * 0.55, cy + ry * 0.8)]
    neck_base = (cx + rx * 0.62, cy - ry * 0.45)
    head = (cx + rx * (0.95 + 0.3 * (t["neck"] > 0.4)), max(0.1, cy - ry * 0.85 - 0.05 - 0.42 * t["neck"]))
    hr = 0.085 if t["neck"] > 0.4 else 0.115
    if t["neck"] <= 0.4:
        head = (cx + rx * 0.8, cy - ry * 0.9 - 0.05 - 0.3 * t["neck"])
    neck_color = t.get("neck_color", t.get("head", t["coat"]))
    if t["neck"] > 0.25:
        _neck(b, t, neck_base, head, neck_color)
    outline = b.blob(body, t["coat"])
    mask = b.mask(outline)
    if "belly" in t:
        b.inside(mask, [b.disc(cx + rx * 0.35, cy + ry * 0.55, rx * 0.95, ry * 0.8)], t["belly"])
    else:
        b.inside(mask, [b.disc(cx + rx * 0.1, cy + ry * 1.0, rx * 0.8, ry * 0.5)], shade(rgb(t["coat"]), 1.28))
    if t["pattern"] == "barred":
        bars = [b.disc(cx + rx * (u - 0.9), cy + ry * v, 0.022,
            0.012) for v in (-0.5, -0.1, 0.35, 0.7) for u in (0.3, 0.7, 1.1, 1.5)]
        b.inside(mask, bars, shade(rgb(t["coat"]), 0.6))
    if t["neck"] <= 0.25:
        _neck(b, t, neck_base, head, neck_color, stub=True)
    elif "neck_color" not in t:
        b.oval(*neck_base, rx * 0.3, ry * 0.42, t.get("neck_color", t["coat"]), outline=False)
    _wing(b, t, cx - rx * 0.12, cy - ry * 0.02, rx, ry)
    _head(b, t, head, hr)


def _legs(b: Brush, t: Traits, cx: float, top: float, ground: float) -> None:
    width = 0.022 if t["legs"] > 0.6 else 0.03
    for dx in (0.06, -0.05):
        knee = (cx + dx - 0.025, (top + ground) / 2)
        b.stroke([(cx + dx, top), knee, (cx + dx, ground)], width, t["leg_color"])
        b.stroke([(cx + dx - 0.03, ground), (cx + dx + 0.07, ground)], width, t["leg_color"])


def _tail(b: Brush, t: Traits, x: float, y: float, rx: float) -> None:
    length = 0.12 + 0.42 * t["tail"]
    color = t.get("tail_color", t["second"])
    if t.get("tail_up"):
        for angle in (0.02, 0.12, 0.24):
            b.blob([(x + 0.1, y + 0.05), (x - length * 0.5, y - 0.2 + angle),
                (x - length * 0.8, y - 0.17 + angle * 1.3), (x - 0.02, y + 0.1)], color)
        return
    drop = 0.22 if t.get("upright") else 0.02
    b.blob([(x + 0.12, y - 0.05), (x - length, y + drop + length * 0.35 - 0.04),
        (x - length + 0.02, y + drop + length * 0.35 + 0.04), (x + 0.12, y + 0.09)], color)


def _neck(b: Brush, t: Traits, base: tuple[float, float], head: tuple[float, float], color: str,
        stub: bool = False) -> None:
    (x0, y0), (x1, y1) = base, head
    if t.get("curve"):
        points = [(x0 - 0.02, y0 + 0.08), (x0 + 0.12, y0 - 0.02), (x0 + 0.09, y0 * 0.6 + y1 * 0.4),
            (x0 - 0.03, y1 + 0.12), (x1 - 0.08, y1 - 0.01), (x1, y1)]
        b.limb(points, 0.11, color, tip=0.08)
    elif stub:
        b.limb([(x0 - 0.05, y0 + 0.05), (x1, y1)], 0.2, t["coat"] if "collar" in t else color, tip=0.17, outline=False)
    else:
        b.limb([(x0 - 0.06, y0 + 0.06), (x0 + 0.05, (y0 + y1) / 2 + 0.04), (x1 - 0.005, y1)], 0.17 - 0.06 * t["neck"],
            color, tip=0.085)
    if "collar" in t:
        mx, my = x1 * 0.6 + x0 * 0.4, y1 * 0.45 + y0 * 0.55
        b.oval(mx, my, 0.085, 0.024, t["collar"], angle=-0.35, outline=False)


def _wing(b: Brush, t: Traits, x: float, y: float, rx: float, ry: float) -> None:
    tip = 0.3 if t.get("upright") else 0.05
    wing = [(x + rx * 0.6, y - ry * 0.3), (x, y - ry * 0.55), (x - rx * 1.0, y + tip * 0.6), (x - rx * 1.12, y + tip),
        (x - rx * 0.2, y + ry * 0.6), (x + rx * 0.5, y + ry * 0.3)]
    flat = b.blob(wing, t["second"])
    if t["third"] not in ("#3a3230", t["second"]):
        b.inside(b.mask(flat), [b.disc(x - rx * 1.05, y + tip, rx * 0.5, ry * 0.5)], t["third"])
    if "wing_band" in t:
        b.inside(b.mask(flat), [b.disc(x - rx * 0.1, y - ry * 0.1, rx * 0.3, ry * 0.75)], t["wing_band"])
    for k in (0.1, 0.32):
        b.stroke([(x + rx * 0.3, y + ry * k), (x - rx * 0.2, y + ry * (k + 0.12)),
            (x - rx * 0.75, y + ry * k + tip * 0.4)], 0.01, shade(rgb(t["second"]), 0.72))


def _head(b: Brush, t: Traits, at: tuple[float, float], r: float) -> None:
    x, y = at
    color = t.get("head", t["coat"])
    _bill(b, t, x, y, r)
    if t["crest"] == "comb":
        for dx in (-0.05, 0.0, 0.05):
            b.oval(x + dx, y - r * 1.05, 0.033, 0.045, "#e0342f")
        b.oval(x + r * 0.8, y + r * 0.95, 0.03, 0.05, "#e0342f")
    if t["crest"] == "plume":
        b.limb([(x - r * 0.3, y - r * 0.4), (x - r * 1.6, y - r * 0.2), (x - r * 2.6, y + r * 0.6)], 0.04, "#2d3640",
            tip=0.005)
    if t["crest"] == "curl":
        b.limb([(x, y - r * 0.8), (x + r * 0.2, y - r * 1.9), (x + r * 1.2, y - r * 1.9)], 0.025, "#3d332b", tip=0.05)
    flat = b.oval(x, y, r * 1.06, r, color)
    mask = b.mask(flat)
    if "cap" in t:
        b.inside(mask, [b.disc(x - r * 0.1, y - r * 0.75, r * 1.2, r * 0.55)], t["cap"])
    if "cheek" in t:
        b.inside(mask, [b.disc(x + r * 0.15, y + r * 0.45, r * 0.62, r * 0.6)], t["cheek"])
    if "mask" in t:
        b.inside(mask, [b.disc(x, y - r * 0.05, r * 1.3, r * 0.3)], t["mask"])
    if "brow" in t:
        b.inside(mask, [b.disc(x + r * 0.3, y - r * 0.48, r * 0.42, r * 0.18)], t["brow"])
    dark = sum(rgb(color)) < 330
    b.eye(x + r * 0.35, y - r * 0.15, r * 0.2, "#f2dfa0" if dark or t["bill"] == "hook" else None)


_BILLS = {  # points relative to the head, in radii
    "short": [(0.85, -0.3), (1.65, 0.12), (0.85, 0.42)],
    "medium": [(0.8, -0.32), (2.05, 0.08), (2.0, 0.2), (0.8, 0.42)],
    "dagger": [(0.75, -0.32), (2.9, 0.12), (0.75, 0.4)],
    "flat": [(0.75, -0.2), (1.5, 0.0), (2.15, 0.1), (2.15, 0.38), (1.4, 0.5), (0.75, 0.5)],
    "hook": [(0.75, -0.42), (1.5, -0.25), (1.72, 0.12), (1.6, 0.55), (1.4, 0.18), (0.75, 0.42)],
    "parrot": [(0.5, -0.6), (1.3, -0.5), (1.65, 0.1), (1.35, 0.75), (1.15, 0.3), (0.6, 0.5)],
    "bent": [(0.75, -0.4), (1.6, -0.2), (2.0, 0.4), (1.7, 1.0), (1.3, 0.6), (0.75, 0.4)],
    "pouch": [(0.75, -0.25), (3.6, 0.45), (3.5, 0.65), (2.4, 1.4), (1.2, 1.3), (0.6, 0.6)],
}


def _bill(b: Brush, t: Traits, x: float, y: float, r: float) -> None:
    b.poly([(x + r * dx, y + r * dy) for dx, dy in _BILLS[t["bill"]]], t["bill_color"])
    if t["bill"] == "pouch":
        b.stroke([(x + r * 0.8, y + r * 0.3), (x + r * 3.5, y + r * 0.55)], 0.014, "#b9752a")
    if t["bill"] == "bent":
        b.poly([(x + r * dx, y + r * dy) for dx, dy in [(1.75, 0.1), (2.0, 0.4), (1.7, 1.0), (1.4, 0.7)]], "#2d2728",
            outline=False)


def owl(b: Brush, t: Traits, pose: str) -> None:
    """An owl from the front: a barrel with a heart of big eyes and two ear tufts."""
    for dx in (-0.09, 0.09):
        b.oval(0.5 + dx, 0.94, 0.07, 0.035, "#d8a545")
    body = b.blob([(0.5, 0.1), (0.74, 0.2), (0.8, 0.55), (0.72, 0.85), (0.5, 0.96), (0.28, 0.85), (0.2, 0.55),
        (0.26, 0.2)], t["coat"])
    mask = b.mask(body)
    b.inside(mask, [b.disc(0.5, 0.74, 0.19, 0.24)], t["second"])
    rows = [(0.5 + dx, y) for y, offsets in ((0.58, (-0.1, 0, 0.1)), (0.68, (-0.13, -0.045, 0.045, 0.13)),
        (0.78, (-0.1, 0, 0.1)), (0.87, (-0.05, 0.05))) for dx in offsets]
    b.inside(mask, [b.disc(x, y, 0.022, 0.03) for x, y in rows], t["coat"])
    for s in (-1, 1):
        b.blob([(0.5 + s * 0.27, 0.42), (0.5 + s * 0.34, 0.6), (0.5 + s * 0.25, 0.9), (0.5 + s * 0.17, 0.66)],
            t["third"])
        b.poly([(0.5 + s * 0.08, 0.17), (0.5 + s * 0.27, 0.0), (0.5 + s * 0.27, 0.24)], t["third"])
    for s in (-1, 1):
        b.oval(0.5 + s * 0.125, 0.32, 0.135, 0.14, t["second"])
        b.oval(0.5 + s * 0.115, 0.32, 0.085, 0.085, "#f7b733", outline=False)
        b.eye(0.5 + s * 0.105, 0.32, 0.048)
    b.poly([(0.46, 0.38), (0.54, 0.38), (0.5, 0.48)], "#4a3a2a")


def penguin(b: Brush, t: Traits, pose: str) -> None:
    """A penguin in three-quarter view."""
    for x in (0.4, 0.58):
        b.oval(x, 0.95, 0.09, 0.035, "#e39a35")
    flipper = 0.12 if pose == "stand" else 0.2
    b.blob([(0.33, 0.36), (0.33 - flipper, 0.55), (0.2, 0.74), (0.33, 0.6)], t["coat"])
    body = b.blob([(0.5, 0.02), (0.64, 0.1), (0.67, 0.28), (0.76, 0.55), (0.7, 0.85), (0.5, 0.95), (0.3, 0.85),
        (0.26, 0.55), (0.35, 0.28), (0.36, 0.1)], t["coat"])
    mask = b.mask(body)
    b.inside(mask, [b.disc(0.54, 0.66, 0.18, 0.29)], t["second"])
    b.inside(mask, [b.disc(0.58, 0.29, 0.1, 0.09)], t["third"])
    b.inside(mask, [b.disc(0.56, 0.4, 0.11, 0.05)], t["second"])
    b.blob([(0.7, 0.36), (0.72 + flipper, 0.55), (0.84, 0.72), (0.7, 0.6)], t["coat"])
    b.poly([(0.64, 0.13), (0.84, 0.2), (0.63, 0.23)], "#e8923a")
    b.eye(0.57, 0.14, 0.028, "#f4f1ea")


PLANS = {"bird": bird, "owl": owl, "penguin": penguin}
