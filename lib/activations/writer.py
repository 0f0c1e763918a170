"""Writing activation shards: the folder of one site, and a thread that writes while the encoder computes."""

import json
import math
import queue
import threading
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lib.devices import to_cpu
from lib.encoders.encoder import Encoder
from storage import (
    check_file,
    claim,
    embedded_digest,
    is_complete,
    meta_head,
    publish,
    read_meta,
    replacing,
    save_tensors,
    write_meta,
)
from storage.files import safetensors_header


class SiteFolder:
    """The folder `out` of one site: which shards are there, writing one, and the final meta.json.

    Until it is finished the store is in `place`: `out` itself, or a folder beside it if `out` holds another spec.
    """

    def __init__(self, out: Path, encoder: Encoder, site: str, spec: dict, geometry: dict, about: dict):
        self.out = self.place = out
        self.site, self.d = site, encoder.width(site)
        self.geometry, self.dtype = geometry, getattr(torch, spec["dtype"])
        spec = {**spec, "site": site}
        tokens = "pooled" if site == "proj" else spec["tokens"]
        head = {**meta_head(spec, "extract"), "complete": False, "site": site, "tokens": tokens, "d": self.d}
        self.meta = {**head, "dtype": spec["dtype"], "geometry": geometry, **about}
        self.complete, self.present = False, set()

    def prepare(self) -> Path:
        """Claim and return `place`. Intact shards of this spec are kept, and set the shard size of the others."""
        self.place = claim(self.out, self.meta)
        self.complete = is_complete(self.place, self.meta["hash"])
        if not self.complete:
            there = (read_meta(self.place) or {}).get("geometry", self.geometry)
            if there["images"] != self.geometry["images"]:  # equal fingerprints, so they do not identify the pictures
                _clear(self.place)
            elif any(self.place.glob("shard-*.safetensors")):
                self.geometry = {**self.geometry, "shard_images": there["shard_images"]}
            self.meta = {**self.meta, "geometry": self.geometry}
            write_meta(self.place, self.meta)
            self.present = {i for i in range(self.n_shards) if self._is_sound(i)}
        return self.place

    @property
    def n_shards(self) -> int:
        return len(self.images_of_shards())

    def images_of_shards(self) -> list[range]:
        """Range of image indices of each shard."""
        n, size = self.geometry["images"], self.geometry["shard_images"]
        return [range(start, min(start + size, n)) for start in range(0, n, size)]

    def _is_sound(self, i: int) -> bool:
        """Whether shard i is on disk and intact; a damaged one is removed, and named in a warning."""
        if not self.shard(i).exists():
            return False
        try:
            check_file(self.shard(i))
            if safetensors_header(self.shard(i))[1].get("shard") == self._identity(i):
                return True
            damage = f"{self.shard(i)} holds another shard, or one of another store"
        except (OSError, ValueError) as error:
            damage = str(error)
        warnings.warn(f"{damage}; it is extracted again.", stacklevel=2)
        self.shard(i).unlink()
        return False

    def shard(self, i: int) -> Path:
        return self.place / f"shard-{i:05d}.safetensors"

    def _identity(self, i: int) -> str:
        """Store and number of shard i, kept in its header so that exchanged shards are noticed."""
        return f"{self.meta['hash']} {i}"

    def has(self, i: int) -> bool:
        return self.complete or i in self.present

    def write(self, i: int, tensors: dict[str, Tensor], skipped: list[dict]) -> None:
        with replacing(self.shard(i)) as temporary:
            save_tensors(tensors, temporary, {"shard": self._identity(i), "skipped": json.dumps(skipped)})

    def finish(self) -> None:
        """Write the final meta.json (rows, digests, skipped images), and move the store to `out`."""
        if not self.complete:
            self._write_final_meta()
        publish(self.place, self.out)

    def _write_final_meta(self) -> None:
        shards, skipped, digests = [], [], {}
        for i in range(self.n_shards):
            name = self.shard(i).name
            shapes, metadata = safetensors_header(self.shard(i))
            shards.append({"file": name, "rows": shapes["activations"].shape[0]})
            skipped += json.loads(metadata["skipped"])
            digests[name] = embedded_digest(self.shard(i))
        rows = sum(shard["rows"] for shard in shards)
        if rows == 0:
            _clear(self.place)
            images = self.geometry["images"]
            raise ValueError(f"none of the {images} images could be read; the first: {skipped[0]['reason']}")
        end = {"rows": rows, "n_skipped": len(skipped), "skipped": skipped, "shards": shards, "digests": digests}
        write_meta(self.place, {**self.meta, "complete": True, **end})


