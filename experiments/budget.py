"""Find the price of a penalty at which a dictionary has a given number of active latents, or refuse."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

WIDEN = 4.0  # factor between one price and the next beyond the first ones


class BudgetError(ValueError):
    """No price that was tried gives the number of active latents that was asked for."""


def price_for(
    active: Callable[[float], float], prices: Sequence[float], budget: float, tolerance: float = 0.1, tries: int = 12
) -> float:
    """The price at which `active(price)`, which falls as prices rise, is the budget within a share `tolerance` of it.

    The first prices are tried, then lower or higher ones until two enclose the budget, then the geometric mean of the
    narrowest enclosing two, `tries` prices in all; each has three digits. Nothing is interpolated or extrapolated: what
    is returned was tried. Raises BudgetError where no price comes near enough, ValueError without a positive price.
    """
    first = sorted({price for price in prices if price > 0})
    if not first:
        raise ValueError("the search for a price begins at positive ones: give at least one.")
    found = {price: active(price) for price in first}
    while True:
        best = min(found, key=lambda price: abs(found[price] - budget))
        if abs(found[best] - budget) <= tolerance * budget:
            return best
        price = float(f"{_next(found, budget):.3g}")
        if len(found) >= tries or price in found:
            raise BudgetError(
                f"no price between {min(found):.3g} and {max(found):.3g} gives {budget:g} active latents; "
                f"the nearest gives {found[best]:.3g}. Begin at other prices, or train for more steps."
            )
        found[price] = active(price)


def _next(found: dict[float, float], budget: float) -> float:
    """The price to try next: between two that enclose the budget, else beyond those tried."""
    ordered = sorted(found)
    enclosing = [(low, high) for low, high in pairwise(ordered) if found[low] > budget > found[high]]
    if enclosing:
        return math.sqrt(math.prod(min(enclosing, key=lambda pair: pair[1] / pair[0])))
    return ordered[-1] * WIDEN if found[ordered[-1]] > budget else ordered[0] / WIDEN
