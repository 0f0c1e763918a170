"""Places of sites in a model, read and edited by hooks that act only in the thread that registered them.

Several threads may run one model at once, as when a widget answers while a notebook runs. So nothing in the model is
replaced, and a hook leaves the forward passes of other threads alone.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

Visit = Callable[[Tensor], Tensor | None]
"""Function of values (B, T, d); a tensor that it returns replaces them."""


def in_this_thread(hook: Callable[..., Any]) -> Callable[..., Any]:
    """The hook, limited to the forward passes of the calling thread."""
    thread = threading.get_ident()
    return lambda *args, **options: hook(*args, **options) if threading.get_ident() == thread else None


class AllRead(Exception):
    """Raised inside the forward pass once every wanted site was read, so that nothing after it runs."""


@dataclass(frozen=True)
class Place:
    """The output of a module, or its input (`is_input`): a tensor, or a tuple that begins with one.

    layout: "tokens" (B, T, d); "maps" (B, d, h, w) whose positions are the tokens, row by row; "maps, channels last"
    (B, h, w, d). changes: the model may change the tensor in place afterwards, as `ReLU(inplace=True)` does.
    """

    module: nn.Module
    is_input: bool = False
    layout: Literal["tokens", "maps", "maps, channels last"] = "tokens"
    changes: bool = False

    def watch(self, visit: Visit, first: bool = False) -> RemovableHandle:
        """Call `visit` in each pass of this thread until the handle is removed; first: before all other hooks."""

        def visited(given: Tensor | tuple) -> Tensor | tuple | None:
            value = given[0] if isinstance(given, tuple) else given
            changed = visit(self._tokens(value))
            if changed is None:
                return None
            changed = self._in_layout_of(value, changed)
            return (changed, *given[1:]) if isinstance(given, tuple) else changed

        if self.is_input:
            hook = in_this_thread(lambda module, inputs: visited(inputs))
            return self.module.register_forward_pre_hook(hook, prepend=first)
        hook = in_this_thread(lambda module, inputs, output: visited(output))
        return self.module.register_forward_hook(hook, prepend=first)

    @contextmanager
    def replaced_by(self, values: Tensor) -> Iterator[None]:
        """Context in which the model continues from `values` (B, T, d) here, whatever it has computed."""
        handle = self.watch(lambda value: values)
        try:
            yield
        finally:
            handle.remove()

    def _tokens(self, value: Tensor) -> Tensor:
        if self.layout == "tokens":
            return value
        return value.flatten(2).transpose(1, 2) if self.layout == "maps" else value.flatten(1, 2)

    def _in_layout_of(self, value: Tensor, values: Tensor) -> Tensor:
        if self.layout == "tokens":
            return values
        if self.layout == "maps":
            return values.transpose(1, 2).reshape(len(values), -1, *value.shape[2:])
        return values.reshape(len(values), *value.shape[1:3], -1)


@contextmanager
def reading(places: Mapping[str, Place], values: dict[str, Tensor], done: AllRead | None) -> Iterator[None]:
    """Context that fills `values` with {name: (B, T, d) float32} in a pass; when all are read, `done` ends the pass.

    With autograd, the pass continues from the values that were read, so that gradients reach them.
    """

    def reader(name: str, place: Place):
        def read(value: Tensor) -> Tensor | None:
            kept = value.float()
            values[name] = kept = kept.clone() if place.changes and kept.dtype == value.dtype else kept
            if done is not None and len(values) == len(places):
                raise done
            return kept.to(value.dtype, copy=place.changes) if kept.requires_grad else None

        return read

    handles = [place.watch(reader(name, place)) for name, place in places.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
