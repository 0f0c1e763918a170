"""A hash of a model's weights that notices when they change."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lib.devices import to_cpu

_AS_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by size in bytes
_AT_ONCE = 1 << 22  # weights


class WeightsHash:
    """16 hex digits of a model's parameters and buffers, recomputed when one was changed, replaced or loaded.

    others: modules besides the model whose weights count, too.
    """

    def __init__(self, model: nn.Module, others: Sequence[nn.Module] = ()):
        self.model, self.others = model, others
        self._versions: list[tuple] = []
        self._sums: list[int] = []
        self._digits: dict[str, str] = {}  # by `about`

    def __call__(self, about: str, thorough: bool = True) -> str:
        """The 16 hex digits. about: text to hash too. thorough: read all weights, to see `weight.data` change."""
        weights = self._weights()
        versions = [(name, weight.data_ptr(), weight._version) for name, weight in weights]
        if versions != self._versions or thorough:
            sums = [_checksum(weight) for _, weight in weights]
            if (versions, sums) != (self._versions, self._sums):
                self._versions, self._sums, self._digits = versions, sums, {}
        if about not in self._digits:
            digest = hashlib.sha256(about.encode())
            for name, tensor in weights:
                digest.update(f"{name} {tuple(tensor.shape)}".encode())
                digest.update(to_cpu(tensor).contiguous().reshape(-1).view(torch.uint8).numpy())
            self._digits[about] = digest.hexdigest()[:16]
        return self._digits[about]

    def _weights(self) -> list[tuple[str, Tensor]]:
        """(name, weight) of parameters and buffers, sorted by name, with buffers that no state_dict holds."""
        modules = {"": self.model, **{f"{i}.": module for i, module in enumerate(self.others)}}
        return sorted(
            (
                (prefix + name, weight)
                for prefix, module in modules.items()
                for some in (module.named_parameters, module.named_buffers)
                for name, weight in some(remove_duplicate=False)
            ),
            key=lambda named: named[0],
        )


def _checksum(tensor: Tensor) -> int:
    """Sum of the bits as integers, each times its position, so that exchanged weights are noticed too."""
    total, bits = 0, tensor.detach().contiguous().reshape(-1).view(_AS_INTEGERS[tensor.itemsize])
    for i, part in enumerate(bits.split(_AT_ONCE)):
        places = torch.arange(1, len(part) + 1, device=part.device)
        total += (i + 1) * int((part * places).sum())
    return total
