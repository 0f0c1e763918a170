"""A suite of dictionaries on a small encoder's tokens: what they keep, and what the model answers with them inside."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from experiments.figures import token_sparsity as figures
from experiments.published import RELEASED_ALIVE, RELEASED_L0
from experiments.questions import Question
from experiments.sparsity_claims import SparsityClaims
from experiments.spliced_suite import SplicedSuite, tidy
from experiments.token_suite import RELEASED, Inside, Suite, centre_minus_border, load_released, spread
from lib import extract, metrics
from lib.encoders.encoder import load_encoder
from lib.sae.model import SAE, SAEConfig
from tests.small_images import Pictures
from tests.small_models import open_clip_folder
from tests.test_figures import axis_titles, panel_titles

PICTURES, D = Pictures(7), 24
SITES, SCOPES, KINDS = ["0.resid_post", "3.resid_post", "1.mlp_out"], ["all", "cls", "spatial"], ["relu", "topk"]
KEY, NOTHING = ("0.resid_post", "all", "relu"), "Nothing to see."


def dictionary(kind: str, seed: int) -> SAE:
    return SAE(SAEConfig(kind=kind, width=40, k=5, seed=seed), D)


@pytest.fixture(scope="module")
def suite(tmp_path_factory) -> Suite:
    folder = tmp_path_factory.mktemp("suite")
    model = load_encoder(f"open_clip:{open_clip_folder(folder / 'clip')}", device="cpu")
    whole = extract(model, PICTURES, SITES, "all", folder / "store", dtype="float32", progress=False)
    stores = {(site, scope): whole[site].of_tokens(scope, model) for site in SITES for scope in SCOPES}
    saes = {(*place, kind): dictionary(kind, i) for i, place in enumerate(stores) for kind in KINDS}
    saes[(*KEY[:2], RELEASED)] = dictionary("relu", 99)
    return Suite(model, saes, {place: store.sample(5) for place, store in stores.items()}, stores, 20)


@pytest.fixture(scope="module")
def spliced(suite) -> SplicedSuite:
    answers = normalize(torch.randn(3, suite.model.d_embed, generator=torch.Generator().manual_seed(0)), dim=1)
    truth = np.arange(7) % 3
    return SplicedSuite.of(suite, Question(PICTURES, truth, answers, answers, 10.0, "colour", "Which colour?"))


@pytest.fixture(scope="module")
def claims(spliced) -> SparsityClaims:
    return SparsityClaims(spliced, "relu", Inside.of(spliced.suite.l0_maps("relu"), 20))


def test_the_spread_is_what_a_constant_offset_leaves():
    assert spread(torch.tensor([[3.0, 1.0], [3.0, -1.0]])) == pytest.approx(math.sqrt(2 / 20))
    assert spread(torch.ones(4, 3)) == 0


def test_a_suite_knows_its_sites_scopes_and_kinds_and_keeps_those_of_others_apart(suite):
    assert (suite.scopes, suite.kinds, suite.sublayers) == (SCOPES, KINDS, ["resid_post", "mlp_out"])
    assert (suite.layers(), suite.layers("mlp_out"), suite.layers("attn_out")) == ([0, 3], [1], [])
    assert len(suite.of_scope("all")) == 6, "three sites, two kinds"
    other = (*KEY[:2], RELEASED)
    assert suite.beside(other) == [KEY, (*KEY[:2], "topk"), other]


def test_active_latents_are_counted_by_kind_of_token(suite):
    codes = suite.saes[KEY].encode(suite.stores[KEY[:2]][:].view(7, -1, D)) != 0  # (P, T, F)
    torch.testing.assert_close(suite.l0_of(KEY, "cls"), codes[:, 0].sum(1).float())
    torch.testing.assert_close(suite.l0_of(KEY, "spatial"), codes[:, 1:].sum(2).float().mean(1))
    assert suite.l0_of(("3.resid_post", "cls", "topk"), "cls").amax() <= 5
    by_layer = suite.l0_by_layer("resid_post", "all", "relu", "cls")
    assert by_layer[0].value == pytest.approx(float(codes[:, 0].sum(1).float().mean()))
    assert len(by_layer) == 2
    torch.testing.assert_close(suite.l0_maps("relu")[0].flatten(1), codes[:, 1:].sum(2).float())
    assert list(suite.l0_maps("gated")) == [], "no such kind here"


def test_a_latent_is_alive_that_some_of_the_drawn_tokens_activate(suite):
    active = suite.saes[KEY].encode(suite.drawn[KEY[:2]]) != 0
    assert suite.alive[KEY] == pytest.approx(float(active.any(0).float().mean()))


def test_maps_are_compared_inside_and_at_the_border():
    maps = torch.ones(2, 3, 3)
    maps[:, 1, 1] = torch.tensor([1.0, 10.0])
    found = Inside.of({4: maps}, 20)
    assert found.by_layer[4].value == pytest.approx(4.5 / float(maps.mean()))
    assert found.over_layers == found.by_layer[4]
    for nothing in ({}, {4: torch.ones(2, 2, 2)}):  # no layer; patches without an inside
        assert Inside.of(nothing, 20).by_layer == {}
        assert math.isnan(Inside.of(nothing, 20).over_layers.value)


def test_tables_hold_the_figures_in_both_forms(spliced):
    suite = spliced.suite
    row = spliced.reconstruction([KEY]).iloc[0]
    assert (row["layer"], row["sublayer"], row["kind"]) == (0, "resid_post", "relu")
    assert row["EV"] == suite.fits[KEY].ours["explained_variance"]
    assert row["emb. cos"] == pytest.approx(
        float((spliced.embeddings[KEY] * spliced.embeddings["clean"]).sum(1).mean())
    )
    patches = spliced.reconstruction([("0.resid_post", "spatial", "topk")]).iloc[0]
    assert math.isnan(patches["CLS L0"])
    assert math.isnan(patches["L1"])
    answers = spliced.zero_shot([KEY]).iloc[0]
    asked = spliced.asked
    loss = metrics.zero_shot(spliced.embeddings[KEY], asked.answers, torch.as_tensor(asked.truth), 10.0).loss
    assert answers["CE SAE"] == pytest.approx(float(loss.mean()))
    assert answers["publ. CE zero"] == pytest.approx(float(spliced.unscaled["0.resid_post", "all", "zero"].mean()))
    html = tidy(spliced.zero_shot(suite.of_scope("all")), "a <b>").to_html()
    assert "a &lt;b&gt;" in html
    assert "nan" not in html


def test_the_published_form_of_one_scope_zeroes_all_tokens_and_ours_its_own(spliced):
    assert ("0.resid_post", "cls", "zero") in spliced.embeddings
    assert not torch.equal(*(spliced.embeddings["0.resid_post", scope, "zero"] for scope in ("cls", "all")))
    assert spliced.untouched.startswith("Untouched: **")
    assert "7 pictures (colour)" in spliced.untouched


def test_claims_are_those_that_the_suite_can_tell(claims, spliced):
    assert set(claims.found) == {
        "cls-l0-rises", "sparsity-patterns-differ", "patches-denser-inside", "alive-cls-rises", "topk-lowers-ce",
        "topk-lowers-ce-scaled", "all-tokens-recover-ce",
    }  # fmt: skip
    suite = spliced.suite
    first, last = (suite.l0_of((site, "all", "relu"), "cls").mean() for site in ("0.resid_post", "3.resid_post"))
    assert claims.found["cls-l0-rises"].value == pytest.approx(float(last - first))
    added = spliced.scaled["3.resid_post", "cls", "topk"].loss - spliced.scaled["clean"].loss
    assert claims.late == [3]
    assert claims.found["topk-lowers-ce-scaled"].value == pytest.approx(float(added.mean()))
    assert len(claims.describe()) == 7
    assert claims.summary(NOTHING).startswith("- From layer 0 to 3 CLS needs so many more active latents: ")


def test_a_suite_of_patches_in_one_block_claims_nothing(suite, spliced):
    saes = {key: sae for key, sae in suite.saes.items() if key[:2] == ("0.resid_post", "spatial")}
    small = SplicedSuite(Suite(suite.model, saes, suite.drawn, suite.stores, 20), spliced.asked, spliced.embeddings)
    claims = SparsityClaims(small, "relu", Inside.of({}, 20))
    assert claims.found == claims.describe() == {}
    assert claims.summary(NOTHING) == NOTHING
    assert figures.l0_maps(small.suite.l0_maps("relu"), NOTHING).layout.annotations[0].text == NOTHING
    figures.l0_by_layer(small.suite, "relu", "a model").to_json()
    figures.recovered(small, NOTHING).to_json()


def test_its_figures_name_their_axes(suite, spliced):
    lines = figures.l0_by_layer(suite, "relu", "a model")
    assert axis_titles(lines) == {"layer", "L0: active latents a token"}
    assert panel_titles(lines) == [
        "resid_post (a model)", "mlp_out (a model)", "resid_post (published)",
    ]  # fmt: skip
    assert figures.l0_maps(suite.l0_maps("relu"), NOTHING).data
    assert axis_titles(figures.alive(suite)) == {"depth: 0 the first block, 1 the last", "latents alive"}
    axis_titles(figures.recovered(spliced, NOTHING))
    figures.two_forms(spliced, NOTHING).to_json()


def test_the_released_tables_have_a_figure_for_each_of_twelve_layers():
    assert len(RELEASED_L0) == 12
    assert {kind: len(shares) for kind, shares in RELEASED_ALIVE.items()} == {"relu": 12, "topk": 12}


def test_dictionaries_of_others_are_read_by_their_place(suite, tmp_path):
    dictionary("relu", 1).save(tmp_path / "fits")
    SAE(SAEConfig(kind="relu", width=40), D + 1).save(tmp_path / "wide")
    places = [("0.resid_post", "all")]
    assert list(load_released({"0.resid_post/all": str(tmp_path / "fits")}, places, suite.model)) == [
        ("0.resid_post", "all", RELEASED)
    ]
    with pytest.raises(ValueError, match=r"released names 7\.mlp_out/cls, but only 0\.resid_post/all are measured"):
        load_released({"7.mlp_out/cls": str(tmp_path / "fits")}, places, suite.model)
    with pytest.raises(ValueError, match=r"reads 25 values, 0\.resid_post has 24"):
        load_released({"0.resid_post/all": str(tmp_path / "wide")}, places, suite.model)


def test_centre_minus_border_compares_the_inside_with_the_outer_ring():
    maps = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0))
    for found, one in zip(centre_minus_border(maps), maps, strict=True):
        ring = [one[i, j] for i in range(4) for j in range(5) if i in (0, 3) or j in (0, 4)]
        inside = [one[i, j] for i in (1, 2) for j in (1, 2, 3)]
        assert float(found) == pytest.approx(float(sum(inside) / 6 - sum(ring) / 14), rel=1e-5)


@pytest.mark.parametrize("shape", [(3, 2, 7), (7, 7)])
def test_a_map_without_an_inside_is_refused(shape):
    with pytest.raises(ValueError, match="3 x 3 cells or more"):
        centre_minus_border(torch.zeros(shape))
