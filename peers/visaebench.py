"""ViSAEBench (PyPI `visaebench`): sae.pt, model.safetensors or model.pt, and config.json or config.yaml.

Codes are ReLU(x W_encᵀ + b), selected by topk, by one threshold (batchtopk) or by one per latent (jumprelu). The
decoder is stored by latent, (F, d), as the encoder is; its bias, where there is one, is only added after decoding.
"""

import warnings

import torch

from lib.sae.model import SAE
from peers.assembly import Weights, assemble, just_below
from peers.checkpoint import Checkpoint, Settings, unsupported
from storage.files import quoted

NAMES = {"input_dim", "hidden_dim", "sae_type"}
"""Settings that only ViSAEBench's config files have."""


def recognises(checkpoint: Checkpoint) -> bool:
    """By settings that no other library has, unless the file has another library's name."""
    config = checkpoint.config or {}
    named = checkpoint.path.name in ("sae_weights.safetensors", "sae.safetensors")  # for SAELens, sparsify
    return bool(NAMES & set(config)) and "trainer" not in config and not named


def load(checkpoint: Checkpoint, fallback: dict) -> SAE:
    """An SAE of its class `GenericSAE`. Warns that it reads standardised activations, with statistics in no file."""
    state, config = checkpoint.content, checkpoint.config or Settings(fallback, checkpoint.path)
    if "encoder.final_block.0.weight" in state:
        encoder, decoder = "encoder.final_block.0.", "dictionary._weights"
    else:
        encoder, decoder = "encoder.", "decoder.weight"
    rows = state[decoder].double()  # (F, d)
    rows = rows * state.get("dictionary.multiplier", torch.zeros(())).double().exp()
    b_dec = state.get("decoder.bias", torch.zeros(rows.shape[1]))
    weights = {"W_enc": state[f"{encoder}weight"].t(), "b_enc": state[f"{encoder}bias"], "W_dec": rows, "b_dec": b_dec}
    settings, threshold = _selection(checkpoint, config)
    warnings.warn(
        f"{checkpoint.path} is of ViSAEBench, which trains on standardised activations and keeps their mean and "
        "deviation elsewhere: give it (x - mean) / std, with the mean row and one std over all tokens and dimensions.",
        stacklevel=4,
    )
    return assemble(Weights.of(**weights, threshold=threshold, centred=False), **settings)


def _selection(checkpoint: Checkpoint, config: Settings) -> tuple[dict, torch.Tensor | None]:
    """Fields of `SAEConfig` and the threshold. Its batchtopk compares with `>=`, its jumprelu with `>`."""
    state = checkpoint.content
    kind = config.get("activation", config.get("sae_type", config.get("architecture", "topk")))
    kind = kind.lower() if isinstance(kind, str) else kind
    running = state.get("_running_threshold")
    if kind == "topk":
        return {"kind": kind, "k": config["k"]}, None
    if kind == "batchtopk":
        known = config.get("threshold", running)
        known = 0.0 if known is None else known
        if isinstance(known, bool) or not isinstance(known, float | int | torch.Tensor):
            raise unsupported(checkpoint.path, f"its threshold is {quoted(known)}, not a number")
        known = torch.as_tensor(known)
        return {"kind": kind, "k": max(1, int(config.get("k") or 1))}, just_below(known)
    if kind == "jumprelu":
        named = [name for name in ("jump_thresholds", "thresholds") if name in state]
        default = torch.full((len(state[next(iter(state))]),), 0.01)
        return {"kind": kind}, state[named[0]] if named else default
    raise unsupported(checkpoint.path, f"its activation {kind!r} is unknown here")
