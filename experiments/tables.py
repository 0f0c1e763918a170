"""How the book's tables and sentences write figures: one form for a column, and a dash for what is not known."""

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
    """A figure in a sentence, as `format` writes it; a dash where there is none or it is not finite."""
    return MISSING if value is None or not math.isfinite(value) else format(value, form)


def percent(interval: Interval, sign: str = "") -> str:
    """A share and its interval in per cent, `12.3 [10, 15]`; sign "+": with the sign that a change has."""
    parts = zip(interval, (1, 0, 0), strict=True)
    value, *bounds = (number(None if x is None else 100 * x, f"{sign}.{digits}f") for x, digits in parts)
    return value if MISSING in bounds else f"{value} [{', '.join(bounds)}]"


def written(
    table: pd.DataFrame,
    formats: Mapping[str, str | Callable] | None = None,
    precision: int = 3,
    otherwise: str = "Nothing to show here.",
) -> Styler | Markdown:
    """A table as the book shows it; without rows or columns, the sentence `otherwise`.

    Texts in it are escaped. formats: by column, "{:.1%}" and the like; other numbers get `precision` digits. What is
    missing, or infinite, is a dash.
    """
    from IPython.display import Markdown

    if table.empty:
        return Markdown(otherwise)
    table = table.replace([math.inf, -math.inf], math.nan)
    by_label = {escaped(name): form for name, form in (formats or {}).items()}
    return styled(table).format(by_label or None, precision=precision, na_rep=MISSING)
