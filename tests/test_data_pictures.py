"""A picture is read upright and in RGB however it was stored, or the error names it."""

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from lib.images import pictures
from lib.images.image_set import ImageError
from lib.images.pictures import MAX_PIXELS, as_bytes, picture_suffixes, read_picture

ROOT = Path(__file__).parent.parent

GRADIENT = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)


def stored(image: Image.Image, file, **options) -> np.ndarray:
    """The picture written to a file and read back: (h, w, 3)."""
    image.save(file, **options)
    read = read_picture(file, file.name)
    assert read.mode == "RGB"
    return np.asarray(read)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_16_bit_grey_keeps_its_range(tmp_path, suffix):
    image = Image.fromarray((GRADIENT * 65535).astype(np.uint16))
    read = stored(image, tmp_path / f"grey.{suffix}")
    assert np.abs(read[..., 1] / 255 - GRADIENT).max() < 1 / 255
    assert (read[..., 0] == read[..., 2]).all()


# --- numbers of more than 8 bits


def png(pixels: np.ndarray, depth: int = 16, filler: bytes = b"") -> bytes:
    """A PNG of (h, w, c) numbers, of 8 or 16 bits; filler: its compressed data instead, for pixels of any size."""
    height, width, channels = pixels.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    data = filler or zlib.compress(b"".join(b"\0" + row.astype(f">u{depth // 8}").tobytes() for row in pixels))
    parts = {b"IHDR": struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0), b"IDAT": data, b"IEND": b""}
    chunks = [struct.pack(">I", len(x)) + t + x + struct.pack(">I", zlib.crc32(t + x)) for t, x in parts.items()]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def tiff(pixels: np.ndarray, order: str = "<", deflated: bool = False) -> bytes:
    """A TIFF of (h, w, 3 or 4) 16-bit colours, of either order of bytes."""
    height, width, channels = pixels.shape
    data = pixels.astype(f"{order}u2").tobytes()
    data = zlib.compress(data) if deflated else data
    tags = {256: width, 257: height, 259: 8 if deflated else 1, 262: 2, 277: channels, 278: height, 279: len(data)}
    tags |= {338: 2} if channels == 4 else {}
    bits = 8 + 2 + 12 * (len(tags) + 2) + 4
    tags |= {258: bits, 273: bits + 2 * channels}
    out = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(tags))
    for tag, value in sorted(tags.items()):
        if tag in (258, 273, 279):
            out += struct.pack(f"{order}HHII", tag, 3 if tag == 258 else 4, channels if tag == 258 else 1, value)
        else:
            out += struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0)
    return out + struct.pack(f"{order}I{channels}H", 0, *[16] * channels) + data


@pytest.mark.parametrize("white", [255, 4095, 65535])
@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_a_16_bit_grey_with_8_or_12_bits_inside_comes_out_right(tmp_path, white, dtype):
    image = Image.fromarray((GRADIENT * white).astype(dtype))
    assert np.abs(stored(image, tmp_path / "grey.tif")[..., 0] / 255 - GRADIENT).max() < 1.01 / 255


@pytest.mark.parametrize("white", [255, 4095, 65535])
def test_a_16_bit_tiff_whose_zero_is_white_is_no_negative(tmp_path, white):
    file, tags = tmp_path / "scan.tif", TiffImagePlugin.ImageFileDirectory_v2()
    tags[0x0106] = 0  # WhiteIsZero
    Image.fromarray(((1 - GRADIENT) * white).astype(np.uint16)).save(file, tiffinfo=tags)
    with Image.open(file) as written:
        assert written.tag_v2[0x0106] == 0
    assert np.abs(np.asarray(read_picture(file, "it"))[..., 0] / 255 - GRADIENT).max() < 1.01 / 255


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0.3), (0, 255), (0, 3000), (-1000, 3000), (0, 1e-3), (0, 1.02)])
def test_floats_come_out_in_their_range(tmp_path, low, high):
    values = (low + GRADIENT * (high - low)).astype(np.float32)
    expected = values if low >= 0 and high <= 1 else GRADIENT
    read = stored(Image.fromarray(values), tmp_path / "depth.tif")[..., 0]
    assert np.abs(read / 255 - expected).max() < 1 / 255


def test_integers_with_negative_or_very_large_values_come_out_in_their_range(tmp_path):
    for low, high in ((-1024, 3071), (0, 1 << 30)):
        values = np.round(low + GRADIENT.astype(np.float64) * (high - low)).astype(np.int32)
        assert (
            np.abs(stored(Image.fromarray(values), tmp_path / "scan.tif")[..., 0] / 255 - GRADIENT).max() < 1.01 / 255
        )


