"""An activation store gives back its rows: in order, by index, and shuffled over the whole of it."""

import json
import re
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lib.activations import store as stores
from lib.activations.store import ActivationStore, activations_folder, endless_shuffle, shuffled
from storage import write_meta
from storage.files import read_safetensors


@pytest.fixture
def rows() -> torch.Tensor:
    return torch.randn(100, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["memory", "float16", "bfloat16", "float32"])
def store(request, rows, tmp_path) -> ActivationStore:
    """The rows in memory, or on disk in three shards of different length."""
    if request.param == "memory":
        return ActivationStore.from_tensor(rows)
    return on_disk(tmp_path, rows.to(getattr(torch, request.param)))


def on_disk(folder, rows: torch.Tensor, sizes=(33, 0, 20, 47)) -> ActivationStore:
    shards, start = [], 0
    for i, size in enumerate(sizes):
        index = torch.arange(start, start + size).int()
        part = {"activations": rows[start : start + size].clone(), "image_index": index, "token_index": index * 0}
        save_file(part, folder / f"shard-{i}.safetensors")
        shards.append({"file": f"shard-{i}.safetensors", "rows": size})
        start += size
    meta = {"site": "1.resid_post", "tokens": "cls", "d": rows.shape[1], "rows": start, "shards": shards}
    write_meta(folder, {**meta, "complete": True, "hash": "0" * 16})
    return ActivationStore.open(folder)


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == torch.float32 and a.shape == b.shape and torch.allclose(a, b, rtol=1e-2, atol=1e-3)


def test_rows_come_back_by_slice_number_mask_and_index(store, rows):
    assert store.shape == (len(store), store.d) == (100, 6)
    assert close(store[:], rows)
    assert close(store[20:70:3], rows[20:70:3])
    assert close(store[5], rows[5])
    assert close(store[-1], rows[-1])
    index = torch.tensor([99, 0, 33, 32, 33, 52, 53])
    assert close(store[index], rows[index])
    assert close(store[index.numpy()], rows[index])
    assert close(store[[3, -2]], rows[[3, -2]])
    assert close(store[index[2]], rows[33])
    assert close(store[rows[:, 0] > 0], rows[rows[:, 0] > 0])
    assert store[:0].shape == store[[]].shape == (0, 6)


def test_every_row_knows_its_image(store):
    assert store.image_index.tolist() == list(range(100))
    assert len(store.token_index) == 100


def test_a_row_beyond_the_end_is_an_error(store):
    with pytest.raises(IndexError, match="100 rows"):
        store[torch.tensor([100])]


@pytest.mark.parametrize(
    "chosen", [torch.ones(3, dtype=torch.bool), [True, False], 1.5, [0.2, 3.9], "a", None, [[1, 2]]]
)
def test_what_chooses_no_rows_is_refused_in_a_sentence(store, chosen):
    with pytest.raises(IndexError, match="chosen by integers, a slice or a mask of its 100 rows, not by "):
        store[chosen]


def test_an_epoch_of_batches_holds_every_row_once_and_the_next_in_another_order(rows):
    store = ActivationStore.from_tensor(torch.arange(100.0)[:, None])
    first, second = (torch.cat(list(islice(store.batches(20, seed=0, start=s), 5)))[:, 0] for s in (0, 5))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(100))
    assert not torch.equal(first, second)
    assert not torch.equal(first, first.sort().values)


def test_batches_are_shuffled_over_the_whole_store():
    store = ActivationStore.from_tensor(torch.arange(100_000.0)[:, None])
    batch = next(store.batches(4096))[:, 0]
    assert abs(batch.mean().item() / 100_000 - 0.5) < 0.02
    assert batch.min() < 500
    assert batch.max() > 99_500
    assert torch.corrcoef(torch.stack([batch, torch.arange(4096.0)]))[0, 1].abs() < 0.06


@pytest.mark.parametrize("batch_size", [1, 7, 100, 250])
def test_batches_can_be_entered_at_any_step(store, monkeypatch, batch_size):
    monkeypatch.setattr(stores, "BLOCK_ROWS", 64)
    expected = list(islice(store.batches(batch_size, seed=3), 40))
    assert all(batch.shape == (batch_size, 6) for batch in expected)
    for start in (0, 1, 13, 39):
        assert torch.equal(next(store.batches(batch_size, seed=3, start=start)), expected[start])


def test_another_seed_gives_another_order(store):
    assert not torch.equal(next(store.batches(50, seed=0)), next(store.batches(50, seed=1)))


def test_the_disk_does_not_change_the_order(rows, tmp_path):
    a, b = ActivationStore.from_tensor(rows), on_disk(tmp_path, rows)
    assert torch.equal(next(a.batches(30, seed=2)), next(b.batches(30, seed=2)))


def test_no_batch_size_below_one(store):
    with pytest.raises(ValueError, match=r"an integer of at least 1 \(rows\)"):
        next(store.batches(0))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 17, 64, 1000, 4097])
def test_the_shuffle_is_a_permutation(n):
    assert sorted(shuffled(np.arange(n), n, seed=5)) == list(range(n))


