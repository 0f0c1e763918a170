"""What a notebook measured, as JSON that other chapters and programs can read."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from lib.artifacts import replacing
from lib.metrics.intervals import Interval


def write_results(root: str | Path, notebook: str, results: dict[str, Any]) -> Path:
    """Write `root/results/<notebook>.json` in one step and return its path.

    Tables become lists of records, intervals `{value, low, high}`; NaN and infinity, for which JSON has no word, null.
    Raises TypeError for what cannot be said in JSON.
    """
    path = Path(root, "results", f"{notebook}.json")
    text = json.dumps(_plain(results), indent=1, allow_nan=False, ensure_ascii=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return path


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
