"""Linear probes of facts on pooled activations and codes.

A picture's vector is that of the CLS token, or the mean or maximum over all tokens. Probes are logistic regressions of
scikit-learn: trained on training pictures, their penalty chosen on validation pictures, scored on test pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product, zip_longest
from typing import TYPE_CHECKING

import numpy as np
import torch

from experiments.ground_truth import Facts
from lib.activations.store import ActivationStore
from lib.devices import bring, to_numpy
from lib.sae.model import SAE

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_array

    Vectors = np.ndarray | csr_array
    """(N, D) float32, one row a picture."""

MAX_CODES = 1 << 25  # dense codes in memory at once
POOLINGS = ("cls", "mean", "max")
STRENGTHS = (1.0, 10.0, 100.0, 1000.0)
"""Inverse weights of the L2 penalty (C) to choose from, for rows of mean square length 1."""


@dataclass(frozen=True)
class Pictures:
    """N pictures at one site: pooled activations `raw` (N, d) and `codes` (N, F), by pooling.

    error (N,): squared error of the SAE over the squared norm of the tokens; active (N,): features active on any token.
    """

    raw: dict[str, np.ndarray]
    codes: dict[str, csr_array]
    error: np.ndarray
    active: np.ndarray


def joined(several: Sequence[Pictures]) -> Pictures:
    """Concatenate sets of pictures."""
    from scipy.sparse import vstack

    poolings = several[0].raw
    return Pictures(
        {pooling: np.concatenate([pictures.raw[pooling] for pictures in several]) for pooling in poolings},
        {pooling: vstack([pictures.codes[pooling] for pictures in several], format="csr") for pooling in poolings},
        np.concatenate([pictures.error for pictures in several]),
        np.concatenate([pictures.active for pictures in several]),
    )


@torch.no_grad()
def read_pictures(store: ActivationStore, sae: SAE, poolings: Sequence[str] = POOLINGS) -> Pictures:
    """Pool the activations of a store of all tokens, and the SAE's codes of them, some pictures at a time.

    "cls" is the first token: leave it out for an encoder without a CLS token. Raises ValueError for an unknown pooling
    and for a store that holds other tokens than all.
    """
    from scipy.sparse import csr_array

    n_images, n_tokens = _shape(store, poolings)
    images = max(1, MAX_CODES // (n_tokens * sae.n_features))
    parts = []
    for start in range(0, n_images, images):
        size = min(images, n_images - start)
        x = store[start * n_tokens : (start + size) * n_tokens].unflatten(0, (size, n_tokens))
        x = bring(x, sae)  # (B, T, d)
        f = sae.encode(x)  # (B, T, F)
        missed = (x - sae.decode(f, x)).square().sum((1, 2))
        parts.append(
            Pictures(
                {pooling: to_numpy(pool(x, pooling)) for pooling in poolings},
                {pooling: csr_array(to_numpy(pool(f, pooling))) for pooling in poolings},
                to_numpy(missed / x.square().sum((1, 2))),
                to_numpy((f > 0).any(1).sum(1)),
            )
        )
    return joined(parts)


def pool(values: torch.Tensor, pooling: str) -> torch.Tensor:
    """(B, T, D) -> (B, D): the first token, or the mean or maximum over all tokens."""
    return values[:, 0] if pooling == "cls" else values.mean(1) if pooling == "mean" else values.amax(1)


def _shape(store: ActivationStore, poolings: Sequence[str]) -> tuple[int, int]:
    """N pictures and T tokens of a store that holds all tokens of each picture, one picture after the other."""
    unknown = [pooling for pooling in poolings if pooling not in POOLINGS]
    if unknown:
        raise ValueError(f"unknown pooling {unknown[0]!r}; choose from {', '.join(POOLINGS)}.")
    images, tokens = store.image_index, store.token_index
    n_tokens = int(tokens.max()) + 1
    whole = n_tokens > 0 and len(store) % n_tokens == 0
    if not whole or not torch.equal(tokens, torch.arange(n_tokens, dtype=tokens.dtype).repeat(len(store) // n_tokens)):
        raise ValueError(f"pooling needs all tokens of every picture; extract with tokens='all', not {store.tokens!r}.")
    return len(images) // n_tokens, n_tokens


@dataclass(frozen=True)
class Split:
    """Positions of training, validation and test pictures."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def random_split(n: int, seed: int = 0, train: float = 0.5, validation: float = 0.2) -> Split:
    """Split n pictures at random; the remainder is the test part. Raises ValueError for an empty part."""
    order = np.random.default_rng(seed).permutation(n)
    first, second = round(train * n), round((train + validation) * n)
    if not 0 < first < second < n:
        raise ValueError(f"{n} pictures cannot be cut into shares of {train:g}, {validation:g} and the rest; add some.")
    return Split(order[:first], order[first:second], order[second:])


def kept(split: Split, keep: np.ndarray) -> Split:
    """The split restricted to pictures where `keep` (N,) bool is True."""
    return Split(*(rows[keep[rows]] for rows in (split.train, split.validation, split.test)))


def varied_facts(facts: Facts, n: int) -> list[int]:
    """Positions of n facts spread over columns: each column's most frequent fact, then each one's second …"""
    columns: dict[str, list[int]] = {}
    for i in facts.share.argsort(descending=True, stable=True).tolist():
        columns.setdefault(facts.names[i].partition("=")[0], []).append(i)
    turns = zip_longest(*columns.values())
    return [i for turn in turns for i in turn if i is not None][:n]


