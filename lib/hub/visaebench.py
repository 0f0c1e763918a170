"""ViSAEBench (PyPI `visaebench`): sae.pt, model.safetensors or model.pt, and config.json or config.yaml.

ReLU of x W_encᵀ + b, then topk, one threshold (batchtopk) or one for each latent (jumprelu). The decoder is stored by
latent, (F, d), as its encoder is; its bias, where there is one, is only added after decoding.
"""

import warnings

import torch

from lib.hub.assembly import Weights, assemble, inexpressible, just_below
from lib.hub.safe_files import Checkpoint, Settings
from lib.sae.model import SAE

NAMES = {"input_dim", "hidden_dim", "sae_type"}
"""Settings that only its config files have."""


def load(checkpoint: Checkpoint, unsaid: dict) -> SAE:
    """All that its `GenericSAE` computes. Warns that it reads standardised activations, whose figures no file holds."""
    state, config = checkpoint.content, checkpoint.config or Settings(unsaid, checkpoint.path)
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
    """Fields of `SAEConfig` and the threshold. Its batchtopk keeps what equals the threshold, its jumprelu does not."""
    state = checkpoint.content
    kind = config.get("activation", config.get("sae_type", config.get("architecture", "topk")))
    kind = kind.lower() if isinstance(kind, str) else kind
    running = state.get("_running_threshold")
    if kind == "topk":
        return {"kind": kind, "k": config["k"]}, None
    if kind == "batchtopk":
        known = config.get("threshold", running)
        known = torch.as_tensor(0.0 if known is None else known)
        return {"kind": kind, "k": max(1, int(config.get("k") or 1))}, just_below(known)
    if kind == "jumprelu":
        named = [name for name in ("jump_thresholds", "thresholds") if name in state]
        default = torch.full((len(state[next(iter(state))]),), 0.01)
        return {"kind": kind}, state[named[0]] if named else default
    raise inexpressible(checkpoint.path, f"its activation {kind!r} is unknown here")
