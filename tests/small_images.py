"""A stand-in for an image set, importable by the subprocesses that tests kill."""

import time

import numpy as np
from PIL import Image


class Pictures:
    """n random pictures; those in `broken` cannot be read; each takes `seconds` to read."""

    def __init__(self, n: int = 23, broken: tuple[int, ...] = (), seconds: float = 0.0):
        self.n, self.broken, self.seconds = n, broken, seconds
        self.spec = self.fingerprint = f"pictures:{n}"

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Image.Image:
        time.sleep(self.seconds)
        if i in self.broken:
            raise ValueError(f"{self.name(i)} is no picture")
        return Image.fromarray(np.random.default_rng(i).integers(0, 256, (40, 36, 3), dtype=np.uint8))

    def name(self, i: int) -> str:
        return f"picture-{i}.png"
