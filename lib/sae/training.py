"""The training loop of all kinds: data order, learning rate, projection, Adam, thresholds, logs, checkpoints.

The recipe is that of arXiv 2504.02821 and its code: tied initial weights, unit-norm decoder rows whose parallel
gradient is removed, b_dec from the geometric median, inputs of unit mean square, auxiliary loss, clipping, Adam.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lib.activations.store import ActivationStore
from lib.devices import bring, has_fast_bfloat16
from lib.metrics.reconstruction import Reconstruction
from lib.metrics.sparsity import Sparsity
from lib.sae.checkpoints import remove_checkpoint, restore_checkpoint, save_checkpoint
from lib.sae.config import as_configs
from lib.sae.model import SAE, SAEConfig
from lib.sae.objectives import objective_of
from lib.sae.training_data import Activations, Setup, as_activations, batches, require_finite, scaled, widths
from lib.sae.training_log import METRICS, TrainingLog
from storage import (
    claim,
    code_fingerprint,
    digest_of,
    distributed,
    load_if_complete,
    locked,
    meta_head,
    modules_of,
    publish,
)

LR_DIVISORS = {"paper": 125, "code": 625}
"""By `lr_rule`: the learning rate is 16 / (divisor sqrt(F)) in arXiv 2504.02821 and in its code."""


def train_sae(
    store: Activations | Tensor | np.ndarray,
    config: SAEConfig | Sequence[SAEConfig],
    validation: Activations | Tensor | np.ndarray | None = None,
    out: str | os.PathLike | Sequence[str | os.PathLike] | None = None,
    device: str = "auto",
    progress: bool = True,
) -> SAE | list[SAE]:
    """Train one SAE, or one for each of a list of configs from a single pass over the data.

    store, validation: activations (rows, d): a store or its folder, a stream, a tensor, an array, a list of batches; or
    `PairedActivations` of two sites, for a transcoder.
    `out` (a folder per config) makes artifacts: a complete one of the same spec is loaded, a checkpoint is resumed bit
    for bit; an artifact of another spec in the folder stays until this one is complete, and is then kept beside it,
    with its hash in the name. metrics.jsonl gets a line every `log_every` steps, with the validation store's measures
    where one is given. Under `accelerate launch` or `lib.distributed.launch` each process trains some of the configs,
    on the same batches, and returns all SAEs; then `out` is needed.
    Raises ValueError for configs that do not fit the store or each other, and for activations that are not finite.
    """
    store, validation = as_activations(store), None if validation is None else as_activations(validation)
    configs = as_configs(config)
    folders = _folders(out, configs)
    _check(store, configs, validation)
    jobs = [Job(one, folder, _spec(store, one) if folder else {}) for one, folder in zip(configs, folders, strict=True)]
    distributed.same_on_all_ranks([job.spec for job in jobs], "what to train")
    saes = distributed.found_on_all_ranks(lambda: [job.load(device) for job in jobs])
    for job in jobs if saes else ():
        remove_checkpoint(job.folder)  # where the process was killed just after it had finished
    if saes is None:
        with locked([job.folder for job in jobs if job.folder and distributed.rank() == 0], "train an SAE"):
            places = distributed.on_first_rank(lambda: [job.folder and claim(job.folder, job.meta) for job in jobs])
            claimed = [replace(job, folder=place) for job, place in zip(jobs, places, strict=True)]
            saes = _train_missing(claimed, store, validation, device, progress)
            distributed.on_first_rank(
                lambda: [publish(place, job.folder) for job, place in zip(jobs, places, strict=True) if place]
            )
    return saes[0] if isinstance(config, SAEConfig) else saes


@dataclass(frozen=True)
class Job:
    """An SAE to be trained: its config, the folder to make it in (None: in memory only), and its spec in meta.json."""

    config: SAEConfig
    folder: Path | None
    spec: dict

    @property
    def meta(self) -> dict:
        """The head of its meta.json."""
        return meta_head(self.spec, "train_sae")

    def load(self, device: str) -> SAE | None:
        """The SAE where it is finished, of this spec and undamaged, else None."""
        if self.folder is None:
            return None
        return load_if_complete(self.folder, self.meta["hash"], lambda folder: SAE.load(folder, device))


def _train_missing(
    jobs: list[Job], store: Activations, validation: Activations | None, device: str, progress: bool
) -> list[SAE]:
    """Train the SAEs that are not finished, each rank some of them, and return all SAEs."""
    missing = distributed.on_first_rank(lambda: [i for i, job in enumerate(jobs) if job.load("cpu") is None])
    work = [job.config.n_features(store.d) * job.config.steps for job in jobs]
    mine = _assigned(missing, work, distributed.world_size())[distributed.rank()]
    trained: dict[int, SAE] = {}

    def train_mine() -> None:
        setup = Setup(store, jobs[0].config, device)
        runs = [Run(jobs[i].config, setup, jobs[i].folder, jobs[i].spec) for i in mine]
        _train(runs, store, validation, progress and distributed.rank() == 0)
        trained.update((i, run.finish()) for i, run in zip(mine, runs, strict=True))

    distributed.on_all_ranks(train_mine if mine else lambda: None)
    return [trained.get(i) or SAE.load(job.folder, device) for i, job in enumerate(jobs)]


def _assigned(items: list[int], work: list[int], n_workers: int) -> list[list[int]]:
    """Greedily assign items, the most work first, to the least-loaded of n workers: a list for each worker."""
    assigned: list[list[int]] = [[] for _ in range(n_workers)]
    for item in sorted(items, key=lambda i: -work[i]):
        min(assigned, key=lambda worker: sum(work[i] for i in worker)).append(item)
    return assigned


def _folders(out: str | os.PathLike | Sequence | None, configs: list[SAEConfig]) -> list[Path | None]:
    """The folder of each config, None without `out`. Raises ValueError unless there is a different one for each."""
    if out is None and distributed.world_size() > 1:
        raise ValueError("Several processes share what they train through folders: pass `out`, one for each config.")
    if out is None:
        return [None] * len(configs)
    out = [out] if isinstance(out, str | os.PathLike) else out
    folders = [Path(folder).expanduser() for folder in out]
    different = len({os.path.realpath(folder) for folder in folders})
    if not different == len(folders) == len(configs):
        raise ValueError(f"{len(configs)} configs need as many different `out` folders; {different} were given.")
    return folders


def _check(store: Activations, configs: list[SAEConfig], validation: Activations | None) -> None:
    """Raise ValueError for everything that can be known to be wrong before the first step."""
    if not configs:
        raise ValueError("train_sae needs at least one SAEConfig.")
    if len(store) == 0:
        raise ValueError("The activation store is empty; extract activations first.")
    if validation is not None and widths(validation) != widths(store):
        here, there = (" and ".join(map(str, widths(data))) for data in (validation, store))
        raise ValueError(f"The validation activations have width {here}, those to train on {there}.")
    for config in configs:
        objective_of(config.kind)
        if config.input_norm != "none":
            raise ValueError(
                f"An SAE with input_norm {config.input_norm!r} is not trained here; train one with 'none'."
            )
        config.group_ends(config.n_features(store.d))
    for name in ("batch_size", "data_seed", "data_order", "normalize", "normalization_batches"):
        if len({getattr(config, name) for config in configs}) > 1:
            raise ValueError(f"SAEs trained in one data pass must share {name}; train those that differ separately.")


def _spec(store: Activations, config: SAEConfig) -> dict:
    """The spec of the artifact: config, data and code. Settings of logs and checkpoints are not part of it."""
    settings = {
        name: value for name, value in config.to_dict().items() if name not in ("log_every", "checkpoint_every")
    }
    modules = ("model", "config", "selection", "objectives", "training", "training_data", "checkpoints")
    classes = (*type(store).__mro__, ActivationStore, objective_of(config.kind))  # which order the batches, and learn
    code = code_fingerprint(*(f"lib.sae.{module}" for module in modules), *modules_of(*classes))
    if "hash" not in store.meta:
        raise ValueError("Artifacts are named by their data: these activations need a `meta` with a `hash`.")
    return {"config": settings, "data": store.meta["hash"], "code": code}


def _encoder_dtype(config: SAEConfig, device: torch.device) -> torch.dtype:
    if config.encoder_dtype != "auto":
        return getattr(torch, config.encoder_dtype)
    return torch.bfloat16 if device.type == "cpu" and has_fast_bfloat16(device) else torch.float32


class Run:
    """One SAE in training, in the units of the normalised input."""

    def __init__(self, config: SAEConfig, setup: Setup, folder: Path | None, spec: dict | None) -> None:
        self.config, self.setup, self.folder, self.meta = config, setup, folder, meta_head(spec or {}, "train_sae")
        self.step, self.scales = 0, setup.scales
        self.sae = SAE(config, setup.d, setup.target).to(setup.device)
        self.sae.b_dec.data.copy_(setup.b_dec)
        if setup.target:
            self.sae.b_enc.data.copy_(-setup.centre @ self.sae.W_enc.detach())
        self.objective = objective_of(config.kind)(self.sae, _encoder_dtype(config, setup.device))
        self.objective.start(setup.points)
        self.parameters = {name: _as_stored(tensor.data) for name, tensor in self.objective.parameters.items()}
        betas = (config.beta1, config.beta2)
        self.adam = torch.optim.Adam(self.parameters.values(), lr=0.0, betas=betas, fused=True)
        by_rule = 16 / (LR_DIVISORS[config.lr_rule] * math.sqrt(self.sae.n_features))
        self.lr = by_rule if config.lr is None else config.lr
        self.threshold_start = min(config.threshold_start, config.steps // 10)
        averaged = config.steps - self.threshold_start
        self.threshold_beta = min(config.threshold_beta, 1 - 1 / max(1.0, averaged / 10))
        rows = restore_checkpoint(self) if self.folder is not None else []
        self.log = TrainingLog(self.folder, rows)

    def lr_at(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, constant, optional linear decay to 0."""
        warmup = min(self.config.warmup_steps, self.config.steps // 10)
        rate = self.lr * min(1.0, (step + 1) / (warmup + 1))
        if self.config.decay_start is not None and step >= self.config.decay_start:
            rate *= (self.config.steps - step) / max(1, self.config.steps - self.config.decay_start)
        return rate

    def advance(self, x: Tensor) -> None:
        """One step on a batch x (B, d) of the store, of a transcoder (B, d + target.d)."""
        self.objective.backward(*scaled(x, self.sae.d, self.scales))
        self.objective.constrain_gradients()
        for name, parameter in self.objective.parameters.items():
            self.parameters[name].grad = _as_stored(parameter.grad)
        self._clip(x)
        self.adam.param_groups[0]["lr"] = self.lr_at(self.step)
        self.adam.step()
        self.objective.constrain_parameters()
        if self.step >= self.threshold_start:
            self.objective.follow_threshold(self.threshold_beta)
        self.step += 1

    def advance_and_log(self, x: Tensor, validation: Activations | None) -> None:
        """One step on x (B, d), with a line of metrics and a checkpoint where they are due."""
        self.advance(x)
        last = self.step == self.config.steps
        if self.step % self.config.log_every == 0 or last:
            self.write_metrics(validation)
        if self.step % self.config.checkpoint_every == 0 and not last and self.folder is not None:
            save_checkpoint(self)

    def _clip(self, x: Tensor) -> None:
        gradients = [parameter.grad for parameter in self.parameters.values()]
        self.grad_norm = float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients])))
        if not math.isfinite(self.grad_norm):
            require_finite(x, self.step)
            raise ValueError(f"The gradient of step {self.step} is not finite; lower the learning rate ({self.lr:g}).")
        if self.grad_norm > self.config.clip_norm:
            torch._foreach_mul_(gradients, self.config.clip_norm / self.grad_norm)

    def write_metrics(self, validation: Activations | None) -> None:
        """One line of metrics.jsonl on the last batch, and on the validation store."""
        row = {"step": self.step, "samples": self.step * self.config.batch_size, **self.objective.report()}
        row |= {"lr": self.lr_at(self.step - 1), "grad_norm": self.grad_norm}
        row["threshold"] = float(self.sae.threshold.mean())
        if validation is not None:
            row |= {f"val_{name}": value for name, value in evaluate(self.sae, validation, self.scales).items()}
        self.log.write(row)

    def finish(self) -> SAE:
        """The trained SAE, in the units of the store; where there is a folder, it becomes a complete artifact."""
        self.log.close()
        threshold = self.sae.threshold
        if threshold.ndim and (threshold >= 0).any():  # latents that never fired since the average started
            threshold[threshold < 0] = threshold[threshold >= 0].median()
        self.sae.rescale_(self.scales[-1], self.scales[0])
        self.sae.check_finite(f"The SAE after {self.step} steps (learning rate {self.lr:g})")
        self.sae.zero_grad(set_to_none=True)
        self.sae.origin, self.sae.history = self.setup.origin, self.log.rows
        if self.folder is not None:
            log = digest_of(self.folder / METRICS)
            end = dict(zip(("input_scale", "target_scale"), self.scales, strict=False))
            end |= {"seconds": round(self.log.seconds, 1), "log": log}
            self.sae.save(self.folder, {**self.meta, "complete": True, **end})
            remove_checkpoint(self.folder)
        return self.sae.eval()


