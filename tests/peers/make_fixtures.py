"""Lets each peer library make small random dictionaries, save them by its own function, and say what they compute.

    python tests/peers/make_fixtures.py FOLDER [--sources SOURCES] [LIBRARY ...]

Runs in the environment of run.sh, never in the project's. FOLDER/<library>/<case>/ gets the library's files and
expected.safetensors: inputs `x`, the library's `codes` and `reconstruction`; its metadata names the library's version.
SOURCES holds clones of the libraries that PyPI does not offer in a usable version.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import sys
import types
from pathlib import Path

import torch
from safetensors.torch import save_file

D, F, K, ROWS = 16, 48, 4, 16


class Anything(types.ModuleType):
    """A module that a library imports and that nothing here uses; each of its names is an empty class."""

    __path__ = ()

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": lambda self, *a, **k: None})


class Stubs:
    """Finds the named modules, and all below them."""

    def __init__(self, *names: str) -> None:
        self.names = tuple(f"{name}." for name in names)

    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_loader(name, self) if f"{name}.".startswith(self.names) else None

    def create_module(self, spec):
        return Anything(spec.name)

    def exec_module(self, module) -> None:
        pass


def stub(*names: str) -> None:
    """Let these be imported where they are missing."""
    sys.meta_path.append(Stubs(*names))


def hide(*names: str) -> None:
    """Let these be imported as nothing, though they may be there."""
    sys.meta_path.insert(0, Stubs(*names))


def inputs() -> torch.Tensor:
    return torch.randn(ROWS, D, generator=torch.Generator().manual_seed(0)) + 0.3


@torch.no_grad()
def perturb(module: torch.nn.Module) -> None:
    """Move every parameter off its initial value, so that no bias is zero and nothing is tied."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))


def record(folder: Path, version: str, codes: torch.Tensor, reconstruction: torch.Tensor) -> None:
    active = float((codes != 0).float().mean())
    assert 0 < active < 1, f"{folder}: {active:.0%} of the codes are active, which tests nothing"
    tensors = {"x": inputs(), "codes": codes, "reconstruction": reconstruction}
    tensors = {name: tensor.detach().float().contiguous() for name, tensor in tensors.items()}
    save_file(tensors, folder / "expected.safetensors", metadata={"version": version})


def fresh(root: Path, case: str) -> Path:
    folder = root / case
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    return folder


def dictionary_learning(root: Path, sources: Path) -> None:
    stub("nnsight", "datasets", "zstandard", "wandb", "transformers")
    from dictionary_learning.dictionary import AutoEncoder, AutoEncoderNew, GatedAutoEncoder, JumpReluAutoEncoder
    from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
    from dictionary_learning.trainers.top_k import AutoEncoderTopK
    from dictionary_learning.utils import load_dictionary

    dictionaries = {
        "relu": AutoEncoder(D, F),
        "relu_new": AutoEncoderNew(D, F),
        "gated": GatedAutoEncoder(D, F),
        "jumprelu": JumpReluAutoEncoder(D, F),
        "topk": AutoEncoderTopK(D, F, K),
        "batchtopk": BatchTopKSAE(D, F, K),
        "matryoshka": MatryoshkaBatchTopKSAE(D, F, K, [3, 9, 12, 24]),
    }
    for case, dictionary in dictionaries.items():
        perturb(dictionary)
        if case in ("jumprelu", "batchtopk", "matryoshka"):
            dictionary.threshold.data += 1.5
        folder = fresh(root, case)
        torch.save(dictionary.state_dict(), folder / "ae.pt")
        config = {"trainer": {"dict_class": type(dictionary).__name__, "k": K}}
        (folder / "config.json").write_text(json.dumps(config))
        loaded, _ = load_dictionary(str(folder), "cpu")
        codes = loaded.encode(inputs())
        record(folder, importlib.metadata.version("dictionary-learning"), codes, loaded.decode(codes))


