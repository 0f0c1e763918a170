"""Killed at any moment, run four at a time, or with any bit flipped: numbers are right, or one sentence says why not.

The work runs in forks of the test process, so that a kill costs little; `make test-long` tries far more.
"""

import json
import os
import random
import shutil
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import lib.sae.training
from experiments.results import read_results, write_results
from lib.activations.extraction import ActivationStore, extract
from lib.encoders.encoder import load_encoder
from lib.features.table import FeatureTable
from lib.sae.model import SAE, SAEConfig
from lib.sae.training import train_sae
from storage import write_meta
from tests.made import numbers
from tests.small_images import Pictures
from tests.small_models import open_clip_folder
from tests.sparse_world import sparse_world

SITES = ["1.resid_post", "proj"]
CONFIG = SAEConfig(width=64, k=4, steps=60, batch_size=128, log_every=7, checkpoint_every=5)
TABLE_SAE = SAEConfig(kind="batchtopk", expansion=2, k=4)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    torch.set_num_threads(1)
    return load_encoder(f"open_clip:{open_clip_folder(tmp_path_factory.mktemp('clip'))}", device="cpu")


@pytest.fixture(scope="module")
def works(encoder) -> dict[str, Callable[[Path], object]]:
    """What is killed: each makes its artifacts in a folder."""
    store = sparse_world(2000)
    sae = SAE(TABLE_SAE, encoder.width(SITES[0])).requires_grad_(False)

    def extraction(root: Path, seconds: float = 0.0):
        options = {"batch_size": 4, "shard_images": 4, "workers": 0, "progress": False}
        return extract(encoder, Pictures(40, seconds=seconds), SITES, out=root / "store", **options)

    def training(root: Path):
        return train_sae(store, CONFIG, out=root / "sae", device="cpu", progress=False)

    def table(root: Path):
        options = {"out": root / "table", "batch_size": 4, "workers": 0, "progress": False, "check": False}
        return FeatureTable.compute(encoder, sae, Pictures(40), SITES[0], **options)

    return {"extraction": extraction, "training": training, "feature table": table}


def in_a_fork(work: Callable[[Path], object], root: Path) -> int:
    """The number of a process that does the work, and ends with 0 where it succeeds."""
    pid = os.fork()
    if pid:
        return pid
    try:
        warnings.simplefilter("ignore")
        work(root)
        os._exit(0)
    except BaseException:
        os._exit(1)


@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", ["extraction", "training", "feature table"])
def test_killed_at_random_moments_a_rerun_ends_with_the_same_numbers(name, kills, works, tmp_path, record_property):
    """Each round kills until one run comes through; the moments are spread over the time that a run takes."""
    work, draw, done, early = works[name], random.Random(name), 0, 0
    started = time.perf_counter()
    assert os.waitpid(in_a_fork(work, tmp_path / "whole"), 0)[1] == 0
    seconds, expected = time.perf_counter() - started, numbers(tmp_path / "whole")
    root = tmp_path / "killed"
    while done < kills:
        pid = in_a_fork(work, root)
        time.sleep(draw.uniform(0, seconds))
        os.kill(pid, signal.SIGKILL)
        was_killed = os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        done, early = done + was_killed, early + (not was_killed)
        if not was_killed or draw.random() < 0.3 or done == kills:  # killed several times in a row, or once
            assert os.waitpid(in_a_fork(work, root), 0)[1] == 0
            assert numbers(root) == expected
            shutil.rmtree(root)
        assert early < 4 * kills + 20, "the work ends before it can be killed"
    record_property(f"kills of {name}", done)


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.long)])
def test_four_processes_in_one_folder_make_each_artifact_once(works, rounds, tmp_path, record_property):
    for i in range(rounds):
        whole, root, logs = tmp_path / f"whole-{i}", tmp_path / f"shared-{i}", tmp_path / f"logs-{i}"
        logs.mkdir()
        for work in works.values():
            work(whole)

        def all_of_it(root: Path, logs: Path = logs) -> None:
            steps, advance = [], lib.sae.training.Run.advance
            lib.sae.training.Run.advance = lambda run, x: steps.append(1) or advance(run, x)  # in this process only
            for work in random.Random(os.getpid()).sample(list(works.values()), len(works)):
                work(root)
            (logs / str(os.getpid())).write_text(str(len(steps)))

        pids = [in_a_fork(all_of_it, root) for _ in range(4)]
        assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 4
        assert numbers(root) == numbers(whole)
        assert sorted(int(log.read_text()) for log in logs.iterdir()) == [0, 0, 0, CONFIG.steps]
    record_property("rounds of four processes in one folder", rounds)


