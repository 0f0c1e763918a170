"""The seven metrics of ViSAEBench (package `visaebench` 0.1.0), equal to the package's numbers on the same arrays.

Arrays: x and its reconstruction (N, P, d), codes (N, P, F) of N pictures with P patches, `pooled` codes (N, F), the
largest over the patches, and labels (N,). `tests/peers` compares each with the package itself.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lib.devices import metric
from lib.metrics.monosemanticity import monosemanticity

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

SEED = 42  # of the package, for splits and solvers
KS = (1, 5, 10, 20, 50, 100)  # features of the sparse probes
TOP = 16  # pictures behind a feature's score


@contextmanager
def _small_probes() -> Iterator[None]:
    """Probes too small for several threads; one that has not converged in the package's iterations counts as it is."""
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


@metric()
def fvu(x: Tensor, x_hat: Tensor) -> float:
    """Unexplained share of the variance, in the package's form: rows (..., d).

    E|x|² less the square of the mean *sum* of a row, for the residual over the same for x. It is the usual share only
    where the means of the dimensions are zero, and can be negative.
    """
    left, whole = (
        float(rows.double().square().sum(-1).mean() - rows.double().sum(-1).mean().square()) for rows in (x - x_hat, x)
    )
    return left / whole if whole > 0 else float("inf")


@_small_probes()
def preservation(x: Tensor, x_hat: Tensor, labels: np.ndarray) -> float:
    """Accuracy of a linear probe of the mean patch on reconstructions, over that on the activations themselves.

    The probe is trained on four fifths of the activations (N, P, d), and marked on the rest; at most 2.
    """
    own, reconstructed = (rows.mean(1).numpy() for rows in (x, x_hat))
    train, test = _split(labels)
    probe = _probe(max_iter=1000).fit(own[train], labels[train])
    right = probe.score(own[test], labels[test])
    return min(2.0, float(probe.score(reconstructed[test], labels[test]) / right)) if right > 0 else 0.0


@_small_probes()
def sparse_probing(pooled: np.ndarray, labels: np.ndarray, ks: Sequence[int] = KS) -> float:
    """Area under the accuracy of probes of the k features with the largest F statistic, over k, divided by its width.

    As in the package the features are ranked on all pictures, those of the test among them.
    """
    ranked, (train, test) = _ranked(pooled, labels), _split(labels)
    usable = sorted(k for k in ks if k <= pooled.shape[1])
    marks = [
        _probe().fit(x[train], labels[train]).score(x[test], labels[test])
        for x in (pooled[:, ranked[:k]] for k in usable)
    ]
    if len(marks) < 2:
        return float(marks[0]) if marks else 0.0
    return float(np.trapezoid(marks, x=usable) / (usable[-1] - usable[0]))


@metric()
def top_monosemanticity(pooled: Tensor, embeddings: Tensor, top: int = TOP) -> float:
    """Mean Monosemanticity Score over the features' `top` pictures alone; weights shifted and scaled over all pictures.

    Of features that are active somewhere and whose weights leave a pair.
    """
    alive = pooled.amax(0) > 0
    codes, least = pooled[:, alive], pooled[:, alive].amin(0)
    weights = (codes - least) / (codes.amax(0) - least).clamp_min(torch.finfo(codes.dtype).tiny)
    kept = torch.zeros_like(weights).scatter(0, codes.topk(min(top, len(codes)), dim=0).indices, 1)
    # the score shifts a column by its minimum: a row of zeros makes that 0, and weighs nothing itself
    padded = torch.cat([weights * kept, weights.new_zeros(1, weights.shape[1])])
    scores = monosemanticity(padded, torch.cat([embeddings, embeddings[:1]]))
    return float(scores.nanmean()) if (~scores.isnan()).any() else 0.0


@metric()
def localisation(
    codes: Tensor, grid: tuple[int, int], least_images: int = 50, least: int = 5, most: float = 0.9
) -> float:
    """Mean Moran's I of a feature's codes on the grid of patches, neighbours in eight directions.

    Over pictures on which it is active on at least `least` patches and at most a share `most` of them, and over
    features with at least `least_images` such pictures; 0 without any. The package looks at 200 pictures of 500
    features at most, this at all.
    """
    near, n = neighbours(grid).to(codes), codes.shape[1]
    total, pictures = torch.zeros(2, codes.shape[2], dtype=torch.double)
    for part in codes.split(32):
        active, centred = (part != 0).sum(1), part - part.mean(1, keepdim=True)
        spread = centred.square().sum(1)
        index = n / near.sum() * (centred * (near @ centred)).sum(1) / spread.clamp_min(1e-10)
        counts = (active >= least) & (active <= int(most * n)) & (spread > 1e-10)
        total += torch.where(counts, index, 0).sum(0).double()
        pictures += counts.sum(0)
    enough = pictures >= least_images
    return float((total[enough] / pictures[enough]).mean()) if enough.any() else 0.0


def neighbours(grid: tuple[int, int]) -> Tensor:
    """(P, P) ones where two patches of an (h, w) grid touch, along an edge or at a corner."""
    rows, columns = (place.flatten() for place in torch.meshgrid(*map(torch.arange, grid), indexing="ij"))
    apart = torch.maximum((rows[:, None] - rows).abs(), (columns[:, None] - columns).abs())
    return (apart == 1).float()


