"""Steered embeddings a second, against the published way (arXiv 2504.08729, the authors' notebooks), with equal scores.

The published way is written anew here from its description: one feature at a time, a hook on its block encodes the
block's output by the SAE, sets the feature on all tokens, decodes, and adds the SAE's error; the whole tower runs for
every feature. `measure_steerability` takes the same features and pictures. Model, precision, SAE, threads and process
are the same, the two take turns, and all scores are compared.

    python benchmarks/steerability.py [--pictures 32] [--features 64] [--rounds 3] [--encoder tiny SPEC]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.steerability import Steerability, concept_probabilities, steerability
from experiments.sweep import clamps, measure_steerability
from experiments.vocabulary import load_vocabulary
from lib import SAE, Encoder, SAEConfig, load_encoder, load_images

EXPANSION, K = 8, 16


@torch.no_grad()
def published_way(encoder: Encoder, pixels: Tensor, sae: SAE, site: str, push: dict[int, float], words: Tensor):
    """One feature at a time, the whole tower with a hook on the block."""
    block = encoder.place(site).module
    steering: dict[str, float] = {}

    def hook(module, inputs, output):
        if not steering:
            return output
        x = output.float()
        codes = sae.encode(x)
        error = x - sae.decode(codes)
        codes[..., steering["feature"]] = steering["value"]
        return (sae.decode(codes) + error).to(output.dtype)

    def probabilities() -> Tensor:
        return concept_probabilities(encoder.embed_images(pixels), words, encoder.logit_scale)

    handle = block.register_forward_hook(hook)
    base, parts = probabilities(), []
    for feature, value in push.items():
        steering |= {"feature": feature, "value": value}
        parts.append(steerability(base, probabilities()))
    handle.remove()
    return Steerability.joined(parts)


def ours(encoder: Encoder, pixels: Tensor, sae: SAE, site: str, push: dict[int, float], words: Tensor) -> Steerability:
    return measure_steerability(encoder, pixels, clamps(sae, site, push, push.values()), words, progress=False)


def strong_push(encoder: Encoder, pixels: Tensor, sae: SAE, site: str, n_features: int) -> dict[int, float]:
    """Features drawn at random, each set to three times the length of the stream."""
    length = float(encoder.run(pixels[:4], [site])[site].norm(dim=-1).mean())
    drawn = torch.randperm(sae.n_features, generator=torch.Generator().manual_seed(0))[:n_features]
    return dict.fromkeys(drawn.tolist(), 3 * length)


def compare(encoder: Encoder, site: str, n_pictures: int, n_features: int, rounds: int) -> None:
    images = load_images(f"menagerie:val[:{n_pictures}]")
    pixels = encoder.pixels([images[i] for i in range(n_pictures)])
    words = encoder.embed_texts(load_vocabulary("menagerie"))
    sae = SAE(SAEConfig(kind="topk", expansion=EXPANSION, k=K), encoder.width(site)).to(encoder.device)
    push = strong_push(encoder, pixels, sae, site, n_features)
    contestants = {"published": published_way, "ours": ours}
    for contestant in contestants.values():
        contestant(encoder, pixels, sae, site, dict(list(push.items())[:2]), words)  # warm up
    wall, cpu, found = {name: [] for name in contestants}, {name: [] for name in contestants}, {}
    for _ in range(rounds):
        for name, run in contestants.items():
            begin, busy = time.perf_counter(), time.process_time()
            found[name] = run(encoder, pixels, sae, site, push, words)
            wall[name].append(time.perf_counter() - begin)
            cpu[name].append(time.process_time() - busy)
    gap = float((found["ours"].score - found["published"].score).abs().max())
    if encoder.dtype == torch.float32 and gap > 1e-3:
        raise SystemExit(f"{site}: scores differ by {gap:.1e}, so the times are not comparable")
    rate = {name: n_pictures * n_features / statistics.median(taken) for name, taken in wall.items()}
    work = statistics.median(cpu["published"]) / statistics.median(cpu["ours"])
    name = f"{encoder.spec}, {str(encoder.dtype).removeprefix('torch.')}, {site}"
    print(
        f"{name:<52}{rate['published']:>10.0f}{rate['ours']:>10.0f}{rate['ours'] / rate['published']:>8.1f}x"
        f"{work:>8.1f}x   {gap:.0e}, {float(found['ours'].score.max()):.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--encoder", nargs="*", default=["tiny"])
    args = parser.parse_args()
    print(
        f"{torch.get_num_threads()} threads; steered embeddings a second, the ratio by wall clock and by processor time"
    )
    print(f"{'':<52}{'published':>10}{'ours':>10}{'wall':>9}{'cpu':>9}   largest difference of scores, largest score")
    for spec in args.encoder:
        for dtype in args.dtypes:
            encoder = load_encoder(spec, dtype=dtype)
            for layer in dict.fromkeys(
                (encoder.n_layers // 4, encoder.n_layers // 2, encoder.n_layers - 2, encoder.n_layers - 1)
            ):
                compare(encoder, f"{layer}.resid_post", args.pictures, args.features, args.rounds)


if __name__ == "__main__":
    main()
