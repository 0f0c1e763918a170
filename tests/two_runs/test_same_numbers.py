"""What nbval's run and the `check` build computed from the same defaults, each with artifacts of its own.

A step behind both in `make test`, where RUN_TWICE names the notebooks that nbval ran, and in `make test-long`, where it
ran all. It finds their results in build/.
"""

import json
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUN = os.environ.get("RUN_TWICE", "").split() or [path.stem for path in sorted(ROOT.glob("notebooks/*.ipynb"))]
CLOCK = re.compile("second|minute")
NOTEBOOKS = [name for name in RUN if name != "90_scoreboard"]  # it counts what has run by then


def results(run: str, notebook: str) -> dict:
    path = ROOT / "build" / run / "results" / f"{notebook}.json"
    assert path.is_file(), f"{path} is missing: run `make test`, whose earlier steps write it"
    return without_times(json.loads(path.read_text()))


def without_times(result):
    """A result without what a clock measured."""
    if isinstance(result, dict):
        return {key: without_times(value) for key, value in result.items() if not CLOCK.search(key)}
    return [without_times(value) for value in result] if isinstance(result, list) else result


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_two_runs_give_the_same_numbers(notebook):
    first = results("notebook-defaults", notebook)
    assert first
    assert first == results("check", notebook)