def enough(truth: np.ndarray, *parts: np.ndarray, least: int = 5) -> np.ndarray:
    """`(C,)` bool: facts true of at least `least` pictures of each part, and false of as many; truth: (N, C)."""
    counts = [(truth[rows].sum(0), (~truth[rows]).sum(0)) for rows in parts]
    return np.all([np.minimum(yes, no) >= least for yes, no in counts], axis=0)


def binarised(codes: csr_array, train: np.ndarray, threshold: float = 0.0) -> csr_array:
    """1 where a feature is above `threshold` times its largest training code, else 0; (N, F)."""
    largest = codes[train].max(axis=0).toarray().ravel()
    marked = codes.copy()
    marked.data = (codes.data > threshold * largest[codes.indices]).astype(np.float32)
    marked.eliminate_zeros()
    return marked


def scaled(x: Vectors, train: np.ndarray) -> Vectors:
    """Vectors (N, D) scaled to a mean square row length of 1 on the training pictures.

    Dense columns are standardised first; sparse ones, to keep zeros, are divided by their largest value.
    """
    from scipy.sparse import issparse
    from sklearn.preprocessing import MaxAbsScaler, StandardScaler

    scaler = MaxAbsScaler() if issparse(x) else StandardScaler()
    y = scaler.fit(x[train]).transform(x)
    squares = y[train].power(2).sum() if issparse(y) else np.square(y[train]).sum()
    return (y / np.sqrt(max(float(squares), 1e-12) / len(train))).astype(np.float32)


def mean_gap(x: Vectors, truth: np.ndarray, train: np.ndarray) -> np.ndarray:
    """|mean with the fact - mean without it| of each column, in its standard deviations, on the training rows: (D,)."""
    from scipy.sparse import issparse

    rows, positive = x[train], truth[train]
    with_it, without = (np.asarray(rows[part].mean(axis=0)).ravel() for part in (positive, ~positive))
    mean = np.asarray(rows.mean(axis=0)).ravel()
    square = np.asarray((rows.power(2) if issparse(rows) else np.square(rows)).mean(axis=0)).ravel()
    deviation = np.sqrt(np.clip(square - mean**2, 0, None))
    return np.abs(with_it - without) / np.maximum(deviation, 1e-6)


@dataclass(frozen=True)
class Probe:
    """A logistic regression that reads one fact from some columns of a vector."""

    model: object
    columns: np.ndarray | None
    strength: float
    validation: float
    """AUC on the validation pictures."""

    def scores(self, x: Vectors) -> np.ndarray:
        """(N, D) -> (N,): above 0 where the probe says that the fact is true."""
        return self.model.decision_function(x if self.columns is None else x[:, self.columns])


def fit_probe(
    x: Vectors, truth: np.ndarray, split: Split, strengths: Sequence[float] = STRENGTHS, k: int | None = None
) -> Probe:
    """Fit a probe of a fact `(N,)` bool on vectors from `scaled`, with the strength of lowest validation log loss.

    AUC would not depend on the strength of a probe of one column.
    k: sparse probing, of the k columns with the largest `mean_gap` only (Gurnee et al. 2023, arXiv 2305.01610).
    Raises ValueError where the fact is constant on training or validation pictures.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss, roc_auc_score

    if not enough(truth[:, None], split.train, split.validation, least=1)[0]:
        raise ValueError("a probe needs pictures with and without the fact, to learn from and to choose by; add some.")
    columns = None if k is None else np.sort(mean_gap(x, truth, split.train).argsort(kind="stable")[::-1][:k])
    seen = x if columns is None else x[:, columns]
    learn = seen[split.train], truth[split.train]
    models = [LogisticRegression(C=strength, max_iter=300, tol=1e-3).fit(*learn) for strength in strengths]
    asked, answer = seen[split.validation], truth[split.validation]
    best = min(range(len(models)), key=lambda i: log_loss(answer, models[i].predict_proba(asked)[:, 1]))
    auc = roc_auc_score(answer, models[best].decision_function(asked))
    return Probe(models[best], columns, strengths[best], auc)


def marks(scores: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """AUC, and the mean F1 of "true" and "not true" for the scores' sign ("macro F1")."""
    from sklearn.metrics import f1_score, roc_auc_score

    return {"auc": roc_auc_score(truth, scores), "f1": f1_score(truth, scores > 0, average="macro")}


def probe_facts(
    vectors: dict[str, Vectors],
    facts: Facts,
    split: Split,
    parts: dict[str, np.ndarray] | None = None,
    strengths: Sequence[float] = STRENGTHS,
    k: int | None = None,
) -> pd.DataFrame:
    """Fit a probe of every fact on every representation and score it on the test pictures: one row each.

    parts: positions of other pictures to score on, by name. Columns: vectors, fact, part, auc, f1, strength,
    validation. Facts must be `enough` on all parts.
    """
    import pandas as pd

    truth, rows = to_numpy(facts.truth), []
    parts = parts or {"test": split.test}
    prepared = {name: scaled(x, split.train) for name, x in vectors.items()}
    for name, i in product(vectors, range(len(facts.names))):
        probe = fit_probe(prepared[name], truth[:, i], split, strengths, k)
        scores = probe.scores(prepared[name])
        chosen = {"strength": probe.strength, "validation": probe.validation}
        for part, at in parts.items():
            rows.append(
                {"vectors": name, "fact": facts.names[i], "part": part, **marks(scores[at], truth[at, i]), **chosen}
            )
    return pd.DataFrame(rows)
