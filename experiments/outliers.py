"""Out-of-distribution scores and their AUROC. A score is larger for pictures less like the training pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lib.metrics.intervals import Interval, bootstrap

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def auroc(ood: np.ndarray, ordinary: np.ndarray, n: int = 1000, seed: int = 0) -> Interval:
    """AUROC of a score with a 95 % interval over pictures; ties count one half.

    ood (N,), ordinary (M,): scores of out-of-distribution and of ordinary pictures. n: resamples.
    """
    return bootstrap(_exceeds, ood, ordinary, n=n, seed=seed)


def auroc_gain(ood: list[np.ndarray], ordinary: np.ndarray, n: int = 1000, seed: int = 0) -> Interval:
    """AUROC of one score minus that of another, averaged over kinds of out-of-distribution pictures.

    ood: for each kind (N_i, 2), ordinary (M, 2): both scores of each picture. The interval is over pictures.
    """

    def gain(ordinary: Tensor, *kinds: Tensor) -> Tensor:
        first, second = (
            torch.stack([_exceeds(kind[..., i], ordinary[..., i]) for kind in kinds]).mean(0) for i in range(2)
        )
        return first - second

    return bootstrap(gain, ordinary, *ood, n=n, seed=seed)


def _exceeds(above: Tensor, below: Tensor) -> Tensor:
    """(B, N), (B, M) -> (B,): share of pairs with the first larger, ties one half."""
    ordered = below.sort(dim=1).values.contiguous()
    smaller, no_larger = (torch.searchsorted(ordered, above.contiguous(), right=right) for right in (False, True))
    return (smaller + no_larger).double().mean(1) / (2 * below.shape[1])


@dataclass(frozen=True)
class Gaussians:
    """One Gaussian a class, with one covariance for all (Lee et al. 2018, arXiv 1807.03888), shrunk by Ledoit-Wolf."""

    means: np.ndarray  # (C, D)
    precision: np.ndarray  # (D, D)

    @classmethod
    def fit(cls, x: np.ndarray, labels: np.ndarray) -> Gaussians:
        """x (N, D), labels (N,) of any kind."""
        from sklearn.covariance import LedoitWolf

        classes, of = np.unique(labels, return_inverse=True)
        means = np.stack([x[of == c].mean(axis=0) for c in range(len(classes))])
        return cls(means, LedoitWolf(assume_centered=True).fit(x - means[of]).precision_)

    def distance(self, x: np.ndarray) -> np.ndarray:
        """Squared Mahalanobis distance (N,) to the nearest class."""
        whitener = np.linalg.cholesky(self.precision)
        at, centres = x @ whitener, self.means @ whitener
        squares = (at**2).sum(1)[:, None] - 2 * at @ centres.T + (centres**2).sum(1)
        return squares.min(axis=1)


@dataclass(frozen=True)
class Profiles:
    """Mean code of each class, of unit length: which features its pictures activate, and how much.

    After the class activation profiles of Oh et al. (arXiv 2604.26409); the score, a cosine, is ours.
    """

    directions: np.ndarray  # (C, F)

    @classmethod
    def fit(cls, codes: csr_array, labels: np.ndarray) -> Profiles:
        """codes (N, F), labels (N,) of any kind."""
        means = np.stack([np.asarray(codes[labels == c].mean(axis=0)).ravel() for c in np.unique(labels)])
        return cls(means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12))

    def distance(self, codes: csr_array) -> np.ndarray:
        """1 - cosine to the most similar profile, (N,)."""
        lengths = np.sqrt(np.asarray(codes.power(2).sum(axis=1)).ravel())
        return 1 - (codes @ self.directions.T).max(axis=1) / np.maximum(lengths, 1e-12)
