"""Files that others made: right, or one sentence that names the file; headers first; nothing is waited for."""

import json
import os
import random
import struct

import pytest
import torch
from safetensors.torch import save, save_file

from lib.encoders.open_clip import load_weights
from storage.files import (
    check_archive,
    check_shards,
    inside,
    naming,
    one_sentence,
    ordinary_file,
    quoted,
    read_json,
    read_safetensors,
    refuse_code,
    safetensors_header,
)

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.float16)}
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 1710540580\n"


@pytest.fixture
def weights(tmp_path):
    save_file(TENSORS, tmp_path / "w.safetensors", {"format": "pt"})
    return tmp_path / "w.safetensors"


def test_a_sound_file_is_read_and_its_header_tells_shapes_without_weights(weights):
    shapes, metadata = safetensors_header(weights)
    assert shapes == {"a": ("F32", (2, 3)), "b": ("F16", (4,))}
    assert metadata == {"format": "pt"}
    assert all(torch.equal(tensor, TENSORS[name]) for name, tensor in read_safetensors(weights, {"a": (2, 3)}).items())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (LFS, "pointer of Git LFS"),
        (b"/annex/objects/MD5-s7--0", "pointer of git-annex"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"\0" * 512, "cannot be read"),
        (struct.pack("<Q", 1 << 60) + b"{}", "cannot be read"),
        (struct.pack("<Q", 2) + b"[]", "cannot be read"),
        (save(TENSORS)[:-1], "cannot be read"),
        (save(TENSORS) + b"more", "cannot be read"),
    ],
)
def test_damaged_weights_are_one_sentence_that_names_the_file(weights, content, sentence):
    weights.write_bytes(content)
    for read in (safetensors_header, read_safetensors):
        with pytest.raises(ValueError, match=sentence) as error:
            read(weights)
        assert str(weights) in str(error.value)
        assert len(str(error.value)) < len(str(weights)) + 300


def test_bytes_changed_anywhere_give_the_tensors_or_one_sentence(weights):
    whole, generator = weights.read_bytes(), random.Random(0)
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(generator.choice((1, 4))):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        weights.write_bytes(damaged[: generator.choice((None, generator.randrange(1, len(damaged))))])
        said = ""
        try:
            assert all(isinstance(tensor, torch.Tensor) for tensor in read_safetensors(weights).values())
        except ValueError as error:
            said = str(error)
        assert not said or (str(weights) in said and "\n" not in said)


def test_other_shapes_than_the_settings_ask_for_are_told_before_weights_are_read(weights, monkeypatch):
    monkeypatch.setattr("safetensors.torch.load_file", None)
    with pytest.raises(ValueError, match=r"w.safetensors has a of shape \(2, 3\), and its settings ask for \(9, 9\)"):
        read_safetensors(weights, {"a": (9, 9)})
    with pytest.raises(ValueError, match="lacks the tensor c"):
        read_safetensors(weights, {"c": (1,)})


def test_a_flipped_bit_in_what_torch_saved_is_found_by_its_checksum(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(TENSORS, path)
    check_archive(path)
    blob, bytes_of_a = bytearray(path.read_bytes()), TENSORS["a"].numpy().tobytes()
    blob[blob.index(bytes_of_a) + 2] ^= 1
    path.write_bytes(blob)
    assert not torch.equal(torch.load(path)["a"], TENSORS["a"]), "torch reads it without a word"
    with pytest.raises(ValueError, match=r"weights\.pt is damaged: the checksum of"):
        check_archive(path)
    with pytest.raises(ValueError, match=r"weights\.pt is damaged: the checksum of"):
        load_weights(torch.nn.Linear(1, 1), path)


def test_what_is_no_ordinary_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    for name, sentence in (("pipe.json", "a named pipe"), ("loop", "no path of a file"), ("", "a folder")):
        with pytest.raises(ValueError, match=sentence):
            read_json(tmp_path / name)
    with pytest.raises(ValueError, match="a device"):
        ordinary_file("/dev/zero")
    with pytest.raises(ValueError, match="no path of a file"):
        ordinary_file(tmp_path / ("x" * 300))
    for name in ("gone", "nothing", "pipe.json/below"):
        with pytest.raises(FileNotFoundError, match="there is no file"):
            ordinary_file(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"{", "no valid JSON"),
        (b"\xff\xfe\x00", "no valid JSON"),
        (b"[1]", "a JSON list where settings"),
        (b"[" * 200_000, "nested too deeply|no valid JSON"),
        (b'{"a": ' + b"1" * 10_000 + b"}", "no valid JSON"),
        (LFS, "pointer of Git LFS"),
    ],
)
def test_damaged_settings_are_one_sentence_that_names_the_file(tmp_path, content, sentence):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as error:
        read_json(tmp_path / "config.json")
    assert str(tmp_path / "config.json") in str(error.value)
    assert len(str(error.value)) < len(str(tmp_path)) + 300