def sae_for_vlm(root: Path, sources: Path) -> None:
    stub("nnsight", "datasets", "zstandard", "wandb", "transformers")
    for name in [name for name in sys.modules if name.split(".")[0] == "dictionary_learning"]:
        del sys.modules[name]
    sys.path.insert(0, str(sources / "sae-for-vlm"))
    from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
    from dictionary_learning.trainers.matroyshka_batch_top_k import MatroyshkaBatchTopKSAE

    sys.path.pop(0)
    dictionaries = {
        "batch_top_k_20_x3": BatchTopKSAE(D, F, K),
        "matroyshka_batch_top_k_20_x3": MatroyshkaBatchTopKSAE(D, F, K, [3, 9, 12, 24]),
    }
    for case, dictionary in dictionaries.items():
        perturb(dictionary)
        dictionary.threshold += 2.0
        dictionary.scale_biases(1.5)
        folder = fresh(root, case) / "trainer_0" / "checkpoints"
        folder.mkdir(parents=True)
        torch.save(dictionary.state_dict(), folder / "ae_100000.pt")
        codes = dictionary.encode(inputs())
        record(root / case, commit(sources / "sae-for-vlm"), codes, dictionary.decode(codes))


def stub_for_saelens() -> None:
    stub("transformer_lens", "datasets", "wandb", "transformers", "nltk", "babe", "plotly", "dotenv", "pandas")
    stub("better_abc", "fancy_einsum", "accelerate", "rich", "tenacity", "huggingface_hub", "bitsandbytes")


def saelens(root: Path, sources: Path) -> None:
    stub_for_saelens()
    import sae_lens as sl

    shared = {"d_in": D, "d_sae": F}
    sae = {
        "standard": sl.StandardSAE(sl.StandardSAEConfig(**shared)),
        "standard_uncentred": sl.StandardSAE(sl.StandardSAEConfig(**shared, apply_b_dec_to_input=False)),
        "standard_layer_norm": sl.StandardSAE(sl.StandardSAEConfig(**shared, normalize_activations="layer_norm")),
        "topk_constant_norm": sl.TopKSAE(
            sl.TopKSAEConfig(**shared, k=K, normalize_activations="constant_norm_rescale")
        ),
        "topk": sl.TopKSAE(sl.TopKSAEConfig(**shared, k=K)),
        "topk_rescaled": sl.TopKSAE(sl.TopKSAEConfig(**shared, k=K, rescale_acts_by_decoder_norm=True)),
        "jumprelu": sl.JumpReLUSAE(sl.JumpReLUSAEConfig(**shared)),
        "gated": sl.GatedSAE(sl.GatedSAEConfig(**shared)),
    }
    for case, one in sae.items():
        perturb(one)
        if case == "jumprelu":
            one.threshold.data += 0.3
        folder = fresh(root, case)
        one.save_model(folder)
        record_saelens(folder, sl)
    training = {
        "batchtopk": sl.BatchTopKTrainingSAE(sl.BatchTopKTrainingSAEConfig(**shared, k=K)),
        "matryoshka": sl.MatryoshkaBatchTopKTrainingSAE(
            sl.MatryoshkaBatchTopKTrainingSAEConfig(**shared, k=K, matryoshka_widths=[6, 18, F])
        ),
    }
    for case, one in training.items():
        perturb(one)
        one.topk_threshold += 0.5
        one.save_inference_model(fresh(root, case))
        record_saelens(root / case, sl)
        one.save_model(fresh(root, f"{case}_in_training"))
        (root / case / "expected.safetensors").replace(root / f"{case}_in_training" / "expected.safetensors")
        record_saelens(root / case, sl)

    for case, scale in (("batchtopk_norm_folded", 3.0), ("batchtopk_norm_not_folded", 1.0)):
        one = sl.BatchTopKTrainingSAE(sl.BatchTopKTrainingSAEConfig(**shared, k=K))
        perturb(one)
        one.W_dec.data *= 0.3 + torch.rand(F, 1)  # the norms count in the threshold's units
        one.topk_threshold += 0.5
        one.fold_activation_norm_scaling_factor(scale)  # from 6.54.9 on the threshold too
        one.save_inference_model(fresh(root, case))
        record_saelens(root / case, sl)
        one.save_model(fresh(root, f"{case}_in_training"))
        (root / f"{case}_in_training" / "expected.safetensors").write_bytes(
            (root / case / "expected.safetensors").read_bytes()
        )


def record_saelens(folder: Path, sl: types.ModuleType) -> None:
    loaded = sl.SAE.load_from_disk(folder)
    x = inputs()
    codes = loaded.encode(x)
    record(folder, sl.__version__, codes, loaded.decode(codes))


def saelens_export(root: Path, sources: Path) -> None:
    """SAELens reads what export_saelens wrote (tests/peers/exports.py, run before)."""
    stub_for_saelens()
    import sae_lens as sl

    for folder in sorted(root.iterdir()):
        record_saelens(folder, sl)


