"""What is asked of every embedded model's trainer, and of the files that ship with it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch


def assert_resuming_changes_nothing(trainer: Callable[[Path], object], folder: Path) -> None:
    """A run of `trainer(folder)`, stopped after two steps, saved and resumed, ends and logs as an undisturbed one."""
    trainer(folder / "whole").run()
    half = trainer(folder / "parts")
    for batch in half._batches():
        half._train_step(batch)
        half.step += 1
        if half.step == 2:
            break
    half.save()
    trainer(folder / "parts").run()
    whole, parts = (torch.load(folder / run / "checkpoint.pt", weights_only=True) for run in ("whole", "parts"))
    for name, value in whole["model"].items():
        assert torch.equal(value, parts["model"][name]), name
    logs = [(folder / run / "metrics.jsonl").read_text().splitlines() for run in ("whole", "parts")]
    steps = [[json.loads(row)["step"] for row in log] for log in logs]
    assert steps[0] == steps[1] != []


def assert_card_follows_from(shipped: Path, write_card: Callable[[Path], object], folder: Path) -> None:
    """The card that ships is what `write_card` makes of the files beside it."""
    weights = [path.name for path in shipped.glob("*.safetensors")]
    for name in ("exam.json", "run.json", "training_log.jsonl", *weights):
        shutil.copy(shipped / name, folder)
    write_card(folder)
    assert (folder / "README.md").read_text() == (shipped / "README.md").read_text()