def test_settings_that_are_far_too_long_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("storage.files.MOST_JSON_BYTES", 10)
    (tmp_path / "config.json").write_text(json.dumps({"a": list(range(100))}))
    with pytest.raises(ValueError, match="too many for settings"):
        read_json(tmp_path / "config.json")


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "", None, 3, "a\0b", "..\\x"])
def test_a_name_that_leaves_its_folder_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="outside the folder"):
        inside(tmp_path, name)


def test_a_name_in_the_folder_or_below_it_is_its_path(tmp_path):
    assert inside(tmp_path, "a/b.safetensors") == tmp_path / "a" / "b.safetensors"


def test_an_index_names_sound_shards_of_its_own_folder(weights, tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "w.safetensors", "b": "w.safetensors"}}))
    assert check_shards(index) == [weights]
    for weight_map, error in (
        ({"a": "../w.safetensors"}, "outside the folder"),
        ({"a": ["x"]}, "as a file of weights"),
        ({}, "no weight_map"),
        ([1], "no weight_map"),
    ):
        index.write_text(json.dumps({"weight_map": weight_map}))
        with pytest.raises(ValueError, match=error):
            check_shards(index)
    index.write_text(json.dumps({"weight_map": {"a": "missing.safetensors"}}))
    with pytest.raises(FileNotFoundError, match=r"missing\.safetensors"):
        check_shards(index)


def test_code_is_refused_wherever_settings_ask_for_it(tmp_path):
    refuse_code({"a": [1, {"trust_remote_code": False}], "b": None}, "c.json")
    for settings in (
        {"trust_remote_code": True},
        {"model_cfg": {"text_cfg": {"tokenizer_kwargs": {"trust_remote_code": "yes"}}}},
        {"a": [[{"hf_trust_remote_code": 1}]]},
    ):
        with pytest.raises(ValueError, match=r"c\.json asks to run Python code"):
            refuse_code(settings, "c.json")


def test_what_is_quoted_is_short_and_on_one_line():
    assert quoted("a\nb") == r"'a\nb'"
    assert len(quoted("x" * 10_000)) <= 80
    assert len(quoted(list(range(10_000)))) <= 80
    assert one_sentence(ValueError("a\n\x1b[31m  b" + "c" * 1000)).startswith("a ?[31m b")
    assert len(one_sentence(ValueError("c" * 1000))) <= 200
    assert one_sentence(ValueError()) == "ValueError"


def test_errors_of_other_libraries_become_one_sentence_and_those_of_the_disk_keep_their_class(tmp_path):
    path = tmp_path / "file"
    for error in (KeyError("x"), RuntimeError("a\nb"), ValueError("bad"), MemoryError()):
        with pytest.raises(ValueError, match="file cannot be read: "), naming(path):
            raise error
    with pytest.raises(PermissionError, match="file cannot be read"), naming(path):
        raise PermissionError(13, "denied")
    with pytest.raises(ValueError, match=r"^/.*file is odd$"), naming(path):
        raise ValueError(f"{path} is odd")
