"""Every figure of the chapters: drawn from ordinary data and from none, and its axes have names."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from experiments.figures import by_block, probes, pushed_answers, steered_answers, training_curves
from experiments.figures.panels import side_by_side
from experiments.plots import with_broken_axis_titles
from experiments.steering_scores import Rates
from lib.metrics.intervals import Interval

ONE, NONE = Interval(0.5, 0.25, 0.75), Interval(math.nan)


def axis_titles(figure) -> set[str]:
    """What stands at the axes of a figure."""
    return {axis.title.text for axis in (*figure.select_xaxes(), *figure.select_yaxes()) if axis.title.text}


def panel_titles(figure) -> list[str]:
    """What stands above the panels of a figure, without the line breaks."""
    return [text.text.replace("<br>", " ") for text in figure.layout.annotations]


def row(interval):
    return dict.fromkeys(("steered", "not steered", "reconstruction"), interval)


RATES = {"insertion": {("SAE", 1.0): Rates(ONE, ONE, ONE), ("SAE", 4.0): Rates(NONE, NONE, NONE)}}
NOTHING = "Nothing to see."
GAINS = {mark: {"codes": [ONE, NONE], "binary": [ONE, ONE]} for mark in ("auc", "f1")}
ELSEWHERE = pd.DataFrame(
    0.5,
    index=pd.MultiIndex.from_tuples([("night", "owl=yes")], names=["shift", "fact"]),
    columns=pd.MultiIndex.from_product([("home", "away"), ("raw", "codes")]),
)
SCORES = torch.tensor([0.5, math.nan, 0.25])
LOG = pd.DataFrame({"threshold": [0.0, 0.5], "samples": [10, 20], "loss": [1.0, 0.5]})
GRID = pd.DataFrame({"site": ["7"], "kind": ["topk"], "expansion": [4], "explained variance": [0.5], "dead": [0.1]})
NORMS = {"mlp_out": {"CLS": torch.tensor([[1.0, 2.0], [2.0, 3.0], [3.0, 4.0]])}}
FIGURES = [
    (pushed_answers.score_over_strength, ({"SAE": {1.0: ONE, 4.0: NONE}}, [1, 4], "B/32"), ({}, [], "B/32"),
     {"strength, in units of the largest activation", "mean score, E = B/32, selection set"}),
    (pushed_answers.scores_of_methods, ({"white": {"SAE": row(ONE), "neuron": row(NONE)}}, [ONE], "B/32"),
     ({"white": {}}, [], "B/32"), {"score, E = B/32"}),
    (pushed_answers.rates_over_strength, (RATES,), ({"insertion": {}},), {"strength"}),
    (probes.ahead_of_raw, (GAINS, ["1", "all"], "columns"), ({"auc": {}, "f1": {}}, []),
     {"columns", "ahead of raw activations"}),
    (probes.auc_elsewhere, (ELSEWHERE, NOTHING), (None, NOTHING),
     {"AUC elsewhere, raw activations", "AUC elsewhere, SAE codes"}),
    (probes.auroc_by_site, ({"softmax": [0.5, math.nan]}, ["5", "7"], NOTHING), ({}, [], NOTHING),
     {"mean AUROC over out-of-distribution kinds"}),
    (probes.scores_of_units, ({"dense": ({}, SCORES, SCORES)}, "eye", NOTHING), ({}, "eye", NOTHING), set()),
    (steered_answers.share_named, (pd.DataFrame({"1": [0.5], "4": [math.nan]}, index=["owl"]),), (pd.DataFrame(),),
     {"α / largest activation"}),
    (training_curves.curves, ({("topk", 4.0): LOG}, 16), ({}, 16), {"activations seen"}),
    (training_curves.over_expansion, (GRID, ["7"], ["topk"]), (GRID[:0], ["7"], ["topk"]),
     {"expansion", "explained variance", "dead"}),
    (by_block.norms, (NORMS, [0, 1], {"CLS": "#000000"}), ({"mlp_out": {}}, [], {}), {"block", "norm"}),
    (by_block.nearest_agree, ({("kind", "CLS"): [0.5]}, {"kind": np.array(["a", "a"])}, [0], ["kind"], NOTHING),
     ({}, {}, [], [""], NOTHING), {"block", "nearest picture agrees"}),
]  # fmt: skip


@pytest.mark.parametrize(("draw", "ordinary", "empty", "titles"), FIGURES, ids=lambda x: getattr(x, "__name__", ""))
def test_a_figure_takes_ordinary_and_no_data_and_names_its_axes(draw, ordinary, empty, titles):
    figure = draw(*ordinary)
    assert figure.data
    assert axis_titles(figure) == titles
    draw(*empty).to_json()


TITLES = ["quintiles of all live features by frequency", "by MS, E = tiny-eye", "unbreakable_name_of_a_site"]


@pytest.mark.parametrize(("n", "room"), [(1, 40), (2, 20), (3, 13)])
def test_titles_of_panels_and_of_their_x_axes_are_broken_where_a_phone_has_no_room(n, room):
    figure = side_by_side(TITLES[:n]).update_xaxes(title=TITLES[0])
    drawn = with_broken_axis_titles(figure.to_dict())["layout"]
    texts = [title["text"] for title in drawn["annotations"]]
    assert [text.replace("<br>", " ") for text in texts] == TITLES[:n]
    lines = [line for text in texts for line in text.split("<br>")]
    if n > 1:
        assert drawn["xaxis"]["title"]["text"].replace("<br>", " ") == TITLES[0]
        lines += drawn["xaxis2"]["title"]["text"].split("<br>")
    assert all(len(line) <= room for line in lines if " " in line)
    assert drawn["margin"]["t"] > 17 * max(text.count("<br>") + 1 for text in texts)


def test_a_single_panel_keeps_the_title_of_its_axis():
    figure = side_by_side([""]).update_xaxes(title=TITLES[0])
    assert with_broken_axis_titles(figure.to_dict())["layout"]["xaxis"]["title"]["text"] == TITLES[0]


def test_titles_of_panels_come_from_one_place():
    root = Path(__file__).parents[1]
    files = [path for pattern in ("experiments/**/*.py", "notebooks/*.ipynb") for path in root.glob(pattern)]
    assert [path.name for path in files if "subplot_titles" in path.read_text()] == ["panels.py"]


def test_error_bars_reach_to_the_bounds():
    figure = pushed_answers.score_over_strength({"SAE": {1.0: Interval(0.5, 0.25, 1.0)}}, [1], "B/32")
    assert figure.data[0].error_y.array.tolist() == [0.5]
    assert figure.data[0].error_y.arrayminus.tolist() == [0.25]


def test_a_log_without_held_out_pictures_draws_its_loss_alone():
    figure = training_curves.curves({("topk", 4.0): LOG}, 16)
    assert [trace.y.tolist() for trace in figure.data[:1]] == [[0.5]], "rows before the threshold is known are left out"
    assert np.isnan(figure.data[1].y.astype(float)).all()


def test_chance_is_the_share_of_pairs_with_one_label():
    assert by_block.chance(np.array(["a", "a", "b"])) == pytest.approx(1 / 3)
    assert by_block.chance(np.array(["a", "a"])) == 1


def test_maps_are_pictures_of_the_patches():
    tokens = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0))
    maps = by_block.principal_maps(tokens, (2, 2), 2)
    assert [one.size for one in maps] == [(112, 112)] * 2
    assert by_block.principal_maps(tokens, (2, 2), 0) == []


def test_answers_are_blue_where_they_name_the_concept_and_amber_where_they_changed():
    picture = Image.new("RGB", (8, 8))
    figure = steered_answers.answer_grid(
        [picture], [["a cat", "an owl", "a dog", "a cat"]], list("abcd"), lambda answer: "owl" in answer
    )
    assert list(figure.data[0].z[0]) == [0, 2, 1, 0]
    assert len(figure.layout.images) == 1
    assert steered_answers.answer_grid([], [], [], bool).layout.height == 60
