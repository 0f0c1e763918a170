"""Pictures as a user holds them: opened by PIL, paths of files, or arrays."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from lib.files import quoted
from lib.image_sources.pictures import read_picture

Picture = Image.Image | str | os.PathLike | np.ndarray


def is_one_picture(images: object) -> bool:
    """Whether that is one picture and no collection of them."""
    return isinstance(images, Image.Image | str | os.PathLike) or (isinstance(images, np.ndarray) and images.ndim < 4)


def as_picture(image: object) -> Image.Image:
    """A PIL picture, a path or an array (H, W), (H, W, 3) or (H, W, 4) of uint8 as a PIL picture.

    Raises ValueError for anything else, ImageError for a file that cannot be read as a picture.
    """
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, str | os.PathLike):
        return read_picture(Path(image).expanduser(), str(image))
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape[2:] in ((), (3,), (4,)):
        return Image.fromarray(image)
    what = f"an array {image.shape} of {image.dtype}" if isinstance(image, np.ndarray) else quoted(image)
    raise ValueError(f"{what} is no picture: give one opened by PIL, a path, or an array (H, W, 3) of uint8")
