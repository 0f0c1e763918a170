"""Extraction and reading against the usual ways and the limit, side by side in one run.

    python benchmarks/extraction.py       # a CPU: ViT-B/32; on a GPU rather:
    python benchmarks/extraction.py --encoder open_clip:ViT-L-14-336/none --images 8192 --batch 256 --workers 12

1. Extraction: pictures a second of `lib.extract`, all tokens to disk, against the limit, the bare forward
   pass that ends at the last site on pixels at hand; once from pixels at hand, once from JPEGs, these also against
   what is possible where decoding and the forward pass take turns on the same cores (on a GPU: where the slower of the
   two sets the pace). Then against the
   published way (save_activations.py of sae-for-vlm): forward hooks on the whole model in float32, a tensor for each
   picture in memory, joined at the end. Same model (random weights), pictures, batches and worker processes.
2. Reading: shuffled rows a second of `store.batches` against a DataLoader that fetches row by row (ViT-Prisma,
   sae-for-vlm), and against the limit: reading the same bytes in the order of the file.

Contestants take turns, round by round, so that a busy machine is busy for all; the figure is the median of the rounds.
Where others use the machine too, `--cpu-seconds` counts the time on its cores instead of the time on the clock.
"""

import argparse
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.figures import finish_computing, json_option, write_figures
from lib import ActivationStore, Encoder, extract, load_encoder


