"""Find the scripts in a page's HTML that a browser would run."""

import re
from html import unescape

SCRIPT = re.compile(r"<script\b([^>]*)>(.*?)</script\s*>", flags=re.DOTALL | re.IGNORECASE)
HANDLER = re.compile(r"""\son\w+\s*=\s*(?:"([^"]*)"|'([^']*)')""", flags=re.IGNORECASE)
RUNS = re.compile(r"""\btype\s*=\s*["']?(?!module|text/javascript|application/javascript)""", flags=re.IGNORECASE)
NAMED = "scripts.json"  # in the stage folder: the trusted scripts


def scripts(text: str) -> list[str]:
    """The scripts in a page's HTML that a browser would run."""
    return [body for attributes, body in SCRIPT.findall(text) if body.strip() and not RUNS.search(attributes)]


def handlers(text: str) -> list[str]:
    """The code in attributes like `onclick`."""
    return [unescape(double or single) for double, single in HANDLER.findall(text)]
