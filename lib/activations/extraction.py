"""Extraction: activations at any number of sites from one forward pass, into sharded stores or straight into training.

A shard holds a fixed number of images, and no batch spans two shards. So a shard depends on its own images only: an
extraction that was killed resumes at the first missing shard and ends with the same bits as one that was not.
"""

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from lib.activations.reader import (
    Tokens,
    explaining_lost_workers,
    read_batches,
    rows_of,
    unreadable_images,
)
from lib.activations.store import ActivationStore, activations_folder, endless_shuffle
from lib.activations.writer import ShardWriter, SiteFolder
from lib.arguments import check_count
from lib.devices import bring
from lib.encoders.encoder import Encoder
from lib.encoders.sites import as_sites
from lib.images.image_set import ImageSet, as_image_set
from storage import code_fingerprint, distributed, load_if_complete, locked, modules_of, spec_hash
from storage.files import quoted

__all__ = ["ActivationStore", "ActivationStream", "activations_folder", "extract"]

SHARD_BYTES = 1 << 28  # at most, for one site
SHARD_IMAGES = 1 << 10  # at most: the unit of work, which a kill can lose and which processes share
BUFFER_ROWS = 1 << 16  # rows that a stream shuffles at a time


def extract(
    encoder: Encoder,
    images,
    sites: str | Iterable[str],
    tokens: str = "cls",
    out: str | Path = "activations",
    dtype: str | torch.dtype = "float16",
    batch_size: int | None = None,
    workers: int | None = None,
    on_error: str = "raise",
    progress: bool = True,
    seed: int = 0,
    shard_images: int | None = None,
) -> dict[str, ActivationStore]:
    """Activations of all images at all sites, in one forward pass each: {site: store}, on disk at `out/<site>/`.

    Under `accelerate launch` or `lib.distributed.launch` each process fills a part of the shards, in a folder that all
    of them see; the store is, byte for byte, the one that a single process would have made.

    images: an `ImageSet`, or whatever `as_image_set` takes: pictures, paths, an array, a data set of torch.
    sites: one name as `4.resid_post`, or several; `proj` has one row an image whatever the tokens. tokens: `cls`,
    `spatial`, `all`, `random:k` (of all T, without replacement, drawn by `seed`) or `mean` (of the spatial ones). dtype
    on disk: float16, bfloat16 or float32. on_error: "raise", or "skip" unreadable images, which are then counted and
    named in meta.json.
    workers: processes that read images; None for one a core, and none for a few images.

    A complete store of the same spec is opened; an unfinished one resumes at its first missing or damaged shard, with
    its own shard size; a store of another spec that lies in the folder is kept beside it (see `storage.places`).
    Raises ValueError for bad arguments, unreadable images and values that are not finite, OSError for a full disk;
    finished shards are kept, and the next call continues after them.
    """
    images = as_image_set(images)
    _check_source(images, on_error)
    batch_size = check_count("batch_size", batch_size) or _batch_size(encoder)
    plan = _Plan(encoder, images, Tokens(tokens, encoder, seed), batch_size, workers, on_error, progress)
    return plan.stores(plan.folders(sites, Path(out).expanduser(), str(dtype).removeprefix("torch."), shard_images))


