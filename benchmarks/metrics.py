"""Score, Jaccard index and LCA depth on 50,000 images, against the published loops (2504.02821).

The published loops over pairs are written anew here from their description: of images for the score (all features at
once), of features for the Jaccard index (one Python set a side), of a feature's 16 images for the depth. Each loop runs
at doubling sizes until one takes more than a third of `--seconds`, or it reaches the full size; the growth of its time
from the last but one size to the last shows how it scales. To the full size it is extrapolated by the number of its
steps: pairs of images, pairs of features, features. lib runs at the loop's largest size, right after it and on the same
numbers, and at the full size. All in one run.

    python benchmarks/metrics.py [--images 50000] [--features 65536] [--embedding 768] [--seconds 30]
"""

from __future__ import annotations

import argparse
import math
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import torch
from monosemanticity import pair_loop
from torch import Tensor

from experiments.hierarchy import lca_depth
from lib.metrics import jaccard_counts, monosemanticity
from lib.metrics.columns import csr

K = 16  # images of a feature
ACTIVE = 20  # features of an image
RANKS = (3, 13, 51, 273, 1103, 4884, 10000)  # taxa at each rank of iNaturalist 2021


@dataclass(frozen=True)
class Contest:
    """A metric: its loop and lib at a size, the sizes, what they count, and the order of the loop's steps."""

    name: str
    unit: str
    loop: Callable[[int], object]
    ours: Callable[[int], object]
    start: int
    full: int
    order: int


def jaccard_loop(top_images: Tensor) -> list[float]:
    """The index of every pair of features, by Python sets."""
    rows, found = top_images.numpy(), []
    for i, j in combinations(range(len(rows)), 2):
        a, b = set(rows[i]), set(rows[j])
        found.append(len(a & b) / len(a | b))
    return found


def lca_loop(top_images: Tensor, paths: list[tuple[str, ...]]) -> list[int]:
    """Rounded mean depth of the lowest common ancestor over a feature's pairs of images."""
    found = []
    for row in top_images.tolist():
        depths = []
        for a, b in combinations([paths[image] for image in row], 2):
            depth = 0
            for mine, other in zip(a, b, strict=True):
                if mine != other:
                    break
                depth += 1
            depths.append(depth)
        found.append(round(sum(depths) / len(depths)))
    return found