def absorption(pooled: np.ndarray, labels: np.ndarray, siblings: Mapping[str, Sequence[int]], top: int = 10) -> float:
    """Share of classes that share their features with their siblings, or need several to be told from them.

    siblings: classes of one parent, by its name. A class counts where its `top` features by mean code and its
    group's overlap by more than half (Jaccard), or where four features tell it from its siblings with an F1 of .1 more
    than one does (on the training pictures themselves, as in the package). NaN where there is no class to try.
    """
    found = []
    for classes in siblings.values():
        chosen = np.isin(labels, classes)
        own = labels[chosen] == np.asarray(classes)[:, None]  # (K, n)
        own = own[np.minimum(own.sum(1), (~own).sum(1)) >= 3]
        if len(classes) >= 3 and chosen.sum() >= 10 and len(own):
            found.extend(_absorbed(pooled[chosen], own, top))
    return float(np.mean(found)) if found else float("nan")


def _absorbed(codes: np.ndarray, own: np.ndarray, top: int) -> np.ndarray:
    """Which of K sibling classes, own (K, n), are absorbed: (K,) bool; codes: (n, F) of all their pictures."""
    of_group = set(np.argsort(codes.mean(0))[-top:])
    of_class = [set(np.argsort(codes[rows].mean(0))[-top:]) for rows in own]
    overlap = np.array([len(one & of_group) / len(one | of_group) for one in of_class])
    best = np.stack([_ranked(codes, rows.astype(int))[:4] for rows in own])  # (K, 4)
    one, four = (_training_f1(codes[:, best[:, :k]].swapaxes(0, 1), own) for k in (1, 4))
    return (overlap > 0.5) | (four - one > 0.1)


def _training_f1(x: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """F1 (K,) of K logistic regressions on the pictures that they are trained on: x (K, n, k), truth (K, n) bool."""
    called = _logits(x.astype(float), truth) > 0
    return 2 * (called & truth).sum(1) / (called.sum(1) + truth.sum(1))


def _logits(x: np.ndarray, truth: np.ndarray, steps: int = 30) -> np.ndarray:
    """Logits (K, n) of K logistic regressions with the penalty |w|² / 2, all fitted at once by Newton's method.

    The optimum is that of scikit-learn's `LogisticRegression(C=1)`; a step that does not lower the loss is halved.
    """
    x = np.concatenate([x, np.ones_like(x[..., :1])], axis=-1)
    penalty = np.diag([*np.ones(x.shape[-1] - 1), 0.0])
    w, size = np.zeros((len(x), x.shape[-1])), np.ones((len(x), 1))

    def loss(w: np.ndarray) -> np.ndarray:
        logits = np.einsum("knj,kj->kn", x, w)
        return (np.logaddexp(0, logits) - truth * logits).sum(1) + (w**2 @ penalty).sum(1) / 2

    for _ in range(steps):
        p = 1 / (1 + np.exp(-np.einsum("knj,kj->kn", x, w).clip(-500, 500)))
        gradient = np.einsum("kn,knj->kj", p - truth, x) + w @ penalty
        curvature = np.einsum("kn,kni,knj->kij", p * (1 - p), x, x) + penalty + 1e-9 * np.eye(x.shape[-1])
        moved = w - size * np.linalg.solve(curvature, gradient[..., None])[..., 0]
        lower = (loss(moved) <= loss(w))[:, None]
        w, size = np.where(lower, moved, w), np.where(lower, np.minimum(2 * size, 1), size / 2)
    return np.einsum("knj,kj->kn", x, w)


@_small_probes()
def cross_domain(here: np.ndarray, there: np.ndarray, labels: np.ndarray, unexplained: float, k: int = 10) -> float:
    """Mean of four shares on pictures of another kind: variance explained, features of home that are active there,
    overlap (Jaccard) of both sets of active features, and accuracy of a probe of the k best features.

    here, there: pooled codes (N, F) and (M, F); labels (M,) and the unexplained variance: of the pictures there.
    """
    home, abroad = here.max(0) > 0, there.max(0) > 0
    both, either = (home & abroad).sum(), (home | abroad).sum()
    train, test = _split(labels)
    best = _ranked(there[train], labels[train])[:k]
    mark = _probe().fit(there[train][:, best], labels[train]).score(there[test][:, best], labels[test])
    shares = np.clip(1 - unexplained, 0, 1), both / home.sum() if home.any() else 1.0, both / either if either else 0.0
    return float(np.mean([*shares, mark]))


def _ranked(codes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Features by the F statistic of their codes between the classes, the largest first, constant ones last."""
    from sklearn.feature_selection import f_classif

    varies, statistic = codes.max(0) > codes.min(0), np.full(codes.shape[1], -np.inf)
    if varies.any():
        statistic[varies] = np.nan_to_num(f_classif(codes[:, varies], labels)[0], nan=-np.inf)
    return np.argsort(statistic)[::-1]


def _split(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of four fifths and one fifth of the pictures, of each class where each has two."""
    from sklearn.model_selection import train_test_split

    stratify = labels if np.bincount(labels).min() >= 2 else None
    return tuple(train_test_split(np.arange(len(labels)), test_size=0.2, stratify=stratify, random_state=SEED))


def _probe(max_iter: int = 500) -> LogisticRegression:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=max_iter, random_state=SEED)
