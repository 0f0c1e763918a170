"""Escape untrusted text (class names, facts, vocabularies, error messages) for HTML, Markdown, tables and scripts.

No other module escapes text.
"""

import html
import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import HTML
    from pandas.io.formats.style import Styler

OWN = {"monosemantic_vision": "own HTML"}
"""Metadata of an output whose HTML this project wrote: pages keep its scripts (book/tools/pages.py)."""


def as_html(text: Any) -> str:
    """A text in HTML, between tags or in a quoted attribute."""
    return html.escape(str(text), quote=True)


def as_markdown(text: Any) -> str:
    """A text in Markdown or MyST, shown literally: markup, links and HTML in it have no effect."""
    return re.sub(r"[^\w\s.,;:?/%+'\-]", lambda found: f"&#{ord(found[0])};", str(text)).replace("\n", " ")


def as_code(text: Any) -> str:
    """A text in Markdown, set as code."""
    return f"<code>{as_markdown(text)}</code>"


def json_in_script(value: Any) -> str:
    """JSON for a `<script>` element: no text in it can end the script."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def own_html(text: str) -> "HTML":
    """Display trusted HTML with its script; untrusted text in it must be escaped already."""
    from IPython.display import HTML

    return HTML(text, metadata=OWN)


def styled(table: "pd.DataFrame") -> "Styler":
    """`table.style` with every text of cells, index and columns escaped, whatever is formatted afterwards.

    Its columns are called by their escaped names: `escaped(name)`.
    """
    safe = table.map(escaped)
    safe.index, safe.columns = (axis.map(_each(escaped)) if len(axis) else axis.copy() for axis in table.axes)
    safe.index.names, safe.columns.names = ([escaped(name) for name in axis.names] for axis in table.axes)
    return safe.style


def escaped(value: Any) -> Any:
    """A cell or a label of a table as `styled` writes it: texts escaped, all else as it is."""
    return as_html(value) if isinstance(value, str) else value


def _each(change):
    """Apply `change` to a label, or to each part of a MultiIndex label."""
    return lambda label: tuple(map(change, label)) if isinstance(label, tuple) else change(label)
