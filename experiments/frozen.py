"""Nulls that are trained: TopK SAEs, one half of whose weights keeps the random directions that the seed drew."""

import torch

from lib.sae.model import SAE
from lib.sae.objectives.sparse import SparseObjective


class FrozenEncoder(SparseObjective):
    """TopK whose encoder stays random: the features are drawn, and only the biases and what they write are learned."""

    frozen = "W_enc"

    def __init__(self, sae: SAE, encoder_dtype: torch.dtype) -> None:
        super().__init__(sae, encoder_dtype)
        del self.parameters[self.frozen]


class FrozenDecoder(FrozenEncoder):
    """TopK whose decoder stays random: what the features write is drawn, and only when they fire is learned."""

    frozen = "W_dec"

    def constrain_parameters(self) -> None:
        """Do nothing: the rows have unit norm from the start."""
