"""`python -m storage verify` reads everything and says what is damaged."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from experiments.results import write_results
from lib.sae.model import SAE, SAEConfig
from lib.sae.training import train_sae
from storage import claim, save_tensors
from storage.__main__ import main
from tests.sparse_world import sparse_world

ROOT = Path(__file__).parents[1]
CONFIG = SAEConfig(width=64, k=4, steps=4, batch_size=64)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A profile's folder with a trained SAE, a saved one, one of another spec, an unfinished one, and results."""
    root = tmp_path_factory.mktemp("profile")
    store = sparse_world()
    for k in (3, 4):
        options = {"out": root / "saes" / "sae", "device": "cpu", "progress": False}
        train_sae(store, SAEConfig(width=64, k=k, steps=4, batch_size=64), **options)
    SAE(CONFIG, 16).save(root / "saved")
    place = claim(root / "half", {"spec": {}, "hash": "a" * 16, "made_by": "train_sae"})
    (place / "checkpoint").mkdir()
    save_tensors({"x": torch.ones(3)}, place / "checkpoint" / "state.safetensors")
    write_results(root, "04_example", {"a": 1})
    return root


@pytest.fixture
def root(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "profile"))


def states(root: Path, capsys) -> tuple[int, dict[str, str]]:
    status = main(["verify", str(root)])
    lines = capsys.readouterr().out.splitlines()[:-1]
    return status, {line.split()[0]: line.split()[2] for line in lines}


def test_each_artifact_has_a_line_with_its_state(root, capsys):
    status, found = states(root, capsys)
    kept = next(name for name in found if name.startswith("saes/sae."))
    assert found.pop(kept) == "kept"
    assert found == {
        "half": "unfinished",
        "results/04_example.json": "sound",
        "saes/sae": "sound",
        "saved": "sound",
    }
    assert status == 0


FILES = (
    "saes/sae/model.safetensors",
    "saes/sae/config.json",
    "saes/sae/meta.json",
    "saved/model.safetensors",
    "half/checkpoint/state.safetensors",
    "results/04_example.json",
)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_and_the_status_says_so(root, capsys, name):
    data = bytearray((root / name).read_bytes())
    data[-3] ^= 8
    (root / name).write_bytes(data)
    status = main(["verify", str(root)])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "DAMAGED" in line]
    assert status == 1
    assert name.rpartition("/")[2] in line


def test_it_is_a_command(tmp_path):
    run = [sys.executable, "-m", "storage", "verify"]
    there, missing = (subprocess.run([*run, str(p)], cwd=ROOT, capture_output=True, text=True)
                      for p in (tmp_path, tmp_path / "nowhere"))  # fmt: skip
    assert (there.returncode, there.stdout, there.stderr) == (
        0,
        "0 artifacts, 0 damaged, 0 kept of another spec (0.0 MB).\n",
        "",
    )
    assert missing.returncode == 2
    assert "there is no folder" in missing.stderr