def visaebench(root: Path, sources: Path) -> None:
    """It has no writer: files in the layouts that its loader documents."""
    hide("visaebench.backbones", "visaebench.data", "visaebench.metrics")  # vision models and data sets
    from visaebench.hub.loader import load_sae
    from visaebench.version import __version__

    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) / 4

    plain = {"encoder.weight": draw(F, D), "encoder.bias": draw(F), "decoder.weight": draw(F, D)}
    of_overcomplete = {
        "encoder.final_block.0.weight": draw(F, D),
        "encoder.final_block.0.bias": draw(F),
        "dictionary._weights": draw(F, D),
        "dictionary.multiplier": torch.tensor(0.3),
    }
    sizes = {"input_dim": D, "hidden_dim": F, "k": K}
    cases = {
        "topk": (plain | {"decoder.bias": draw(D)}, sizes | {"activation": "topk"}),
        "batchtopk": (plain, sizes | {"activation": "batchtopk", "threshold": 0.2}),
        "batchtopk_running": (plain | {"_running_threshold": torch.tensor(0.3)}, sizes | {"sae_type": "BatchTopK"}),
        "jumprelu": (plain | {"jump_thresholds": draw(F).abs()}, sizes | {"activation": "jumprelu"}),
        "of_overcomplete": (of_overcomplete, sizes | {"architecture": "batchtopk", "threshold": 0.1}),
    }
    for case, (state, config) in cases.items():
        folder = fresh(root, case)
        torch.save(state, folder / "sae.pt")
        (folder / "config.json").write_text(json.dumps(config))
        codes, decoded = load_sae(str(folder), device="cpu")(inputs())
        record(folder, __version__, codes, decoded)


def sparsify(root: Path, sources: Path) -> None:
    stub("huggingface_hub", "transformers", "accelerate", "datasets", "wandb", "schedulefree", "bitsandbytes")
    from sparsify.config import SparseCoderConfig
    from sparsify.sparse_coder import SparseCoder

    sae = SparseCoder(D, SparseCoderConfig(num_latents=F, k=K))
    perturb(sae)
    folder = fresh(root, "topk")
    sae.save_to_disk(folder)
    loaded = SparseCoder.load_from_disk(folder)
    top = loaded.encode(inputs())
    codes = torch.zeros(ROWS, F).scatter(1, top.top_indices, top.top_acts)
    decoded = loaded.decode(top.top_acts, top.top_indices)
    record(folder, importlib.metadata.version("eai-sparsify"), codes, decoded)


def overcomplete(root: Path, sources: Path) -> None:
    hide("overcomplete.models", "overcomplete.visualization")  # vision models and plots, with all that they need
    from overcomplete.sae import SAE, BatchTopKSAE, JumpSAE, RATopKSAE, TopKSAE

    version = importlib.metadata.version("overcomplete")
    modules = {
        "relu": SAE(D, F),
        "relu_tied": SAE(D, F).tied(bias=True),
        "topk": TopKSAE(D, F, top_k=K),
        "topk_batch_norm": TopKSAE(D, F, top_k=K, encoder_module="mlp_bn_1"),
        "batchtopk": BatchTopKSAE(D, F, top_k=K * ROWS),
        "jumprelu": JumpSAE(D, F),
        "archetypal": RATopKSAE(D, F, points=torch.randn(64, D), top_k=K),
    }
    for case, module in modules.items():
        module.train()
        perturb(module)
        for _ in range(3):
            module(inputs())
        module.eval()
        folder = fresh(root, case)
        torch.save(module, folder / "sae.pt")
        codes = module.encode(inputs())[1]
        record(folder, version, codes, module.decode(codes))
        if case in ("relu", "topk", "jumprelu"):
            state = fresh(root, f"{case}_state_dict")
            torch.save(module.state_dict(), state / "sae.pt")
            record(state, version, codes, module.decode(codes))


