"""Scores of dictionaries and of their features in detail: by hand on four pictures, two of owls and two of cats."""

import math

import pandas as pd
import pytest
import torch

from experiments.dictionary_in_detail import (
    ABOVE,
    QUINTILES,
    DictionaryDetail,
    beside_chance_over_seeds,
    describe_nulls,
    describe_seeds,
    mean_scores,
)
from experiments.figures import monosemantic
from experiments.ground_truth import Facts
from experiments.nulls import made_sparse
from experiments.scored_dictionaries import PaperClaims, Scored, in_paper_format, mean_similarity, widened
from lib import metrics
from lib.metrics import Interval
from tests.test_figures import axis_titles

SITE, NOTHING = "7.resid_post", "Nothing to see."
JUDGE = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
FACTS = Facts(["owl"], torch.tensor([[True], [True], [False], [False]]))
PURE = torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0, 1, 0], [0, 1, 0]])  # owls, cats, and a dead one
MIXED = torch.tensor([[1.0, 1], [0, 1], [1, 1], [0, 1.5]])  # an owl and a cat; all


def key(expansion, kind="batchtopk", site=SITE, k=8):
    return site, kind, expansion, k


@pytest.fixture
def scored():
    codes = {Scored.neurons_at(SITE): torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0], [0.5, 0.5]])}
    codes |= {key(1): PURE.to_sparse_csr(), key(4): MIXED.to_sparse_csr()}
    return Scored(codes, {"eye": JUDGE, "facts": JUDGE.flip(1)}, 20)


def test_a_feature_that_fires_at_random_scores_the_mean_similarity():
    assert mean_similarity(JUDGE) == pytest.approx(2 / 6)
    assert mean_similarity(3 * JUDGE[:2]) == pytest.approx(1)


def test_scores_are_summed_up_with_the_dead_left_out(scored):
    assert scored.main == "eye"
    row = scored.table.set_index(["judge", "kind", "expansion"]).loc[("eye", "batchtopk", 1)]
    assert (row["best"], row["worst"], row["mean"], row["std"]) == (1, 1, 1, 0)
    assert row["dead"] == pytest.approx(1 / 3)
    assert list(scored.neurons.index) == [("eye", SITE), ("facts", SITE)]


def test_figures_are_written_as_the_paper_does():
    rows = pd.DataFrame({"best": [0.9, math.nan], "worst": [-0.1234, 0.5], "mean": [0.5, 0.5], "std": [-0.0, 0.1]})
    texts = in_paper_format(rows)
    assert texts["Best / worst"].tolist() == [".90 / -.12", "– / .50"]
    assert texts["Mean ± std"].tolist() == [".500 ± .000", ".500 ± .100"]


def test_wide_tables_begin_with_the_neurons(scored):
    grid = scored.table[scored.table["kind"] != "neurons"]
    wide = scored.wide(grid, "eye", [("batchtopk", SITE)])
    assert list(wide) == ["Best / worst", "Mean ± std"]
    assert list(wide["Mean ± std"].columns) == ["No SAE", "×1", "×4"]
    assert wide["Mean ± std"].loc[("batchtopk", SITE), "×1"] == "1.000 ± .000"


def test_a_sweep_over_k_ends_with_the_neurons(scored):
    swept = scored.swept((SITE, "batchtopk", 1), {8: key(1)})
    assert swept.index.tolist() == ["8", "No SAE"]
    assert swept["L0"].tolist() == ["1.0", "–"]


def test_only_the_chosen_pictures_are_scored(scored):
    chosen = torch.tensor([True, False, True, False])
    assert scored.on_pictures(key(4), chosen).to_dense()[:, 0].tolist() == [1, 0, 1, 0]
    neurons = scored.on_pictures(Scored.neurons_at(SITE), chosen).to_dense()
    assert neurons[:, 0].tolist() == [1, 0, 0, 0]


def test_gaps_are_differences_of_means_and_of_extremes(scored):
    assert scored.mean_gap([key(1)], [key(4)]).value == pytest.approx(
        1 - float(scored.scores["eye", *key(4)].nanmean())
    )
    assert scored.share_above_mean([key(1)], key(4)).value == 1
    assert scored.share_above_best(key(1)) == "100%"


def test_a_best_feature_must_be_alive_in_both_halves(scored):
    assert math.isnan(scored.extreme_elsewhere("max", key(1))[0]), "two active pictures leave one in each half: no pair"
    assert scored.extreme_gap("max", [key(1)], [key(4)]).low is None


