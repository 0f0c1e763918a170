"""From images to rows: worker processes read the pictures, one forward pass gives the values, tokens are chosen."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lib.models import Encoder


class Tokens:
    """Which rows of (B, T, d) are kept: `cls`, `spatial`, `all`, `random:k` (of all T, without replacement) or `mean`.

    `mean` is the mean over the spatial tokens. Random tokens depend on the seed and the image's index alone, so they
    are the same at every site and in every run. Raises ValueError for another name, or one that the encoder lacks.
    """

    def __init__(self, name: str, encoder: Encoder, seed: int = 0):
        kind, _, k = name.partition(":")
        self.name, self.seed, self.n_tokens = name, seed, encoder.n_tokens
        if kind == "random" and k.isdecimal() and 1 <= int(k) <= encoder.n_tokens:
            self.per_image, self._fixed = int(k), None
        elif name in ("cls", "spatial", "all"):
            self._fixed = encoder.positions(name)
            self.per_image = len(self._fixed)
        elif name == "mean":
            self._fixed, self.per_image = encoder.positions("spatial"), 1
        else:
            possible = f"cls, spatial, all, mean, or random:K with K from 1 to {encoder.n_tokens}"
            raise ValueError(f"unknown tokens {name!r}: write {possible}")
        if self.per_image == 0:
            raise ValueError(f"{encoder.spec} has no {name} token: take spatial, all, mean or random:K")

    def __call__(self, values: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, d) or pooled (B, d), images (B,) -> rows (B * k, d) and their tokens (B, k), -1: not one token."""
        nowhere = torch.full((len(images), 1), -1)
        if values.ndim == 2:
            return values, nowhere
        if self.name == "mean":
            return values[:, self._fixed.to(values.device)].mean(dim=1), nowhere
        if self._fixed is not None:
            tokens = self._fixed.expand(len(images), -1)
        else:
            draws = [np.random.default_rng([self.seed, int(i)]).permutation(self.n_tokens) for i in images]
            tokens = torch.from_numpy(np.stack(draws)[:, : self.per_image])
        index = tokens.to(values.device)[:, :, None].expand(-1, -1, values.shape[-1])
        return values.gather(1, index).flatten(0, 1), tokens


class Batch(NamedTuple):
    """What a worker process hands over: pixels (B, 3, H, W) of the images (B,), and which could not be read and why."""

    pixels: Tensor | None
    images: Tensor
    unreadable: list[dict]


class _Prepared(Dataset):
    """Images opened (or drawn) and preprocessed, in the worker process."""

    def __init__(self, images, transform):
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[int, Tensor | str]:
        try:
            return i, self.transform(self.images[i])
        except (ValueError, OSError) as error:
            return i, " ".join(str(error).split())


def _collate(items: list[tuple[int, Tensor | str]]) -> Batch:
    good = [(i, x) for i, x in items if isinstance(x, Tensor)]
    bad = [{"index": i, "reason": x} for i, x in items if not isinstance(x, Tensor)]
    pixels = torch.stack([x for _, x in good]) if good else None
    return Batch(pixels, torch.tensor([i for i, _ in good], dtype=torch.long), bad)


def read_batches(encoder: Encoder, images, batches: Iterable[Sequence[int]], workers: int | None) -> Iterator[Batch]:
    """The batches of images in their order, read and preprocessed by worker processes (0: by this one)."""
    if workers is None:  # starting processes takes longer than a handful of images
        workers = min(8, os.cpu_count() or 1) if len(images) > 256 else 0
    loader = DataLoader(
        _Prepared(images, encoder.transform),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=encoder.device.type == "cuda",
    )
    return iter(loader)


def _name(images, i: int) -> str:
    return str(images.name(i)) if hasattr(images, "name") else f"image {i}"


def unreadable_images(batch: Batch, images, on_error: str) -> list[dict]:
    """The unreadable images of a batch with their names. Raises ValueError for the first unless errors are skipped."""
    named = [{**bad, "name": _name(images, bad["index"])} for bad in batch.unreadable]
    if named and on_error == "raise":
        first = named[0]
        raise ValueError(
            f"cannot read image {first['index']} ({first['name']}): {first['reason']} "
            "(remove it, or pass on_error='skip' to leave such images out)"
        )
    return named


@torch.no_grad()
def rows_of(encoder: Encoder, batch: Batch, sites: Sequence[str], tokens: Tokens) -> dict[str, tuple[Tensor, Tensor]]:
    """{site: (rows (B * k, d) on the encoder's device, tokens (B, k))} of one batch."""
    if batch.pixels is None:
        empty = torch.empty(0, 1, dtype=torch.long)
        return {site: (torch.empty(0, encoder.width(site)), empty) for site in sites}
    values = encoder.run(batch.pixels.to(encoder.device, non_blocking=True), sites)
    return {site: tokens(values[site], batch.images) for site in sites}