def saev_0_1(root: Path, sources: Path) -> None:
    from saev import config, nn

    sae = nn.SparseAutoencoder(config.SparseAutoencoder(d_vit=D, exp_factor=F // D))
    perturb(sae)
    folder = fresh(root, "relu")
    nn.dump(str(folder / "sae.pt"), sae)
    reconstruction, codes, _ = nn.load(str(folder / "sae.pt"))(inputs())
    record(folder, importlib.metadata.version("saev"), codes, reconstruction)


def saev(root: Path, sources: Path) -> None:
    stub("submitit", "wandb", "psutil")
    for name in [name for name in sys.modules if name.split(".")[0] == "saev"]:
        del sys.modules[name]
    sys.path.insert(0, str(sources / "saev" / "src"))
    from saev.nn import modeling

    sys.path.pop(0)
    activations = {
        "relu": modeling.Relu(),
        "topk": modeling.TopK(top_k=K),
        "batchtopk": modeling.BatchTopK(top_k=K),
    }
    for case, activation in activations.items():
        config = modeling.SparseAutoencoderConfig(d_model=D, d_sae=F, activation=activation)
        sae = modeling.SparseAutoencoder(config).eval()
        perturb(sae)
        if case == "topk":
            sae.b_enc.data -= 1.5  # some rows have fewer than k positive values
        if case == "batchtopk":
            sae.activation.threshold += 0.5
        folder = fresh(root, case)
        modeling.dump(folder / "sae.pt", sae)
        loaded = modeling.load(folder / "sae.pt").eval()
        codes = loaded.encode(inputs()).f_x
        record(folder, commit(sources / "saev"), codes, loaded.decode(codes)[:, -1])


def prisma(root: Path, sources: Path) -> None:
    stub("fancy_einsum")
    for name in ("vit_prisma", "vit_prisma.sae", "vit_prisma.prisma_tools"):
        package = types.ModuleType(name)  # without its __init__, which imports every model and dataset loader
        package.__path__ = [str(sources / "ViT-Prisma" / "src" / name.replace(".", "/"))]
        sys.modules[name] = package
    sys.modules["line_profiler"] = types.ModuleType("line_profiler")
    sys.modules["line_profiler"].profile = lambda function: function
    from vit_prisma.sae.config import VisionModelSAERunnerConfig
    from vit_prisma.sae.sae import GatedSparseAutoencoder, SparseAutoencoder, StandardSparseAutoencoder

    shared = {"d_in": D, "expansion_factor": F // D, "_device": "cpu", "use_ghost_grads": False}
    places = ("checkpoint_path", "cached_activations_path", "dataset_path", "dataset_train_path", "dataset_val_path")
    shared |= dict.fromkeys(places, "unused")
    settings = {
        "relu": (StandardSparseAutoencoder, {"activation_fn_str": "relu"}),
        "relu_plain": (StandardSparseAutoencoder, {"activation_fn_str": "relu", "normalize_activations": "none"}),
        "topk": (StandardSparseAutoencoder, {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}}),
        "gated": (GatedSparseAutoencoder, {"activation_fn_str": "relu", "architecture": "gated"}),
    }
    for case, (kind, options) in settings.items():
        config = VisionModelSAERunnerConfig(**shared, **options)
        sae = kind(config)
        perturb(sae)
        folder = fresh(root, case)
        sae.save_model(str(folder / "weights.pt"))
        record_prisma(folder, SparseAutoencoder, commit(sources / "ViT-Prisma"))
        if case == "topk":
            folder = fresh(root, "topk_with_config_json")
            torch.save(sae.state_dict(), folder / "weights.pt")
            config.save_config(str(folder / "config.json"))
            record_prisma(folder, SparseAutoencoder, commit(sources / "ViT-Prisma"))


def record_prisma(folder: Path, loader: type, version: str) -> None:
    loaded = loader.load_from_pretrained(str(folder / "weights.pt"))
    codes = loaded.encode(inputs())[1]
    record(folder, version, codes, loaded.decode(codes))


def commit(clone: Path) -> str:
    """The commit of a clone, which run.sh notes in a file beside the sources."""
    return "commit " + (clone / "COMMIT").read_text().strip()[:12]


LIBRARIES = {
    function.__name__: function
    for function in (
        dictionary_learning,
        sae_for_vlm,
        saelens,
        saelens_export,
        sparsify,
        overcomplete,
        saev_0_1,
        saev,
        prisma,
        visaebench,
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sources", type=Path, default=Path("build/peers-sources"))
    parser.add_argument("libraries", nargs="*", metavar="LIBRARY")
    options = parser.parse_intermixed_args()
    for name in options.libraries or LIBRARIES:
        torch.manual_seed(0)
        LIBRARIES[name](options.folder / name, options.sources)
        print(f"{name}: {len(list((options.folder / name).iterdir()))} dictionaries", flush=True)


if __name__ == "__main__":
    main()
