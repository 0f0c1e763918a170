"""A checkpoint of another library: its weights and settings, with a record of which tensors were read."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from lib.hub.remote import SETTINGS
from lib.sae.model import SAE
from peers.safe_files import names, read_pickle
from storage.files import json_object, naming, ordinary_file, quoted, read_json, read_safetensors

_MOST_HEADER = 1 << 20  # bytes
_WIDTHS = dict.fromkeys(("d_in", "activation_dim", "input_dim"), "d")
_WIDTHS |= dict.fromkeys(("d_sae", "dict_size", "num_latents", "hidden_dim"), "n_features")
"""Libraries' names of d and F in their settings; where they are 0 or None, the weights decide."""


class Tensors(dict[str, Any]):
    """The tensors of a checkpoint by name, with a record of those that were read.

    A missing one raises ValueError that names it and the file.
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
        """Count tensors as read that are used only in training, or are redundant."""
        self.used.update(name for name in self if name.startswith(prefixes))


class Settings(dict[str, Any]):
    """The settings beside a checkpoint; a missing one raises ValueError that names it and the file."""

    def __init__(self, values: Mapping[str, Any], path: Path) -> None:
        super().__init__(values)
        self.path = path

    def __missing__(self, name: str) -> Any:
        raise ValueError(f"{self.path} lacks the setting {name!r}.")

    def flag(self, name: str, default: bool = False) -> bool:
        """A setting that is true or false; `default` where it is missing or null. Raises ValueError for others."""
        value = self.get(name)
        if not isinstance(value, bool | None):
            raise ValueError(f"{self.path} has {name} = {quoted(value)}, which is neither true nor false.")
        return default if value is None else value


class Checkpoint:
    """A file of weights and the settings beside it: `path`, `config` (or None), `content` (read on first access).

    `content` is the `Tensors` of a safetensors file, or whatever a .pt file holds, a dict as `Tensors`; `header` is the
    JSON line before the weights that saev writes, None elsewhere.
    """

    def __init__(self, path: Path) -> None:
        self.path = ordinary_file(path)
        self.config = _settings_beside(path)
        self._opened: list[Tensors] = []

    @cached_property
    def header(self) -> dict | None:
        """The JSON line before the weights; None for files without."""
        with self.path.open("rb") as file:
            if file.read(1) != b"{":
                return None
            file.seek(0)
            return json_object(file.readline(_MOST_HEADER), self.path)

    @cached_property
    def content(self) -> Any:
        """The content of the file, a dict as `Tensors`. Raises ValueError for what cannot be read safely."""
        if self.path.suffix == ".safetensors":
            return self.tensors(read_safetensors(self.path))
        blob = self.path.read_bytes()
        content = read_pickle(blob.split(b"\n", 1)[1] if self.header is not None else blob, self.path)
        return self.tensors(content) if isinstance(content, dict) else content

    def tensors(self, values: Mapping[str, Any]) -> Tensors:
        """A part of the content as `Tensors`; `check` requires that all of them are read."""
        self._opened.append(Tensors(values, self.path))
        return self._opened[-1]

    @property
    def names(self) -> set[str]:
        """Keys of the dict in a file of torch.save; none for other files."""
        plain = self.path.suffix != ".safetensors" and self.header is None and isinstance(self.content, dict)
        return set(map(str, self.content)) if plain else set()

    def __str__(self) -> str:
        held = names(self.content) if isinstance(self.content, dict) else f"a {type(self.content).__name__}"
        return f"{held}, with {names(sorted(self.config)) if self.config else 'no settings'} beside it"

    def check(self, sae: SAE) -> None:
        """Raises ValueError where a tensor of the file was not read, or the settings have other widths than the SAE.

        Only the part of the content that was opened last is checked.
        """
        last = self._opened[-1] if self._opened else {}
        if unread := [name for name, value in last.items() if name not in last.used and isinstance(value, Tensor)]:
            raise unsupported(self.path, f"it also holds {names(unread)}, which no part of an SAE here reads")
        settings = self.config or {}
        trainer = settings.get("trainer")
        for name, said in {**settings, **(trainer if isinstance(trainer, dict) else {})}.items():
            if name in _WIDTHS and said and said != getattr(sae, _WIDTHS[name]):
                raise ValueError(
                    f"the settings beside {self.path} say {name} = {quoted(said)}, and its weights have "
                    f"{getattr(sae, _WIDTHS[name])}: they belong to different dictionaries"
                )


def required(state: Mapping[str, Tensor], wanted: Sequence[str], path: Path) -> list[Tensor]:
    """The named tensors. Raises ValueError that lists the missing ones and those in the file."""
    missing = [name for name in wanted if not isinstance(dict.get(state, name), Tensor)]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; it holds {names(state)}.")
    return [state[name] for name in wanted]


def unsupported(path: Path, what: str) -> ValueError:
    """The error for an SAE that `lib.SAE` cannot compute."""
    return ValueError(f"{path} cannot be loaded as an SAE here: {what}.")


def _settings_beside(path: Path) -> Settings | None:
    """config.json, cfg.json or config.yaml in the weights' folder, or above a folder of checkpoints."""
    for folder in (path.parent, path.parent.parent) if path.parent.name == "checkpoints" else (path.parent,):
        for name in SETTINGS:
            if (folder / name).is_file():
                read = read_json if name.endswith(".json") else _read_yaml
                return Settings(read(folder / name), folder / name)
    return None


def _read_yaml(path: Path) -> dict:
    import yaml

    with naming(path, "read as YAML"):
        if ordinary_file(path).stat().st_size > _MOST_HEADER:
            raise ValueError("it is too long for settings")
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("it holds no settings (name: value)")
        return values
