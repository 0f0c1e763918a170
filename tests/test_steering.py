"""Interventions against hand-written loops, at every site of every family, and models that come back as they were."""

import json
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from experiments.answer_judge import Concept, nameable_facts, truths_of
from experiments.directions import difference_of_means, difference_of_means_by_text, largest_codes, top_pictures
from experiments.ensembles import Bagging
from lib.activations.extraction import ActivationStore, extract
from lib.encoders.encoder import load_encoder
from lib.images.image_set import load_images
from lib.sae.model import SAE, SAEConfig, input_scale
from steering.interventions import Directions, Intervention, Neurons
from tests.small_hugging_face import hugging_face_folder
from tests.small_models import open_clip_folder

TIMM = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "token", "timm_proj": "linear", "image_size": 224}
FAMILIES = ("open_clip", "timm", "clip", "siglip", "dinov2 registers", "deit")


@pytest.fixture(scope="module")
def encoder_of(tmp_path_factory):
    """Family -> a small encoder, made once."""
    encoders = {}

    def encoder(family: str):
        if family not in encoders:
            folder = tmp_path_factory.mktemp("models") / family
            if family in ("open_clip", "timm"):
                spec = f"open_clip:{open_clip_folder(folder, **(TIMM if family == 'timm' else {}))}"
            else:
                spec = f"hf:{hugging_face_folder(folder, family)}"
            encoders[family] = load_encoder(spec, device="cpu")
        return encoders[family]

    return encoder


@pytest.fixture(scope="module", params=FAMILIES)
def encoder(request, encoder_of):
    return encoder_of(request.param)


@pytest.fixture(scope="module")
def clip(encoder_of):
    return encoder_of("clip")


def pixels_for(encoder, n: int = 2) -> torch.Tensor:
    height, width = (24, 32) if "dinov2" in encoder.spec else (224, 224) if "timm" in encoder.spec else (32, 32)
    return torch.randn(n, 3, height, width, generator=torch.Generator().manual_seed(0))


def dictionary(d: int, kind: str = "batchtopk", seed: int = 0, **config) -> SAE:
    """An SAE of random weights, none of them zero, with a threshold of which some codes fall short."""
    sae = SAE(SAEConfig(kind=kind, width=3 * d, k=4, seed=seed, **config), d)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in (sae.b_enc, sae.b_dec):
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
        sae.threshold.fill_(0.2)
    return sae


@torch.no_grad()
def by_hand(x: torch.Tensor, intervention: Intervention, chosen: list[int] | None = None) -> torch.Tensor:
    """The definition, one token and one feature at a time: edited codes, decoded; the error added where it is kept."""
    sae, out = intervention.sae, x.clone()
    for picture in range(len(x)):
        for token in range(x.shape[1]) if chosen is None else chosen:
            row = x[picture, token]
            codes = sae.encode(row)
            edited = codes.clone()
            for feature, value in intervention.features.items():
                if intervention.mode == "clamp":
                    edited[feature] = value
                if intervention.mode == "add":
                    edited[feature] = codes[feature] + value
                if intervention.mode == "scale":
                    edited[feature] = codes[feature] * value
                if intervention.mode == "suppress":
                    edited[feature] = -value
            out[picture, token] = sae.decode(edited, row)
            if intervention.keep_error:
                out[picture, token] += row - sae.decode(codes, row)
    return out


