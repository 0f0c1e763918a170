"""The relaxed archetypal SAE: decoder rows are convex combinations of data points plus a small relaxation."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.sae.objectives.base import Points, remove_parallel_
from lib.sae.objectives.sparse import SparseObjective


class ArchetypalObjective(SparseObjective):
    """TopK whose decoder rows are atoms W C + Λ, scaled to unit norm: RA-SAE, Fel et al. 2025 (arXiv 2502.12892).

    C (n, d): points of the data, less b_dec; W (F, n): the mixing, rows non-negative with sum 1; Λ (F, d): the
    relaxation, rows no longer than the config's. Only W and Λ are trained, and the SAE's W_dec follows them. All
    kinds here scale decoder rows to unit norm; the paper learns one scale for all atoms.
    """

    def start(self, points: Points) -> None:
        """Initialise each atom at one point: the first F, or F drawn by the seed. Raises ValueError for too few."""
        n_features, wanted = self.sae.n_features, self.config.archetypes
        if wanted is not None and wanted < n_features:
            raise ValueError(f"archetypes = {wanted} are fewer than the F = {n_features} latents; raise archetypes.")
        self.points = points(wanted) if wanted else points(4 * n_features, least=n_features)  # (n, d)
        wanted = len(self.points)
        chosen = torch.arange(n_features)
        if self.config.init == "random":
            generator = torch.Generator().manual_seed(self.config.seed)
            chosen = torch.randperm(wanted, generator=generator)[:n_features]
        mixing = F.one_hot(chosen, wanted).to(self.points)  # (F, n)
        self.mixing, self.relaxation = nn.Parameter(mixing), nn.Parameter(torch.zeros_like(self.sae.W_dec))
        del self.parameters["W_dec"]
        self.parameters |= {"mixing": self.mixing, "relaxation": self.relaxation}
        self.compose()
        self.sae.W_enc.data.copy_(self.sae.W_dec.t())

    @torch.no_grad()
    def backward(self, x: Tensor, y: Tensor | None = None) -> None:
        super().backward(x, y)
        to_atoms = self.sae.W_dec.grad  # the gradient through unit norm is orthogonal to the row
        remove_parallel_(to_atoms, self.sae.W_dec)
        to_atoms.div_(self.lengths)
        self.mixing.grad, self.relaxation.grad = to_atoms @ self.points.t(), to_atoms

    def constrain_gradients(self) -> None:
        """Do nothing: the scale of an atom gets no gradient."""

    @torch.no_grad()
    def constrain_parameters(self) -> None:
        self.mixing.clamp_(min=0)
        self.mixing.div_(self.mixing.sum(1, keepdim=True).clamp(min=1e-12))
        length = torch.linalg.vector_norm(self.relaxation, dim=1, keepdim=True)
        self.relaxation.mul_((self.config.relaxation / length.clamp(min=1e-12)).clamp(max=1))
        self.compose()

    @torch.no_grad()
    def compose(self) -> None:
        """Set W_dec to the atoms W C + Λ, scaled to unit norm."""
        atoms = self.mixing @ self.points + self.relaxation
        self.lengths = torch.linalg.vector_norm(atoms, dim=1, keepdim=True).clamp(min=1e-6)
        self.sae.W_dec.copy_(atoms / self.lengths)
