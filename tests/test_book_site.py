"""Where the rendered book may be put: only its own files are ever replaced, and only by a book that stands whole."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from book.tools import site
from book.tools.profiles import Profile
from book.tools.site import MARKER, check_target, publish, recover, stamp_of


@pytest.fixture
def root(tmp_path):
    """A checkout with sources of its own."""
    checkout = tmp_path / "checkout"
    (checkout / "profiles").mkdir(parents=True)
    (checkout / "profiles" / "tiny.yaml").write_text("notebooks: {}")
    (checkout / "build" / "tiny").mkdir(parents=True)
    (checkout / "README.md").write_text("sources")
    return checkout


@pytest.fixture
def stamp(root):
    return root / "build" / "tiny" / "rendered"


def rendered(root: Path, text: str) -> Path:
    """A freshly rendered site."""
    folder = root / "build" / "stage" / "html"
    (folder / "notebooks").mkdir(parents=True)
    (folder / "index.html").write_text(text)
    (folder / "notebooks" / "a.html").write_text(text)
    return folder


def everything(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != MARKER)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


class TestWhatIsRefused:
    @pytest.mark.parametrize("html", ["a\0b", "x" * 300, "loop/site"])
    def test_what_is_no_path(self, root, tmp_path, html):
        (tmp_path / "loop").symlink_to("loop")
        with pytest.raises(ValueError, match="is not a valid folder"):
            check_target(tmp_path / html, root, ["tiny"])

    def test_a_page_of_the_book_that_somebody_has_changed(self, root, tmp_path, stamp):
        publish(rendered(root, "book"), tmp_path / "site", stamp)
        (tmp_path / "site" / "index.html").write_text("my own page, a week of work")
        with pytest.raises(ValueError, match=r"holds index\.html, which this book did not write"):
            check_target(tmp_path / "site", root, ["tiny"])

    @pytest.mark.parametrize("marker", ['{"id": "1", "files": [1, {}]}', "[" * 100_000])
    def test_a_folder_whose_marker_is_damaged(self, root, tmp_path, marker):
        (tmp_path / "site").mkdir()
        (tmp_path / "site" / "index.html").write_text("mine")
        (tmp_path / "site" / MARKER).write_text(marker)
        with pytest.raises(ValueError, match="which this book did not write"):
            check_target(tmp_path / "site", root, ["tiny"])

    @pytest.mark.parametrize("html", [".", "..", "/", "~", "build", "build/tiny", "build/stage", "build/stage/html"])
    def test_a_folder_that_holds_more_than_a_book(self, root, monkeypatch, html):
        monkeypatch.chdir(root)
        monkeypatch.setenv("HOME", str(root.parent))
        with pytest.raises(ValueError, match=f"^HTML={html} "):
            check_target(Path(html), root, ["tiny"])

    @pytest.mark.parametrize("name", ["thesis.pdf", "index.html", "deep/er/index.html", ".git", "notes/"])
    def test_a_folder_with_something_of_somebody_else(self, root, tmp_path, name):
        html = tmp_path / "site"
        (html / name).parent.mkdir(parents=True, exist_ok=True)
        (html / name).mkdir() if name.endswith("/") else (html / name).write_text("mine")
        with pytest.raises(ValueError, match="which this book did not write"):
            check_target(html, root, ["tiny"])
        assert (html / name).exists()

    def test_a_file(self, root, tmp_path):
        (tmp_path / "site").write_text("mine")
        with pytest.raises(ValueError, match="is a file"):
            check_target(tmp_path / "site", root, ["tiny"])

    def test_a_book_to_which_somebody_added_a_file(self, root, tmp_path, stamp):
        publish(rendered(root, "old"), tmp_path / "site", stamp)
        (tmp_path / "site" / "notebooks" / "thesis.pdf").write_text("mine")
        with pytest.raises(ValueError, match=r"holds notebooks/thesis\.pdf, which this book did not write"):
            check_target(tmp_path / "site", root, ["tiny"])

    def test_a_checkout_with_the_marker_of_a_book(self, root):
        (root / MARKER).write_text('{"id": "x", "files": ["README.md"]}')
        with pytest.raises(ValueError, match="is this checkout"):
            check_target(root, root, ["tiny"])

    @pytest.mark.parametrize("html", ["build/html", "build/check/html", "elsewhere/deeper/site", "~/o'brien {x} ü"])
    def test_nothing_of_a_folder_that_is_empty_or_not_there(self, root, tmp_path, monkeypatch, html):
        monkeypatch.chdir(root)
        monkeypatch.setenv("HOME", str(tmp_path))
        check_target(Path(html), root, ["tiny", "check"])
        Path(html).expanduser().mkdir(parents=True)
        check_target(Path(html), root, ["tiny", "check"])


class TestPublishing:
    @pytest.fixture(params=["one file system", "across file systems"])
    def html(self, request, root, tmp_path, monkeypatch):
        """A target below missing parents; across file systems the first rename of the new book fails."""
        rename = os.rename

        def fails_between_them(source, target):
            if Path(source).is_relative_to(root) != Path(target).is_relative_to(root):
                raise OSError(18, "Invalid cross-device link")
            rename(source, target)

        if request.param == "across file systems":
            monkeypatch.setattr(site.os, "rename", fails_between_them)
        return tmp_path / "missing" / "parents" / "site"

    def test_the_new_book_takes_the_place_of_the_old_one(self, root, html, stamp):
        for text in ("old", "new"):
            publish(rendered(root, text), html, stamp)
            check_target(html, root, ["tiny"])
            assert everything(html) == {"index.html": text.encode(), "notebooks/a.html": text.encode()}
        assert [path.name for path in html.parent.iterdir()] == ["site"]

    def test_an_old_book_stays_whole_when_the_new_one_cannot_be_copied(self, root, html, stamp, monkeypatch):
        publish(rendered(root, "old"), html, stamp)

        def full(*args):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(site.os, "rename", full)
        monkeypatch.setattr(site.shutil, "copytree", full)
        with pytest.raises(OSError, match="No space left"):
            publish(rendered(root, "new"), html, stamp)
        assert everything(html)["index.html"] == b"old"

    @pytest.mark.parametrize("step", range(1, 4))
    def test_what_an_interruption_leaves_is_a_whole_book_again(self, root, html, stamp, monkeypatch, step):
        """Interrupted before the new book is beside the old, before the old leaves, before the new takes its place."""
        publish(rendered(root, "old"), html, stamp)
        steps, rename = iter(range(1, 4)), Path.rename

        def interrupted(do):
            def wrapped(*args):
                if next(steps) == step:
                    raise KeyboardInterrupt
                return do(*args)

            return wrapped

        monkeypatch.setattr(site.os, "rename", interrupted(site.os.rename))
        monkeypatch.setattr(Path, "rename", interrupted(rename))
        with pytest.raises(KeyboardInterrupt):
            publish(rendered(root, "new"), html, stamp)
        recover(html)
        assert everything(html)["index.html"] == b"old"
        assert [path.name for path in html.parent.iterdir()] == ["site"]


class TestStamp:
    """What tells the graph that a folder holds the profile's book."""

    def test_it_holds_for_the_folder_that_was_published(self, root):
        profile, html = Profile("tiny", root), root / "build" / "html"
        publish(rendered(root, "book"), html, stamp_of(profile, html))
        assert stamp_of(profile, html).is_file()
        assert not stamp_of(profile, root / "build" / "check" / "html").is_file()

    @pytest.mark.parametrize("lost", ["the folder", "the marker", "another book in its place"])
    def test_it_goes_when_the_folder_holds_that_book_no_longer(self, root, lost):
        profile, html = Profile("tiny", root), root / "build" / "html"
        publish(rendered(root, "book"), html, stamp_of(profile, html))
        if lost == "the folder":
            shutil.rmtree(html)
        elif lost == "the marker":
            (html / MARKER).unlink()
        else:
            publish(rendered(root, "other"), html, root / "build" / "other-stamp")
        assert not stamp_of(profile, html).is_file()


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"HTML": "o'brien"}, ["--html=o'brien"]),
        ({"HTML": "a b; touch pwned"}, ["--html=a b; touch pwned"]),
        ({"PROFILE": "../../x$$(touch pwned)`touch pwned`"}, ["--profile=../../x$(touch pwned)`touch pwned`"]),
        ({"CORES": "2; touch pwned", "SNAKEMAKE": "--a 'b c'"}, ["--cores=2; touch pwned", "--snakemake=--a 'b c'"]),
        ({"TFLOPS": "1 & touch pwned", "JOBS": '"|"'}, ["--tflops=1 & touch pwned", '--jobs="|"']),
    ],
)
def test_a_variable_of_make_is_one_word_of_the_command_whatever_it_holds(tmp_path, variables, words):
    makefile = Path(__file__).parents[1] / "Makefile"
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/words\n')
    python.chmod(0o755)
    installed = tmp_path / "venv" / "installed"
    installed.touch()
    given = {"VENV": str(tmp_path / "venv"), "INSTALLED": str(installed), **variables}
    command = ["make", "-s", "-f", str(makefile), "book", *(f"{name}={value}" for name, value in given.items())]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert set(words) <= set((tmp_path / "words").read_text().splitlines())
    assert not (tmp_path / "pwned").exists()
