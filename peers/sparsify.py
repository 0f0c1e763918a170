"""sparsify (EleutherAI): cfg.json, sae.safetensors. ReLU, then the k largest of each row.

The input is centred by b_dec, but not that of a transcoder (`transcode`), which predicts what the module gives, as wide
as what it reads. With `skip_connection` either adds W_skip x.
"""

from lib.sae.model import SAE
from peers.assembly import Weights, assemble
from peers.checkpoint import Checkpoint, Settings, required, unsupported


def recognises(checkpoint: Checkpoint) -> bool:
    """By the name of the file of weights."""
    return checkpoint.path.name == "sae.safetensors"


def load(checkpoint: Checkpoint, fallback: dict) -> SAE:
    """TopK autoencoders and transcoders; signed and group-max codes are refused."""
    config = checkpoint.config or Settings({}, checkpoint.path)
    if config.flag("signed"):
        raise unsupported(checkpoint.path, "it selects codes by their absolute value (signed)")
    if config.get("activation", "topk") != "topk":
        raise unsupported(checkpoint.path, f"its activation is {config['activation']!r}, not 'topk'")
    if "k" not in config:
        raise ValueError(f"{checkpoint.path} has no cfg.json beside it that holds k.")
    names = ("encoder.weight", "encoder.bias", "W_dec", "b_dec")
    encoder, b_enc, decoder, b_dec = required(checkpoint.content, names, checkpoint.path)
    tensors = {"W_enc": encoder.t(), "b_enc": b_enc, "W_dec": decoder, "b_dec": b_dec}
    transcodes, skips = (config.flag(name) for name in ("transcode", "skip_connection"))
    if skips:
        tensors["W_skip"] = required(checkpoint.content, ("W_skip",), checkpoint.path)[0]
        tensors |= (
            {} if transcodes else {"b_in": b_dec}
        )  # an autoencoder with a skip connection, whose input is centred
    return assemble(Weights.of(**tensors), transcodes=transcodes or skips, kind="topk", k=config["k"])
