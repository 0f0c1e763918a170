import json

import pytest
import torch

from lib.sae import SAE, SAEConfig

D, F = 16, 64
KINDS = ("relu", "topk", "batchtopk", "matryoshka", "jumprelu", "signed_topk", "gated", "vsae", "archetypal")


def make_sae(kind="batchtopk", **fields):
    sae = SAE(SAEConfig(kind=kind, width=F, k=5, **fields), D)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        sae.threshold.copy_(torch.rand(sae.threshold.shape, generator=generator) + 0.3)
    return sae


@pytest.fixture
def x():
    return torch.randn(50, D, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", KINDS)
def test_initial_weights_are_tied_with_unit_decoder_rows(kind):
    sae = SAE(SAEConfig(kind=kind, width=F, k=5), D)
    assert sae.W_enc.shape == (D, F)
    assert torch.equal(sae.W_enc, sae.W_dec.t())
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(F))


def test_the_seed_decides_the_initial_weights():
    weights = [SAE(SAEConfig(width=F, seed=seed), D).W_dec for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("kind", ["batchtopk", "matryoshka"])
@pytest.mark.parametrize("threshold", ["scalar", "per_feature"])
def test_inference_zeroes_what_does_not_exceed_the_threshold(kind, threshold, x):
    sae = make_sae(kind, threshold=threshold)
    pre = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
    torch.testing.assert_close(sae.encode(x), pre * (pre > sae.threshold))
    assert sae.threshold.shape == (() if threshold == "scalar" else (F,))


def test_relu_keeps_all_positive_and_topk_the_k_largest_of_each_row(x):
    relu, topk = make_sae("relu"), make_sae("topk")
    torch.testing.assert_close(
        relu.encode(x), relu.pre_activations(x).relu() * (relu.pre_activations(x) > relu.threshold)
    )
    codes = topk.encode(x)
    assert (codes > 0).sum(1).max() == 5
    assert torch.equal(codes.topk(5, dim=1).values, topk.pre_activations(x).topk(5, dim=1).values.relu())


def test_jumprelu_has_a_threshold_for_each_latent(x):
    sae = make_sae("jumprelu")
    sae.threshold[: F // 2] = -0.5
    pre = sae.pre_activations(x)
    torch.testing.assert_close(sae.encode(x), pre.relu() * (pre > sae.threshold))


def test_a_gated_latent_is_active_where_its_gate_is_open_and_its_magnitude_positive(x):
    sae = make_sae("gated")
    product = (x - sae.b_dec) @ sae.W_enc
    magnitude = product * sae.r_mag.exp() + sae.b_mag
    torch.testing.assert_close(sae.encode(x), magnitude.relu() * (product + sae.b_enc > 0))


def test_signed_topk_keeps_negative_values_where_fewer_than_k_are_positive(x):
    sae = make_sae("signed_topk")
    with torch.no_grad():
        sae.b_enc.sub_(3)
    pre = sae.pre_activations(x)
    codes = sae.encode(x)
    assert codes.min() < 0
    assert torch.equal((codes != 0).sum(1), torch.full((len(x),), 5))
    assert torch.equal(codes.sort(dim=1, descending=True).values[:, 0].relu(), pre.max(1).values.relu())


@pytest.mark.parametrize("norm", ["layer_norm", "unit_rms"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_input_norm_is_done_before_the_encoder_and_undone_after_the_decoder(norm, kind, x):
    plain, sae = make_sae(kind), make_sae(kind, input_norm=norm)
    x = 7 * x + 2
    shift = x.mean(1, keepdim=True) if norm == "layer_norm" else torch.zeros(len(x), 1)
    scale = x.std(1, keepdim=True) if norm == "layer_norm" else x.square().mean(1, keepdim=True).sqrt()
    inner = (x - shift) / (scale + (1e-5 if norm == "layer_norm" else 0))
    torch.testing.assert_close(sae.encode(x), plain.encode(inner))
    torch.testing.assert_close(sae.encode_sparse(x, chunk=7).to_dense(), sae.encode(x))
    torch.testing.assert_close(sae(x), plain(inner) * scale + shift)
    torch.testing.assert_close(sae.decode(sae.encode_sparse(x), x), sae(x))


def test_decoding_under_an_input_norm_without_the_inputs_is_refused(x):
    sae = make_sae(input_norm="layer_norm")
    with pytest.raises(ValueError, match=r"normalises each input \(layer_norm\): call decode\(codes, x\)"):
        sae.decode(sae.encode(x))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threshold", ["scalar", "per_feature"])
def test_sparse_codes_equal_dense_codes_and_decode_alike(kind, threshold, x):
    sae = make_sae(kind, threshold=threshold)
    dense, sparse = sae.encode(x), sae.encode_sparse(x, chunk=7)
    assert sparse.layout == torch.sparse_csr
    torch.testing.assert_close(sparse.to_dense(), dense)
    torch.testing.assert_close(sae.decode(sparse), sae.decode(dense))


@pytest.mark.parametrize("kind", KINDS)
def test_sparse_codes_of_no_rows_are_an_empty_matrix_that_decodes(kind):
    sae = make_sae(kind)
    codes = sae.encode_sparse(torch.zeros(0, D))
    assert codes.shape == (0, F)
    assert codes.dtype == torch.float32
    assert sae.decode(codes).shape == sae.decode(sae.encode(torch.zeros(0, D))).shape == (0, D)


def test_codes_and_reconstructions_keep_leading_dimensions(x):
    sae = make_sae()
    tokens = x.view(5, 10, D)
    assert sae.encode(tokens).shape == (5, 10, F)
    torch.testing.assert_close(sae(tokens), sae(x).view(5, 10, D))


@pytest.mark.parametrize("given", ["float16", "bfloat16", "float64", "numpy", "numpy_float16", "list"])
@pytest.mark.parametrize("kind", KINDS)
def test_activations_and_codes_of_any_float_type_are_read_in_the_weights_own(given, kind, x):
    """Which device they come from: tests of the device contract."""
    sae = make_sae(kind)
    half = x.bfloat16() if given == "bfloat16" else x.half()
    other = {
        **{name: half.to(getattr(torch, name)) for name in ("float16", "bfloat16", "float64")},
        "numpy": half.double().numpy(),
        "numpy_float16": x.half().numpy(),
        "list": half.tolist(),
    }[given]
    same = half.float()
    for function in (sae.pre_activations, sae.encode, sae, lambda x: sae.encode_sparse(x).to_dense()):
        assert torch.equal(function(other), function(same))
    codes = sae.encode(same).double()
    for given_codes in (codes, codes.detach().numpy(), codes.to_sparse_csr()):
        torch.testing.assert_close(sae.decode(given_codes, other), sae(same))


def test_reconstruction_is_differentiable_in_its_input(x):
    x.requires_grad_()
    make_sae()(x).sum().backward()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_sae_loads_with_the_same_config_threshold_and_codes(kind, x, tmp_path):
    sae = make_sae(kind)
    sae.save(tmp_path)
    loaded = SAE.load(tmp_path)
    assert loaded.config == sae.config
    assert torch.equal(loaded.threshold, sae.threshold)
    assert torch.equal(loaded.encode(x), sae.encode(x))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("kind", KINDS)
def test_rescaling_makes_an_sae_of_scaled_inputs(kind, x):
    sae = make_sae(kind)
    codes, reconstruction = sae.encode(x), sae(x)
    sae.rescale_(30)
    torch.testing.assert_close(sae.encode(30 * x), 30 * codes, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sae(30 * x), 30 * reconstruction, rtol=1e-4, atol=1e-4)


def test_matryoshka_prefixes_are_the_papers():
    config = SAEConfig(kind="matryoshka", expansion=4)
    assert config.group_ends(1024) == (64, 192, 448, 1024)
    inat = SAEConfig(kind="matryoshka", width=1536, group_fractions=(0.002, 0.009, 0.035, 0.189, 0.765))
    assert inat.group_ends(1536) == (3, 16, 70, 360, 1536)


def test_a_short_run_has_less_patience_with_latents_that_do_not_fire():
    assert SAEConfig().patience == 10_000_000
    assert SAEConfig(steps=100, batch_size=200).patience == 1000


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "sparse"}, "Unknown SAE kind 'sparse'"),
        ({"k": 0}, "k must be at least 1"),
        ({"lr_rule": "best"}, "lr_rule='best' is unknown; choose one of paper, code"),
        ({"kind": "matryoshka", "group_fractions": (0.5, 0.4)}, "must sum to 1"),
        ({"width": 4, "k": 5}, "k = 5 active latents do not fit into F = 4"),
        ({"expansion": 0}, "at least one latent"),
        ({"kind": "matryoshka", "width": 8, "k": 2}, "leave a group of F = 8 latents empty"),
    ],
)
def test_a_config_that_cannot_work_is_refused_in_one_sentence(fields, message):
    with pytest.raises(ValueError, match=message):
        SAE(SAEConfig(**fields), D)


def test_activations_and_codes_of_the_wrong_width_are_refused(x):
    sae = make_sae()
    with pytest.raises(ValueError, match="reads activations of width 16; these have shape"):
        sae.encode(x[:, 1:])
    with pytest.raises(ValueError, match="has 64 latents; the codes have shape"):
        sae.decode(torch.zeros(2, 63))


def test_loading_says_what_is_wrong_with_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        SAE.load(tmp_path)
    make_sae().save(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**values, "colour": "red"}))
    with pytest.raises(ValueError, match="Unknown SAE config fields: colour"):
        SAE.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**values, "width": F + 1}))
    with pytest.raises(ValueError, match="do not belong to its config"):
        SAE.load(tmp_path)
