"""How far our codes and reconstructions are from the libraries' own: `python -m tests.peers.compare FOLDER`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open

from lib.hub import load_sae

LIMIT = 1e-5
UNSAID = {"overcomplete/relu_state_dict": {"kind": "relu"}, "overcomplete/topk_state_dict": {"kind": "topk", "k": 4}}
"""What a plain state dict of overcomplete leaves to be said."""


class Difference(NamedTuple):
    """Largest absolute differences of one dictionary."""

    case: str
    version: str
    kind: str
    codes: float
    reconstruction: float


def cases(root: Path) -> list[str]:
    """library/case of every dictionary below a folder of fixtures."""
    return sorted(path.parent.relative_to(root).as_posix() for path in root.rglob("expected.safetensors"))


@torch.no_grad()
def difference(root: Path, case: str) -> Difference:
    """Load one dictionary by detection of its format, and compare it with what its library computed."""
    folder = root / case
    checkpoints = sorted(folder.glob("trainer_0/checkpoints/*.pt"))
    sae = load_sae(checkpoints[0] if checkpoints else folder, **UNSAID.get(case, {}))
    with safe_open(folder / "expected.safetensors", "pt") as file:
        version = file.metadata()["version"]
        x, codes, reconstruction = (file.get_tensor(name) for name in ("x", "codes", "reconstruction"))
    ours = sae.encode(x)
    gaps = (ours - codes).abs().max(), (sae.decode(ours, x) - reconstruction).abs().max()
    return Difference(case, version, sae.config.kind, *map(float, gaps))


def differences(root: Path) -> Iterator[Difference]:
    """Of every dictionary below a folder of fixtures."""
    return (difference(root, case) for case in cases(root))


if __name__ == "__main__":
    largest = 0.0
    for row in differences(Path(sys.argv[1])):
        print(f"{row.case:45} {row.version:20} {row.kind:12} {row.codes:.1e} {row.reconstruction:.1e}")
        largest = max(largest, row.codes, row.reconstruction)
    print(f"largest difference {largest:.1e}, allowed {LIMIT:.0e}")
    sys.exit(largest > LIMIT)
