"""JavaScript sources of the LLaVA engine in rendered pages: the Web Worker, and the client that starts it."""

import json
from functools import cache

from widgets.stored_widget import joined

WORKER = (
    "llava_files.js",
    "llava_tokenizer.js",
    "llava_kernels.js",
    "llava_layers.js",
    "llava_vision.js",
    "llava_sae.js",
    "llava_language.js",
    "llava_engine.js",
    "llava_worker.js",
)
CLIENT = "llava_client.js"


def worker_source() -> str:
    """Source of the Web Worker, a classic script that answers the client's messages."""
    return joined(*WORKER)


@cache
def client_source() -> str:
    """Source of `startLlava` and its parts, to be put before a widget's own scripts in its ES module."""
    return f"const LLAVA_ENGINE_SOURCE = {json.dumps(worker_source())};\n{joined(CLIENT)}"
