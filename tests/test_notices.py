"""Warnings in a notebook: a sentence among the results, without a path; what is said to programmers is not shown."""

import os
import warnings

import pytest
from IPython.utils.capture import capture_output
from PIL import Image

from experiments.notices import sentence
from experiments.parameters import check_parameters
from lib import load_images


def shown(warn) -> list[str]:
    """The Markdown that a warning makes in a notebook, behind the cell that checks parameters; nothing on stderr."""
    check_parameters({})
    with capture_output() as captured:
        warn()
    assert captured.stderr == ""
    return [output.data["text/markdown"] for output in captured.outputs]


@pytest.fixture(autouse=True)
def shell():
    """Outputs are captured where IPython runs; what other tests see of warnings stays as it was."""
    from tests.notebook_cells import _fresh_shell

    with warnings.catch_warnings(), _fresh_shell():
        warnings.simplefilter("always")
        yield


def test_what_is_left_out_of_a_folder_is_said_in_a_sentence_without_a_path(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "notes.csv.txt").write_text("x")
    (said,) = shown(lambda: load_images(f"folder:{tmp_path}"))
    assert said.startswith(f"**Warning:** Left out of {tmp_path.name}: 1 file")
    assert "/" not in said


@pytest.mark.parametrize("category", [FutureWarning, DeprecationWarning])
def test_what_is_said_to_programmers_is_not_shown(category):
    assert shown(lambda: warnings.warn("torch.old becomes torch.new", category, stacklevel=1)) == []


def test_how_a_file_was_written_that_pillow_reads_all_the_same_is_not_shown():
    warn = "Palette images with Transparency expressed in bytes should be converted to RGBA images"
    path = os.path.join("site-packages", "PIL", "Image.py")
    assert shown(lambda: warnings.warn_explicit(warn, UserWarning, path, 1)) == []


def test_a_library_that_warns_of_numbers_is_heard():
    said = shown(lambda: warnings.warn_explicit("lbfgs did not converge", RuntimeWarning, "sklearn/linear.py", 1))
    assert said == ["**Warning:** lbfgs did not converge"]


def test_a_warning_cannot_write_markup():
    (said,) = shown(lambda: warnings.warn("<script> and [link](x)", UserWarning, stacklevel=1))
    assert "<" not in said
    assert "[" not in said


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Left out of /home/me/my.pictures: 1 file", "Left out of my.pictures: 1 file"),
        ("folder:/data/x/train is damaged", "folder:train is damaged"),
        ("see https://example.org/a/b", "see https://example.org/a/b"),
        ("../build/mine/a is damaged", "../build/mine/a is damaged"),
        ("3/4 of 5 / 6", "3/4 of 5 / 6"),
    ],
)
def test_of_an_absolute_path_the_last_part_is_left(text, left):
    assert sentence(text) == left
