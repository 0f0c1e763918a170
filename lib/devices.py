"""Devices: functions take tensors on any device and bring them to the device on which they compute.

An SAE, an encoder and a store each compute on their own device. What feeds pandas, numpy or plotly is on the CPU.
Nothing else in this project moves tensors between devices.
"""

import inspect
import re
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from storage.distributed import local_gpu
from storage.files import quoted

AT_ONCE = 1 << 23
"""Numbers of a temporary table in memory at a time: 32 MB in float32."""

Home = torch.device | str | Tensor | nn.Module
"""A device, or something that lies on one: the device of a module is that of its first parameter or buffer."""


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """The device of that name; "auto" is CUDA, else MPS, else the CPU. Raises ValueError for an unknown name."""
    if device == "auto":
        device = local_gpu() or ("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        return torch.device(device)
    except RuntimeError:
        raise ValueError(f"there is no device {quoted(device)}: write auto, cpu, mps, cuda or cuda:0") from None


def rows_at_once(numbers: int) -> int:
    """How many rows of so many numbers fit into `AT_ONCE`; at least one."""
    return max(1, AT_ONCE // max(1, numbers))


def home_of(where: Home) -> torch.device:
    """The device on which a tensor or a module lies; the CPU for a module without tensors."""
    if isinstance(where, nn.Module):
        where = next(iter((*where.parameters(), *where.buffers())), torch.empty(0))
    return where.device if isinstance(where, Tensor) else torch.device(where)


_WITHOUT_FLOAT64 = {"mps"}


def has_float64(device: torch.device) -> bool:
    """Whether a device computes in float64. If not, tensors are moved as float32 and metrics run on the CPU."""
    return device.type not in _WITHOUT_FLOAT64


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 in hardware. A CPU without AMX takes ten times as long as in float32."""
    return device.type != "cpu" or torch.cpu._is_amx_tile_supported()


def bring(x: Any, home: Home, dtype: torch.dtype | None = None) -> Tensor:
    """x (a tensor, a numpy array, a pandas column or nested lists) on the device of `home`, as `dtype` if one is given.

    A tensor that is there already is returned as it is. Copies from pinned memory are asynchronous. Values are copied
    in the smaller of both dtypes; float64 becomes float32 on a device that has no float64.
    """
    if hasattr(x, "__array__") and not isinstance(x, Tensor):
        x = np.require(x, requirements="W")  # torch shares memory with writable arrays only
        x = x.astype(x.dtype.newbyteorder("="), copy=False)
        x = x if all(stride >= 0 for stride in x.strides) else x.copy()
    x = x if isinstance(x, Tensor) else torch.as_tensor(x)
    dtype, home = dtype or x.dtype, home_of(home)
    dtype = torch.float32 if dtype == torch.float64 and not has_float64(home) else dtype
    x = x.to(dtype) if dtype.itemsize < x.dtype.itemsize else x
    return x.to(home, non_blocking=x.device.type == "cpu" and x.is_pinned()).to(dtype)


def to_cpu(x: Any) -> Tensor:
    """x on the CPU, detached from the autograd graph: for tables, plots and files."""
    return bring(x.detach() if isinstance(x, Tensor) else x, "cpu")


def to_numpy(x: Any) -> np.ndarray:
    """x as a numpy array: a tensor on any device, or anything that `np.asarray` takes."""
    return to_cpu(x).numpy() if isinstance(x, Tensor) else np.asarray(x)


def check_finite(x: Tensor, name: str, unknown: bool = False) -> None:
    """Raise ValueError where x, dense or sparse CSR, holds NaN or infinity; `name` is what the message calls it.

    unknown: allow NaN, which marks missing values.
    """
    values = x.values() if x.layout == torch.sparse_csr else x
    if values.layout == torch.strided and values.is_floating_point() and values.numel():
        least, most = values.aminmax()  # both are NaN where one value is, and no copy is made
        if bool(least.isfinite() & most.isfinite()) or (unknown and not bool(values.isinf().any())):
            return
        what = "infinity" if unknown else "NaN or infinity"
        raise ValueError(f"{name} holds {what}, so results from it would be meaningless: check what made it.")


_OPERAND = re.compile(r"(<class ')?(torch\.)?Tensor\b")


def metric(*, unknown: tuple[str, ...] = (), on: str | None = None) -> Callable[[Callable], Callable]:
    """Decorator of a metric: its tensor arguments may be on any device, and its results are on the CPU.

    Arguments annotated `Tensor` may be tensors on different devices, numpy arrays or lists: they are brought to the
    device of the first of them, or to the device `on`. They must be finite, except those named in `unknown`, where NaN,
    but not infinity, marks missing values. No autograd graph is built.
    """

    def decorate(function: Callable) -> Callable:
        signature = inspect.signature(function)
        operands = [name for name, of in signature.parameters.items() if _OPERAND.match(str(of.annotation))]

        @wraps(function)
        def measured(*args, **kwargs):
            given, home = signature.bind(*args, **kwargs), on
            for name in operands:
                if given.arguments.get(name) is not None:
                    home = home or _measuring_device(given.arguments[name])
                    given.arguments[name] = bring(given.arguments[name], home)
                    check_finite(given.arguments[name], name, name in unknown)
            with torch.no_grad():
                return _results_to_cpu(function(*given.args, **given.kwargs))

        return measured

    return decorate


def _measuring_device(x: Any) -> torch.device:
    """The device of x; the CPU where x is not a tensor, or its device has no float64."""
    home = home_of(x) if isinstance(x, Tensor) else torch.device("cpu")
    return home if has_float64(home) else torch.device("cpu")


def _results_to_cpu(result: Any) -> Any:
    """The result with its tensors on the CPU; a tuple, named or not, is converted element by element."""
    if isinstance(result, tuple):
        parts = [_results_to_cpu(part) for part in result]
        return type(result)(*parts) if hasattr(result, "_fields") else tuple(parts)
    return to_cpu(result) if isinstance(result, Tensor) else result


def choose_dtype(dtype: str | torch.dtype | None, usual: torch.dtype) -> torch.dtype:
    """The dtype of that name, `usual` for None. Raises ValueError unless it is float32, bfloat16 or float16."""
    chosen = usual if dtype is None else getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if chosen not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"the dtype of a model is 'float32', 'bfloat16' or 'float16', not {quoted(dtype)}")
    return chosen
