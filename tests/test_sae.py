import copy
import dataclasses
import errno
import hashlib
import json
import pickle
import random
import tracemalloc

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lib.sae.config import MatryoshkaConfig
from lib.sae.model import KINDS, SAE, SAEConfig
from storage import spec_hash

D, F = 16, 64


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
        ({"kind": "matryoshka", "group_fractions": (0.5, -0.5, 1.0)}, r"must be above 0, not -0\.5"),
        ({"k": 10**400}, "k must be an integer"),
        ({"lr": 10**400}, "lr must be a finite number"),
        ({"width": 4, "k": 5}, "k = 5 active latents do not fit into F = 4"),
        ({"expansion": 0.01}, "at least one latent"),
        ({"k": 2.5}, r"k must be an integer, not 2\.5\."),
        ({"k": True}, r"k must be an integer, not True\."),
        ({"steps": "1e2"}, r"steps must be an integer, not '1e2'\."),
        ({"steps": None}, r"steps must be an integer, not None\."),
        ({"lr": -1}, r"lr must be above 0, not -1\."),
        ({"lr": float("nan")}, r"lr must be a finite number, not nan\."),
        ({"beta1": 2}, r"beta1 must be from 0 to below 1, not 2\."),
        ({"expansion": -3}, r"expansion must be above 0, not -3\."),
        ({"width": 0}, r"width must be from 1 to 2147483648, not 0\."),
        ({"width": 10**13}, r"width must be from 1 to 2147483648, not 1e\+13\."),
        ({"seed": 2**40}, "seed must be between"),
        ({"normalize": "yes"}, r"normalize must be True or False, not 'yes'\."),
        ({"kind": 5}, r"kind must be a word, not 5\."),
        ({"kind": "matryoshka", "group_fractions": 3}, r"group_fractions must be a list of numbers, not 3\."),
        ({"kind": "matryoshka", "group_fractions": ["a"]}, r"group_fractions must be a finite number, not 'a'\."),
        ({"kind": "topk", "l1": 0.1}, r"l1 is a setting of relu and gated, and topk has no use for it"),
        ({"kind": "relu", "l0": 0.1}, r"l0 is a setting of jumprelu, and relu has no use for it"),
        ({"group_fractions": (0.5, 0.5)}, "group_fractions is a setting of matryoshka, and batchtopk has no use"),
        ({"kind": "matryoshka", "width": 8, "k": 2}, "leave a group of F = 8 latents empty"),
    ],
)
def test_a_config_that_cannot_work_is_refused_in_one_sentence(fields, message):
    with pytest.raises(ValueError, match=message):
        SAE(SAEConfig(**fields), D)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(MatryoshkaConfig)])
def test_no_value_of_any_field_gets_past_the_config_or_ends_in_another_error(field):
    for value in (object(), "\0" * 10_000, [[]], {}, float("inf"), b"x", -(10**30)):
        with pytest.raises(ValueError, match=rf"{field}|SAE kind") as caught:
            SAEConfig(**{"kind": "matryoshka", field: value})
        assert len(str(caught.value)) < 300


def test_a_setting_by_position_and_by_name_is_refused_as_one_too_many_is():
    assert SAEConfig("topk", 2).expansion == 2
    with pytest.raises(TypeError, match="SAEConfig got kind twice, by position and by name"):
        SAEConfig("topk", kind="relu")
    with pytest.raises(TypeError, match="too many positional arguments"):
        SAEConfig(*["topk"] * 99)


def test_whole_numbers_of_any_type_are_integers_and_make_one_spec():
    plain = SAEConfig(k=8, width=64, expansion=8, steps=100)
    assert SAEConfig(k=8.0, width=np.int64(64), expansion=np.float32(8), steps=1e2) == plain
    assert type(SAEConfig(k=8.0).k) is int
    assert type(SAEConfig(kind="relu", l1=0).l1) is float


def test_a_config_that_holds_every_field_as_those_of_older_artifacts_do_loads():
    values = SAEConfig(kind="topk", k=7).to_dict() | {"l1": 0.5, "group_fractions": [1.0], "noise": 3}
    assert SAEConfig.from_dict(json.loads(json.dumps(values))) == SAEConfig(kind="topk", k=7)