def _clear(place: Path) -> None:
    """Remove shards and meta.json."""
    for file in (*place.glob("shard-*.safetensors"), place / "meta.json"):
        file.unlink(missing_ok=True)


class _Sent(NamedTuple):
    """One batch on its way to disk: rows (n, d), their minimum and maximum (2,); a GPU has sent both at `arrival`."""

    rows: Tensor
    limits: Tensor
    tokens: Tensor  # (B, t)
    arrival: torch.cuda.Event | None


class ShardWriter:
    """Casts rows on the encoder's device, then checks and writes them in a background thread.

    Copies from a GPU overlap with its computation. At most a few batches and one shard per site are in memory, however
    many images there are. An error in the thread is raised by the next `put`, or on leaving the context.
    """

    def __init__(self, folders: dict[str, SiteFolder], device: torch.device):
        self._folders, self._error = folders, None
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._queue: queue.Queue = queue.Queue(maxsize=4)
        self._thread = threading.Thread(target=self._work, name="shard writer", daemon=True)

    def __enter__(self) -> "ShardWriter":
        self._thread.start()
        return self

    def put(self, shard: int, rows: dict, images: Tensor, skipped: list[dict], ends: bool) -> None:
        """Queue {site: (rows (B * t, d), tokens (B, t))} of images (B,); `ends`: this is the shard's last batch."""
        self._raise()
        sent = {site: self._send(site, x, tokens) for site, (x, tokens) in rows.items()}
        self._queue.put((shard, sent, images, skipped, ends))

    def __exit__(self, error_type, *_) -> None:
        self._queue.put(None)
        self._thread.join()
        if error_type is None:
            self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _send(self, site: str, x: Tensor, tokens: Tensor) -> _Sent:
        """Cast rows and start their copy to the CPU, in the caller's thread: another would compete for its cores."""
        folder = self._folders[site]
        if x.shape[1] != folder.d:
            raise ValueError(f"{site} should be {folder.d} wide, the encoder gave {x.shape[1]}")
        limits = torch.stack(torch.aminmax(x)) if len(x) else torch.zeros(2)
        rows = x.to(folder.dtype)
        if not x.is_cuda:
            return _Sent(to_cpu(rows), to_cpu(limits), tokens, None)
        self._copies.wait_stream(torch.cuda.current_stream(x.device))
        with torch.cuda.stream(self._copies):
            sent = [tensor.to("cpu", non_blocking=True) for tensor in (rows, limits)]
        for tensor in (rows, limits):
            tensor.record_stream(self._copies)
        return _Sent(*sent, tokens, self._copies.record_event())

    def _work(self) -> None:
        collected: dict[str, list[dict[str, Tensor]]] = {}
        all_skipped: list[dict] = []
        while (item := self._queue.get()) is not None:
            if self._error is not None:
                continue  # drain the queue, so that `put` never blocks
            shard, rows, images, skipped, ends = item
            try:
                all_skipped += skipped
                for site, sent in rows.items():
                    collected.setdefault(site, []).append(self._checked(site, sent, images))
                if ends:
                    for site, parts in collected.items():
                        joined = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
                        self._folders[site].write(shard, joined, all_skipped)
                    collected, all_skipped = {}, []
            except Exception as error:
                self._error = error

    def _checked(self, site: str, sent: _Sent, images: Tensor) -> dict[str, Tensor]:
        """One batch as the tensors of a shard. Raises ValueError for values that are not finite."""
        if sent.arrival is not None:
            sent.arrival.synchronize()
        per_image = sent.tokens.shape[1]
        largest = float(sent.limits.abs().max())
        if not math.isfinite(largest):
            bad = int((~sent.rows.isfinite()).any(dim=1).nonzero()[0, 0]) // per_image
            raise ValueError(
                f"the encoder gave NaN or infinite values at {site} for image {int(images[bad])}: "
                "load it with dtype='float32', or check the weights and that picture"
            )
        if largest > torch.finfo(sent.rows.dtype).max:
            raise ValueError(f"values at {site} reach {largest:.3g}, too much for float16: pass dtype='float32'")
        return {
            "activations": sent.rows,
            "image_index": images.repeat_interleave(per_image).int(),
            "token_index": sent.tokens.flatten().int(),
        }
