"""SAELens: cfg.json, sae_weights.safetensors. Files are read since version 3, and written for version 6.

BatchTopK and Matryoshka SAEs are saved for inference as JumpReLU ones. Their training checkpoints are read the same
way: the decoder's norms folded into the encoder where the codes are rescaled by them, the running threshold for all.
"""

import json
import os
import warnings
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from lib.sae.model import KINDS, SAE, above_threshold, row_top_k
from lib.sae.origin import Origin
from peers.assembly import Weights, assemble, group_fractions
from peers.checkpoint import Checkpoint, Settings, required, unsupported
from peers.prisma import INPUT_NORMS
from storage import replacing, save_tensors
from storage.files import quoted

_SCALED_BEFORE_TRAINING = ("expected_average_only_in", "covariance_whitening")
_EXPORTED_NORMS = {ours: theirs for theirs, ours in INPUT_NORMS.items() if theirs}
_WRITTEN_FOR = "6.0.0"  # the first version of this layout


def recognises(checkpoint: Checkpoint) -> bool:
    """By the name of the file of weights."""
    return checkpoint.path.name == "sae_weights.safetensors"


def load(checkpoint: Checkpoint, fallback: dict) -> SAE:
    """The SAE, with the origin that `export_saelens` has written into the metadata."""
    sae, metadata = _load(checkpoint), checkpoint.config.get("metadata")
    sae.origin = Origin.from_dict(metadata.get("origin")) if isinstance(metadata, dict) else None
    return sae


def _load(checkpoint: Checkpoint) -> SAE:
    """Architectures standard, topk, jumprelu, gated; batchtopk and matryoshka_batchtopk in training; no others."""
    state, path = checkpoint.content, checkpoint.path
    if checkpoint.config is None:
        raise ValueError(f"{path} has no cfg.json beside it.")
    config = _as_version_6(checkpoint.config)
    if "scaling_factor" in state and not torch.all(state["scaling_factor"] == 1):
        raise unsupported(path, "its codes are rescaled by a fine-tuned scaling_factor")
    if (reshaped := config.get("reshape_activations", "none")) not in ("none", None):
        raise unsupported(path, f"it reads attention heads one by one (reshape_activations {quoted(reshaped)})")
    norm = _input_norm(checkpoint, config.get("normalize_activations"))
    W_enc, W_dec, b_dec = required(state, ("W_enc", "W_dec", "b_dec"), path)
    shared = {"W_enc": W_enc, "W_dec": W_dec, "b_dec": b_dec, "centred": config.flag("apply_b_dec_to_input", True)}
    if config["architecture"] == "gated":
        b_gate, b_mag, r_mag = required(state, ("b_gate", "b_mag", "r_mag"), path)
        weights = Weights.gated(**shared, b_gate=b_gate, b_mag=b_mag, r_mag=r_mag)
        return assemble(weights, kind="jumprelu", input_norm=norm)
    kind, threshold = _kind(checkpoint, config)
    weights = Weights.of(**shared, b_enc=required(state, ("b_enc",), path)[0])
    if config.flag("rescale_acts_by_decoder_norm") and "topk" in config["architecture"]:
        weights = weights.with_unit_rows()
    weights = Weights.of(**{**vars(weights), "threshold": threshold})
    return assemble(weights, **kind, input_norm=norm)


def _for_saelens(sae: SAE) -> tuple[str, dict[str, Tensor]]:
    """The SAELens architecture that computes the same at inference, and its tensors."""
    names = ("W_enc", "b_enc", "W_dec", "b_dec")
    if sae.config.kind == "gated":
        gate = {"b_gate": sae.b_enc, "b_mag": sae.b_mag, "r_mag": sae.r_mag}
        folded = Weights.gated(W_enc=sae.W_enc, W_dec=sae.W_dec, b_dec=sae.b_dec, **gate)
        tensors = {name: getattr(folded, name) for name in names}
        return "jumprelu", tensors | {"threshold": folded.threshold.clamp(min=0)}
    tensors, activation = {name: getattr(sae, name) for name in names}, KINDS[sae.config.kind]
    if activation is row_top_k:
        return "topk", tensors
    if activation is not above_threshold:
        raise ValueError(f"SAELens cannot compute what kind {sae.config.kind!r} does: it cannot be exported.")
    if sae.config.kind == "relu" and sae.threshold <= 0:
        return "standard", tensors
    return "jumprelu", tensors | {"threshold": sae.threshold.clamp(min=0).expand(sae.n_features)}