@pytest.fixture
def drawn():
    """Ninety-six pictures of three kinds; one planted feature speaks of one kind, sixty-three fire at random."""
    generator = torch.Generator().manual_seed(0)
    kind = torch.arange(96) // 2 % 3
    judge = torch.nn.functional.one_hot(kind, 3) + 0.3 * torch.randn(96, 3, generator=generator)
    noise = torch.rand(96, 64, generator=generator)
    codes = noise * (torch.rand(96, 64, generator=generator) < 0.2)
    planted = codes.clone()
    planted[:, 0] = (kind == 0) * (1 + noise[:, 0])
    rows = torch.randn(96, 16, generator=generator)
    codes = {key(1): codes, key(4): planted}
    codes = {name: dense.to_sparse_csr() for name, dense in codes.items()} | {Scored.neurons_at(SITE): rows}
    return Scored(codes, {"eye": judge}, 50)


def slow_extreme_elsewhere(scored, how, name):
    """The definition: choose on one half of the pictures, score what was chosen on the other half alone."""
    codes, judge, found = scored.codes[name].to_dense(), scored.embeddings["eye"], []
    tenths = torch.arange(len(codes)) // 2 % 10
    fit = [
        all((codes[half::2][tenths[half::2] != t, f] > 0).sum() >= 2 for half in (0, 1) for t in range(10))
        for f in range(codes.shape[1])
    ]
    for chosen, other in ((0, 1), (1, 0)):
        one, two = (metrics.monosemanticity(codes[half::2], judge[half::2]).tolist() for half in (chosen, other))
        pick = max if how == "max" else min
        found.append(two[pick((f for f in range(len(one)) if fit[f]), key=one.__getitem__)])
    return sum(found) / 2


@pytest.mark.parametrize("how", ["max", "min"])
@pytest.mark.parametrize("name", [key(1), key(4)])
def test_an_extreme_is_scored_on_pictures_that_did_not_choose_it(drawn, how, name):
    value, left_out = drawn.extreme_elsewhere(how, name)
    assert value == pytest.approx(slow_extreme_elsewhere(drawn, how, name), abs=1e-5)
    assert left_out.mean() == pytest.approx(value, abs=0.1)


def test_a_planted_best_feature_is_above_chance_and_the_luck_of_the_draw_is_not(drawn):
    """Features that fire at random have a best one, too: on other pictures it is worth nothing."""
    neurons = [Scored.neurons_at(SITE)]
    assert drawn.extreme_gap("max", [key(4)], neurons).low > 0.3
    luck = drawn.extreme_gap("max", [key(1)], neurons)
    assert luck.low < 0 < luck.high
    assert float(drawn.scores["eye", *key(1)].max() - drawn.scores["eye", *neurons[0]].max()) > 0.05


def test_the_null_of_a_grid_holds_directions_as_sparse_as_its_features(drawn):
    null = drawn.of_sparse_directions(seed=0)
    for name in (key(1), key(4)):
        active = [(part.codes[name].to_dense() > 0).sum(0) for part in (drawn, null)]
        assert torch.equal(*active)
        assert not torch.equal(null.codes[name].to_dense(), drawn.codes[name].to_dense())
    assert null.codes[Scored.neurons_at(SITE)] is drawn.codes[Scored.neurons_at(SITE)]


def test_claims_are_those_that_the_grid_can_tell(scored):
    paper = PaperClaims(scored, [SITE], ["batchtopk"], [1, 4], 8)
    claims = paper.claims()
    assert set(claims) == {
        "best-beats-neurons", "best-grows", "worst-falls", "sae-beats-neurons", "x1-above-neurons", "mean-rises-to-x4",
    }  # fmt: skip
    assert claims["mean-rises-to-x4"].value < 0
    assert list(paper.describe(claims))[-1] == "mean of ×4 minus mean of ×1"
    assert set(PaperClaims(scored, [SITE], ["batchtopk"], [4], 8).claims()) == {
        "best-beats-neurons", "best-grows", "worst-falls",
    }  # fmt: skip


