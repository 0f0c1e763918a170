"""Dictionaries from elsewhere: every library's own files, files that must not be opened, files that nobody knows."""

import json
import os
import pickle
import random
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib.activations.extraction import ActivationStore
from lib.hub import load_sae
from lib.hub.formats import WEIGHTS
from lib.registry import registered
from lib.sae.model import SAE
from lib.sae.training import train_sae
from peers import export_saelens
from peers.safe_files import StandIn, read_pickle
from tests.peers.compare import LIMIT, cases, difference
from tests.peers.exports import EXAMPLES, example

PEERS = Path(__file__).parent / "fixtures" / "peers"


@pytest.fixture
def peers(tmp_path):
    """A copy of the peers' files that a test may change."""
    return shutil.copytree(PEERS, tmp_path / "peers")


def rewrite(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.filterwarnings("ignore:.* is of ViSAEBench")
@pytest.mark.parametrize("case", cases(PEERS))
def test_codes_and_reconstructions_are_those_of_the_library_that_saved_it(case):
    found = difference(PEERS, case)
    assert found.codes <= LIMIT
    assert found.reconstruction <= LIMIT


def test_every_library_is_among_the_fixtures():
    libraries = {case.split("/")[0] for case in cases(PEERS)}
    assert libraries >= {"dictionary_learning", "sae_for_vlm", "saelens", "saelens_export", "sparsify"}
    assert libraries >= {"overcomplete", "saev", "saev_0_1", "prisma", "visaebench"}


@pytest.mark.filterwarnings("ignore:.* is of ViSAEBench")
def test_exactly_one_library_recognises_a_file():
    readers = {name: point.load() for name, point in registered("formats").items()}
    assert len(readers) == 7
    for case in cases(PEERS):
        path = next(path for path in sorted((PEERS / case).rglob("*")) if path.name in WEIGHTS or "ae_" in path.name)
        found = [name for name, reader in readers.items() if reader.recognises(reader.Checkpoint(path))]
        library = {"sae_for_vlm": "dictionary_learning", "saelens_export": "saelens", "saev_0_1": "saev"}
        assert found == [library.get(case.split("/")[0], case.split("/")[0])], case


def test_without_the_entry_points_it_is_said_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr("lib.hub.formats.registered", lambda what: {})
    for format in (None, "saelens"):
        with pytest.raises(ValueError, match=r"No format of another library is registered here: install .* `peers`\."):
            load_sae(PEERS / "saelens" / "topk", format=format)
    example(kind="topk").save(tmp_path)
    assert load_sae(tmp_path).config.kind == "topk"


def test_matryoshka_levels_are_those_of_the_library():
    sae = load_sae(PEERS / "dictionary_learning" / "matryoshka")
    assert sae.config.group_ends(sae.n_features) == (3, 12, 24, 48)
    sae = load_sae(PEERS / "saelens" / "matryoshka_in_training")
    assert sae.config.group_ends(sae.n_features) == (6, 18, 48)


def test_a_loaded_dictionary_is_saved_and_loaded_as_ours(tmp_path):
    for case in ("prisma/topk", "saev/topk", "saelens/gated"):
        sae = load_sae(PEERS / case)
        sae.save(tmp_path / case)
        again, x = load_sae(tmp_path / case), load_file(PEERS / case / "expected.safetensors")["x"]
        assert again.config == sae.config
        assert torch.equal(again(x), sae(x))
        torch.testing.assert_close(sae.encode_sparse(x).to_dense(), sae.encode(x))


@pytest.mark.parametrize("case", ["prisma/topk", "saev/topk"])
def test_what_only_other_libraries_train_is_loaded_but_not_trained(case):
    config = load_sae(PEERS / case).config
    with pytest.raises(ValueError, match=r"not trained here; train one (of relu, topk|with 'none')"):
        train_sae(ActivationStore.from_tensor(torch.zeros(8, 16)), config, device="cpu", progress=False)


def test_the_papers_released_weights_need_no_settings_beside_them():
    spec = next((PEERS / "sae_for_vlm" / "batch_top_k_20_x3").rglob("ae_100000.pt"))
    assert load_sae(spec).config.kind == "batchtopk"


def test_topk_and_batchtopk_of_dictionary_learning_are_not_guessed(peers):
    folder = peers / "dictionary_learning" / "batchtopk"
    (folder / "config.json").unlink()
    folder = folder.rename(folder.with_name("anonymous"))
    with pytest.raises(ValueError, match="TopK or a BatchTopK SAE, whose files are alike"):
        load_sae(folder)
    assert load_sae(folder, kind="topk").config.k == 4
    assert load_sae(folder, kind="batchtopk").threshold > 0


def test_a_state_dict_of_overcomplete_needs_to_be_told_what_it_is():
    with pytest.raises(ValueError, match="a state dict of overcomplete that does not say which SAE it is"):
        load_sae(PEERS / "overcomplete" / "topk_state_dict")
    with pytest.raises(ValueError, match="does not hold BatchTopK's threshold"):
        load_sae(PEERS / "overcomplete" / "topk_state_dict", kind="batchtopk")


@pytest.mark.parametrize(
    ("case", "file", "changes", "message"),
    [
        ("sparsify/topk", "cfg.json", {"signed": True}, "selects codes by their absolute value"),
        ("sparsify/topk", "cfg.json", {"skip_connection": True}, "lacks W_skip"),
        ("sparsify/topk", "cfg.json", {"activation": "groupmax"}, "its activation is 'groupmax'"),
        ("saelens/standard", "cfg.json", {"architecture": "temporal"}, "its architecture is 'temporal'"),
        ("saelens/standard", "cfg.json", {"reshape_activations": "hook_z"}, "reads attention heads one by one"),
        ("visaebench/topk", "config.json", {"activation": "softplus"}, "its activation 'softplus' is unknown"),
        ("saelens/standard", "cfg.json", {"activation_fn_str": "tanh-relu"}, "'standard with tanh-relu'"),
        ("saelens/standard", "cfg.json", {"normalize_activations": "batch"}, "input normalisation 'batch' is unknown"),
        ("prisma/topk_with_config_json", "config.json", {"activation_fn_str": "tanh-relu"}, "'tanh-relu' is neither"),
        ("prisma/topk_with_config_json", "config.json", {"is_transcoder": True}, "lacks b_dec_out"),
    ],
)
def test_what_an_sae_cannot_compute_is_refused_and_never_approximated(peers, case, file, changes, message):
    rewrite(peers / case / file, **changes)
    with pytest.raises(ValueError, match=message):
        load_sae(peers / case)


def with_tensors(path: Path, **changes) -> None:
    """Add tensors to a file of weights, or take those out that are None; what lies around the tensors stays."""
    state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    state = {name: tensor for name, tensor in {**state, **changes}.items() if tensor is not None}
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)


