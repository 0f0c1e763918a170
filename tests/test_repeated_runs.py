"""Dictionaries trained several times over: figures with intervals over runs, and what papers claim of kinds of them."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from experiments.ensembles import Bagging, Boosting, ensembles_and_baselines
from experiments.figures import kinds as figures
from experiments.nulls import drawn_neurons, null_dictionary
from experiments.repeated_runs import STABILITY, EvaluationData, RepeatedRuns, fit, over_runs, scale, twins
from experiments.sae_folders import SAEStore
from experiments.variant_claims import beside_nulls, claims_of, claims_of_nulls, describe_beside, summary
from lib import metrics
from lib.metrics.intervals import Interval
from lib.sae.model import SAE, SAEConfig
from tests.sparse_world import sparse_world
from tests.test_figures import axis_titles, panel_titles

X = sparse_world(rows=60)[:]
JUDGE = torch.randn(60, 8, generator=torch.Generator().manual_seed(1))
YARDSTICK = EvaluationData(X, JUDGE, min_pictures=4, alike=0.7)
CONFIG = SAEConfig(kind="topk", width=40, k=4, steps=2, batch_size=50)


def dictionary(kind: str, seed: int) -> SAE:
    return SAE(SAEConfig(kind=kind, width=40, k=4, seed=seed), 32)


def runs_of(*names: str, seeds=(0, 1, 2), **more) -> RepeatedRuns:
    return RepeatedRuns({(name, seed): dictionary(name, seed) for name in names for seed in seeds}, YARDSTICK, **more)


def test_a_mean_over_runs_has_students_interval():
    values = np.array([1.0, 2.0, 4.0, 4.5])
    found = over_runs(lambda some: float(values[some].mean()), range(4))
    half = stats.t.ppf(0.975, 3) * values.std(ddof=1) / 2
    assert tuple(found) == pytest.approx((values.mean(), values.mean() - half, values.mean() + half))


def test_a_figure_that_a_run_lacks_is_unknown_and_one_run_has_no_interval():
    assert math.isnan(over_runs(lambda some: float(np.mean([[1.0, math.nan][i] for i in some])), [0, 1]).value)
    assert over_runs(lambda some: float(len(some)), [7]) == Interval(1.0)


def test_a_fit_is_explained_variance_and_l0():
    sae = dictionary("topk", 0)
    assert fit(sae, X)["explained variance"] == pytest.approx(metrics.reconstruction(X, sae(X))["explained_variance"])
    assert 0 < fit(sae, X)["L0"] <= 4


def test_the_scale_of_half_a_reconstruction_is_a_half():
    offset = torch.ones(32)
    assert scale(X, offset + (X - offset) / 2, offset) == pytest.approx(0.5)
    assert scale(X, X, offset) == pytest.approx(1)


def test_twins_are_rows_that_another_comes_near():
    rows = torch.tensor([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0], [-1.0, 0.0]])
    assert twins(rows, 0.7) == pytest.approx(0.5)
    assert math.isnan(twins(rows[:0], 0.7))


def test_a_row_holds_the_figures_of_one_dictionary():
    sae = dictionary("topk", 0)
    row, alive = YARDSTICK.row(sae)
    codes = sae.encode_sparse(X)
    assert row["dead"] == pytest.approx(1 - float(alive.double().mean()))
    assert torch.equal(alive, (codes.to_dense() != 0).any(0))
    enough = (codes.to_dense() != 0).sum(0) >= 4
    assert row["MS"] == pytest.approx(float(metrics.monosemanticity(codes, JUDGE)[enough].nanmean()))
    assert row["shrinkage"] == pytest.approx(abs(1 - row["scale"]))
    assert row["distinct"] == pytest.approx(float(alive.sum()) * (1 - row["twins"]))
    assert row["features"] == 40


def test_runs_are_summed_up_by_name_with_further_figures_beside_those_of_the_yardstick():
    runs = runs_of("topk", "relu", more={("topk", seed): {"right": 0.1 * seed} for seed in range(3)})
    assert (runs.names, runs.runs) == (["topk", "relu"], [0, 1, 2])
    assert runs.mean("topk", "right", [0, 2]) == pytest.approx(0.1)
    table = RepeatedRuns({key: sae for key, sae in runs.saes.items() if key[0] == "topk"}, YARDSTICK, runs.more).table(
        ["right", "L0"]
    )
    assert table["topk"]["right"].value == pytest.approx(0.1)
    assert table["topk"]["L0"].low <= table["topk"]["L0"].value


def test_stability_is_the_mean_cosine_of_matched_live_features_over_pairs_of_runs():
    runs = runs_of("topk")
    (_, alive), (_, others) = (YARDSTICK.row(runs.saes["topk", seed]) for seed in (0, 1))
    one, two = (runs.saes["topk", seed].W_dec for seed in (0, 1))
    assert runs.agreement("topk", 0, 1) == pytest.approx(metrics.match_directions(one, two, alive, others).mean)
    assert runs.mean("topk", STABILITY, [0, 1]) == pytest.approx(runs.agreement("topk", 0, 1))
    assert math.isnan(runs.mean("topk", STABILITY, [0])), "one run has no pair"


def test_a_gain_is_taken_run_by_run_and_unknown_without_one_of_the_two():
    runs = runs_of("topk", "relu")
    gain = runs.gain("relu", "topk", "L0")
    each = [runs.rows["relu", seed]["L0"] - runs.rows["topk", seed]["L0"] for seed in range(3)]
    assert gain.value == pytest.approx(np.mean(each))
    assert gain.high - gain.value == pytest.approx(stats.t.ppf(0.975, 2) * np.std(each, ddof=1) / math.sqrt(3))
    assert math.isnan(runs.gain("gated", "topk").value)


def test_nulls_of_runs_are_as_sparse_drawn_by_the_run_and_measured_alike():
    runs = runs_of("topk", "relu")
    nulls = runs.of_nulls(X, drawn_neurons)
    assert nulls.rows["relu", 1] == YARDSTICK.row(null_dictionary(runs.saes["relu", 1], X, 1, drawn_neurons))[0]
    each = [runs.rows["relu", seed]["MS"] - nulls.rows["relu", seed]["MS"] for seed in range(3)]
    found = runs.above(nulls, "relu", "MS")
    assert found.value == pytest.approx(np.mean(each))
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, 2) * np.std(each, ddof=1) / math.sqrt(3))
    assert {runs.rows[key]["dead"] for key in runs.saes} == {nulls.rows[key]["dead"] for key in runs.saes}


def test_random_dictionaries_are_not_above_their_nulls_and_the_text_says_so():
    runs = runs_of("topk", "relu", seeds=range(4))
    beside = beside_nulls(runs, {"sparse directions": runs.of_nulls(X)}, ["explained variance", "MS"])
    assert list(beside["MS"]) == ["features", "sparse directions", "above sparse directions"]
    gain = beside.loc["topk", ("MS", "above sparse directions")]
    values = beside.loc["topk", "MS"]
    assert gain.value == pytest.approx(values["features"] - values["sparse directions"])
    told = describe_beside(beside).splitlines()
    assert told[0].startswith("- explained variance: features ")
    assert "0 of 2 kinds are above sparse directions" in told[0]
    assert "those as sparse reach `topk`" in told[0], "a decoder that was fitted explains more than one that was drawn"


def test_what_is_above_its_null_is_said_to_be_and_what_was_not_measured_is_left_out():
    row = {("MS", "features"): 0.5, ("MS", "neurons"): 0.2, ("MS", "above neurons"): Interval(0.3, 0.1, 0.5)}
    unknown = {("stability", of): math.nan for of in ("features", "neurons")}
    unknown["stability", "above neurons"] = Interval(math.nan)
    told = describe_beside(pd.DataFrame({"topk": row | unknown}).T)
    half = describe_beside(pd.DataFrame({"topk": row, "frozen_encoder": row}).T, ["frozen_encoder"])
    assert "0.20 to 0.20, `frozen_encoder` 0.50. 1 of 1 kinds" in half
    assert told == (
        "- MS: features 0.50 to 0.50; nulls: neurons as sparse 0.20 to 0.20. 1 of 1 kinds are above neurons by their "
        "whole interval; those as sparse reach none."
    )


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    place = SAEStore(tmp_path_factory.mktemp("ensembles"), "7.resid_post", "cls")
    config = SAEConfig(kind="topk", expansion=1, k=4, steps=2, batch_size=50)
    return ensembles_and_baselines(place, sparse_world(rows=100), config, 2, [3, 5])


def test_ensembles_stand_beside_a_member_and_single_dictionaries_of_their_size(joined):
    sizes = {name: sae.n_features for (name, run), sae in joined.items() if run == 0}
    assert sizes == {
        "one member": 32, "expanded": 64, "expanded, as many active": 64, "bagging": 64, "boosting": 64,
    }  # fmt: skip
    assert isinstance(joined["bagging", 1], Bagging)
    assert isinstance(joined["boosting", 1], Boosting)
    assert [sae.config.seed for sae in joined["bagging", 1].members] == [5, 6], "no two runs share a seed"
    assert joined["expanded, as many active", 0].config.k == 8
    torch.testing.assert_close(joined["bagging", 0].members[0].W_dec, joined["boosting", 0].members[0].W_dec)


def test_claims_and_their_summary_are_of_what_was_trained(joined):
    begun = {((kind, init), seed): dictionary(kind, seed + 3 * len(init)) for kind in ("topk", "archetypal")
             for init in ("random", "data") for seed in range(2)}  # fmt: skip
    kinds, ensembles = runs_of("topk", "gated", "relu"), RepeatedRuns(joined, YARDSTICK)
    claims = claims_of(kinds, RepeatedRuns(begun, YARDSTICK), ensembles)
    assert {"gated-cures-shrinkage", "gated-beats-relu", "bagging-at-equal-l0"} <= set(claims)
    assert "jumprelu-beats-topk" not in claims
    of_nulls = claims_of_nulls(kinds.of_nulls(X), RepeatedRuns(begun, YARDSTICK), ensembles.of_nulls(X))
    assert set(of_nulls) == set(claims) - {"vsae-has-more-dead"}
    assert of_nulls["gated-beats-relu"] == kinds.of_nulls(X).gain("gated", "relu")
    shrunk = [kinds.rows["relu", seed]["shrinkage"] - kinds.rows["gated", seed]["shrinkage"] for seed in range(3)]
    assert claims["gated-cures-shrinkage"].value == pytest.approx(np.mean(shrunk))
    means = pd.DataFrame(kinds.table(["explained variance", "MS", "dead", STABILITY])).T.map(lambda i: i.value)
    told = summary(claims, {"bagging-explains-more": Interval(0.125)}, means, 4)
    assert "(null: +12.5) points with bagging" in told
    assert told.startswith("- At 4 active latents a picture `")
    assert summary({}, {}, means.assign(MS=math.nan), 4).count("– [–, –]") == 9


def test_its_figures_take_every_kind_and_none_and_name_their_axes():
    point = {"L0": 4.0, "explained variance": 0.5}
    drawn = figures.frontier({"topk": point, "relu": point}, {"relu": [{"L0": 2.0, "explained variance": 0.4}]}, 4)
    assert axis_titles(drawn) == {"active latents a picture (L0)", "explained variance"}
    assert list(drawn.data[1].x) == [2.0, 4.0], "a line goes from few active latents to many"
    assert list(drawn.data[1].marker.size) == [6, 14]
    columns = ("explained variance", "MS", STABILITY, "accuracy recovered", "dead", "twins", "distinct")
    table = {name: dict.fromkeys(columns, Interval(0.5, 0.4, 0.6)) for name in ("topk", "relu")}
    null = {"topk": {"MS": Interval(0.1)}}
    for draw, more in ((figures.kinds_compared, [null]), (figures.ensembles_compared, [])):
        assert "MS, E = eye" in panel_titles(draw(table, "eye", *more))
        draw({}, "eye", *more).to_json()
    crosses = [list(trace.x) for trace in figures.kinds_compared(table, "eye", null).data if trace.marker.symbol]
    assert [x for x in crosses if x] == [[0.1]]
    bars = figures.stability_by_beginning({("topk", "random"): table["topk"], ("topk", "data"): table["topk"]})
    assert axis_titles(bars) == {"stability of two runs"}
    figures.stability_by_beginning({}).to_json()
    figures.frontier({}, {}, 4).to_json()
