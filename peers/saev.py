"""saev (OSU-NLP-Group): one file, a line of JSON settings followed by a state dict.

Up to version 0.1.0, whose files have no "schema", the encoder's input is centred by b_dec; later versions do not
subtract it. saev's own loader reads old files the new way; here each file is read as it was trained.
"""

import warnings

from lib.sae.model import SAE
from peers.assembly import Weights, assemble
from peers.checkpoint import Checkpoint, required, unsupported

_KINDS = {"Relu": "relu", "TopK": "signed_topk", "BatchTopK": "batchtopk"}


def recognises(checkpoint: Checkpoint) -> bool:
    """By the line of JSON before the weights."""
    return checkpoint.path.suffix != ".safetensors" and checkpoint.header is not None


def load(checkpoint: Checkpoint, fallback: dict) -> SAE:
    """Relu, TopK (which keeps negative values among the k largest, so `signed_topk`) and BatchTopK."""
    header, state = checkpoint.header or {}, checkpoint.content
    names = ("W_enc", "b_enc", "W_dec", "b_dec")
    tensors = dict(zip(names, required(state, names, checkpoint.path), strict=True))
    if "schema" not in header:
        return assemble(Weights.of(**tensors), kind="relu")
    if header["schema"] == 1 and tensors["b_dec"].abs().max() > 0:
        warnings.warn(
            f"{checkpoint.path} has saev's schema 1, written both by versions that centred the input and by versions "
            "that did not; it is read as saev reads it, without centring. Check the reconstruction.",
            stacklevel=4,
        )
    name, parameters = _activation(header)
    if name not in _KINDS:
        raise unsupported(checkpoint.path, f"its activation {name!r} is unknown here")
    kind, threshold = _KINDS[name], None
    if kind == "batchtopk":
        (threshold,) = required(state, ("activation.threshold",), checkpoint.path)
    known = {} if kind == "relu" else {"k": parameters.get("top_k", 32)}
    return assemble(Weights.of(**tensors, threshold=threshold, centred=False), kind=kind, **known)


def _activation(header: dict) -> tuple[str, dict]:
    """Name and settings of the activation, which are in another place in the first files of schema 1."""
    settings = header.get("cfg", {})
    if header.get("cls") in _KINDS:
        return header["cls"], settings
    activation = settings.get("activation", {})
    return activation.get("cls", "unnamed"), activation.get("params", {})
