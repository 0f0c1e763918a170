"""Take the README's picture from the built book: `python -m book.tools.screenshot assets/screenshot.webp`."""

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from book.tools import chromium

PAGE = Path("build/html/notebooks/05_features.html")
VIEW = "?sort=frequency"  # the feature that is active on most pictures comes first


def screenshot() -> Image.Image:
    """The feature explorer on its page, at twice the size of a screen's pixels."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium.find(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1360, "height": 1010}, device_scale_factor=1.5)
        page.goto(PAGE.resolve().as_uri() + VIEW, timeout=120_000)
        widget = page.locator(".widget-subarea").first
        widget.locator("[role=option]").first.wait_for()
        widget.evaluate("(node) => window.scrollTo(0, node.getBoundingClientRect().top + window.scrollY - 70)")
        page.wait_for_timeout(1500)
        picture = Image.open(io.BytesIO(page.screenshot()))
        browser.close()
    return picture.convert("RGB")


if __name__ == "__main__":
    screenshot().save(sys.argv[1], "WEBP", quality=82, method=6)
