"""What an SAE is trained on: stores and streams as they are; tensors, arrays and lists of batches made into stores."""

import os
from collections.abc import Generator, Sized
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lib.devices import to_cpu
from lib.stores import ActivationStore


class Activations(Protocol):
    """What the trainer asks of a store or stream: width, rows, the hash that names its content, shuffled batches."""

    d: int
    meta: dict

    def __len__(self) -> int: ...

    def batches(self, batch_size: int, seed: int, start: int = 0) -> Generator[Tensor, None, None]:
        """Float batches (batch_size, d) without end, from the `start`-th on."""


def as_activations(data: object) -> Activations:
    """Activations to train on, from whatever holds them.

    A store, a stream or another object with `d`, `meta`, `batches` and a length is returned as it is; a folder is
    opened as a store. A tensor or array (rows, d), a list of rows, and a list or DataLoader of batches (rows, d) become
    a store in memory, whose hash is that of their content. Raises ValueError or TypeError in one sentence.
    """
    if all(hasattr(data, name) for name in ("d", "meta", "batches", "__len__")):
        return data
    if isinstance(data, str | os.PathLike):
        return ActivationStore.open(Path(data).expanduser())
    if isinstance(data, Tensor | np.ndarray):
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


def _in_memory(x: Tensor | np.ndarray) -> ActivationStore:
    x = to_cpu(x)
    if x.ndim != 2:
        raise ValueError(f"Activations to train on are (rows, d), and these are {tuple(x.shape)}: flatten the tokens.")
    return ActivationStore.from_tensor(x if x.is_floating_point() else x.float())
