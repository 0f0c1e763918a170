"""One picture in any form (PIL, path of a file, array, tensor) as a PIL picture."""

import os
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from lib.devices import to_numpy
from lib.images.pictures import read_picture
from storage.files import quoted

Picture = Image.Image | str | os.PathLike | np.ndarray | Tensor


def is_one_picture(images: object) -> bool:
    """Whether the object is one picture, not a collection of pictures."""
    return isinstance(images, Image.Image | str | os.PathLike) or (
        isinstance(images, np.ndarray | Tensor) and images.ndim < 4
    )


def as_picture(image: object) -> Image.Image:
    """A picture in any of these forms as a PIL picture; tensors are (3, H, W), arrays (H, W), (H, W, 3) or (H, W, 4).

    Raises ValueError for anything else, pixels that are not uint8 among them; ImageError for a file that cannot be read
    as a picture.
    """
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, str | os.PathLike):
        return read_picture(Path(image).expanduser(), os.fspath(image))
    if not isinstance(image, np.ndarray | Tensor):
        raise ValueError(f"{quoted(image)} is no picture: give one opened by PIL, a path, or pixels")
    pixels = to_numpy(image)
    if isinstance(image, Tensor) and pixels.ndim == 3 and len(pixels) == 3 and pixels.shape[-1] != 3:
        pixels = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,), (4,)):
        raise ValueError(
            f"pixels are uint8 of shape (H, W, 3), or (3, H, W) in a tensor, not {pixels.dtype} of {pixels.shape}: of "
            "floats from 0 to 1 give (255 * x).round() as uint8, not preprocessed, which the encoder does itself"
        )
    return Image.fromarray(pixels)
