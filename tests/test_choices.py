"""The other choice of each pair: what it changes beside the noise of the seed, by hand on small tables and codes."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from experiments import choice_findings as choices
from experiments.figures import choices as figures
from experiments.recipe_effects import MEASURES, OURS, Effects, change, clear, describe, measure
from lib import metrics
from lib.metrics.intervals import Interval
from lib.sae.model import SAE, SAEConfig
from tests.sparse_world import sparse_world
from tests.test_figures import axis_titles, panel_titles

X = sparse_world(rows=40)[:]
JUDGE = torch.nn.functional.normalize(torch.randn(40, 8, generator=torch.Generator().manual_seed(1)), dim=1)
ABOVE, ACROSS, BELOW = Interval(0.2, 0.1, 0.3), Interval(0.1, -0.1, 0.3), Interval(-0.2, -0.3, -0.1)


def table(**by_variant) -> Effects:
    """Figures that are equal, a value a seed, by variant of a BatchTopK."""
    return Effects({
        ("batchtopk", name.replace("_", " "), seed): dict.fromkeys(MEASURES, value)
        for name, values in by_variant.items()
        for seed, value in enumerate(values)
    })  # fmt: skip


def test_a_change_is_the_mean_of_paired_differences_with_students_interval():
    found = change([1.0, 2.0, 4.0])
    half = stats.t.ppf(0.975, 2) * np.std([1, 2, 4], ddof=1) / math.sqrt(3)
    assert tuple(found) == pytest.approx((7 / 3, 7 / 3 - half, 7 / 3 + half))
    assert change([1.5]) == Interval(1.5), "one seed has no noise to be compared with"


@pytest.mark.parametrize(
    ("effect", "is_clear"), [(ABOVE, True), (BELOW, True), (ACROSS, False), (Interval(0.5), False)]
)
def test_a_change_is_clear_whose_interval_leaves_out_zero(effect, is_clear):
    assert clear(effect) is is_clear
    assert describe(effect, "mean MS").endswith(", within the noise") is not is_clear


def test_a_change_is_told_in_the_figures_form():
    assert describe(ABOVE, "dead") == "dead +20.0% [+10.0%, +30.0%]"
    assert describe(Interval(0.5), "L0") == "L0 +0.50 [–, –], within the noise"


def test_variants_are_compared_seed_by_seed_with_this_books_own():
    effects = table(this_book=[1.0, 2.0], steps=[1.5, 2.7])
    assert list(effects.changes) == ["steps"]
    assert effects.changes["steps"]["L0"].value == pytest.approx(0.6)
    assert effects.of("batchtopk", OURS)["L0"].tolist() == [1, 2]
    assert effects.table().loc[("batchtopk", "steps"), ("dead", "mean")] == pytest.approx(2.1)
    assert effects.sentence("steps", ("L0",)).startswith("steps: L0 +0.60 [")
    assert effects.beyond_noise(["L0"]) == {"steps": False}
    assert table(this_book=[1.0, 2.0], steps=[1.5, 2.5]).beyond_noise(["L0"]) == {"steps": True}


def test_figures_of_a_dictionary_are_those_of_the_metrics():
    sae = SAE(SAEConfig(kind="batchtopk", width=40, k=4), 32)
    found = measure(sae, X, JUDGE)
    assert list(found) == list(MEASURES)
    scores = metrics.monosemanticity(sae.encode_sparse(X), JUDGE)
    assert found["mean MS"] == pytest.approx(float(scores.nanmean()))
    assert found["best MS"] == pytest.approx(float(scores[~scores.isnan()].max()))


def test_the_printed_score_is_the_codes_times_the_mean_weight_of_a_pair():
    codes = torch.tensor([[0.0, 1.0], [1.0, 0.5], [0.5, 0.0], [0.0, 0.0]])
    pairs = [(n, m) for n in range(4) for m in range(4) if n != m]
    expected = [sum(codes[n, f] * codes[m, f] for n, m in pairs) / 12 for f in (0, 1)]
    torch.testing.assert_close(choices.mean_weight(codes), torch.stack(expected).double())
    dead = torch.cat([codes, torch.zeros(4, 1)], dim=1)
    found = choices.PrintedScore.of([dead.to_sparse_csr(), codes.to_sparse_csr()], JUDGE[:4])
    assert len(found.score) == len(found.printed) == len(found.frequency) == 4, "the dead are left out"
    assert found.frequency.tolist() == [0.5] * 4
    cosine = JUDGE[:4] @ JUDGE[:4].T
    by_hand = sum(codes[n, 0] * codes[m, 0] * cosine[n, m] for n, m in pairs) / 12
    assert float(found.printed[0]) == pytest.approx(float(by_hand), abs=1e-6)


def test_ranks_of_the_printed_score_are_spearmans():
    values = torch.tensor([0.1, 0.4, 0.2, 0.3])
    found = choices.PrintedScore(values, values.double().flip(0), torch.arange(4.0))
    assert found.ranks["the code's score"] == pytest.approx(stats.spearmanr(values, values.flip(0)).statistic)
    assert found.finding.startswith("best value 0.4000 where the ratio has 0.40; rank correlation of the printed form")
    assert axis_titles(figures.denominator(found)) == {
        "|score as printed|", "score as computed by the code", "share of pictures on which it is active",
    }  # fmt: skip


def test_the_sweep_tells_its_fall_and_its_level():
    swept = pd.DataFrame({1: [0.5, 0.3], 4: [0.6, 0.7]}, index=[1, 20])
    assert choices.finding_of_sweep(swept, 0.01, "eye") == (
        "mean MS, E = eye, at K = 1 minus that at K = 20: +0.200 at ×1 and -0.100 at ×4 "
        "(s.d. of one mean score over seeds: 0.010); mean level 0.400 at ×1 and 0.650 at ×4"
    )


def test_rounding_tells_how_far_it_moves_a_level():
    by_level = pd.DataFrame({"unrounded": [1.2, 2.0], "rounded": [1.0, 2.0], "seed": 0}, index=[0, 1])
    by_level = pd.concat([by_level, by_level.assign(seed=1)]).rename_axis("level")
    told = choices.finding_of_rounding(by_level)
    assert told.startswith("rounding moves a level's depth by up to 0.20 ranks in the mean over seeds")
    assert told.endswith("last level minus first: +1.00 rounded, +0.80 unrounded")
    assert "no taxonomy" in choices.finding_of_rounding(pd.DataFrame())


def test_depths_are_means_over_levels_with_and_without_rounding():
    sae = SAE(SAEConfig(kind="matryoshka", width=40, k=4), 32)
    active = sae.encode_sparse(X)
    taxonomy = [("animal", "owl" if i % 2 else "cat") for i in range(40)]
    found = choices.depths_by_level(sae, active, taxonomy)
    assert list(found) == ["unrounded", "rounded"]
    assert len(found) == len(sae.config.group_ends(40))
    assert found.stack().dropna().between(1, 2).all()


@pytest.fixture(params=[True, False], ids=["CLS", "no CLS"])
def model(request):
    """Nine tokens, the first of which may be CLS."""
    kinds = ("cls",) * request.param + ("spatial",) * (9 - request.param)
    places = {"cls": torch.arange(9)[: int(request.param)], "spatial": torch.arange(9)[int(request.param) :]}
    return SimpleNamespace(n_tokens=9, has_cls=request.param, token_kinds=kinds, positions=places.__getitem__)


def test_two_tokens_of_a_picture_are_drawn_as_each_choice_says(model):
    drawn = choices.two_tokens(model, 500)
    assert all(positions.shape == (500, 2) for positions in drawn.values())
    repeated = {name: int((positions[:, 0] == positions[:, 1]).sum()) for name, positions in drawn.items()}
    assert repeated[choices.WITHOUT_REPLACEMENT] == repeated[choices.PATCHES] == 0
    assert 30 < repeated[choices.WITH_REPLACEMENT] < 90, "one pair in nine"
    assert (0 in drawn[choices.PATCHES]) is not model.has_cls
    pictures = torch.arange(500 * 9).view(500, 9, 1).float()
    store = choices.of_tokens(pictures, drawn[choices.PATCHES])
    assert store[:].flatten()[:2].tolist() == drawn[choices.PATCHES][0].tolist()


def test_tokens_are_told_by_what_the_encoder_has(model):
    sae = SAE(SAEConfig(kind="topk", width=40, k=4), 32)
    rows = choices.explained(sae, sparse_world(rows=36)[:].view(4, 9, 32), model)
    assert ("EV of CLS" in rows) is model.has_cls
    names = (choices.WITHOUT_REPLACEMENT, choices.WITH_REPLACEMENT, choices.PATCHES)
    finding = choices.finding_of_tokens(
        pd.DataFrame({(name, seed): rows for name in names for seed in (0, 1)}).T, model
    )
    assert ("CLS" in finding) is model.has_cls
    assert finding.endswith("(of 9 tokens a picture, 11.1% of the pairs drawn with replacement are one token twice)")


def test_what_needs_no_training_is_computed_from_the_papers_figures():
    findings = choices.untrained_findings()
    assert findings[11][1] == "16,000 of 75,368,503 pairs are 0.0212%"
    rows = choices.all_findings(findings)
    assert rows["#"].tolist() == [4, 11, 12]
    assert choices.as_sentence("a finding") == "A finding."


def test_changes_are_drawn_a_panel_a_figure_with_the_clear_ones_filled():
    changes = {"steps": {"mean MS": ABOVE, "dead": ACROSS}, "rate": {"mean MS": ACROSS, "dead": Interval(0.1)}}
    drawn = figures.effects(changes, {"mean MS": "mean MS, E = eye", "dead": "dead"})
    assert panel_titles(drawn) == ["change of mean MS, E = eye", "change of dead"]
    assert list(drawn.data[0].marker.symbol) == ["circle", "circle-open"]
    assert list(drawn.data[1].marker.symbol) == ["circle-open", "circle-open"]
    assert drawn.layout.xaxis2.tickformat == ".0%"
    figures.effects({}, {"dead": "dead"}).to_json()
