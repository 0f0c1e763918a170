"""One contract for devices: whatever is called on a tensor brings it to its own home and answers there.

A dictionary, an encoder and a store each have a home. What feeds pandas, numpy or plotly is on the CPU.
Nothing else in this project moves tensors between devices.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lib.distributed import local_gpu

Home = torch.device | str | Tensor | nn.Module
"""A device, or something that lies on one: a module is at home where its first parameter or buffer is."""


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """The device of that name; "auto" is CUDA, else MPS, else the CPU."""
    if device == "auto":
        device = local_gpu() or ("mps" if torch.backends.mps.is_available() else "cpu")
    return torch.device(device)


def home_of(where: Home) -> torch.device:
    """The device on which a tensor or a module lies; the CPU for a module without tensors."""
    if isinstance(where, nn.Module):
        where = next(iter((*where.parameters(), *where.buffers())), torch.empty(0))
    return where.device if isinstance(where, Tensor) else torch.device(where)


def bring(x: Any, home: Home, dtype: torch.dtype | None = None) -> Tensor:
    """x (a tensor, a numpy array or nested lists, any shape) on the device of `home`, as `dtype` if one is given.

    A tensor that is there already is returned as it is. What comes from pinned memory is not waited for.
    """
    if isinstance(x, np.ndarray) and not x.flags.writeable:
        x = x.copy()
    x = x if isinstance(x, Tensor) else torch.as_tensor(x)
    return x.to(home_of(home), dtype or x.dtype, non_blocking=x.device.type == "cpu" and x.is_pinned())


def to_cpu(x: Any) -> Tensor:
    """x on the CPU, off the graph: what tables, plots and files are made of."""
    return bring(x.detach() if isinstance(x, Tensor) else x, "cpu")
