"""Reconstruction quality of an SAE: explained variance, mean squared error, cosine."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.devices import bring, metric, to_cpu


def reconstruction(x: Tensor, x_hat: Tensor) -> dict[str, float]:
    """Explained variance, mean squared error and cosine of a reconstruction `x_hat` of `x`, both `(N, d)`.

    explained_variance: centred, 1 - SS_res / SS_tot with SS_tot about the mean row of `x`, summed over dimensions
    (1 is perfect, 0 as good as the mean, NaN where `x` does not vary). mse: mean over rows and dimensions, in the
    units of `x` squared. cosine: mean over rows of cos(x, x_hat). Raises ValueError when shapes differ.
    """
    return Reconstruction().update(x, x_hat).compute()


class Reconstruction:
    """The measures of `reconstruction`, accumulated over batches of rows in float64 and memory O(d)."""

    def __init__(self) -> None:
        self.rows = 0
        self._mean = torch.zeros((), dtype=torch.double)  # (d,)
        self._scatter = self._residual = self._cosine = 0.0
        self._width = 0

    @metric()
    def update(self, x: Tensor, x_hat: Tensor) -> Reconstruction:
        """Add a batch `(B, d)` of rows and their reconstructions; returns itself. ValueError for other shapes."""
        if x.shape != x_hat.shape or x.dim() != 2:
            raise ValueError(f"x and x_hat must both be (N, d), got {tuple(x.shape)} and {tuple(x_hat.shape)}.")
        if self._width not in (0, x.shape[1]):
            raise ValueError(
                f"this batch is {x.shape[1]} wide, the ones before it {self._width}: measure one site at a time."
            )
        if len(x) == 0:
            return self
        x, x_hat = x.double(), x_hat.double()
        mean = x.mean(0)
        rows = self.rows + len(x)
        shift = mean - bring(self._mean, mean)
        # Chan, Golub and LeVeque 1979: merging two centred sums of squares without cancellation
        self._scatter += float((x - mean).square().sum() + shift.square().sum() * self.rows * len(x) / rows)
        self._mean = self._mean + to_cpu(shift) * (len(x) / rows)
        self._residual += float((x - x_hat).square().sum())
        self._cosine += float(F.cosine_similarity(x, x_hat, dim=1).sum())
        self.rows, self._width = rows, x.shape[1]
        return self

    def compute(self) -> dict[str, float]:
        """`{explained_variance, mse, cosine}` of all rows so far; ValueError when there are none."""
        if self.rows == 0:
            raise ValueError("no rows to measure: pass at least one.")
        return {
            "explained_variance": 1 - self._residual / self._scatter if self._scatter > 0 else float("nan"),
            "mse": self._residual / (self.rows * self._width),
            "cosine": self._cosine / self.rows,
        }