FILES = {
    "sparsify/topk": "sae.safetensors",
    "saelens/standard": "sae_weights.safetensors",
    "saelens/batchtopk_in_training": "sae_weights.safetensors",
    "saelens/gated": "sae_weights.safetensors",
    "dictionary_learning/relu": "ae.pt",
    "dictionary_learning/gated": "ae.pt",
    "dictionary_learning/batchtopk": "ae.pt",
    "overcomplete/jumprelu_state_dict": "sae.pt",
    "visaebench/jumprelu": "sae.pt",
}


@pytest.mark.filterwarnings("ignore:.* is of ViSAEBench")
@pytest.mark.parametrize("case", FILES)
def test_a_tensor_that_is_missing_or_that_nobody_reads_is_named_with_the_file(case, peers):
    path = peers / case / FILES[case]
    whole = path.read_bytes()
    state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    essential = [name for name in state if name not in ("k", "multiplier", "scaling_factor", "dictionary.multiplier")]
    for name in essential:
        path.write_bytes(whole)
        with_tensors(path, **{name: None})
        said = sentence_of(peers / case)
        assert said is not None or name in ("jump_thresholds", "decoder.bias"), name
        assert said is None or str(path) in said or "config.json tells" in said
    path.write_bytes(whole)
    with_tensors(path, W_skip=torch.zeros(16, 16))
    assert "W_skip" in sentence_of(peers / case)
    assert str(path) in sentence_of(peers / case)


def sentence_of(folder: Path) -> str | None:
    """What load_sae says against a folder: one line that is not long."""
    said = None
    try:
        load_sae(folder)
    except (ValueError, OSError) as error:
        said = str(error)
    assert said is None or ("\n" not in said and len(said) < 700)
    return said


def test_a_setting_that_is_missing_is_named_with_its_file(peers):
    for case, name in (("saelens/topk", "k"), ("visaebench/topk", "k"), ("saelens/matryoshka_in_training", "k")):
        path = next((peers / case).glob("c*.json"))
        values = json.loads(path.read_text())
        path.write_text(json.dumps({key: value for key, value in values.items() if key != name}))
        assert f"{path} lacks the setting 'k'." in sentence_of(peers / case)


