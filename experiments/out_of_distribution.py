"""Out-of-distribution detection: scores of pictures whose class a classifier has not learned, and their AUROC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from experiments.outliers import Gaussians, Profiles, auroc, auroc_gain
from experiments.probing import Pictures, Split, scaled
from lib.metrics.intervals import Interval

if TYPE_CHECKING:
    from scipy.sparse import csr_array

LEAST = 5  # pictures of a kind


def named_by(selection: str, table: pd.DataFrame) -> np.ndarray:
    """(N,) bool: rows that a selection `column is value, value ...` names; all for "" and for an unknown column."""
    column, _, values = selection.partition(" is ")
    if column not in table:
        return np.ones(len(table), bool)
    return table[column].astype(str).isin(values.split(", ")).to_numpy()


@dataclass(frozen=True)
class OODSplit:
    """Positions of training, test and out-of-distribution pictures.

    classes: (N,) of all pictures; train, test: pictures of learned classes; ood: pictures of other classes, by kind.
    """

    classes: np.ndarray
    train: np.ndarray
    test: np.ndarray
    ood: Mapping[str, np.ndarray]

    @classmethod
    def of(
        cls, table: pd.DataFrame, split: Split, label: str, base: np.ndarray, every: int, others: Sequence[str]
    ) -> OODSplit:
        """Hold out every n-th class, n = `every`. label: column of the classes (else "class"); base: (N,) bool, rows
        that show one; others: selections of more out-of-distribution pictures, for `named_by`."""
        label = label if label in table else "class"
        classes = table.get(label, pd.Series("", index=table.index))
        classes = classes.fillna("").astype(str).to_numpy()
        base = base & (classes != "")
        held_out = np.isin(classes, sorted(set(classes[base]))[::every])
        halves = np.concatenate([split.train, split.validation]), split.test
        train, test = (rows[base[rows] & ~held_out[rows]] for rows in halves)
        at_home = np.isin(np.arange(len(table)), np.concatenate(halves))
        ood = {f"held-out {label}": np.flatnonzero(base & held_out)}
        ood |= {
            one: np.flatnonzero(at_home & named_by(one, table)) for one in others if one.partition(" is ")[0] in table
        }
        return cls(classes, train, test, {name: rows for name, rows in ood.items() if len(rows) >= LEAST})

    def __bool__(self) -> bool:
        """Whether there are two classes to learn, test pictures, and out-of-distribution pictures."""
        return len(set(self.classes[self.train])) > 1 and len(self.test) > 1 and len(self.ood) > 0

    def scores(self, pictures: Pictures, pooling: str) -> tuple[dict[str, np.ndarray], list[float]]:
        """{score: (N,)} of all pictures, and the share of test pictures whose class is right, by raw and codes."""
        from sklearn.linear_model import LogisticRegression

        own, classes = pictures.codes[pooling], self.classes[self.train]
        raw, codes = scaled(pictures.raw[pooling], self.train), scaled(own, self.train)
        heads = [LogisticRegression(C=100, max_iter=300, tol=1e-3).fit(x[self.train], classes) for x in (raw, codes)]
        found = {
            "softmax, raw": 1 - heads[0].predict_proba(raw).max(1),
            "softmax, codes": 1 - heads[1].predict_proba(codes).max(1),
            "Mahalanobis, raw": Gaussians.fit(raw[self.train], classes).distance(raw),
            "profile, codes": self.profile(own),
            "error of the SAE": pictures.error,
            "active features": pictures.active,
        }
        right = [h.score(x[self.test], self.classes[self.test]) for h, x in zip(heads, (raw, codes), strict=True)]
        return found, right

    def profile(self, codes: csr_array) -> np.ndarray:
        """One less the cosine of codes (N, F) to the nearest class's mean: (N,)."""
        return Profiles.fit(codes[self.train], self.classes[self.train]).distance(codes)

    def auroc_by_kind(self, scores: Mapping[str, np.ndarray], n: int) -> dict[str, dict[str, Interval]]:
        """AUROC of each score, by kind of out-of-distribution pictures; n: resamples."""
        return {
            name: {score: auroc(values[rows], values[self.test], n=n) for score, values in scores.items()}
            for name, rows in self.ood.items()
        }

    def gain(self, scores: Mapping[str, np.ndarray], one: str, other: str, n: int) -> Interval:
        """AUROC of one score less that of another, averaged over kinds; n: resamples."""
        pair = np.stack([scores[one], scores[other]], axis=1)
        return auroc_gain([pair[rows] for rows in self.ood.values()], pair[self.test], n)

    def profile_gain(self, codes: csr_array, scores: Mapping[str, np.ndarray], n: int) -> Interval:
        """AUROC of the `profile` of codes (N, F) less that of Mahalanobis on raw activations; n: resamples."""
        return self.gain({**scores, "profile, codes": self.profile(codes)}, "profile, codes", "Mahalanobis, raw", n)

    def mean_auroc(self, values: np.ndarray) -> float:
        """AUROC of one score (N,), averaged over kinds."""
        return float(np.mean([auroc(values[rows], values[self.test], n=0).value for rows in self.ood.values()]))

    @property
    def description(self) -> str:
        """Numbers of training and test pictures, as text."""
        n_classes = len(set(self.classes[self.train]))
        return f"{len(self.train)} pictures of {n_classes} classes to learn from, {len(self.test)} to compare with"

    @property
    def describe_ood(self) -> str:
        """Numbers of out-of-distribution pictures by kind, as text."""
        return ", ".join(f"{len(rows)} of {name}" for name, rows in self.ood.items())