class Photos:
    """JPEGs in memory, so that decoding costs what it costs and the disk does not matter."""

    def __init__(self, n: int):
        x, y = np.meshgrid(np.linspace(0, 1, 320), np.linspace(0, 1, 240))
        self._files = [self._jpeg(x, y, np.random.default_rng(i)) for i in range(min(n, 64))]
        self.n, self.spec = n, f"photos:{n}"
        self.fingerprint = self.spec

    @staticmethod
    def _jpeg(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> bytes:
        waves = [np.sin(40 * (a * x + b * y)) for a, b in rng.normal(size=(3, 2))]
        pixels = np.stack(waves, axis=-1) * 100 + 127 + rng.normal(size=(240, 320, 1)) * 8
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
        return file.getvalue()

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Image.Image:
        return Image.open(io.BytesIO(self._files[i % len(self._files)])).convert("RGB")


class Ready:
    """Pictures that are decoded and preprocessed: `encoder.transform` must be `Prepared`."""

    def __init__(self, photos: Photos, transform: Callable):
        self._pixels = [transform(photos[i]) for i in range(min(len(photos), 64))]
        self.n, self.spec = len(photos), f"ready:{len(photos)}"
        self.fingerprint = self.spec

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> torch.Tensor:
        return self._pixels[i % len(self._pixels)]


class Prepared:
    """A transform that lets pass what it has made already."""

    def __init__(self, transform: Callable):
        self.transform = transform

    def __call__(self, picture: Image.Image | torch.Tensor) -> torch.Tensor:
        return picture if isinstance(picture, torch.Tensor) else self.transform(picture)


class Pixels(Dataset):
    def __init__(self, images: Photos, transform: Callable):
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> torch.Tensor:
        return self.transform(self.images[i])


@torch.no_grad()
def published_way(encoder: Encoder, images: Photos, layers: list[int], batch: int, workers: int) -> None:
    """Hooks on blocks (none: the embedding) of the whole model, float32; all in memory, joined and saved at the end."""
    kept: dict[int | str, list[torch.Tensor]] = {}

    def keep(name: int | str, values: torch.Tensor) -> None:
        kept.setdefault(name, []).extend(values.detach().float().cpu())  # a tensor for each picture

    handles = [
        encoder.tower.blocks[layer].register_forward_hook(lambda *a, layer=layer: keep(layer, a[2])) for layer in layers
    ]
    for pixels in DataLoader(Pixels(images, encoder.transform), batch, num_workers=workers):
        embedding = encoder.tower.embed_images(pixels.to(encoder.device))
        if not layers:
            keep("proj", embedding)
    with tempfile.TemporaryDirectory() as out:
        for name, pictures in kept.items():
            torch.save(torch.stack(pictures), Path(out) / f"{name}.pt")
    for handle in handles:
        handle.remove()


@torch.no_grad()
def bare_forward(encoder: Encoder, pixels: torch.Tensor, sites: list[str], n: int) -> None:
    """The forward pass that ends at the last site, on one batch again and again; nothing is kept."""
    for _ in range(n // len(pixels)):
        encoder.run(pixels, sites)
    finish_computing()


def decoding(encoder: Encoder, images: Photos, batch: int, workers: int) -> None:
    """Every picture decoded and preprocessed by all workers; nothing else is done."""
    for _ in DataLoader(Pixels(images, encoder.transform), batch, num_workers=workers):
        pass


def possible(limit: float, decoding: float, on_gpu: bool) -> float:
    """Pictures a second from JPEGs where nothing but the forward pass and the decoding takes time."""
    return min(limit, decoding) if on_gpu else 1 / (1 / limit + 1 / decoding)


def extraction(encoder: Encoder, images, sites: list[str], transform: Callable, batch: int, workers: int) -> None:
    encoder.transform = transform
    with tempfile.TemporaryDirectory() as out:
        extract(encoder, images, sites, "all", out, batch_size=batch, workers=workers, progress=False)


def cpu_seconds() -> float:
    """Of this process and of the worker processes that have ended."""
    return sum(os.times()[:4])


CONTESTANTS = ("limit", "ours", "decoding", "jpegs", "published")
COLUMNS = ("limit", "ours", "jpegs", "possible", "published")


def compare_extraction(args: argparse.Namespace) -> Iterator[dict]:
    """Pictures a second of each contestant, a row for each set of sites."""
    clock, n = cpu_seconds if args.cpu_seconds else time.perf_counter, args.images
    encoder = load_encoder(args.encoder)
    transform, photos = encoder.transform, Photos(n)
    ready = Ready(photos, transform)
    pixels = torch.stack([ready[i] for i in range(args.batch)]).to(encoder.device)
    to_read = args.workers if pixels.is_cuda else 0  # worker processes for pixels at hand: a GPU is not kept waiting
    on_threads = f"{args.workers} workers, {torch.get_num_threads()} threads"
    print(f"\n{encoder}\n{n} pictures, all tokens, batch {args.batch}, {on_threads}\n{'sites':34}", end="")
    print("".join(f"{name:>17}" for name in COLUMNS), "  (of the limit)")
    shares, warm = ([2], [4 / 3, 2, 4], [1], []), False
    for layers in [sorted(round(encoder.n_layers / share) - 1 for share in some) for some in shares]:
        sites = [f"{layer}.resid_post" for layer in layers] or ["proj"]
        everybody = {
            "limit": lambda sites=sites: bare_forward(encoder, pixels, sites, n),
            "ours": lambda sites=sites: extraction(encoder, ready, sites, Prepared(transform), args.batch, to_read),
            "decoding": lambda: decoding(encoder, photos, args.batch, args.workers),
            "jpegs": lambda sites=sites: extraction(encoder, photos, sites, transform, args.batch, args.workers),
            "published": lambda layers=layers: published_way(encoder, photos, layers, args.batch, args.workers),
        }
        contestants = {name: work for name, work in everybody.items() if name in args.contestants}
        times: dict[str, list[float]] = {name: [] for name in contestants}
        for turn in range(args.rounds + (not warm)):
            for name, contestant in contestants.items():
                encoder.transform = transform
                start = clock()
                contestant()
                finish_computing()
                if warm or turn:
                    times[name].append(clock() - start)
        warm = True
        speed = {name: n / statistics.median(taken) for name, taken in times.items()}
        if {"limit", "decoding"} <= speed.keys():
            speed["possible"] = possible(speed["limit"], speed["decoding"], pixels.is_cuda)
        shown = [f"{speed[c]:10,.1f}{speed[c] / speed['limit']:7.0%}" if c in speed else f"{'–':>17}" for c in COLUMNS]
        print(f"{', '.join(sites):34}{''.join(shown)}", flush=True)
        yield {"encoder": args.encoder, "sites": sites, **speed}


class Rows(Dataset):
    def __init__(self, store: ActivationStore):
        self.store = store

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, i: int) -> torch.Tensor:
        return self.store[i]


def rows_per_second(batches, n_batches: int) -> float:
    batches = iter(batches)
    next(batches)
    rows = 0
    start = time.perf_counter()
    for _ in range(n_batches):
        rows += len(next(batches))
    return rows / (time.perf_counter() - start)


def compare_reading(n_rows: int, d: int, batch: int) -> dict:
    from safetensors.torch import save_file

    from storage.files import read_safetensors

    with tempfile.TemporaryDirectory() as folder:
        parts = []
        for i in range(8):
            index = torch.zeros(n_rows // 8, dtype=torch.int32)
            x = torch.randn(n_rows // 8, d).half()
            path = Path(folder) / f"{i}.safetensors"
            save_file({"activations": x, "image_index": index, "token_index": index.clone()}, path)
            parts.append(read_safetensors(path))
        store = ActivationStore(parts, {})
        in_order = rows_per_second((store[i : i + batch] for i in range(0, n_rows, batch)), n_rows // batch - 2)
        by_row = rows_per_second(DataLoader(Rows(store), batch, shuffle=True), 2)
        ours = rows_per_second(store.batches(batch), 4 * (1 << 16) // batch)
    print(f"\nReading, {n_rows:,} float16 rows of {d} on disk, batches of {batch}")
    print(f"{'row by row, DataLoader':34} {by_row:14,.0f} rows/s")
    print(f"{'store.batches, shuffled globally':34} {ours:14,.0f} rows/s  {ours / by_row:.0f}x row by row")
    print(
        f"{'the same rows in file order':34} {in_order:14,.0f} rows/s  (shuffled reaches {ours / in_order:.0%} of it)"
    )
    return {"rows_by_row": by_row, "shuffled": ours, "in_order": in_order}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="open_clip:ViT-B-32/none")
    parser.add_argument("--images", type=int, default=128, help="pictures of a round, a multiple of the batch")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--cpu-seconds", action="store_true", help="pictures a CPU second, for a machine that is busy")
    parser.add_argument("--contestants", nargs="+", default=CONTESTANTS, choices=CONTESTANTS)
    json_option(parser)
    args, rows = parser.parse_args(), []
    for row in compare_extraction(args):
        write_figures(args.json, rows := [*rows, row])  # each as it comes: a run that is stopped leaves what it has
    if args.rows:
        write_figures(args.json, [*rows, compare_reading(args.rows, args.width, 4096)])
