"""Several processes make what one makes, and an error in one of them ends all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lib import distributed
from lib.distributed import launch, my_share, on_all_ranks, on_first_rank, same_on_all_ranks
from lib.sae.training import _assigned
from tests.small_models import open_clip_folder

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return open_clip_folder(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def alone(clip, tmp_path_factory) -> Path:
    """What one process makes."""
    out = tmp_path_factory.mktemp("alone")
    run([sys.executable, "-m", "tests.shared_work", clip, out])
    return out


def run(command: list, fails: bool = False) -> str:
    """The output of a process that ends in time."""
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    output = process.stdout + process.stderr
    assert (process.returncode != 0) == fails, output
    return output


def in_a_notebook(function: str, clip: Path, out: Path, fails: bool = False) -> str:
    """Launch two processes from one that has computed with several threads before, as a notebook's kernel has."""
    code = f"""
import sys, torch
from lib.distributed import launch
from tests import shared_work
torch.set_num_threads(2)
torch.randn(1000, 1000) @ torch.randn(1000, 1000)
launch(shared_work.{function}, *sys.argv[1:], processes=2)
"""
    return run([sys.executable, "-c", code, clip, out], fails)


def stored(folder: Path) -> dict[str, bytes]:
    """The stores and weights, byte for byte (the other files of an SAE hold times)."""
    files = [file for file in folder.rglob("*") if file.is_file() and not file.name.endswith(".lock")]
    made = [file for file in files if "store" in file.parts or file.suffix == ".safetensors"]
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(made)}


def test_two_processes_of_a_shell_make_what_one_makes(clip, alone, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    said = run([*launcher, "-m", "tests.shared_work", clip, tmp_path])
    assert "process 0 of 2" in said
    assert "process 1 of 2" in said
    assert len(stored(tmp_path)) == 2 * 7 + 3
    assert stored(tmp_path) == stored(alone)


def test_two_processes_of_a_notebook_make_what_one_makes_though_one_was_killed_before(clip, alone, tmp_path):
    in_a_notebook("die_on_the_second_rank", clip, tmp_path, fails=True)
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("shard-*")}
    assert kept
    in_a_notebook("share", clip, tmp_path)
    assert stored(tmp_path) == stored(alone)
    assert all(file.stat().st_mtime_ns == written for file, written in kept.items())


def test_an_error_in_one_process_ends_all_with_one_sentence(clip, tmp_path):
    output = in_a_notebook("fail_on_the_second_rank", clip, tmp_path, fails=True)
    assert "RuntimeError: process 1 failed: ValueError: cannot read image 17 (picture-17.png)" in output


def test_shares_are_consecutive_disjoint_and_alike_in_length(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    shares = []
    for me in range(3):
        monkeypatch.setattr(distributed, "rank", lambda me=me: me)
        shares.append(my_share(list(range(11))))
    assert [i for share in shares for i in share] == list(range(11))
    assert sorted(map(len, shares)) == [3, 4, 4]


def test_the_most_work_is_assigned_first_and_to_the_least_loaded_worker():
    assert _assigned([0, 1, 2, 3], [1, 8, 4, 2], n_workers=2) == [[1], [2, 3, 0]]
    assert _assigned([1], [1, 8], n_workers=3) == [[1], [], []]


def test_one_process_asks_nobody(monkeypatch):
    monkeypatch.setattr(distributed, "_ranks", lambda: pytest.fail("connected to other processes"))
    assert on_all_ranks(lambda: 3) == [3]
    assert on_first_rank(lambda: 4) == 4
    assert same_on_all_ranks(5, "the number") == 5
    done = []
    launch(done.append, 1, processes=1)
    assert done == [1]


def test_numbers_of_a_scheduler_are_no_launchers(monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "2")
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert "MASTER_ADDR" not in os.environ
