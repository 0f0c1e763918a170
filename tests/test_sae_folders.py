"""One folder for each setting of a dictionary, whoever asks for it."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from experiments import sae_folders
from experiments.sae_folders import SAEStore, sae_folder
from lib.sae.config import CONFIGS, DEFAULTS
from lib.sae.model import SAE, SAEConfig
from tests.sparse_world import sparse_world

OTHER = {
    "kind": "matryoshka", "expansion": 4, "width": 512, "k": 7, "group_fractions": (0.5, 0.5), "l1": 0.1, "steps": 5,
    "matryoshka_loss": "code", "batch_size": 32, "seed": 3, "data_seed": 3, "data_order": "replay", "lr": 0.1,
    "lr_rule": "code", "warmup_steps": 3, "decay_start": 9, "beta1": 0.5, "beta2": 0.5, "clip_norm": 2.0,
    "normalize": False, "normalization_batches": 3, "aux_alpha": 0.5, "aux_k": 3, "dead_after": 3,
    "input_norm": "unit_rms", "threshold": "per_feature", "threshold_beta": 0.5, "threshold_start": 3,
    "encoder_dtype": "float32", "l0": 0.5, "bandwidth": 0.5, "noise": 0.5, "kl": 0.5, "archetypes": 9,
    "relaxation": 0.5, "init": "data", "mono_weight": 0.5,
}  # fmt: skip
_SHARED = {field.name for field in fields(SAEConfig)}
CHANGES_NOTHING = {"log_every": 7, "checkpoint_every": 7}


def folder(**settings):
    return sae_folder("build/p", "7.resid_post", "cls", SAEConfig(**settings))


def test_the_name_says_kind_expansion_k_and_seed():
    expected = Path("build/p/saes/7.resid_post/cls/matryoshka-x4-k8-s1")
    assert folder(kind="matryoshka", expansion=4, k=8, seed=1) == expected


def test_a_width_takes_the_expansions_place():
    assert folder(width=512, expansion=4).name.startswith("batchtopk-w512-k20-s0")


def test_every_setting_that_changes_the_dictionary_changes_the_folder():
    own = {name: kind for kind, config in CONFIGS.items() for name in {f.name for f in fields(config)} - _SHARED}
    kinds = {name: own.get(name, "batchtopk") for name in OTHER}  # one that has the setting
    usual = {kind: folder(kind=kind) for kind in kinds.values()}
    changed = [folder(**{"kind": kinds[name], name: value}) for name, value in OTHER.items()]
    assert len({*usual.values(), *changed}) == len(usual) + len(changed) - 1  # the kind matryoshka is in both
    assert set(DEFAULTS) <= {*OTHER, *CHANGES_NOTHING}, "a new setting: say it above"


@pytest.mark.parametrize("name", CHANGES_NOTHING)
def test_what_changes_nothing_in_the_dictionary_changes_no_folder(name):
    assert folder(**{name: CHANGES_NOTHING[name]}) == folder()


def test_expansions_that_look_alike_in_the_name_have_folders_of_their_own():
    assert folder(expansion=1.0000001) != folder(expansion=1)
    assert folder(width=512, expansion=4) != folder(width=512, expansion=2)


def test_the_same_setting_has_the_same_folder_however_it_is_written():
    config = SAEConfig(kind="matryoshka", steps=5, group_fractions=[0.5, 0.5])
    assert sae_folder("p", "proj", "cls", config) == sae_folder("p", "proj", "cls", replace(config, expansion=8.0))


def test_sites_and_tokens_have_folders_of_their_own():
    config = SAEConfig()
    found = {sae_folder("p", site, tokens, config) for site in ("proj", "3.mlp_out") for tokens in ("cls", "random:2")}
    assert len(found) == 4
    assert all(":" not in str(path) for path in found)


def test_dictionaries_are_trained_by_name_in_one_pass_for_each_order_of_the_data(tmp_path, monkeypatch):
    passes, train = [], sae_folders.train_sae

    def counted(store, configs, **options):
        passes.append([(config.kind, config.data_seed) for config in configs])
        return train(store, configs, **options)

    monkeypatch.setattr(sae_folders, "train_sae", counted)
    place, usual = SAEStore(tmp_path, "7.resid_post", "cls"), {"width": 40, "steps": 2, "batch_size": 50, "k": 4}
    configs = {
        name: SAEConfig(kind=kind, data_seed=seed, **usual)
        for name, kind, seed in (("a", "topk", 0), ("b", "topk", 1), ("c", "relu", 0))
    }
    saes = place.trained(sparse_world(rows=200), configs, progress=False)
    assert passes == [[("topk", 0), ("relu", 0)], [("topk", 1)]]
    assert [sae.config.kind for sae in saes.values()] == ["topk", "topk", "relu"]
    assert list(saes) == ["a", "b", "c"]
    for name, config in configs.items():
        assert place.folder(config) == sae_folder(tmp_path, "7.resid_post", "cls", config)
        assert SAE.load(place.folder(config)).config == saes[name].config