FILES = (
    "store/1.resid_post/shard-00003.safetensors",
    "store/1.resid_post/meta.json",
    "store/proj/shard-00000.safetensors",
    "sae/model.safetensors",
    "sae/config.json",
    "sae/meta.json",
    "sae/metrics.jsonl",
    "table/features.safetensors",
    "table/meta.json",
    "results/04_example.json",
)


def said(root: Path) -> dict[str, bytes] | str:
    """What a reader gets out of the artifacts, or the sentence that refuses them."""
    try:
        store = [ActivationStore.open(root / "store" / site) for site in SITES]
        sae, table = SAE.load(root / "sae", "cpu"), FeatureTable.load(root / "table")
        results = read_results(root / "results" / "04_example.json")
    except (ValueError, OSError) as error:
        return str(error)
    tensors = [part for one in store for part in (one[:], one.image_index, one.token_index)]
    tensors += [*sae.state_dict().values(), table.top_images, table.top_values, table.patch_maps]
    tensors += [table.codes.crow_indices(), table.codes.col_indices(), table.codes.values()]
    words = [one.meta["spec"] for one in store], sae.config, sae.history, table.site, table.tokens, table.images_spec
    numbers = b"".join(x.contiguous().numpy().tobytes() for x in tensors)
    return {"numbers": numbers, "words": repr((words, results)).encode()}


@pytest.mark.parametrize("flips", [30, pytest.param(300, marks=pytest.mark.long)])
def test_a_flipped_bit_is_a_sentence_or_changes_nothing(works, flips, tmp_path, record_property):
    whole, draw, refused = tmp_path / "whole", random.Random(flips), 0
    for work in works.values():
        work(whole)
    write_results(whole, "04_example", {"claims": {"a": {"value": 1.25, "low": 1.0, "high": 1.5}}})
    expected = said(whole)
    assert isinstance(expected, dict)
    for i in range(flips):
        root, name = tmp_path / "flipped", FILES[i % len(FILES)]
        shutil.copytree(whole, root)
        data = bytearray((root / name).read_bytes())
        at = draw.randrange(len(data) * 8)
        data[at // 8] ^= 1 << at % 8
        (root / name).write_bytes(data)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = said(root)
        if isinstance(found, str):
            refused += 1
            assert "\n" not in found
            assert Path(name).name in found, f"{name}, bit {at}: {found}"
        else:
            assert found == expected or (name == "sae/metrics.jsonl" and caught), f"{name}, bit {at}"
        shutil.rmtree(root)
    assert refused > flips * 0.8
    record_property("flipped bits", flips)


@pytest.mark.parametrize("damage", ["a shard of another site", "two shards swapped", "a shard twice"])
@pytest.mark.parametrize("finished", [True, False])
def test_shards_in_each_others_place_are_extracted_again(works, damage, finished, tmp_path):
    works["extraction"](tmp_path)
    expected, folder = numbers(tmp_path), tmp_path / "store" / SITES[0]
    first, second = folder / "shard-00001.safetensors", folder / "shard-00002.safetensors"
    if damage == "two shards swapped":
        first.rename(folder / "x")
        second.rename(first)
        (folder / "x").rename(second)
    else:
        shutil.copy(second if damage == "a shard twice" else tmp_path / "store" / "proj" / first.name, first)
    if finished:
        with pytest.raises(ValueError, match="is missing or damaged"):
            ActivationStore.open(folder)
    else:
        (folder / "shard-00009.safetensors").unlink()
        meta = json.loads((folder / "meta.json").read_text())
        write_meta(folder, {key: value for key, value in {**meta, "complete": False}.items() if key != "digests"})
    with pytest.warns(UserWarning, match="shard-0000"):
        works["extraction"](tmp_path)
    assert numbers(tmp_path) == expected
