"""Which library wrote a dictionary, and the one entry that loads any of them."""

import os
from collections.abc import Callable
from pathlib import Path

import torch

from lib.devices import choose_device
from lib.hub import dictionary_learning, overcomplete, prisma, saelens, saev, sparsify
from lib.hub.remote import PREFIX, download
from lib.hub.safe_files import Checkpoint, StandIn
from lib.sae import SAE

WEIGHTS = (
    "model.safetensors",
    "sae_weights.safetensors",
    "sae.safetensors",
    "ae.pt",
    "weights.pt",
    "sae.pt",
)
"""Files of weights that a folder is searched for, in this order; others have to be named."""

_UNSAID = ("kind", "k", "threshold")


def _own(checkpoint: Checkpoint, unsaid: dict) -> SAE:
    return SAE.load(checkpoint.path.parent)


FORMATS: dict[str, Callable[[Checkpoint, dict], SAE]] = {
    "own": _own,
    "dictionary_learning": dictionary_learning.load,
    "saelens": saelens.load,
    "sparsify": sparsify.load,
    "overcomplete": overcomplete.load,
    "saev": saev.load,
    "prisma": prisma.load,
}
"""By name, what reads a library's files."""


def load_sae(spec: str | os.PathLike, format: str | None = None, device: str | torch.device = "auto", **unsaid) -> SAE:
    """The dictionary of a local folder or file, or of `hf:owner/name[/folder or file][@revision]`, ready for inference.

    format: own, dictionary_learning (the paper's weights too), saelens, sparsify, overcomplete, saev or prisma; None:
    by the files. unsaid: `kind`, `k`, `threshold`, where a file does not tell. Codes and reconstructions are those of
    the library (tested to 1e-5); what `SAE` cannot compute raises ValueError. Nothing in a file is ever run.
    Raises FileNotFoundError where nothing is found, ConnectionError where the hub cannot be reached.
    """
    if format is not None and format not in FORMATS:
        raise ValueError(f"Unknown format {format!r}; choose one of {', '.join(FORMATS)}.")
    if unknown := set(unsaid) - set(_UNSAID):
        raise ValueError(f"load_sae takes {', '.join(_UNSAID)}; it knows no {', '.join(sorted(unknown))}.")
    text = os.fspath(spec)
    place = download(text, WEIGHTS) if text.startswith(PREFIX) else Path(text)
    checkpoint = Checkpoint(_weights(place, text))
    return FORMATS[format or detect(checkpoint)](checkpoint, unsaid).to(choose_device(device))


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
    if path.suffix == ".safetensors":
        by_name = {"sae_weights.safetensors": "saelens", "sae.safetensors": "sparsify"}
        if path.name in by_name:
            return by_name[path.name]
        if {"d", "kind"} <= set(config):
            return "own"
    elif checkpoint.header is not None:
        return "saev"
    elif isinstance(checkpoint.content, StandIn):
        return "overcomplete"
    elif isinstance(checkpoint.content, dict):
        names = set(checkpoint.content)
        if {"cfg", "state_dict"} <= names or "activation_fn_str" in config:
            return "prisma"
        if any(str(name).startswith("dictionary.") for name in names):
            return "overcomplete"
        if "encoder.weight" in names or {"W_enc", "threshold"} <= names:
            return "dictionary_learning"
    raise ValueError(
        f"{path} is of no layout known here: it holds {_shown(checkpoint)}, with "
        f"{', '.join(sorted(config)[:20]) or 'no settings'} beside it. If you know the library, name it: format= one "
        f"of {', '.join(FORMATS)}."
    )


def _shown(checkpoint: Checkpoint) -> str:
    content = checkpoint.content
    return ", ".join(map(str, list(content)[:20])) if isinstance(content, dict) else f"a {type(content).__name__}"
