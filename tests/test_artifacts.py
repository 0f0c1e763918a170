"""An artifact is whole or absent, and its name changes with what made it and with nothing else."""

import errno
import os
from pathlib import Path

import pytest

from lib import artifacts
from lib.artifacts import code_fingerprint, read_meta, replacing, spec_hash, write_meta


def test_the_hash_of_a_spec_does_not_depend_on_the_order_of_its_keys():
    assert spec_hash({"a": 1, "b": {"c": [1, 2], "d": None}}) == spec_hash({"b": {"d": None, "c": [1, 2]}, "a": 1})
    assert len(spec_hash({})) == 16


@pytest.mark.parametrize("other", [{"a": 2}, {"a": "1"}, {"a": True}, {"a": 1, "b": None}, {}])
def test_another_spec_has_another_hash(other):
    assert spec_hash({"a": 1}) != spec_hash(other)


@pytest.mark.parametrize("value", [object(), {1, 2}, float("nan")])
def test_a_spec_that_json_cannot_hold_is_an_error(value):
    with pytest.raises(ValueError, match="JSON"):
        spec_hash({"a": value})


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes the source of a module of lib and takes its fingerprint."""
    monkeypatch.setattr(artifacts, "_LIB", tmp_path)

    def fingerprint(source: str, name: str = "thing") -> str:
        path = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
        return code_fingerprint(name.split(".")[0])

    return fingerprint


CODE = '''"""A module."""


class Thing:
    """A class."""

    def f(self, x):
        """A function."""
        return x + 1  # one more
'''


def test_comments_layout_and_docstrings_do_not_change_a_fingerprint(module):
    before = module(CODE)
    assert module(CODE.replace("  # one more", "")) == before
    assert module(CODE.replace("A function.", "Says more.").replace("A class.", "Says\n\n    more.")) == before
    assert module(CODE.replace("x + 1", "(x\n            + 1)")) == before


@pytest.mark.parametrize(("old", "new"), [("x + 1", "x + 2"), ("def f", "def g"), ("self, x", "self, x=0")])
def test_a_change_of_code_changes_the_fingerprint(module, old, new):
    assert module(CODE) != module(CODE.replace(old, new))


def test_a_package_has_the_fingerprint_of_all_its_modules(module):
    before = module(CODE, "package.one")
    assert module(CODE, "package.two") != before


def test_the_modules_of_lib_have_fingerprints():
    assert code_fingerprint("artifacts") == code_fingerprint("lib.artifacts") != code_fingerprint("models")
    assert code_fingerprint("artifacts", "models") != code_fingerprint("models", "artifacts")


def test_a_module_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="no module 'nothing'"):
        code_fingerprint("nothing")


def test_a_file_takes_its_place_only_when_it_is_whole(tmp_path):
    target = tmp_path / "new" / "file.txt"
    with replacing(target) as temporary:
        temporary.write_text("whole")
        assert not target.exists()
        assert temporary.parent == target.parent
    assert target.read_text() == "whole"


def write_half(target: Path, error: BaseException, is_folder: bool = False) -> None:
    with replacing(target) as temporary:
        if is_folder:
            temporary.mkdir()
        (temporary / "part" if is_folder else temporary).write_text("half")
        raise error


@pytest.mark.parametrize("is_folder", [False, True])
@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_one_in_place_and_nothing_else(tmp_path, is_folder, error):
    target = tmp_path / "kept"
    target.write_text("old")
    with pytest.raises(type(error)):
        write_half(target, error, is_folder)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("kept", "old")]


def test_a_folder_of_somebody_elses_files_is_not_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="no artifact"), replacing(tmp_path) as temporary:
        temporary.mkdir()
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_an_artifact_is_replaced_whole(tmp_path):
    write_meta(tmp_path / "artifact", {"version": 1})
    (tmp_path / "artifact" / "old").write_text("old")
    with replacing(tmp_path / "artifact") as temporary:
        write_meta(temporary, {"version": 2})
    assert [file.name for file in (tmp_path / "artifact").iterdir()] == ["meta.json"]
    assert read_meta(tmp_path / "artifact") == {"version": 2}
    assert [file.name for file in tmp_path.iterdir()] == ["artifact"]


def test_a_full_disk_is_one_sentence(tmp_path):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OSError, match=r"No space left on the disk while writing .*file") as caught:
        write_half(tmp_path / "file", full)
    assert caught.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


def test_meta_comes_back_as_it_was_written(tmp_path):
    meta = {"spec": {"a": [1, None, "ü"]}, "hash": "0", "complete": True}
    write_meta(tmp_path / "artifact", meta)
    assert read_meta(tmp_path / "artifact") == meta
    assert [file.name for file in (tmp_path / "artifact").iterdir()] == ["meta.json"]


@pytest.mark.parametrize("content", [None, "", "{", "[1]", b"\xff\xfe"])
def test_meta_that_cannot_be_read_is_none(tmp_path, content):
    if content is not None:
        (tmp_path / "meta.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert read_meta(tmp_path) is None
    assert read_meta(tmp_path / "nowhere") is None
