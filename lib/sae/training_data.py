"""Training data of SAEs: any source of rows in shuffled batches, and the statistics that all runs of a pass share.

Stores and streams are used directly; tensors, arrays and lists of batches become stores in memory.
"""

import math
import os
from collections.abc import Generator, Sequence, Sized
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lib.activations.store import ActivationStore
from lib.devices import bring, choose_device, to_cpu
from lib.sae.model import SAEConfig
from lib.sae.origin import Origin, Target
from storage import spec_hash


class Activations(Protocol):
    """What the trainer needs of a store or stream: width, rows, the hash of its content, shuffled batches."""

    d: int
    meta: dict

    def __len__(self) -> int: ...

    def batches(self, batch_size: int, seed: int, start: int = 0) -> Generator[Tensor, None, None]:
        """Float batches (batch_size, d) without end, from the `start`-th on."""


def as_activations(data: object) -> Activations:
    """Activations to train on, from any object that holds them.

    A store, a stream or another object with `d`, `meta`, `batches` and a length is returned as it is; a folder is
    opened as a store. A tensor, array or table (rows, d), a list of rows, and a list or DataLoader of batches (rows, d)
    become a store in memory, whose hash is that of their content. Raises ValueError or TypeError for anything else.
    """
    if all(hasattr(data, name) for name in ("d", "meta", "batches", "__len__")):
        return data
    if isinstance(data, str | os.PathLike):
        return ActivationStore.open(Path(data).expanduser())
    if isinstance(data, Tensor) or hasattr(data, "__array__"):
        return _in_memory(data)
    if not isinstance(data, Sized) or not hasattr(data, "__iter__") or isinstance(data, dict | set | bytes):
        raise TypeError(
            "An SAE is trained on a tensor or array (rows, d), an ActivationStore or its folder, an ActivationStream "
            f"or a list of batches, not on {type(data).__name__}."
        )
    parts = list(data)
    try:
        if parts and all(isinstance(part, Tensor | np.ndarray) for part in parts):
            tensors = [to_cpu(part) for part in parts]
            return _in_memory(torch.cat(tensors) if tensors[0].ndim == 2 else torch.stack(tensors))
        return _in_memory(torch.tensor(parts, dtype=torch.float32))
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"The activations in this {type(data).__name__} do not make one matrix (rows, d).") from error


def _in_memory(x: object) -> ActivationStore:
    x = x if isinstance(x, Tensor) else np.asarray(x)
    kind = str(x.dtype).removeprefix("torch.")
    if not kind.startswith(("float", "bfloat", "int", "uint", "bool")):
        raise ValueError(f"Activations to train on are real numbers, and these are of type {kind}.")
    x = to_cpu(x)
    if x.ndim != 2:
        raise ValueError(f"Activations to train on are (rows, d), and these are {tuple(x.shape)}: flatten the tokens.")
    return ActivationStore.from_tensor(x if x.is_floating_point() else x.float())


