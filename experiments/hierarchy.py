"""Features in a taxonomy of the pictures (arXiv 2504.02821: table 2 of version 1, table A8 of version 3)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, TypedDict

import numpy as np
import torch
from torch import Tensor

from lib.devices import metric
from lib.metrics.columns import check_matrix

Path = Sequence[str]


class Parents(NamedTuple):
    """Parent of each feature: that of the level before which it co-activates with most; -1 and NaN for none."""

    feature: Tensor  # (F,) int64
    conditional: Tensor  # (F,) P(parent active | feature active)
    lift: Tensor  # (F,) the same over P(parent active): 1 is chance


class Level(TypedDict):
    """One level of nested prefixes: features `start … end - 1`, statistics of their values (NaN: none live)."""

    level: int
    start: int
    end: int
    mean: float
    std: float
    max: float
    min: float
    live: int
    dead: int
    excluded: int


@metric(on="cpu")
def lca_depth(top_images: Tensor, paths: Sequence[Path]) -> Tensor:
    """Mean depth of the lowest common ancestor of two of a feature's top images.

    top_images: `(F, k)` integers, one row of image indices per feature, k >= 2; -1 stands for no image. paths: per
    image its taxa from the widest to the narrowest; they may differ in length, and an image without any, `()`, shares
    no ancestor with another. Returns `(F,)` float64: ranks that two images have in common, 0 for not even the first;
    NaN for a feature with fewer than k images, which the paper's code excludes. `.round()` gives that code's value
    for a feature (an integer; both round halves to even).

    Two images' ancestor has depth d when they agree on their first d taxa, so the mean over all pairs is the sum over
    ranks of the share of pairs that agree down to this rank, from counts without a loop over pairs.

    Raises ValueError for a wrong shape or an index without a path.
    """
    agreeing, pairs = _agreeing_pairs(top_images, paths)
    return agreeing.sum(1) / pairs


@metric(on="cpu")
def majority_depth(top_images: Tensor, paths: Sequence[Path]) -> Tensor:
    """The commonest depth of a pair's lowest common ancestor, as the paper's code also prints; arguments as above.

    Returns `(F,)` float64. Of depths that are equally common the least is taken (the code takes the one it meets
    first).
    """
    agreeing, pairs = _agreeing_pairs(top_images, paths)
    everyone = pairs.nan_to_num(0).long()[:, None]
    at_least = torch.cat([everyone, agreeing, torch.zeros_like(everyone)], dim=1)  # (F, R + 2) pairs, by least depth
    common = (at_least[:, :-1] - at_least[:, 1:]).argmax(1).double()
    return torch.where(pairs.isnan(), torch.nan, common)


@metric(on="cpu")
def clades(top_images: Tensor, paths: Sequence[Path], share: float = 0.75) -> list[tuple[str, ...]]:
    """For each feature the narrowest taxon that holds at least `share` of its images, as the path to it.

    Arguments as above, but missing images are left out of the count; `()` where no taxon holds enough of them, or
    where there is no image. With `share` = 1 it is the lowest common ancestor of all images. Raises ValueError unless
    0.5 < share <= 1: else two taxa could both qualify.
    """
    if not 0.5 < share <= 1:
        raise ValueError(f"share is {share}: choose more than 0.5, so that one taxon at most holds it, and at most 1.")
    ids, taxa = _taxa_of(top_images, paths)
    enough = share * (top_images >= 0).sum(1).double() - 1e-9
    found: list[tuple[str, ...]] = [()] * len(ids)
    for rank, named in enumerate(taxa):  # a narrower taxon replaces a wider one
        commonest = ids[:, rank].mode(1).values
        held = (ids[:, rank] == commonest[:, None]).sum(1)
        for feature in ((commonest < len(named)) & (held >= enough)).nonzero().flatten().tolist():
            found[feature] = named[commonest[feature]]
    return found


@metric(on="cpu")
def parents(codes: Tensor, group_ends: Sequence[int], min_lift: float = 1.0) -> Parents:
    """Co-activation tree of nested levels: for each feature its parent in the level before its own.

    codes: `(N, F)` dense or CSR; above zero is active. The parent is the feature of the level before with the highest
    P(parent active | feature active), of equals the one of the higher lift, among those whose lift over P(parent
    active) is more than `min_lift`: this excludes features that are active on nearly all images. Features of the
    first level, dead features and those without such a feature have no parent.

    Raises ValueError unless the levels' ends rise to F.
    """
    n_images, n_features = codes.shape
    ends = _checked_ends(group_ends, n_features)
    active = _indicator(codes)  # (N, F)
    frequency = np.asarray(active.sum(axis=0)).ravel() / n_images
    feature = torch.full((n_features,), -1)
    conditional, lift = torch.full((2, n_features), torch.nan)
    for before, start, end in zip(ends, ends[1:], ends[2:], strict=False):
        together = (active[:, start:end].T @ active[:, before:start]).tocoo()
        child, parent = together.row + start, together.col + before
        share = together.data / (n_images * frequency[child])
        over_chance = share / frequency[parent]
        order = np.lexsort((parent, -over_chance, -share, child))
        order = order[over_chance[order] > min_lift + 1e-9]
        child, first = np.unique(child[order], return_index=True)
        best = order[first]
        feature[child] = torch.from_numpy(parent[best].astype(np.int64))
        conditional[child], lift[child] = (torch.from_numpy(x[best]).float() for x in (share, over_chance))
    return Parents(feature, conditional, lift)


@metric(unknown=("values",), on="cpu")
def by_level(values: Tensor, group_ends: Sequence[int], alive: Tensor) -> list[Level]:
    """Values `(F,)` summarised for each of the levels that end at `group_ends` (`SAEConfig.group_ends`), coarse first.

    alive: `(F,)` bool. A feature is dead where it is not alive, excluded where it is alive but has no value (NaN), and
    else live; only the live count in mean, std (of the population), max and min.

    Raises ValueError unless the levels' ends rise to F.
    """
    ends = _checked_ends(group_ends, len(values))
    return [_level(number, start, end, values, alive) for number, (start, end) in enumerate(pairwise(ends))]


def _checked_ends(group_ends: Sequence[int], n_features: int) -> list[int]:
    ends = [0, *group_ends]
    if ends[-1] != n_features or any(b <= a for a, b in pairwise(ends)):
        raise ValueError(f"levels must end at rising widths up to F = {n_features}, got {tuple(group_ends)}.")
    return ends


def _indicator(codes: Tensor):
    """Which features are active on which images: (N, F) scipy CSR of ones."""
    from scipy.sparse import csr_matrix

    check_matrix(codes, "codes")
    sparse = codes if codes.layout == torch.sparse_csr else codes.to_sparse_csr()
    parts = (part.numpy() for part in (sparse.values() > 0, sparse.col_indices(), sparse.crow_indices()))
    active = csr_matrix(tuple(parts), shape=tuple(codes.shape), dtype=np.int32)
    active.eliminate_zeros()
    return active


def _level(number: int, start: int, end: int, values: Tensor, alive: Tensor) -> Level:
    here, living = values[start:end].double(), alive[start:end]
    shown = here[living & ~here.isnan()]
    values = [shown.mean(), shown.std(correction=0), shown.max(), shown.min()] if len(shown) else [torch.nan] * 4
    mean, std, high, low = map(float, values)
    dead = int((~living).sum())
    excluded = len(here) - dead - len(shown)
    return Level(
        level=number, start=start, end=end, mean=mean, std=std, max=high, min=low,
        live=len(shown), dead=dead, excluded=excluded,
    )  # fmt: skip


def _agreeing_pairs(top_images: Tensor, paths: Sequence[Path]) -> tuple[Tensor, Tensor]:
    """Pairs of a feature's images that agree down to each rank, (F, R) int64, and all its pairs (F,), NaN if excluded.

    In a sorted row an entry pairs with those before it in its run of equals.
    """
    ids, _ = _taxa_of(top_images, paths)
    ordered = ids.sort(dim=2).values
    place = torch.arange(ids.shape[2]).expand_as(ids)
    begins = torch.ones_like(ordered, dtype=torch.bool)
    begins[:, :, 1:] = ordered[:, :, 1:] != ordered[:, :, :-1]
    run_start = torch.where(begins, place, 0).cummax(dim=2).values
    k = ids.shape[2]
    pairs = torch.full((len(ids),), k * (k - 1) / 2, dtype=torch.double)
    incomplete = (top_images < 0).any(1)
    return (place - run_start).sum(2), pairs.masked_fill(incomplete | (k < 2), torch.nan)


def _taxa_of(top_images: Tensor, paths: Sequence[Path]) -> tuple[Tensor, list[list[tuple[str, ...]]]]:
    """Numbers (F, R, k) of the taxa that hold each image at each rank, and the path of each numbered taxon by rank.

    A taxon is a whole path from the top, so namesakes below different ancestors differ. What has no taxon at a rank
    gets a number above all taxa, different within a row: it agrees with nothing.
    """
    if top_images.dim() != 2 or top_images.is_floating_point():
        raise ValueError(f"top_images must be (F, k) integers, got {tuple(top_images.shape)} {top_images.dtype}.")
    top = top_images.long()
    highest = int(top.max()) if top.numel() else 0
    if highest >= len(paths) or not paths:
        raise ValueError(f"top_images name image {highest}, but there are paths for {len(paths)} images only.")
    distinct: dict[tuple[str, ...], int] = {}
    numbers = [distinct.setdefault(tuple(path), len(distinct)) for path in paths]
    of_image = torch.tensor(numbers, dtype=torch.long)  # (N,)
    n_ranks = max(map(len, distinct), default=0)
    taxa = [sorted({path[: rank + 1] for path in distinct if len(path) > rank}) for rank in range(n_ranks)]
    number = [{taxon: i for i, taxon in enumerate(named)} for named in taxa]
    rows = [[number[rank].get(path[: rank + 1], -1) for rank in range(n_ranks)] for path in distinct]
    table = torch.tensor(rows, dtype=torch.long).reshape(len(distinct), n_ranks)
    ids = table[of_image[top.clamp_min(0)]].masked_fill(top[:, :, None] < 0, -1).transpose(1, 2)  # (F, R, k)
    sizes = torch.tensor([len(named) for named in taxa], dtype=torch.long)[:, None]
    nothing = sizes + torch.arange(top.shape[1])  # (R, k)
    return torch.where(ids < 0, nothing, ids), taxa
