"""Bootstrap intervals: how far a figure would move had other features, or other images, been drawn."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import torch
from scipy.stats import t as student
from torch import Tensor

from lib.devices import check_finite, metric, to_cpu

BLOCK = 1 << 23  # numbers that are resampled at once


class Interval(NamedTuple):
    """A figure and its interval; the bounds are None where no interval makes sense."""

    value: float
    low: float | None = None
    high: float | None = None

    def claim(self) -> dict[str, float | None]:
        """`{value, low, high}` for a notebook's results: valid JSON, so None in the place of NaN."""
        return {name: x if x is None or math.isfinite(x) else None for name, x in self._asdict().items()}

    def widened(self, error: float, level: float = 0.95) -> Interval:
        """With a second, independent source of error added in quadrature, given by its standard error."""
        if self.low is None or self.high is None or not math.isfinite(error):
            return self
        reach = NormalDist().inv_cdf((1 + level) / 2) * error
        below, above = math.hypot(self.value - self.low, reach), math.hypot(self.high - self.value, reach)
        return Interval(self.value, self.value - below, self.value + above)

    def __str__(self) -> str:
        if not math.isfinite(self.value):
            return "–"
        bounded = None not in self and math.isfinite(self.low + self.high)
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]" if bounded else f"{self.value:.3f}"


@torch.no_grad()
def bootstrap(
    statistic: Callable[..., Tensor], *samples: Tensor, n: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Percentile bootstrap of a statistic of independent samples (Efron and Tibshirani 1993, chapter 13).

    samples: one tensor `(N_i,)` or `(N_i, C)` each, whose rows are what could have been drawn otherwise: features'
    scores, images, seeds. Rows with a NaN (dead features) are left out. What belongs together is one sample with
    columns, so that it is drawn together. statistic: takes for each sample a stack of resamples `(B, N_i)` or
    `(B, N_i, C)`, returns `(B,)`; all draws are computed in few calls.

        bootstrap(lambda x: x.mean(1), scores)                                        # the mean score of a dictionary
        bootstrap(lambda x, y: x.mean(1) - y.mean(1), features, neurons)              # of two, drawn independently
        bootstrap(rank_correlation, torch.stack([by_one_judge, by_another], dim=1))   # of pairs
        bootstrap(lambda x: (x > 0.5).double().mean(1), jaccard).claim()              # as it goes into the results

    Not for a best or a worst: a resample's maximum never exceeds the sample's and equals it in 63 % of all draws, so
    its interval says nothing (ibid. section 7.4). Report those as `Interval(value)`. With less than two rows in a
    sample there is nothing to draw, and the bounds are None.
    """
    rows = [_known(sample) for sample in samples]
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, such as 0.95, not {level}.")
    if not all(len(sample) for sample in rows):
        return Interval(math.nan)
    value = float(statistic(*(sample[None] for sample in rows))[0])
    if min(map(len, rows)) < 2 or n < 2:
        return Interval(value)
    generator = torch.Generator().manual_seed(seed)
    width = max(1, BLOCK // sum(sample.numel() for sample in rows))
    drawn = []
    for start in range(0, n, width):
        size = min(width, n - start)
        drawn.append(statistic(*(_resampled(sample, size, generator) for sample in rows)).double())
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.double)
    low, high = torch.cat(drawn).nanquantile(tails).tolist()
    return Interval(value, low, high) if math.isfinite(low) else Interval(value)


def mean_interval(sample: Tensor, n: int = 2000) -> Interval:
    """The mean of a sample `(N,)`, NaN left out, with its `bootstrap` interval of n resamples."""
    return bootstrap(lambda x: x.mean(1), sample, n=n)


@metric(on="cpu")
def jackknife_error(replicates: Tensor) -> float:
    """Standard error of a figure, from its values `(G,)` with each of G equal groups of images left out in turn.

    The delete-a-group jackknife (Efron and Tibshirani 1993, chapter 11). It suits figures made of pairs of images, such
    as the Monosemanticity Score: a bootstrap of images would pair copies of an image with each other.
    """
    replicates = replicates.double()
    return float(((len(replicates) - 1) * replicates.var(correction=0)).sqrt())


@metric(on="cpu")
def jackknife_interval(value: float, replicates: Tensor, level: float = 0.95) -> Interval:
    """A figure with Student's interval of G - 1 degrees of freedom around it; replicates as in `jackknife_error`.

    For few groups, or figures that copies of an image would distort. With less than two groups the bounds are None.
    """
    if len(replicates) < 2:
        return Interval(float(value))
    reach = float(student.ppf((1 + level) / 2, len(replicates) - 1)) * jackknife_error(replicates)
    return Interval(float(value), float(value) - reach, float(value) + reach)


@metric()
def rank_correlation(pairs: Tensor) -> Tensor:
    """Spearman's correlation of the two columns of each `(N, 2)` table, ties by average rank: `(B, N, 2)` to `(B,)`.

    NaN where a column does not vary.
    """
    ranks = _average_ranks(pairs.double().transpose(1, 2).contiguous())  # (B, 2, N)
    centred = ranks - ranks.mean(2, keepdim=True)
    products = (centred[:, 0] * centred[:, 1]).sum(1)
    return products / centred.square().sum(2).prod(1).sqrt()


def _average_ranks(values: Tensor) -> Tensor:
    ordered = values.sort(dim=-1).values
    below, upto = (torch.searchsorted(ordered, values, right=right) for right in (False, True))
    return (below + upto + 1).double() / 2


def _known(sample: Tensor) -> Tensor:
    """The rows without NaN, in float64 on the CPU."""
    sample = to_cpu(sample).double()
    if sample.ndim not in (1, 2):
        raise ValueError(f"a sample is (N,) or (N, C), one row for each thing drawn, not {tuple(sample.shape)}.")
    check_finite(sample, "a sample", unknown=True)
    unknown = sample.isnan()
    return sample[~(unknown if sample.ndim == 1 else unknown.any(1))]


def _resampled(sample: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """`size` resamples of the rows with replacement: (size, N) or (size, N, C)."""
    return sample[torch.randint(len(sample), (size, len(sample)), generator=generator)]