@pytest.mark.filterwarnings("ignore:.* is of ViSAEBench")
@pytest.mark.parametrize("odd", ["x", 3, [1], float("nan")])
@pytest.mark.parametrize(
    ("case", "names"),
    [
        ("saelens/topk_rescaled", ("apply_b_dec_to_input", "rescale_acts_by_decoder_norm")),
        ("sparsify/topk", ("signed", "transcode", "skip_connection")),
        ("prisma/topk_with_config_json", ("is_transcoder",)),
        ("visaebench/batchtopk", ("threshold",)),
    ],
)
def test_a_setting_that_changes_the_codes_is_of_its_type_or_refused(case, names, odd, peers):
    path = next(p for p in (peers / case).iterdir() if p.name in ("cfg.json", "config.json"))
    whole = path.read_text()
    for name in names if (names, odd) != (("threshold",), 3) else ():
        odd = True if name == "threshold" and isinstance(odd, float) else odd  # NaN is refused as one of the weights
        rewrite(path, **{name: odd})
        said = sentence_of(peers / case)
        assert said is not None
        assert name in said
        path.write_text(whole)


@pytest.mark.parametrize("k", [2.5, True, "three"])
def test_a_k_that_is_no_whole_number_is_refused_and_not_rounded(k, peers):
    rewrite(peers / "saelens" / "topk" / "cfg.json", k=k)
    file = peers / "dictionary_learning" / "topk" / "ae.pt"
    torch.save({**torch.load(file), "k": k}, file)
    for folder in (peers / "saelens" / "topk", peers / "dictionary_learning" / "topk"):
        with pytest.raises(ValueError, match=f"{folder.parent.name}.*k must be an integer"):
            load_sae(folder)


def test_weights_that_are_not_finite_are_refused(peers):
    with_tensors(peers / "sparsify" / "topk" / "sae.safetensors", b_dec=torch.full((16,), torch.nan))
    assert "sae.safetensors holds NaN or infinity in b_dec" in sentence_of(peers / "sparsify" / "topk")


def test_weights_of_whole_numbers_are_refused(peers):
    with_tensors(peers / "sparsify" / "topk" / "sae.safetensors", b_dec=torch.ones(16, dtype=torch.int8))
    assert "must be floats, not quantised: b_dec (torch.int8)" in sentence_of(peers / "sparsify" / "topk")


def test_saelens_norm_is_in_the_threshold_whether_it_was_folded_or_not():
    """From 6.54.9 on, folding the activations' scale divides BatchTopK's threshold by it."""
    for name in ("batchtopk_norm_folded", "batchtopk_norm_not_folded"):
        for_inference, in_training = (load_sae(PEERS / "saelens" / case) for case in (name, f"{name}_in_training"))
        x = load_file(PEERS / "saelens" / name / "expected.safetensors")["x"]
        assert for_inference.encode(x).count_nonzero() > 50
        torch.testing.assert_close(in_training.encode(x), for_inference.encode(x))
        torch.testing.assert_close(for_inference.threshold, in_training.threshold.expand(48))


def test_visaebench_is_read_from_yaml_and_safetensors_too_and_its_scale_is_warned_of(peers):
    folder = peers / "visaebench" / "topk"
    with pytest.warns(UserWarning, match=r"trains on standardised activations .* \(x - mean\) / std"):
        expected = load_sae(folder)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.yaml").write_text("".join(f"{name}: {value}\n" for name, value in values.items()))
    (folder / "config.json").unlink()
    save_file(torch.load(folder / "sae.pt", weights_only=True), folder / "model.safetensors")
    (folder / "sae.pt").unlink()
    with pytest.warns(UserWarning, match="ViSAEBench"):
        assert torch.equal(load_sae(folder).W_enc, expected.W_enc)
    (folder / "config.yaml").write_text("k:\t5\n\tx")
    assert "config.yaml cannot be read as YAML" in sentence_of(folder)


