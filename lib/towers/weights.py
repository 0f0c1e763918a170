"""A hash of a model's weights that notices when they change."""

import hashlib

import torch
from torch import Tensor, nn

_AS_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by size in bytes


class WeightsHash:
    """16 hex digits of a model's `state_dict`, computed anew when a weight was changed, replaced or loaded."""

    def __init__(self, model: nn.Module):
        self.model = model
        self._state: list[tuple] = []
        self._digits = ""

    def __call__(self, about: str) -> str:
        """The digits; `about`: what else goes into them."""
        weights = sorted(self.model.state_dict().items())
        state = [(about,), *((name, w.data_ptr(), w._version, _checksum(w)) for name, w in weights)]
        if state != self._state:
            digest = hashlib.sha256(about.encode())
            for name, tensor in weights:
                digest.update(f"{name} {tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
            self._state, self._digits = state, digest.hexdigest()[:16]
        return self._digits


def _checksum(tensor: Tensor) -> int:
    """Of the bits, for changes that count in no version: those of `weight.data`."""
    return int(tensor.detach().contiguous().view(_AS_INTEGERS[tensor.itemsize]).sum(dtype=torch.int64))
