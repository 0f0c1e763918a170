"""The text model of a Llama or a Mistral in float32, computed leanly from transformers' own weights.

`LeanLlama` gives what transformers' forward pass gives, for generating text, and leaves out what that does not need:
the last layer computes queries, attention and MLP at the last position alone; keys and values are written into memory
that was set aside before; and a few rows at a time go through all layers in the same few buffers, so that what a layer
computes stays in the processor's cache.
"""

import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib.devices import bring

_TOKENS_AT_ONCE = 2048  # that go through the layers together
_ROUNDING = 1e-4  # of the largest value: more is no rounding

Turn = tuple[Tensor, Tensor]
"""Cosines (n, heads, width) and sines (n, 1, width / 2) of rotary positions."""


class Memory:
    """Keys and values of every layer (2, R, room, heads, width), of which `seen` positions are filled."""

    def __init__(self, layers: list[Tensor], seen: int):
        self.layers, self.seen = layers, seen
        self.buffers: dict[str, Tensor] = {}  # of the computation: as large as they ever had to be

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows alone."""
        kept = torch.tensor(rows, device=self.layers[0].device)
        self.layers = [layer[:, kept] for layer in self.layers]

    def keys_values(self) -> list[tuple[Tensor, Tensor]]:
        """By layer keys and values, each (R, heads, seen, width)."""
        return [tuple(layer[:, :, : self.seen].transpose(2, 3)) for layer in self.layers]

    def buffer(self, name: str, *shape: int) -> Tensor:
        """Room for a tensor, which whoever asks next for the same name overwrites."""
        size = torch.Size(shape).numel()
        if name not in self.buffers or self.buffers[name].numel() < size:
            self.buffers[name] = self.layers[0].new_empty(size)
        return self.buffers[name][:size].view(shape)


class LeanLlama:
    """The lean pass of a text model that `lean_llama` found to fit. It copies no weight and runs no hook."""

    def __init__(self, language: nn.Module):
        self.language, self.layers = language, language.layers[: language.config.num_hidden_layers]
        self.width = self.layers[0].self_attn.head_dim

    def memory(self, prefix: list[tuple[Tensor, Tensor]], rows: int, room: int) -> Memory:
        """Memory for `room` tokens, which begins with keys and values of a prefix, each (1, heads, n, width)."""
        weight = self.layers[0].self_attn.k_proj.weight
        shape = (2, rows, room, len(weight) // self.width, self.width)
        layers = [weight.new_empty(shape) for _ in self.layers]
        for layer, (keys, values) in zip(layers, prefix, strict=False):
            layer[:, :, : keys.shape[2]] = torch.stack([keys, values]).transpose(2, 3)
        return Memory(layers, prefix[0][0].shape[2] if prefix else 0)

    def last_hidden(self, inputs: Tensor, memory: Memory) -> Tensor:
        """(R, n, d) -> the last position's hidden state (R, d); the memory grows by n."""
        n, begin = inputs.shape[1], memory.seen
        memory.seen += n
        positions = torch.arange(begin, memory.seen, device=inputs.device)[None]
        cos, sin = (part[0, :, None] for part in self.language.rotary_emb(inputs, positions))  # (n, 1, width) each
        heads = self.language.config.num_attention_heads
        turn = cos.expand(-1, heads, -1).contiguous(), sin[..., : self.width // 2].contiguous()
        past = torch.ones(n, memory.seen, dtype=torch.bool, device=inputs.device).tril(begin)
        each = max(1, _TOKENS_AT_ONCE // n)
        parts = [self._part(inputs[i : i + each], i, memory, turn, past) for i in range(0, len(inputs), each)]
        return self.language.norm(torch.cat(parts))

    def _part(self, inputs: Tensor, first: int, memory: Memory, turn: Turn, past: Tensor) -> Tensor:
        """Rows (r, n, d), of which `first` is the first, through all layers -> (r, d)."""
        x = memory.buffer("x", *inputs.shape).copy_(inputs)
        for layer, kept in zip(self.layers, memory.layers, strict=True):
            kept = kept[:, first : first + len(x), : memory.seen]
            normed = _normed(layer.input_layernorm, x, memory)
            self._remember(layer.self_attn, normed, kept, memory, turn)
            if layer is self.layers[-1]:
                x, normed, past = x[:, -1:].contiguous(), normed[:, -1:].contiguous(), past[-1:]
                turn = tuple(part[-1:] for part in turn)
            found = self._attended(layer.self_attn, normed, kept, memory, turn, past)
            _add_linear(x, layer.self_attn.o_proj, found)
            normed = _normed(layer.post_attention_layernorm, x, memory)
            gate = F.silu(_linear(layer.mlp.gate_proj, normed, memory, "gate"), inplace=True)
            gate.mul_(_linear(layer.mlp.up_proj, normed, memory, "up"))
            _add_linear(x, layer.mlp.down_proj, gate)
        return x[:, 0].clone()

    def _remember(self, attention, normed: Tensor, kept: Tensor, memory: Memory, turn: Turn) -> None:
        """Write keys and values of (r, n, d) to the end of (2, r, seen, heads, width)."""
        keys, values = kept[:, :, -normed.shape[1] :]
        _turned(_linear(attention.k_proj, normed, memory, "projected").view(keys.shape), turn, out=keys)
        values.copy_(_linear(attention.v_proj, normed, memory, "projected").view(values.shape))

    def _attended(self, attention, normed: Tensor, kept: Tensor, memory: Memory, turn: Turn, past: Tensor) -> Tensor:
        """What positions (r, n, d) find in those of `past` (n, seen): (r, n, heads * width)."""
        asked = _linear(attention.q_proj, normed, memory, "projected").unflatten(2, (-1, self.width))
        queries = _turned(asked, turn, out=memory.buffer("queries", *asked.shape))
        keys, values = kept.transpose(2, 3)
        found = F.scaled_dot_product_attention(
            queries.transpose(1, 2),
            keys,
            values,
            attn_mask=past if len(past) > 1 else None,
            scale=attention.scaling,
            enable_gqa=queries.shape[2] > keys.shape[1],
        )
        return found.transpose(1, 2).flatten(2)


def _linear(module: nn.Linear, x: Tensor, memory: Memory, name: str) -> Tensor:
    y = memory.buffer(name, x.shape[0] * x.shape[1], module.out_features)
    return torch.mm(x.flatten(0, 1), module.weight.T, out=y).view(*x.shape[:2], -1)


def _add_linear(x: Tensor, module: nn.Linear, y: Tensor) -> None:
    """x (r, n, d) += module(y)."""
    x.flatten(0, 1).addmm_(y.flatten(0, 1), module.weight.T)


def _normed(norm: nn.Module, x: Tensor, memory: Memory) -> Tensor:
    """RMSNorm."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    scale = length.square_().div_(x.shape[-1]).add_(norm.variance_epsilon).rsqrt_()
    return torch.mul(x, scale, out=memory.buffer("normed", *x.shape)).mul_(norm.weight)


def _turned(x: Tensor, turn: Turn, out: Tensor) -> Tensor:
    """Rotary positions applied to x (r, n, heads, width), whose dimensions i and i + width / 2 are a pair."""
    (cos, sin), half = turn, x.shape[-1] // 2
    torch.mul(x, cos[:, : x.shape[2]], out=out)  # cosines of every head: long runs multiply faster than short ones
    out[..., :half].addcmul_(x[..., half:], sin, value=-1)
    out[..., half:].addcmul_(x[..., :half], sin)
    return out


def lean_llama(language: nn.Module) -> LeanLlama | None:
    """The lean pass of a text model, or None where it is not known to be right.

    It is for a Llama or Mistral of float32 on one device, without sliding window, biases, adapters and quantisation,
    and it is tried against transformers' own pass first.
    """
    if not _fits(language):
        return None
    lean = LeanLlama(language)
    if not _agrees(lean):
        warnings.warn(
            "this version of transformers computes its Llama otherwise than lean_llama.py: answers are right, but "
            "slower; install the version that constraints.txt names",
            stacklevel=2,
        )
        return None
    return lean


def _fits(language: nn.Module) -> bool:
    from transformers.models.llama.modeling_llama import LlamaModel, LlamaRMSNorm
    from transformers.models.mistral.modeling_mistral import MistralModel, MistralRMSNorm

    config = language.config
    if type(language) not in (LlamaModel, MistralModel) or config.hidden_act not in ("silu", "swish"):
        return False
    if getattr(config, "sliding_window", None) or any(hasattr(module, "_hf_hook") for module in language.modules()):
        return False  # accelerate's hooks move what is computed between devices
    parts = [part for layer in language.layers for part in _parts(layer)]
    known = all(type(part) in (nn.Linear, LlamaRMSNorm, MistralRMSNorm) for part in parts)
    if not known or any(getattr(part, "bias", None) is not None for part in parts):
        return False
    weights = [part.weight for part in parts]
    return {weight.dtype for weight in weights} == {torch.float32} and len({weight.device for weight in weights}) == 1


def _parts(layer: nn.Module) -> list[nn.Module]:
    """Whatever in a layer has weights."""
    return [module for module in layer.modules() if next(module.children(), None) is None and [*module.parameters()]]


@torch.no_grad()
def _agrees(lean: LeanLlama) -> bool:
    """Whether last hidden states of 2 rows, 3 tokens and then 2 more, are those of transformers but for rounding."""
    language = lean.language
    device, generator = next(language.parameters()).device, torch.Generator().manual_seed(0)
    tokens = bring(torch.randint(language.config.vocab_size, (2, 5), generator=generator), device)
    inputs = language.embed_tokens(tokens)
    memory = lean.memory([], rows=2, room=6)
    found = torch.stack([lean.last_hidden(part, memory) for part in (inputs[:, :3], inputs[:, 3:])], dim=1)
    expected = language(inputs_embeds=inputs, use_cache=False).last_hidden_state[:, [2, 4]]
    return bool((found - expected).abs().max() <= _ROUNDING * expected.abs().max())
