"""Many interventions from what their passes share, against one steered pass each, at every site of every family."""

import pytest
import torch
from torch.nn.functional import normalize

from lib.encoders.encoder import Encoder, load_encoder
from lib.sae.model import SAE, SAEConfig
from steering.cached_forward import CachedForward
from steering.interventions import Intervention, Neurons
from tests.small_hugging_face import hugging_face_folder
from tests.small_models import open_clip_folder

TIMM = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "token", "timm_proj": "linear", "image_size": 224}
OPEN_CLIP = {
    "open_clip": {},
    "open_clip of scaled layers": {"ls_init_value": 1.0},
    "open_clip of custom blocks": {"qk_norm": True},
    "open_clip pooled by mean": {"pool_type": "avg"},
    "timm": TIMM,
}
POOLS_CLS = (
    "open_clip", "open_clip of scaled layers", "open_clip of custom blocks", "timm",
    "clip", "dinov2 registers", "vit", "deit",
)  # fmt: skip
POOLS_ALL = ("open_clip pooled by mean", "siglip", "aimv2 lit")


@pytest.fixture(scope="module")
def encoder_of(tmp_path_factory):
    """Family -> a small encoder, made once."""
    encoders = {}

    def encoder(family: str) -> Encoder:
        if family not in encoders:
            folder = tmp_path_factory.mktemp("models") / family.replace(" ", "-")
            if family in OPEN_CLIP:
                spec = f"open_clip:{open_clip_folder(folder, **OPEN_CLIP[family])}"
            else:
                spec = f"hf:{hugging_face_folder(folder, family)}"
            encoders[family] = load_encoder(spec, device="cpu")
        return encoders[family]

    return encoder


def pixels_for(encoder: Encoder, n: int = 2) -> torch.Tensor:
    height, width = (24, 32) if "dinov2" in encoder.spec else (224, 224) if "timm" in encoder.spec else (32, 32)
    return torch.randn(n, 3, height, width, generator=torch.Generator().manual_seed(0))


def dictionary(d: int) -> SAE:
    """An SAE of random weights, none of them zero."""
    sae = SAE(SAEConfig(kind="topk", width=3 * d, k=4, input_norm="layer_norm"), d)
    with torch.no_grad():
        sae.b_dec.copy_(0.1 * torch.randn(d, generator=torch.Generator().manual_seed(1)))
    return sae


def one_by_one(encoder: Encoder, read: str, pixels: torch.Tensor, variants) -> torch.Tensor:
    """The definition: a whole pass for each."""
    found = []
    for variant in variants:
        with encoder.steered(*variant):
            found.append(encoder.run(pixels, [read])[read])
    return torch.stack(found)


def kinds_of_edit(encoder: Encoder, site: str) -> list[tuple[Intervention, ...]]:
    """A feature on all tokens, one on some, two after each other, a neuron, and what drops the error."""
    sae, n = dictionary(encoder.width(site)), encoder.n_tokens
    feature, neuron = Intervention(sae, site, {5: 8.0}), Intervention(Neurons(sae.d), site, {3: 6.0})
    if site == "proj":
        return [(feature,), (neuron, feature)]
    some = Intervention(sae, site, {7: 8.0}, "add", tokens=[t % 3 < 2 for t in range(n)])
    patches = Intervention(Neurons(sae.d), site, {2: 5.0, 9: -4.0}, tokens="spatial")
    return [(feature,), (some,), (feature, some), (neuron,), (patches,), (Intervention(sae, site, {4: 3.0}, "scale",
            keep_error=False),)]  # fmt: skip


@pytest.mark.parametrize("family", POOLS_CLS + POOLS_ALL)
def test_embeddings_are_those_of_a_whole_steered_pass_from_every_site(encoder_of, family):
    encoder = encoder_of(family)
    pixels = pixels_for(encoder)
    sites = [*encoder.sites[:3], *encoder.sites[-4:]]  # of the first and the last block, and proj
    variants = [(), *(variant for site in sites for variant in kinds_of_edit(encoder, site))]
    variants.append((variants[1][0], variants[-1][0]))  # at several sites
    variants = variants[:: 5 if family == "timm" else 1]
    values = CachedForward(encoder, "proj", pixels, variants).values(variants)
    expected = one_by_one(encoder, "proj", pixels, variants)
    assert torch.allclose(values, expected, atol=1e-4, rtol=1e-4)
    # what is done to patches behind the last block does not, where CLS is pooled
    shows = (expected - expected[0]).abs().amax((1, 2)) > 1e-3
    assert shows[1:].float().mean() > 0.7


