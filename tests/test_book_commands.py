"""The commands and the Python of README.md and book/*.md run, and do what the text says.

Shell blocks run in a copy of this checkout whose notebooks are cut down to the check of their parameters and one cell
that writes a file. What cannot run here (see ELSEWHERE) is checked to the last word. Python runs with small stand-ins
for what it names, a hub on loopback among them. How many of each is counted at the end of the run.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from huggingface_hub import constants
from torch import nn

from lib.activations.extraction import ActivationStore
from lib.hub import push_sae
from lib.sae.model import SAEConfig
from lib.sae.training import train_sae
from tests.peers.exports import example
from tests.small_hub import TOKEN, SmallHub, serving

ROOT = Path(__file__).resolve().parents[1]
TEXTS = ["README.md", "CONTRIBUTING.md", *sorted(str(file.relative_to(ROOT)) for file in (ROOT / "book").rglob("*.md"))]
COPIED = (
    "book",
    "lib",
    "storage",
    "peers",
    "steering",
    "menagerie",
    "experiments",
    "widgets",
    "profiles",
    "notebooks",
    "Makefile",
    "pyproject.toml",
    "constraints.txt",
)
ELSEWHERE = {  # the beginning of a command -> why it does not run here
    "make book": "builds the book, which another step of make test does",
    "make test": "is what runs this",
    "make lab": "serves until it is stopped",
    "make live": "serves until it is stopped",
    "make serve": "serves until it is stopped",
    "accelerate": "needs several devices",
    "rsync": "needs a cluster",
}
STAND_INS = {  # what a block names -> what is here
    r"\"(hf|open_clip):(?!owner)[\w./-]+\"": '"tiny"',
    r"\"(folder:[^\"]+|imagenet:\w+)\"": '"menagerie:val[:24]"',
    r"\d+\.resid_post\"(?=[,\]])": '7.resid_post"',
    r"steps=\d+": "steps=2",
    r"batch_size=\d+": "batch_size=8",
    r'SAEConfig\("matryoshka", expansion\)': 'SAEConfig("matryoshka", expansion, k=4, steps=2, batch_size=8)',
    r"\(1, 4, 16, 64\)": "(1, 2)",
}


def blocks(language: str) -> list:
    """(text, code) of all blocks in a language."""
    found = []
    for text in TEXTS:
        codes = re.findall(rf"^```{language}\n(.*?)^```", (ROOT / text).read_text(), flags=re.MULTILINE | re.DOTALL)
        found += [pytest.param(code, id=f"{Path(text).stem}-{i}") for i, code in enumerate(codes)]
    return found


def commands(code: str) -> list[str]:
    """The commands of a block, each on one line, with its comment."""
    lines = code.replace("\\\n", " ").splitlines()
    return [line for line in lines if shlex.split(line, comments=True)]


def why_not(command: str) -> str | None:
    """Why a command does not run here; None where it does."""
    return next((why for beginning, why in ELSEWHERE.items() if command.startswith(beginning)), None)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of this checkout, this environment as its .venv, with notebooks that end behind their parameters."""
    copy = tmp_path_factory.mktemp("docs") / "a {k} checkout of Müller"
    copy.mkdir()
    for name in COPIED:
        clone = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        clone(ROOT / name, copy / name)
    (copy / "assets").symlink_to(ROOT / "assets")
    (copy / ".venv").symlink_to(sys.prefix)
    (copy / "build" / "paper").mkdir(parents=True)
    for path in (copy / "notebooks").glob("*.ipynb"):
        nbformat.write(cut_down(nbformat.read(path, as_version=4)), path)
    return copy