@pytest.fixture
def activations() -> torch.Tensor:
    return torch.randn(2, 17, 24, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("keep_error", [True, False])
@pytest.mark.parametrize("mode", ["clamp", "add", "scale", "suppress"])
def test_an_edit_is_the_decoded_edited_codes(clip, activations, mode, keep_error):
    active = dictionary(24).encode(activations).sum((0, 1)).argmax().item()
    intervention = Intervention(dictionary(24), "1.resid_post", {active: 3.0, 5: 0.5}, mode, keep_error=keep_error)
    edited = intervention.edit(activations, clip)
    assert torch.allclose(edited, by_hand(activations, intervention), atol=1e-5)
    assert not torch.allclose(edited, activations, atol=0.1)


@pytest.mark.parametrize("keep_error", [True, False])
@pytest.mark.parametrize(
    "config", [{"kind": "topk"}, {"kind": "relu"}, {"kind": "matryoshka", "threshold": "per_feature"}]
)
def test_every_kind_of_dictionary_is_edited_alike(clip, activations, config, keep_error):
    intervention = Intervention(dictionary(24, **config), "1.resid_post", {2: 4.0, 60: 1.0}, keep_error=keep_error)
    assert torch.allclose(intervention.edit(activations, clip), by_hand(activations, intervention), atol=1e-5)


@pytest.mark.parametrize("keep_error", [True, False])
@pytest.mark.parametrize("norm", ["layer_norm", "unit_rms"])
def test_a_dictionary_that_normalises_its_inputs_is_edited_in_the_units_of_the_model(
    clip, activations, norm, keep_error
):
    x = 7 * activations + 2
    intervention = Intervention(dictionary(24, input_norm=norm), "1.resid_post", {2: 4.0}, keep_error=keep_error)
    assert torch.allclose(intervention.edit(x, clip), by_hand(x, intervention), atol=1e-4)
    assert (input_scale(x, norm)[1] > 2).all()  # so that a forgotten scale would show


def test_keeping_the_error_moves_x_along_the_edited_features_alone(clip, activations):
    sae = dictionary(24)
    moved = Intervention(sae, "1.resid_post", {2: 4.0, 9: 2.0}).edit(activations, clip) - activations
    basis = torch.linalg.qr(sae.W_dec[[2, 9]].detach().T).Q  # (d, 2)
    assert torch.allclose(moved @ basis @ basis.T, moved, atol=1e-5)


@pytest.mark.parametrize("tokens", ["cls", "spatial"])
def test_tokens_that_are_not_chosen_stay_bit_for_bit(clip, activations, tokens):
    for keep_error in (True, False):
        intervention = Intervention(dictionary(24), "1.resid_post", {2: 9.0}, tokens=tokens, keep_error=keep_error)
        edited = intervention.edit(activations, clip)
        chosen = [0] if tokens == "cls" else list(range(1, 17))
        assert torch.allclose(edited, by_hand(activations, intervention, chosen), atol=1e-5)
        others = [t for t in range(17) if t not in chosen]
        assert torch.equal(edited[:, others], activations[:, others])


def test_a_mask_of_patches_and_one_of_tokens_choose_the_same(clip, activations):
    patches = torch.zeros(4, 4, dtype=torch.bool)
    patches[1, 2] = patches[3, 0] = True
    on_grid = Intervention(dictionary(24), "1.resid_post", {2: 9.0}, tokens=patches)
    on_tokens = replace(on_grid, tokens=[t in (1 + 4 + 2, 1 + 12) for t in range(17)])
    edited = on_grid.edit(activations, clip)
    assert torch.equal(edited, on_tokens.edit(activations, clip))
    assert (edited != activations).any(-1).any(0).nonzero().flatten().tolist() == [7, 13]


def test_spatial_leaves_registers_and_cls_alone(encoder_of):
    encoder = encoder_of("dinov2 registers")
    x = torch.randn(1, encoder.n_tokens, 24)
    edited = Intervention(dictionary(24), "1.resid_post", {2: 9.0}, tokens="spatial").edit(x, encoder)
    assert (edited != x).any(-1)[0].nonzero().flatten().tolist() == list(range(5, encoder.n_tokens))


def test_raw_neurons_are_set_themselves(clip, activations):
    for keep_error in (True, False):
        edited = Intervention(Neurons(24), "1.resid_post", {7: 5.0}, keep_error=keep_error).edit(activations, clip)
        expected = activations.clone()
        expected[..., 7] = 5
        assert torch.allclose(edited, expected, atol=1e-6)


def test_a_direction_is_clamped_by_its_projection(clip, activations):
    vectors = torch.randn(3, 24, generator=torch.Generator().manual_seed(1))
    edited = Intervention(Directions(vectors), "1.resid_post", {1: 5.0}).edit(activations, clip)
    unit = normalize(vectors[1], dim=0)
    assert torch.allclose(edited @ unit, torch.full((2, 17), 5.0), atol=1e-5)
    assert torch.allclose(
        edited - (edited @ unit)[..., None] * unit, activations - (activations @ unit)[..., None] * unit, atol=1e-5
    )


def test_adding_a_direction_adds_its_unit_vector_so_many_times(clip, activations):
    vectors = torch.randn(3, 24, generator=torch.Generator().manual_seed(1))
    edited = Intervention(Directions(vectors), "1.resid_post", {1: -2.0}, mode="add").edit(activations, clip)
    assert torch.allclose(edited, activations - 2 * normalize(vectors[1], dim=0), atol=1e-5)


def test_the_difference_of_means_points_from_the_pictures_without_to_those_with():
    positive, negative = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[0.0, 1.0]])
    assert difference_of_means(positive, negative).tolist() == [2.0, 2.0]


