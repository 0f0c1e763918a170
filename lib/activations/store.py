"""Activation stores: rows on disk, read by index, slice or mask, or in shuffled batches without loading the store."""

import hashlib
import math
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import count, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lib.arguments import check_count
from lib.devices import to_cpu
from storage import check_files, checked_meta, folder_name, spec_hash
from storage.files import quoted, read_safetensors

if TYPE_CHECKING:
    from lib.encoders.encoder import Encoder

BLOCK_ROWS = 1 << 16  # rows that are gathered together while training
SAMPLE_ROWS = 1 << 15  # rows behind .rms() and .mean()


def activations_folder(profile_dir: str | Path, images_spec: str, tokens: str) -> Path:
    """Folder in which the notebooks of a profile share the activations of one image set and choice of tokens."""
    return Path(profile_dir, "activations", folder_name(images_spec), tokens.replace(":", "-"))


def shuffled(positions: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Elements at positions (p,) of a pseudo-random permutation of 0 .. n - 1: (p,) int64.

    An eight-round Feistel network over the next power of four, walked along its cycle until it falls below n (Black and
    Rogaway 2002, section 3): any part of the permutation costs no memory and no set-up, so a store of billions of rows
    can be shuffled, and entered at any step.
    """
    half = max(1, math.ceil(math.log2(max(n, 2)) / 2))
    mask = np.uint64((1 << half) - 1)
    keys = np.random.SeedSequence([seed % (1 << 64), n]).generate_state(8, np.uint64)

    def feistel(x: np.ndarray) -> np.ndarray:
        left, right = x >> np.uint64(half), x & mask
        for key in keys:
            left, right = right, left ^ (_mixed(right ^ key) & mask)
        return (left << np.uint64(half)) | right

    values = feistel(positions.astype(np.uint64))
    while (outside := values >= n).any():
        values[outside] = feistel(values[outside])
    return values.astype(np.int64)


def endless_shuffle(first: int, count: int, n: int, seed: int) -> np.ndarray:
    """Elements first .. first + count - 1 of an endless sequence of permutations of 0 .. n - 1: (count,) int64."""
    end, drawn = first + count, []
    for epoch in range(first // n, (end - 1) // n + 1):
        here = np.arange(max(first, epoch * n), min(end, (epoch + 1) * n)) - epoch * n
        drawn.append(shuffled(here, n, (seed << 32) + epoch))
    return np.concatenate(drawn)


def _mixed(x: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser: every bit of the input changes every bit of the output with probability about a half."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class ActivationStore:
    """Activations of one site: rows (images x tokens) of width d, on disk or, by `from_tensor`, in memory.

    `len`, `.shape` (rows, d), `.d`, `.site`, `.tokens`, `.meta` (spec, hash, rows, skipped images ...); `.image_index`
    and `.token_index` (rows,) int32 say where a row comes from (token -1: pooled, as for `mean` and `proj`).
    Rows come out as float32: by int, slice, mask, or index tensor.
    """

    def __init__(self, parts: list[dict[str, Tensor]], meta: dict):
        self._parts, self.meta = parts, meta
        self.site, self.tokens = meta.get("site"), meta.get("tokens")
        self._ends = np.cumsum([len(part["activations"]) for part in parts])
        widths = {part["activations"].shape[1] for part in parts}
        if len(widths) != 1:
            raise ValueError(f"the shards of a store must have one width, these have {sorted(widths)}")
        (self.d,) = widths

    @classmethod
    def open(cls, folder: str | Path) -> "ActivationStore":
        """Open what `extract` wrote. The bytes of all shards are checked, once a process.

        Raises FileNotFoundError where there is none, ValueError for an unfinished or damaged one.
        """
        folder = Path(folder).expanduser()
        meta = checked_meta(folder)
        if meta is None or "site" not in meta:
            raise FileNotFoundError(f"no activations in {folder}: it has no meta.json of a store; run extract first")
        if not meta.get("complete"):
            raise ValueError(f"the extraction into {folder} is not finished: run extract again to resume it")
        check_files(folder, meta)
        parts = []
        for shard in meta["shards"]:
            try:
                parts.append(read_safetensors(folder / shard["file"]))  # mapped: rows are read when they are gathered
            except (OSError, ValueError) as error:
                raise ValueError(
                    f"{folder / shard['file']} is missing or damaged: delete it and extract again"
                ) from error
        store = cls(parts, meta)
        if store.d != meta["d"] or len(store) != meta["rows"]:
            said = (meta["rows"], meta["d"])
            raise ValueError(f"{folder} holds {store.shape}, its meta.json says {said}: delete it and extract again")
        return store

    @classmethod
    def from_tensor(cls, x: Tensor | np.ndarray, image_index: Tensor | None = None) -> "ActivationStore":
        """A store in memory from (rows, d) floats; by default every row is its own image. Its hash is the content's."""
        x = to_cpu(x).contiguous()
        if x.ndim != 2:
            raise ValueError(f"a store has shape (rows, d), this tensor has {tuple(x.shape)}: flatten its tokens first")
        index = torch.arange(len(x)) if image_index is None else to_cpu(image_index)
        part = {"activations": x, "image_index": index.int(), "token_index": torch.full((len(x),), -1).int()}
        digest = hashlib.sha256(x.reshape(-1).view(torch.uint8).numpy()).hexdigest()
        spec = {"tensor": digest, "shape": list(x.shape)}
        return cls([part], {"spec": spec, "hash": spec_hash(spec), "complete": True, "rows": len(x), "d": x.shape[1]})

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, d)."""
        return len(self), self.d

    def __repr__(self) -> str:
        return f"ActivationStore(site={self.site!r}, tokens={self.tokens!r}, shape={self.shape})"

    @cached_property
    def image_index(self) -> Tensor:
        """(rows,) int32 index of each row's image in the image set."""
        return torch.cat([part["image_index"] for part in self._parts])

    @cached_property
    def token_index(self) -> Tensor:
        """(rows,) int32 position of each row's token among the T tokens, -1 for a pooled row."""
        return torch.cat([part["token_index"] for part in self._parts])

    def __getitem__(self, rows: int | slice | list | Tensor | np.ndarray) -> Tensor:
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            return self._gather(torch.arange(start, stop, step)).float()
        rows = self._row_indices(rows)
        found = self._gather(rows.reshape(-1)).float()
        return found if rows.ndim else found[0]

    def _row_indices(self, chosen: object) -> Tensor:
        """Row indices (n,) or () int64, from integers or a boolean mask. Raises IndexError for anything else."""
        try:
            rows = to_cpu(chosen)
        except (TypeError, ValueError, RuntimeError):
            rows = torch.empty(1)
        if rows.dtype == torch.bool and rows.shape == (len(self),):
            return rows.nonzero()[:, 0]
        whole = rows.dtype != torch.bool and not rows.is_floating_point()
        if rows.ndim <= 1 and (whole or not rows.numel()):
            return rows.long()
        raise IndexError(
            f"rows of a store are chosen by integers, a slice or a mask of its {len(self)} rows, not by "
            f"{quoted(chosen)}"
        )

    def _gather(self, rows: Tensor) -> Tensor:
        """(n,) int64 -> (n, d) in the dtype on disk; negative rows count from the end."""
        rows = torch.where(rows < 0, rows + len(self), rows)
        if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= len(self)):
            raise IndexError(f"row out of range: the store has {len(self)} rows")
        return self._read(rows)

    def _read(self, rows: Tensor) -> Tensor:
        """(n,) int64, none negative -> (n, d) in the dtype on disk; each shard is read in file order."""
        in_order, order = rows.sort()
        bounds = np.searchsorted(in_order.numpy(), [0, *self._ends])
        gathered = torch.empty(len(rows), self.d, dtype=self._parts[0]["activations"].dtype)
        for part, end, (a, b) in zip(self._parts, self._ends, pairwise(bounds), strict=True):
            if a < b:
                x = part["activations"]
                torch.index_select(x, 0, in_order[a:b] - (int(end) - len(x)), out=gathered[a:b])
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
        return gathered.index_select(0, back)

    def of_tokens(self, tokens: str, encoder: "Encoder") -> "ActivationStore":
        """View of the rows of one kind of token ("cls", "spatial") in a store of all tokens; nothing is copied.

        Its rows, their order and its hash are those of a store that `extract` would have made of these tokens. "all" is
        the store itself. Raises ValueError for a store that lacks some tokens, and for a kind that the encoder lacks.
        """
        if tokens == "all" == self.tokens:
            return self
        if self.tokens != "all":
            raise ValueError(f"this store holds the tokens {self.tokens!r}: extract tokens='all' and take its view")
        return _TokenView(self, tokens, encoder.positions(tokens), encoder.n_tokens)

    def batches(self, batch_size: int, seed: int = 0, start: int = 0) -> Iterator[Tensor]:
        """Endless shuffled batches (batch_size, d) float32; `start` enters the same sequence at that step.

        Each epoch has a new permutation, and a batch may span two epochs. A thread gathers `BLOCK_ROWS` rows ahead, so
        memory does not depend on the store's size.
        """
        yield from (x.float() for x in self.stored_batches(batch_size, seed, start))

    def stored_batches(
        self, batch_size: int, seed: int = 0, start: int = 0, pinned: bool = False
    ) -> Generator[Tensor, None, None]:
        """As `batches`, but in the dtype on disk: half the bytes to copy to a GPU. pinned: in pinned memory."""
        check_count("batch_size", batch_size, "rows")
        per_block = max(1, min(BLOCK_ROWS, len(self)) // batch_size)

        def block(i: int) -> tuple[Tensor, ...]:
            first = i * per_block * batch_size
            rows = endless_shuffle(first, per_block * batch_size, len(self), seed)
            gathered = self._gather(torch.from_numpy(rows))
            return (gathered.pin_memory() if pinned else gathered).split(batch_size)

        with ThreadPoolExecutor(1) as ahead:
            following = ahead.submit(block, start // per_block)
            skip = start % per_block
            for i in count(start // per_block + 1):
                batches, following = following.result(), ahead.submit(block, i)
                yield from batches[skip:]
                skip = 0

    def sample(self, n: int = SAMPLE_ROWS, seed: int = 0) -> Tensor:
        """min(n, rows) different random rows: (n, d) float32."""
        n = min(check_count("the size of a sample", n, "rows"), len(self))
        return self._gather(torch.from_numpy(shuffled(np.arange(n), len(self), seed))).float()

    def rms(self, n: int = SAMPLE_ROWS, seed: int = 0) -> float:
        """Root mean square over rows and dimensions, on a sample of n rows."""
        return float(self.sample(n, seed).square().mean().sqrt())

    def mean(self, n: int = SAMPLE_ROWS, seed: int = 0) -> Tensor:
        """Mean row (d,), on a sample of n rows."""
        return self.sample(n, seed).mean(dim=0)


class _TokenView(ActivationStore):
    """The rows of the tokens at `positions` (n,) of each image's T, read out of a store of all of them."""

    def __init__(self, store: ActivationStore, tokens: str, positions: Tensor, n_tokens: int):
        if len(positions) == 0:
            raise ValueError(f"the encoder has no {tokens!r} tokens: take spatial or all")
        self._store, self._positions, self._n_tokens = store, positions, n_tokens
        self._rows = len(store) // n_tokens * len(positions)
        spec = {**store.meta["spec"], "tokens": tokens}
        self.meta = {**store.meta, "spec": spec, "hash": spec_hash(spec), "tokens": tokens, "rows": self._rows}
        self.site, self.tokens, self.d = store.site, tokens, store.d

    def __len__(self) -> int:
        return self._rows

    @cached_property
    def image_index(self) -> Tensor:
        return self._store.image_index.view(-1, self._n_tokens)[:, self._positions].flatten()

    @cached_property
    def token_index(self) -> Tensor:
        return self._store.token_index.view(-1, self._n_tokens)[:, self._positions].flatten()

    def _read(self, rows: Tensor) -> Tensor:
        per_image = len(self._positions)
        image = torch.div(rows, per_image, rounding_mode="floor")
        return self._store._read(image * self._n_tokens + self._positions[rows % per_image])
