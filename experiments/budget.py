"""Search for the price, a penalty's coefficient, at which a dictionary has a given number of active latents."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from torch import Tensor

from lib import SAE, metrics

PRICED = {"relu": "l1", "gated": "l1", "jumprelu": "l0"}
"""Kinds whose number of active latents follows from a penalty, and the name of its coefficient in the config."""
WIDEN = 4.0  # factor between prices tried beyond the first ones


class BudgetError(ValueError):
    """No price that was tried gives the budget of active latents."""


def price_for(
    active: Callable[[float], float], prices: Sequence[float], budget: float, tolerance: float = 0.1, tries: int = 12
) -> float:
    """The price at which `active(price)`, which decreases, is within a relative `tolerance` of the budget.

    Tries the first prices, then lower or higher ones until two enclose the budget, then the geometric mean of the
    narrowest enclosing pair, at most `tries` prices of three digits each. The price returned was tried. Raises
    BudgetError where none is near enough, ValueError without a positive price.
    """
    first = sorted({price for price in prices if price > 0})
    if not first:
        raise ValueError("the search needs a positive price to start from: give at least one.")
    found = {price: active(price) for price in first}
    while True:
        best = min(found, key=lambda price: abs(found[price] - budget))
        if abs(found[best] - budget) <= tolerance * budget:
            return best
        price = float(f"{_next(found, budget):.3g}")
        if len(found) >= tries or price in found:
            raise BudgetError(
                f"no price between {min(found):.3g} and {max(found):.3g} gives {budget:g} active latents; "
                f"the nearest gives {found[best]:.3g}. Start from other prices, or train for more steps."
            )
        found[price] = active(price)


def _next(found: dict[float, float], budget: float) -> float:
    """The price to try next: between two that enclose the budget, else beyond those tried."""
    ordered = sorted(found)
    enclosing = [(low, high) for low, high in pairwise(ordered) if found[low] > budget > found[high]]
    if enclosing:
        return math.sqrt(math.prod(min(enclosing, key=lambda pair: pair[1] / pair[0])))
    return ordered[-1] * WIDEN if found[ordered[-1]] > budget else ordered[0] / WIDEN


@dataclass(frozen=True, eq=False)
class PriceSearch:
    """Prices at which kinds of dictionaries have `budget` active latents on training rows (n, d).

    train: trains a kind at a price. tried: dictionaries trained, by kind and price; refused: reasons, by kind.
    """

    train: Callable[[str, float], SAE]
    rows: Tensor
    budget: float
    tried: dict[tuple[str, float], SAE] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def chosen(self, first: Mapping[str, Sequence[float]]) -> dict[str, float]:
        """The price of each kind that can reach the budget; first: prices to start from, by kind."""
        found = {}
        for kind, prices in first.items():
            try:
                found[kind] = price_for(lambda price, kind=kind: self._active(kind, price), prices, self.budget)
            except BudgetError as error:
                self.refused[kind] = str(error)
        return found

    def _active(self, kind: str, price: float) -> float:
        self.tried[kind, price] = self.train(kind, price)
        return metrics.sparsity(self.tried[kind, price].encode_sparse(self.rows))["l0"]

    @property
    def description(self) -> str:
        """The kinds left out, and why, in Markdown."""
        return "\n\n".join(f"**{kind}** is left out: {reason}" for kind, reason in self.refused.items())