def test_many_rows_are_encoded_in_parts_to_the_same_values(clip, activations, monkeypatch):
    intervention = Intervention(dictionary(24), "1.resid_post", {2: 4.0}, keep_error=False)
    whole = intervention.edit(activations, clip)
    monkeypatch.setattr("steering.interventions.DENSE_CODES", 5 * intervention.sae.n_features)
    assert torch.allclose(intervention.edit(activations, clip), whole, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_lower_precision_is_edited_in_float32_and_given_back_as_it_came(clip, activations, dtype):
    intervention = Intervention(dictionary(24), "1.resid_post", {2: 4.0})
    x = activations.to(dtype)
    edited = intervention.edit(x, clip)
    assert edited.dtype == dtype
    assert torch.equal(edited, intervention.edit(x.float(), clip).to(dtype))


# In a model


def n_hooks(encoder) -> int:
    """transformers leaves some of its own."""
    return sum(len(module._forward_hooks) for module in encoder.model.modules())


def test_a_steered_pass_continues_from_the_edited_value(encoder):
    """The blocks after the site run on the hand-edited value, whatever the family and the kind of site."""
    pixels = pixels_for(encoder)
    for kind in ("resid_post", "mlp_out", "attn_out"):
        site = f"1.{kind}"
        intervention = Intervention(dictionary(encoder.d_model), site, {3: 6.0}, keep_error=False)
        before = encoder.run(pixels, [site, "1.resid_post"])
        with encoder.steered(intervention):
            after = encoder.run(pixels, [site, "1.resid_post", "2.resid_post"])
        wanted = by_hand(before[site], intervention)
        assert torch.allclose(after[site], wanted, atol=1e-4)
        if kind == "mlp_out":  # the MLP is added last, so that its change is the stream's
            change = after["1.resid_post"] - before["1.resid_post"]
            assert torch.allclose(change, wanted - before[site], atol=1e-4)
        resumed = encoder.tower.blocks[2](
            after["1.resid_post"], **({"attention_mask": None} if "hf:" in encoder.spec else {})
        )
        resumed = resumed[0] if isinstance(resumed, tuple) else resumed
        assert torch.allclose(after["2.resid_post"], resumed, atol=1e-5)


def test_at_proj_the_embedding_is_edited_before_it_is_normalised(encoder):
    pixels = pixels_for(encoder)
    intervention = Intervention(dictionary(encoder.d_embed), "proj", {3: 6.0})
    before = encoder.run(pixels, ["proj"])["proj"]
    with encoder.steered(intervention):
        after, embedded = encoder.run(pixels, ["proj"])["proj"], encoder.embed_images(pixels)
    wanted = by_hand(before[:, None], intervention)[:, 0]
    assert torch.allclose(after, wanted, atol=1e-5)
    assert torch.allclose(embedded, normalize(wanted, dim=-1), atol=1e-5)


def test_several_interventions_act_in_their_order_at_one_site_and_at_several(clip):
    pixels = pixels_for(clip)
    first = Intervention(dictionary(24), "0.resid_post", {3: 6.0})
    second = Intervention(dictionary(24, seed=5), "0.resid_post", {8: 2.0}, keep_error=False)
    later = Intervention(dictionary(24), "1.mlp_out", {1: 4.0})
    at_0 = by_hand(by_hand(clip.run(pixels, ["0.resid_post"])["0.resid_post"], first), second)
    with clip.steered(first, second, later):
        values = clip.run(pixels, ["0.resid_post", "1.mlp_out"])
    with clip.steered(first), clip.steered(second), clip.steered(later):
        nested = clip.run(pixels, ["0.resid_post", "1.mlp_out"])
    assert torch.allclose(values["0.resid_post"], at_0, atol=1e-5)
    with clip.steered(first, second):
        unedited = clip.run(pixels, ["1.mlp_out"])["1.mlp_out"]
    assert torch.allclose(values["1.mlp_out"], by_hand(unedited, later), atol=1e-5)
    for site, value in values.items():
        assert torch.equal(value, nested[site])


def test_hidden_states_that_transformers_collected_before_are_steered_too(clip):
    """transformers installs its collecting hooks once and for all: an edit after them would not be seen by LLaVA."""
    pixels, model = pixels_for(clip), clip.model.vision_model
    before = model(pixels, output_hidden_states=True).hidden_states
    with clip.steered(Intervention(dictionary(24), "1.resid_post", {3: 6.0})):
        after = model(pixels, output_hidden_states=True).hidden_states
        assert torch.equal(after[2], clip.run(pixels, ["1.resid_post"])["1.resid_post"])
    assert torch.equal(after[1], before[1])
    assert not torch.equal(after[2], before[2])


def test_leaving_restores_the_model_bit_for_bit(encoder):
    pixels = pixels_for(encoder)
    hooks = n_hooks(encoder)
    before = encoder.run(pixels, encoder.sites)
    edits = [Intervention(dictionary(encoder.width(s)), s, {3: 6.0}) for s in encoder.sites]
    with encoder.steered(*edits):
        assert not torch.equal(encoder.run(pixels, ["0.attn_out"])["0.attn_out"], before["0.attn_out"])
    after = encoder.run(pixels, encoder.sites)
    assert all(torch.equal(after[site], before[site]) for site in encoder.sites)
    assert n_hooks(encoder) == hooks


def test_an_exception_restores_the_model_bit_for_bit(clip):
    pixels = pixels_for(clip)
    before = clip.run(pixels, clip.sites)
    outer = Intervention(dictionary(24), "0.resid_post", {3: 6.0})
    inner = replace(outer, site="1.attn_out")
    with pytest.raises(ValueError, match="unknown site"), clip.steered(outer), clip.steered(inner):
        clip.run(pixels, ["1.resid_post", "no site"])
    after = clip.run(pixels, clip.sites)
    assert all(torch.equal(after[site], before[site]) for site in clip.sites)


def test_an_intervention_that_does_not_fit_leaves_no_hook(clip):
    good, hooks = Intervention(dictionary(24), "0.resid_post", {3: 6.0}), n_hooks(clip)
    with pytest.raises(ValueError, match="no site"), clip.steered(good, replace(good, site="9.resid_post")):
        pass
    assert n_hooks(clip) == hooks


def test_leaving_the_inner_of_two_contexts_leaves_the_outer_in_force(clip):
    pixels = pixels_for(clip)
    edit = Intervention(dictionary(24), "1.resid_post", {3: 6.0})
    with clip.steered(edit):
        once = clip.run(pixels, ["1.resid_post"])["1.resid_post"]
        with clip.steered(replace(edit, mode="add")):
            assert not torch.equal(clip.run(pixels, ["1.resid_post"])["1.resid_post"], once)
        assert torch.equal(clip.run(pixels, ["1.resid_post"])["1.resid_post"], once)


def test_under_autocast_the_edit_itself_is_float32(encoder_of):
    spec = encoder_of("clip").spec
    encoder = load_encoder(spec, device="cpu", dtype="bfloat16")
    pixels, edit = pixels_for(encoder), Intervention(dictionary(24), "1.resid_post", {3: 6.0})
    before = encoder.run(pixels, ["1.resid_post"])["1.resid_post"]
    with encoder.steered(edit):
        after = encoder.run(pixels, ["1.resid_post"])["1.resid_post"]
    change, wanted = after - before, by_hand(before, edit) - before
    assert (change - wanted).abs().max() < 0.01 * wanted.abs().max()


def test_an_sae_with_gradients_builds_no_graph_in_a_pass_that_asks_for_none(clip):
    sae = dictionary(24)
    assert sae.W_dec.requires_grad
    with clip.steered(Intervention(sae, "1.resid_post", {3: 6.0})):
        assert not clip.run(pixels_for(clip), ["2.resid_post"])["2.resid_post"].requires_grad
        pixels = pixels_for(clip).requires_grad_()
        clip.run(pixels, ["2.resid_post"])["2.resid_post"].sum().backward()
    assert pixels.grad.abs().sum() > 0


def test_what_a_steered_encoder_says_is_not_stored_as_its_own(clip, tmp_path):
    edit = Intervention(dictionary(24), "1.resid_post", {3: 6.0})
    with clip.steered(edit), pytest.raises(ValueError, match="a steered encoder is not stored"):
        extract(clip, load_images("menagerie:val[:2]"), ["1.resid_post"], "cls", tmp_path, progress=False)


# DiffMean whose sets a text finds


def test_sets_that_a_text_finds_are_the_nearest_and_the_farthest_pictures():
    pictures = torch.tensor([[2.0, 0.0], [0.0, 1.0], [-3.0, 0.1], [1.0, 0.1]])
    activations = torch.tensor([[1.0], [10.0], [100.0], [3.0]])
    texts = torch.tensor([[1.0, 0.0], [0.0, 5.0]])
    assert difference_of_means_by_text(activations, pictures, texts, n=1).tolist() == [[-99.0], [9.0]]
    assert difference_of_means_by_text(activations, pictures, texts[:1], n=2).tolist() == [[2.0 - 55.0]]


def test_in_the_embedded_world_texts_find_directions_like_those_of_the_truth():
    clip, images = load_encoder("tiny", device="cpu"), load_images("menagerie:train[:300]")
    values = clip.run(clip.pixels(list(images)), ["6.resid_post", "proj"])
    activations = values["6.resid_post"].mean(1)
    facts = nameable_facts(truths_of(images), ["species", "habitat"], min_support=8)
    texts = clip.embed_texts([Concept.parse(name).value for name in facts.names])
    by_text = difference_of_means_by_text(activations, values["proj"], texts, n=8)
    by_truth = torch.stack([difference_of_means(activations[has], activations[~has]) for has in facts.truth.T])
    assert torch.cosine_similarity(by_text, by_truth).mean() > 0.3


@pytest.mark.parametrize(
    ("n", "shape", "sentence"), [(3, (4, 2), "two sets of 3 cannot be taken from 4"), (1, (5, 2), "do not fit")]
)
def test_sets_that_a_text_cannot_find_are_an_error(n, shape, sentence):
    with pytest.raises(ValueError, match=sentence):
        difference_of_means_by_text(torch.ones(4, 3), torch.ones(shape), torch.ones(1, 2), n)


# Codes on a store of activations


@pytest.fixture
def store() -> ActivationStore:
    """Pictures 2 to 31 with one to three rows each, between zero and one."""
    picture = torch.arange(2, 32).repeat_interleave(torch.arange(30) % 3 + 1)
    return ActivationStore.from_tensor(
        torch.rand(len(picture), 24, generator=torch.Generator().manual_seed(5)), picture
    )


@pytest.fixture(params=[1, 1 << 26])
def few_codes_at_a_time(request, monkeypatch):
    monkeypatch.setattr("experiments.directions.DENSE_CODES", request.param)


@pytest.mark.parametrize("some", [dictionary(24), Neurons(24), Directions(-torch.eye(3, 24))])
def test_the_largest_codes_are_those_of_all_rows_at_once(store, some, few_codes_at_a_time):
    assert torch.allclose(largest_codes(some, store), some.encode(store[:]).amax(0))


@pytest.mark.parametrize("search", [largest_codes, top_pictures])
def test_codes_that_are_not_finite_are_refused(search):
    rows = torch.ones(3, 4)
    rows[1, 2] = torch.nan
    with pytest.raises(ValueError, match="the matrix of codes holds NaN or infinity"):
        search(Neurons(4), ActivationStore.from_tensor(rows))


@pytest.mark.parametrize("some", [Neurons(24), Directions(-torch.eye(3, 24))])
def test_top_pictures_have_the_largest_codes_on_any_of_their_rows(store, some, few_codes_at_a_time):
    codes = {int(i): some.encode(store[store.image_index == i]).amax(0) for i in store.image_index.unique()}
    ranked = [sorted(codes, key=lambda i: -codes[i][j])[:16] for j in range(some.n_features)]
    assert top_pictures(some, store).tolist() == ranked


def test_of_few_pictures_all_are_the_top_ones(store):
    assert sorted(top_pictures(Neurons(24), store, k=99)[0].tolist()) == list(range(2, 32))


# As code and as JSON


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mode": "suppress", "keep_error": False},
        {"features": {0: 0.1 + 0.2, 71: -1e-7}, "mode": "add", "tokens": "spatial"},
        {"tokens": torch.eye(4, dtype=torch.bool)},
        {"tokens": [True] + 16 * [False]},
        {"sae": Neurons(24), "features": {3: 1}},
    ],
)
def test_the_code_makes_an_equal_intervention(settings):
    sae = dictionary(24)
    intervention = Intervention(**{"sae": sae, "site": "1.mlp_out", "features": {2: 100}, **settings})
    again = eval(intervention.as_code("my_sae"), {"Intervention": Intervention, "Neurons": Neurons, "my_sae": sae})
    assert again == intervention


