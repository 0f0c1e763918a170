"""Format of numbers in the book's tables and sentences; a dash for missing values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from experiments.markup import escaped, styled

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import Markdown
    from pandas.io.formats.style import Styler

    from lib.metrics.intervals import Interval

MISSING = "–"


def number(value: float | None, form: str = ".3f") -> str:
    """A number as text in a format; a dash for None and for values that are not finite."""
    return MISSING if value is None or not math.isfinite(value) else format(value, form)


def percent(interval: Interval, sign: str = "") -> str:
    """A share and its interval in percent, `12.3 [10, 15]`; sign "+": always with a sign."""
    parts = zip(interval, (1, 0, 0), strict=True)
    value, *bounds = (number(None if x is None else 100 * x, f"{sign}.{digits}f") for x, digits in parts)
    return value if MISSING in bounds else f"{value} [{', '.join(bounds)}]"


def written(
    table: pd.DataFrame,
    formats: Mapping[str, str | Callable] | None = None,
    precision: int = 3,
    otherwise: str = "Nothing to show here.",
) -> Styler | Markdown:
    """A formatted table for a page; the sentence `otherwise` for one that is empty, or holds nothing but dashes.

    Texts are escaped. formats: by column, "{:.1%}" and the like; other numbers get `precision` digits. Missing and
    infinite values become a dash.
    """
    from IPython.display import Markdown

    table = table.replace([math.inf, -math.inf], math.nan)
    if not (table.notna() & (table != MISSING)).to_numpy().any():
        return Markdown(otherwise)
    by_label = {escaped(name): form for name, form in (formats or {}).items()}
    return styled(table).format(by_label or None, precision=precision, na_rep=MISSING)
