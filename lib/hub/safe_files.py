"""Reading checkpoints without running anything in them: safetensors, JSON, and pickles by torch's weights-only reader.

A pickle may name any function of any module to be called on loading. Here only tensors and plain containers are ever
built. The few classes of SAE libraries that checkpoints are known to hold become `StandIn`s, which keep the attributes
and can do nothing; whatever else a pickle names is refused before it is read.
"""

import io
import json
import zipfile
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

KNOWN_CLASSES = ("overcomplete.sae.", "torch.nn.modules.", "vit_prisma.sae.", "vit_prisma.configs.")
"""Where the classes come from whose attributes may be read."""


class StandIn:
    """The attributes of a pickled object, in place of its class; `qualified` is that class's name."""

    qualified = ""

    def __new__(cls, *_: Any) -> "StandIn":
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        """Arguments of the pickled constructor are dropped."""


class Checkpoint:
    """A file of weights and the settings beside it: `path`, `config` (dict or None), `content` (read when asked for).

    `content` is the dict of tensors of a safetensors file, or whatever a .pt file holds; `header` is the JSON line
    before the weights that saev writes, None elsewhere.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = _settings_beside(path)

    @cached_property
    def header(self) -> dict | None:
        with self.path.open("rb") as file:
            if file.read(1) != b"{":
                return None
            file.seek(0)
            return _parsed(file.readline(), self.path)

    @cached_property
    def content(self) -> Any:
        if self.path.suffix == ".safetensors":
            try:
                return load_file(self.path)
            except SafetensorError as error:
                raise ValueError(f"{self.path} is no safetensors file: {error}") from error
        blob = self.path.read_bytes()
        return read_pickle(blob.split(b"\n", 1)[1] if self.header is not None else blob, self.path)


def _settings_beside(path: Path) -> dict | None:
    """config.json or cfg.json in the weights' folder, or above a folder of checkpoints."""
    for folder in (path.parent, path.parent.parent) if path.parent.name == "checkpoints" else (path.parent,):
        for name in ("cfg.json", "config.json"):
            if (folder / name).is_file():
                return _parsed((folder / name).read_bytes(), folder / name)
    return None


def _parsed(text: bytes, path: Path) -> dict:
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} holds no valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a JSON {type(values).__name__} where settings, a JSON object, are expected.")
    return values


def read_pickle(blob: bytes, path: Path) -> Any:
    """What `torch.save` wrote, tensors on the CPU; raises ValueError where it names objects of unknown classes."""
    if not zipfile.is_zipfile(io.BytesIO(blob)):
        raise ValueError(
            f"{path} is neither safetensors nor a file that torch.save (1.6 or later) wrote; it is not opened, because "
            "other pickles can run code. Save the state dict again with torch.save."
        )
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(blob))
        foreign = sorted(name for name in names if not name.startswith(KNOWN_CLASSES))
        if foreign:
            raise ValueError(
                f"{path} is a pickle that would run {', '.join(foreign)} when loaded; it is not opened. "
                "Ask its author for safetensors or a plain state dict."
            )
        inert = [(type(name.rpartition(".")[2], (StandIn,), {"qualified": name}), name) for name in names]
        with torch.serialization.safe_globals(inert):
            return torch.load(io.BytesIO(blob), map_location="cpu", weights_only=True)
    except (RuntimeError, UnpicklingError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as plain weights: {str(error).splitlines()[0]}") from error


def flat_state(module: StandIn, prefix: str = "") -> dict[str, Tensor]:
    """The state dict of a pickled module."""
    parts = {**vars(module).get("_parameters", {}), **vars(module).get("_buffers", {})}
    state = {prefix + name: tensor for name, tensor in parts.items() if tensor is not None}
    for name, child in vars(module).get("_modules", {}).items():
        if child is not None:
            state |= flat_state(child, f"{prefix}{name}.")
    return state
