"""Scores of features against known facts.

Where facts about every picture are known, a monosemantic feature should be a detector of one of them. All tables are
`(F, C)`: every feature against every fact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lib.devices import bring, metric, to_cpu
from lib.metrics.columns import ColumnBlock, check_matrix, csr, sorted_columns, transposed_csr
from lib.metrics.intervals import Interval

if TYPE_CHECKING:
    import pandas as pd

    from lib.images.image_set import ImageSet

RANKS = ("kingdom", "phylum", "class", "order", "family", "genus", "species")
_TAILS = torch.tensor([0.025, 0.975], dtype=torch.double)
MAX_LEVELS = 4096  # most values of one column in `oracle_embeddings`: ImageNet's classes, iNaturalist's families


@dataclass(frozen=True)
class Facts:
    """Yes-or-no facts about N images: `names` such as "species=owl", and `truth` `(N, C)` bool."""

    names: list[str]
    truth: Tensor

    @property
    def share(self) -> Tensor:
        """`(C,)` share of the images of which each fact is true, on the CPU."""
        return to_cpu(self.truth).double().mean(0).float()


def facts_table(images: ImageSet) -> pd.DataFrame:
    """The facts table of N images, one row each: their facts; else the ranks of their taxonomy, coarsest first; else a
    column `class` of labels; else no column.
    """
    import pandas as pd

    if images.facts is not None:
        return images.facts
    if images.taxonomy is not None:
        depth = max(map(len, images.taxonomy))
        paths = [[*path, *[""] * (depth - len(path))] for path in images.taxonomy]
        return pd.DataFrame(paths, columns=rank_names(depth))
    if images.labels is None:
        return pd.DataFrame(index=range(len(images)))
    names = [*images.class_names, ""]  # the last one is label -1: no class
    return pd.DataFrame({"class": [names[label] for label in images.labels]})


def rank_names(depth: int) -> list[str]:
    """Names of the ranks of a taxonomy of this depth, coarsest first."""
    return list(RANKS) if depth == len(RANKS) else [f"rank {i + 1}" for i in range(depth)]


def known_facts(table: pd.DataFrame, min_support: int = 20, max_levels: int = 256) -> Facts:
    """One yes-or-no fact for each value of each categorical, boolean or small-integer column of a facts table.

    A fact must be true of at least `min_support` images and false of as many. Missing values and empty strings are no
    facts; columns of real numbers, and those with more than `max_levels` values, are left out; of facts true of the
    same images the first is kept. C may be 0, and scores are then NaN.
    """
    names, columns, seen = [], [], set()
    for column in table.columns:
        values = table[column]
        kind = values.dtype.kind
        if kind in "fcmM" or (kind in "iu" and values.nunique() > 32) or values.nunique() > max_levels:
            continue
        for level, support in values[values.notna() & (values.astype(str) != "")].value_counts().sort_index().items():
            if kind == "b" and not level:
                continue  # "not X" says the same as "X"
            truth = (values == level).to_numpy(dtype=bool)
            if min_support <= support <= len(table) - min_support and truth.tobytes() not in seen:
                seen.add(truth.tobytes())
                names.append(f"{column}={level}" if kind != "b" else str(column))
                columns.append(truth)
    truth = np.stack(columns, axis=1) if columns else np.zeros((len(table), 0), dtype=bool)
    return Facts(names, torch.from_numpy(truth))


def oracle_embeddings(table: pd.DataFrame, min_support: int = 1) -> Tensor:
    """Image embeddings `(N, C)` of the facts themselves, one-hot and centred, as E of the Monosemanticity Score.

    The cosine of two images is then about 0 for unrelated ones and nears 1 the more (and the rarer) facts they share.
    """
    truth = known_facts(table, min_support, MAX_LEVELS).truth.float()
    return truth - truth.mean(0)


@metric(unknown=("table",))
def of_best_fact(table: Tensor) -> Tensor:
    """`(F,)` the largest value of each feature in an `(F, C)` table; NaN where no fact is known."""
    return table.amax(1) if table.shape[1] else table.new_full((len(table),), math.nan)


@metric()
def auc(activations: Tensor, facts: Facts) -> Tensor:
    """Area under the ROC curve, `(F, C)`: the probability that an image with the fact activates the feature more.

    activations: `(N, F)` dense or CSR. Ties count one half, exactly (average ranks); the sums are one sparse product of
    ranks and facts.
    """
    truth = _checked(activations, facts).double()
    n_images, positives = len(truth), truth.sum(0)  # (C,)
    tables = []
    for block in sorted_columns(activations):
        ranks, zero_rank = _average_ranks(block, n_images)
        above_zero = _by_feature(block, ranks - zero_rank[block.feature], n_images) @ truth  # (f, C)
        rank_sums = above_zero + zero_rank[:, None] * positives
        tables.append((rank_sums - positives * (positives + 1) / 2) / (positives * (n_images - positives)))
    return torch.cat(tables).float()


@metric()
def best_f1(activations: Tensor, facts: Facts, above_chance: bool = False, cells: int = 1 << 22) -> Tensor:
    """F1 of "activation >= t" as a detector of each fact, at the best threshold t for each pair: `(F, C)`.

    Every threshold between two activations is tried, and the one that calls every image positive; in CSR codes,
    thresholds up to zero count as that one. `above_chance` rescales (F1 - base) / (1 - base) with the base of
    calling every image positive: a fact true of most images is then no easy match. `cells` bounds the memory.
    """
    truth = _checked(activations, facts).float()  # counts stay exact: a block holds far fewer than 2^24 entries
    n_images, positives = len(truth), truth.sum(0)
    everything = 2 * positives / (n_images + positives)  # (C,)
    tables = []
    for block in sorted_columns(activations, entries=max(n_images, cells // max(1, truth.shape[1]))):
        found = truth[block.image].cumsum(0)  # (nnz, C); true positives up to here, the features before included
        first = block.counts.cumsum(0) - block.counts
        before = torch.cat([torch.zeros_like(found[:1]), found])[first]  # (f, C)
        place = torch.arange(len(block.value), device=truth.device) - first[block.feature] + 1
        f1 = found.sub_(before[block.feature]).mul_(2).div_(place[:, None] + positives)
        # a threshold inside a tie cannot be; one up to zero also takes the images that are not stored
        possible = _last_of_tie(block) & ((block.value > 0) | (block.counts[block.feature] == n_images))
        best = torch.segment_reduce(f1.mul_(possible[:, None]), "max", lengths=block.counts, initial=0)
        tables.append(torch.maximum(best, everything))
    table = torch.cat(tables)
    return (table - everything) / (1 - everything) if above_chance else table


@metric()
def mutual_information(activations: Tensor, facts: Facts) -> Tensor:
    """Mutual information, in bits, of "active" (above zero) and each fact, `(F, C)`.

    The plug-in estimate less its chance level 1 / (2 N ln 2), the Miller-Madow correction for a 2 x 2 table, and not
    below 0: no permutations are drawn.
    """
    truth = _checked(activations, facts).double()
    n_images, positives = len(truth), truth.sum(0)
    if activations.layout == torch.strided:
        active = (activations > 0).double().t()
    else:
        columns = transposed_csr(activations)
        active = csr(columns.crow_indices(), columns.col_indices(), (columns.values() > 0).double(), columns.shape)
    both = active @ truth  # (F, C) images active with the fact
    on = (active @ truth.new_ones(n_images, 1)).squeeze(1)[:, None]  # (F, 1)
    cells = (both, on - both, positives - both, n_images - on - positives + both)
    entropy = _entropy_terms(torch.stack(cells) / n_images).sum(0)
    sides = sum(_entropy_terms(side / n_images) for side in (on, n_images - on, positives, n_images - positives))
    chance = 1 / (2 * n_images * np.log(2))
    return (sides - entropy - chance).clamp_min(0).float()


@metric()
def purity(top_images: Tensor, facts: Facts, above_chance: bool = False) -> Tensor:
    """Share of a feature's top images of which the fact is true, `(F, C)`; NaN for a feature without top images.

    top_images: `(F, k)` indices, -1 for none. `above_chance` rescales (share - base) / (1 - base), so that 0 is what
    images drawn at random give and 1 is all of them.
    """
    shown = top_images >= 0
    truth = bring(facts.truth, top_images)
    tables = []
    for rows, valid in zip(top_images.split(4096), shown.split(4096), strict=True):
        hits = (truth[rows.clamp_min(0)] & valid[..., None]).sum(1)  # (f, C)
        tables.append(hits / valid.sum(1, keepdim=True))
    share = torch.cat(tables)
    base = bring(facts.share, share)
    return (share - base) / (1 - base) if above_chance else share


@metric()
def focus(top_images: Tensor, facts: Facts) -> Tensor:
    """Information of a feature's top images about each fact, in bits an image: `(F, C)`, NaN without top images.

    The Kullback-Leibler divergence of the fact's share among them from its share among all images; 0 where it is no
    larger there. Unlike purity it is low for facts that are true of most images: images that all show one of
    64 species have 6 bits, images that all show some animal hardly any.
    """
    share = purity(top_images, facts).double()
    base = facts.share.double()
    bits = torch.xlogy(share, share / base) + torch.xlogy(1 - share, (1 - share) / (1 - base))
    return torch.where(share < base, 0, bits / np.log(2)).float()


@metric()
def best_facts(activations: Tensor, top_images: Tensor, facts: Facts) -> pd.DataFrame:
    """Each feature's best fact by AUC, one row a feature.

    Columns: fact, auc, f1, purity, purity_above_chance, information (bits), share (of all images with the fact).
    Dead and constant features have no best fact, nor has any feature without facts: None and NaN.
    """
    import pandas as pd

    table = auc(activations, facts)
    if not facts.names:
        names = ("auc", "f1", "purity", "purity_above_chance", "information", "share")
        return pd.DataFrame({"fact": [None] * len(table)} | dict.fromkeys(names, math.nan))
    best_auc, best = table.max(1)
    pick = (torch.arange(len(best)), best)
    columns = {
        "auc": best_auc,
        "f1": best_f1(activations, facts)[pick],
        "purity": purity(top_images, facts)[pick],
        "purity_above_chance": purity(top_images, facts, above_chance=True)[pick],
        "information": mutual_information(activations, facts)[pick],
        "share": facts.share[best],
    }
    frame = pd.DataFrame({name: column.numpy() for name, column in columns.items()})
    frame.insert(0, "fact", [facts.names[i] for i in best.tolist()])
    dead = (table == 0.5).all(1).numpy()
    frame["fact"] = frame["fact"].astype(object).where(~dead, None)
    frame.loc[dead, list(columns)] = float("nan")
    return frame


@metric(unknown=("score", "truth"), on="cpu")
def agreement_by_difference(
    score: Tensor, truth: Tensor, edges: list[float], n_bootstrap: int = 500, seed: int = 0
) -> pd.DataFrame:
    """Share of pairs of features whose order by score agrees with that by truth, by bins of the score difference.

    The known-facts counterpart of the paper's user study (arXiv 2504.02821, appendix C). score, truth: `(F,)`; features
    where either is NaN are left out. All pairs count, ties in the truth one half. One row per bin `[edges[b],
    edges[b + 1])`: low, high, pairs, agreement and its 95 % interval, from resampling features (pairs share features).
    """
    import pandas as pd

    pairs, shares = _agreement(score, truth, edges, n_bootstrap, seed)
    lower, upper = shares[:, 1:].nanquantile(_TAILS, dim=1)
    columns = {"pairs": pairs.long(), "agreement": shares[:, 0], "lower": lower, "upper": upper}
    return pd.DataFrame(
        {"low": edges[:-1], "high": edges[1:]} | {name: column.numpy() for name, column in columns.items()}
    )


@metric(unknown=("score", "truth"), on="cpu")
def agreement_growth(
    score: Tensor, truth: Tensor, edges: list[float], n_bootstrap: int = 500, seed: int = 0, min_pairs: int = 100
) -> Interval:
    """Agreement in the highest bin of score differences minus that in the lowest; arguments as above.

    Only bins of at least `min_pairs` pairs count. Both shares come from the same resampled features. NaN where fewer
    than two bins are left.
    """
    pairs, shares = _agreement(score, truth, edges, n_bootstrap, seed)
    filled = shares[pairs >= min_pairs]
    if len(filled) < 2:
        return Interval(math.nan)
    growth = filled[-1] - filled[0]
    low, high = growth[1:].nanquantile(_TAILS).tolist()
    return Interval(float(growth[0]), low, high)


def _agreement(score: Tensor, truth: Tensor, edges: list[float], n_bootstrap: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pairs in each bin `(bins,)`; the share that agrees `(bins, 1 + n_bootstrap)`: as it is, then resampled."""
    known = ~(score.isnan() | truth.isnan())
    score, truth = score[known].double(), truth[known].double()
    n, n_bins = len(score), len(edges) - 1
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(max(n, 1), (n_bootstrap, n), generator=generator)
    weights = torch.ones(n, 1 + n_bootstrap)  # how often a feature counts: once, then as often as it is drawn
    weights[:, 1:] = torch.zeros(n_bootstrap, n).scatter_add_(1, draws, torch.ones(draws.shape)).t()

    bounds = torch.tensor(edges, dtype=torch.double)
    sums = torch.zeros(n_bins, 2, 1 + n_bootstrap, dtype=torch.double)  # agreeing and all pairs
    for some in torch.arange(n).split(512):
        difference = score[some, None] - score  # (b, n); each pair is met twice
        agrees = ((torch.sign(difference) * torch.sign(truth[some, None] - truth)) + 1) / 2
        bins = torch.bucketize(difference.abs(), bounds, right=True) - 1
        for b in range(n_bins):
            inside = (bins == b) & (difference != 0)
            for part, pairs in enumerate((inside * agrees, inside)):
                sums[b, part] += ((pairs.float() @ weights) * weights[some]).sum(0, dtype=torch.double) / 2
    return sums[:, 1, 0], sums[:, 0] / sums[:, 1]