def batches(store: Activations, config: SAEConfig, start: int, pinned: bool = False) -> Generator[Tensor, None, None]:
    """The training batches from step `start` on, in the config's data order; of a store in its own dtype."""
    draw = partial(store.stored_batches, pinned=pinned) if hasattr(store, "stored_batches") else store.batches
    if config.data_order == "reshuffle":
        yield from draw(config.batch_size, seed=config.data_seed, start=start)
        return
    epoch = max(1, len(store) // config.batch_size)
    while True:
        yield from islice(draw(config.batch_size, seed=config.data_seed, start=start % epoch), epoch - start % epoch)
        start = 0


def require_finite(x: Tensor, step: int) -> None:
    """Raise ValueError where a batch x (B, d) holds NaN or infinity."""
    if not x.isfinite().all():
        raise ValueError(
            f"The activations contain NaN or infinity (batch {step}); extract them again, perhaps in float32."
        )


def geometric_median(x: Tensor, tolerance: float = 1e-5, max_iterations: int = 100) -> Tensor:
    """Point (d,) with the least summed distance to the rows of x (n, d), by Weiszfeld's iteration."""
    guess = x.mean(0)
    for _ in range(max_iterations):
        weights = 1 / torch.linalg.vector_norm(x - guess, dim=1).clamp(min=1e-6)
        previous, guess = guess, weights @ x / weights.sum()
        if torch.linalg.vector_norm(guess - previous) <= tolerance * torch.linalg.vector_norm(guess):
            break
    return guess


class PairedActivations:
    """Activations of two sites, of the same tokens row by row: what a transcoder reads, and what it predicts.

    inputs, targets: as `train_sae` takes them. skip: the transcoder also has a linear map of its input. Raises
    ValueError where the two are known to be of other rows. Its batches are (B, d + target.d).
    """

    def __init__(self, inputs: object, targets: object, skip: bool = False) -> None:
        self.inputs, self.targets = as_activations(inputs), as_activations(targets)
        a, b = ({**part.meta.get("spec", {}), "order": part.meta.get("order")} for part in (self.inputs, self.targets))
        differ = [name for name in ("encoder", "images", "tokens", "seed", "order") if a.get(name) != b.get(name)]
        if len(self.inputs) != len(self.targets) or differ:
            why = f"other {' and '.join(differ)}" if differ else f"{len(self.inputs)} and {len(self.targets)} rows"
            raise ValueError(
                f"A transcoder needs the same tokens at two sites, and these have {why}: extract both at once."
            )
        self.d, self.target = self.inputs.d, Target(self.targets.d, skip)
        of = {"inputs": self.inputs.meta.get("hash"), "targets": self.targets.meta.get("hash"), "skip": skip}
        known = {"hash": spec_hash(of)} if None not in of.values() else {}
        self.meta = {k: v for k, v in self.inputs.meta.items() if k != "hash"} | {
            "target": self.targets.meta.get("site")
        }
        self.meta |= known

    def __len__(self) -> int:
        return len(self.inputs)

    def batches(self, batch_size: int, seed: int, start: int = 0) -> Generator[Tensor, None, None]:
        """Batches (batch_size, d + target.d) without end: a store's order depends on its length and the seed alone."""
        with (
            closing(self.inputs.batches(batch_size, seed, start)) as inputs,
            closing(self.targets.batches(batch_size, seed, start)) as targets,
        ):
            for pair in zip(inputs, targets, strict=True):
                yield torch.cat(pair, dim=1)


def widths(store: Activations) -> list[int]:
    """The width of a store's rows; of a transcoder's, those of its two parts."""
    target = getattr(store, "target", None)
    return [store.d, target.d] if target else [store.d]


def scaled(rows: Tensor, d: int, scales: Sequence[float]) -> list[Tensor]:
    """The parts of a batch, x (B, d) and for a transcoder y (B, target.d), each over its scale."""
    parts = rows.split([d, rows.shape[1] - d], dim=1) if rows.shape[1] > d else [rows]
    return [part / scale for part, scale in zip(parts, scales, strict=False)]


class Setup:
    """What the runs of one data pass share: device, scales of the input and of a target, and where they centre."""

    def __init__(self, store: Activations, config: SAEConfig, device: str) -> None:
        self.d, self.target, self.device = store.d, getattr(store, "target", None), choose_device(device)
        width = sum(widths(store))
        count = min(config.normalization_batches, max(1, len(store) // config.batch_size))
        squares, first = [], None
        with closing(batches(store, config, 0)) as source:
            for step, x in enumerate(islice(source, count if config.normalize else 1)):
                if x.shape[1] != width:
                    raise ValueError(f"The store says width {width}, but its batches have width {x.shape[1]}.")
                x = bring(x, self.device, torch.float32)
                require_finite(x, step)
                first = x if first is None else first
                squares.append([float(part.square().sum(1).mean()) for part in scaled(x, store.d, (1.0, 1.0))])
        self._store, self._rows, self.origin = store, {}, Origin.of(store)
        means = [sum(part) / len(squares) for part in zip(*squares, strict=True)]
        self.scales = [math.sqrt(mean) if config.normalize else 1.0 for mean in means]
        if 0 in self.scales:
            raise ValueError("All activations are zero; there is nothing to learn from them.")
        centres = [geometric_median(part) for part in scaled(first, store.d, self.scales)]
        self.centre, self.b_dec = centres[0], centres[-1]

    def points(self, n: int, least: int | None = None) -> Tensor:
        """n rows of the data (n, d), minus b_dec and in the runs' units, the same for every seed of an SAE.

        Where the data have fewer, all of them, if they are `least` or more. Raises ValueError for too few.
        """
        if self.target:
            raise ValueError(
                "A transcoder's decoder does not begin from rows of its input: take init='random', and another kind "
                "than archetypal."
            )
        n = n if least is None else max(least, min(n, len(self._store)))
        if n > len(self._store):
            raise ValueError(
                f"Training is to begin from {n} rows of the data, and the store has {len(self._store)}: extract more "
                "pictures, or lower `archetypes` or the width."
            )
        if n not in self._rows:
            with closing(self._store.batches(n, seed=0)) as source:
                self._rows[n] = bring(next(source), self.device, torch.float32) / self.scales[0] - self.b_dec
        return self._rows[n]