def test_a_compressed_archive_is_not_opened(tmp_path):
    torch.save({"encoder.weight": torch.zeros(100, 100)}, tmp_path / "plain.pt")
    packed = zipfile.ZipFile(tmp_path / "ae.pt", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert "is compressed, as torch.save never does" in sentence_of(tmp_path / "ae.pt")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", sorted({**FILES, "prisma/topk": "", "saev/topk": "", "overcomplete/topk": ""}))
def test_a_damaged_file_is_read_as_it_was_or_gives_one_sentence_that_names_it(case, peers):
    """Twenty seeded mutations of each file: bytes changed, cut off, emptied, a pointer of Git LFS in its place."""
    draw = random.Random(case)
    files = [path for path in (peers / case).iterdir() if path.name != "expected.safetensors"]
    for path in files:
        whole = path.read_bytes()
        damaged = [b"", b"version https://git-lfs.github.com/spec/v1\n", whole[: draw.randrange(len(whole))]]
        for _ in range(17):
            copy = bytearray(whole)
            for _ in range(draw.randint(1, 4)):
                copy[draw.randrange(len(copy) if draw.random() < 0.5 else min(len(copy), 600))] = draw.randrange(256)
            damaged.append(bytes(copy))
        for content in damaged:
            path.write_bytes(content)
            said = sentence_of(peers / case)
            assert said is None or str(peers / case) in said
        path.write_bytes(whole)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("case", "file", "setting"),
    [
        ("saelens/standard", "cfg.json", {"d_sae": 64}),
        ("saelens/standard", "cfg.json", {"d_in": 8}),
        ("sparsify/topk", "cfg.json", {"num_latents": 64}),
        (
            "dictionary_learning/topk",
            "config.json",
            {"trainer": {"dict_class": "AutoEncoderTopK", "k": 4, "dict_size": 8}},
        ),
        ("visaebench/topk", "config.json", {"hidden_dim": 64}),
    ],
    ids=str,
)
def test_settings_of_other_weights_are_refused(case, file, setting, peers):
    rewrite(peers / case / file, **setting)
    with pytest.raises(ValueError, match="they belong to different dictionaries"):
        load_sae(peers / case)


def test_scaled_training_activations_that_the_file_does_not_hold_are_warned_of(peers):
    rewrite(peers / "saelens" / "standard" / "cfg.json", normalize_activations="expected_average_only_in")
    with pytest.warns(UserWarning, match="trained on scaled activations"):
        load_sae(peers / "saelens" / "standard")


def test_the_first_schema_of_saev_is_read_as_saev_reads_it_and_warned_of(peers):
    path = peers / "saev" / "relu" / "sae.pt"
    header, weights = path.read_bytes().split(b"\n", 1)
    path.write_bytes(json.dumps({**json.loads(header), "schema": 1}).encode() + b"\n" + weights)
    with pytest.warns(UserWarning, match="schema 1, written both by versions that centred the input"):
        assert difference(peers, "saev/relu").codes <= LIMIT


def test_saelens_files_of_before_version_6_are_read(peers):
    path = peers / "saelens" / "topk" / "cfg.json"
    values = json.loads(path.read_text())
    old = {name: values[name] for name in ("d_in", "d_sae", "apply_b_dec_to_input")}
    path.write_text(json.dumps(old | {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4}}))
    assert difference(peers, "saelens/topk").codes <= LIMIT


