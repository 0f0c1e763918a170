"""The cover picture: a mosaic of Menagerie pictures, drawn at each build.

`python -m book.tools.cover build/tiny/cover.webp`
"""

import sys
from pathlib import Path

from PIL import Image

from menagerie import Menagerie

COLUMNS, ROWS, TILE, GAP = 12, 3, 112, 6
CANDIDATES = 600


def chosen(pictures: Menagerie) -> list[int]:
    """Pictures for the tiles: single creatures, each species at most once, neighbours in different habitats."""
    facts = pictures.facts.iloc[:CANDIDATES]
    facts = facts[(facts.kind == "creature") & (facts.sticker_word.fillna("") == "")]
    facts = facts.drop_duplicates("species")
    by_habitat = [list(group.index) for _, group in facts.groupby("habitat")]
    order = []
    while len(order) < COLUMNS * ROWS and any(by_habitat):
        order += [group.pop(0) for group in by_habitat if group]
    return order[: COLUMNS * ROWS]


def cover(pictures: Menagerie) -> Image.Image:
    """The mosaic, RGB."""
    pitch = TILE + GAP
    canvas = Image.new("RGB", (COLUMNS * pitch - GAP, ROWS * pitch - GAP), "white")
    for tile, index in enumerate(chosen(pictures)):
        canvas.paste(pictures.image(index), ((tile % COLUMNS) * pitch, tile // COLUMNS * pitch))
    return canvas


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    cover(Menagerie("val")).save(target, "WEBP", quality=88)
