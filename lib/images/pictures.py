"""Decoding of a file or of bytes to an RGB picture, for all raster formats of Pillow, in bounded memory."""

import io
import struct
import sys
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from lib.images.source import ImageError
from storage.files import one_sentence, ordinary_file

MAX_PIXELS = 1 << 26  # 8,192 x 8,192; a larger picture is refused before it is decoded, a JPEG read at 1/2, 1/4 or 1/8
MAX_RATIO = 200  # of the longer side to the shorter, which preprocessing enlarges to some 300 pixels
STRIP = 1 << 20  # pixels that are converted at a time where that needs several copies

# Formats of Pillow that are not read: EPS runs Ghostscript and WMF what Windows has; Pillow only recognises BUFR, GRIB,
# HDF5 and MPEG; the others are icons and the captions of press pictures.
_REFUSED = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "ICO", "CUR", "ICNS", "IPTC"})
_ORIENTATION, _PHOTOMETRIC = 0x0112, 0x0106  # in EXIF and TIFF
_POSTSCRIPT = (b"%!PS", b"\xc5\xd0\xd3\xc6", b"%PDF")
# What Pillow raises for damaged files and damaged EXIF, by format.
_UNREADABLE = (
    OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, struct.error, Image.DecompressionBombError,
)  # fmt: skip


@cache
def picture_suffixes() -> dict[str, str]:
    """{suffix in lower case: Pillow's format} of the files that this installation reads without another program."""
    registered = Image.registered_extensions()
    return {suffix: name for suffix, name in registered.items() if name in Image.OPEN and name not in _REFUSED}


def read_picture(file: Path | bytes, name: str) -> Image.Image:
    """The picture upright and in RGB. Raises ImageError, which calls it `name`, if it cannot be read.

    It is rotated by its EXIF orientation; transparency becomes white; an animation gives its first frame; pixels of
    more than 8 bits, and floats, go through `as_bytes`. CMYK goes to RGB without a colour profile, as in torchvision.
    More than MAX_PIXELS are read at reduced size from a JPEG and refused in other formats; a side of MAX_RATIO times
    the other is refused.
    """
    try:
        return _read(file)
    except FileNotFoundError:
        raise ImageError(f"{name} is missing: it was moved, or its archive was not fully unpacked.") from None
    except _UNREADABLE as error:
        reason = one_sentence(error).replace(str(file), "the file") if isinstance(file, Path) else one_sentence(error)
        raise ImageError(f"{name} is not a readable picture: {reason}; repair or remove it, or skip errors.") from error


def _read(file: Path | bytes) -> Image.Image:
    if file == b"":
        raise ValueError("it is empty")
    with (
        io.BytesIO(file) if isinstance(file, bytes) else ordinary_file(file).open("rb") as stream,
        _opened(stream) as opened,
    ):
        check_size(opened)
        raw_modes = {tile.args[0] if isinstance(tile.args, tuple) else tile.args for tile in opened.tile}
        deep = opened.mode in ("RGB", "RGBA") and any(";16" in str(mode) for mode in raw_modes)
        opened.load()
        if deep and max(high for _, high in opened.getextrema()[:3]) < 16:
            return upright_rgb(_deep_colours(stream, opened))
        return upright_rgb(opened)


def _opened(stream: BinaryIO) -> ImageFile:
    """The picture with its header read. JPEGs bypass `Image.open`, which warns of large ones, or refuses them."""
    begin = stream.read(4)
    stream.seek(0)
    if begin.startswith(_POSTSCRIPT):
        raise ValueError("it is PostScript or PDF, which only another program can draw")
    if begin.startswith(b"\xff\xd8\xff"):
        from PIL.JpegImagePlugin import JpegImageFile

        return JpegImageFile(stream)
    try:
        return Image.open(stream, formats=tuple(dict.fromkeys(picture_suffixes().values())))
    except UnidentifiedImageError:
        raise ValueError("Pillow cannot identify its format, or must not open it") from None


