"""Fidelity of a dictionary: reconstruction of the tokens it reads, and the model's embeddings with them replaced."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm

from experiments.published_fidelity import PublishedReconstruction
from lib.activations.reader import batches_of, read_batches
from lib.activations.store import ActivationStore
from lib.devices import bring, to_cpu
from lib.encoders.encoder import Encoder
from lib.metrics.reconstruction import Reconstruction
from lib.sae.model import SAE
from steering.cached_forward import CachedForward, Variant
from steering.interventions import Intervention, Neurons

_DENSE_CODES = 1 << 24  # codes, or values of the store, in memory at a time: 64 MiB


class TokenFit(NamedTuple):
    """Fit of an SAE on P pictures of n tokens: active latents of each token, and active tokens of each latent.

    ours, published: explained variance and cosine in the two forms (`experiments.published_fidelity`).
    """

    l0: Tensor  # (P, n) float32
    active: Tensor  # (F,) int64
    ours: dict[str, float]
    published: dict[str, float]


@torch.no_grad()
def fit_tokens(sae: SAE, store: ActivationStore) -> TokenFit:
    """Measure an SAE on a store of tokens, in two passes. Raises ValueError where pictures have unequal tokens."""
    per_image = _tokens_per_image(store)
    step = max(1, _DENSE_CODES // max(sae.n_features, store.d) // per_image) * per_image
    blocks = [slice(start, start + step) for start in range(0, len(store), step)]
    sums = sum(store[block].view(-1, per_image, store.d).sum(0, dtype=torch.double) for block in blocks)
    ours, published = Reconstruction(), PublishedReconstruction(sums / (len(store) // per_image))
    l0, active = [], torch.zeros(sae.n_features, dtype=torch.int64)
    for block in blocks:
        x = bring(store[block], sae)
        codes = sae.encode(x)
        x_hat, on = sae.decode(codes, x), codes != 0
        l0.append(to_cpu(on.sum(1).float().view(-1, per_image)))
        active += to_cpu(on.sum(0))
        ours.update(x, x_hat)
        published.update(*(part.view(-1, per_image, store.d) for part in (x, x_hat)))
    return TokenFit(torch.cat(l0), active, ours.compute(), published.compute())


def _tokens_per_image(store: ActivationStore) -> int:
    counts = store.image_index.unique_consecutive(return_counts=True)[1].unique()
    if len(counts) != 1:
        raise ValueError("the pictures of this store have different numbers of tokens: extract cls, spatial or all")
    return int(counts)


def reconstruction_at(site: str, sae: SAE, tokens: str = "all") -> Intervention:
    """Replace these tokens by their reconstruction, the SAE's error dropped."""
    return Intervention(sae, site, {0: 1.0}, mode="scale", tokens=tokens, keep_error=False)


def zero_at(site: str, width: int, tokens: str = "all") -> Intervention:
    """Replace these tokens by zero."""
    return Intervention(Neurons(width), site, dict.fromkeys(range(width), 0.0), tokens=tokens)


@torch.no_grad()
def spliced_embeddings(
    encoder: Encoder,
    images: Sequence,
    splices: Mapping[object, Variant],
    batch_size: int = 50,
    workers: int | None = None,
    progress: bool = True,
) -> dict[object, Tensor]:
    """Joint embeddings (N, E) of unit norm of all images under each splice, by name; `()` changes nothing.

    Pictures are read once, and blocks before a splice run once (`steering.cached_forward`). Raises ValueError for a
    picture that cannot be read.
    """
    variants = list(splices.values())
    batches = batches_of(len(images), batch_size)
    found = []
    bar = tqdm(total=len(images), unit="img", desc="splice", disable=not progress, mininterval=1.0)
    with bar:
        for batch in read_batches(encoder, images, batches, workers):
            if batch.unreadable:
                raise ValueError(f"cannot read image {batch.unreadable[0]['index']}: {batch.unreadable[0]['reason']}")
            forward = CachedForward(encoder, "proj", batch.pixels, variants)
            found.append(to_cpu(normalize(forward.values(variants), dim=-1)))
            bar.update(len(batch.images))
    return dict(zip(splices, torch.cat(found, dim=1), strict=True))
