"""`Tower`, the interface to a model that the rest of lib uses, and clear errors where a model cannot be loaded."""

import copy
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor, nn

from lib.encoders.site_places import Place
from storage.downloads import plain_errors
from storage.files import one_sentence

Loaded = TypeVar("Loaded")
_LOADING = threading.RLock()

KINDS = ("attn_out", "mlp_in", "mlp_act", "mlp_out", "resid_post")
"""Kinds of sites in a layer, in the order of the forward pass."""


class Tower(ABC):
    """A model with what lib needs to know of it: where its blocks are, which tokens they carry, how it embeds.

    Attributes: `model` the original module; `blocks` its transformer blocks; `branches` the names of a block's modules
    whose outputs attention and MLP add to the residual stream, layer scale included; `d_model`, `d_embed`; `grid`
    (h, w) of the patches; `n_prefix` tokens stand before the patches, the first is CLS if `has_cls`, the others
    (registers, a distillation token) are neither CLS nor spatial; `transform` PIL -> (3, H, W), picklable;
    `transform_spec` JSON-able description of it.
    """

    model: nn.Module
    blocks: Sequence[nn.Module]
    branches: tuple[str, str]
    d_model: int
    d_embed: int
    grid: tuple[int, int]
    n_prefix: int
    has_cls: bool
    transform: Callable[[Image.Image], Tensor]
    transform_spec: dict

    @property
    def inner_sites(self) -> list[tuple[int, str]]:
        """(layer, kind) of all sites but `proj`, in the order of the forward pass."""
        return [(layer, kind) for layer in range(len(self.blocks)) for kind in KINDS]

    def place(self, layer: int, kind: str) -> Place:
        """Where the values of the site `layer.kind` are."""
        if kind == "mlp_act":
            return Place(self._mlp_output(layer), is_input=True)
        block, (attention, mlp) = self.blocks[layer], self.branches
        if kind == "mlp_in":
            return Place(getattr(block, "mlp" if hasattr(block, "mlp") else mlp), is_input=True)
        return Place(block if kind == "resid_post" else getattr(block, attention if kind == "attn_out" else mlp))

    def width(self, layer: int, kind: str) -> int:
        """d of the values at the site `layer.kind`."""
        return self._mlp_output(layer).in_features if kind == "mlp_act" else self.d_model

    def _mlp_output(self, layer: int) -> nn.Linear:
        """The last matrix of a block's MLP, which reads its hidden neurons; a block's attention comes before."""
        linears = [module for module in self.blocks[layer].modules() if isinstance(module, nn.Linear)]
        return [linear for linear in linears if linear.out_features == self.d_model][-1]

    def first_token(self, layer: int, stream: Tensor, *others, **options) -> Tensor:
        """The first token after a block, (B, T, d) -> (B, 1, d). others, options: the block's other arguments.

        Its MLP runs on the first token alone; the result is added to all tokens, of which only the first is kept.
        """
        block = self.blocks[layer]
        handle = Place(block.mlp, is_input=True).watch(lambda tokens: tokens[:, :1])
        try:
            output = block(stream, *others, **options)
        finally:
            handle.remove()
        return (output[0] if isinstance(output, tuple) else output)[:, :1]

    def after_blocks(self, stream: Callable[[], Tensor]) -> "Tower":
        """This tower with bypassed blocks: its passes compute only what follows the blocks, from `stream()` (B, T, d).

        The original model is not touched: modules that hold blocks are copied, and share all weights with it.
        """
        bypassed = {block: _bypassed(block) for block in self.blocks[:-1]}
        bypassed[self.blocks[-1]] = _bypassed(self.blocks[-1], stream)
        tower = copy.copy(self)
        tower.model = _with_replaced(self.model, bypassed)
        return tower

    @abstractmethod
    def embed_images(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, E), not normalised: the original model's whole forward pass."""

    def embed_texts(self, texts: list[str], device: torch.device) -> Tensor:
        """-> (B, E), not normalised."""
        raise ValueError("this encoder sees images only: it has no text tower; take a CLIP-like one to embed texts")

    @property
    def other_modules(self) -> list[nn.Module]:
        """Modules outside `model` that `embed_images` uses."""
        return []

    @property
    def logit_scale(self) -> float:
        """Factor of the cosine similarities before the softmax; 1 for a model without one."""
        scale = getattr(self.model, "logit_scale", None)
        return 1.0 if scale is None else float(scale.detach().exp())


def _bypassed(block: nn.Module, stream: Callable[[], Tensor] | None = None) -> nn.Module:
    """A copy of a block, with its attributes, that returns its first argument, or `stream()`."""

    def forward(self, *args, **options) -> Tensor:
        return stream() if stream else args[0] if args else next(iter(options.values()))

    return _copied(block, type(f"Bypassed{type(block).__name__}", (type(block),), {"forward": forward}))


def _with_replaced(module: nn.Module, by: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """The module with submodules replaced as `by` says; the module itself where it holds none of them."""
    if module in by:
        return by[module]
    children = {name: child and _with_replaced(child, by) for name, child in module._modules.items()}
    if all(child is module._modules[name] for name, child in children.items()):
        return module
    copied = _copied(module, type(module))
    copied._modules = children
    return copied


def _copied(module: nn.Module, kind: type[nn.Module]) -> nn.Module:
    """A shallow copy without hooks, and without the `forward` that accelerate sets and binds to the original."""
    copied = kind.__new__(kind)
    hooks = {name: OrderedDict() for name in ("_forward_hooks", "_forward_pre_hooks")}
    copied.__dict__ = {name: value for name, value in vars(module).items() if name != "forward"} | hooks
    return copied


def checked(tower: Tower) -> Tower:
    """The tower, once its preprocessing has worked on a blank picture. Raises ValueError where it fails."""
    try:
        picture = tower.transform(Image.new("RGB", (24, 20)))
        sound = picture.ndim == 3 and bool(picture.isfinite().all())
    except Exception as error:
        raise ValueError(
            f"its preprocessing fails on a blank picture: {one_sentence(error)}; are its settings damaged?"
        ) from error
    if not sound:
        raise ValueError("its preprocessing turns a picture into values that are not finite; are its settings damaged?")
    return tower


@contextmanager
def _code_refused() -> Iterator[None]:
    """Context in which transformers refuses models and tokenizers that come with their own Python code.

    Where a caller does not pass trust_remote_code=False, as open_clip does not for `hf_model_name`, transformers asks
    on the terminal, and a "y" would run the code; with a timeout of 0 it does not ask.
    """
    from transformers import dynamic_module_utils

    with _LOADING:  # one load at a time, because the timeout is global
        seconds, dynamic_module_utils.TIME_OUT_REMOTE_CODE = dynamic_module_utils.TIME_OUT_REMOTE_CODE, 0
        try:
            yield
        finally:
            dynamic_module_utils.TIME_OUT_REMOTE_CODE = seconds


def with_clear_errors(what: str, load: Callable[[], Loaded]) -> Loaded:
    """The result of `load()`; its failures become one sentence about `what`, and code in a checkpoint is refused."""
    with plain_errors(what):
        try:
            with _code_refused():
                return load()
        except FileNotFoundError:
            raise
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # of a library in Rust
                raise
            reason = one_sentence(error, 400)
            if "trust_remote_code=true" in str(error).lower():
                reason = "it brings Python code of its own, which is never run here; take one of transformers' own"
            raise ValueError(f"cannot load {what}: {reason}") from error
