"""Sparsity of codes: L0, dead features, density."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lib.devices import bring, metric, to_cpu
from lib.metrics.columns import check_matrix


def sparsity(codes: Tensor, kinds: Sequence[str] | None = None) -> dict:
    """L0, dead share and density of codes `(rows, F)`, dense or sparse CSR; active means other than zero.

    l0: mean number of active features a row. dead: share of features active on no row. density `(F,)`: share of rows
    on which a feature is active. With `kinds`, one name a row such as "cls" or "spatial", `by_kind` holds
    the same three (and the number of rows) for each kind by itself.
    """
    return Sparsity().update(codes, kinds).compute()


class Sparsity:
    """The measures of `sparsity`, accumulated over batches of rows in memory O(F)."""

    def __init__(self) -> None:
        self._active: dict[str | None, Tensor] = {}  # kind -> (F,) rows on which each feature is active
        self._rows: dict[str | None, int] = {}

    @metric()
    def update(self, codes: Tensor, kinds: Sequence[str] | None = None) -> Sparsity:
        """Add a batch of codes `(B, F)`, with the kind of token of each row if given; returns itself."""
        check_matrix(codes, "codes")
        if kinds is not None and len(kinds) != len(codes):
            raise ValueError(f"kinds must name one kind for each of the {len(codes)} rows, got {len(kinds)}.")
        known = next(iter(self._active.values()), None)
        if known is not None and len(known) != codes.shape[1]:
            raise ValueError(f"these codes have {codes.shape[1]} features, the ones before them {len(known)}.")
        names = [None] if kinds is None else sorted(set(kinds))
        group = torch.tensor([names.index(kind) for kind in kinds] if kinds is not None else [0] * len(codes))
        counts = to_cpu(_active_by_group(codes, bring(group, codes), len(names)))
        for name, count, rows in zip(names, counts, group.bincount(minlength=len(names)).tolist(), strict=True):
            self._active[name] = self._active.get(name, 0) + count
            self._rows[name] = self._rows.get(name, 0) + rows
        return self

    def compute(self) -> dict:
        """`{l0, dead, density}` of all rows so far, and `by_kind` where kinds were given."""
        if not self._rows:
            raise ValueError("no codes to measure: pass at least one row.")
        measures = _measures(sum(self._active.values()), sum(self._rows.values()))
        kinds = {
            k: _measures(n, self._rows[k]) | {"rows": self._rows[k]} for k, n in self._active.items() if k is not None
        }
        return measures | ({"by_kind": kinds} if kinds else {})


def _active_by_group(codes: Tensor, group: Tensor, n_groups: int) -> Tensor:
    """How many rows of each group activate each feature: `(G, F)` int64."""
    n_features = codes.shape[1]
    if codes.layout == torch.strided:
        counts = torch.zeros(n_groups, n_features, dtype=torch.long, device=codes.device)
        return counts.index_add_(0, group, (codes != 0).long())
    row_group = group.repeat_interleave(codes.crow_indices().diff())
    slot = row_group * n_features + codes.col_indices()
    return slot[codes.values() != 0].bincount(minlength=n_groups * n_features).view(n_groups, n_features)


def _measures(active: Tensor, rows: int) -> dict:
    return {
        "l0": float(active.sum()) / rows,
        "dead": float((active == 0).double().mean()),
        "density": (active.double() / rows).float(),
    }
