"""From images to rows of activations: decoding in worker processes, one forward pass, selection of tokens."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lib.arguments import check_count, check_seed
from lib.devices import bring
from lib.encoders.encoder import Encoder
from lib.images.pixels import PixelTransfer
from storage.files import one_sentence

WAIT = 600  # seconds after which a worker that has sent no batch counts as lost
SHARED_MEMORY = "/dev/shm"  # on Linux; 64 MB by default in a Docker container


class Tokens:
    """Which rows of (B, T, d) are kept: `cls`, `spatial`, `all`, `random:k` (of all T, without replacement) or `mean`.

    `mean` is the mean over the spatial tokens. Random tokens depend on the seed and the image's index alone, so they
    are the same at every site and in every run. Raises ValueError for another name, or one that the encoder lacks.
    """

    def __init__(self, name: str, encoder: Encoder, seed: int = 0):
        kind, _, k = str(name).partition(":")
        self.name, self.seed, self.n_tokens = name, check_seed(seed), encoder.n_tokens
        self._fixed: Tensor | None = None
        if kind == "random" and k.isdecimal() and 1 <= int(k) <= encoder.n_tokens:
            self.per_image = int(k)
        elif name in ("cls", "spatial", "all", "mean"):
            self._fixed = encoder.positions("spatial" if name == "mean" else name)
            self.per_image = 1 if name == "mean" else len(self._fixed)
        else:
            possible = f"cls, spatial, all, mean, or random:K with K from 1 to {encoder.n_tokens}"
            raise ValueError(f"unknown tokens {name!r}: write {possible}")
        if self.per_image == 0:
            raise ValueError(f"{encoder.spec} has no {name} token: take spatial, all, mean or random:K")

    def __call__(self, values: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (B * t, d), t per image, and their token indices (B, t), -1 where a row is pooled from several tokens.

        values: (B, T, d), or pooled (B, d). images: (B,) indices.
        """
        pooled = torch.full((len(images), 1), -1)
        if values.ndim == 2:
            return values, pooled
        if self._fixed is not None:
            kept = values[:, self._fixed[0] : self._fixed[-1] + 1]  # consecutive; slicing does not synchronise a GPU
            if self.name == "mean":
                return kept.mean(dim=1), pooled
            if self.name != "all":
                kept = kept.clone()  # a view would keep all tokens in memory
            return kept.flatten(0, 1), self._fixed.expand(len(images), -1)
        draws = [np.random.default_rng([self.seed, int(i)]).permutation(self.n_tokens) for i in images]
        tokens = torch.from_numpy(np.stack(draws)[:, : self.per_image])
        index = bring(tokens.pin_memory() if values.is_cuda else tokens, values)[:, :, None].expand(
            -1, -1, values.shape[-1]
        )
        return values.gather(1, index).flatten(0, 1), tokens


class Batch(NamedTuple):
    """A batch from a worker process: pixels (B, 3, H, W), image indices (B,), and unreadable images with the reason."""

    pixels: Tensor | np.ndarray | None
    images: Tensor
    unreadable: list[dict]


class _Prepared(Dataset):
    """Data set of (index, pixels), or (index, error message), computed in the worker process."""

    def __init__(self, images, pack):
        self.images, self.pack = images, pack

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[int, Tensor | str]:
        try:
            return i, self.pack(self.images[i])
        except (ValueError, OSError) as error:
            return i, one_sentence(error, 500)


def _collate(items: list[tuple[int, Tensor | str]]) -> Batch:
    good = [(i, x) for i, x in items if isinstance(x, Tensor)]
    bad = [{"index": i, "reason": x} for i, x in items if not isinstance(x, Tensor)]
    pixels = torch.stack([x for _, x in good]) if good else None
    return Batch(pixels, torch.tensor([i for i, _ in good], dtype=torch.long), bad)


def _collate_as_numpy(items: list[tuple[int, Tensor | str]]) -> Batch:
    """As `_collate`, with numpy pixels: torch sends tensors through shared memory, but numpy arrays through a pipe."""
    batch = _collate(items)
    return batch if batch.pixels is None else batch._replace(pixels=batch.pixels.numpy())


def batches_of(n: int, batch_size: int) -> list[range]:
    """Indices 0 .. n - 1 in consecutive batches. Raises ValueError for a batch size that is not a positive integer."""
    check_count("batch_size", batch_size)
    return [range(start, min(start + batch_size, n)) for start in range(0, n, batch_size)]


