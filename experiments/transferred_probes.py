"""Probes trained in one part of the world and scored in another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from experiments.ground_truth import Facts
from experiments.markup import as_markdown
from experiments.out_of_distribution import named_by
from experiments.probe_comparison import Comparison, chosen_facts
from experiments.probing import kept
from lib import metrics
from lib.metrics.intervals import Interval


def places_elsewhere(shifts: Sequence[str], table: pd.DataFrame, sets: Mapping[str, str]) -> dict[str, np.ndarray]:
    """(N,) bool by shift, rows of the table that lie elsewhere: a set of pictures by its spec, or values of a column.

    sets: spec by shift; the table's column `pictures` says of which set a row is. Shifts of unknown columns are left
    out.
    """
    found = {}
    for shift in shifts:
        if shift in sets:
            found[shift] = (table["pictures"] == sets[shift]).to_numpy()
        elif shift.partition(" is ")[0] in table:
            found[shift] = named_by(shift, table)
    return found


def probed_elsewhere(
    compared: Comparison, known: Facts, places: Mapping[str, np.ndarray], n_facts: int, sizes: Sequence[int | None]
) -> pd.DataFrame:
    """Rows of `Comparison.elsewhere` for each of the places, with a column `shift`; none without a place."""
    moved = []
    for shift, gone in places.items():
        home, away = kept(compared.split, ~gone), np.flatnonzero(gone)  # no probe learns from pictures away
        facts = chosen_facts(known, n_facts, home, home.test, away)
        moved.append(compared.elsewhere(facts, home, away, sizes).assign(shift=shift))
    return pd.concat(moved, ignore_index=True) if moved else pd.DataFrame()


@dataclass(frozen=True)
class TransferredProbes:
    """Probes under distribution shift: `grid` is AUC, (shift, size, fact) by (part, kind)."""

    grid: pd.DataFrame
    n: int = 2000

    @classmethod
    def of(cls, moved: pd.DataFrame, n: int = 2000) -> TransferredProbes:
        """From rows of `Comparison.elsewhere` with a column `shift`."""
        index = ["shift", "size", "fact"]
        return cls(moved.pivot_table(index=index, columns=["part", "vectors"], values="auc"), n)

    @property
    def all_columns(self) -> pd.DataFrame:
        """Of the probes that use all columns: (shift, fact) by (part, kind)."""
        return self.grid.xs("all", level="size")

    @property
    def ahead(self) -> pd.DataFrame:
        """AUC of codes minus that of raw activations: (shift, fact) by part."""
        full = self.all_columns
        return pd.DataFrame({part: full[part]["codes"] - full[part]["raw"] for part in ("home", "away")})

    def table(self) -> pd.DataFrame:
        """Means over the facts, and their number."""
        groups = self.grid.groupby(["shift", "size"])
        show = groups.mean()
        show.insert(0, ("", "facts"), groups.size())
        show = show[[("", "facts"), *((part, name) for part in ("home", "away") for name in ("raw", "codes"))]]
        return show.rename_axis(["elsewhere is", "columns"]).rename(columns={"away": "elsewhere"})

    def spread(self) -> Interval:
        """Standard deviation of `ahead` over the facts, elsewhere minus at home."""
        both = torch.tensor(self.ahead.to_numpy())
        return metrics.bootstrap(lambda x: x[..., 1].std(1) - x[..., 0].std(1), both, n=self.n)

    def means(self) -> dict[str, Interval]:
        """Mean of `ahead` by part, over the facts."""
        by_fact = self.ahead.groupby("fact").mean()
        return {part: metrics.mean_interval(torch.tensor(by_fact[part].to_numpy()), self.n) for part in by_fact}

    @property
    def description(self) -> str:
        """The shifts where codes do best and worst against raw activations, as text."""
        ahead, ((worst, least), (best, most)) = self.ahead["away"], self.extremes()
        return (
            f"Against raw activations, codes do best where elsewhere is *{as_markdown(best)}* ({most:+.3f} AUC) and "
            f"worst where\nit is *{as_markdown(worst)}* ({least:+.3f}); fact by fact from {ahead.min():+.2f} to "
            f"{ahead.max():+.2f}."
        )

    def extremes(self) -> tuple[tuple[str, float], tuple[str, float]]:
        """The shifts with the lowest and the highest mean advantage of codes, with that mean."""
        by_shift = self.ahead["away"].groupby("shift").mean().sort_values()
        return tuple((by_shift.index[i], float(by_shift.iloc[i])) for i in (0, -1))
