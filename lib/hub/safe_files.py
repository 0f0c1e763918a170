"""Reading checkpoints without running anything in them: safetensors, JSON, and pickles by torch's weights-only reader.

A pickle may name any function of any module to be called on loading. Here only tensors and plain containers are ever
built. The few classes of SAE libraries that checkpoints are known to hold become `StandIn`s, which keep the attributes
and can do nothing; whatever else a pickle names is refused before it is read.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lib.files import naming, one_sentence, ordinary_file, quoted, read_json, read_safetensors

KNOWN_CLASSES = ("overcomplete.sae.", "torch.nn.modules.", "vit_prisma.sae.", "vit_prisma.configs.")
"""Where the classes come from whose attributes may be read."""


class StandIn:
    """The attributes of a pickled object, in place of its class; `qualified` is that class's name."""

    qualified = ""

    def __new__(cls, *_: Any) -> "StandIn":
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        """Arguments of the pickled constructor are dropped."""


class Tensors(dict[str, Any]):
    """The tensors of a checkpoint by name, which remembers those that were asked for.

    One that is missing raises ValueError naming it and the file.
    """

    def __init__(self, values: Mapping[str, Any], path: Path) -> None:
        super().__init__(values)
        self.path, self.used = path, set()

    def __getitem__(self, name: str) -> Any:
        if name not in self:
            raise ValueError(f"{self.path} lacks {name}; it holds {names(self)}.")
        self.used.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        if name not in self:
            return default
        return self[name]

    def ignore(self, *prefixes: str) -> None:
        """Count as used what is there for training alone, or is in another part too."""
        self.used.update(name for name in self if name.startswith(prefixes))


class Settings(dict[str, Any]):
    """The settings beside a checkpoint; one that is missing raises ValueError naming it and their file."""

    def __init__(self, values: Mapping[str, Any], path: Path) -> None:
        super().__init__(values)
        self.path = path

    def __missing__(self, name: str) -> Any:
        raise ValueError(f"{self.path} lacks the setting {name!r}.")


def names(values: object) -> str:
    """The first names of a mapping or list, as an error may quote them."""
    shown = [quoted(name, 60).strip("'") for name in list(values)[:12]]
    return ", ".join(shown) + ", ..." * (len(values) > 12) or "nothing"


class Checkpoint:
    """A file of weights and the settings beside it: `path`, `config` (or None), `content` (read when asked for).

    `content` is the `Tensors` of a safetensors file, or whatever a .pt file holds, a dict as `Tensors`; `header` is the
    JSON line before the weights that saev writes, None elsewhere.
    """

    def __init__(self, path: Path) -> None:
        self.path = ordinary_file(path)
        self.config = _settings_beside(path)
        self._opened: list[Tensors] = []

    @cached_property
    def header(self) -> dict | None:
        with self.path.open("rb") as file:
            if file.read(1) != b"{":
                return None
            file.seek(0)
            return _parsed(file.readline(_MOST_HEADER), self.path)

    @cached_property
    def content(self) -> Any:
        if self.path.suffix == ".safetensors":
            return self.tensors(read_safetensors(self.path))
        blob = self.path.read_bytes()
        content = read_pickle(blob.split(b"\n", 1)[1] if self.header is not None else blob, self.path)
        return self.tensors(content) if isinstance(content, dict) else content

    def tensors(self, values: Mapping[str, Any]) -> Tensors:
        """A part of the content, from which all that is there has to be used."""
        self._opened.append(Tensors(values, self.path))
        return self._opened[-1]

    def unused(self) -> list[str]:
        """Tensors that were not asked for; of several parts, the last opened counts."""
        last = self._opened[-1] if self._opened else {}
        return [name for name, value in last.items() if name not in last.used and isinstance(value, Tensor)]


_MOST_HEADER = 1 << 20  # bytes


def _settings_beside(path: Path) -> Settings | None:
    """config.json, cfg.json or config.yaml in the weights' folder, or above a folder of checkpoints."""
    for folder in (path.parent, path.parent.parent) if path.parent.name == "checkpoints" else (path.parent,):
        for name in SETTINGS:
            if (folder / name).is_file():
                read = read_json if name.endswith(".json") else _read_yaml
                return Settings(read(folder / name), folder / name)
    return None


SETTINGS = ("cfg.json", "config.json", "config.yaml", "config.yml")


def _read_yaml(path: Path) -> dict:
    import yaml

    with naming(path, "read as YAML"):
        if ordinary_file(path).stat().st_size > _MOST_HEADER:
            raise ValueError("it is too long for settings")
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("it holds no settings, name: value")
        return values


def _parsed(text: bytes, path: Path) -> dict:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} holds no valid JSON: {one_sentence(error)}") from error
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
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError(f"{path} is compressed, as torch.save never does: its size in memory is not known.")
        called = torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(blob))
        foreign = sorted(name for name in called if not name.startswith(KNOWN_CLASSES))
        if foreign:
            raise ValueError(
                f"{path} is a pickle that would run {names(foreign)} when loaded; it is not opened. "
                "Ask its author for safetensors or a plain state dict."
            )
        inert = [(type(name.rpartition(".")[2], (StandIn,), {"qualified": name}), name) for name in called]
        with torch.serialization.safe_globals(inert):
            return torch.load(io.BytesIO(blob), map_location="cpu", weights_only=True)
    except ValueError:
        raise
    except Exception as error:  # of a damaged archive or pickle: whatever zipfile, pickle and torch stumble over
        raise ValueError(f"{path} cannot be read as plain weights: {one_sentence(error)}") from error


def flat_state(module: StandIn, prefix: str = "") -> dict[str, Tensor]:
    """The state dict of a pickled module."""
    parts = {**vars(module).get("_parameters", {}), **vars(module).get("_buffers", {})}
    state = {prefix + name: tensor for name, tensor in parts.items() if tensor is not None}
    for name, child in vars(module).get("_modules", {}).items():
        if child is not None:
            state |= flat_state(child, f"{prefix}{name}.")
    return state
