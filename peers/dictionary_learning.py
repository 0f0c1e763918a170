"""dictionary_learning (saprmarks) and the paper's fork of it (ExplainableML/sae-for-vlm): ae.pt, config.json.

All classes subtract the decoder's bias from the input, except AutoEncoderNew and JumpReluAutoEncoder. Biases and
threshold are saved in the units of the raw activations.
"""

import re

import torch
from torch import Tensor

from lib.sae.model import SAE
from peers import overcomplete, prisma, visaebench
from peers.assembly import Weights, assemble, group_fractions
from peers.checkpoint import Checkpoint, required

_KIND_OF_CLASS = {"AutoEncoderTopK": "topk", "BatchTopKSAE": "batchtopk"}
_CALLED_BATCHTOPK = re.compile(r"batch_top_?k", re.IGNORECASE)  # the folders of the paper's released weights


def recognises(checkpoint: Checkpoint) -> bool:
    """By the names in a state dict, unless another library with such names recognises the file."""
    inside = checkpoint.names
    known = "encoder.weight" in inside or {"W_enc", "threshold"} <= inside
    return known and not any(other.recognises(checkpoint) for other in (overcomplete, prisma, visaebench))


def load(checkpoint: Checkpoint, fallback: dict) -> SAE:
    """The class of SAE follows from the tensors, except TopK or BatchTopK, which config.json distinguishes."""
    state, path = checkpoint.content, checkpoint.path
    if "group_sizes" in state:
        weights = _by_matrix(checkpoint, centred=True)
        fractions = group_fractions(state["group_sizes"].tolist())
        return assemble(weights, kind="matryoshka", k=_number(state["k"]), group_fractions=fractions)
    if "W_enc" in state:
        return assemble(_by_matrix(checkpoint, centred=False), kind="jumprelu")
    encoder, decoder = required(state, ("encoder.weight", "decoder.weight"), path)
    matrices = {"W_enc": encoder.t(), "W_dec": decoder.t()}
    if "r_mag" in state:
        names = ("decoder_bias", "gate_bias", "mag_bias", "r_mag")
        b_dec, b_gate, b_mag, r_mag = required(state, names, path)
        return assemble(
            Weights.gated(**matrices, b_dec=b_dec, b_gate=b_gate, b_mag=b_mag, r_mag=r_mag), kind="jumprelu"
        )
    (b_enc,) = required(state, ("encoder.bias",), path)
    if "bias" in state:
        return assemble(_as_its_loader(Weights.of(**matrices, b_enc=b_enc, b_dec=state["bias"])), kind="relu")
    if "decoder.bias" in state:
        return assemble(Weights.of(**matrices, b_enc=b_enc, b_dec=state["decoder.bias"], centred=False), kind="relu")
    (b_dec,) = required(state, ("b_dec",), path)
    kind, k = _kind(checkpoint, fallback), _k(checkpoint, fallback)
    state.ignore("threshold")  # TopK's, which inference does not use
    threshold = state["threshold"] if kind == "batchtopk" else None
    return assemble(Weights.of(**matrices, b_enc=b_enc, b_dec=b_dec, threshold=threshold), kind=kind, k=k)


def _by_matrix(checkpoint: Checkpoint, centred: bool) -> Weights:
    names = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")
    return Weights.of(
        **dict(zip(names, required(checkpoint.content, names, checkpoint.path), strict=True)), centred=centred
    )


def _as_its_loader(weights: Weights) -> Weights:
    """As the library's loader: scale AutoEncoder's decoder rows to unit norm, unless they have it (torch.allclose)."""
    norms = weights.W_dec.float().norm(dim=1)
    return weights if torch.allclose(norms, torch.ones_like(norms)) else weights.with_unit_rows(norms.double())


def _kind(checkpoint: Checkpoint, fallback: dict) -> str:
    settings = (checkpoint.config or {}).get("trainer", {})
    if settings.get("dict_class") in _KIND_OF_CLASS:
        return _KIND_OF_CLASS[settings["dict_class"]]
    if "threshold" not in checkpoint.content:
        return "topk"
    if fallback.get("kind") in _KIND_OF_CLASS.values():
        return fallback["kind"]
    if _CALLED_BATCHTOPK.search(str(checkpoint.path)):
        return "batchtopk"
    raise ValueError(
        f"{checkpoint.path} is a TopK or a BatchTopK SAE, whose files are alike, and no config.json says which: "
        "call load_sae(..., kind='topk') or load_sae(..., kind='batchtopk')."
    )


def _k(checkpoint: Checkpoint, fallback: dict) -> int:
    known: Tensor | int | None = checkpoint.content.get("k", fallback.get("k"))
    known = (checkpoint.config or {}).get("trainer", {}).get("k") if known is None else known
    if known is None:
        raise ValueError(f"{checkpoint.path} does not say how many latents are active: call load_sae(..., k=...).")
    return _number(known)


def _number(k: Tensor | int) -> int:
    """A k that `SAEConfig` checks: int() would make 2 of 2.5, and 1 of True."""
    return k.item() if isinstance(k, Tensor) else k
