"""overcomplete (KempnerInstitute): no file format of its own; a pickled module or its state dict, by torch.save.

Codes are the selection of ReLU(x W_encᵀ + b), and the decoder has no bias. The pickled module determines all of it; its
objects are read as attributes only (`safe_files`). A state dict lacks the kind of SAE and BatchTopK's threshold.
"""

import torch
from torch import Tensor

from lib.sae.model import SAE
from peers import visaebench
from peers.assembly import Weights, assemble, just_below
from peers.checkpoint import Checkpoint, unsupported
from peers.safe_files import StandIn, flat_state

_KINDS = {"SAE": "relu", "TopKSAE": "topk", "RATopKSAE": "topk", "BatchTopKSAE": "batchtopk"}
_KINDS |= {"JumpSAE": "jumprelu", "RAJumpSAE": "jumprelu"}
_LINEAR = ("encoder.final_block.", "encoder.weight", "encoder.bias", "encoder.tied_to.")
_NORM = "encoder.final_block.1."


def recognises(checkpoint: Checkpoint) -> bool:
    """By the pickled module, or the names in a state dict."""
    if checkpoint.path.suffix == ".safetensors" or checkpoint.header is not None or visaebench.recognises(checkpoint):
        return False
    return isinstance(checkpoint.content, StandIn) or any(name.startswith("dictionary.") for name in checkpoint.names)


def load(checkpoint: Checkpoint, fallback: dict) -> SAE:
    """SAEs with a linear encoder, with or without batch norm, of the kinds ReLU, TopK, BatchTopK and JumpReLU."""
    module = checkpoint.content if isinstance(checkpoint.content, StandIn) else None
    state = checkpoint.tensors(flat_state(module)) if module else checkpoint.content
    state.ignore("dictionary.", "encoder.tied_to.", f"{_NORM}num_batches_tracked")  # fused, tied, of training
    dictionary = _dictionary(checkpoint, state, module)
    W_enc, b_enc = _encoder(checkpoint, state, module, dictionary)
    settings = _selection(checkpoint, state, module, fallback)
    threshold = settings.pop("threshold", None)
    b_dec = torch.zeros(dictionary.shape[1])
    return assemble(
        Weights.of(W_enc=W_enc, b_enc=b_enc, W_dec=dictionary, b_dec=b_dec, threshold=threshold), **settings
    )


def _dictionary(checkpoint: Checkpoint, state: dict, module: StandIn | None) -> Tensor:
    """Decoder rows (F, d): those fused by `eval()`, or the weights with the normalisation of training."""
    layer = vars(module)["_modules"]["dictionary"] if module else None
    if layer is not None and not layer.training and layer._fused_dictionary is not None:
        return layer._fused_dictionary.detach().double()
    if "dictionary._weights" not in state:
        raise unsupported(checkpoint.path, "its dictionary is computed; call sae.eval() and save the whole module")
    rows = state["dictionary._weights"].detach().double()
    norms = rows.norm(dim=1, keepdim=True)
    normalisation = getattr(layer.normalization, "qualified", "") if layer is not None else ""
    if layer is None and not torch.allclose(norms, torch.ones_like(norms), atol=0.01):
        raise unsupported(checkpoint.path, "a state dict does not hold how its dictionary is normalised; call "
                            "sae.eval() and save the whole module")  # fmt: skip
    if layer is not None and not normalisation.endswith(".normalize_l2"):
        raise unsupported(checkpoint.path, "its dictionary is not normalised by l2; call sae.eval() before saving it")
    return rows / (norms + 1e-8) * state["dictionary.multiplier"].double().exp()


def _encoder(checkpoint: Checkpoint, state: dict, module: StandIn | None, dictionary: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (d, F) and bias (F,) of a single linear layer, with a batch norm after it folded in."""
    if any(name.startswith("encoder.") and not name.startswith(_LINEAR) for name in state):
        raise unsupported(checkpoint.path, "its encoder has more than one layer")
    if module and vars(module)["_modules"]["encoder"].qualified.endswith(".MLPEncoder"):
        last = vars(vars(module)["_modules"]["encoder"])["_modules"]["final_activation"].qualified
        if last != "torch.nn.modules.activation.ReLU":
            raise unsupported(checkpoint.path, f"its codes end in {last}, not in ReLU")
    if not any(name.startswith("encoder.final_block.") for name in state):  # TieableEncoder; tied: the dictionary
        weight = state.get("encoder.weight", dictionary.float())
        return weight.t(), state.get("encoder.bias", torch.zeros(len(weight)))
    weight, bias = (state[f"encoder.final_block.0.{name}"].detach().double() for name in ("weight", "bias"))
    if f"{_NORM}weight" not in state:
        return weight.t(), bias
    if f"{_NORM}running_var" not in state:
        raise unsupported(checkpoint.path, "its encoder ends in a layer norm over the codes")
    scale = state[f"{_NORM}weight"].double() / (state[f"{_NORM}running_var"].double() + 1e-5).sqrt()
    return weight.t() * scale, (bias - state[f"{_NORM}running_mean"].double()) * scale + state[f"{_NORM}bias"].double()


def _selection(checkpoint: Checkpoint, state: dict, module: StandIn | None, fallback: dict) -> dict:
    """Kind, k and threshold. overcomplete keeps codes that equal the threshold."""
    name = module.qualified.rpartition(".")[2] if module else "a state dict"
    kind = _KINDS.get(name) if module else "jumprelu" if "thresholds" in state else fallback.get("kind")
    if kind is None and module:
        raise unsupported(checkpoint.path, f"it is a {name}")
    if kind == "jumprelu":
        return {"kind": kind, "threshold": just_below(state["thresholds"].exp())}
    known = {**fallback, **({"k": module.top_k} if hasattr(module, "top_k") else {})}
    if kind == "batchtopk":
        running = getattr(module, "running_threshold", fallback.get("threshold"))
        if running is None:
            raise ValueError(
                f"{checkpoint.path} does not hold BatchTopK's threshold: save the whole trained module, or call "
                "load_sae(..., kind='batchtopk', k=..., threshold=...)."
            )
        return {"kind": kind, "k": 1, "threshold": just_below(torch.as_tensor(running))}
    if kind == "relu":
        return {"kind": kind}
    if kind != "topk" or "k" not in known:
        raise ValueError(
            f"{checkpoint.path} is {name} of overcomplete that does not say which SAE it is: save the whole module, or "
            "call load_sae(..., kind='relu'), (..., kind='topk', k=...) or (..., kind='batchtopk', threshold=...)."
        )
    return {"kind": kind, "k": known["k"]}
