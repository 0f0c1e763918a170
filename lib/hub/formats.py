"""`load_sae`: SAEs of this project, and of other libraries whose formats an installed package registers."""

import os
from pathlib import Path

import torch

from lib.devices import choose_device
from lib.hub.remote import PREFIX, download_sae
from lib.registry import registered
from lib.sae.model import SAE
from storage.files import naming, ordinary_file, read_json

OWN = "own"
WEIGHTS = (
    "model.safetensors",
    "sae_weights.safetensors",
    "sae.safetensors",
    "ae.pt",
    "weights.pt",
    "sae.pt",
    "model.pt",
)
"""Names of weights looked for in a folder, in this order; other files have to be named."""

_FALLBACK = ("kind", "k", "threshold")


def load_sae(
    spec: str | os.PathLike, format: str | None = None, device: str | torch.device = "auto", **fallback
) -> SAE:
    """The SAE of a local folder or file, or of `hf:owner/name[/folder or file][@revision]`, ready for inference.

    format: own, dictionary_learning (the paper's weights too), saelens, sparsify, overcomplete, saev, prisma,
    visaebench, or another that a package registers (`lib.registry`); None: by the files. fallback: `kind`, `k`,
    `threshold`, used where a file lacks them. Codes and reconstructions are those of the library (tested to 1e-5);
    raises ValueError, which names the file, for what `SAE` cannot compute. No code in a file is ever run.
    Raises FileNotFoundError where nothing is found, ConnectionError where the hub cannot be reached.
    """
    known = [OWN, *registered("formats")]
    if format is not None and format not in known:
        raise ValueError(f"Unknown format {format!r}; choose one of {', '.join(known)}.{_without_peers()}")
    if unknown := set(fallback) - set(_FALLBACK):
        raise ValueError(f"load_sae has no argument {', '.join(sorted(unknown))}; it takes {', '.join(_FALLBACK)}.")
    text = os.fspath(spec)
    place = download_sae(text, WEIGHTS) if text.startswith(PREFIX) else Path(text).expanduser()
    path = ordinary_file(_weights(place, text))
    with naming(path):
        own = format == OWN or (format is None and _is_own(path))
        sae = SAE.load(path.parent, "cpu") if own else _of_another_library(path, format, fallback)
        sae.check_finite(str(path))
    return sae.to(choose_device(device))


def _is_own(path: Path) -> bool:
    config = path.with_name("config.json")
    return path.name == WEIGHTS[0] and config.is_file() and {"d", "kind"} <= set(read_json(config))


def _of_another_library(path: Path, format: str | None, fallback: dict) -> SAE:
    """The SAE in a file, by the one registered format that recognises it, or by the format of this name."""
    readers = {name: point.load() for name, point in registered("formats").items() if format in (None, name)}
    opened = {kind: kind(path) for kind in dict.fromkeys(reader.Checkpoint for reader in readers.values())}
    found = [name for name, reader in readers.items() if format or reader.recognises(opened[reader.Checkpoint])]
    if len(found) != 1:
        held = f"it holds {next(iter(opened.values()))}. " if opened else ""
        which = f"of several layouts ({', '.join(found)})" if found else "of no layout known here"
        raise ValueError(
            f"{path} is {which}: {held}If you know the library, name it: format= one of "
            f"{', '.join([OWN, *readers])}.{_without_peers()}"
        )
    reader = readers[found[0]]
    sae = reader.load(opened[reader.Checkpoint], fallback)
    opened[reader.Checkpoint].check(sae)
    return sae


def _without_peers() -> str:
    if registered("formats"):
        return ""
    return " No format of another library is registered here: install monosemantic-vision with its package `peers`."


def _weights(place: Path, spec: str) -> Path:
    """The file of weights: `place` itself, or one in that folder. Raises FileNotFoundError or ValueError."""
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
