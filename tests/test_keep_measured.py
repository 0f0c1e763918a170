"""Results of photographs are kept with what made them, and the scoreboard reads them."""

import json

import pytest

from book.tools.keep_measured import collected, commit, keep, main
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


@pytest.mark.parametrize("name", ["../../escaped", "/escaped", "a/b", "", ".", "..", "q\n"])
def test_a_name_that_is_a_path_is_refused_and_nothing_is_written(name, tmp_path, monkeypatch, capsys):
    (tmp_path / "book").mkdir()
    monkeypatch.setattr("book.tools.keep_measured.ROOT", tmp_path)
    name = str(tmp_path / "escaped") if name == "/escaped" else name
    assert main([name, str(tmp_path), "--about", "x", "--command", "y"]) == 2
    assert "is no name of a file" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["book"]


@pytest.mark.parametrize(
    "claims", ["[]", "null", "3", '{"one": 3}', '{"one": {}}', '{"one": {"value": "x"}}', '{"one": {"values": 1}}']
)
def test_claims_that_are_no_intervals_are_one_sentence_that_names_the_file(claims, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "04.json").write_text(f'{{"claims": {claims}}}')
    for read in (lambda: collected(tmp_path / "results", {"one"}), lambda: measurements(tmp_path / "results")):
        with pytest.raises(ValueError, match=r"04\.json holds claims that are no value with low and high"):
            read()
