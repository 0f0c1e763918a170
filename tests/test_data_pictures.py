"""A picture is read upright and in RGB however it was stored, or the error names it."""

import numpy as np
import pytest
from PIL import Image

from lib.data import ImageError
from lib.image_sources.pictures import read_picture

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
    [(b"", "it is empty"), (b"this is no picture", "cannot identify"), (None, "it was moved")],
)
def test_what_cannot_be_read_is_an_error_that_names_it(tmp_path, content, reason):
    file = tmp_path / "broken.jpg"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ImageError, match=f"^cat/broken.jpg is not .*{reason}"):
        read_picture(file, "cat/broken.jpg")


def test_a_truncated_picture_is_an_error(tmp_path):
    file = tmp_path / "half.jpg"
    Image.effect_noise((64, 64), 50).save(file)
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(ImageError, match="truncated"):
        read_picture(file, "half.jpg")
