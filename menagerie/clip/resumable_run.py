"""Base of the resumable training runs of embedded models on a pool of Menagerie pictures."""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from lib.devices import bring, choose_device, has_fast_bfloat16
from menagerie.clip.pool import PicturePool
from storage import replacing
from storage.files import check_archive


@dataclass(frozen=True)
class RunPlan:
    """Settings of one run; a checkpoint can be resumed by a plan that differs in `steps` only."""

    steps: int = 4000
    """Optimisation steps in all."""
    batch_size: int = 256
    """Pictures a step."""
    learning_rate: float = 1e-3
    """Rate of AdamW after `warmup` steps; constant, then falling linearly to 0."""
    warmup: int = 200
    """Steps of linear warm-up."""
    decay: float = 0.25
    """Share of the steps, at the end, over which the rate falls to 0."""
    weight_decay: float = 0.05
    """AdamW's decay of matrices; biases, norms and the logit scale have none."""
    cls_weight: float = 0.5
    """Weight of the helper heads on the CLS token."""
    patch_weight: float = 1.0
    """Weight of the helper heads on the patch tokens."""
    average: float = 0.998
    """Decay of the running average of the weights; the average is what gets saved."""
    shift: int = 6
    """Pictures are moved by up to this many pixels in each direction."""
    seed: int = 0
    """Seed of the initial weights and of the order of pictures."""

    def rate(self, step: int) -> float:
        """Learning rate at a step."""
        left = (self.steps - step) / max(self.decay * self.steps, 1)
        return self.learning_rate * min(1.0, (step + 1) / max(self.warmup, 1), left)


class TrainingRun(ABC):
    """One training run in a folder; resumes from a checkpoint there.

    `model` is averaged and saved, `heads` are auxiliary and only trained. The folder gets `checkpoint.pt`,
    `metrics.jsonl` and, at every checkpoint, the averaged weights as `write_weights` lays them out. Which pictures a
    step sees depends only on the plan's seed and the step.
    """

    def __init__(
        self, pool: PicturePool, plan: RunPlan, folder: Path, model: nn.Module, heads: nn.Module, device: str = "auto"
    ):
        self.pool, self.plan, self.folder, self.device = pool, plan, Path(folder), choose_device(device)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.model, self.heads = model.to(self.device), heads.to(self.device)
        self.optimizer = self._optimizer()
        self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.step = 0
        self._resume()

    @abstractmethod
    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The loss's summands by name, weights included; called under bfloat16 autocast where that is fast."""

    @abstractmethod
    def write_weights(self) -> None:
        """Write the averaged weights into the folder."""

    def batch(self, step: int) -> dict[str, Tensor]:
        """The batch of a step: shifted `pixels` and labels, as `PicturePool.gather` returns them."""
        arrays = self.pool.gather(self.indices(step))
        arrays["pixels"] = shifted(arrays["pixels"], self.plan.shift, self.rng(step))
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def indices(self, step: int) -> np.ndarray:
        """Positions in the pool of a step's pictures: each epoch in another order, (batch_size,)."""
        size = self.plan.batch_size
        epoch, position = divmod(step, len(self.pool) // size)
        order = np.random.default_rng([self.plan.seed, epoch]).permutation(len(self.pool))
        return order[position * size : (position + 1) * size]

    def rng(self, step: int, purpose: int = 0) -> np.random.Generator:
        """The random generator of a step for one purpose, the same after a resumption."""
        return np.random.default_rng([self.plan.seed, step, purpose])

    def _optimizer(self) -> torch.optim.Optimizer:
        parameters = self._parameters()
        groups = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": self.plan.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.plan.learning_rate, betas=(0.9, 0.98), fused=True)

    def _parameters(self) -> list[nn.Parameter]:
        return [*self.model.parameters(), *self.heads.parameters()]

    def _resume(self) -> None:
        path = self.folder / "checkpoint.pt"
        if not path.is_file():
            return
        check_archive(path)
        state = torch.load(path, map_location=self.device, weights_only=True)
        if {**state["plan"], "steps": self.plan.steps} != asdict(self.plan):
            raise ValueError(f"{path} was made with another plan, {state['plan']}: use that plan or another folder.")
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average, self.step = state["average"], state["step"]
        self._cut_log()

    def _cut_log(self) -> None:
        """Drop log rows after the checkpoint: those steps run again."""
        log = self.folder / "metrics.jsonl"
        if not log.is_file():
            return
        kept = [row for row in log.read_text(encoding="utf-8").splitlines() if json.loads(row)["step"] <= self.step]
        with replacing(log) as temporary:
            temporary.write_text("".join(f"{row}\n" for row in kept), encoding="utf-8")

    def save(self) -> None:
        """Write the checkpoint and the averaged weights."""
        state = {
            "plan": asdict(self.plan),
            "step": self.step,
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
        }
        with replacing(self.folder / "checkpoint.pt") as temporary:
            torch.save(state, temporary)
        self.write_weights()

    def run(self, save_every: int = 200, log_every: int = 20) -> Path:
        """Train up to `plan.steps`; returns the folder."""
        started, first = time.time(), self.step
        bar = tqdm(total=self.plan.steps, initial=self.step, desc="training", mininterval=5)
        with open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as log:
            for batch in self._batches():
                losses = self._train_step(batch)
                self.step += 1
                bar.update()
                if self.step % log_every == 0 or self.step == self.plan.steps:
                    speed = (self.step - first) * self.plan.batch_size / (time.time() - started)
                    log.write(json.dumps({"step": self.step, **losses, "pictures_per_second": round(speed, 1)}) + "\n")
                    log.flush()
                if self.step % save_every == 0 or self.step == self.plan.steps:
                    self.save()
        bar.close()
        return self.folder

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        with ThreadPoolExecutor(1) as reader:  # the next batch is read during the step
            coming = None
            for step in range(self.step, self.plan.steps):
                batch = coming or reader.submit(self.batch, step)
                coming = reader.submit(self.batch, step + 1)
                yield batch.result()

    def _train_step(self, batch: dict[str, Tensor]) -> dict[str, float]:
        batch = {name: bring(value, self.device) for name, value in batch.items()}
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate(self.step)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=has_fast_bfloat16(self.device)):
            losses = self.losses(batch)
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(self._parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            decay = min(self.plan.average, (1 + self.step) / (10 + self.step))
            for name, value in self.model.state_dict().items():
                self.average[name].lerp_(value, 1 - decay)
        return {name: loss.item() for name, loss in losses.items()}


def shifted(pixels: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """Move each picture (B, H, W, 3) by up to `most` pixels, its border repeated."""
    height, width = pixels.shape[1:3]
    dx, dy = rng.integers(-most, most + 1, size=(2, len(pixels)))
    rows = np.clip(np.arange(height) + dy[:, None], 0, height - 1)
    columns = np.clip(np.arange(width) + dx[:, None], 0, width - 1)
    return pixels[np.arange(len(pixels))[:, None, None], rows[:, :, None], columns[:, None, :]]
