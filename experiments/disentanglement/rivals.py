"""Two published ways to use an SAE other than zeroing codes, as dictionaries: our reading of their abstracts.

S&P Top-K (arXiv 2509.10809): project activations on the complement of encoder directions, not decoder ones.
Visual Sparse Steering, VS2 (arXiv 2506.01247): without labels, amplify whatever features are active, and leave alone
what the SAE reconstructs badly. Their layers, gains and thresholds could not be recovered; ours are chosen on
validation pictures, as for every other method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from experiments.disentanglement.baselines import token_rows
from experiments.disentanglement.protocol import Part
from experiments.disentanglement.suppression import Runner, Setting, suppress
from lib.devices import bring, to_cpu
from lib.sae.model import SAE, input_scale

PROJECTION, LABEL_FREE = "encoder projection", "label-free steering"
TRUSTED = 0.9
"""Share of the selection pictures' tokens that label-free steering moves: those of smallest reconstruction loss."""


class EncoderProjection:
    """The span of some features' encoder directions as a dictionary of r orthonormal features; without error term.

    With all r set to 0 and the rest of x kept, those features read b_enc alone: nothing of x is left for them. The
    projection is about b_dec, the point at which the encoder reads nothing.
    """

    def __init__(self, sae: SAE, features: Sequence[int]):
        columns = to_cpu(sae.W_enc.detach())[:, list(features)].double()
        basis, lengths, _ = torch.linalg.svd(columns, full_matrices=False)
        self.W_dec = basis[:, lengths > 1e-6 * lengths.max()].T.float().contiguous()  # (r, d)
        self.n_features, self.d = self.W_dec.shape
        self.config, self._centre = sae.config, sae.b_dec.detach()

    def encode(self, x: Tensor) -> Tensor:
        """Coordinates (..., r) of x (..., d), after the SAE's normalisation, relative to b_dec."""
        if self.config.input_norm != "none":
            shift, scale = input_scale(x, self.config.input_norm)
            x = (x - shift) / scale
        return (x - bring(self._centre, x, x.dtype)) @ bring(self.W_dec, x, x.dtype).T

    def decode(self, codes: Tensor, x: Tensor | None = None) -> Tensor:
        """Sum (..., d) of the basis, weighted by codes (..., r): in the units of the SAE's input."""
        return codes @ bring(self.W_dec, codes, codes.dtype)


class TrustedReconstruction:
    """What the active features of an SAE write, as a dictionary of d features; 0 at tokens that it reconstructs badly.

    Scaling all d by 1 + gain adds gain times the sum of f_j W_dec[j]. most_loss: the largest trusted loss of a token,
    see `reconstruction_loss`.
    """

    def __init__(self, sae: SAE, most_loss: float):
        self._sae, self._most, self.config = sae, most_loss, sae.config
        self.n_features = self.d = sae.d
        self.W_dec = torch.eye(sae.d)

    def encode(self, x: Tensor) -> Tensor:
        """(..., d) from x (..., d)."""
        codes = self._sae.encode(x)
        trusted = reconstruction_loss(self._sae, x, codes) <= self._most
        return bring(codes @ self._sae.W_dec.detach() * trusted[..., None], x)

    def decode(self, codes: Tensor, x: Tensor | None = None) -> Tensor:
        """The codes themselves."""
        return codes


def reconstruction_loss(sae: SAE, x: Tensor, codes: Tensor) -> Tensor:
    """Mean squared error (...,) of an SAE on each x (..., d)."""
    return (sae.decode(codes, x) - bring(x, sae.W_dec)).square().mean(-1)


def projections(rule: str, site: str, sae: SAE, ranking: Sequence[int], counts: Sequence[int]) -> list[Setting]:
    """Settings that project out the encoder directions of a ranking's first features."""
    found = []
    for n in sorted({min(count, len(ranking)) for count in counts} - {0}):
        basis, features = EncoderProjection(sae, ranking[:n]), tuple(ranking[:n])
        edits = suppress(basis, site, range(basis.n_features))
        found.append(Setting(f"{PROJECTION}: {rule}", site, sae, features, exact=True, edits=edits))
    return found


@torch.no_grad()
def label_free_settings(part: Part, runner: Runner, saes: Mapping[str, SAE], gains: Sequence[float]) -> list[Setting]:
    """Settings that amplify all active features of each site's SAE by each gain, at tokens of small enough loss."""
    found = []
    for site, (rows, _) in token_rows(part, runner, list(saes)).items():
        sae = saes[site]
        losses = torch.cat([to_cpu(reconstruction_loss(sae, x, sae.encode(x))) for x in rows.split(4096)])
        trusted = TrustedReconstruction(sae, float(losses.quantile(TRUSTED)))
        for gain in gains:
            edits = suppress(trusted, site, range(trusted.n_features), -gain)
            every = tuple(range(sae.n_features))
            found.append(Setting(LABEL_FREE, site, sae, every, -gain, exact=True, edits=edits))
    return found