@dataclass(frozen=True)
class _Plan:
    """What an extraction reads, and how; see `extract`."""

    encoder: Encoder
    images: ImageSet
    tokens: Tokens
    batch_size: int
    workers: int | None
    on_error: str
    progress: bool

    def folders(self, sites, out: Path, dtype: str, shard_images: int | None) -> dict[str, SiteFolder]:
        """The folder of each site. Raises ValueError for unknown sites and dtypes, and for no site."""
        encoder = self.encoder
        if dtype not in ("float16", "bfloat16", "float32"):
            raise ValueError(f"a store's dtype is float16, bfloat16 or float32, not {quoted(dtype)}")
        names = list(dict.fromkeys(str(encoder.site(site)) for site in as_sites(sites)))
        if not names:
            raise ValueError(f"sites is empty: name at least one site of {encoder.spec}, such as {encoder.sites[-1]}")
        size = check_count("shard_images", shard_images) or _shard_images(encoder, self.tokens, self.batch_size, dtype)
        spec = {**_source_spec(encoder, self.images, self.tokens), "dtype": dtype, "on_error": self.on_error}
        geometry = {"images": len(self.images), "shard_images": size, "batch_size": self.batch_size}
        about = {**_about(encoder), "device": encoder.device.type, "torch": torch.__version__}
        return {name: SiteFolder(out / name, encoder, name, spec, geometry, about) for name in names}

    def stores(self, folders: dict[str, SiteFolder]) -> dict[str, ActivationStore]:
        """The store of each site: opened where all are finished, else extracted."""
        what = [(name, folder.meta["hash"], folder.geometry) for name, folder in folders.items()]
        distributed.same_on_all_ranks(what, "what to extract")
        there = [(folder.out, folder.meta["hash"]) for folder in folders.values()]
        look = lambda: [load_if_complete(out, digits, ActivationStore.open) for out, digits in there]  # noqa: E731
        if (found := distributed.found_on_all_ranks(look)) is not None:
            return dict(zip(folders, found, strict=True))
        with locked([out for out, _ in there if distributed.rank() == 0], "extract activations"):
            missing = distributed.my_share(_prepare(folders))
            distributed.on_all_ranks(lambda: self.fill(folders, missing))
            distributed.on_first_rank(lambda: [folder.finish() for folder in folders.values()] and None)
            return {name: ActivationStore.open(folder.out) for name, folder in folders.items()}

    def fill(self, folders: dict[str, SiteFolder], missing: "list[_Missing]") -> None:
        """Run the encoder over the missing shards' images, batch after batch, and write each shard once it is full."""
        if not missing:
            return
        plan = [
            (one, range(start, min(start + self.batch_size, one.images.stop)))
            for one in missing
            for start in range(one.images.start, one.images.stop, self.batch_size)
        ]
        reader = closing(read_batches(self.encoder, self.images, [batch for _, batch in plan], self.workers))
        hidden, total = (
            not self.progress or distributed.rank() > 0,
            sum(len(batch) for _, batch in plan),
        )  # of this rank
        bar = tqdm(total=total, unit="img", desc="extract", disable=hidden, mininterval=1.0)
        with explaining_lost_workers(), reader as batches, ShardWriter(folders, self.encoder.device) as writer, bar:
            for (one, indices), batch in zip(plan, batches, strict=True):
                distributed.stop_if_another_failed()
                skipped = unreadable_images(batch, self.images, self.on_error)
                rows = rows_of(self.encoder, batch, one.sites, self.tokens)
                writer.put(one.shard, rows, batch.images, skipped, ends=indices.stop == one.images.stop)
                bar.update(len(indices))


def _about(encoder: Encoder) -> dict[str, str]:
    """Entries of meta.json about the encoder, besides its fingerprint."""
    return {"encoder": encoder.spec, "precision": str(encoder.dtype), "mlp_norms": encoder.mlp_norms}


def _check_source(images, on_error: str) -> None:
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error is 'raise' or 'skip', not {on_error!r}")
    if len(images) == 0:
        raise ValueError("there is no image to extract from: the image set is empty")


_code = cache(code_fingerprint)  # of what this process has loaded; it takes longer than a small extraction


def _source_spec(encoder: Encoder, images, tokens: Tokens) -> dict:
    """What the rows depend on: pictures, encoder, choice of tokens, and the code of all three."""
    code = ["lib.activations", "lib.encoders", "lib.images.pixels", *modules_of(type(images))]
    code += getattr(getattr(images, "source", None), "CODE", ())
    return {
        "encoder": encoder.fingerprint,
        "images": images.fingerprint,
        "tokens": tokens.name,
        "seed": tokens.seed if tokens.name.startswith("random") else None,
        "code": _code(*code),
    }


def _batch_size(encoder: Encoder) -> int:
    return 256 if encoder.device.type == "cuda" else 64


