"""Extraction and reading against the usual ways, side by side in one run: `python benchmarks/extraction.py`.

1. Extraction: activations a second of `lib.activations.extract` against plain forward hooks on the full model, which is
   what vision peers do (saev, sae-for-vlm, patchSAE): same ViT-B/32, pictures, batches and worker processes, one
   residual site in the middle of the network, and several sites at once.
2. Reading: shuffled rows a second of `store.batches` against a DataLoader that fetches row by row (ViT-Prisma,
   sae-for-vlm), and against the limit: reading the same bytes in the order of the file.
"""

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from lib.activations import ActivationStore, extract
from lib.models import Encoder, load_encoder


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


class Pixels(Dataset):
    def __init__(self, images: Photos, transform: Callable):
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> torch.Tensor:
        return self.transform(self.images[i])


@torch.no_grad()
def hooks_on_the_full_model(encoder: Encoder, images: Photos, layers: list[int], batch: int, workers: int, out: Path):
    """Forward hooks on blocks of the model, the whole model run, everything kept and saved at the end in float32."""
    kept: dict[int, list[torch.Tensor]] = {layer: [] for layer in layers}
    blocks = encoder.model.visual.transformer.resblocks
    handles = [
        blocks[layer].register_forward_hook(lambda *a, layer=layer: kept[layer].append(a[2].detach().cpu()))
        for layer in layers
    ]
    for pixels in DataLoader(Pixels(images, encoder.transform), batch, num_workers=workers):
        encoder.model.encode_image(pixels.to(encoder.device))
    for layer, parts in kept.items():
        torch.save(torch.cat(parts), out / f"{layer}.pt")
    for handle in handles:
        handle.remove()


def seconds(function: Callable, *args, **options) -> float:
    start = time.perf_counter()
    function(*args, **options)
    return time.perf_counter() - start


def compare_extraction(n: int, batch: int, workers: int, rounds: int) -> None:
    encoder, images = load_encoder("open_clip:ViT-B-32/none"), Photos(n)
    encoder.run(encoder.pixels([images[i] for i in range(batch)]), ["proj"])  # warm up
    print(f"\nExtraction, ViT-B/32, {n} pictures, all {encoder.n_tokens} tokens, batch {batch}, {workers} workers")
    print(f"{'sites':42} {'hooks: rows/s':>14} {'extract: rows/s':>16} {'ratio':>7}")
    for layers in ([5], [2, 5, 8], [11]):
        sites = [f"{layer}.resid_post" for layer in layers]
        theirs, ours = [], []
        for _ in range(rounds):  # turn about, so that a busy machine is busy for both
            with tempfile.TemporaryDirectory() as out:
                options = {"out": out, "batch_size": batch, "workers": workers, "progress": False}
                theirs.append(seconds(hooks_on_the_full_model, encoder, images, layers, batch, workers, Path(out)))
                ours.append(seconds(extract, encoder, images, sites, "all", **options))
        theirs, ours = statistics.median(theirs), statistics.median(ours)
        rows = n * encoder.n_tokens * len(layers)
        print(f"{', '.join(sites):42} {rows / theirs:14,.0f} {rows / ours:16,.0f} {theirs / ours:6.2f}x")


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


def compare_reading(n_rows: int, d: int, batch: int) -> None:
    from safetensors.torch import save_file

    from lib.stores import map_safetensors

    with tempfile.TemporaryDirectory() as folder:
        parts = []
        for i in range(8):
            index = torch.zeros(n_rows // 8, dtype=torch.int32)
            x = torch.randn(n_rows // 8, d).half()
            path = Path(folder) / f"{i}.safetensors"
            save_file({"activations": x, "image_index": index, "token_index": index.clone()}, path)
            parts.append(map_safetensors(path)[0])
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--width", type=int, default=768)
    arguments = parser.parse_args()
    compare_extraction(arguments.images, arguments.batch, arguments.workers, arguments.rounds)
    compare_reading(arguments.rows, arguments.width, 4096)
