"""Activations with known sparse structure, for tests of SAEs."""

import torch

from lib.activations.extraction import ActivationStore


def sparse_world(rows: int = 6000, d: int = 32, concepts: int = 96, active: int = 4, seed: int = 0) -> ActivationStore:
    """Store of (rows, d) activations: sums of about `active` of many directions, off the origin and of any scale."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(concepts, d, generator=generator), dim=1)
    present = torch.rand(rows, concepts, generator=generator) < active / concepts
    strengths = present * (0.5 + torch.rand(rows, concepts, generator=generator))
    noise = 0.02 * torch.randn(rows, d, generator=generator)
    return ActivationStore.from_tensor(7 * (strengths @ directions + noise) + 3)
