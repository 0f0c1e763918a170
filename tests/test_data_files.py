"""Files of pictures: all that Pillow opens are found, the others counted, any name works, and any change is seen."""

import os
import re
import subprocess
import time
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib.images.image_files import FileList, readable
from lib.images.image_set import load_images

linux = pytest.mark.skipif(os.name != "posix", reason="these names and links are for POSIX")


def draw(file: Path, color: str = "red", **options) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 8), color).save(file, **options)
    return file


def names(images) -> list[str]:
    return [images.name(i) for i in range(len(images))]


def warned(root: Path) -> str:
    """What loading a folder warns of; "" for nothing."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        load_images(f"folder:{root}")
    assert len(said) <= 1
    return str(said[0].message) if said else ""


# --- which files


FORMATS = {
    "jpg": "JPEG", "JPEG": "JPEG", "jfif": "JPEG", "jpe": "JPEG", "png": "PNG", "apng": "PNG", "webp": "WEBP",
    "bmp": "BMP", "gif": "GIF", "tif": "TIFF", "ppm": "PPM", "pgm": "PPM", "pnm": "PPM", "tga": "TGA",
    "jp2": "JPEG2000", "j2k": "JPEG2000", "avif": "AVIF", "sgi": "SGI", "pcx": "PCX", "dds": "DDS", "qoi": "QOI",
}  # fmt: skip


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_suffix_of_a_picture_that_pillow_opens_is_found_and_read(tmp_path, suffix):
    try:
        draw(tmp_path / f"a.{suffix}", format=FORMATS[suffix])
    except (KeyError, OSError):
        pytest.skip(f"this Pillow does not write {FORMATS[suffix]}")
    images = load_images(f"folder:{tmp_path}")
    assert names(images) == [f"a.{suffix}"]
    assert np.abs(np.asarray(images[0]).astype(int) - [255, 0, 0]).max() < 12
    assert not warned(tmp_path)


def test_what_is_left_out_is_counted_by_its_suffix(tmp_path):
    draw(tmp_path / "a.png")
    for name in ("a.heic", "b.HEIC", "c.txt", "LICENSE", ".hidden.heic"):
        (tmp_path / name).write_bytes(b"x")
    assert f"Left out of {tmp_path}: 4 files (2 .heic, 1 .txt, 1 no suffix)" in warned(tmp_path).replace(
        "1 no suffix, 1 .txt", "1 .txt, 1 no suffix"
    )
    for name in ("d.eps", "e.pdf", "f.ico"):
        (tmp_path / name).write_bytes(b"x")
    assert all(f"1 {suffix}" in warned(tmp_path) for suffix in (".eps", ".pdf", ".ico"))


def test_a_table_of_facts_is_not_left_out(tmp_path):
    draw(tmp_path / "a.png")
    (tmp_path / "facts.csv").write_text("file_name,light\na.png,dim\n")
    assert not warned(tmp_path)
    (tmp_path / "other.csv").write_text("x")
    assert "1 file (1 .csv)" in warned(tmp_path)


def test_a_folder_of_other_files_alone_is_an_error_that_counts_them(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.heic").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"no pictures in .* but 3 files \(3 \.heic\); picture files end in \.jpg"):
        load_images(f"folder:{tmp_path}")


def test_many_suffixes_are_summed_up(tmp_path):
    draw(tmp_path / "a.png")
    for i in range(12):
        (tmp_path / f"a.x{i}").write_bytes(b"x")
    assert re.search(r"12 files \((1 \.x\d+, ){8}4 others\)", warned(tmp_path))


@linux
def test_pipes_and_broken_links_are_counted_and_never_opened(tmp_path):
    draw(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert "2 files (2 no ordinary file)" in warned(tmp_path)
    assert names(load_images(f"folder:{tmp_path}")) == ["a.png"]


# --- links


@linux
def test_links_that_loop_end(tmp_path):
    draw(tmp_path / "cat" / "a.png")
    draw(tmp_path / "owl" / "b.png")
    (tmp_path / "cat" / "to_owl").symlink_to(tmp_path / "owl")
    (tmp_path / "owl" / "to_cat").symlink_to(tmp_path / "cat")
    (tmp_path / "owl" / "here").symlink_to(".")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    with pytest.warns(UserWarning, match="2 files"):
        images = load_images(f"folder:{tmp_path}")
    assert set(names(images)) == {"cat/a.png", "cat/to_owl/b.png", "owl/b.png", "owl/to_cat/a.png"}


@linux
@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may open every folder")
def test_a_folder_that_may_not_be_opened_is_counted(tmp_path):
    draw(tmp_path / "cat" / "a.png")
    (tmp_path / "closed").mkdir(mode=0)
    assert "1 file (1 cannot be opened)" in warned(tmp_path)


# --- names


@linux
def test_a_name_in_latin_1_is_read_shown_and_kept(tmp_path):
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    picture = draw(tmp_path / "a.png").read_bytes()
    with open(folder + b"/\xe4.png", "wb") as file:
        file.write(picture)
    images = load_images(f"folder:{tmp_path}")
    assert names(images) == ["a.png", "café/ä.png"]
    assert images.class_names == ("café",)
    assert images[1].size == (12, 8)
    alone = load_images(f"folder:{os.fsdecode(folder)}")
    for text in (alone.spec, alone.fingerprint, alone.name(0)):
        text.encode("utf-8")
    os.rename(folder + b"/\xe4.png", folder + b"/\xe4.jpg")
    with open(folder + b"/\xe4.jpg", "wb") as file:
        file.write(b"no picture")
    with pytest.raises(ValueError, match=r"café/ä\.jpg is not a readable picture"):
        load_images(f"folder:{tmp_path}")[1]


def test_names_in_any_script_and_unicode_form_are_files_of_their_own(tmp_path):
    for name in ("caf\u00e9.png", "cafe\u0301.png", "\U0001f426.png", "a b.png", "птица.png"):
        draw(tmp_path / name)
    found = names(load_images(f"folder:{tmp_path}"))
    assert {unicodedata.normalize("NFC", name) for name in found} >= {"caf\u00e9.png", "\U0001f426.png", "птица.png"}
    assert len(found) == len(os.listdir(tmp_path))


@linux
def test_long_paths_are_read(tmp_path):
    deep = tmp_path.joinpath(*["d" * 200] * 5)
    draw(deep / ("n" * 200 + ".png"))
    images = load_images(f"folder:{tmp_path}")
    assert len(images.name(0)) > 1000
    assert images[0].size == (12, 8)
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        load_images(f"folder:{tmp_path}/{'x' * 400}")
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        load_images(f"folder:{tmp_path}/{'x/' * 4000}")


@linux
def test_folders_deeper_than_pythons_stack_are_listed(tmp_path):
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1100):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    picture = draw(tmp_path / "a.png").read_bytes()
    with os.fdopen(os.open("b.png", os.O_WRONLY | os.O_CREAT, dir_fd=here), "wb") as file:
        file.write(picture)
    os.close(here)
    found = len(load_images(f"folder:{tmp_path}"))
    subprocess.run(["rm", "-r", tmp_path / "d"], check=True)  # pytest could not
    assert found == 2


@pytest.mark.parametrize("name", ["set[1:2]", "set[:]", "set[::2]", "a:b", "new\nline", "set[1:2][3:4]"])
def test_a_folder_may_be_called_like_a_slice(tmp_path, name):
    for i in range(4):
        draw(tmp_path / "set" / f"{i}.png")
        draw(tmp_path / name / f"inner {i}.png")
    images, some = load_images(f"folder:{tmp_path / name}"), load_images(f"folder:{tmp_path / name}[1:3]")
    assert names(images) == [f"inner {i}.png" for i in range(4)]
    assert names(some) == ["inner 1.png", "inner 2.png"]
    for one in (images, some):
        assert names(load_images(one.spec)) == names(one)
        assert load_images(one.spec).spec == one.spec
    assert len({load_images(f"folder:{tmp_path}/set{end}").spec for end in ("", "[0:1]", "[1:3]")} | {images.spec}) == 4


def test_home_is_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    draw(tmp_path / "birds" / "a.png")
    assert names(load_images("folder:~/birds")) == ["a.png"]
    with pytest.raises(FileNotFoundError, match="There is no folder ~nobody-of-this-name/x"):
        load_images("folder:~nobody-of-this-name/x")


def test_a_table_cannot_name_files_outside_its_folder(tmp_path):
    for path in ("../a.png", "/a.png", "b/../../a.png"):
        with pytest.raises(ValueError, match=r"table\.csv names .* outside the folder"):
            FileList.of_paths(["b/a.png", path], tmp_path / "table.csv")


def test_bytes_that_are_no_text_become_text():
    assert readable(os.fsdecode(b"caf\xe9")) == readable("café") == "café"


# --- fingerprints


def rewritten(file: Path, data: bytes) -> None:
    """Write other content of the same size and time."""
    about = file.stat()
    assert len(data) == about.st_size
    file.write_bytes(data)
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert file.stat().st_mtime_ns == about.st_mtime_ns


@pytest.mark.parametrize("pixels", [10, 40_000], ids=["small", "large"])
def test_a_changed_picture_of_the_same_size_and_time_changes_the_fingerprint(tmp_path, pixels):
    file = tmp_path / "a.bmp"
    Image.new("RGB", (pixels, 1)).save(file)
    before = load_images(f"folder:{tmp_path}").fingerprint
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    rewritten(file, bytes(data))
    assert load_images(f"folder:{tmp_path}").fingerprint != before


def test_a_change_in_the_middle_of_a_large_file_is_seen_by_its_time_of_change(tmp_path):
    file = tmp_path / "a.bmp"
    Image.new("RGB", (1000, 200)).save(file)
    before = load_images(f"folder:{tmp_path}").fingerprint
    time.sleep(0.05)  # a clock of files may tick a hundred times a second
    data = bytearray(file.read_bytes())
    data[150_000] ^= 1
    rewritten(file, bytes(data))
    assert load_images(f"folder:{tmp_path}").fingerprint != before


def test_another_file_moved_to_the_place_of_one_changes_the_fingerprint(tmp_path):
    first, second = (draw(tmp_path / name / "a.bmp", color) for name, color in (("set", "red"), ("other", "blue")))
    for file in (first, second):
        os.utime(file, (1_700_000_000, 1_700_000_000))
    before = load_images(f"folder:{tmp_path / 'set'}").fingerprint
    second.replace(first)
    assert load_images(f"folder:{tmp_path / 'set'}").fingerprint != before


def test_every_file_of_a_large_folder_counts(tmp_path, monkeypatch):
    monkeypatch.setattr("lib.images.image_files.SAMPLE", 2)
    for i in range(5):
        draw(tmp_path / f"{i}.bmp")
    before = load_images(f"folder:{tmp_path}").fingerprint
    time.sleep(0.05)
    rewritten(tmp_path / "1.bmp", (tmp_path / "1.bmp").read_bytes()[:-1] + b"\x09")
    assert load_images(f"folder:{tmp_path}").fingerprint != before


def test_a_fingerprint_stays_while_nothing_changes(tmp_path):
    for i in range(700):
        (tmp_path / f"{i}.png").write_bytes(b"x" * i)
    assert len({load_images(f"folder:{tmp_path}").fingerprint for _ in range(3)}) == 1