def test_the_shuffle_treats_all_places_alike():
    where = np.stack([shuffled(np.arange(8), 8, seed) for seed in range(4000)])  # (seeds, 8)
    counts = np.stack([np.bincount(column, minlength=8) for column in where.T])
    assert (np.abs(counts - 500) < 5 * np.sqrt(500)).all()
    follows = np.mean(np.diff(where, axis=1) == 1)
    assert follows == pytest.approx(7 / 56, abs=0.01)


def test_any_part_of_the_endless_shuffle_is_the_same_as_in_the_whole():
    whole = endless_shuffle(0, 1000, 90, seed=1)
    assert np.array_equal(endless_shuffle(333, 400, 90, seed=1), whole[333:733])


def test_scale_and_mean_are_those_of_the_rows(store, rows):
    assert store.rms() == pytest.approx(rows.square().mean().sqrt().item(), rel=1e-2)
    assert close(store.mean(), rows.mean(dim=0))
    assert store.sample(10).shape == (10, 6)
    assert len(store.sample(10).unique(dim=0)) == 10


def test_a_store_in_memory_is_addressed_by_its_content(rows):
    a, b, c = (ActivationStore.from_tensor(x).meta["hash"] for x in (rows, rows.clone(), rows + 1))
    assert a == b != c


def test_a_tensor_with_a_token_dimension_is_an_error():
    with pytest.raises(ValueError, match=r"shape \(rows, d\)"):
        ActivationStore.from_tensor(torch.zeros(2, 3, 4))


def test_tensors_of_a_file_are_mapped_and_what_is_written_to_them_stays_in_memory(tmp_path):
    tensors = {"activations": torch.randn(5, 3).half(), "image_index": torch.arange(5).int()}
    path = tmp_path / "x.safetensors"
    save_file(tensors, path)
    before = path.read_bytes()
    mapped = read_safetensors(path)
    assert str(path) in Path("/proc/self/maps").read_text()
    assert all(torch.equal(mapped[name], tensor) for name, tensor in tensors.items())
    mapped["activations"].zero_()
    assert path.read_bytes() == before


def test_notebooks_find_each_others_activations_by_images_and_tokens():
    folder = activations_folder("build/tiny", "menagerie:train[:20000]", "random:2")
    assert re.fullmatch(r"build/tiny/activations/menagerie-train-20000-[0-9a-f]{8}/random-2", folder.as_posix())
    assert folder == activations_folder("build/tiny", "menagerie:train[:20000]", "random:2")
    assert folder != activations_folder("build/tiny", "menagerie:val[:20000]", "random:2")


@pytest.mark.parametrize(
    "specs",
    [
        ("folder:birds/train", "folder:birds-train", "folder:birds_train", "folder:birds//train"),
        ("folder:\U0001f426", "folder:\U0001f989", "folder:"),
        ("folder:a b", "folder:a/b", "folder:a  b"),
        ("folder:caf\u00e9", "folder:cafe\u0301", "folder:caf\udce9", "folder:caf"),
        ("folder:" + "a/" * 3000, "folder:" + "a/" * 3001, "folder:" + "\u00e9" * 300),
        ("folder:A", "folder:a"),
    ],
)
def test_other_pictures_have_another_folder_of_a_name_that_every_file_system_takes(tmp_path, specs):
    folders = {activations_folder(tmp_path, spec, "cls") for spec in specs}
    assert len({str(folder).lower() for folder in folders}) == len(specs)
    for folder in folders:
        folder.mkdir(parents=True)
        assert folder.parent.name.isascii()
        assert len(folder.parent.name) <= 50


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="run extract first"):
        ActivationStore.open(tmp_path / "nothing")


def test_an_unfinished_store_is_never_read(rows, tmp_path):
    on_disk(tmp_path, rows)
    meta = json.loads((tmp_path / "meta.json").read_text())
    write_meta(tmp_path, {**meta, "complete": False})
    with pytest.raises(ValueError, match="not finished: run extract again"):
        ActivationStore.open(tmp_path)


@pytest.mark.parametrize("damage", ["missing", "cut short", "garbage"])
def test_a_damaged_shard_is_an_error_that_names_it(rows, tmp_path, damage):
    on_disk(tmp_path, rows)
    shard = tmp_path / "shard-2.safetensors"
    data = shard.read_bytes()
    shard.unlink()
    if damage != "missing":
        shard.write_bytes(data[: len(data) // 2] if damage == "cut short" else b"x" * 100)
    with pytest.raises(ValueError, match=r"shard-2.safetensors is missing or damaged"):
        ActivationStore.open(tmp_path)


def test_shards_of_different_width_are_an_error(rows, tmp_path):
    on_disk(tmp_path, rows)
    part = {
        "activations": torch.zeros(20, 7),
        "image_index": torch.zeros(20).int(),
        "token_index": torch.zeros(20).int(),
    }
    save_file(part, tmp_path / "shard-2.safetensors")
    with pytest.raises(ValueError, match="one width"):
        ActivationStore.open(tmp_path)
