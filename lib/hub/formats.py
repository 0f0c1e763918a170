"""Which library wrote a dictionary, and the one entry that loads any of them."""

import os
from collections.abc import Callable
from pathlib import Path

import torch

from lib.devices import choose_device
from lib.files import naming, quoted
from lib.hub import dictionary_learning, overcomplete, prisma, saelens, saev, sparsify, visaebench
from lib.hub.assembly import inexpressible
from lib.hub.remote import PREFIX, download
from lib.hub.safe_files import Checkpoint, StandIn, names
from lib.sae.model import SAE

WEIGHTS = (
    "model.safetensors",
    "sae_weights.safetensors",
    "sae.safetensors",
    "ae.pt",
    "weights.pt",
    "sae.pt",
    "model.pt",
)
"""Files of weights that a folder is searched for, in this order; others have to be named."""

_BY_NAME = {"sae_weights.safetensors": "saelens", "sae.safetensors": "sparsify"}
_WIDTHS = dict.fromkeys(("d_in", "activation_dim", "input_dim"), "d")
_WIDTHS |= dict.fromkeys(("d_sae", "dict_size", "num_latents", "hidden_dim"), "n_features")
"""What libraries call the widths in their settings; 0 or nothing there leaves it to the weights."""
_UNSAID = ("kind", "k", "threshold")


def _own(checkpoint: Checkpoint, unsaid: dict) -> SAE:
    return SAE.load(checkpoint.path.parent, "cpu")


FORMATS: dict[str, Callable[[Checkpoint, dict], SAE]] = {
    "own": _own,
    "dictionary_learning": dictionary_learning.load,
    "saelens": saelens.load,
    "sparsify": sparsify.load,
    "overcomplete": overcomplete.load,
    "saev": saev.load,
    "prisma": prisma.load,
    "visaebench": visaebench.load,
}
"""By name, what reads a library's files."""


def load_sae(spec: str | os.PathLike, format: str | None = None, device: str | torch.device = "auto", **unsaid) -> SAE:
    """The dictionary of a local folder or file, or of `hf:owner/name[/folder or file][@revision]`, ready for inference.

    format: own, dictionary_learning (the paper's weights too), saelens, sparsify, overcomplete, saev, prisma or
    visaebench; None: by the files. unsaid: `kind`, `k`, `threshold`, where a file does not tell. Codes and
    reconstructions are those of the library (tested to 1e-5); what `SAE` cannot compute raises ValueError, which names
    the file. Nothing in a file is ever run.
    Raises FileNotFoundError where nothing is found, ConnectionError where the hub cannot be reached.
    """
    if format is not None and format not in FORMATS:
        raise ValueError(f"Unknown format {format!r}; choose one of {', '.join(FORMATS)}.")
    if unknown := set(unsaid) - set(_UNSAID):
        raise ValueError(f"load_sae takes {', '.join(_UNSAID)}; it knows no {', '.join(sorted(unknown))}.")
    text = os.fspath(spec)
    place = download(text, WEIGHTS) if text.startswith(PREFIX) else Path(text).expanduser()
    checkpoint = Checkpoint(_weights(place, text))
    with naming(checkpoint.path):
        sae = FORMATS[format or detect(checkpoint)](checkpoint, unsaid)
        if unknown := checkpoint.unused():
            raise inexpressible(checkpoint.path, f"it also holds {names(unknown)}, which no part of an SAE here reads")
        _check_widths(checkpoint, sae)
        sae.check_finite(str(checkpoint.path))
    return sae.to(choose_device(device))


def _check_widths(checkpoint: Checkpoint, sae: SAE) -> None:
    """Raises ValueError where the settings are those of other weights."""
    settings = checkpoint.config or {}
    trainer = settings.get("trainer")
    for name, said in {**settings, **(trainer if isinstance(trainer, dict) else {})}.items():
        if name in _WIDTHS and said and said != getattr(sae, _WIDTHS[name]):
            raise ValueError(
                f"the settings beside {checkpoint.path} say {name} = {quoted(said)}, and its weights have "
                f"{getattr(sae, _WIDTHS[name])}: they belong to different dictionaries"
            )


def _weights(place: Path, spec: str) -> Path:
    """The file of weights: the one named, or a folder's."""
    if place.is_file():
        return place
    if not place.is_dir():
        raise FileNotFoundError(f"There is no file or folder {spec}.")
    found = [place / name for name in WEIGHTS if (place / name).is_file()] or sorted(place.glob("*.pt"))
    if not found:
        names = sorted(path.name + "/" * path.is_dir() for path in place.iterdir())
        raise FileNotFoundError(
            f"No dictionary in {spec}: looked for {', '.join(WEIGHTS)} and found {', '.join(names[:20]) or 'nothing'}. "
            "Name the folder or the file itself."
        )
    if len(found) > 1 and found[0].name not in WEIGHTS:
        raise ValueError(f"{spec} holds {', '.join(path.name for path in found[:20])}; name one of these files.")
    return found[0]


def detect(checkpoint: Checkpoint) -> str:
    """Name of the format, from the file's name, the settings beside it and the tensors in it."""
    path, config = checkpoint.path, checkpoint.config or {}
    if visaebench.NAMES & set(config) and "trainer" not in config and path.name not in _BY_NAME:
        return "visaebench"
    if path.suffix == ".safetensors":
        if path.name in _BY_NAME:
            return _BY_NAME[path.name]
        if {"d", "kind"} <= set(config):
            return "own"
    elif checkpoint.header is not None:
        return "saev"
    elif isinstance(checkpoint.content, StandIn):
        return "overcomplete"
    elif isinstance(checkpoint.content, dict):
        inside = set(checkpoint.content)
        if {"cfg", "state_dict"} <= inside or "activation_fn_str" in config:
            return "prisma"
        if any(str(name).startswith("dictionary.") for name in inside):
            return "overcomplete"
        if "encoder.weight" in inside or {"W_enc", "threshold"} <= inside:
            return "dictionary_learning"
    raise ValueError(
        f"{path} is of no layout known here: it holds {_shown(checkpoint)}, with "
        f"{names(sorted(config)) if config else 'no settings'} beside it. If you know the library, name it: format= "
        f"one of {', '.join(FORMATS)}."
    )


def _shown(checkpoint: Checkpoint) -> str:
    content = checkpoint.content
    return names(content) if isinstance(content, dict) else f"a {type(content).__name__}"