@pytest.fixture
def detail():
    """Forty pictures, owls first; feature 0 is active on owls, 1 on every other picture, 2 on two, 3 never."""
    owl = torch.arange(40) < 20
    codes = torch.zeros(40, 4)
    codes[:, 0], codes[:, 1] = owl * (1 + torch.arange(40) / 40), (torch.arange(40) % 2) * (1 + torch.arange(40) / 40)
    codes[:2, 2] = 1.0
    judge = torch.stack([owl, ~owl], dim=1).float()
    scores = {name: metrics.monosemanticity(codes, judge) for name in ("eye", "facts")}
    return DictionaryDetail(codes.to_sparse_csr(), scores, Facts(["owl"], owl[:, None]), 20)


def test_features_with_sixteen_pictures_are_shown_from_both_ends(detail):
    assert detail.alive.tolist() == [0, 1, 2]
    assert detail.full.tolist() == [0, 1]
    assert detail.ends_and_middle(1).tolist() == [0, 1]
    rows = detail.top_rows(detail.ends_and_middle(1))
    assert next(iter(rows)) == "<b>1.00</b><br>#0"
    assert all(len(row) == 16 for row in rows.values())
    assert rows["<b>1.00</b><br>#0"][0] == 19


def test_rarity_is_said_in_counts(detail):
    rho, told = detail.rarity()
    assert rho.value == pytest.approx(-0.5)  # ranks 2.5, 2.5, 1 and 2.5, 1, 2.5
    assert "Of the 3 live features 33% are active on three pictures or fewer" in told
    nothing = DictionaryDetail(torch.zeros(4, 2).to_sparse_csr(), {"eye": torch.full((2,), math.nan)}, FACTS, 20)
    assert "The best of all is active on 0 pictures, the worst on 0." in nothing.rarity()[1]
    assert nothing.ends_and_middle(3).tolist() == []


def test_truths_are_those_of_the_best_fact(detail):
    assert detail.fact_scores["F1"][0] == pytest.approx(1)
    assert detail.fact_scores["focus (bits)"][0] == pytest.approx(1, abs=0.1)
    assert detail.per_feature(["eye"]).loc[0, "fact"] == "owl"
    assert detail.agreement("eye")["pairs"].sum() == 1
    assert detail.overall_agreement("eye").value == 1
    assert detail.focus_by_quintile().index.tolist() == list(QUINTILES)
    assert detail.correlations()["eye"]["F1"].value == pytest.approx(1)
    assert detail.ranks_agree("eye", "facts").value == pytest.approx(1)


def test_nulls_stand_beside_the_features(detail):
    beside = pd.DataFrame({
        name: mean_scores(codes, {"eye": JUDGE}, FACTS, 20)
        for name, codes in {"features": PURE, "sparse directions": MIXED}.items()
    }).T  # fmt: skip
    assert list(beside) == ["MS, E = eye", "F1 of the best fact", "AUC of the best fact"]
    assert beside.loc["features", "MS, E = eye"].value == 1
    told = describe_nulls(beside)
    assert told.startswith("- Random directions, as sparse as the features, score 0.")
    assert "By the F1 of the best fact, features reach 0.33" in told


def test_what_the_nulls_say_of_facts_is_left_out_where_none_is_known():
    nothing = Facts([], torch.zeros(4, 0, dtype=torch.bool))
    means = mean_scores(PURE, {"eye": JUDGE}, nothing, 20)
    beside = pd.DataFrame({"features": means, "sparse directions": means}).T
    assert describe_nulls(beside) == "- Random directions, as sparse as the features, score 1.00."


N = 200
TRUTH = torch.arange(N)[:, None] // 5 % 8 == torch.arange(8)  # of each picture one of eight facts


def random_rows(seed):
    return torch.randn(N, 16, generator=torch.Generator().manual_seed(seed))


def over_seeds(codes, facts=None):
    facts = facts or Facts(list("abcdefgh"), TRUTH)
    codes = {seed: one.to_sparse_csr() for seed, one in codes.items()}
    return beside_chance_over_seeds(codes, random_rows(0), {"eye": TRUTH.float()}, facts)


def of_nothing():
    """Three seeds of eight features that are active on 25 pictures each, whatever these show."""
    return {seed: made_sparse(random_rows(seed)[:, :8], torch.full((8,), 25)) for seed in (1, 2, 3)}


def test_seeds_that_hold_the_facts_are_above_random_directions_as_sparse():
    planted = {seed: TRUTH * (1 + random_rows(seed)[:, :8].abs()) for seed in (1, 2, 3)}
    found = over_seeds(planted)
    assert found.index.tolist() == ["features", "sparse directions", ABOVE]
    assert found.loc["features", "MS, E = eye"].value == pytest.approx(1)
    assert all(interval.low > 0.3 for interval in found.loc[ABOVE])
    told = describe_seeds(found, "topk ×1", 3)
    assert told.endswith(f"by {found.loc[ABOVE, 'F1 of the best fact']} in the F1 of the best fact.")