def _checked(activations: Tensor, facts: Facts) -> Tensor:
    check_matrix(activations)
    if len(facts.truth) != len(activations):
        raise ValueError(f"the facts are about {len(facts.truth)} images, the activations about {len(activations)}.")
    return bring(facts.truth, activations)


def _last_of_tie(block: ColumnBlock) -> Tensor:
    """`(nnz,)` bool: the entry after this one has another value or belongs to another feature."""
    last = torch.ones_like(block.feature, dtype=torch.bool)
    last[:-1] = (block.value[1:] != block.value[:-1]) | (block.feature[1:] != block.feature[:-1])
    return last


def _average_ranks(block: ColumnBlock, n_images: int) -> tuple[Tensor, Tensor]:
    """Ascending 1-based ranks of the stored entries `(nnz,)` among all images, and of a zero `(f,)`; ties averaged."""
    device = block.value.device
    first = block.counts.cumsum(0) - block.counts
    positive = torch.zeros_like(block.counts).index_add_(0, block.feature, (block.value > 0).long())
    negative = torch.zeros_like(block.counts).index_add_(0, block.feature, (block.value < 0).long())
    zeros = n_images - positive - negative
    zero_rank = negative + (zeros + 1) / 2

    last = _last_of_tie(block)
    tie = torch.cat([torch.zeros(1, dtype=torch.long, device=device), last.long().cumsum(0)[:-1]])[: len(last)]
    place = torch.arange(len(last), device=device) - first[block.feature]  # 0-based from the largest stored value
    ends = place[last]
    sizes = tie.bincount(minlength=len(ends))
    middle = (ends - (sizes - 1) / 2)[tie]  # mean place of the tie
    unstored = n_images - block.counts[block.feature]
    ranks = n_images - middle - torch.where(block.value < 0, unstored, 0)
    return torch.where(block.value == 0, zero_rank[block.feature], ranks).double(), zero_rank.double()


def _by_feature(block: ColumnBlock, values: Tensor, n_images: int) -> Tensor:
    """The block's entries as an `(f, N)` CSR matrix that holds `values` in place of the activations."""
    bounds = torch.cat([torch.zeros_like(block.counts[:1]), block.counts.cumsum(0)])
    order = (block.feature * n_images + block.image).argsort()
    return csr(bounds, block.image[order], values[order], (block.width, n_images))


def _entropy_terms(p: Tensor) -> Tensor:
    """-p log2 p, 0 at 0."""
    return -torch.xlogy(p, p) / np.log(2)
