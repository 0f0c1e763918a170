"""What `make test` leaves to `make test-long`, and the counts with which the long run ends."""

import subprocess
import sys
from pathlib import Path

import pytest

QUICK_AND_LONG = """
import pytest

def test_quick():
    pass

@pytest.mark.long
@pytest.mark.parametrize("kills", [2, 3])
def test_long(kills, record_property):
    record_property("kills of a training", kills)
"""


@pytest.fixture
def run(tmp_path, root):
    """Runs a quick and two long tests with the project's settings; returns what pytest printed."""
    for name in ("pyproject.toml", "tests/conftest.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((root / name).read_bytes())
    (tmp_path / "tests" / "test_it.py").write_text(QUICK_AND_LONG)

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "pytest", "-q", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout

    return run


def test_a_test_marked_long_runs_only_when_asked_for(run):
    assert "1 passed, 2 deselected" in run()
    assert "2 passed, 1 deselected" in run("-m", "long")


def test_a_long_run_ends_with_the_sums_of_what_was_counted_in_all_its_processes(run):
    assert "counted: 5 kills of a training" in run("-m", "long", "-n", "2")


def test_the_long_target_runs_what_is_marked_long(root):
    recipe = Path(root, "Makefile").read_text().partition("\ntest-long:")[2].partition("\n\n")[0]
    assert "-m long" in recipe