def test_seeds_that_hold_nothing_are_not():
    assert all(interval.low < 0 < interval.high for interval in over_seeds(of_nothing()).loc[ABOVE])


def test_an_interval_over_seeds_is_students_with_the_error_over_pictures_added():
    found = over_seeds(of_nothing()).loc["features", "MS, E = eye"]
    parts = [torch.arange(N) >= 0, *(torch.arange(N) % 5 != left_out for left_out in range(5))]
    means = torch.tensor(
        [
            [float(metrics.monosemanticity(codes[kept], TRUTH[kept].float()).mean()) for kept in parts]
            for codes in of_nothing().values()
        ]
    )  # (seeds, 1 + 5)
    of_seeds, without = means[:, 0], means[:, 1:].mean(0)
    by_seeds = 4.303 * float(of_seeds.std()) / math.sqrt(3)  # Student's t of two degrees of freedom
    by_pictures = 1.96 * math.sqrt(4 / 5 * float((without - without.mean()).square().sum()))
    assert found.value == pytest.approx(float(of_seeds.mean()), abs=1e-6)
    assert found.high - found.value == pytest.approx(math.hypot(by_seeds, by_pictures), rel=1e-3)


def test_one_seed_has_no_interval_and_no_fact_has_no_value():
    nothing = Facts([], torch.zeros(N, 0, dtype=torch.bool))
    found = over_seeds({0: TRUTH.float()}, nothing)
    assert found.loc["features", "MS, E = eye"] == Interval(pytest.approx(1))
    assert describe_seeds(found, "topk ×1", 1).endswith("by – in the F1 of the best fact.")


def test_its_figures_name_their_axes_and_take_nothing(scored, detail):
    grid = scored.table[scored.table["kind"] != "neurons"]
    figures = monosemantic
    assert axis_titles(figures.best_mean_worst(scored, grid, [SITE], ["batchtopk"])) == {
        "MS, E = eye", "MS, E = facts", "expansion factor",
    }  # fmt: skip
    curves = {"batchtopk": {"neurons": torch.tensor([0.5]), "×1": torch.tensor([math.nan])}}
    assert "MS, E = eye" in axis_titles(figures.ranked_scores(curves, 0.5, SITE, "eye"))
    assert axis_titles(figures.distributions({"eye": curves["batchtopk"]}, {"eye": 0.5})) == {"MS, E = eye"}
    assert "k" in axis_titles(figures.mean_over_k(scored, {8: key(1)}, SITE))
    assert "k" in axis_titles(figures.mean_over_k(scored, {}, SITE))
    assert "MS, E = eye" in axis_titles(figures.score_over_frequency(detail, 0.5, "eye"))
    assert axis_titles(figures.two_judges(detail, NOTHING)) == {"MS, E = eye", "MS, E = facts"}
    assert axis_titles(figures.fact_scores_by_quintile(detail, NOTHING)) == {"quintile of the features, by score"}
    agreement = figures.agreement_over_difference({"eye": detail.agreement("eye")}, [0.5] * 9, NOTHING)
    assert axis_titles(agreement) == {"difference of MS, E = eye", "agreement"}
    no_pairs = detail.agreement("eye").assign(pairs=0)
    empty = figures.agreement_over_difference({"eye": no_pairs}, [0.5] * 9, NOTHING)
    assert not empty.data, "without a pair the paper's people stand alone"
    assert NOTHING in str(empty.layout.annotations)


@pytest.mark.parametrize("n", [0, 1, 1000])
def test_a_curve_has_as_many_points_as_a_page_can_draw(n):
    share, ranked = monosemantic.thinned(torch.rand(n))
    assert len(share) == len(ranked) == min(n, 300)


def test_a_second_error_is_added_in_quadrature():
    found = widened(Interval(1.0, 0.7, 1.3), 0.4 / 1.959964)
    assert found == pytest.approx((1.0, 0.5, 1.5), abs=1e-6)
    assert widened(Interval(1.0), 0.4) == Interval(1.0)
    assert widened(Interval(1.0, 0.7, 1.3), math.nan) == Interval(1.0, 0.7, 1.3)
