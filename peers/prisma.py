"""ViT-Prisma: a .pt file with the settings pickled beside the state dict, or a state dict and config.json.

The input is normalised (by default `layer_norm`, by the mean and standard deviation of each x, which is undone after
the decoder), then centred by b_dec. A transcoder adds b_dec_out after its decoder, and W_skip x where it has that, of
the x that is not normalised; all of it is then scaled back by the mean and deviation of x.
"""

from pathlib import Path
from typing import Any

from torch import Tensor

from lib.sae.model import SAE
from peers.assembly import Weights, assemble
from peers.checkpoint import Checkpoint, Settings, required, unsupported
from peers.safe_files import StandIn

INPUT_NORMS = {"layer_norm": "layer_norm", "constant_norm_rescale": "unit_rms", "none": "none", None: "none"}
"""Our `input_norm` by Prisma's and SAELens' names of normalisations at run time."""


def recognises(checkpoint: Checkpoint) -> bool:
    """By the pickled settings beside the state dict, or those in config.json."""
    inside = checkpoint.names
    return {"cfg", "state_dict"} <= inside or (bool(inside) and "activation_fn_str" in (checkpoint.config or {}))


def load(checkpoint: Checkpoint, fallback: dict) -> SAE:
    """Standard (relu, topk) and gated (relu) autoencoders, and transcoders; other activations are refused."""
    config, state = _parts(checkpoint)
    path = checkpoint.path
    norm = config.get("normalize_activations", "layer_norm")
    if norm not in INPUT_NORMS:
        raise unsupported(path, f"its input normalisation {norm!r} is unknown here")
    kind, options = config.get("activation_fn_str"), config.get("activation_fn_kwargs") or {}
    after = options.get("postact_fn")
    if after is not None and getattr(after, "qualified", "") != "torch.nn.modules.activation.ReLU":
        raise unsupported(path, "its top-k is followed by another function than ReLU")
    if kind not in ("relu", "topk") or (kind == "topk" and "k" not in options):
        raise unsupported(path, f"its activation {kind!r} is neither relu nor topk with its k")
    W_enc, W_dec, b_dec = required(state, ("W_enc", "W_dec", "b_dec"), path)
    transcodes = Settings(config, path).flag("is_transcoder")
    if config.get("architecture", "standard") == "gated" and not transcodes:  # a transcoder has one form only
        if kind != "relu":
            raise unsupported(path, f"it is gated with activation {kind!r}")
        state.ignore("b_enc")  # it stays where it began
        b_gate, b_mag, r_mag = required(state, ("b_gate", "b_mag", "r_mag"), path)
        weights = Weights.gated(W_enc=W_enc, W_dec=W_dec, b_dec=b_dec, b_gate=b_gate, b_mag=b_mag, r_mag=r_mag)
        return assemble(weights, kind="jumprelu", input_norm=INPUT_NORMS[norm])
    (b_enc,) = required(state, ("b_enc",), path)
    weights = Weights.of(W_enc=W_enc, b_enc=b_enc, W_dec=W_dec, **_offsets(state, b_dec, path, transcodes))
    known = {"k": options["k"]} if kind == "topk" else {}
    return assemble(weights, transcodes, kind=kind, **known, input_norm=INPUT_NORMS[norm])


def _offsets(state: dict, b_dec: Tensor, path: Path, transcodes: bool) -> dict[str, Tensor]:
    """What is subtracted from the input and added to the output, and a transcoder's W_skip, which only some have."""
    if not transcodes:
        return {"b_dec": b_dec}
    (b_out,) = required(state, ("b_dec_out",), path)
    return {"b_dec": b_out, "b_in": b_dec, **({"W_skip": state["W_skip"]} if "W_skip" in state else {})}


def _parts(checkpoint: Checkpoint) -> tuple[dict[str, Any], dict]:
    content = checkpoint.content
    if "state_dict" in content and "cfg" in content:
        pickled = content["cfg"]
        return vars(pickled) if isinstance(pickled, StandIn) else dict(pickled), checkpoint.tensors(
            content["state_dict"]
        )
    if checkpoint.config is None:
        raise ValueError(f"{checkpoint.path} has no settings in it and no config.json beside it.")
    return checkpoint.config, content
