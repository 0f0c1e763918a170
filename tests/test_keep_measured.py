"""Results of photographs are kept with what made them, and the scoreboard reads them."""

import json

import pytest

from book.tools.keep_measured import collected, commit, keep
from experiments.claims import Measurement, measurements
from experiments.results import write_results
from lib.metrics.intervals import Interval


def test_claims_on_the_list_are_kept_with_their_nulls_and_read_by_the_scoreboard(tmp_path):
    claims = {"one": Interval(0.5, 0.4, 0.6), "of another time": Interval(1.0)}
    write_results(tmp_path, "04_example", {"claims": claims, "claim_nulls": {"one": Interval(0.1, 0.0, 0.2)}})
    found = collected(tmp_path / "results", {"one"})
    keep(tmp_path / "measured" / "deit.json", {"about": "DeiT", "command": "run", "commit": "abc"}, found)
    written = json.loads((tmp_path / "measured" / "deit.json").read_text())
    assert set(written) == {"about", "command", "commit", "date", "hardware", "claims", "claim_nulls"}
    assert measurements(tmp_path / "measured") == {"one": Measurement(0.5, 0.4, 0.6, "deit", Interval(0.1, 0.0, 0.2))}


def test_a_folder_without_results_and_one_that_is_no_checkout_are_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="run a chapter with --to first"):
        collected(tmp_path, {"one"})
    with pytest.raises(ValueError, match="not a git checkout"):
        commit(tmp_path)
