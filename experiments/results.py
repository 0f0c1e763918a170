"""Results of a notebook as JSON, for other chapters and programs."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from lib.metrics.intervals import Interval
from storage import check_digest_file, digest_file, digest_of, replacing
from storage.files import read_json


def write_results(root: str | Path, notebook: str, results: dict[str, Any]) -> Path:
    """Write `root/results/<notebook>.json` in one step and return its path.

    Tables become lists of records, intervals `{value, low, high}`; NaN and infinity become null.
    Its digest goes into `<notebook>.json.sha256` beside it, which `sha256sum --check` reads. A rerun
    replaces the results. Raises TypeError for values that JSON cannot hold.
    """
    path = Path(root, "results", f"{notebook}.json")
    text = json.dumps(_plain(results), indent=1, allow_nan=False, ensure_ascii=False)
    beside = digest_file(path)
    beside.unlink(missing_ok=True)  # so that it never stands beside other results
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    with replacing(beside) as temporary:
        temporary.write_text(f"{digest_of(path)}  {path.name}\n", encoding="utf-8")
    return path


def read_results(path: str | Path) -> dict[str, Any]:
    """Read a file that `write_results` wrote. Raises Damaged where it has changed."""
    check_digest_file(Path(path))
    return read_json(path)


def _plain(value: Any) -> Any:
    if isinstance(value, Interval):
        return value.claim()
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if hasattr(value, "to_dict"):  # pandas: a table by rows, a series by its index
        return _plain(value.to_dict("records") if value.ndim == 2 else value.to_dict())
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
