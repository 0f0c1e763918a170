"""Scores by which a classifier notices pictures of no class that it knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.outliers import Gaussians, Profiles, auroc, auroc_gain
from experiments.probing import Pictures, Split, scaled
from lib.metrics.intervals import Interval

LEAST = 5  # strangers of a kind


def named_by(selection: str, table: pd.DataFrame) -> np.ndarray:
    """(N,) bool: pictures that `column is value, value ...` names; all for "", and where there is no such column."""
    column, _, values = selection.partition(" is ")
    if column not in table:
        return np.ones(len(table), bool)
    return table[column].astype(str).isin(values.split(", ")).to_numpy()


@dataclass(frozen=True)
class Strangers:
    """Who is learned, who is known and who is strange, as positions of pictures.

    classes: (N,) of each picture; learn: pictures of the learned classes to learn from; test: others of these classes;
    strange: by kind, pictures of classes that are not learned.
    """

    classes: np.ndarray
    learn: np.ndarray
    test: np.ndarray
    strange: Mapping[str, np.ndarray]

    @classmethod
    def of(
        cls, table: pd.DataFrame, split: Split, label: str, base: np.ndarray, every: int, others: Sequence[str]
    ) -> Strangers:
        """label: the column of the classes, every so manieth of which is strange; base: (N,) bool, the pictures that
        show them; others: selections of strange pictures, as `named_by` reads them."""
        classes = table.get(label, table.get("class", pd.Series("", index=table.index)))
        classes = classes.fillna("").astype(str).to_numpy()
        base = base & (classes != "")
        unlearned = np.isin(classes, sorted(set(classes[base]))[::every])
        halves = np.concatenate([split.train, split.validation]), split.test
        learn, test = (rows[base[rows] & ~unlearned[rows]] for rows in halves)
        at_home = np.isin(np.arange(len(table)), np.concatenate(halves))
        strange = {f"held-out {label}": np.flatnonzero(base & unlearned)}
        strange |= {
            one: np.flatnonzero(at_home & named_by(one, table)) for one in others if one.partition(" is ")[0] in table
        }
        return cls(classes, learn, test, {name: rows for name, rows in strange.items() if len(rows) >= LEAST})

    def __bool__(self) -> bool:
        """Whether there are two classes to learn, pictures to compare with, and strangers."""
        return len(set(self.classes[self.learn])) > 1 and len(self.test) > 1 and len(self.strange) > 0

    def scores(self, pictures: Pictures, pooling: str) -> tuple[dict[str, np.ndarray], list[float]]:
        """{score: (N,)} of all pictures, and the share of test pictures whose class is right, by raw and codes."""
        from sklearn.linear_model import LogisticRegression

        own, classes = pictures.codes[pooling], self.classes[self.learn]
        raw, codes = scaled(pictures.raw[pooling], self.learn), scaled(own, self.learn)
        heads = [LogisticRegression(C=100, max_iter=300, tol=1e-3).fit(x[self.learn], classes) for x in (raw, codes)]
        found = {
            "softmax, raw": 1 - heads[0].predict_proba(raw).max(1),
            "softmax, codes": 1 - heads[1].predict_proba(codes).max(1),
            "Mahalanobis, raw": Gaussians.fit(raw[self.learn], classes).distance(raw),
            "profile, codes": Profiles.fit(own[self.learn], classes).distance(own),
            "error of the SAE": pictures.error,
            "active features": pictures.active,
        }
        right = [h.score(x[self.test], self.classes[self.test]) for h, x in zip(heads, (raw, codes), strict=True)]
        return found, right

    def noticed(self, scores: Mapping[str, np.ndarray], n: int) -> dict[str, dict[str, Interval]]:
        """AUROC by kind of strangers and score."""
        return {
            name: {score: auroc(values[rows], values[self.test], n=n) for score, values in scores.items()}
            for name, rows in self.strange.items()
        }

    def gain(self, scores: Mapping[str, np.ndarray], one: str, other: str, n: int) -> Interval:
        """AUROC of one score less that of another, over all strangers."""
        pair = np.stack([scores[one], scores[other]], axis=1)
        return auroc_gain([pair[rows] for rows in self.strange.values()], pair[self.test], n)

    def mean_auroc(self, values: np.ndarray) -> float:
        """Of one score (N,), averaged over the kinds of strangers."""
        return float(np.mean([auroc(values[rows], values[self.test], n=0).value for rows in self.strange.values()]))

    @property
    def told(self) -> str:
        """How many pictures there are to learn from."""
        n_classes = len(set(self.classes[self.learn]))
        return f"{len(self.learn)} pictures of {n_classes} classes to learn from, {len(self.test)} to compare with"

    @property
    def told_strange(self) -> str:
        """How many pictures there are of each kind of strangers."""
        return ", ".join(f"{len(rows)} of {name}" for name, rows in self.strange.items())
