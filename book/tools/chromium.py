"""Find the machine's Chromium for the browser tests: `python -m book.tools.chromium` prints its path."""

import os
import shutil
import sys

NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
ADVICE = (
    "No Chromium was found, and the rendered book is tested in one: install it (Debian and Ubuntu: "
    "`sudo apt install chromium`; macOS: Google Chrome will do) or name one with CHROMIUM=/path/to/chromium."
)


def find() -> str | None:
    """The path of CHROMIUM, or of the first browser that is installed."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


if __name__ == "__main__":
    sys.exit(None if find() else f"error: {ADVICE}")
