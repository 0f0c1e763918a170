"""Reading pickled checkpoints without running their code, by torch's weights-only reader.

A pickle may call any function of any module when it is loaded. Here only tensors and plain containers are built. Known
classes of SAE libraries become `StandIn`s, which have the attributes and no methods; a pickle that names anything else
is refused before it is read.
"""

import io
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from storage.files import check_archive, one_sentence, quoted

KNOWN_CLASSES = ("overcomplete.sae.", "torch.nn.modules.", "vit_prisma.sae.", "vit_prisma.configs.")
"""Prefixes of the classes whose attributes are read."""


class StandIn:
    """A pickled object reduced to its attributes; `qualified` is the name of its class."""

    qualified = ""

    def __new__(cls, *_: Any) -> "StandIn":
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        """Arguments of the pickled constructor are dropped."""


def names(values: object) -> str:
    """The first names of a mapping or list, as an error may quote them."""
    shown = [quoted(name, 60).strip("'") for name in list(values)[:12]]
    return ", ".join(shown) + ", ..." * (len(values) > 12) or "nothing"


def read_pickle(blob: bytes, path: Path) -> Any:
    """The content of a file of `torch.save`, tensors on the CPU. Raises ValueError where it names unknown classes."""
    if not zipfile.is_zipfile(io.BytesIO(blob)):
        raise ValueError(
            f"{path} is neither safetensors nor a file that torch.save (1.6 or later) wrote; it is not opened, because "
            "other pickles can run code. Save the state dict again with torch.save."
        )
    try:
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError(f"{path} is compressed, as torch.save never does: its size in memory is not known.")
        check_archive(path, io.BytesIO(blob))
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
    except Exception as error:  # a damaged archive or pickle: zipfile, pickle and torch raise many classes
        raise ValueError(f"{path} cannot be read as plain weights: {one_sentence(error)}") from error


def flat_state(module: StandIn, prefix: str = "") -> dict[str, Tensor]:
    """The state dict of a pickled module."""
    parts = {**vars(module).get("_parameters", {}), **vars(module).get("_buffers", {})}
    state = {prefix + name: tensor for name, tensor in parts.items() if tensor is not None}
    for name, child in vars(module).get("_modules", {}).items():
        if child is not None:
            state |= flat_state(child, f"{prefix}{name}.")
    return state
