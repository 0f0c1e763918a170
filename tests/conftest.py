"""What all tests share."""

from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


def pytest_terminal_summary(terminalreporter) -> None:
    """End with the sums of what tests counted: `record_property("kills of the build", 50)`."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    counted: Counter[str] = Counter()
    for report in reports:
        if getattr(report, "when", None) == "call":
            counted.update({name: number for name, number in report.user_properties if isinstance(number, int)})
    for name, number in sorted(counted.items()):
        terminalreporter.write_line(f"counted: {number:,} {name}")
