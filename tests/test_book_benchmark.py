"""Where the time of a build goes: frames are told by their files, and chapters are summed."""

import json
import threading
import time

import pytest

from benchmarks.book import table
from benchmarks.kernel_sampler import kind_of, stack


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (["/x/torch/nn/functional.py", "/here/lib/sae/objectives/sparse.py", "/here/lib/sae/training.py"], "training"),
        (["<frozen importlib._bootstrap>", "/x/plotly/__init__.py"], "imports"),
        (["/x/numpy/core.py", "/here/menagerie/world/brush.py", "/x/torch/utils/data/fetch.py"], "drawing"),
        (["/usr/selectors.py", "/x/torch/utils/data/dataloader.py"], "waiting for pictures"),
        (["/x/torch/a.py", "/here/lib/metrics/intervals.py", "/here/experiments/figures/kinds.py"], "metrics"),
        (["/usr/lib/glob.py"], "other"),
    ],
)
def test_the_innermost_frame_with_a_kind_decides(files, kind):
    assert kind_of([*files, "/tmp/ipykernel_7/123.py", "/usr/asyncio/events.py"]) == kind


@pytest.mark.parametrize("files", [[], ["/usr/selectors.py", "/usr/asyncio/events.py"]])
def test_without_a_cell_the_kernel_waits(files):
    assert kind_of(files) == "waiting for cells"


def test_the_stack_of_a_thread_begins_where_it_is():
    thread = threading.Thread(target=time.sleep, args=(1,))
    thread.start()
    time.sleep(0.2)
    assert any(file.endswith("threading.py") for file in stack(thread.ident))
    assert stack(threading.get_ident())[1] == __file__
    thread.join()
    assert stack(thread.ident) == []


def test_chapters_and_kinds_are_summed_and_waiting_for_cells_is_left_out(tmp_path):
    (tmp_path / "01.json").write_text(json.dumps({"training": 2.0, "waiting for cells": 9.0}))
    (tmp_path / "02.json").write_text(json.dumps({"training": 1.0, "plots and tables": 5.0}))
    seconds = table(tmp_path)
    assert list(seconds.columns) == ["plots and tables", "training", "all"]
    assert seconds.loc["02"].tolist() == [5.0, 1.0, 6.0]
    assert seconds.loc["all"].tolist() == [5.0, 3.0, 8.0]
