"""The study's inputs from pictures and an encoder, and its table: a row a dictionary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from experiments.ground_truth import RANKS, Facts, facts_table, known_facts
from experiments.metric_study.dictionaries import Entry
from experiments.metric_study.measures import StudyData, codes_and_reconstruction, feature_steerability, measure
from experiments.repeated_runs import STABILITY, UNKNOWN
from lib import SAE, metrics
from lib.activations.store import ActivationStore
from lib.devices import to_cpu
from lib.images.image_set import ImageSet
from lib.metrics.intervals import Interval


def by_picture(store: ActivationStore) -> Tensor:
    """(N, P, d) of a store of the patches of N pictures."""
    counts = store.image_index.unique_consecutive(return_counts=True)[1].unique()
    if len(counts) != 1:
        raise ValueError("the pictures of this store have different numbers of patches: extract tokens='spatial'.")
    return store[:].unflatten(0, (-1, int(counts)))


def shared_facts(train: ImageSet, images: ImageSet, least: int) -> tuple[Facts, Facts]:
    """The facts that are true and false of `least` pictures of both sets: as they are of each set."""
    tables = [facts_table(images) for images in (train, images)]
    known, n = known_facts(pd.concat(tables, ignore_index=True), least), len(tables[0])
    parts = known.truth[:n], known.truth[n:]
    enough = torch.stack([(p.sum(0) >= least) & ((~p).sum(0) >= least) for p in parts]).all(0)
    names = [name for name, kept in zip(known.names, enough.tolist(), strict=True) if kept]
    return tuple(Facts(names, part[:, enough]) for part in parts)


@dataclass(frozen=True)
class Classes:
    """The class of N pictures by one column of their facts: labels (N,), -1 for none, and classes by their parent."""

    labels: np.ndarray
    siblings: Mapping[str, list[int]]

    @classmethod
    def of(cls, images: ImageSet, column: str) -> Classes:
        """By a column of the facts table; where there is none, or it is empty, by the pictures' own labels.

        Siblings, three or more, share the narrowest rank of the taxonomy above the column's; none without a taxonomy.
        """
        table = facts_table(images)
        if column not in table:
            own = images.labels if images.labels is not None else np.full(len(images), -1)
            return cls(own, {})
        values = table[column].where(table[column].astype(str) != "")
        labels = pd.Categorical(values).codes.astype(int)
        depth = RANKS.index(column) if column in RANKS else 0
        return cls(labels, _siblings(labels, images.taxonomy or [()] * len(images), depth))


def _siblings(labels: np.ndarray, taxonomy: Sequence[Sequence[str]], depth: int) -> dict[str, list[int]]:
    path = {int(label): tuple(taxa)[:depth] for label, taxa in zip(labels, taxonomy, strict=True) if label >= 0}
    groups: dict[str, list[int]] = {}
    for rank in range(depth, 0, -1):
        taken = {label for classes in groups.values() for label in classes}
        parents: dict[tuple, list[int]] = {}
        for label in sorted(path.keys() - taken):
            parents.setdefault(path[label][:rank], []).append(label)
        groups |= {"/".join(taxa): classes for taxa, classes in parents.items() if taxa and len(classes) >= 3}
    return groups


def score_against_steerability(sae: SAE, data: StudyData, n: int = 2000) -> tuple[pd.DataFrame, Interval]:
    """Monosemanticity Score and steerability of single features, and their rank correlation over the features."""
    codes, _ = codes_and_reconstruction(sae, data.x)
    chosen, scores = feature_steerability(sae, codes, data.steered)
    mono = metrics.monosemanticity(codes.amax(1), data.judge)[chosen]
    rows = pd.DataFrame({"feature": chosen, "MS": mono.numpy(), "steerability": scores.numpy()}).dropna()
    pairs = torch.tensor(rows[["MS", "steerability"]].to_numpy(float))
    return rows, metrics.bootstrap(metrics.rank_correlation, pairs, n=n) if len(rows) > 3 else UNKNOWN


def table_of(saes: Mapping[Entry, SAE], data: StudyData, recovered: Mapping[Entry, float]) -> pd.DataFrame:
    """One row a dictionary: what it is, every metric, the truth. recovered: the accuracy that each brings back."""
    rows, alive = {}, {}
    for entry, sae in saes.items():
        codes, x_hat = codes_and_reconstruction(sae, data.x)
        rows[entry], alive[entry] = entry.as_row() | measure(sae, data, codes, x_hat), codes.amax((0, 1)) > 0
    stable = stability(saes, alive)
    for entry, row in rows.items():
        row |= {STABILITY: stable[entry], "accuracy recovered": recovered.get(entry, float("nan"))}
    return pd.DataFrame(rows.values())


def stability(saes: Mapping[Entry, SAE], alive: Mapping[Entry, Tensor]) -> dict[Entry, float]:
    """Mean cosine of live decoder rows with their matches in the runs with other seeds; NaN for a single run.

    alive: (F,) bool, which features are active on any patch.
    """
    found: dict[Entry, list[float]] = {entry: [] for entry in saes}
    for a, b in combinations(saes, 2):
        if a.without_seed == b.without_seed:
            rows = [to_cpu(saes[entry].W_dec) for entry in (a, b)]
            same = metrics.match_directions(*rows, alive[a], alive[b]).mean
            found[a].append(same)
            found[b].append(same)
    return {entry: float(np.mean(values)) if values else float("nan") for entry, values in found.items()}
