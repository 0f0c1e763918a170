import errno
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import lib.sae.training
import storage.fingerprints
from lib.activations.extraction import ActivationStore
from lib.sae.config import CONFIGS
from lib.sae.model import KINDS as SAE_KINDS
from lib.sae.model import SAE, SAEConfig
from lib.sae.objectives import OBJECTIVES, normalize_rows_, remove_parallel_
from lib.sae.training import evaluate, train_sae
from lib.sae.training_data import batches, geometric_median
from lib.sae.training_log import read_metrics
from storage import load_tensors
from tests.killed_training import Killed, kill_at
from tests.sparse_world import sparse_world

KINDS = ("relu", "topk", "batchtopk", "matryoshka")
SHORT = SAEConfig(
    kind="batchtopk", width=64, k=4, steps=30, batch_size=128, log_every=5, checkpoint_every=10, dead_after=1000
)


@pytest.fixture(scope="module")
def store():
    return sparse_world()


@pytest.fixture(autouse=True)
def one_thread():
    """Sharing tensors this small between cores costs more than it gains."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights(sae):
    return sae.state_dict()


def assert_same(first, second):
    for name, tensor in weights(first).items():
        assert torch.equal(tensor, weights(second)[name]), name


def train(store, config=SHORT, **options):
    return train_sae(store, config, device="cpu", progress=False, **options)


@pytest.mark.parametrize("encoder_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_training_explains_sparse_structure_in_the_inputs_own_units(store, kind, encoder_dtype):
    config = replace(SHORT, kind=kind, width=128, steps=300, batch_size=256, encoder_dtype=encoder_dtype)
    config = replace(config, l1=0.05) if kind == "relu" else config
    sae = train(store, config)
    x = store[:]
    assert 1 - (sae(x) - x).var(0).sum() / x.var(0).sum() > 0.6
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(128))


@pytest.mark.parametrize(("threshold", "lowest"), [("scalar", 0.9), ("per_feature", 0.8)])
@pytest.mark.parametrize("kind", ["batchtopk", "matryoshka"])
def test_l0_with_the_learned_threshold_is_close_to_k_on_new_data(kind, threshold, lowest):
    """A latent's own smallest code in a batch lies above the batch's: thresholds per feature let less pass."""
    world = sparse_world(rows=8000)
    config = replace(SHORT, kind=kind, width=128, steps=400, batch_size=256, threshold=threshold)
    sae = train(ActivationStore.from_tensor(world[:6000]), config)
    l0 = evaluate(sae, ActivationStore.from_tensor(world[6000:]))["l0"]
    assert lowest * config.k < l0 < 1.1 * config.k


@pytest.mark.parametrize("kind", KINDS)
def test_scaling_the_data_scales_the_sae_because_the_normalisation_is_folded_back(store, kind):
    config = replace(SHORT, kind=kind)
    scaled = ActivationStore.from_tensor(64 * store[:])
    sae, scaled_sae = train(store, config), train(scaled, config)
    for name in ("W_enc", "W_dec"):
        assert torch.equal(weights(sae)[name], weights(scaled_sae)[name])
    x = store[:100]
    torch.testing.assert_close(scaled_sae(64 * x), 64 * sae(x), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("step", [9, 17, 29])
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_resumes_bit_for_bit(store, kind, step, tmp_path, monkeypatch):
    config = replace(SHORT, kind=kind, data_order="replay" if step == 17 else "reshuffle")
    whole = train(store, config, out=tmp_path / "whole")
    with monkeypatch.context() as patch:
        kill_at(patch, step)
        with pytest.raises(Killed):
            train(store, config, out=tmp_path / "killed")
    resumed = train(store, config, out=tmp_path / "killed")
    assert_same(whole, resumed)
    timeless = [
        [{key: value for key, value in row.items() if key != "seconds"} for row in read_metrics(tmp_path / name)]
        for name in ("whole", "killed")
    ]
    assert timeless[0] == timeless[1]


def test_a_checkpoint_holds_step_adams_moments_and_the_counts_of_dead_latents(store, tmp_path, monkeypatch):
    kill_at(monkeypatch, 25)
    with pytest.raises(Killed):
        train(store, out=tmp_path)
    state, metadata = load_tensors(tmp_path / "checkpoint" / "state.safetensors")
    assert json.loads(metadata["run"])["step"] == 20
    assert {"since_fired", "sae.threshold", "adam.W_enc.exp_avg", "adam.b_dec.exp_avg_sq"} <= set(state)
    assert state["adam.W_dec.step"] == 20


@pytest.mark.parametrize("threads", [1, 2])
def test_several_saes_in_one_pass_equal_separate_runs(store, threads):
    configs = [
        replace(SHORT, kind=kind, seed=seed, steps=steps)
        for seed, (kind, steps) in enumerate([("batchtopk", 30), ("matryoshka", 20), ("topk", 30), ("relu", 25)])
    ]
    torch.set_num_threads(threads)
    together = train(store, configs)
    torch.set_num_threads(1)
    for sae, config in zip(together, configs, strict=True):
        assert_same(sae, train(store, config))


def test_several_saes_read_the_data_once(store, monkeypatch):
    read = []
    original = ActivationStore.stored_batches

    def counting(self, *arguments, **options):
        for x in original(self, *arguments, **options):
            read.append(len(x))
            yield x

    monkeypatch.setattr(ActivationStore, "stored_batches", counting)
    train(store, [SHORT, replace(SHORT, seed=1), replace(SHORT, kind="topk")])
    assert SHORT.steps <= len(read) <= SHORT.steps + len(store) // SHORT.batch_size


def test_one_of_several_killed_runs_does_not_touch_the_finished_ones(store, tmp_path):
    folders, configs = [tmp_path / "a", tmp_path / "b"], [SHORT, replace(SHORT, seed=1)]
    first = train(store, configs[0], out=folders[0])
    both = train(store, configs, out=folders)
    assert_same(both[0], first)
    assert_same(both[1], train(store, configs[1]))


OTHER = replace(SHORT, k=3)


def test_a_complete_artifact_is_loaded_and_not_trained_again(store, tmp_path, monkeypatch):
    sae = train(store, out=tmp_path / "sae")
    assert not (tmp_path / "sae" / "checkpoint").exists()
    kill_at(monkeypatch, 0)
    assert_same(train(store, replace(SHORT, log_every=7), out=tmp_path / "sae"), sae)


@pytest.mark.parametrize("step", [0, 25])
def test_the_sae_of_another_spec_stays_until_the_new_one_is_complete(store, tmp_path, monkeypatch, step):
    out = tmp_path / "sae"
    sae = train(store, out=out)
    with monkeypatch.context() as patch:
        kill_at(patch, step)
        with pytest.raises(Killed):
            train(store, OTHER, out=out)
        assert_same(SAE.load(out), sae)
        assert_same(train(store, out=out), sae)
    with pytest.warns(UserWarning, match=r"now holds the artifact of another spec.*kept as sae\."):
        train(store, OTHER, out=out)
    assert_same(SAE.load(out), train(store, OTHER))
    (kept,) = tmp_path.glob("sae.*")
    assert_same(SAE.load(kept), sae)


@pytest.mark.parametrize(
    "module",
    [
        *("lib/activations/store", "lib/sae/selection", "lib/sae/training", "lib/sae/objectives/base"),
        *("lib/sae/config", "experiments/archetypal"),
    ],
)
def test_the_spec_covers_the_code_that_trains_and_that_orders_the_batches(module, store, tmp_path, monkeypatch):
    config = replace(SHORT, kind="archetypal")
    before = lib.sae.training._spec(store, config)
    for package in ("storage", "lib", "experiments"):
        shutil.copytree(storage.fingerprints._HOME / package, tmp_path / package)
    monkeypatch.setattr(storage.fingerprints, "_HOME", tmp_path)
    assert lib.sae.training._spec(store, config) == before
    source = tmp_path / f"{module}.py"
    source.write_text(source.read_text() + "\nANOTHER = 1\n")
    assert lib.sae.training._spec(store, config)["code"] != before["code"]


def test_an_sae_that_was_kept_is_not_trained_again(store, tmp_path, monkeypatch):
    out = tmp_path / "sae"
    sae = train(store, out=out)
    with pytest.warns(UserWarning, match="kept as"):
        train(store, OTHER, out=out)
    kill_at(monkeypatch, 0)
    with pytest.warns(UserWarning, match="kept as"):
        assert_same(train(store, out=out), sae)
    assert_same(SAE.load(out), sae)


@pytest.mark.parametrize("folder", ["out", None])
def test_a_training_that_ends_in_nan_is_refused_and_is_no_artifact(store, folder, tmp_path, monkeypatch):
    def broken(run, x):
        run.sae.b_enc.data[0] = torch.nan
        run.step += 1

    monkeypatch.setattr(lib.sae.training.Run, "advance", broken)
    monkeypatch.setattr(lib.sae.training.Run, "write_metrics", lambda *_: None)
    with pytest.raises(ValueError, match=r"after 30 steps \(learning rate .*\) holds NaN or infinity in b_enc"):
        train(store, out=folder and tmp_path / folder)
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_a_model_that_was_not_trained_here_is_never_overwritten(store, tmp_path):
    train(store).save(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match="train_sae did not make"):
        train(store, OTHER, out=tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) * 3 // 4] ^= 16
    changed = {"empty": b"", "cut short": data[: len(data) // 2], "zeroed": bytes(len(data)), "one bit": data}
    path.unlink() if how == "missing" else path.write_bytes(changed[how])


DAMAGES = ("missing", "empty", "cut short", "zeroed", "one bit")


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_trained_again(store, tmp_path, monkeypatch, how, recwarn):
    with monkeypatch.context() as patch:
        kill_at(patch, 25)
        with pytest.raises(Killed):
            train(store, out=tmp_path)
    damage(tmp_path / "checkpoint" / "state.safetensors", how)
    assert_same(train(store, out=tmp_path), train(store))
    said = [str(warning.message) for warning in recwarn if "training begins again" in str(warning.message)]
    assert len(said) == (how != "missing")
    assert all("state.safetensors" in sentence for sentence in said)
    assert [row["step"] for row in read_metrics(tmp_path)] == [5, 10, 15, 20, 25, 30]


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_damaged_sae_is_refused_in_one_sentence_and_trained_again(store, tmp_path, name, how):
    sae = train(store, out=tmp_path)
    damage(tmp_path / name, how)
    with pytest.raises((ValueError, FileNotFoundError), match=name) as caught:
        SAE.load(tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.warns(UserWarning, match=rf"{name} is missing or damaged.*it is made again"):
        assert_same(train(store, out=tmp_path), sae)
    assert_same(SAE.load(tmp_path), sae)


def test_a_damaged_log_costs_the_history_and_not_the_sae(store, tmp_path):
    sae = train(store, out=tmp_path)
    assert SAE.load(tmp_path).history == sae.history
    damage(tmp_path / "metrics.jsonl", "one bit")
    with pytest.raises(ValueError, match=r"metrics.jsonl is missing or damaged"):
        read_metrics(tmp_path)
    with pytest.warns(UserWarning, match="without its history"):
        assert_same(train(store, out=tmp_path), sae)


def test_two_trainings_into_one_folder_train_once(store, tmp_path, monkeypatch):
    steps, advance = [], lib.sae.training.Run.advance
    monkeypatch.setattr(lib.sae.training.Run, "advance", lambda run, x: steps.append(1) or advance(run, x))
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: train(store, out=tmp_path / "sae"), range(2))
    assert_same(first, second)
    assert len(steps) == SHORT.steps
    assert len(read_metrics(tmp_path / "sae")) == 6


def test_a_finished_sae_needs_no_lock(store, tmp_path, monkeypatch):
    sae = train(store, out=tmp_path / "sae")
    monkeypatch.setattr("storage.places.FileLock.acquire", lambda *_, **__: pytest.fail("a lock was taken"))
    assert_same(train(store, out=tmp_path / "sae"), sae)


@pytest.mark.parametrize("what", ["save_tensors", "write"])
def test_a_full_disk_is_one_sentence_that_names_the_file(store, tmp_path, monkeypatch, what):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if what == "write":
            patch.setattr("lib.sae.training_log.json", SimpleNamespace(dumps=full))
        else:
            patch.setattr("lib.sae.checkpoints.save_tensors", full)
        with pytest.raises(
            OSError, match=r"No space left on the disk while writing .*(state.safetensors|metrics.jsonl)"
        ):
            train(store, out=tmp_path)
    assert_same(train(store, out=tmp_path), train(store))


def test_metrics_are_logged_every_few_steps_with_validation_figures(store, tmp_path):
    train(store, validation=ActivationStore.from_tensor(store[:500]), out=tmp_path)
    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows] == [5, 10, 15, 20, 25, 30]
    assert {"loss", "mse", "l0", "explained_variance", "dead", "lr", "threshold", "val_l0"} <= set(rows[-1])
    assert rows[-1]["l0"] == SHORT.k
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0]) == rows[0]
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_dead_latents_revive_by_the_auxiliary_loss(store):
    def dead_after_training(aux_alpha):
        config = replace(SHORT, width=256, steps=250, batch_size=256, dead_after=2000, aux_alpha=aux_alpha, lr=0.003)
        run = lib.sae.training.Run(config, lib.sae.training.Setup(store, config, "cpu"), None, None)
        with torch.no_grad():
            run.sae.b_enc[:100] = -0.3  # out of reach of most inputs
        for x in lib.sae.training.islice(batches(store, config, 0), config.steps):
            run.advance(x)
        return int((run.objective.since_fired[:100] >= config.patience).sum())

    assert dead_after_training(0.03) < 0.6 * dead_after_training(0.0)


def test_evaluation_is_centred_and_counts_active_latents(store):
    sae = train(store)
    x = store[:]
    with torch.no_grad():
        codes, error = sae.encode(x), sae(x) - x
    found = evaluate(sae, store, n_batches=2)
    whole = {"l0": float((codes > 0).sum(1).float().mean()), "dead": float((codes == 0).all(0).float().mean())}
    whole |= {"explained_variance": 1 - float(error.square().sum() / (x - x.mean(0)).square().sum())}
    whole |= {"mse": float(error.square().sum(1).mean())}
    assert found == pytest.approx(whole, rel=0.1)


def test_the_learning_rate_follows_paper_or_code_warms_up_and_decays(store):
    setup = lib.sae.training.Setup(store, SHORT, "cpu")

    def rates(**fields):
        config = replace(SHORT, steps=100, **fields)
        run = lib.sae.training.Run(config, setup, None, None)
        return [run.lr_at(step) for step in range(100)]

    assert max(rates(lr_rule="paper")) == pytest.approx(16 / (125 * 64**0.5))
    assert max(rates(lr_rule="code")) == pytest.approx(16 / (625 * 64**0.5))
    assert rates(lr=1.0)[:2] == pytest.approx([1 / 11, 2 / 11])  # a tenth of the run at most
    assert rates(lr=1.0)[-1] == 1.0
    assert rates(lr=1.0, decay_start=80)[90] == pytest.approx(0.5)


def test_replayed_data_repeats_the_first_epochs_batches_and_reshuffled_data_does_not(store):
    def first_two_epochs(order):
        per_epoch = len(store) // 1000
        drawn = list(
            lib.sae.training.islice(batches(store, replace(SHORT, batch_size=1000, data_order=order), 0), 2 * per_epoch)
        )
        return torch.cat(drawn[:per_epoch]), torch.cat(drawn[per_epoch:])

    assert torch.equal(*first_two_epochs("replay"))
    assert not torch.equal(*first_two_epochs("reshuffle"))


def test_projection_leaves_the_gradient_orthogonal_to_unit_decoder_rows():
    decoder, gradient = torch.randn(50, 8), torch.randn(50, 8)
    normalize_rows_(decoder)
    remove_parallel_(gradient, decoder)
    torch.testing.assert_close((decoder * gradient).sum(1), torch.zeros(50), atol=1e-5, rtol=0)
    torch.testing.assert_close(decoder.norm(dim=1), torch.ones(50))


def test_the_geometric_median_ignores_outliers_that_move_the_mean():
    x = torch.randn(301, 4, generator=torch.Generator().manual_seed(0))
    x[:30] += 1000
    assert geometric_median(x).norm() < 1
    assert x.mean(0).norm() > 100


def test_a_new_kind_needs_registration_only(store, monkeypatch):
    monkeypatch.setitem(SAE_KINDS, "shifted", lambda sae, pre: (pre - 0.1).relu())
    monkeypatch.setitem(OBJECTIVES, "shifted", OBJECTIVES["relu"])
    monkeypatch.setitem(CONFIGS, "shifted", CONFIGS["relu"])  # for its penalty
    assert train(store, replace(SHORT, kind="shifted")).encode(store[:3]).shape == (3, 64)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_are_refused_wherever_they_lie(store, bad, tmp_path):
    rows = store[:].clone()
    rows[::3, 2] = bad
    with pytest.raises(ValueError, match="The activations contain NaN or infinity"):
        train(ActivationStore.from_tensor(rows))
    rows = store[:].clone()
    rows[17, 2] = bad
    with pytest.raises(ValueError, match="The activations contain NaN or infinity"):
        train(ActivationStore.from_tensor(rows), replace(SHORT, normalization_batches=1, steps=60))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([{"width": 3}], "k = 4 active latents do not fit into F = 3"),
        ([{}, {"batch_size": 64}], "must share batch_size"),
        ([], "at least one SAEConfig"),
    ],
)
def test_configs_that_cannot_be_trained_are_refused_before_the_first_step(store, fields, message):
    with pytest.raises(ValueError, match=message):
        train(store, [replace(SHORT, **one) for one in fields])


def test_two_configs_in_one_folder_and_a_store_of_zeros_are_refused(store, tmp_path):
    with pytest.raises(ValueError, match="2 configs need as many different"):
        train(store, [SHORT, replace(SHORT, seed=1)], out=[tmp_path, tmp_path])
    with pytest.raises(ValueError, match="All activations are zero"):
        train(ActivationStore.from_tensor(torch.zeros(200, 8)))


def test_an_empty_store_is_refused():
    with pytest.raises(ValueError, match="store is empty"):
        train(ActivationStore.from_tensor(torch.zeros(0, 8)))
