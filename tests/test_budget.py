"""The price at which a penalised dictionary keeps to a budget of active latents: bracketed, never extrapolated."""

import pytest
import torch

from experiments.budget import BudgetError, PriceSearch, price_for
from lib.sae.model import SAE, SAEConfig


def falling(price: float) -> float:
    """L0 of a kind whose curve passes every budget."""
    return 100 / (1 + 50 * price)


@pytest.mark.parametrize(
    "prices", [[0.1, 0.3], [0.0001], [50.0, 90.0], [0.0, 0.01]], ids=["around", "too low", "too high", "with a zero"]
)
def test_the_price_keeps_to_the_budget_wherever_the_search_begins(prices):
    tried = []
    price = price_for(lambda p: tried.append(p) or falling(p), prices, 8)
    assert abs(falling(price) - 8) <= 0.8
    assert price in tried, "what is returned was tried"
    assert len(tried) == len(set(tried)) <= 12


def test_a_price_that_fits_at_once_is_taken_without_another_try():
    tried = []
    assert price_for(lambda p: tried.append(p) or falling(p), [0.22], 8.3) == 0.22
    assert tried == [0.22]


@pytest.mark.parametrize(
    "active",
    [lambda price: 1.4, lambda price: 60.0, lambda price: 40.0 if price < 0.2 else 0.0],
    ids=["always below", "always above", "jumps over it"],
)
def test_a_kind_whose_curve_does_not_reach_the_budget_is_refused(active):
    with pytest.raises(BudgetError, match=r"gives 8 active latents; the nearest gives (1\.4|60|0)\."):
        price_for(active, [0.1, 0.3], 8)


def test_a_search_begins_somewhere():
    with pytest.raises(ValueError, match="at least one"):
        price_for(falling, [0.0], 8)


def test_kinds_that_cannot_be_brought_to_the_budget_are_named_with_the_reason():
    rows = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))

    def train(kind, price):
        """Active latents follow the price of relu; gated has none, whatever it pays."""
        k = max(1, round(falling(price) / 10)) if kind == "relu" else 1
        return SAE(SAEConfig(kind="topk", width=64, k=k), 8)

    search = PriceSearch(train, rows, 5)
    chosen = search.chosen({"relu": [0.01, 0.3], "gated": [0.1, 0.3]})
    assert list(chosen) == ["relu"]
    assert ("relu", chosen["relu"]) in search.tried
    assert list(search.refused) == ["gated"]
    assert search.description.startswith("**gated** is left out: no price between")
