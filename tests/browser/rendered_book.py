"""Where the rendered book lies that the browser's tests visit."""

import os
from pathlib import Path

HTML = Path(__file__).resolve().parents[2] / os.environ.get("HTML", "build/html")
