"""An artifact is whole or absent, and its name changes with what made it and with nothing else."""

import errno
import gc
import hashlib
import os
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file

import storage.fingerprints
from storage import (
    Damaged,
    checked_meta,
    claim,
    code_fingerprint,
    digest_of,
    is_complete,
    load_tensors,
    locked,
    places,
    publish,
    read_meta,
    replacing,
    save_tensors,
    spec_hash,
    write_meta,
)

ROOT = Path(__file__).parents[1]


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
    monkeypatch.setattr(storage.fingerprints, "_HOME", tmp_path)

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
    assert code_fingerprint("storage") != code_fingerprint("lib.encoders")
    assert code_fingerprint("storage", "lib.hub") != code_fingerprint("lib.hub", "storage")


def test_threads_may_take_fingerprints_at_once():
    """Python 3.11 mixes the depths of threads that parse, where a collection of garbage lets another thread run."""
    before, let_another_run = gc.get_threshold(), lambda phase, info: time.sleep(0)
    gc.callbacks.append(let_another_run)
    gc.set_threshold(50)
    try:
        with ThreadPoolExecutor(2) as pool:
            assert len(set(pool.map(code_fingerprint, ["storage"] * 8))) == 1
    finally:
        gc.callbacks.remove(let_another_run)
        gc.set_threshold(*before)


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


# digests


TENSORS = {"b": torch.arange(6).view(2, 3), "a": torch.ones(3).half(), "c": torch.tensor(2.5), "d": torch.zeros(0, 4)}