def test_numbers_that_are_not_finite_are_black_and_a_picture_of_them_alone_is_an_error(tmp_path):
    values = GRADIENT.copy()
    values[0, :3] = [np.nan, np.inf, -np.inf]
    read = stored(Image.fromarray(values), tmp_path / "holes.tif")[..., 0]
    assert read[0, :3].tolist() == [0, 0, 0]
    assert read[-1, -1] == 255
    with pytest.raises(ImageError, match="none of its pixels is a finite number"):
        stored(Image.fromarray(np.full((4, 4), np.nan, np.float32)), tmp_path / "nothing.tif")


def test_a_picture_of_one_number_is_no_error():
    assert as_bytes(np.zeros((2, 2), np.float32)).tolist() == [[0, 0], [0, 0]]
    assert as_bytes(np.full((2, 2), -5, np.int32)).tolist() == [[0, 0], [0, 0]]


COLOURS = np.stack([GRADIENT, GRADIENT[::-1], GRADIENT.T], axis=-1)


@pytest.mark.parametrize("white", [255, 4095, 65535])
@pytest.mark.parametrize(
    "write",
    [png, tiff, lambda x: tiff(x, ">"), lambda x: tiff(x, deflated=True), lambda x: tiff(x, ">", deflated=True)],
    ids=["png", "tiff", "tiff, other order", "deflated tiff", "deflated tiff, other order"],
)
def test_16_bit_colours_with_8_or_12_bits_inside_come_out_right(write, white):
    read = np.asarray(read_picture(write(np.round(COLOURS * white)), "colours"))
    assert np.abs(read / 255 - COLOURS).max() < 2.01 / 255


@pytest.mark.parametrize("opaque", [255, 65535])
def test_16_bit_colours_keep_their_transparency(opaque):
    alpha = np.where(np.arange(16)[:, None, None] < 8, opaque, 0) * np.ones((16, 16, 1))
    read = np.asarray(read_picture(png(np.concatenate([COLOURS * 255, alpha], axis=-1)), "cut out"))
    assert np.abs(read[:8] / 255 - COLOURS[:8]).max() < 2.01 / 255
    assert read[8:].min() == 255


def test_16_bit_colours_are_turned_as_the_camera_says():
    deep = np.round(COLOURS[:, :8] * 255)
    file = io.BytesIO(png(deep))
    exif = Image.Exif()
    exif[0x0112] = 6
    chunk = b"eXIf" + exif.tobytes()[6:]
    data = file.getvalue()
    turned = data[:33] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    assert read_picture(turned, "turned").size == (16, 8)


# --- other ways of storing


def test_grey_and_palette_and_cmyk_keep_their_colours(tmp_path):
    grey = Image.fromarray((GRADIENT * 255).astype(np.uint8))
    assert np.array_equal(stored(grey, tmp_path / "grey.png")[..., 0], np.asarray(grey))
    orange = Image.new("RGB", (8, 8), (255, 128, 0))
    assert stored(orange.quantize(4), tmp_path / "palette.gif")[0, 0].tolist() == [255, 128, 0]
    assert np.abs(stored(orange.convert("CMYK"), tmp_path / "print.jpg").astype(int) - [255, 128, 0]).max() < 12


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_becomes_white(tmp_path, mode):
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 4, 8))
    read = stored(image.convert(mode), tmp_path / "cut_out.png")
    assert read[0, 0].tolist() == [0, 0, 0]
    assert read[0, 7].tolist() == [255, 255, 255]


def test_a_picture_is_turned_as_its_camera_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turned by a quarter
    assert stored(Image.new("RGB", (20, 10)), tmp_path / "turned.jpg", exif=exif).shape == (20, 10, 3)


def test_of_a_film_the_first_picture_is_read(tmp_path):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    read = stored(frames[0], tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    assert read[0, 0].tolist() == [255, 0, 0]


def test_bytes_are_read_like_a_file(tmp_path):
    stored(Image.new("RGB", (8, 4), "red"), tmp_path / "a.png")
    assert read_picture((tmp_path / "a.png").read_bytes(), "row 3").size == (8, 4)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not .*the file is empty"),
        (b"this is no picture", "not .*cannot identify"),
        (None, "missing: it was moved"),
    ],
)
def test_what_cannot_be_read_is_an_error_that_names_it(tmp_path, content, reason):
    file = tmp_path / "broken.jpg"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ImageError, match=f"^cat/broken.jpg is {reason}"):
        read_picture(file, "cat/broken.jpg")


def test_a_truncated_picture_is_an_error(tmp_path):
    file = tmp_path / "half.jpg"
    Image.effect_noise((64, 64), 50).save(file)
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(ImageError, match="truncated"):
        read_picture(file, "half.jpg")


# --- what is not read


