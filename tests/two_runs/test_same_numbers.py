"""What nbval's run and the `check` build computed from the same defaults, each with artifacts of its own.

A step of `make test` behind both; it finds their results in build/.
"""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


def results(run: str, notebook: str) -> dict:
    path = ROOT / "build" / run / "results" / f"{notebook}.json"
    assert path.is_file(), f"{path} is missing: run `make test`, whose earlier steps write it"
    return without_times(json.loads(path.read_text()))


def without_times(result):
    """A result without what a clock measured."""
    if isinstance(result, dict):
        return {key: without_times(value) for key, value in result.items() if "seconds" not in key}
    return [without_times(value) for value in result] if isinstance(result, list) else result


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_two_runs_give_the_same_numbers(notebook):
    first = results("notebook-defaults", notebook)
    assert first
    assert first == results("check", notebook)