HASHES = {  # since one dataclass held the settings of all kinds: in specs of SAEs, and as JSON in specs of tables
    "topk": ({"k": 7}, "27cda6917a1c3b40", "c9cd0b94cbba3f3b"),
    "batchtopk": ({}, "1b5241c69a5b514e", "d36e31ff83b8f161"),
    "matryoshka": (
        {"width": 512, "group_fractions": [0.5, 0.5], "matryoshka_loss": "code"},
        "22a0e1a8f7db1491",
        "19ee67b62a3a5739",
    ),
    "relu": ({"l1": 0.1}, "d7ceb13d60188a02", "4b8e716e346bd9be"),
    "gated": ({"l1": 0.3, "steps": 500}, "c9e2ead642d13dd9", "35ef9415b3e68f94"),
    "jumprelu": ({"l0": 0.02, "bandwidth": 0.01}, "a3932ca5eaf49cdc", "5f169bd650e01a24"),
    "vsae": ({"noise": 0.2}, "66391c128270efb4", "9082c6a351d8abdc"),
    "archetypal": ({"archetypes": 99}, "78fc0683c5a6bfbc", "efb3913dbfed9527"),
    "signed_topk": ({"input_norm": "layer_norm"}, "984a7228f49b7910", "b37bfcce60db8579"),
    "monoloss": ({"mono_weight": 0.3}, "1978e8f9e90792cf", "69e75880fb6f2eb7"),
    "frozen_decoder": ({"k": 7}, "0f3845a80073c6b2", "2134bce83f0e4ae6"),
    "frozen_encoder": ({"k": 7}, "179e07e21769eeaa", "3ee5606c8130491a"),
}


def test_the_hashes_of_every_kind_are_known():
    assert set(HASHES) == set(KINDS)


@pytest.mark.parametrize("kind", HASHES)
def test_a_config_has_its_kinds_own_settings_and_the_hashes_that_it_always_had(kind):
    settings, in_spec, as_json = HASHES[kind]
    config = SAEConfig(kind=kind, **settings)
    values = config.to_dict()
    assert hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16] == as_json
    spec = {name: value for name, value in values.items() if name not in ("log_every", "checkpoint_every")}
    assert spec_hash(spec) == in_spec
    assert SAEConfig.from_dict(json.loads(json.dumps(values))) == config
    own = {name for name in values if hasattr(config, name)} - {field.name for field in dataclasses.fields(SAEConfig)}
    assert own == {field.name for field in dataclasses.fields(config)} - set(dataclasses.asdict(SAEConfig()))
    assert set(settings) <= {field.name for field in dataclasses.fields(config)}


def test_a_config_changes_its_class_with_its_kind():
    nested = SAEConfig("matryoshka", width=64, k=3)
    assert type(nested) is MatryoshkaConfig is not type(dataclasses.replace(nested, kind="topk"))
    assert dataclasses.replace(nested, kind="topk") == SAEConfig("topk", width=64, k=3)
    with pytest.raises(ValueError, match="group_fractions is a setting of matryoshka, and topk has no use"):
        dataclasses.replace(nested, group_fractions=(0.5, 0.5), kind="topk")
    assert pickle.loads(pickle.dumps(nested)) == copy.deepcopy(nested) == nested


def test_activations_and_codes_of_the_wrong_width_are_refused(x):
    sae = make_sae()
    with pytest.raises(ValueError, match="reads activations of width 16; these have shape"):
        sae.encode(x[:, 1:])
    with pytest.raises(ValueError, match="has 64 latents; the codes have shape"):
        sae.decode(torch.zeros(2, 63))


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_loading_says_what_is_wrong_with_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        SAE.load(tmp_path)
    make_sae().save(tmp_path)
    for changes, message in (
        ({"colour": "red"}, "Unknown SAE config fields: 'colour'"),
        ({"k": "many"}, "k must be an integer, not 'many'"),
        ({"d": 10**400}, "must be an integer from 1 to 2147483648"),
        (
            {"colour": None, "d": "wide"},
            r"d, the width of the activations, must be an integer from 1 to 2147483648, not 'wide'",
        ),
    ):
        make_sae().save(tmp_path)
        change_config(tmp_path, **changes)
        with pytest.raises(ValueError, match=message) as caught:
            SAE.load(tmp_path)
        assert str(tmp_path / "config.json") in str(caught.value)
    make_sae().save(tmp_path)
    change_config(tmp_path, width=F + 1)
    with pytest.raises(ValueError, match=r"do not belong to its config\.json: W_enc has shape \(16, 64\) and not"):
        SAE.load(tmp_path)