@pytest.fixture
def no_programs(monkeypatch):
    """Any program that is started is an error."""

    def refuse(*args, **options):
        raise AssertionError(f"started {args}")

    for name in ("Popen", "run", "call", "check_call", "check_output"):
        monkeypatch.setattr(subprocess, name, refuse)
    monkeypatch.setattr(os, "system", refuse)


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 100 100
%%EndComments
(/etc/passwd) (r) file
%%EOF
"""


@pytest.mark.parametrize("name", ["a.eps", "a.jpg", "a.png", "a.ps"])
@pytest.mark.parametrize("start", [b"", struct.pack("<II", 0xC6D3D0C5, 12) + b"\0" * 4])
def test_postscript_is_refused_whatever_its_suffix_and_runs_no_program(tmp_path, no_programs, name, start):
    (tmp_path / name).write_bytes(start + EPS)
    for file in (tmp_path / name, start + EPS):
        with pytest.raises(ImageError, match="it is PostScript or PDF, which only another program can draw"):
            read_picture(file, name)


def test_no_format_that_runs_a_program_is_tried(tmp_path, no_programs, monkeypatch):
    monkeypatch.setattr(pictures, "_POSTSCRIPT", ())
    with pytest.raises(ImageError, match="cannot identify its format, or must not open it"):
        read_picture(EPS, "a.jpg")
    assert not {".eps", ".ps", ".pdf", ".wmf", ".emf", ".h5", ".mpg", ".ico"} & picture_suffixes().keys()
    assert {".jpg", ".jfif", ".avif", ".ppm", ".pgm", ".tga", ".jp2", ".tif", ".webp"} <= picture_suffixes().keys()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are for POSIX")
def test_pipes_folders_and_pointers_are_errors_that_say_what_lies_there(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "pointer.jpg").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    for name, what in (("pipe", "a named pipe"), ("folder", "a folder"), ("pointer", "a pointer of Git LFS")):
        with pytest.raises(ImageError, match=f"the file is {what}"):
            read_picture(tmp_path / f"{name}.jpg", f"{name}.jpg")


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1), (200, 1)])
def test_a_picture_of_which_one_side_is_very_long_is_refused(tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "line.png")
    with pytest.raises(ImageError, match=r"pixels, and no side may be 200 times the other"):
        read_picture(tmp_path / "line.png", "line.png")
    Image.new("RGB", (199, 1)).save(tmp_path / "line.png")
    assert read_picture(tmp_path / "line.png", "line.png").size == (199, 1)


def megapixels(side: int) -> bytes:
    """A small PNG of side x side black pixels."""
    packer = zlib.compressobj(1)
    row = b"\0" * (side * 4 + 1)
    filler = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    return png(np.broadcast_to(np.uint8(0), (side, side, 4)), depth=8, filler=filler)


@pytest.mark.parametrize("side", [8193, 15_000])
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch, side):
    data = png(np.broadcast_to(np.uint8(0), (side, side, 4)), depth=8, filler=b"never read")
    with pytest.raises(ImageError, match=r"pixels, and 67,108,864 are read at most|exceeds limit of"):
        read_picture(data, "bomb.png")


READ_ONE = """
import resource, sys
from lib.images.pictures import ImageError, read_picture
from pathlib import Path
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    print(read_picture(Path(sys.argv[1]), "it").size)
except ImageError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not keep to the limit of memory")
def test_the_largest_picture_takes_less_than_a_gigabyte(tmp_path):
    """In a process that may take 1 GiB more than it has after its imports."""
    (tmp_path / "largest.png").write_bytes(megapixels(8192))
    code = READ_ONE.replace("int(sys.argv[2])", "int(open('/proc/self/statm').read().split()[0]) * 4096 + (1 << 30)")
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "largest.png"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.strip() == "(8192, 8192)", done.stderr


def test_a_large_jpeg_is_read_smaller(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PIXELS", 10_000)
    photo = Image.effect_noise((400, 300), 60).resize((400, 300))
    smooth = photo.resize((8, 6)).resize((400, 300), Image.Resampling.BICUBIC)
    assert stored(smooth, tmp_path / "large.jpg").shape == (75, 100, 3)
    assert np.abs(stored(smooth, tmp_path / "large.jpg").astype(int)[..., 0] - np.asarray(smooth.reduce(4))).mean() < 4
    assert stored(smooth.crop((0, 0, 150, 60)), tmp_path / "small.jpg").shape == (60, 150, 3)
    with pytest.raises(ImageError, match="400 x 300 pixels, and 10,000 are read at most"):
        stored(smooth, tmp_path / "progressive.jpg", progressive=True)
    with pytest.raises(ImageError, match="and 10,000 are read at most"):
        stored(smooth, tmp_path / "large.webp")


def test_the_largest_jpeg_that_there_can_be_is_within_the_limit():
    side = -(-65535 // 8)
    assert side * side <= MAX_PIXELS