class Bomb:
    """What a hostile file would hold: a call, made on loading."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"echo > {self.path}",)


def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path):
    harmed = tmp_path / "harmed"
    torch.save({"encoder.weight": torch.zeros(3, 2), "extra": Bomb(harmed)}, tmp_path / "ae.pt")
    with pytest.raises(ValueError, match=r"a pickle that would run \w+\.system when loaded; it is not opened"):
        load_sae(tmp_path)
    (tmp_path / "ae.pt").write_bytes(pickle.dumps(Bomb(harmed)))
    with pytest.raises(ValueError, match=r"neither safetensors nor a file that torch\.save"):
        load_sae(tmp_path)
    header = b'{"schema": 5, "cfg": {}}\n'
    (tmp_path / "ae.pt").write_bytes(header + pickle.dumps(Bomb(harmed)))
    with pytest.raises(ValueError, match=r"neither safetensors nor a file that torch\.save"):
        load_sae(tmp_path)
    assert not harmed.exists()


def test_pickled_objects_of_known_libraries_are_attributes_only():
    path = PEERS / "overcomplete" / "topk" / "sae.pt"
    module = read_pickle(path.read_bytes(), path)
    assert isinstance(module, StandIn)
    assert module.qualified == "overcomplete.sae.topk_sae.TopKSAE"
    assert module.top_k == 4
    assert not hasattr(module, "forward")


def test_a_flipped_bit_in_weights_of_torch_save_is_found_by_its_checksum(tmp_path):
    path = PEERS / "dictionary_learning" / "topk" / "ae.pt"
    blob, weights = bytearray(path.read_bytes()), zipfile.ZipFile(path).read("ae/data/0")
    blob[blob.index(weights) + len(weights) // 2] ^= 1
    (tmp_path / "ae.pt").write_bytes(blob)
    with pytest.raises(ValueError, match=r"ae\.pt is damaged: the checksum of '\S+/data/\d+' in it"):
        load_sae(tmp_path)


def test_a_truncated_file_is_reported_in_one_sentence(tmp_path):
    blob = (PEERS / "dictionary_learning" / "topk" / "ae.pt").read_bytes()
    (tmp_path / "ae.pt").write_bytes(blob[: len(blob) // 2])
    with pytest.raises(ValueError, match=r"ae\.pt is neither|ae\.pt cannot be read"):
        load_sae(tmp_path)
    (tmp_path / "ae.pt").rename(tmp_path / "sae.safetensors")
    (tmp_path / "cfg.json").write_text('{"k": 4}')
    with pytest.raises(ValueError, match=r"sae\.safetensors cannot be read as safetensors"):
        load_sae(tmp_path)


def test_an_unknown_layout_is_told_with_what_was_found(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file or folder"):
        load_sae(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(FileNotFoundError, match=r"looked for model\.safetensors, .* and found notes\.txt"):
        load_sae(tmp_path)
    save_file({"colour": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="of no layout known here: it holds colour, with no settings beside it"):
        load_sae(tmp_path)
    torch.save({"colour": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"lacks encoder\.weight, decoder\.weight; it holds colour"):
        load_sae(tmp_path / "other.pt", format="dictionary_learning")
    with pytest.raises(ValueError, match="Unknown format 'pickle'; choose one of own, dictionary_learning"):
        load_sae(tmp_path, format="pickle")


def test_several_unnamed_files_are_not_chosen_between(tmp_path):
    for name in ("one.pt", "two.pt"):
        torch.save({}, tmp_path / name)
    with pytest.raises(ValueError, match=r"holds one\.pt, two\.pt; name one of these files"):
        load_sae(tmp_path)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_export_is_the_file_that_saelens_read_as_the_same_function(name, tmp_path):
    sae, seen = example(**EXAMPLES[name]), PEERS / "saelens_export" / name
    export_saelens(sae, tmp_path)
    assert json.loads((tmp_path / "cfg.json").read_text()) == json.loads((seen / "cfg.json").read_text())
    written, read = (load_file(folder / "sae_weights.safetensors") for folder in (tmp_path, seen))
    torch.testing.assert_close(written, read, rtol=0, atol=1e-6)
    by_saelens = load_file(seen / "expected.safetensors")
    torch.testing.assert_close(sae.encode(by_saelens["x"]), by_saelens["codes"], rtol=0, atol=LIMIT)
    torch.testing.assert_close(sae(by_saelens["x"]), by_saelens["reconstruction"], rtol=0, atol=LIMIT)


def test_what_saelens_cannot_compute_is_not_exported(tmp_path):
    with pytest.raises(ValueError, match="kind 'signed_topk' does: it cannot be exported"):
        export_saelens(example(kind="signed_topk"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["gated", "vsae", "archetypal"])
def test_a_kind_that_equals_one_of_saelens_at_inference_is_exported_as_that(kind, tmp_path):
    sae = example(kind=kind)
    read = load_sae(export_saelens(sae, tmp_path))
    x = torch.randn(20, sae.d, generator=torch.Generator().manual_seed(0))
    assert read.config.kind == {"gated": "jumprelu"}.get(kind, "topk")
    torch.testing.assert_close(read.encode(x), sae.encode(x), rtol=0, atol=LIMIT)
    torch.testing.assert_close(read(x), sae(x), rtol=0, atol=LIMIT)


def test_ours_is_found_by_its_layout(tmp_path):
    sae = example(kind="matryoshka")
    sae.save(tmp_path)
    loaded = load_sae(tmp_path)
    assert isinstance(loaded, SAE)
    assert loaded.config == sae.config
    assert torch.equal(loaded.W_dec, sae.W_dec)


def test_a_dictionary_with_a_weight_that_is_no_number_is_not_exported(tmp_path):
    sae = example(kind="topk")
    with torch.no_grad():
        sae.W_dec[0, 0] = float("nan")
    with pytest.raises(ValueError, match="not exported: it holds NaN or infinity in W_dec"):
        export_saelens(sae, tmp_path / "sae")
    assert not (tmp_path / "sae").exists()