def _as_stored(matrix: Tensor) -> Tensor:
    """The contiguous view of a tensor that may be stored transposed, which fused Adam would copy at each step."""
    return matrix if matrix.is_contiguous() else matrix.t()


@torch.no_grad()
def evaluate(
    sae: SAE, store: Activations, scales: Sequence[float] = (1.0, 1.0), n_batches: int = 16
) -> dict[str, float]:
    """L0, share of dead latents, explained variance and mse at inference, on up to `n_batches` of store / scale.

    mse is summed over d, as the training loss is. Of a transcoder, explained variance and mse are those of its target.
    """
    size = min(4096, len(store))
    fit, sparsity = Reconstruction(), Sparsity()
    with closing(store.batches(size, seed=0)) as source:
        for x in islice(source, min(n_batches, len(store) // size)):
            x, *others = scaled(bring(x, sae.W_enc, sae.W_enc.dtype), sae.d, scales)
            codes = sae.encode_sparse(x)
            fit.update(others[0] if others else x, sae.decode(codes, x))
            sparsity.update(codes)
    sparse, found = sparsity.compute(), fit.compute()
    shared = {"l0": sparse["l0"], "dead": sparse["dead"], "explained_variance": found["explained_variance"]}
    return shared | {"mse": found["mse"] * sae.W_dec.shape[1]}


def _train(runs: list[Run], store: Activations, validation: Activations | None, progress: bool) -> None:
    """Feed every batch to each run that has not done it yet."""
    start, end = min(run.step for run in runs), max(run.config.steps for run in runs)
    name = "SAE" if len(runs) == 1 else f"{len(runs)} SAEs"
    device = runs[0].setup.device
    widest_first = sorted(runs, key=lambda run: -run.sae.n_features)
    with (
        closing(batches(store, runs[0].config, start, pinned=device.type == "cuda")) as source,
        side_by_side(runs) as each,
        tqdm(total=end, initial=start, desc=name, unit="step", mininterval=1, disable=not progress) as bar,
    ):
        for step in range(start, end):
            distributed.stop_if_another_failed()
            x = bring(next(source), device, torch.float32)
            due = [run for run in widest_first if run.step == step < run.config.steps]
            each(lambda run, x=x: run.advance_and_log(x, validation), due)
            bar.update()


@contextmanager
def side_by_side(runs: list[Run]) -> Iterator[Callable[[Callable[[Run], None], list[Run]], None]]:
    """Yield `each(function, runs)`; on a CPU each SAE runs in its own thread, faster than sharing each product."""
    threads = torch.get_num_threads()
    workers = min(len(runs), threads) if runs[0].setup.device.type == "cpu" else 1
    if workers == 1:
        yield lambda function, due: [function(run) for run in due]
        return
    torch.set_num_threads(threads // workers)
    try:
        with ThreadPoolExecutor(workers) as pool:
            yield lambda function, due: list(pool.map(function, due))
    finally:
        torch.set_num_threads(threads)