def test_a_huge_width_in_a_config_is_refused_before_memory_is_taken(tmp_path):
    make_sae().save(tmp_path)
    change_config(tmp_path, width=1_500_000_000, d=10**6)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"model\.safetensors do not belong to its config\.json"):
        SAE.load(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


@pytest.mark.parametrize(("changes", "message"), [
    ({"b_dec": None}, "b_dec is missing"),
    ({"W_skip": torch.zeros(2)}, "'W_skip' is not a weight of it"),
    ({"b_enc": torch.zeros(F, dtype=torch.int64)}, "b_enc is of type I64"),
    ({"W_dec": torch.full((F, D), torch.nan)}, "holds NaN or infinity in W_dec"),
    ({"threshold": torch.tensor(torch.inf)}, "holds NaN or infinity in threshold"),
])  # fmt: skip
def test_weights_that_are_missing_too_many_or_not_finite_are_named_with_the_file(changes, message, tmp_path):
    make_sae().save(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path) | changes
    save_file({name: tensor for name, tensor in weights.items() if tensor is not None}, path)
    with pytest.raises(ValueError, match=message) as caught:
        SAE.load(tmp_path)
    assert str(path) in str(caught.value)


def test_an_sae_of_nan_is_not_saved_and_what_lies_there_stays(tmp_path):
    sae = make_sae()
    sae.save(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    with torch.no_grad():
        sae.b_enc[3] = torch.nan
    with pytest.raises(ValueError, match="not saved: it holds NaN or infinity in b_enc"):
        sae.save(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_damaged_file_gives_one_sentence_that_names_it_or_the_same_sae(name, tmp_path):
    """Seeded mutations: bytes changed, files cut off, emptied, replaced by a pointer of Git LFS."""
    make_sae().save(tmp_path)
    path, expected = tmp_path / name, SAE.load(tmp_path).encode(torch.ones(3, D))
    whole, draw = path.read_bytes(), random.Random(0)
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0"
    damaged = [b"", pointer, whole[: len(whole) // 2], b"[1]", b"\t:"]
    for _ in range(40):
        copy = bytearray(whole)
        for _ in range(draw.randint(1, 3)):
            copy[draw.randrange(min(len(copy), 1200))] = draw.randrange(256)
        damaged.append(bytes(copy))
    for content in damaged:
        path.write_bytes(content)
        said = said_or(lambda: torch.equal(SAE.load(tmp_path).encode(torch.ones(3, D)), expected))
        assert isinstance(said, str) or said or name == "config.json"
        if isinstance(said, str):
            assert str(tmp_path) in said
            assert len(said) < 500 + len(str(path))
            assert "\n" not in said


def said_or(function):
    """What the function gives, or the sentence with which it refuses."""
    try:
        return function()
    except (ValueError, OSError) as error:
        return str(error)


def test_home_is_meant_by_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    make_sae().save("~/sae")
    assert (tmp_path / "sae" / "model.safetensors").is_file()
    assert SAE.load("~/sae").d == D


def test_an_sae_of_an_earlier_version_without_digests_is_loaded(x, tmp_path):
    sae = make_sae()
    sae.save(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "meta.json").write_text('{"spec": {}, "hash": "0", "complete": true}')
    assert torch.equal(SAE.load(tmp_path, "cpu").encode(x), sae.encode(x))


def test_a_config_that_is_not_the_one_of_the_weights_is_refused(tmp_path):
    make_sae().save(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**values, "k": values["k"] + 1}))
    with pytest.raises(ValueError, match=r"config.json is missing or damaged"):
        SAE.load(tmp_path)


def test_an_sae_that_a_full_disk_leaves_unsaved_leaves_the_one_that_lies_there(tmp_path, monkeypatch):
    SAE(SAEConfig(width=8, k=2), 4).save(tmp_path, {"hash": "x", "complete": True})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(tensors, path, metadata):
        path.write_bytes(b"the first bytes")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lib.sae.model.save_tensors", full)
    with pytest.raises(OSError, match="No space left on the disk"):
        SAE(SAEConfig(width=8, k=3), 4).save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_sae_is_not_saved_over_another_artifact(tmp_path):
    (tmp_path / "meta.json").write_text('{"site": "2.resid_post", "shards": []}')
    with pytest.raises(ValueError, match="holds an artifact that is no SAE: save this one into a folder of its own"):
        SAE(SAEConfig(kind="topk", width=4, k=2), 3).save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["meta.json"]


def test_an_sae_wider_than_the_memory_is_refused_with_its_size():
    with pytest.raises(ValueError, match="2,000,000,000 latents takes 1,490,116 GiB: choose fewer"):
        SAE(SAEConfig(width=2 * 10**9), 100_000)
