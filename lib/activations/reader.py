"""From images to rows: worker processes read the pictures, one forward pass gives the values, tokens are chosen."""

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
from lib.files import one_sentence
from lib.images.pixels import Wire

WAIT = 600  # seconds for a batch of pictures, after which something is wrong
SHARED_MEMORY = "/dev/shm"  # of Linux; 64 MB in a container of Docker unless it is told otherwise


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
        """(B, T, d) or pooled (B, d), images (B,) -> rows (B * k, d) and their tokens (B, k), -1: not one token."""
        nowhere = torch.full((len(images), 1), -1)
        if values.ndim == 2:
            return values, nowhere
        if self._fixed is not None:
            kept = values[:, self._fixed[0] : self._fixed[-1] + 1]  # they are neighbours; a GPU is not waited for
            if self.name == "mean":
                return kept.mean(dim=1), nowhere
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
    """What a worker process hands over: pixels (B, 3, H, W) of the images (B,), and which could not be read and why."""

    pixels: Tensor | np.ndarray | None
    images: Tensor
    unreadable: list[dict]


class _Prepared(Dataset):
    """Images opened (or drawn) and preprocessed, in the worker process."""

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


def _through_a_pipe(items: list[tuple[int, Tensor | str]]) -> Batch:
    """As `_collate`; torch sends tensors through shared memory, but arrays of numpy through the pipe."""
    batch = _collate(items)
    return batch if batch.pixels is None else batch._replace(pixels=batch.pixels.numpy())


def batches_of(n: int, batch_size: int) -> list[range]:
    """The numbers of n images in batches of this size. Raises ValueError for a size that is none."""
    check_count("batch_size", batch_size)
    return [range(start, min(start + batch_size, n)) for start in range(0, n, batch_size)]


def read_batches(encoder: Encoder, images, batches: Iterable[Sequence[int]], workers: int | None) -> Iterator[Batch]:
    """The batches of images in their order, read and preprocessed by worker processes (0: by this one).

    Pixels come as the encoder's preprocessing gives them, on its device if that is a GPU. Raises RuntimeError in one
    sentence where a worker was killed or gives nothing for `WAIT` seconds.
    """
    check_count("workers", workers, "processes", least=0)
    if workers is None:  # starting processes takes longer than a handful of images
        workers = min(8, os.cpu_count() or 1) if len(images) > 256 else 0
    batches, wire, on_gpu = iter(batches), Wire.of(encoder.transform), encoder.device.type == "cuda"
    prepared, first = _Prepared(images, wire.pack), list(islice(batches, 1))
    loader = DataLoader(
        prepared,
        batch_sampler=chain(first, batches),
        num_workers=workers,
        collate_fn=_collate if workers == 0 or _fit_shared_memory(prepared, first, workers) else _through_a_pipe,
        pin_memory=on_gpu,
        timeout=WAIT if workers else 0,
    )
    arrivals = iter(loader)
    with explaining_lost_workers():
        try:
            for batch in _uploaded(arrivals, encoder.device) if on_gpu else map(_as_tensor, arrivals):
                yield batch if batch.pixels is None else batch._replace(pixels=wire.unpack(batch.pixels))
        finally:  # else torch tells of a dead worker again, at whatever is done next
            if workers:
                arrivals._shutdown_workers()


def _fit_shared_memory(prepared: _Prepared, first: list[Sequence[int]], workers: int) -> bool:
    """Whether the batches on the way take at most half of what is free of it, if it has a limit."""
    if not first or not os.path.isdir(SHARED_MEMORY):
        return True
    _, pixels = prepared[first[0][0]]
    if not isinstance(pixels, Tensor):
        return False  # an unreadable picture tells no size
    needed = (2 * workers + 2) * len(first[0]) * pixels.numel() * pixels.element_size()
    free = os.statvfs(SHARED_MEMORY)
    return needed <= free.f_bavail * free.f_frsize // 2


@contextmanager
def explaining_lost_workers() -> Iterator[None]:
    """Say in one sentence what is likely where a process that reads pictures was lost; torch raises it anywhere."""
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:  # the latter where it dies while it hands a batch over
        said = str(error)
        if isinstance(error, LostWorkerError) or (isinstance(error, RuntimeError) and "DataLoader" not in said):
            raise
        if "Bus error" in said:
            reason = "was killed: shared memory is full. Enlarge /dev/shm (docker run --shm-size=1g) or pass workers=0"
        elif "killed by" in said or "exited unexpectedly" in said or not isinstance(error, RuntimeError):
            reason = "was killed, most likely for want of memory, or of shared memory. Pass fewer workers"
        elif "timed out" in said:
            reason = f"has given nothing for {WAIT} s. Pass workers=0 to read in this process and see where it stops"
        else:
            raise
        raise LostWorkerError(f"a process that reads pictures {reason} ({one_sentence(error)})") from error


class LostWorkerError(RuntimeError):
    """A process that reads pictures was killed or gives nothing any more."""


def _as_tensor(batch: Batch) -> Batch:
    return batch._replace(pixels=torch.from_numpy(batch.pixels)) if isinstance(batch.pixels, np.ndarray) else batch


def _uploaded(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches with their pixels on the GPU, copied while it computes on the batch before."""
    copies = torch.cuda.Stream(device)
    for batch in map(_as_tensor, batches):
        if batch.pixels is not None:
            with torch.cuda.stream(copies):
                pixels = bring(batch.pixels.pin_memory(), device)  # pinned, so that nothing waits
            computing = torch.cuda.current_stream(device)
            computing.wait_stream(copies)
            pixels.record_stream(computing)
            batch = batch._replace(pixels=pixels)
        yield batch


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
    values = encoder.run(batch.pixels, sites)
    return {site: tokens(values[site], batch.images) for site in sites}
