"""Declares the operators that torchvision's own wheel fails to define beside a CPU-only torch.

PyPI's torchvision for Linux is built for CUDA. Beside a CPU torch its compiled half cannot load, yet its Python half
still registers fake kernels for `torchvision::nms` and `torchvision::qnms`, and `import torchvision` (so also timm,
open_clip and parts of transformers) dies with "operator torchvision::nms does not exist". Nothing in this book calls
those operators: declaring that they exist is enough.
"""

import torch

_library: torch.library.Library | None = None  # a schema lives only as long as the Library that defined it


def declare_missing_schemas() -> None:
    """Declare the schemas, once; on a CUDA build of torch nothing is missing and nothing is done."""
    global _library
    if torch.version.cuda is not None or _library is not None:
        return
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        try:
            torch._C._dispatch_has_kernel_for_dispatch_key(f"torchvision::{name}", "Meta")
        except RuntimeError:  # the schema is unknown
            _library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
