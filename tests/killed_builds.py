"""Kill a build, or the run of one notebook, and see what it leaves. Their notebooks make real artifacts."""

import fcntl
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import psutil

from tests.made import numbers
from tests.small_book import lay_out, notebook, write_profile, write_stub
from tests.small_images import Pictures

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
PATIENCE = {"top": 120.0, "below": 600.0}  # seconds until all has gone; what loses a process below may end by itself
EXTRACT = """
from pathlib import Path
import numpy as np
import torch
from lib.activations.extraction import extract
from lib.encoders.encoder import from_module
torch.manual_seed(0)
layers = torch.nn.Conv2d(3, 24, 8, stride=8), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
to_tensor = lambda image: torch.from_numpy(np.asarray(image.resize((32, 32)), np.float32) / 255).permute(2, 0, 1)
encoder = from_module(torch.nn.Sequential(*layers), {"0.resid_post": "0"}, to_tensor)
out, options = Path(profile_dir, "artifacts"), {"workers": 0, "progress": False, "batch_size": 4}
site = "0.resid_post"
store = extract(encoder, "folder:../pictures", site, "all", out, shard_images=4, **options)[site]
print(float(store[:].double().sum()))
"""
TRAIN = """
from lib.sae.model import SAEConfig
from lib.sae.training import train_sae
config = SAEConfig(expansion=4, k=n, steps=60, batch_size=64, log_every=7, checkpoint_every=5)
sae = train_sae(store, config, out=out / f"sae {n}", device="cpu", progress=False).requires_grad_(False)
print(float(sae.W_dec.double().sum()))
"""
TABLE = """
from lib.features.table import FeatureTable
from experiments.results import write_results
table = FeatureTable.compute(encoder, sae, "folder:../pictures", site, "all", out=out / "table", **options)
print(write_results(profile_dir, "b", {"value": float(table.top_values.double().sum())}).read_text())
"""
NOTEBOOKS = {"a": (EXTRACT, TRAIN), "b": (EXTRACT, TRAIN.replace("n}", "n + 1}").replace("k=n", "k=n + 1"), TABLE)}


@dataclass
class Book:
    """A small project: `a` and `b` at once extract the same activations and train, then `b` makes a table of features.

    `command` makes it; `whole`: what was made without a kill; `seconds`: how long that took; `killed`: what was.
    """

    folder: Path
    command: tuple[str, ...]
    whole: dict[str, bytes] = field(default_factory=dict)
    seconds: float = 0.0
    killed: str = ""

    @classmethod
    def laid_out(cls, folder: Path, root: Path, *command: str) -> "Book":
        lay_out(folder, root)
        shutil.rmtree(folder / "lib")
        for name in ("lib", "steering", "peers", "storage"):
            (folder / name).symlink_to(root / name)
        shutil.copy(root / "pyproject.toml", folder)  # the entry points that lib/registry.py reads
        for name in ("cover", "vendor", "render"):
            write_stub(folder, name)
        for name in ("a", "b", "c"):
            (folder / "notebooks" / f"{name}.ipynb").unlink()
        for name, cells in NOTEBOOKS.items():
            nbformat.write(notebook(*cells), folder / "notebooks" / f"{name}.ipynb")
        write_profile(folder, {name: {} for name in NOTEBOOKS})
        (folder / "pictures").mkdir()
        for i in range(40):
            Pictures()[i].save(folder / "pictures" / f"{i}.png")
        book = cls(folder, command)
        started = time.monotonic()
        book.finish()
        book.seconds, book.whole = time.monotonic() - started, book.made()
        return book

    def made(self) -> dict[str, bytes]:
        """Everything below build/, byte for byte, but for logs, what says when it was made, and Snakemake's notes."""
        build = self.folder / "build"
        found = {name: content for name, content in numbers(build).items() if not name.startswith("tiny/notebooks")}
        found |= self._executed()
        passing = ("tiny/logs/", "tiny/rendered", "html/.monosemantic", "snakemake", ".running/queue")
        return {name: content for name, content in found.items() if not name.startswith(passing)}

    def finish(self) -> None:
        """Run it to the end."""
        command = [sys.executable, "-m", *self.command]
        ended = subprocess.run(command, cwd=self.folder, env=self._environment(), capture_output=True, text=True)
        assert ended.returncode == 0, ended.stdout + ended.stderr

    def start_again(self) -> None:
        """As if nothing had been made."""
        for name in ("build", ".snakemake"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def kill(self, draw: random.Random) -> str:
        """Start it, kill it at some moment, and see that nothing of it stays; says what was killed, "" for nothing.

        Mostly the process that a reader started ("top"); else one of those that came of it ("below").
        """
        (self.folder / "build").mkdir(exist_ok=True)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        top = subprocess.Popen([sys.executable, "-m", *self.command], cwd=self.folder, env=self._environment(), **quiet)
        started = time.monotonic()
        with suppress(subprocess.TimeoutExpired):
            top.wait(draw.uniform(0.2, self.seconds))
            self.seconds = time.monotonic() - started  # the machine has become quicker
        if top.poll() is not None:
            return ""
        below = psutil.Process(top.pid).children(recursive=True)
        which = "top" if not below or draw.random() < 0.75 else "below"
        with suppress(psutil.NoSuchProcess):
            victim, number = psutil.Process(top.pid) if which == "top" else draw.choice(below), draw.choice(SIGNALS)
            self.killed = f"{number.name} for {' '.join(victim.cmdline())[:120]}"
            victim.send_signal(number)
        end = time.monotonic() + PATIENCE[which]
        while top.poll() is None or self.at_work():
            assert time.monotonic() < end, f"a process outlives {self.killed}"
            time.sleep(0.1)
        self._see_what_stands()
        return which

    def at_work(self) -> list[psutil.Process]:
        """Processes that work in the project's folder."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(self.folder):
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def _executed(self) -> dict[str, bytes]:
        """What the executed notebooks say."""
        said = {}
        for path in self.folder.glob("build/tiny/notebooks/*.ipynb"):
            cells = nbformat.read(path, as_version=4).cells
            outputs = [output for cell in cells for output in cell.get("outputs", ())]
            said[path.name] = repr(
                [output.get("text") for output in outputs if output.get("name") != "stderr"]
            ).encode()
        return said

    def _see_what_stands(self) -> None:
        """Asserts that every lock can be taken, and that notebooks and pages are whole or not there."""
        for lock in self.folder.rglob(".*lock"):
            assert _comes_free(lock), f"{lock} is held after {self.killed}"
        assert self._executed().items() <= self.whole.items()
        html = self.folder / "build" / "html"
        assert not html.exists() or (html / "index.html").is_file()

    def _environment(self) -> dict[str, str]:
        quick = {
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(self.folder / "code"),
        }
        return os.environ | {"PYTHONPATH": str(self.folder)} | quick


def _comes_free(lock: Path, seconds: float = 10) -> bool:
    """Whether a lock can be taken: at once, or as soon as the last thread of a process that is a zombie has ended."""
    end = time.monotonic() + seconds
    with lock.open("a") as file:
        while time.monotonic() < end:
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            time.sleep(0.05)
    return False
