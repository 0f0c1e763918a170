"""Transfer of preprocessed pictures from worker processes: as uint8, with the conversion to floats on arrival.

A model's preprocessing changes a picture's geometry and then maps each byte of each channel to a float. Workers do the
first and send bytes, a quarter of the floats' size; on arrival, on a GPU too, a lookup table of 3 x 256 floats does the
second, bit for bit. Workers do all of any other preprocessing.
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
_TRIALS = ((301, 203), (64, 90), (16, 16))  # (w, h) of the pictures on which table and preprocessing must agree


@dataclass(frozen=True)
class PixelTransfer:
    """Transfer of pixels: `pack` in the worker, `unpack` on arrival. table: (3, 256), None to send floats."""

    pack: Callable[[Any], Tensor]
    table: Tensor | None = None

    @classmethod
    def of(cls, transform: Callable[[Any], Tensor]) -> "PixelTransfer":
        """The transfer for a preprocessing: bytes only where the table gives the same floats for pictures of noise."""
        drawn = (np.random.default_rng(w).integers(0, 256, (h, w, 3), dtype=np.uint8) for w, h in _TRIALS)
        noise = [Image.fromarray(pixels) for pixels in drawn]
        for geometry, values, greys in _conversions(transform):
            try:
                transfer = cls(geometry, values(greys).reshape(3, 256))
                if all(torch.equal(transfer.unpack(transfer.pack(x)[None])[0], transform(x)) for x in noise):
                    return transfer
            except Exception:  # a user's transform may fail in any way on such a picture: then floats are sent
                continue
        return cls(transform)

    def unpack(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) as they were sent -> float32 of the same shape, on the same device."""
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
    """Some consecutive steps of a `Compose`; a call gives their result as bytes."""

    steps: tuple[Callable, ...]

    def __call__(self, image: Any) -> Tensor:
        return _bytes(self.run(image))

    def run(self, x: Any) -> Any:
        for step in self.steps:
            x = step(x)
        return x


def _conversions(transform: Callable) -> list[tuple[Callable, Callable, Any]]:
    """Splits of a transform: (picture -> bytes (3, H, W), bytes -> floats, input of 256 greys for the latter)."""
    if hasattr(transform, "geometry") and hasattr(transform, "values"):
        return [(transform.geometry, transform.values, torch.from_numpy(np.stack([_GREYS] * 3)))]
    steps, splits = tuple(getattr(transform, "transforms", ())), []
    for n in range(len(steps) - 1, 0, -1):
        image = Image.fromarray(_GREYS).convert("RGB")
        splits.append((_Steps(steps[:n]), _Steps(steps[n:]).run, image))
        splits.append((_Steps(steps[:n]), _Steps(steps[n:]).run, torch.from_numpy(np.stack([_GREYS] * 3))))
    return splits


def _bytes(image: Any) -> Tensor:
    """(3, H, W) uint8 of an RGB picture, or of a tensor that is such. Raises ValueError for anything else."""
    if isinstance(image, Image.Image) and image.mode == "RGB":
        image = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
    if not isinstance(image, Tensor) or image.dtype != torch.uint8 or image.ndim != 3 or len(image) != 3:
        raise ValueError("not an RGB picture of bytes")
    return image.contiguous()
