"""Preprocessed pictures on their way from worker processes: as bytes, with the model's own numbers at the end.

A model's preprocessing changes a picture's geometry and then turns each byte of each channel into a number. Workers do
the first and send bytes, a quarter of what the numbers take; where they arrive, on a GPU as well, a table of the
model's own 3 x 256 numbers gives the rest, bit for bit. A preprocessing that is not of this kind is done by workers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lib.devices import bring

_GREYS = np.arange(256, dtype=np.uint8).reshape(16, 16)
_TRIALS = ((301, 203), (64, 90), (16, 16))  # sizes of the pictures on which both ways must agree


@dataclass(frozen=True)
class Wire:
    """Both ends: `pack` in the worker, `unpack` where pixels arrive. `table`: (3, 256), None where numbers are sent."""

    pack: Callable[[Any], Tensor]
    table: Tensor | None = None

    @classmethod
    def of(cls, transform: Callable[[Any], Tensor]) -> "Wire":
        """The wire for a preprocessing. That bytes give the same numbers is tried on pictures of noise."""
        for geometry, values, greys in _ways(transform):
            try:
                wire = cls(geometry, values(greys).reshape(3, 256))
                if all(torch.equal(wire.unpack(wire.pack(x)[None])[0], transform(x)) for x in map(_noise, _TRIALS)):
                    return wire
            except Exception:  # whatever others' code does with such a picture: the numbers are sent then
                continue
        return cls(transform)

    def unpack(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) as they were sent -> float32 of the same shape, on the same device."""
        if self.table is None or pixels.dtype != torch.uint8:
            return pixels
        table = bring(self.table, pixels)
        values = torch.empty(pixels.shape, dtype=table.dtype, device=pixels.device)
        for channel in range(3):
            bytes_ = pixels[:, channel].int()
            values[:, channel] = table[channel].index_select(0, bytes_.flatten()).view(bytes_.shape)
        return values


@dataclass(frozen=True)
class _Steps:
    """The first steps of a `Compose`, up to the last one that gives bytes."""

    steps: tuple[Callable, ...]

    def __call__(self, image: Any) -> Tensor:
        return _bytes(self.run(image))

    def run(self, x: Any) -> Any:
        for step in self.steps:
            x = step(x)
        return x


def _ways(transform: Callable) -> list[tuple[Callable, Callable, Any]]:
    """(picture -> bytes (3, H, W), bytes -> numbers, 256 greys as the latter takes them): how a transform may part."""
    if hasattr(transform, "geometry") and hasattr(transform, "values"):
        return [(transform.geometry, transform.values, torch.from_numpy(np.stack([_GREYS] * 3)))]
    steps, ways = tuple(getattr(transform, "transforms", ())), []
    for n in range(len(steps) - 1, 0, -1):
        image = Image.fromarray(_GREYS).convert("RGB")
        ways.append((_Steps(steps[:n]), _Steps(steps[n:]).run, image))
        ways.append((_Steps(steps[:n]), _Steps(steps[n:]).run, torch.from_numpy(np.stack([_GREYS] * 3))))
    return ways


def _bytes(image: Any) -> Tensor:
    """(3, H, W) uint8 of an RGB picture, or of a tensor that is such. Raises ValueError for anything else."""
    if isinstance(image, Image.Image) and image.mode == "RGB":
        image = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
    if not isinstance(image, Tensor) or image.dtype != torch.uint8 or image.ndim != 3 or len(image) != 3:
        raise ValueError("these are no bytes")
    return image.contiguous()


def _noise(size: tuple[int, int]) -> Image.Image:
    width, height = size
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8))
