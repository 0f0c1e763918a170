"""Comparisons of probes, by hand on made-up marks, and trained on vectors of which one column tells the fact."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array

from experiments import probe_comparison
from experiments.ground_truth import Facts
from experiments.probe_comparison import Comparison, chosen_facts, describe_comparison, describe_facts, quiver
from experiments.probing import Pictures, Split
from experiments.transferred_probes import TransferredProbes, places_elsewhere, probed_elsewhere
from lib.metrics.intervals import Interval

SPLIT = Split(np.arange(60), np.arange(60, 90), np.arange(90, 120))


def facts_of(**truth) -> Facts:
    return Facts(list(truth), torch.tensor(np.stack(list(truth.values()), axis=1)))


@pytest.fixture(scope="module")
def compared():
    """120 pictures; column 2 of the codes is active where `owl=yes`, raw activations know less of it."""
    rng = np.random.default_rng(0)
    owl, odd = rng.random(120) < 0.4, np.arange(120) % 2 == 0
    codes = rng.random((120, 4)) * (rng.random((120, 4)) < 0.5)
    codes[:, 2] = owl * (0.5 + rng.random(120))
    codes[:, 3] = odd * 0.5
    raw = rng.standard_normal((120, 3)) + owl[:, None]
    codes = csr_array(codes.astype(np.float32))
    pictures = Pictures(
        {"cls": raw.astype(np.float32), "max": (2 * raw).astype(np.float32)},
        {"cls": codes, "max": codes},
        raw[:, 0],
        raw[:, 1],
    )
    return Comparison.of({"7.resid_post": pictures}, facts_of(owl=owl, odd=odd), SPLIT, 20)


def test_every_kind_is_probed_under_every_pooling(compared):
    assert set(compared.probes["vectors"]) == {
        f"{kind}, {pooling}" for kind in ("raw", "codes", "binary") for pooling in ("cls", "max")
    }
    assert next(iter(compared.table().columns)) == ("AUC", "cls")
    assert compared.table().loc[("7.resid_post", "codes"), ("AUC", "cls")] == 1


def test_with_a_largest_the_binary_mean_has_no_probe_of_its_own():
    codes = csr_array(np.eye(3, dtype=np.float32))
    pictures = Pictures(dict.fromkeys(("mean", "max"), np.eye(3)), dict.fromkeys(("mean", "max"), codes), None, None)
    assert "binary, mean" not in probe_comparison.vectors_of(pictures, np.arange(3))
    only = Pictures({"mean": np.eye(3)}, {"mean": codes}, None, None)
    assert list(probe_comparison.vectors_of(only, np.arange(3))) == ["raw, mean", "codes, mean", "binary, mean"]


def test_validation_chooses_the_pooling_and_the_facts_make_the_interval(compared):
    rows = [
        ("raw", "cls", "a", 0.9, 0.5, 0.1), ("raw", "cls", "b", 0.7, 0.6, 0.2),
        ("raw", "max", "a", 0.5, 0.9, 0.9), ("raw", "max", "b", 0.5, 0.9, 0.9),
        ("codes", "cls", "a", 0.8, 0.7, 0.4), ("codes", "cls", "b", 0.8, 0.9, 0.4),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["kind", "pooling", "fact", "validation", "auc", "f1"]).assign(site="last")
    table["vectors"] = table["kind"] + ", " + table["pooling"]
    made = Comparison({"last": None}, Facts(["a", "b"], torch.zeros(1, 2)), SPLIT, table, 20)
    assert made.poolings("raw") == ("cls", "max")
    assert made.ahead("codes", "raw", "auc").value == pytest.approx(0.25)
    assert made.best_less_worst("raw", "f1").value == pytest.approx(-0.75)
    assert quiver(table, ["a", "b", "none"])["raw only"].fillna(-1).tolist() == [0.5, 0.6, -1]
    assert quiver(table, ["a", "b"])["all"].tolist() == [0.5, 0.9], "validation prefers raw for a, codes for b"


def test_claims_are_told_by_what_they_say(compared):
    assert compared.claims()["raw-better-at-home"].value == -compared.ahead("codes", "raw", "auc").value
    assert list(compared.shown_claims().values()) == list(map(str, compared.claims().values()))
    assert set(compared.ahead_of_raw()) == {"auc", "f1"}


def test_a_sparse_probe_finds_the_column_that_tells_the_fact(compared):
    sizes = compared.sparse([1])
    assert sizes.order == ["1", "all"]
    assert sizes.table().loc["codes", ("AUC", "1")] == 1
    assert sizes.ahead_of_raw()["auc"]["codes"][0].value > 0.05
    assert sizes.description.startswith("With 1 column, codes are ahead")
    assert compared.single_features(sizes.by_single_column()) == {2: "owl", 3: "odd"}
    top = compared.top_test_pictures(2, 3)
    assert set(top) <= set(SPLIT.test.tolist())
    assert compared.facts.truth[top, 0].all()


def test_a_feature_that_tells_by_being_inactive_is_left_out_unless_there_is_no_other(compared):
    absent = facts_of(absent=~compared.facts.truth[:, 0].numpy())
    only = Comparison(compared.seen, absent, SPLIT, compared.probes, 20)
    assert only.single_features(["absent"]) == {2: "absent"}
    both = facts_of(absent=~compared.facts.truth[:, 0].numpy(), odd=compared.facts.truth[:, 1].numpy())
    assert Comparison(compared.seen, both, SPLIT, compared.probes, 20).single_features(["absent", "odd"]) == {3: "odd"}


def test_few_pictures_leave_facts_out_that_they_cannot_teach(compared):
    smaller = compared.with_few([40, 2])
    assert list(smaller) == [40, 60]
    assert list(smaller[40].columns) == ["raw only", "all"]


def test_what_is_carried_over_is_told_by_place(compared):
    moved = compared.elsewhere(compared.facts, SPLIT, np.arange(0, 50), [None, 1])
    carried = TransferredProbes.of(pd.concat([moved.assign(shift="night"), moved.assign(shift="<b>")]), 20)
    assert carried.table().loc[("night", "1"), ("", "facts")] == 2
    assert carried.extremes()[0][1] == carried.extremes()[1][1]
    assert carried.spread().value == pytest.approx(
        float(carried.ahead["away"].std(ddof=1) - carried.ahead["home"].std(ddof=1)), abs=1e-9
    )
    assert "<b>" not in carried.description
    told = describe_comparison(
        compared, Interval(1.0), "1", compared.claims() | {"sae-probes-add-little": Interval(0.0)}, None
    )
    assert told["out-of-distribution detection: profiles less Mahalanobis, AUROC"] == "–"
    assert "codes less raw activations elsewhere, AUC" not in told


def noise(compared) -> Pictures:
    """The pictures with codes that say nothing."""
    rng, own = np.random.default_rng(1), compared.seen["7.resid_post"]
    drawn = csr_array((rng.random((120, 4)) * (rng.random((120, 4)) < 0.5)).astype(np.float32))
    return Pictures(own.raw, {"cls": drawn, "max": drawn}, own.error, own.active)


def test_a_null_is_compared_as_if_it_alone_were_there_and_planted_features_are_above_it(compared):
    chance = compared.of_null(noise(compared))
    alone = Comparison.of({"7.resid_post": noise(compared)}, compared.facts, SPLIT, 20)
    away = np.arange(0, 50)
    assert chance.claims() == alone.claims()
    assert chance.sparse([1]).ahead_of_raw() == alone.sparse([1]).ahead_of_raw()
    assert chance.gained(chance.with_few([40])) == alone.gained(alone.with_few([40]))
    moved, by_itself = (one.elsewhere(one.facts, SPLIT, away, [None]) for one in (chance, alone))
    pd.testing.assert_frame_equal(moved, by_itself)
    assert compared.claims()["probing-beats-hidden"].value > 0.1 > chance.claims()["probing-beats-hidden"].value
    assert compared.gained(compared.with_few([40])).value > chance.gained(chance.with_few([40])).value


def test_raw_activations_are_probed_once_for_features_and_nulls(compared, monkeypatch):
    fresh = Comparison(compared.seen, compared.facts, SPLIT, compared.probes, 20)
    fresh.sparse([1])
    probed, found = [], probe_comparison.probe_facts
    monkeypatch.setattr(
        probe_comparison, "probe_facts", lambda x, *args, **more: probed.extend(x) or found(x, *args, **more)
    )
    fresh.of_null(noise(compared)).sparse([1])
    assert probed
    assert not [name for name in probed if name.startswith("raw")]


def test_what_is_gained_is_the_mean_over_sizes_and_facts(compared):
    one = pd.DataFrame({"raw only": [0.5, 0.6], "all": [0.7, 0.6]}, index=pd.Index(["a", "b"], name="fact"))
    two = pd.DataFrame({"raw only": [0.5], "all": [0.6]}, index=pd.Index(["a"], name="fact"))
    assert compared.gained({10: one, 20: two}).value == pytest.approx((0.15 + 0) / 2)


def test_elsewhere_is_another_set_or_the_values_of_a_column_and_no_probe_learns_there(compared):
    table = pd.DataFrame({"habitat": ["sea", "wood"] * 60, "pictures": ["main"] * 100 + ["birds"] * 20})
    places = places_elsewhere(
        ["habitat is sea", "menagerie:birds", "hour is noon"], table, {"menagerie:birds": "birds"}
    )
    assert {name: int(rows.sum()) for name, rows in places.items()} == {"habitat is sea": 60, "menagerie:birds": 20}
    birds = {"menagerie:birds": places["menagerie:birds"]}
    moved = probed_elsewhere(compared, compared.facts, birds, 2, [None])
    home = Split(SPLIT.train, SPLIT.validation, np.arange(90, 100))
    away = np.arange(100, 120)
    expected = compared.elsewhere(chosen_facts(compared.facts, 2, home, home.test, away), home, away, [None])
    assert len(expected)
    assert set(moved["shift"]) == {"menagerie:birds"}
    key = ["vectors", "fact", "part"]
    for column in ("auc", "f1"):
        assert moved.set_index(key)[column].to_dict() == expected.set_index(key)[column].to_dict()
    assert probed_elsewhere(compared, compared.facts, {}, 2, [None]).empty


def test_facts_that_cannot_be_learned_are_not_chosen():
    rare = np.zeros(120, bool)
    rare[:3] = True
    known = facts_of(rare=rare, odd=np.arange(120) % 2 == 0)
    assert chosen_facts(known, 5, SPLIT, SPLIT.test).names == ["odd"]
    assert chosen_facts(known, 0, SPLIT).names == []
    assert describe_facts(chosen_facts(known, 5, SPLIT)).endswith("pictures: odd (50%).")
