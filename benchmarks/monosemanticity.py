"""Monosemanticity Score: lib's closed form against the pair loop of the paper's released code (arXiv 2504.02821).

The pair loop is written anew here from its description: for every image, the images after it in batches of 100, each
pair weighing its cosine into every neuron. It is timed on evenly spread images and scaled by their share of all pairs
(`--every 1` runs every pair). Both sides run here in turns, on the same numbers, so that a busy machine slows both.

    python benchmarks/monosemanticity.py [--images 2000] [--features 2000] [--every 20] [--device cuda]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.figures import finish_computing, json_option, write_figures
from lib.metrics import monosemanticity

PAIR_BATCH = 100
TURNS, REPEATS = 5, 5


def pair_loop(activations: Tensor, embeddings: Tensor, first_images: range) -> tuple[Tensor, Tensor, int]:
    """Sums of the pairs that start at `first_images`: weighted cosines `(F,)`, weights `(F,)`, how many pairs."""
    low, high = activations.min(dim=0, keepdim=True).values, activations.max(dim=0, keepdim=True).values
    activations = (activations - low) / (high - low)
    weighted = activations.new_zeros(activations.shape[1])
    weights = activations.new_zeros(activations.shape[1])
    n_pairs = 0
    for n in first_images:
        for start in range(n + 1, len(activations), PAIR_BATCH):
            others = slice(start, min(start + PAIR_BATCH, len(activations)))
            cosine = F.cosine_similarity(embeddings[n].unsqueeze(0), embeddings[others], dim=1)
            weight = activations[n].unsqueeze(0) * activations[others]
            weighted += (weight * cosine.unsqueeze(1)).sum(dim=0)
            weights += weight.sum(dim=0)
            n_pairs += others.stop - others.start
    return weighted, weights, n_pairs


def in_turns(dense: Tensor, given: Tensor, embeddings: Tensor, step: int) -> tuple[float, float, float]:
    """Median seconds of the whole pair loop and of lib over TURNS turns of each, and the largest difference of scores.

    Each turn runs the loop on its own share of every `step`-th image; the difference is NaN unless `step` is 1.
    """
    all_pairs = len(dense) * (len(dense) - 1) // 2
    monosemanticity(given, embeddings)  # warm up
    loop, ours, sums = [], [], []
    for turn in range(TURNS):
        start = time.perf_counter()
        weighted, weights, n_pairs = pair_loop(dense, embeddings, range(turn * step, len(dense), TURNS * step))
        finish_computing()
        loop.append((time.perf_counter() - start) * all_pairs / n_pairs)
        start = time.perf_counter()
        for _ in range(REPEATS):
            scores = monosemanticity(given, embeddings)
        finish_computing()
        ours.append((time.perf_counter() - start) / REPEATS)
        sums.append(torch.stack([weighted, weights]))
    weighted, weights = torch.stack(sums).sum(0)
    difference = (scores - (weighted / weights).cpu()).nan_to_num().abs().max().item() if step == 1 else float("nan")
    return statistics.median(loop), statistics.median(ours), difference


def sparse_codes(n_images: int, n_features: int, k: int, generator: torch.Generator) -> Tensor:
    """Codes `(N, F)` with k positive features an image, on the generator's device."""
    drawn = {"generator": generator, "device": generator.device}
    features = torch.rand(n_images, n_features, **drawn).topk(k, dim=1).indices
    codes = torch.zeros(n_images, n_features, device=generator.device)
    return codes.scatter_(1, features, torch.rand(n_images, k, **drawn))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--features", type=int, default=2000)
    parser.add_argument("--embedding", type=int, default=512, help="width of E (512: CLIP ViT-B/32, 768: DINOv2 ViT-B)")
    parser.add_argument("--k", type=int, default=20, help="active features an image, in the SAE's codes")
    parser.add_argument("--every", type=int, default=20, help="time the pair loop on every 20th image; 1: on all")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    json_option(parser)
    args = parser.parse_args()

    generator = torch.Generator(args.device).manual_seed(0)
    drawn = {"generator": generator, "device": args.device}
    embeddings = torch.randn(args.images, args.embedding, **drawn)
    codes = sparse_codes(args.images, args.features, args.k, generator)
    neurons = torch.randn(args.images, args.features, **drawn)
    print(f"N = {args.images}, F = {args.features}, E = {args.embedding}, {torch.get_num_threads()} threads")
    rows = []
    print(f"{'activations':34} {'pair loop':>12} {'lib':>10} {'ratio':>8}   {'largest difference':>18}")
    for label, dense, given in (
        (f"SAE codes, k = {args.k} (CSR)", codes, codes.to_sparse_csr()),
        (f"SAE codes, k = {args.k} (dense)", codes, codes),
        ("raw neurons (dense)", neurons, neurons),
    ):
        loop, ours, difference = in_turns(dense, given, embeddings, step=args.every)
        print(f"{label:34} {loop:10.2f} s {ours * 1e3:7.2f} ms {loop / ours:7.0f}x   {difference:18.1e}")
        rows.append({"activations": label, "pair_loop_seconds": loop, "seconds": ours})
    write_figures(args.json, rows)


if __name__ == "__main__":
    main()