def test_they_are_what_embed_images_normalises(encoder_of):
    encoder = encoder_of("open_clip")
    pixels, edit = pixels_for(encoder), Intervention(dictionary(24), "1.resid_post", {5: 8.0})
    values = CachedForward(encoder, "proj", pixels, [(edit,)]).values([(edit,)])[0]
    with encoder.steered(edit):
        assert torch.allclose(normalize(values, dim=-1), encoder.embed_images(pixels), atol=1e-5)


@pytest.mark.parametrize("read", ["1.resid_post", "3.resid_post"])
def test_a_residual_stream_is_read_as_in_a_whole_steered_pass(encoder_of, read):
    encoder = encoder_of("open_clip")
    pixels = pixels_for(encoder)
    sites = [site for site in encoder.sites[: encoder.sites.index(read) + 1] if site != "proj"]
    variants = [variant for site in sites for variant in kinds_of_edit(encoder, site)]
    values = CachedForward(encoder, read, pixels, variants).values(variants)
    assert torch.allclose(values, one_by_one(encoder, read, pixels, variants), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["open_clip", "clip"])
def test_so_it_is_in_half_precision(encoder_of, family):
    encoder = load_encoder(encoder_of(family).spec, device="cpu", dtype="bfloat16")
    pixels = pixels_for(encoder)
    variants = [(Intervention(dictionary(24), site, {5: 8.0}),) for site in ("0.mlp_out", "1.resid_post", "2.attn_out")]
    values = normalize(CachedForward(encoder, "proj", pixels, variants).values(variants), dim=-1)
    expected = normalize(one_by_one(encoder, "proj", pixels, variants), dim=-1)
    assert values.dtype == torch.float32
    assert (values * expected).sum(-1).min() > 0.999


def test_many_variants_go_through_the_blocks_in_parts_to_the_same_values(encoder_of, monkeypatch):
    encoder = encoder_of("open_clip")
    pixels = pixels_for(encoder)
    variants = [(Intervention(Neurons(24), "1.resid_post", {j: 5.0}),) for j in range(24)]
    looks = CachedForward(encoder, "proj", pixels, variants)
    whole = looks.values(variants)
    monkeypatch.setattr("steering.cached_forward._MAX_VALUES", {"cpu": 5 * 2 * 17 * 24})
    assert torch.allclose(looks.values(variants), whole, atol=1e-6)


@pytest.mark.parametrize("family", POOLS_CLS)
def test_where_cls_is_pooled_the_last_mlp_sees_nothing_else(encoder_of, family):
    encoder = encoder_of(family)
    edit = (Intervention(Neurons(encoder.d_model), "0.resid_post", {3: 5.0}),)
    looks = CachedForward(encoder, "proj", pixels_for(encoder), [edit])
    seen = []
    handles = [
        block.mlp.register_forward_hook(lambda mlp, inputs, output: seen.append(tuple(inputs[0].shape)))
        for block in encoder.tower.blocks
    ]
    looks.values([edit] * 3)
    for handle in handles:
        handle.remove()
    tokens = [shape[1] for shape in seen]
    assert tokens == [encoder.n_tokens] * (encoder.n_layers - 2) + [1]
    assert {shape[0] for shape in seen} == {6}


@pytest.mark.parametrize("family", ["open_clip", "siglip", "deit"])
def test_the_model_is_left_as_it_was(encoder_of, family):
    encoder = encoder_of(family)
    pixels = pixels_for(encoder)
    before = encoder.run(pixels, encoder.sites)
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in encoder.model.modules())
    variants = [variant for site in encoder.sites for variant in kinds_of_edit(encoder, site)]
    CachedForward(encoder, "proj", pixels, variants).values(variants)
    assert all(torch.equal(value, before[site]) for site, value in encoder.run(pixels, encoder.sites).items())
    assert hooks == sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in encoder.model.modules()
    )
    assert not any("forward" in vars(block) for block in encoder.tower.blocks)
