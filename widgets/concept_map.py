"""A map of the concepts that features steer toward; hovering shows a feature's concept and pictures. Needs no kernel.

It is HTML of its own, because Plotly's hover labels can only hold text.
"""

import base64
import hashlib
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources

from IPython.display import HTML
from PIL import Image

from experiments.markup import as_html, json_in_script, own_html
from widgets.packing import sprite_sheets

SIZE, MARGIN = 1000, 60  # of the drawing, in its own units
LIFT = 22  # distance of a name above its features
MAX_PICTURES = 288  # one sheet of sprites


@dataclass(frozen=True)
class Place:
    """A feature on the map: where it lies, what it steers toward, a title, a note, and indices of its pictures."""

    x: float
    y: float
    concept: str
    title: str
    note: str = ""
    pictures: Sequence[int] = field(default_factory=tuple)


def concept_map(
    places: Sequence[Place], images: Sequence[Image.Image], title: str = "", thumbnail: int = 56, labels: int = 30
) -> HTML:
    """The map as HTML, with the names of its `labels` most frequent concepts near their features.

    images: the set that the places' pictures index; the first pictures of all places are kept, then the second, up to
    288 different ones. Works with the mouse, by touch and with the arrow keys. Raises ValueError for no place.
    """
    if not places:
        raise ValueError("there is nothing to map: no feature is steerable at this strength")
    pool = _pool(places)
    layout, sheet = sprite_sheets((images[i] for i in pool), thumbnail, quality=78)
    where = {image: position for position, image in enumerate(pool)}
    concepts = [concept for concept, _ in Counter(place.concept for place in places).most_common()]
    points = [
        {
            "at": at,
            "concept": concepts.index(place.concept),
            "title": place.title,
            "note": place.note,
            "pictures": [where[i] for i in place.pictures if i in where],
        }
        for place, at in zip(places, _scaled(places), strict=True)
    ]
    data = {"points": points, "concepts": concepts, "columns": layout["columns"], "size": thumbnail}
    return own_html(_page(data, _labels(points, concepts[:labels]), sheet, title))


def _pool(places: Sequence[Place]) -> list[int]:
    """Indices of different pictures: first pictures of all places, then second ones …, up to MAX_PICTURES."""
    longest = max(len(place.pictures) for place in places)
    ranked = [int(p.pictures[rank]) for rank in range(longest) for p in places if rank < len(p.pictures)]
    return list(dict.fromkeys(ranked))[:MAX_PICTURES]


def _scaled(places: Sequence[Place]) -> list[tuple[float, float]]:
    """Positions in the drawing, with the same scale on both axes and y upwards."""
    xs, ys = [place.x for place in places], [place.y for place in places]
    reach = max(max(xs) - min(xs), max(ys) - min(ys)) or 1.0
    scale = (SIZE - 2 * MARGIN) / reach
    return [
        (round(MARGIN + (x - min(xs)) * scale, 1), round(SIZE - MARGIN - (y - min(ys)) * scale, 1))
        for x, y in zip(xs, ys, strict=True)
    ]


def _labels(points: list[dict], concepts: list[str]) -> str:
    """SVG of the concepts' names above the medians of their points; names that would overlap are left out."""
    taken, texts = [], []
    for number, concept in enumerate(concepts):
        members = [point["at"] for point in points if point["concept"] == number]
        x, y = (statistics.median(values) for values in zip(*members, strict=True))
        if all(abs(x - a) > 5.5 * (len(concept) + length) or abs(y - b) > 26 for a, b, length in taken):
            taken.append((x, y, len(concept)))
            texts.append(f'<text x="{x:.0f}" y="{y - LIFT:.0f}">{as_html(concept)}</text>')
    return "".join(texts)


def _page(data: dict, labels: str, sheet: bytes, title: str) -> str:
    text = json_in_script(data)
    name = f"cm-{hashlib.sha256(text.encode()).hexdigest()[:8]}"  # the same map is the same HTML in every run
    low = max(y for _, y in (point["at"] for point in data["points"])) + MARGIN
    high = min(y for _, y in (point["at"] for point in data["points"])) - MARGIN
    circles = "".join(
        f'<circle data-point="{i}" cx="{point["at"][0]}" cy="{point["at"][1]}" r="7" '
        f'style="--hue:{point["concept"] * 137.508 % 360:.0f}"/>'
        for i, point in enumerate(data["points"])
    )
    folder = resources.files("widgets")
    style, script = ((folder / f"concept_map.{kind}").read_text() for kind in ("css", "js"))
    address = f"data:image/webp;base64,{base64.b64encode(sheet).decode('ascii')}" if sheet else ""
    return (
        f'<style>{style}</style><div class="cm" data-map="{name}" style="--sheet:url({address})">'
        f'<div class="cm-bar"><b>{as_html(title)}</b>'
        '<input type="search" placeholder="Find a concept or feature" aria-label="Find on the map">'
        '<span class="cm-found" role="status"></span></div><div class="cm-body">'
        f'<svg viewBox="0 {high:.0f} {SIZE} {low - high:.0f}" tabindex="0" role="application" '
        'data-lm-suppress-shortcuts="true" aria-label="Map of concepts; the arrow keys go from feature to feature">'
        f'<g class="cm-points">{circles}</g><g class="cm-labels">{labels}</g></svg>'
        '<aside class="cm-card" aria-live="polite"></aside></div>'
        f'<script type="application/json">{text}</script></div>'
        f"<script>(() => {{ {script} document.querySelectorAll('[data-map={name}]').forEach(conceptMap) }})()</script>"
    )
