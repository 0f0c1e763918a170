"""Text generation with a language model of transformers, in batches of rows that share a prefix.

The rows of a batch have the same prompt, so there is no padding. The prefix goes through the model once; its keys and
values are copied to every row.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lib.devices import bring, to_cpu

if TYPE_CHECKING:
    from transformers import DynamicCache

_MIN_ACTIVE = 0.5  # share of rows below which finished rows are dropped from the batch, which copies the others


@dataclass(frozen=True)
class EncodedPrompt:
    """An encoded prompt: keys and values of the tokens before the picture, embeddings of the tokens after it."""

    prefix: list[tuple[Tensor, Tensor]]  # by layer, each (1, heads, prefix, width)
    suffix: Tensor  # (1, m, d)


class TokenSampler:
    """Selection of the next token of each row: the most probable, or, with a temperature, a sample.

    Each row has its own generator, so its samples do not depend on the other rows of the batch.
    """

    def __init__(self, temperature: float, seeds: Sequence[int]):
        self.temperature = temperature
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds] if temperature else []

    def __call__(self, logits: Tensor, rows: Sequence[int]) -> list[int]:
        """Tokens of the given rows from their logits (r, vocabulary). Raises ValueError for logits not finite."""
        if not bool(logits.isfinite().all()):
            raise ValueError(
                f"the language model gives logits that are not finite in {str(logits.dtype).removeprefix('torch.')}: "
                "steer less strongly, or load the model with dtype='bfloat16' or 'float32'"
            )
        if not self.temperature:
            return logits.argmax(-1).tolist()
        probabilities = (to_cpu(logits.float()) / self.temperature).softmax(-1)
        return [
            int(torch.multinomial(p, 1, generator=self.generators[row]))
            for p, row in zip(probabilities, rows, strict=True)
        ]


class Decoder:
    """The text half of a LLaVA: `language` gives hidden states, `head` logits, `embed` embeddings of tokens."""

    def __init__(self, language: nn.Module, head: nn.Module, embed: nn.Module, ends: Collection[int]):
        self.language, self.head, self.embed = language, head, embed
        self.ends, self.config = frozenset(ends), language.config
        weight = embed.weight
        self.device = torch.device("cpu") if weight.is_meta else weight.device  # accelerate moves inputs by itself
        self.dtype = weight.dtype

    def embedded(self, ids: Sequence[int]) -> Tensor:
        """Embeddings (1, n, d) of n tokens."""
        return self.embed(torch.tensor([list(ids)], device=self.device))

    @torch.no_grad()
    def encode_prompt(self, before: Sequence[int], after: Sequence[int]) -> EncodedPrompt:
        """Encode the tokens before and after the picture, once for all rows."""
        if not before:
            return EncodedPrompt([], self.embedded(after))
        cache = self._cache([], 1)
        self._last_hidden(self.embedded(before), cache)
        return EncodedPrompt([(keys, values) for keys, values, _ in cache], self.embedded(after))

    def _cache(self, prefix: list[tuple[Tensor, Tensor]], rows: int) -> "DynamicCache":
        """KV cache of `rows` rows that starts with the keys and values of a prefix, each (1, heads, n, width)."""
        from transformers import DynamicCache

        cache = DynamicCache(config=self.config)
        for layer, (keys, values) in enumerate(prefix):
            cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), layer)
        return cache

    def _last_hidden(self, inputs: Tensor, cache: "DynamicCache") -> Tensor:
        """Hidden states (R, d) of the last position of inputs (R, n, d); the cache grows by n."""
        return self.language(inputs_embeds=inputs, past_key_values=cache, use_cache=True).last_hidden_state[:, -1]

    @torch.no_grad()
    def tokens(
        self, start: EncodedPrompt, pictures: Tensor, choose: TokenSampler, max_steps: int
    ) -> Iterator[dict[int, int]]:
        """Yield {row: next token} at each step, from projected image features (R, n, d), one picture per row.

        The token that ends a row is its last; from then on the row is left out.
        """
        rows = list(range(len(pictures)))
        pictures = bring(pictures, self.device, self.dtype)
        inputs = torch.cat([pictures, start.suffix.expand(len(rows), -1, -1)], dim=1)
        cache, active = self._cache(start.prefix, len(rows)), set(rows)
        for step in range(max_steps):
            chosen = choose(self.head(self._last_hidden(inputs, cache)), rows)
            step_tokens = {row: token for row, token in zip(rows, chosen, strict=True) if row in active}
            yield step_tokens
            active -= {row for row, token in step_tokens.items() if token in self.ends}
            if not active or step == max_steps - 1:
                return
            if len(active) < _MIN_ACTIVE * len(rows):
                kept = [i for i, row in enumerate(rows) if row in active]
                cache.batch_select_indices(torch.tensor(kept))
                rows, chosen = [rows[i] for i in kept], [chosen[i] for i in kept]
            inputs = self.embed(torch.tensor(chosen, device=self.device)[:, None])

    def bytes_per_row(self, n_tokens: int) -> int:
        """Bytes of the keys and values of a row of n tokens."""
        heads = getattr(self.config, "num_key_value_heads", None) or self.config.num_attention_heads
        width = getattr(self.config, "head_dim", None) or self.config.hidden_size // self.config.num_attention_heads
        return 2 * self.config.num_hidden_layers * heads * width * n_tokens * self.dtype.itemsize
