"""Sphinx extension that converts docstrings, plain text with Markdown backticks, to reStructuredText."""

import re

from sphinx.application import Sphinx

_CODE = re.compile(r"`([^`]+)`")
_MARKS = re.compile(r"[*|]|(?<=\w)_(?!\w)")  # what reStructuredText would read as emphasis, substitution or reference


def setup(app: Sphinx) -> dict:
    """Register the conversion with Sphinx."""
    app.connect("autodoc-process-docstring", _rewrite)
    return {"parallel_read_safe": True}


def _rewrite(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    lines[:] = as_restructured_text(lines)


def as_restructured_text(lines: list[str]) -> list[str]:
    """Lines of a docstring: names in backticks become literals, indented lines code, hyphens lists."""
    written: list[str] = []
    before = "blank"
    for line in lines:
        kind = _kind(line, before)
        if kind == "code" and before != "code":
            written += ["::", ""]
        elif kind != before and "blank" not in (kind, before) and "item" in (kind, before):
            written.append("")
        written.append(line if kind == "code" else _prose(line))
        before = before if kind == "blank" and before == "code" else kind
    return written


def _kind(line: str, before: str) -> str:
    if not line.strip():
        return "blank"
    if line.startswith("- "):
        return "item"
    if line.startswith("    "):
        return "code"
    return "item" if line.startswith("  ") and before == "item" else "text"


def _prose(line: str) -> str:
    parts = _CODE.split(line)  # text, code, text, ...
    parts[::2] = (_MARKS.sub(r"\\\g<0>", part) for part in parts[::2])
    parts[1::2] = (f"``{part}``" for part in parts[1::2])
    return "".join(parts)