def cut_down(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The parameters cell, the check of what was given, and a file in the profile's folder."""
    kept = [cell for cell in notebook.cells if "parameters" in cell.get("metadata", {}).get("tags", [])]
    check = "from pathlib import Path\n\nfrom experiments.parameters import *\n\ncheck_parameters(globals())\n"
    written = "Path(profile_dir, 'made').write_text(repr({n: globals()[n] for n in __annotations__}))"
    imports = nbformat.v4.new_code_cell("from experiments.parameters import *")
    return nbformat.v4.new_notebook(
        cells=[imports, *kept, nbformat.v4.new_code_cell(check + written)], metadata=notebook.metadata
    )


def environment(checkout: Path) -> dict[str, str]:
    """What the commands run in: make finds the environment installed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return os.environ | {"PYTHONPATH": str(checkout), "PATH": path, "MAKEFLAGS": "-- INSTALLED=Makefile"}


@pytest.mark.parametrize("code", blocks("bash"))
def test_every_command_of_a_shell_block_runs_or_is_one_that_is_there(code, checkout, record_property):
    counted = {}
    for command in commands(code):
        why = why_not(command)
        if why is None:
            before = "source .venv/bin/activate\n" if (checkout / ".venv/bin/activate").is_file() else ""
            done = subprocess.run(
                ["bash", "-ec", before + command],
                cwd=checkout,
                env=environment(checkout),
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stdout + done.stderr
        elif command.startswith("make"):
            words = shlex.split(command, comments=True)
            told = subprocess.run(
                ["make", "-n", *words[1:], "INSTALLED=Makefile"], cwd=ROOT, capture_output=True, text=True
            )
            assert told.returncode == 0, told.stderr
            known = re.findall(r"^(\w+)\s*\??=", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
            assert {word.partition("=")[0] for word in words[1:] if "=" in word} <= set(known)
        told = f"commands of the documentation {f'not run: each {why}' if why else 'run'}"
        counted[told] = counted.get(told, 0) + 1
    for what, number in counted.items():
        record_property(what, number)


def test_a_run_of_the_documentation_reads_values_and_keeps_all_in_its_folder(checkout):
    command = [sys.executable, "-m", "book.tools.run", "04", "-p", "expansions", "2,8", "--to", "build/own"]
    subprocess.run(command, cwd=checkout, env=environment(checkout), check=True, capture_output=True)
    assert "'expansions': [2, 8]" in (checkout / "build/own/made").read_text()
    assert not (checkout / "notebooks" / "build").exists()


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub with a dictionary in hf:owner/name/folder at any revision."""
    hub = SmallHub()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with serving(hub) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        push_sae(example(kind="topk"), "owner/name", path="folder")
        hub.repos["owner/name@revision"] = dict(hub.repos["owner/name"])
        yield hub


class SmallVit(nn.Module):
    """In place of timm's models: the twelve blocks of a vision transformer, of width 8."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 16, 16)
        self.blocks = nn.Sequential(*(nn.Linear(8, 8) for _ in range(12)))

    def forward_features(self, pixels):
        patches = self.patch(pixels).flatten(2).transpose(1, 2)  # (N, 196, 8)
        return self.blocks(torch.cat([patches.mean(1, keepdim=True), patches], 1))

    def forward_head(self, tokens, pre_logits=False):
        return tokens[:, 0]

    def forward(self, pixels):
        return self.forward_head(self.forward_features(pixels))


@pytest.mark.parametrize("code", blocks("python"))
def test_every_python_block_runs(code, record_property, tmp_path, monkeypatch, hub):
    for pattern, here in STAND_INS.items():
        code = re.sub(pattern, here, code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("timm.create_model", lambda name, **options: SmallVit())
    store = ActivationStore.from_tensor(torch.randn(64, 16, generator=torch.Generator().manual_seed(0)))
    if "downloads/state.pt" in code:  # what the block says is there
        config = SAEConfig(kind="batchtopk", width=32, k=4, steps=2, batch_size=8)
        folder = Path("build/tiny/saes/7.resid_post/cls/batchtopk-x8-k8-s0-1a2b")
        train_sae(store, config, out=folder, device="cpu", progress=False)
        Path("downloads").mkdir()
        shutil.copy(ROOT / "tests/fixtures/peers/overcomplete/topk_state_dict/sae.pt", "downloads/state.pt")
    exec(compile(code, "block", "exec"), {"__name__": "block", "store": store})
    record_property("Python blocks of the documentation run", 1)
