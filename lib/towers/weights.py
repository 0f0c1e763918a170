"""A hash of a model's weights that notices when they change."""

import hashlib

import torch
from torch import Tensor, nn

from lib.devices import to_cpu

_AS_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by size in bytes


class WeightsHash:
    """16 hex digits of a model's `state_dict`, computed anew when a weight was changed, replaced or loaded."""

    def __init__(self, model: nn.Module):
        self.model = model
        self._versions: list[tuple] = []
        self._sums: list[int] = []
        self._digits = ""

    def __call__(self, about: str, thorough: bool = True) -> str:
        """The digits; `about`: what else goes into them. thorough: see changes of `weight.data`, by reading all."""
        weights = sorted(self.model.state_dict().items())
        versions = [(about,), *((name, weight.data_ptr(), weight._version) for name, weight in weights)]
        if versions == self._versions and not thorough:
            return self._digits
        sums = [_checksum(weight) for _, weight in weights]
        if (versions, sums) != (self._versions, self._sums):
            digest = hashlib.sha256(about.encode())
            for name, tensor in weights:
                digest.update(f"{name} {tuple(tensor.shape)}".encode())
                digest.update(to_cpu(tensor).contiguous().reshape(-1).view(torch.uint8).numpy())
            self._versions, self._sums, self._digits = versions, sums, digest.hexdigest()[:16]
        return self._digits


def _checksum(tensor: Tensor) -> int:
    """Sum of the bits as integers."""
    return int(tensor.detach().contiguous().view(_AS_INTEGERS[tensor.itemsize]).sum(dtype=torch.int64))
