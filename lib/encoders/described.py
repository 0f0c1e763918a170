"""What the functions of an encoder depend on, so that its fingerprint tells them apart."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import CodeType, FunctionType, MethodType

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from lib.devices import to_cpu


def what_it_makes(transform: Callable[[Image.Image], Tensor]) -> str:
    """Digest of what a transform makes of one picture. Raises ValueError for a random one."""
    first, second = (transform(_test_picture()) for _ in range(2))
    if not torch.equal(first, second):
        raise ValueError("transform= is random: give the preprocessing of evaluation, which is always the same")
    return _digest(first.float())


def described(function: object) -> str:
    """Code, constants, defaults and what a function closes over, in words that are the same in every process.

    Of modules the structure is described; their weights are those of `modules_in`. Global names count by name alone.
    """
    return " ".join(str(part) for part in _parts(function, set()))


def modules_in(function: object) -> list[nn.Module]:
    """The modules that a function holds: itself, or what it is bound to, closes over or was given beforehand."""
    return [part for part in _parts(function, set()) if isinstance(part, nn.Module)]


def _parts(thing: object, seen: set[int]) -> Iterator[str | nn.Module]:
    """What a thing is made of, from the outside in; each once."""
    if isinstance(thing, nn.Module):
        yield thing
    elif isinstance(thing, Tensor | np.ndarray):
        yield _digest(thing)
    elif isinstance(thing, str | bytes | int | float | complex | None):
        yield repr(thing)
    elif id(thing) not in seen:
        seen.add(id(thing))
        yield getattr(thing, "__qualname__", type(thing).__qualname__)
        for part in _held(thing):
            yield from _parts(part, seen)


def _held(thing: object) -> Iterator[object]:
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
        case MethodType():
            yield from (thing.__func__, thing.__self__)
        case partial():
            yield from (thing.func, thing.args, thing.keywords)
        case _ if not isinstance(thing, type):
            yield from (type(thing).__dict__.get("__call__"), getattr(thing, "__dict__", None))


def _digest(values: Tensor | np.ndarray) -> str:
    values = to_cpu(values).contiguous().reshape(-1)
    return hashlib.sha256(values.view(torch.uint8).numpy().tobytes()).hexdigest()


def _test_picture() -> Image.Image:
    """Colours that run across the picture, so that resizing, cropping and normalising all show."""
    bands = [Image.linear_gradient("L"), Image.linear_gradient("L").rotate(90), Image.radial_gradient("L")]
    return Image.merge("RGB", bands).resize((120, 90))
