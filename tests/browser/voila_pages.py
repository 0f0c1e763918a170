"""A widget in Voila, with a kernel of its own."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Browser, Error, Page

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def served(code: str, folder: Path) -> Iterator[str]:
    """The address of a notebook with one cell, served from a folder of its own."""
    notebook = folder / "widget.ipynb"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=[new_code_cell(code)], metadata=kernel), notebook)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "voila", str(notebook), "--no-browser", f"--port={port}", "--Voila.ip=127.0.0.1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with (folder / "voila.log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            yield f"http://127.0.0.1:{port}/"
        finally:
            server.terminate()
            server.wait(timeout=20)


def open_served(browser: Browser, address: str) -> Page:
    """The page, as soon as Voila serves it."""
    page = browser.new_page()
    for _ in range(100):
        try:
            page.goto(address, timeout=60_000)
            break
        except Error:
            page.wait_for_timeout(200)
    return page