def check_size(image: Image.Image) -> None:
    """Raise ValueError for a picture that is too large or too elongated; set a large JPEG to decode at reduced size.

    A progressive JPEG is refused like other formats: its decoder needs memory for all pixels at any size.
    """
    width, height = image.size
    if max(width, height) >= MAX_RATIO * min(width, height):
        raise ValueError(f"it has {width:,} x {height:,} pixels, and no side may be {MAX_RATIO} times the other")
    if isinstance(image, ImageFile) and image.format == "JPEG" and "progressive" not in image.info:
        factor = next((k for k in (1, 2, 4) if -(-width // k) * -(-height // k) <= MAX_PIXELS), 8)
        if factor > 1:
            image.draft(None, (width // factor, height // factor))
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"it has {width:,} x {height:,} pixels, and {MAX_PIXELS:,} are read at most")


def _deep_colours(stream: BinaryIO, high: ImageFile) -> Image.Image:
    """A picture of 16 bits a channel in 8 bits, by `as_bytes`; `high` holds the upper bytes, all that Pillow reads.

    To read the lower bytes, Pillow is given the opposite byte order.
    """
    stream.seek(0)
    with _opened(stream) as low:
        low.tile = [tile._replace(args=_other_byte(tile.args)) for tile in low.tile]
        values = np.asarray(high).astype(np.uint16) << 8 | np.asarray(low)
    channels = [as_bytes(values[..., :3]), *([as_bytes(values[..., 3:])] if high.mode == "RGBA" else [])]
    image = Image.fromarray(np.concatenate(channels, axis=-1))
    image.getexif()[_ORIENTATION] = high.getexif().get(_ORIENTATION, 1)
    return image


def _other_byte(args: str | tuple) -> str | tuple:
    """A decoder's arguments with the opposite byte order, which is the last letter of a raw mode such as "RGB;16B"."""
    if isinstance(args, tuple):
        return _other_byte(args[0]), *args[1:]
    return args[:-1] + ("L" if args[-1] == "B" or (args[-1] == "N" and sys.byteorder == "big") else "B")


def as_bytes(values: np.ndarray) -> np.ndarray:
    """Pixel values of any range, (h, w) or (h, w, c), as uint8 of the same shape.

    Black is 0, or the least value where some are negative. White is the first of 255, 4,095 and 65,535 that no integer
    exceeds, so that 16-bit files with 8 or 12 significant bits are right; 1 for floats of at most 1; else the largest
    value. Values that are not finite become black. Raises ValueError where no value is finite.
    """
    integer = values.dtype.kind in "iu"
    finite = values if integer else values[np.isfinite(values)]
    if not finite.size:
        raise ValueError("none of its pixels is a finite number")
    low, high = min(0, finite.min().item()), finite.max().item()
    whites = [white for white in ((255, 4095, 65535) if integer else (1,)) if low == 0 and high <= white]
    span = (whites[0] if whites else high) - low or 1
    out = np.empty(values.shape, np.uint8)
    rows = max(1, STRIP // values.shape[1])
    for top in range(0, len(values), rows):
        x = values[top : top + rows]
        if integer:
            out[top : top + rows] = (x.astype(np.int64) - low) * 255 // span
        else:
            out[top : top + rows] = np.rint((np.where(np.isfinite(x), x, low).astype(np.float64) - low) * (255 / span))
    return out


def upright_rgb(image: Image.Image) -> Image.Image:
    """A picture of any mode upright and in RGB, as `read_picture` says. Raises ValueError for one that is too large."""
    check_size(image)
    flipped = np.uint8(255 * (getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0))  # a TIFF whose zero is white
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):  # Pillow would cut them off at 255
        return Image.fromarray(as_bytes(np.asarray(image)) ^ flipped).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    flat = Image.new("RGB", image.size)
    rows = max(1, STRIP // image.width)
    for top in range(0, image.height, rows):  # on white, some rows at a time: it takes three copies
        box = (0, top, image.width, min(top + rows, image.height))
        layer = image.crop(box).convert("RGBA")
        flat.paste(Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB"), box)
    return flat