def test_the_code_reads_as_one_would_write_it():
    code = Intervention(dictionary(24), "6.resid_post", {17: 100}, keep_error=False).as_code()
    assert code == 'Intervention(sae, "6.resid_post", {17: 100.0}, keep_error=False)'


def test_the_description_can_be_stored_as_json():
    edit = Intervention(dictionary(24), "1.mlp_out", {2: 4}, tokens=torch.eye(4))
    stored = json.loads(json.dumps(edit.describe()))
    assert stored["features"] == {"2": 4.0}
    assert stored["tokens"] == torch.eye(4, dtype=torch.bool).tolist()
    assert stored["dictionary"] == {"kind": "batchtopk", "d": 24, "n_features": 72}


# Mistakes


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"mode": "boost"}, "unknown mode 'boost': choose one of clamp, add, scale, suppress"),
        ({"site": "1.resid"}, "unknown site"),
        ({"tokens": "patches"}, "unknown tokens 'patches': choose one of all, cls, spatial, or give a mask"),
        ({"tokens": torch.tensor([[0.0, 0.5]])}, "true or false"),
        ({"tokens": None}, "true or false, not None"),
        ({"tokens": ["cls"]}, "true or false"),
        ({"sae": "folder"}, "needs an SAE, Neurons or Directions, not 'folder'"),
        ({"features": [1, 2]}, "features must be .feature index: value., not .1, 2."),
        ({"features": 3}, "features must be"),
        ({"features": {1: "x"}}, "feature 1 cannot be set by 'x'"),
        ({"features": {1: torch.ones(2)}}, "feature 1 cannot be set by"),
        ({"features": {}}, "needs a feature"),
        ({"features": {72: 1.0}}, "no feature 72: the dictionary has features 0 to 71"),
        ({"features": {-1: 1.0}}, "no feature -1"),
        ({"features": {3.7: 1.0}}, "feature index must be an integer, not 3.7"),
        ({"features": {"3": 1.0}}, "not '3'"),
        ({"features": {1: float("nan")}}, "give a finite number"),
        ({"features": {1: -2.0}, "mode": "suppress"}, "give 2 in place of -2"),
    ],
)
def test_a_wrong_setting_is_an_error_that_says_what_to_write(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        Intervention(**{"sae": dictionary(24), "site": "1.mlp_out", "features": {2: 4.0}, **settings})


@pytest.mark.parametrize("kind", ["batchtopk", "topk", "gated"])
def test_a_dictionary_with_a_weight_that_is_not_finite_steers_nothing(kind):
    """One made in memory, for files of it are refused. Top-k would choose features by NaN, and edit the others."""
    for name, _ in dictionary(24, kind).state_dict().items():
        sae = dictionary(24, kind)
        Intervention(sae, "1.mlp_out", {2: 4.0})
        with torch.no_grad():
            sae.state_dict()[name].fill_(float("nan"))
        for members in (sae, Bagging([dictionary(24), sae])):
            with pytest.raises(ValueError, match=rf"{name} of the dictionary holds NaN or infinity"):
                Intervention(members, "1.mlp_out", {2: 4.0})


@pytest.mark.parametrize(
    ("family", "settings", "sentence"),
    [
        ("clip", {"site": "3.resid_post"}, "has layers 0 to 2"),
        ("clip", {"sae": dictionary(16)}, "of width 16, and 1.mlp_out of .* has width 24"),
        ("clip", {"site": "proj", "sae": dictionary(12), "tokens": "cls"}, "proj has one vector for each picture"),
        (
            "clip",
            {"tokens": torch.ones(4, 3)},
            r"a mask of shape \(4, 3\) does not fit: .* patches \(4, 4\) and 17 tokens",
        ),
        ("siglip", {"tokens": "cls"}, "has no cls tokens"),
    ],
)
def test_an_intervention_that_does_not_fit_the_encoder_is_an_error(encoder_of, family, settings, sentence):
    intervention = Intervention(**{"sae": dictionary(24), "site": "1.mlp_out", "features": {2: 4.0}, **settings})
    with pytest.raises(ValueError, match=sentence), encoder_of(family).steered(intervention):
        pass


@pytest.mark.parametrize("vectors", [torch.zeros(1, 3), torch.ones(3), torch.tensor([[float("inf"), 1.0]])])
def test_directions_without_a_length_are_refused(vectors):
    with pytest.raises(ValueError, match=r"has length zero|a matrix"):
        Directions(vectors)


def test_a_difference_of_means_needs_both_sets_from_one_site():
    with pytest.raises(ValueError, match="the negative activations are rows"):
        difference_of_means(torch.ones(2, 3), torch.ones(0, 3))
    with pytest.raises(ValueError, match="not of one site"):
        difference_of_means(torch.ones(2, 3), torch.ones(2, 4))