def _shard_images(encoder: Encoder, tokens: Tokens, batch_size: int, dtype: str) -> int:
    row_bytes = max(encoder.d_model, encoder.d_embed) * getattr(torch, dtype).itemsize
    fitting = min(SHARD_IMAGES, SHARD_BYTES // (row_bytes * tokens.per_image))
    return max(1, fitting // batch_size) * batch_size


class _Missing(NamedTuple):
    """A shard to be filled: its number, its images, and the sites that lack it."""

    shard: int
    images: range
    sites: tuple[str, ...]


def _prepare(folders: dict[str, SiteFolder]) -> list[_Missing]:
    """Prepare the folders, and return the missing shards, each with the sites that lack it."""
    places = distributed.on_first_rank(lambda: {name: folder.prepare() for name, folder in folders.items()})
    for name, folder in folders.items():
        folder.place = places[name]
    lacking: dict[tuple[int, range], list[str]] = {}  # the sites of unfinished stores may be cut differently
    for name, folder in folders.items():
        for shard, images in enumerate(folder.images_of_shards()):
            if not folder.has(shard):
                lacking.setdefault((shard, images), []).append(name)
    found = [_Missing(shard, images, tuple(sites)) for (shard, images), sites in lacking.items()]
    return distributed.on_first_rank(lambda: sorted(found, key=lambda missing: missing.images.start))


class ActivationStream:
    """Endless shuffled activations of one site, computed by the encoder while they are used; nothing is stored.

    Takes the place of an `ActivationStore` in training (`.d`, `.site`, `.tokens`, `.meta`, `len` in rows of an epoch,
    `.batches`, `.rms`, `.mean`). Images come in a new random order each epoch; their rows are shuffled in a buffer of
    `buffer_rows`. Other arguments as in `extract`.
    """

    def __init__(
        self,
        encoder: Encoder,
        images,
        site: str,
        tokens: str = "cls",
        batch_size: int | None = None,
        workers: int | None = None,
        on_error: str = "raise",
        buffer_rows: int = BUFFER_ROWS,
        seed: int = 0,
    ):
        images = as_image_set(images)
        _check_source(images, on_error)
        self.encoder, self.images, self.site = encoder, images, str(encoder.site(site))
        self._tokens = Tokens(tokens, encoder, seed)
        self.tokens = "pooled" if self.site == "proj" else tokens
        self.d, self.buffer_rows = encoder.width(site), buffer_rows
        self._image_batch, self._workers, self._on_error = (
            check_count("batch_size", batch_size) or _batch_size(encoder),
            workers,
            on_error,
        )
        spec = {**_source_spec(encoder, images, self._tokens), "site": self.site, "stream": True}
        head = {"spec": spec, "hash": spec_hash(spec), "site": self.site, "tokens": self.tokens, "d": self.d}
        order = f"streamed, {self._image_batch} pictures into {buffer_rows} rows"
        self.meta = {**head, **_about(encoder), "order": order}

    def __len__(self) -> int:
        return len(self.images) * (1 if self.site == "proj" else self._tokens.per_image)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows of an epoch, d)."""
        return len(self), self.d

    def batches(self, batch_size: int, seed: int = 0, start: int = 0) -> Iterator[Tensor]:
        """Endless shuffled batches (batch_size, d) float32 on the encoder's device.

        `start` enters the same sequence at that step; the steps before it are computed again, and dropped.
        """
        check_count("batch_size", batch_size, "rows")
        yield from islice(self._shuffled_batches(batch_size, seed), start, None)

    def _shuffled_batches(self, batch_size: int, seed: int) -> Iterator[Tensor]:
        """Fill the buffer, yield a random half of it, refill it, and so on."""
        capacity = max(batch_size, min(self.buffer_rows, len(self)))
        handed_out = max(1, capacity // 2 // batch_size) * batch_size
        source = self._image_rows(seed)
        rows = torch.empty(0, self.d, device=self.encoder.device)
        for turn in count():
            parts = [rows]
            while sum(map(len, parts)) < capacity:
                parts.append(next(source))
            rows = torch.cat(parts)
            order = torch.randperm(
                len(rows), generator=torch.Generator().manual_seed(((seed << 32) + turn) % (1 << 63))
            )
            rows = rows[bring(order, rows)]
            yield from rows[:handed_out].split(batch_size)
            rows = rows[handed_out:]

    def _image_rows(self, seed: int) -> Iterator[Tensor]:
        """Rows of one batch of images at a time, epoch after epoch. Raises ValueError where no image is readable."""
        n, unread = self._image_batch, 0
        order = (endless_shuffle(i * n, n, len(self.images), seed).tolist() for i in count())
        for batch in read_batches(self.encoder, self.images, order, self._workers):
            skipped = unreadable_images(batch, self.images, self._on_error)
            unread = 0 if len(batch.images) else unread + len(skipped)
            if unread >= 2 * len(self.images):  # two epochs' worth in a row, so at least one whole epoch
                raise ValueError(
                    f"none of the {len(self.images)} images could be read, for example {skipped[0]['name']}: "
                    f"{skipped[0]['reason']}"
                )
            x, _ = rows_of(self.encoder, batch, [self.site], self._tokens)[self.site]
            if not x.isfinite().all():
                raise ValueError(
                    f"the encoder gave NaN or infinite values at {self.site}: load it with dtype='float32'"
                )
            yield bring(x, self.encoder.device)

    def sample(self, n: int = 4096, seed: int = 0) -> Tensor:
        """min(n, rows) random rows: (n, d) float32."""
        return next(self.batches(min(n, len(self)), seed))

    def rms(self, n: int = 4096, seed: int = 0) -> float:
        """Root mean square over rows and dimensions, on a sample of n rows."""
        return float(self.sample(n, seed).square().mean().sqrt())

    def mean(self, n: int = 4096, seed: int = 0) -> Tensor:
        """Mean row (d,), on a sample of n rows."""
        return self.sample(n, seed).mean(dim=0)
