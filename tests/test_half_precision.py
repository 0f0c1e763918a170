"""Half precision: gradients reach every site, reruns are the published pass, what overflows is one sentence."""

import pytest
import torch

from experiments.disentanglement.feature_choice import wrong_class_margin
from lib.encoders.encoder import Encoder, load_encoder
from steering.cached_forward import CachedForward
from steering.decoding import TokenSampler
from steering.interventions import Intervention, Neurons
from tests.small_hugging_face import hugging_face_folder
from tests.small_models import open_clip_folder

BOUND = 2**-7  # of the largest value: two roundings of bfloat16, as other batch sizes make them


@pytest.fixture(scope="module", params=["clip", "open_clip", "dinov2"])
def spec(request, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("models") / request.param
    if request.param == "open_clip":
        return f"open_clip:{open_clip_folder(folder)}"
    return f"hf:{hugging_face_folder(folder, request.param)}"


def pixels_for(encoder: Encoder, n: int = 3) -> torch.Tensor:
    height, width = (24, 32) if "dinov2" in encoder.spec else (32, 32)
    return torch.randn(n, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_gradients_reach_what_was_read_at_every_site(spec, dtype):
    encoder = load_encoder(spec, device="cpu", dtype=dtype)
    inner = [site for site in encoder.sites if site != "proj"]
    plain = encoder.run(pixels_for(encoder), encoder.sites)
    values = encoder.run(pixels_for(encoder).requires_grad_(), encoder.sites)
    assert all(torch.equal(values[site], plain[site]) for site in values)
    assert all(value.dtype == torch.float32 for value in values.values())
    gradients = torch.autograd.grad(values["proj"][:, 0].sum(), [values[site] for site in inner])
    assert all(gradient.isfinite().all() and gradient.abs().sum() > 0 for gradient in gradients[:-1])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_attribution_foretells_what_a_small_edit_does(spec, dtype):
    """Gradient times activation as chapter 10 has it, against the edit itself in float32."""
    encoder, exact = (load_encoder(spec, device="cpu", dtype=d) for d in (dtype, "float32"))
    pixels, site = pixels_for(encoder), "1.resid_post"
    classes = torch.randn(4, encoder.d_embed, generator=torch.Generator().manual_seed(1))
    truth, suggested = torch.tensor([0, 1, 2]), torch.tensor([1, -1, 3])

    def wrong(e: Encoder, values: dict) -> torch.Tensor:
        return wrong_class_margin(values["proj"] @ classes.T, truth, suggested)

    values = encoder.run(pixels.clone().requires_grad_(), [site, "proj"])
    [gradient] = torch.autograd.grad(wrong(encoder, values).sum(), [values[site]])
    foretold = gradient.sum(1)  # of one unit more of each neuron on all tokens
    for neuron in (2, 11, 17):
        step = 1e-3
        with exact.steered(Intervention(Neurons(24), site, {neuron: step}, "add")):
            up = wrong(exact, exact.run(pixels, ["proj"]))
        slope = (up - wrong(exact, exact.run(pixels, ["proj"]))) / step
        scale = foretold.abs().max()
        assert (foretold[:, neuron] - slope).abs().max() < 0.08 * scale


@pytest.mark.parametrize("site", ["1.attn_out", "1.mlp_act", "1.mlp_out", "1.resid_post", "proj"])
def test_a_rerun_in_bfloat16_is_the_published_pass_within_its_rounding(spec, site):
    encoder = load_encoder(spec, device="cpu", dtype="bfloat16")
    pixels, width = pixels_for(encoder), encoder.width(site)
    variants = [(Intervention(Neurons(width), site, {j: 3.0}),) for j in range(5)]
    reads = ["proj"] if site == "proj" else ["proj", "1.resid_post", "2.resid_post"]
    for read in reads:
        values = CachedForward(encoder, read, pixels, variants).values(variants).float()
        for variant, value in zip(variants, values, strict=True):
            with encoder.steered(*variant):
                published = encoder.run(pixels, [read])[read]
            published = published if read == "proj" else published.bfloat16().float()
            assert (value - published).abs().max() <= BOUND * published.abs().max(), read


def test_of_one_variant_a_rerun_in_bfloat16_is_bit_for_bit_the_published_pass(spec):
    encoder = load_encoder(spec, device="cpu", dtype="bfloat16")
    pixels = pixels_for(encoder)
    for kind in ("attn_out", "mlp_in", "mlp_act", "mlp_out", "resid_post"):
        edit = Intervention(Neurons(encoder.width(f"0.{kind}")), f"0.{kind}", {3: 5.0})
        value = CachedForward(encoder, "1.resid_post", pixels, [(edit,)]).values([(edit,)])[0]
        with encoder.steered(edit):
            published = encoder.run(pixels, ["1.resid_post"])["1.resid_post"]
        assert torch.equal(value, published.bfloat16()), kind


def test_steering_that_overflows_is_one_sentence_wherever_it_runs(spec):
    encoder = load_encoder(spec, device="cpu", dtype="float16")
    edit = Intervention(Neurons(48 if "clip" not in spec else encoder.width("0.mlp_act")), "0.mlp_act", {3: 1e6})
    pixels = pixels_for(encoder)
    with encoder.steered(edit), pytest.raises(ValueError, match=r"0\.mlp_act of .* not finite in float16: steer less"):
        encoder.run(pixels, ["proj"])
    with pytest.raises(ValueError, match="not finite"):
        CachedForward(encoder, "proj", pixels, [(edit,)]).values([(edit,)])
    assert encoder.steering == ()
    assert encoder.run(pixels, ["proj"])["proj"].isfinite().all()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_language_model_that_overflows_is_one_sentence_too(temperature):
    logits = torch.zeros(2, 5, dtype=torch.float16)
    assert TokenSampler(temperature, [0, 1])(logits, [0, 1])
    logits[1, 3] = torch.nan
    with pytest.raises(ValueError, match="logits that are not finite in float16: steer less strongly"):
        TokenSampler(temperature, [0, 1])(logits, [0, 1])