def flipped(path: Path, at: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def test_tensors_come_back_with_their_metadata_and_the_same_ones_give_the_same_bytes(tmp_path):
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    digest = save_tensors(TENSORS, one, {"step": "3"})
    assert digest == digest_of(one) == save_tensors(dict(reversed(TENSORS.items())), two, {"step": "3"})
    assert one.read_bytes() == two.read_bytes()
    for read in (load_tensors(one, digest)[0], load_file(one)):
        assert all(torch.equal(read[name], tensor) for name, tensor in TENSORS.items())
        assert {name: tensor.dtype for name, tensor in read.items()} == {n: t.dtype for n, t in TENSORS.items()}
    assert load_tensors(one)[1]["step"] == "3"


def test_every_flipped_bit_of_a_file_with_tensors_is_noticed(tmp_path):
    whole = tmp_path / "whole.safetensors"
    save_tensors(TENSORS, whole, {"step": "3"})
    for at in range(whole.stat().st_size):
        part = tmp_path / f"{at}.safetensors"
        part.write_bytes(whole.read_bytes())
        flipped(part, at, at % 8)
        with pytest.raises((ValueError, OSError), match=part.name):
            load_tensors(part, digest_of(whole))


@pytest.mark.parametrize("damage", ["empty", "cut short", "zeroed", "longer", "missing", "another's"])
def test_a_damaged_file_is_one_sentence_that_names_it(tmp_path, damage):
    path, other = tmp_path / "x.safetensors", tmp_path / "other.safetensors"
    digest = save_tensors(TENSORS, path)
    save_tensors({"b": torch.ones(2)}, other)
    data = path.read_bytes()
    contents = {"empty": b"", "cut short": data[:-9], "zeroed": bytes(len(data)), "longer": data + b"\0"}
    path.unlink()
    if damage != "missing":
        path.write_bytes({**contents, "another's": other.read_bytes()}[damage])
    with pytest.raises(Damaged, match=r"x\.safetensors is missing or damaged") as caught:
        load_tensors(path, digest)
    assert "\n" not in str(caught.value)


def test_a_file_is_digested_once_a_process_and_again_when_it_changed(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    path.write_text("{}")
    first = digest_of(path)
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("the file was read again"))
        assert digest_of(path) == first
        path.rename(tmp_path / "other.json")
        assert digest_of(tmp_path / "other.json") == first
    (tmp_path / "other.json").write_text("[ ]")
    assert digest_of(tmp_path / "other.json") != first


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_have_the_mode_that_the_umask_gives(tmp_path, umask):
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "x.safetensors") as temporary:
            save_tensors(TENSORS, temporary)
        write_meta(tmp_path, {})
    finally:
        os.umask(before)
    for name in ("x.safetensors", "meta.json"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o666 & ~umask


def test_meta_of_which_a_bit_flipped_is_no_meta(tmp_path):
    write_meta(tmp_path, {"spec": {"k": 20}, "rows": 100, "complete": True})
    whole = (tmp_path / "meta.json").read_bytes()
    for at in range(len(whole)):
        (tmp_path / "meta.json").write_bytes(whole)
        flipped(tmp_path / "meta.json", at, at % 7)
        assert (read_meta(tmp_path) or {"rows": 100})["rows"] == 100
    (tmp_path / "meta.json").write_bytes(whole.replace(b"100", b"900"))
    assert read_meta(tmp_path) is None
    with pytest.raises(Damaged, match=r"meta.json is damaged"):
        checked_meta(tmp_path)


def test_meta_of_an_earlier_version_is_read_unchecked(tmp_path):
    (tmp_path / "meta.json").write_text('{"rows": 3}')
    assert read_meta(tmp_path) == {"rows": 3}


# left by a process that was killed


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path):
    dead, alive = (tmp_path / f".file.{pid}-1.partial" for pid in (dead_pid(), os.getppid()))
    dead.write_text("half")
    alive.write_text("half")
    with replacing(tmp_path / "file") as temporary:
        temporary.write_text("whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [alive.name, "file"]


def test_whoever_claims_a_folder_leaves_alone_what_is_written_for_a_longer_name(tmp_path):
    mine, sibling = (tmp_path / f".{name}.{os.getppid()}-1.partial" for name in ("sae", "sae.v2"))
    for folder in (mine, sibling):
        folder.mkdir()
    claim(tmp_path / "sae", {"hash": "a", "made_by": "test"})
    assert not mine.exists()
    assert sibling.is_dir()


def test_a_folder_whose_process_was_killed_between_two_names_is_found(tmp_path):
    write_meta(tmp_path / f".folder.{dead_pid()}-1.replaced", {"version": 1})
    with pytest.raises(RuntimeError), replacing(tmp_path / "folder"):
        raise RuntimeError
    assert read_meta(tmp_path / "folder") == {"version": 1}


# places


A, B = ({"spec": {"k": k}, "hash": mark * 16, "made_by": "train_sae"} for k, mark in ((8, "a"), (20, "b")))


def make(out: Path, meta: dict, killed: bool = False) -> None:
    with locked([out], "make a thing"):
        if is_complete(out, meta["hash"]):
            return
        place = claim(out, meta)
        if not is_complete(place, meta["hash"]):
            (place / "model.safetensors").write_text(f"k = {meta['spec']['k']}")
            if killed:
                return
            digests = {"model.safetensors": digest_of(place / "model.safetensors")}
            write_meta(place, {**meta, "complete": True, "digests": digests})
        publish(place, out)


def content(folder: Path) -> str:
    return (folder / "model.safetensors").read_text()


def test_the_former_artifact_stays_until_the_one_of_another_spec_is_complete_and_is_kept_beside_it(tmp_path):
    out = tmp_path / "sae"
    make(out, A)
    make(out, B, killed=True)
    assert is_complete(out, A["hash"])
    assert content(out) == "k = 8"
    with pytest.warns(UserWarning, match=rf"kept as sae\.{A['hash']}"):
        make(out, B)
    assert content(out) == "k = 20"
    assert content(tmp_path / f"sae.{A['hash']}") == "k = 8"


def test_asked_for_again_it_is_taken_from_there(tmp_path):
    out = tmp_path / "sae"
    make(out, A)
    with pytest.warns(UserWarning, match="kept as"):
        make(out, B)
    written = (tmp_path / f"sae.{A['hash']}" / "model.safetensors").stat().st_mtime_ns
    with pytest.warns(UserWarning, match="kept as"):
        make(out, A)
    assert is_complete(out, A["hash"])
    assert (out / "model.safetensors").stat().st_mtime_ns == written
    assert is_complete(tmp_path / f"sae.{B['hash']}", B["hash"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [".sae.lock", "sae", f"sae.{B['hash']}"]


def test_killed_between_two_names_the_finished_one_is_found(tmp_path):
    out = tmp_path / "sae"
    make(tmp_path / f"sae.{B['hash']}", B)
    written = (tmp_path / f"sae.{B['hash']}" / "model.safetensors").stat().st_mtime_ns
    make(out, B)
    assert (out / "model.safetensors").stat().st_mtime_ns == written
    assert not (tmp_path / f"sae.{B['hash']}").exists()


def test_a_damaged_artifact_is_made_again_with_a_warning_that_names_the_file(tmp_path):
    make(tmp_path / "sae", A)
    flipped(tmp_path / "sae" / "model.safetensors", 0)
    with pytest.warns(UserWarning, match=r"model.safetensors is missing or damaged.*made again"):
        make(tmp_path / "sae", A)
    assert content(tmp_path / "sae") == "k = 8"


def test_a_folder_with_a_damaged_meta_file_is_set_aside_whole(tmp_path):
    make(tmp_path / "sae", A)
    (tmp_path / "sae" / "meta.json").write_text('{"spec"')
    with pytest.warns(UserWarning, match=r"meta.json is damaged.*moved to .*sae\.damaged"):
        make(tmp_path / "sae", A)
    assert content(tmp_path / "sae") == content(tmp_path / "sae.damaged") == "k = 8"


@pytest.mark.parametrize("name", ["../thesis.pdf", "/"])
def test_a_meta_file_whose_digests_name_files_elsewhere_deletes_none_of_them(name, tmp_path):
    thesis = tmp_path / "thesis.pdf"
    thesis.write_text("years of work")
    make(tmp_path / "sae", A)
    digests = {str(thesis) if name == "/" else name: "0" * 64}
    write_meta(tmp_path / "sae", {**A, "complete": True, "digests": digests})
    with pytest.warns(UserWarning, match=r"meta\.json is damaged.*was moved to"):
        make(tmp_path / "sae", A)
    assert thesis.read_text() == "years of work"
    assert content(tmp_path / "sae") == "k = 8"


@pytest.mark.parametrize("odd", [{"digests": None}, {"digests": [1]}, {"digests": {"x": 5}}])
def test_digests_that_are_none_are_damage(odd, tmp_path):
    make(tmp_path / "sae", A)
    write_meta(tmp_path / "sae", {**A, "complete": True, **odd})
    with pytest.raises(Damaged, match="is damaged"):
        checked_meta(tmp_path / "sae")
    with pytest.warns(UserWarning, match="was moved to"):
        make(tmp_path / "sae", A)


def test_a_file_of_an_earlier_version_that_carries_no_digest_is_no_damage(tmp_path):
    make(tmp_path / "sae", A)
    write_meta(tmp_path / "sae", {**A, "complete": True, "digests": {"model.safetensors": None}})
    assert is_complete(tmp_path / "sae", A["hash"])


@pytest.mark.parametrize("missing", ["hash", "complete"])
def test_a_meta_file_without_an_entry_is_no_finished_artifact(missing, tmp_path):
    make(tmp_path / "sae", A)
    meta = {**A, "complete": True}
    write_meta(tmp_path / "sae", {name: value for name, value in meta.items() if name != missing})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make(tmp_path / "sae", A)
    assert is_complete(tmp_path / "sae", A["hash"])


def test_a_link_to_a_folder_stays_one_and_has_the_folders_lock(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "sae").symlink_to(tmp_path / "disk" / "sae")
    make(tmp_path / "sae", A)
    with pytest.warns(UserWarning, match="kept as"):
        make(tmp_path / "sae", B)
    assert (tmp_path / "sae").is_symlink()
    assert content(tmp_path / "disk" / "sae") == "k = 20"
    assert content(tmp_path / "disk" / f"sae.{A['hash']}") == "k = 8"
    with locked([tmp_path / "sae"], "write"):
        lock = FileLock(tmp_path / "disk" / ".sae.lock")
        with pytest.raises(Timeout):
            lock.acquire(timeout=0)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "shard-00000.safetensors"])
def test_files_that_somebody_else_made_are_not_written_over(tmp_path, name):
    (tmp_path / "sae").mkdir()
    (tmp_path / "sae" / name).write_text("mine")
    with pytest.raises(ValueError, match=f"files that train_sae did not make .{name}"):
        make(tmp_path / "sae", A)
    assert [path.name for path in (tmp_path / "sae").iterdir()] == [name]


def test_a_folder_with_other_things_in_it_is_not_moved(tmp_path):
    make(tmp_path / "sae", A)
    (tmp_path / "sae" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"did not make .thesis.txt"):
        make(tmp_path / "sae", B)
    assert content(tmp_path / "sae") == "k = 8"


def test_an_artifact_of_another_kind_is_not_replaced(tmp_path):
    make(tmp_path / "sae", {**A, "made_by": "extract"})
    with pytest.raises(ValueError, match="another kind of artifact"):
        make(tmp_path / "sae", B)


# locks

HOLD = """
import sys, time
from storage import locked
with locked([sys.argv[1]], "hold"):
    print("held", flush=True)
    time.sleep(60)
"""


def holding(folder: Path) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLD, folder], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_writer_waits_and_says_for_what_and_a_dead_one_holds_no_lock(tmp_path, capsys):
    holder = holding(tmp_path / "sae")
    threading.Timer(0.5, holder.kill).start()
    with locked([tmp_path / "sae"], "train an SAE"):
        assert holder.poll() is not None
    assert f"waiting to train an SAE until another process is done with {tmp_path / 'sae'}" in capsys.readouterr().err
    holder.wait()


def test_where_nothing_can_be_written_that_is_one_sentence(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(places.FileLock, "acquire", refuse)
    with pytest.raises(OSError, match=r"cannot make a thing in .*sae: the folder around it may not be written to"):
        make(tmp_path / "sae", A)
