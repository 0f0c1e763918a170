"""The face of a model that the rest of lib sees, and one way to say that it could not be loaded."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor, nn

Loaded = TypeVar("Loaded")


class Tower(ABC):
    """One model of a family: where its blocks are, what tokens they carry, how it embeds images and texts.

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

    def module(self, layer: int, kind: str) -> nn.Module:
        """The module whose output is the value of the site `layer.kind`: a tensor, or a tuple that begins with it."""
        block = self.blocks[layer]
        attention, mlp = self.branches
        return {"resid_post": block, "attn_out": getattr(block, attention), "mlp_out": getattr(block, mlp)}[kind]

    def first_token(self, layer: int, stream: Tensor, *others, **options) -> Tensor:
        """The first token after a block, (B, T, d) -> (B, 1, d); others, options: what else the block is called with.

        The block's MLP sees no other token; what it gives for the first is then added to all, of whom one is kept.
        """
        block = self.blocks[layer]
        handle = block.mlp.register_forward_pre_hook(lambda mlp, inputs: (inputs[0][:, :1], *inputs[1:]))
        try:
            output = block(stream, *others, **options)
        finally:
            handle.remove()
        return (output[0] if isinstance(output, tuple) else output)[:, :1]

    @abstractmethod
    def embed_images(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, E), not normalised: the original model's whole forward pass."""

    def embed_texts(self, texts: list[str], device: torch.device) -> Tensor:
        """-> (B, E), not normalised."""
        raise ValueError("this encoder sees images only: it has no text tower; take a CLIP-like one to embed texts")

    @property
    def logit_scale(self) -> float:
        """What cosine similarities are multiplied with before the softmax; 1 where the model has no such number."""
        scale = getattr(self.model, "logit_scale", None)
        return 1.0 if scale is None else float(scale.detach().exp())


def with_clear_errors(what: str, load: Callable[[], Loaded]) -> Loaded:
    """Turn the loaders' many ways to fail into one sentence that says what could not be loaded."""
    try:
        return load()
    except FileNotFoundError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        unreachable = ("offline mode", "couldn't connect", "Failed to download", "LocalEntryNotFound", "Max retries")
        if isinstance(error, ConnectionError) or any(sign.lower() in reason.lower() for sign in unreachable):
            raise ConnectionError(
                f"cannot fetch {what} from the Hugging Face hub and it is not in the cache: "
                f"connect to the internet, or give a local folder or file ({reason[:200]})"
            ) from error
        if "trust_remote_code" in reason:
            reason = "it brings Python code of its own, which this book never runs; take one that transformers can read"
        raise ValueError(f"cannot load {what}: {reason[:400]}") from error