def top_tables(n_features: int, n_images: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Top images `(F, K)`: popular by Zipf's law with exponents 0.5 and 1, and with 8 images that every feature has.

    Drawn with replacement: the more popular pictures come twice in a row, which then counts fewer.
    """
    rank, size = torch.arange(1, n_images + 1, dtype=torch.double), n_features * K
    tables = {
        name: (rank**-exponent).multinomial(size, replacement=True, generator=generator).view(n_features, K)
        for name, exponent in (("popularity ~ rank^-0.5", 0.5), ("popularity ~ 1 / rank", 1.0))
    }
    everyone = tables["popularity ~ rank^-0.5"].clone()
    everyone[:, : K // 2] = n_images + torch.arange(K // 2)
    return tables | {"8 images that all have": everyone}


def random_paths(n_images: int, generator: torch.Generator) -> list[tuple[str, ...]]:
    """Paths in a tree with as many taxa at each rank as iNaturalist."""
    leaf = torch.randint(RANKS[-1], (n_images,), generator=generator)
    ids = torch.stack([leaf * n // RANKS[-1] for n in RANKS], dim=1)
    return [tuple(map(str, row)) for row in ids.tolist()]


def sparse_codes(n_images: int, n_features: int, generator: torch.Generator) -> Tensor:
    """CSR codes `(N, F)` with ACTIVE features an image."""
    stride = n_features // ACTIVE  # one feature of each stretch, so that none comes twice
    features = torch.randint(stride, (n_images, ACTIVE), generator=generator) + stride * torch.arange(ACTIVE)
    offsets = torch.arange(0, n_images * ACTIVE + 1, ACTIVE)
    values = torch.rand(n_images * ACTIVE, generator=generator)
    return csr(offsets, features.flatten(), values, (n_images, n_features))


def first_rows(codes: Tensor, n: int) -> Tensor:
    """The first n rows of a CSR matrix."""
    offsets = codes.crow_indices()[: n + 1]
    stop = int(offsets[-1])
    return csr(offsets, codes.col_indices()[:stop], codes.values()[:stop], (n, codes.shape[1]))


def seconds(function: Callable[[int], object], size: int) -> float:
    started = time.perf_counter()
    function(size)
    return time.perf_counter() - started


def run(contest: Contest, budget: float) -> None:
    """Measure one contest and print its row."""
    size, times = contest.start, []
    while True:
        times.append((size, seconds(contest.loop, size)))
        if size >= contest.full or (len(times) > 1 and times[-1][1] > budget / 3):
            break
        size = min(2 * size, contest.full)
    contest.ours(contest.start)  # warm-up
    here, at_full = seconds(contest.ours, size), seconds(contest.ours, contest.full)
    loop = times[-1][1]
    (small, before), (large, after) = times[-2:]
    exponent = math.log(after / before) / math.log(large / small)
    extrapolated = loop * (contest.full / size) ** contest.order
    print(
        f"{contest.name:<34}{contest.unit + ' = ' + format(size, ','):>12}{loop:>9.1f} s{here * 1e3:>10.1f} ms"
        f"{loop / here:>9,.0f}x{exponent:>9.2f}{at_full:>10.2f} s{extrapolated / 3600:>12,.2f} h"
        f"{extrapolated / at_full:>14,.0f}x",
        flush=True,
    )


def contests(args: argparse.Namespace) -> list[Contest]:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(args.images, args.embedding, generator=generator)
    codes = sparse_codes(args.images, args.score_features, generator)
    paths = random_paths(args.images + K, generator)

    score = Contest(
        f"score, F = {args.score_features:,}", "N",
        lambda n: pair_loop(first_rows(codes, n).to_dense(), embeddings[:n], range(n)),
        lambda n: monosemanticity(first_rows(codes, n), embeddings[:n]),
        64, args.images, 2,
    )  # fmt: skip
    tables = top_tables(args.features, args.images, generator)
    overlaps = [
        Contest(
            f"Jaccard, {name}", "F",
            lambda f, top=top: jaccard_loop(top[:f]),
            lambda f, top=top: jaccard_counts(top[:f]),
            256, args.features, 2,
        )
        for name, top in tables.items()
    ]  # fmt: skip
    top = next(iter(tables.values()))
    depth = Contest(
        "LCA depth",
        "F",
        lambda f: lca_loop(top[:f], paths),
        lambda f: lca_depth(top[:f], paths),
        1024,
        args.features,
        1,
    )
    return [score, *overlaps, depth]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--features", type=int, default=65_536)
    parser.add_argument("--score-features", type=int, default=4096, help="features of the score's contest")
    parser.add_argument("--embedding", type=int, default=768, help="width of E (768: DINOv2 ViT-B)")
    parser.add_argument("--seconds", type=float, default=30.0, help="what a loop may take at its largest size, roughly")
    args = parser.parse_args()
    print(f"N = {args.images:,}, F = {args.features:,}, E = {args.embedding}, {torch.get_num_threads()} threads")
    print(
        f"{'':<34}{'loop at':>12}{'it takes':>11}{'lib':>13}{'ratio':>10}{'grows as':>9}{'lib, full':>12}"
        f"{'loop, full':>14}{'ratio':>15}"
    )
    for contest in contests(args):
        run(contest, args.seconds)
    codes = sparse_codes(args.images, args.features, torch.Generator().manual_seed(0))
    embeddings = torch.randn(args.images, args.embedding)
    took = seconds(lambda n: monosemanticity(codes, embeddings[:n]), args.images)
    print(f"score of all {args.features:,} features on all {args.images:,} images: {took:.1f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"largest memory of the whole run, data included: {peak:.1f} GiB")


if __name__ == "__main__":
    main()
