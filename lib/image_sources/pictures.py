"""One file or one block of bytes to one RGB picture, however it was stored."""

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from lib.image_sources.base import ImageError

# What Pillow raises for damaged files and damaged EXIF, by format.
_UNREADABLE = (
    OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, struct.error, Image.DecompressionBombError,
)  # fmt: skip


def read_picture(file: Path | bytes, name: str) -> Image.Image:
    """The picture upright and in RGB. Raises ImageError, which calls it `name`, if it cannot be read.

    Turned as its camera noted (EXIF); 16-bit greys keep their range; what is transparent becomes white; of a film the
    first picture. CMYK goes to RGB without a colour profile, as in torchvision.
    """
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as opened:
            return _rgb(ImageOps.exif_transpose(opened))
    except FileNotFoundError:
        raise ImageError(f"{name} is not there: it was moved, or its archive was not wholly unpacked.") from None
    except _UNREADABLE as error:
        size = len(file) if isinstance(file, bytes) else file.stat().st_size
        reason = "it is empty" if size == 0 else str(error).replace(str(file), "the file")[:200]
        raise ImageError(f"{name} is not a readable picture: {reason}; repair or remove it, or skip errors.") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel; Pillow would cut them off at 255
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")
