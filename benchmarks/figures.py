"""A benchmark's figures as one JSON file, with what they were measured on."""

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import torch


def json_option(parser: argparse.ArgumentParser) -> None:
    """Add `--json FILE` to a benchmark's options."""
    parser.add_argument("--json", type=Path, help="file to write the figures to, with the hardware")


def write_figures(path: Path | None, rows: list[dict]) -> None:
    """Write the rows of a table; nothing where `path` is None."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"command": sys.argv, "on": hardware(), "rows": rows}, indent=1) + "\n", "utf-8")


def hardware() -> dict[str, str | int | None]:
    """Processor or GPU, cores, versions and commit."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "CPU",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "commit": commit.stdout.strip() or None,
    }


def finish_computing() -> None:
    """Wait for the GPU, where there is one: its work is queued, and the clock must not stop before it."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
