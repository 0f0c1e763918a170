"""Sphinx extension: a content-security policy for each page, and JSON that cannot end its script element.

The policy allows the book's own files, the inline scripts of the templates, and the trusted ones that `named_scripts`
lists: plots and widgets of this project. Scripts injected through a file or class name are not among them.
"""

import base64
import hashlib
import json
import re
from pathlib import Path

import myst_nb.core.render
from sphinx.application import Sphinx

from book.tools.page_scripts import NAMED, handlers, scripts

POLICY = (
    "default-src 'self' file:; img-src 'self' file: data: blob:; font-src 'self' file: data:; "
    "style-src 'self' file: 'unsafe-inline'; connect-src 'self' file: data: blob:; worker-src 'self' file: blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'self' file:; "
    "script-src 'self' file: blob: 'wasm-unsafe-eval' 'unsafe-hashes' {hashes}"
)
WIDGETS = "application/vnd.jupyter.widget-state+json"  # the widget manager needs `new Function`


def setup(app: Sphinx) -> dict:
    """Register the policy with Sphinx."""
    myst_nb.core.render.sanitize_script_content = lambda content: content.replace("<", "\\u003c")
    app.connect("html-page-context", _note_body)
    app.connect("build-finished", _write_policies)
    return {"parallel_read_safe": False}


def allowed(page: str, body: str, named: list[str]) -> list[str]:
    """Scripts of a page that may run: those outside the body, and trusted (`named`) ones in it."""
    of_others = set(scripts(body)) - set(named)
    return [one for one in scripts(page) if one not in of_others] + [
        one for one in handlers(page) if one not in handlers(body)
    ]


def policy(allowed_scripts: list[str], widgets: bool = False) -> str:
    """The policy's meta tag for a page's head; widgets: whether the page shows widgets."""
    digests = sorted({base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in allowed_scripts})
    content = POLICY.format(hashes=" ".join(f"'sha256-{digest}'" for digest in digests))
    content += " 'unsafe-eval'" if widgets else ""
    return f'<meta http-equiv="Content-Security-Policy" content="{content}">'


def _note_body(app: Sphinx, page: str, template: str, context: dict, doctree) -> None:
    app.__dict__.setdefault("bodies", {})[page] = context.get("body", "")


def _write_policies(app: Sphinx, exception: Exception | None) -> None:
    if exception is not None or app.builder.format != "html":
        return
    listed = Path(app.srcdir, NAMED)
    named = json.loads(listed.read_text()) if listed.is_file() else []
    for file in Path(app.outdir).rglob("*.html"):
        text = file.read_text(encoding="utf-8")
        body = app.__dict__.get("bodies", {}).get(file.relative_to(app.outdir).with_suffix("").as_posix(), "")
        if parts := re.fullmatch(r"(.*?<head\b[^>]*>)(.*)", text, flags=re.DOTALL | re.IGNORECASE):  # else a fragment
            file.write_text(parts[1] + policy(allowed(text, body, named), WIDGETS in text) + parts[2], encoding="utf-8")
