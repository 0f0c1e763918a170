"""Declare the operators of torchvision where its own library cannot be loaded, so that torchvision can be imported.

A torchvision built for another torch (for CUDA, beside a torch for the CPU) loads no library of operators, yet still
registers fake kernels for two of them, and `import torchvision` (so also timm, open_clip and parts of transformers)
fails with "operator torchvision::nms does not exist". Nothing here calls those operators, so declaring them is enough.
Where the two fit, nothing is loaded or declared.
"""

import importlib.util
import re
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import torch

_library: torch.library.Library | None = None  # a schema lives only as long as the Library that defined it


def declare_missing_schemas() -> bool:
    """Declare the schemas of a torchvision that cannot load its library; return whether they had to be declared."""
    global _library
    folder = _torchvision()
    if _library is not None or folder is None or _fits(folder) or _loads_its_library(folder):
        return _library is not None
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            _library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return True


def _torchvision() -> Path | None:
    """Where torchvision is installed, found without importing it."""
    try:
        spec = importlib.util.find_spec("torchvision")
    except (ImportError, ValueError):
        return None
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _fits(folder: Path) -> bool:
    """Whether torchvision's metadata names this version of torch and its CUDA."""
    version = folder / "version.py"  # is not run: it asks the library
    label = re.search(r"__version__ = '[^'+]*\+cu(\d+)", version.read_text("utf-8")) if version.is_file() else None
    if label is not None and label[1] != (torch.version.cuda or "").replace(".", ""):
        return False
    try:
        wanted = re.search(r"^torch\s*==\s*([\d.]+)", "\n".join(requires("torchvision") or ()), re.M)
    except PackageNotFoundError:
        return True
    return wanted is None or wanted[1] == torch.__version__.partition("+")[0]


def _loads_its_library(folder: Path) -> bool:
    """Whether torchvision's library of operators can be loaded, as torchvision's own import does first."""
    for library in (folder / f"_C{suffix}" for suffix in EXTENSION_SUFFIXES):
        if library.is_file():
            try:
                torch.ops.load_library(library)
            except OSError:
                return False
            return True
    return False
