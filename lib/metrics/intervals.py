"""Confidence intervals by bootstrap and jackknife: the variation of an estimate over other features or images."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from scipy.special import stdtrit
from torch import Tensor

from lib.devices import check_finite, metric, rows_at_once, to_cpu


class Interval(NamedTuple):
    """An estimate and its confidence interval; the bounds are None where no interval makes sense."""

    value: float
    low: float | None = None
    high: float | None = None

    def claim(self) -> dict[str, float | None]:
        """`{value, low, high}` for a notebook's results: valid JSON, with None in place of NaN."""
        return {name: x if x is None or math.isfinite(x) else None for name, x in self._asdict().items()}

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

    samples: one tensor `(N_i,)` or `(N_i, C)` each, with a row for each unit that is resampled: a feature's score, an
    image, a seed. Rows with a NaN (dead features) are left out. Paired values are columns of one sample, so that they
    are drawn together. statistic: takes for each sample a stack of resamples `(B, N_i)` or `(B, N_i, C)`, returns
    `(B,)`; all draws are computed in few calls.

        bootstrap(lambda x: x.mean(1), scores)                                        # the mean score of a dictionary
        bootstrap(lambda x, y: x.mean(1) - y.mean(1), features, neurons)              # of two, drawn independently
        bootstrap(rank_correlation, torch.stack([by_one_judge, by_another], dim=1))   # of pairs
        bootstrap(lambda x: (x > 0.5).double().mean(1), jaccard).claim()              # as it goes into the results

    Not for a maximum or minimum: a resample's maximum never exceeds the sample's and equals it in 63 % of all draws, so
    its interval is meaningless (ibid. section 7.4). Report those as `Interval(value)`. With less than two rows in a
    sample the bounds are None. Raises ValueError for a `level` outside (0, 1) and for infinite values.
    """
    rows = [_without_nan(sample) for sample in samples]
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, such as 0.95, not {level}.")
    if not all(len(sample) for sample in rows):
        return Interval(math.nan)
    value = float(statistic(*(sample[None] for sample in rows))[0])
    if min(map(len, rows)) < 2 or n < 2:
        return Interval(value)
    # scipy's is no faster, and one resample without a value (a rank correlation of ties) makes its interval NaN
    generator = torch.Generator().manual_seed(seed)
    width = rows_at_once(sum(sample.numel() for sample in rows))
    drawn = []
    for start in range(0, n, width):
        size = min(width, n - start)
        picks = (torch.randint(len(sample), (size, len(sample)), generator=generator) for sample in rows)
        drawn.append(statistic(*(sample[pick] for sample, pick in zip(rows, picks, strict=True))).double())
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.double)
    low, high = torch.cat(drawn).nanquantile(tails).tolist()
    return Interval(value, low, high) if math.isfinite(low) else Interval(value)


def mean_interval(sample: Tensor, n: int = 2000) -> Interval:
    """The mean of a sample `(N,)`, NaN left out, with its `bootstrap` interval of n resamples."""
    return bootstrap(lambda x: x.mean(1), sample, n=n)


@metric(on="cpu")
def jackknife_error(replicates: Tensor) -> float:
    """Standard error of an estimate, from its values `(G,)` with each of G equal groups of images left out in turn.

    The delete-a-group jackknife (Efron and Tibshirani 1993, chapter 11). It suits estimates over pairs of images, such
    as the Monosemanticity Score: a bootstrap of images would pair copies of an image with each other.
    """
    replicates = replicates.double()
    return float(((len(replicates) - 1) * replicates.var(correction=0)).sqrt())


@metric(on="cpu")
def jackknife_interval(value: float, replicates: Tensor, level: float = 0.95) -> Interval:
    """An estimate with its Student t interval of G - 1 degrees of freedom; replicates as in `jackknife_error`.

    For few groups, or estimates that copies of an image would distort. With less than two groups the bounds are None.
    """
    if len(replicates) < 2:
        return Interval(float(value))
    reach = float(stdtrit(len(replicates) - 1, (1 + level) / 2)) * jackknife_error(replicates)
    return Interval(float(value), float(value) - reach, float(value) + reach)


@metric()
def rank_correlation(pairs: Tensor) -> Tensor:
    """Spearman's rank correlation of the two columns of each table, ties by average rank: `(B, N, 2)` to `(B,)`.

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


def _without_nan(sample: Tensor) -> Tensor:
    """The rows without NaN, in float64 on the CPU."""
    sample = to_cpu(sample).double()
    if sample.ndim not in (1, 2):
        raise ValueError(f"a sample is (N,) or (N, C), one row for each unit drawn, not {tuple(sample.shape)}.")
    check_finite(sample, "a sample", unknown=True)
    unknown = sample.isnan()
    return sample[~(unknown if sample.ndim == 1 else unknown.any(1))]
