"""sparsify (EleutherAI): cfg.json, sae.safetensors. ReLU, then the k largest of each row; the input is centred."""

from lib.hub.assembly import Weights, assemble, inexpressible, required
from lib.hub.safe_files import Checkpoint
from lib.sae.model import SAE


def load(checkpoint: Checkpoint, unsaid: dict) -> SAE:
    """TopK autoencoders; transcoders, skip connections (W_skip), signed and group-max codes are refused."""
    config = checkpoint.config or {}
    for setting, what in (
        ("transcode", "it is a transcoder, which predicts another site"),
        ("skip_connection", "it adds a linear map of its input to the reconstruction (skip_connection)"),
        ("signed", "it selects codes by their absolute value (signed)"),
    ):
        if config.get(setting):
            raise inexpressible(checkpoint.path, what)
    if config.get("activation", "topk") != "topk":
        raise inexpressible(checkpoint.path, f"its activation is {config['activation']!r}, not 'topk'")
    if "k" not in config:
        raise ValueError(f"{checkpoint.path} has no cfg.json beside it that tells k.")
    if "W_skip" in checkpoint.content:
        raise inexpressible(checkpoint.path, "it adds a linear map of its input to the reconstruction (W_skip)")
    names = ("encoder.weight", "encoder.bias", "W_dec", "b_dec")
    encoder, b_enc, decoder, b_dec = required(checkpoint.content, names, checkpoint.path)
    return assemble(Weights.of(W_enc=encoder.t(), b_enc=b_enc, W_dec=decoder, b_dec=b_dec), kind="topk", k=config["k"])
