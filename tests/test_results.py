"""Results are valid JSON, whatever the figures are."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from experiments.results import read_results, write_results
from lib.metrics import Interval


def written(tmp_path, results):
    path = write_results(tmp_path, "04_example", results)
    assert path == tmp_path / "results" / "04_example.json"
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(name))


def test_figures_that_json_has_no_word_for_are_null(tmp_path):
    results = {"a": math.nan, "b": [1.0, -math.inf], "c": np.float32("nan"), "d": {"e": math.nan}}
    assert written(tmp_path, results) == {"a": None, "b": [1.0, None], "c": None, "d": {"e": None}}


def test_tables_are_lists_of_records(tmp_path):
    table = pd.DataFrame({"site": ["proj", "3.mlp_out"], "mean": [0.5, math.nan], "latents": [4, 8]})
    expected = [{"site": "proj", "mean": 0.5, "latents": 4}, {"site": "3.mlp_out", "mean": None, "latents": 8}]
    assert written(tmp_path, {"scores": table}) == {"scores": expected}


def test_a_series_is_written_by_its_index(tmp_path):
    assert written(tmp_path, {"row": pd.Series({"pairs": 3, "share": 0.5})}) == {"row": {"pairs": 3, "share": 0.5}}


def test_intervals_are_written_by_name(tmp_path):
    claims = {"one": Interval(0.5, 0.25, 0.75), "two": Interval(1.0)}
    expected = {
        "one": {"value": 0.5, "low": 0.25, "high": 0.75},
        "two": {"value": 1.0, "low": None, "high": None},
    }
    assert written(tmp_path, {"claims": claims}) == {"claims": expected}


def test_what_cannot_be_written_leaves_the_last_results_in_place(tmp_path):
    write_results(tmp_path, "04_example", {"a": 1})
    with pytest.raises(TypeError):
        write_results(tmp_path, "04_example", {"a": object()})
    assert json.loads((tmp_path / "results" / "04_example.json").read_text()) == {"a": 1}


def test_results_that_are_not_as_they_were_written_are_refused_and_replaced_by_a_rerun(tmp_path):
    path = write_results(tmp_path, "04_example", {"a": 1})
    assert read_results(path) == {"a": 1}
    path.write_text(path.read_text().replace("1", "7"))
    with pytest.raises(ValueError, match=r"04_example.json is missing or damaged"):
        read_results(path)
    assert read_results(write_results(tmp_path, "04_example", {"a": 2})) == {"a": 2}
    assert sorted(file.name for file in (tmp_path / "results").iterdir()) == [
        "04_example.json",
        "04_example.json.sha256",
    ]


def test_results_without_a_digest_are_read(tmp_path):
    (tmp_path / "old.json").write_text('{"a": 1}')
    assert read_results(tmp_path / "old.json") == {"a": 1}
