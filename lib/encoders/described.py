"""Descriptions of a user's functions (transform, embed), for the fingerprint of an encoder made of them."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import CodeType, FunctionType, MethodType

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from lib.devices import to_cpu


def output_digest(transform: Callable[[Image.Image], Tensor]) -> str:
    """Digest of a transform's output for a test picture. Raises ValueError for a random transform."""
    first, second = (transform(_test_picture()) for _ in range(2))
    if not torch.equal(first, second):
        raise ValueError("transform= is random: give the preprocessing of evaluation, which is always the same")
    return _digest(first.float())


def described(function: object) -> str:
    """Text that describes a function, equal in every process: code, constants, defaults, closure and globals it reads.

    An `nn.Module` is described by its structure, without its weights (see `modules_in`); an import only by its name.
    """
    return " ".join(str(part) for part in _parts(function, set()))


def modules_in(function: object) -> list[nn.Module]:
    """The `nn.Module`s that a function uses: itself, bound, in its closure, globals or partial arguments."""
    return [part for part in _parts(function, set()) if isinstance(part, nn.Module)]


def _parts(thing: object, seen: set[int]) -> Iterator[str | nn.Module]:
    """The constituents of an object, depth first and each once: modules, and text for everything else."""
    if isinstance(thing, nn.Module):
        yield thing
    elif isinstance(thing, Tensor | np.ndarray):
        yield _digest(thing)
    elif isinstance(thing, str | bytes | int | float | complex | slice | range | np.generic | None):
        yield repr(thing)
    elif id(thing) not in seen:
        seen.add(id(thing))
        yield getattr(thing, "__qualname__", type(thing).__qualname__)
        for part in _held(thing):
            yield from _parts(part, seen)


def _held(thing: object) -> Iterator[object]:
    """The objects directly inside another one."""
    match thing:
        case list() | tuple():
            yield from thing
        case Mapping():
            yield from (part for item in thing.items() for part in item)
        case CodeType():
            yield from (thing.co_code, thing.co_names, thing.co_consts)
        case FunctionType():
            yield from (thing.__code__, thing.__defaults__, thing.__kwdefaults__)
            yield from (cell.cell_contents for cell in thing.__closure__ or ())
            yield from _globals_read_by(thing)
        case MethodType():
            yield from (thing.__func__, thing.__self__)
        case partial():
            yield from (thing.func, thing.args, thing.keywords)
        case _ if not isinstance(thing, type):
            yield from (type(thing).__dict__.get("__call__"), getattr(thing, "__dict__", None))
            slots = (name for kind in type(thing).__mro__ for name in np.atleast_1d(getattr(kind, "__slots__", ())))
            yield from (getattr(thing, str(name), None) for name in slots)


def _globals_read_by(function: FunctionType) -> Iterator[object]:
    """Names and values of the globals that a function's code reads, except imported modules, functions and classes."""
    codes, names = [function.__code__], set()
    while codes:
        code = codes.pop()
        names |= set(code.co_names)
        codes += [const for const in code.co_consts if isinstance(const, CodeType)]
    for name in sorted(names & set(function.__globals__)):
        value = function.__globals__[name]
        own = getattr(value, "__module__", None) == function.__module__
        if isinstance(value, nn.Module | Tensor | np.ndarray | str | int | float | list | tuple | dict) or (
            own and isinstance(value, FunctionType)
        ):
            yield name
            yield value


def _digest(values: Tensor | np.ndarray) -> str:
    values = to_cpu(values).contiguous().reshape(-1)
    return hashlib.sha256(values.view(torch.uint8).numpy().tobytes()).hexdigest()


def _test_picture() -> Image.Image:
    """Colours that run across the picture, so that resizing, cropping and normalising all show."""
    bands = [Image.linear_gradient("L"), Image.linear_gradient("L").rotate(90), Image.radial_gradient("L")]
    return Image.merge("RGB", bands).resize((120, 90))
