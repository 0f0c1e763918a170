"""Packing of numbers and pictures for a widget: one deflated block of typed arrays, one run of sprite sheets."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable, Mapping

import numpy as np
from PIL import Image, ImageOps

from lib.devices import to_numpy

ALIGNMENT = 8  # a typed array of the browser must start at a multiple of its item size
NONE = 65_535  # in arrays of positions: no picture, no name, no class
MAX_PICTURES = NONE
COLUMNS, ROWS = 24, 12  # pictures in a sheet: small enough to be decoded in a few milliseconds


def quantise(values: np.ndarray, levels: int) -> np.ndarray:
    """Fractions in [0, 1] as integers 0 … levels - 1, in the smallest unsigned type; NaN becomes 0."""
    steps = np.rint(np.nan_to_num(np.clip(values, 0, 1)) * (levels - 1))
    return steps.astype(np.min_scalar_type(levels - 1))


def pack(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, dict], bytes]:
    """Manifest `{name: {dtype, shape, offset}}` and the deflated block that it describes (little endian)."""
    manifest, parts, offset = {}, [], 0
    for name, array in arrays.items():
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        data = little.tobytes()
        padding = -len(data) % ALIGNMENT
        manifest[name] = {"dtype": array.dtype.name, "shape": list(array.shape), "offset": offset}
        parts += [data, bytes(padding)]
        offset += len(data) + padding
    return manifest, zlib.compress(b"".join(parts), level=9)


def unpack(manifest: Mapping[str, dict], block: bytes) -> dict[str, np.ndarray]:
    """The arrays that `pack` was given."""
    data = zlib.decompress(block)
    return {
        name: np.frombuffer(data, entry["dtype"], int(np.prod(entry["shape"])), entry["offset"]).reshape(entry["shape"])
        for name, entry in manifest.items()
    }


def picture_pool(top_images: np.ndarray, limit: int) -> np.ndarray:
    """Different images of the top lists (n, top), -1 for none: all first pictures, then second …, up to `limit`."""
    by_rank = top_images.T.ravel()
    by_rank = by_rank[by_rank >= 0]
    _, first = np.unique(by_rank, return_index=True)
    return by_rank[np.sort(first)][:limit].astype(np.int64)


def class_numbers(images, pool: np.ndarray) -> np.ndarray:
    """Class of each picture of a pool (p,), as uint16; `NONE` for all where the images have no labels."""
    if images.labels is None:
        return np.full(len(pool), NONE, dtype=np.uint16)
    return to_numpy(images.labels)[pool].astype(np.uint16)


def sprite_sheets(pictures: Iterable[Image.Image], size: int, quality: int | None) -> tuple[dict, bytes]:
    """Pictures as square WebP sprites: the layout of the sheets in the bytes, and the bytes.

    size: pixels per side. quality: 0 to 100, or None for lossless compression. Pictures are cropped to a centred
    square, as the encoders' preprocessing does, so that patch maps fit on them.
    """
    sheets, tiles = [], []
    for picture in pictures:
        tiles.append(ImageOps.fit(picture.convert("RGB"), (size, size), Image.Resampling.LANCZOS))
        if len(tiles) == COLUMNS * ROWS:
            sheets.append(_sheet(tiles, size, quality))
            tiles = []
    if tiles:
        sheets.append(_sheet(tiles, size, quality))
    layout = {
        "size": size,
        "columns": COLUMNS,
        "per_sheet": COLUMNS * ROWS,
        "lengths": [len(sheet) for sheet in sheets],
    }
    return layout, b"".join(sheets)


def _sheet(tiles: list[Image.Image], size: int, quality: int | None) -> bytes:
    rows = -(-len(tiles) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * size, rows * size))
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i % COLUMNS * size, i // COLUMNS * size))
    buffer = io.BytesIO()
    sheet.save(buffer, "WEBP", **({"lossless": True} if quality is None else {"quality": quality}), method=5)
    return buffer.getvalue()
