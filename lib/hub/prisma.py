"""ViT-Prisma: a .pt file with the settings pickled beside the state dict, or a state dict and config.json.

The input is normalised (`layer_norm` by default: mean and standard deviation of each x, given back after the decoder),
then centred by b_dec.
"""

from typing import Any

from lib.hub.assembly import Weights, assemble, inexpressible, required
from lib.hub.safe_files import Checkpoint, StandIn
from lib.sae.model import SAE

INPUT_NORMS = {"layer_norm": "layer_norm", "constant_norm_rescale": "unit_rms", "none": "none", None: "none"}
"""By the name that Prisma and SAELens give to a normalisation done at run time."""


def load(checkpoint: Checkpoint, unsaid: dict) -> SAE:
    """Standard (relu, topk) and gated (relu) autoencoders; transcoders and other activations are refused."""
    config, state = _parts(checkpoint)
    path = checkpoint.path
    if config.get("is_transcoder"):
        raise inexpressible(path, "it is a transcoder, which predicts another site")
    norm = config.get("normalize_activations", "layer_norm")
    if norm not in INPUT_NORMS:
        raise inexpressible(path, f"its input normalisation {norm!r} is unknown here")
    kind, options = config.get("activation_fn_str"), config.get("activation_fn_kwargs") or {}
    after = options.get("postact_fn")
    if after is not None and getattr(after, "qualified", "") != "torch.nn.modules.activation.ReLU":
        raise inexpressible(path, "its top-k is followed by another function than ReLU")
    if kind not in ("relu", "topk") or (kind == "topk" and "k" not in options):
        raise inexpressible(path, f"its activation {kind!r} is neither relu nor topk with its k")
    W_enc, W_dec, b_dec = required(state, ("W_enc", "W_dec", "b_dec"), path)
    if config.get("architecture", "standard") == "gated":
        if kind != "relu":
            raise inexpressible(path, f"it is gated with activation {kind!r}")
        state.ignore("b_enc")  # it stays where it began
        b_gate, b_mag, r_mag = required(state, ("b_gate", "b_mag", "r_mag"), path)
        weights = Weights.gated(W_enc=W_enc, W_dec=W_dec, b_dec=b_dec, b_gate=b_gate, b_mag=b_mag, r_mag=r_mag)
        return assemble(weights, kind="jumprelu", input_norm=INPUT_NORMS[norm])
    (b_enc,) = required(state, ("b_enc",), path)
    weights = Weights.of(W_enc=W_enc, b_enc=b_enc, W_dec=W_dec, b_dec=b_dec)
    known = {"k": options["k"]} if kind == "topk" else {}
    return assemble(weights, kind=kind, **known, input_norm=INPUT_NORMS[norm])


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