def _as_version_6(config: Settings) -> Settings:
    """The settings in the layout of version 6; older files have no architecture and name TopK by its activation."""
    activation = config.get("activation_fn", config.get("activation_fn_str", "relu"))
    config = Settings({"architecture": "standard", **config}, config.path)
    if activation == "topk" and config["architecture"] == "standard":
        k = Settings(config["activation_fn_kwargs"], config.path)["k"]
        config |= {"architecture": "topk", "k": k}
    elif activation not in ("relu", "topk"):
        config |= {"architecture": f"{config['architecture']} with {activation}"}
    return config


def _kind(checkpoint: Checkpoint, config: dict) -> tuple[dict, Tensor | None]:
    """Fields of `SAEConfig` and the threshold, by architecture."""
    state, architecture = checkpoint.content, config["architecture"]
    if architecture == "standard":
        return {"kind": "relu"}, None
    if architecture == "topk":
        return {"kind": "topk", "k": config["k"]}, None
    if architecture == "jumprelu":
        if "log_threshold" in state:
            return {"kind": "jumprelu"}, state["log_threshold"].exp()
        return {"kind": "jumprelu"}, required(state, ("threshold",), checkpoint.path)[0]
    if architecture in ("batchtopk", "matryoshka_batchtopk"):
        (threshold,) = required(state, ("topk_threshold",), checkpoint.path)
        known = {"kind": "batchtopk", "k": max(1, round(config["k"]))}
        if architecture == "matryoshka_batchtopk":
            ends = [0, *(width for width in config["matryoshka_widths"] if width < config["d_sae"]), config["d_sae"]]
            sizes = [end - start for start, end in pairwise(ends)]
            known |= {"kind": "matryoshka", "group_fractions": group_fractions(sizes)}
        return known, threshold
    raise unsupported(checkpoint.path, f"its architecture is {architecture!r}")


def _input_norm(checkpoint: Checkpoint, norm: str | bool | None) -> str:
    norm = {True: _SCALED_BEFORE_TRAINING[0], False: None}.get(norm, norm) if isinstance(norm, bool) else norm
    if norm in _SCALED_BEFORE_TRAINING:
        warnings.warn(
            f"{checkpoint.path} was trained on scaled activations ({norm}) and does not hold the scale: give it "
            "activations scaled in the same way, as SAELens too expects.",
            stacklevel=4,
        )
        return "none"
    if norm not in INPUT_NORMS:
        raise unsupported(checkpoint.path, f"its input normalisation {norm!r} is unknown here")
    return INPUT_NORMS[norm]


def export_saelens(sae: SAE, folder: str | os.PathLike, **metadata: str | int | None) -> Path:
    """Write cfg.json and sae_weights.safetensors, which `sae_lens.SAE.load_from_disk` reads as the same function.

    relu becomes standard; kinds that are TopK at inference become topk; kinds with a threshold become jumprelu, with
    one threshold per latent, and so does gated, which is equivalent to one. `metadata` (model_name, hook_name ...) is
    kept in cfg.json. Raises ValueError for kinds that SAELens does not have, such as signed_topk.
    """
    sae.check_finite("This SAE is not exported: it")
    if sae.target:
        raise ValueError("A transcoder is not exported to SAELens: it predicts another site than it reads.")
    architecture, tensors = _for_saelens(sae)
    origin = {"origin": sae.origin.to_dict()} if sae.origin else {}
    config = {
        "architecture": architecture,
        "d_in": sae.d,
        "d_sae": sae.n_features,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": _EXPORTED_NORMS[sae.config.input_norm],
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": _WRITTEN_FOR, **origin, **metadata},
    }
    config |= {"k": sae.config.k, "rescale_acts_by_decoder_norm": False} if architecture == "topk" else {}
    folder = Path(folder).expanduser()
    with replacing(folder / "sae_weights.safetensors") as temporary:
        save_tensors({name: tensor.detach().float() for name, tensor in tensors.items()}, temporary)
    with replacing(folder / "cfg.json") as temporary:
        temporary.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    return folder
