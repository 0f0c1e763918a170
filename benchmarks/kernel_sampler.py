"""What a kernel does, twenty times a second: IPython runs this when it starts, under `benchmarks/book.py`.

A sample counts for the kind of the innermost frame of the main thread whose file is one of a kind's.
"""

import atexit
import json
import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path

INTERVAL = 0.05  # seconds
KINDS = {
    "imports": ("<frozen importlib",),
    "drawing": ("/menagerie/world/",),
    "waiting for pictures": ("/torch/utils/data/", "/lib/activations/reader.py", "/lib/activations/worker_pool.py"),
    "training": (
        "/lib/sae/training",
        "/lib/sae/objectives/",
        "/experiments/token_suite.py",
        "/menagerie/clip/training",
    ),
    "forward passes": (
        "/lib/encoders/",
        "/steering/",
        "/lib/activations/",
        "/lib/features/",
        "/open_clip/",
        "/transformers/",
    ),
    "metrics": ("/lib/metrics/", "/sklearn/", "/scipy/", "/experiments/metric_study/", "/experiments/probing.py"),
    "plots and tables": ("/plotly/", "/pandas/", "/experiments/figures/", "/experiments/plots.py", "/widgets/"),
}

IDLE = "waiting for cells"


def kind_of(files: list[str]) -> str:
    """The kind of a stack of frames, given by their files, the innermost first; a cell's is ipykernel_<process>."""
    if not any("/ipykernel_" in file for file in files):
        return IDLE
    for file in files:
        for kind, parts in KINDS.items():
            if any(part in file for part in parts):
                return kind
    return "other"


def stack(thread: int) -> list[str]:
    """Files of a thread's frames, the innermost first."""
    frame, files = sys._current_frames().get(thread), []
    while frame is not None:
        files.append(frame.f_code.co_filename)
        frame = frame.f_back
    return files


def sample(target: Path) -> None:
    """Count the kinds of this process's main thread until it ends, then write seconds by kind."""
    main, seconds = threading.main_thread().ident, Counter()

    def watch() -> None:
        before = time.monotonic()
        while True:
            time.sleep(INTERVAL)
            now = time.monotonic()
            seconds[kind_of(stack(main))] += now - before
            before = now

    threading.Thread(target=watch, daemon=True).start()
    atexit.register(lambda: target.write_text(json.dumps(dict(seconds))))


if "MV_SAMPLES" in os.environ:
    chapter = Path(os.environ["MV_KERNEL_MEMORY"]).stem.strip(".")
    sample(Path(os.environ["MV_SAMPLES"], f"{chapter}.json"))
