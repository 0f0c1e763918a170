"""The same work on the CPU and on CUDA, and whether it gives the same."""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch

REAL = torch.cuda.is_available()
EMULATED = not REAL and sys.platform == "linux"
TOLERANCE = 1e-5  # in float32, relative and absolute


@contextlib.contextmanager
def cuda_device() -> Iterator[None]:
    """While it lasts there is a CUDA device, a real one or the emulated one; skips the test where there can be none."""
    if REAL:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # float32 means float32 here
        yield
    elif EMULATED:
        from tests.emulated_cuda import emulated_cuda

        with emulated_cuda():
            yield
    else:
        pytest.skip("no CUDA here, and the emulated device replaces a table inside of libc10.so: it is for Linux")


@contextlib.contextmanager
def without_float64() -> Iterator[None]:
    """While it lasts the emulated device refuses float64, as Apple's GPUs do; what needs it goes to the CPU."""
    if not EMULATED:
        yield
        return
    with patch("lib.devices._WITHOUT_FLOAT64", {"cuda"}), patch("tests.emulated_cuda.REFUSED", {torch.float64}):
        yield


def same_on_both(work: Callable[[str], Any], on_a_gpu: float = 1e-4, emulated: float = TOLERANCE) -> Any:
    """Do the work with the argument "cpu" and with "cuda", and compare what it returns; returns what CUDA gave.

    A real GPU adds up in another order than a CPU: there the tolerance is `on_a_gpu`.
    """
    here = work("cpu")
    with cuda_device():
        there = work("cuda")
        assert_same(here, there, on_a_gpu if REAL else emulated)
    return there


def assert_same(here: Any, there: Any, tolerance: float = TOLERANCE) -> None:
    """Compare tensors on any device, arrays, tables, numbers and what holds them, wherever they lie."""
    assert type(here) is type(there) or isinstance(here, torch.Tensor)
    for one, other in zip(_parts(here), _parts(there), strict=True):
        if isinstance(one, np.ndarray) and one.dtype.kind == "f":
            np.testing.assert_allclose(other, one, rtol=tolerance, atol=tolerance)
        else:
            np.testing.assert_array_equal(other, one)


def _parts(x: Any) -> Iterator[Any]:
    """What x is made of, as arrays and plain values."""
    if isinstance(x, torch.Tensor):
        yield (x.to_dense() if x.layout == torch.sparse_csr else x).detach().cpu().float().numpy()
    elif isinstance(x, pd.DataFrame):
        yield from _parts({name: x[name].to_numpy() for name in x})
    elif isinstance(x, Mapping):
        yield from (part for key in x for part in (key, *_parts(x[key])))
    elif isinstance(x, list | tuple):
        yield from (part for item in x for part in _parts(item))
    elif dataclasses.is_dataclass(x):
        yield from (part for field in dataclasses.fields(x) for part in _parts(getattr(x, field.name)))
    elif isinstance(x, float):
        yield np.array(x)
    else:
        yield x


def devices(x: Any) -> set[str]:
    """Where the tensors in x lie."""
    if isinstance(x, torch.Tensor):
        return {x.device.type}
    if isinstance(x, Mapping):
        return set().union(*map(devices, x.values()))
    if isinstance(x, list | tuple):
        return set().union(*map(devices, x))
    if dataclasses.is_dataclass(x):
        return devices([getattr(x, field.name) for field in dataclasses.fields(x)])
    return set()
