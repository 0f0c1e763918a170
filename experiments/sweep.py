"""Steerability of thousands of pushes on an encoder; blocks that pushes share run once."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from experiments.steerability import Steerability, softmax_over, steerability
from lib.devices import bring
from lib.encoders.encoder import Encoder
from steering.cached_forward import CachedForward, Variant
from steering.interventions import Dictionary, Intervention

_PROBABILITIES = 1 << 24  # in memory at a time: 64 MiB


def clamps(
    sae: Dictionary, site: str, features: Iterable[int], values: Iterable[float], **settings
) -> list[tuple[Intervention]]:
    """One push for each feature: it alone is clamped at its value, the SAE's error kept (arXiv 2504.08729)."""
    return [
        (Intervention(sae, site, {int(feature): float(value)}, **settings),)
        for feature, value in zip(features, values, strict=True)
    ]


@torch.no_grad()
def measure_steerability(
    encoder: Encoder, pixels: Tensor, pushes: Sequence[Variant], words: Tensor, progress: bool = True
) -> Steerability:
    """The steerability of each push on the same pictures.

    pixels: (P, 3, H, W); words: (C, E) text embeddings of the same encoder. All fields are on the CPU.
    """
    forward = CachedForward(encoder, "proj", pixels, pushes)
    words = bring(words, encoder.device)

    def probabilities(some: Sequence[Variant]) -> Tensor:
        return softmax_over(forward.values(some), words, encoder.logit_scale)

    base = probabilities([()])[0]  # (P, C)
    together = max(1, _PROBABILITIES // base.numel())
    bar = tqdm(total=len(pushes), desc="steer", unit="push", disable=not progress, mininterval=1.0)
    parts = []
    with bar:
        for some in _split(pushes, together):
            parts.append(steerability(base, probabilities(some)))
            bar.update(len(some))
    return Steerability.joined(parts)


def _split(pushes: Sequence[Variant], size: int) -> Iterator[Sequence[Variant]]:
    for begin in range(0, len(pushes), size):
        yield pushes[begin : begin + size]