def read_batches(encoder: Encoder, images, batches: Iterable[Sequence[int]], workers: int | None) -> Iterator[Batch]:
    """The batches of images in their order, read and preprocessed by worker processes (0: by this one).

    Pixels are as the encoder's preprocessing gives them, on its device if that is a GPU. Raises LostWorkerError where a
    worker was killed or has sent nothing for `WAIT` seconds.
    """
    check_count("workers", workers, "processes", least=0)
    if workers is None:  # starting processes takes longer than a handful of images
        workers = min(8, os.cpu_count() or 1) if len(images) > 256 else 0
    batches, transfer, on_gpu = iter(batches), PixelTransfer.of(encoder.transform), encoder.device.type == "cuda"
    prepared, first = _Prepared(images, transfer.pack), list(islice(batches, 1))
    loader = DataLoader(
        prepared,
        batch_sampler=chain(first, batches),
        num_workers=workers,
        collate_fn=_collate if workers == 0 or _fit_shared_memory(prepared, first, workers) else _collate_as_numpy,
        pin_memory=on_gpu,
        timeout=WAIT if workers else 0,
    )
    arrivals = iter(loader)
    with explaining_lost_workers():
        try:
            for batch in _uploaded(arrivals, encoder.device) if on_gpu else map(_as_tensor, arrivals):
                yield batch if batch.pixels is None else batch._replace(pixels=transfer.unpack(batch.pixels))
        finally:  # otherwise torch reports a dead worker again in a later, unrelated call
            if workers:
                arrivals._shutdown_workers()


def _fit_shared_memory(prepared: _Prepared, first: list[Sequence[int]], workers: int) -> bool:
    """Whether the prefetched batches take at most half of the free shared memory, where it is limited."""
    if not first or not os.path.isdir(SHARED_MEMORY):
        return True
    _, pixels = prepared[first[0][0]]
    if not isinstance(pixels, Tensor):
        return False  # the size of an unreadable picture is unknown
    needed = (2 * workers + 2) * len(first[0]) * pixels.numel() * pixels.element_size()
    free = os.statvfs(SHARED_MEMORY)
    return needed <= free.f_bavail * free.f_frsize // 2


@contextmanager
def explaining_lost_workers() -> Iterator[None]:
    """Turn torch's errors about dead worker processes, which it raises anywhere, into a LostWorkerError."""
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:  # the last two where it dies while it sends a batch
        said = str(error)
        if isinstance(error, LostWorkerError) or (isinstance(error, RuntimeError) and "DataLoader" not in said):
            raise
        if "Bus error" in said:
            reason = "was killed: shared memory is full. Enlarge /dev/shm (docker run --shm-size=1g) or pass workers=0"
        elif "killed by" in said or "exited unexpectedly" in said or not isinstance(error, RuntimeError):
            reason = "was killed, most likely because memory or shared memory ran out. Pass fewer workers"
        elif "timed out" in said:
            reason = f"has sent nothing for {WAIT} s. Pass workers=0 to read in this process and see where it stops"
        else:
            raise
        raise LostWorkerError(f"a process that reads pictures {reason} ({one_sentence(error)})") from error


class LostWorkerError(RuntimeError):
    """A process that reads pictures was killed, or has stopped sending batches."""


def _as_tensor(batch: Batch) -> Batch:
    return batch._replace(pixels=torch.from_numpy(batch.pixels)) if isinstance(batch.pixels, np.ndarray) else batch


def _uploaded(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Batches with their pixels on the GPU; each is copied while the GPU computes on the batch before."""
    copies = torch.cuda.Stream(device)
    for batch in map(_as_tensor, batches):
        if batch.pixels is not None:
            with torch.cuda.stream(copies):
                pixels = bring(batch.pixels.pin_memory(), device)  # pinned, so that the copy is asynchronous
            computing = torch.cuda.current_stream(device)
            computing.wait_stream(copies)
            pixels.record_stream(computing)
            batch = batch._replace(pixels=pixels)
        yield batch


def unreadable_images(batch: Batch, images, on_error: str) -> list[dict]:
    """The unreadable images of a batch with their names. Raises ValueError for the first unless errors are skipped."""
    name = images.name if hasattr(images, "name") else "image {}".format
    named = [{**bad, "name": str(name(bad["index"]))} for bad in batch.unreadable]
    if named and on_error == "raise":
        first = named[0]
        raise ValueError(
            f"cannot read image {first['index']} ({first['name']}): {first['reason']} "
            "(remove it, or pass on_error='skip' to leave such images out)"
        )
    return named


@torch.no_grad()
def rows_of(encoder: Encoder, batch: Batch, sites: Sequence[str], tokens: Tokens) -> dict[str, tuple[Tensor, Tensor]]:
    """{site: (rows (B * t, d) on the encoder's device, tokens (B, t))} of one batch; see `Tokens`."""
    if batch.pixels is None:
        empty = torch.empty(0, 1, dtype=torch.long)
        return {site: (torch.empty(0, encoder.width(site)), empty) for site in sites}
    values = encoder.run(batch.pixels, sites)
    return {site: tokens(values[site], batch.images) for site in sites}
