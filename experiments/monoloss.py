"""MonoLoss: BatchTopK that is also trained for the Monosemanticity Score of its latents."""

import torch
from torch import Tensor

from lib.sae.objectives.sparse import SparseObjective
from lib.sae.selection import Codes, dot_products, order_by_feature, weighted_sums

_RESOLVED = 1e-5
"""Weight of all pairs, as a share of the squared sum, below which float32 cannot tell it from rounding."""


def batch_scores(codes: Codes, unit: Tensor, n_features: int) -> tuple[Tensor, Tensor]:
    """Monosemanticity Scores (F,) of codes on a batch, and the gradient of each for its own codes (nnz,).

    unit: (B, d), rows of unit norm whose cosines say how alike two rows of the batch are. NaN, and a gradient of zero,
    for latents without a pair of active rows. In linear time, by the closed form of `lib.metrics.monosemanticity`:
    with a = f - min f over the batch, V = sum of a e, S = sum of a and Q = sum of a²,

        MS = (|V|² - Q) / (S² - Q)  and  dMS / da_n = 2 (e_n · V - a_n - MS (S - a_n)) / (S² - Q).

    Dividing a by its maximum, as the definition does, changes neither.
    """
    order, offsets = order_by_feature(codes.features, n_features)

    def by_latent(values: Tensor, how: str = "sum", initial: float = 0) -> Tensor:  # (nnz,) -> (F,)
        return torch.segment_reduce(values[order], how, offsets=offsets, initial=initial)

    features, everywhere = codes.features, offsets.diff() == len(unit)
    low = torch.where(everywhere, by_latent(codes.values, "min", torch.inf), 0)  # 0 unless active on all rows
    a = codes.values - low[features]
    total, squares = by_latent(a), by_latent(a.square())
    direction = weighted_sums(unit, codes.rows[order], offsets, a[order])  # V, (F, d)
    pairs = total.square() - squares
    found = pairs > _RESOLVED * total.square()
    scores = torch.where(found, (direction.square().sum(1) - squares) / pairs, torch.nan)
    along = dot_products(unit, codes.rows, codes.offsets, direction, features)
    slope = 2 * (along - a - scores[features] * (total[features] - a)) / pairs[features]
    slope = torch.where(found[features], slope, 0)
    lowest = (everywhere[features] & (a == 0)).to(a.dtype)  # these move the minimum
    return scores, slope - lowest * (by_latent(slope) / by_latent(lowest).clamp(min=1))[features]


class MonoLossObjective(SparseObjective):
    """BatchTopK + mono_weight * (1 - mean Monosemanticity Score of the batch's latents): MonoLoss (arXiv 2602.12403).

    As in the authors' code (`compute_monosemanticity_loss_batch`), two rows are as alike as the cosine of what the SAE
    reads, and latents that are active on fewer than two rows of the batch have no part in the mean.
    """

    def _penalise(self, to_codes: Tensor, codes: Codes, inputs: Tensor) -> None:
        unit = torch.nn.functional.normalize(inputs, dim=1)
        scores, slope = batch_scores(codes, unit, self.sae.n_features)
        scored = (~scores.isnan()).sum().clamp(min=1)
        to_codes.sub_(slope * (self.config.mono_weight / scored))
        self._mono_loss = self.config.mono_weight * (1 - scores.nansum() / scored)

    def report(self) -> dict[str, float]:
        row, loss = super().report(), float(self._mono_loss)
        return row | {"mono_loss": loss, "loss": row["loss"] + loss}
