"""One contract for devices: whatever is called on a tensor brings it to its own home and answers there.

A dictionary, an encoder and a store each have a home. What feeds pandas, numpy or plotly is on the CPU.
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

from lib.distributed import local_gpu
from lib.files import quoted

Home = torch.device | str | Tensor | nn.Module
"""A device, or something that lies on one: a module is at home where its first parameter or buffer is."""


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """The device of that name; "auto" is CUDA, else MPS, else the CPU. Raises ValueError for no name of one."""
    if device == "auto":
        device = local_gpu() or ("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        return torch.device(device)
    except RuntimeError:
        raise ValueError(f"there is no device {quoted(device)}: write auto, cpu, mps, cuda or cuda:0") from None


def home_of(where: Home) -> torch.device:
    """The device on which a tensor or a module lies; the CPU for a module without tensors."""
    if isinstance(where, nn.Module):
        where = next(iter((*where.parameters(), *where.buffers())), torch.empty(0))
    return where.device if isinstance(where, Tensor) else torch.device(where)


_WITHOUT_FLOAT64 = {"mps"}


def has_float64(device: torch.device) -> bool:
    """Whether a device computes in float64. Where it does not, tensors travel as float32 and metrics use the CPU."""
    return device.type not in _WITHOUT_FLOAT64


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 in hardware. A CPU without AMX takes ten times as long as in float32."""
    return device.type != "cpu" or torch.cpu._is_amx_tile_supported()


def bring(x: Any, home: Home, dtype: torch.dtype | None = None) -> Tensor:
    """x (a tensor, a numpy array, a pandas column or nested lists) on the device of `home`, as `dtype` if one is given.

    A tensor that is there already is returned as it is. What comes from pinned memory is not waited for. The numbers
    travel in the smaller of both types; float64 becomes float32 on a device that has none.
    """
    if hasattr(x, "__array__") and not isinstance(x, Tensor):
        x = np.require(x, requirements="W")  # torch shares what it may write to
        x = x.astype(x.dtype.newbyteorder("="), copy=False)
        x = x if all(stride >= 0 for stride in x.strides) else x.copy()
    x = x if isinstance(x, Tensor) else torch.as_tensor(x)
    dtype, home = dtype or x.dtype, home_of(home)
    dtype = torch.float32 if dtype == torch.float64 and not has_float64(home) else dtype
    x = x.to(dtype) if dtype.itemsize < x.dtype.itemsize else x
    return x.to(home, non_blocking=x.device.type == "cpu" and x.is_pinned()).to(dtype)


def to_cpu(x: Any) -> Tensor:
    """x on the CPU, off the graph: what tables, plots and files are made of."""
    return bring(x.detach() if isinstance(x, Tensor) else x, "cpu")


def to_numpy(x: Any) -> np.ndarray:
    """x, a tensor on any device or what numpy makes an array of, as an array."""
    return to_cpu(x).numpy() if isinstance(x, Tensor) else np.asarray(x)


def check_finite(x: Tensor, name: str, unknown: bool = False) -> None:
    """Raise ValueError where x, dense or sparse CSR, holds NaN or infinity; `name` is what the message calls it.

    unknown: NaN may be there, for what is not known.
    """
    values = x.values() if x.layout == torch.sparse_csr else x
    if values.layout == torch.strided and values.is_floating_point() and values.numel():
        least, most = values.aminmax()  # both are NaN where one value is, and no copy is made
        if bool(least.isfinite() & most.isfinite()) or (unknown and not bool(values.isinf().any())):
            return
        what = "infinity" if unknown else "NaN or infinity"
        raise ValueError(f"{name} holds {what}, so its figures would mean nothing: check what made it.")


_OPERAND = re.compile(r"(<class ')?(torch\.)?Tensor\b")


def metric(*, unknown: tuple[str, ...] = (), on: str | None = None) -> Callable[[Callable], Callable]:
    """Decorate a function, or a method, that measures tensors: the contract above, at the door of every metric.

    Arguments annotated `Tensor` may be tensors on different devices, numpy arrays or lists: they meet on the device of
    the first of them, or `on` that one, and what is returned is on the CPU. They must be finite, but for those named in
    `unknown`, where NaN, but not infinity, means that nothing is known. Nothing is differentiated.
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
                return _answered(function(*given.args, **given.kwargs))

        return measured

    return decorate


def _measuring_device(x: Any) -> torch.device:
    """Where x lies; the CPU for what is no tensor, and where there is no float64."""
    home = home_of(x) if isinstance(x, Tensor) else torch.device("cpu")
    return home if has_float64(home) else torch.device("cpu")


def _answered(found: Any) -> Any:
    """Tensors on the CPU, alone or in a tuple, named or not."""
    if isinstance(found, tuple):
        parts = [_answered(part) for part in found]
        return type(found)(*parts) if hasattr(found, "_fields") else tuple(parts)
    return to_cpu(found) if isinstance(found, Tensor) else found


def choose_dtype(dtype: str | torch.dtype | None, usual: torch.dtype) -> torch.dtype:
    """The precision of that name, `usual` for None. Raises ValueError for others than a model runs in."""
    dtype = usual if dtype is None else getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError("the dtype of a model is 'float32', 'bfloat16' or 'float16'")
    return dtype
