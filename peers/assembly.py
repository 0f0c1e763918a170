"""Conversion of other libraries' conventions to those of `lib.SAE`: codes = act((x - b_dec) W_enc + b_enc).

Weights are folded in float64, so that codes and reconstructions are those of the library.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lib.sae.model import SAE, SAEConfig
from lib.sae.origin import Target


@dataclass(frozen=True)
class Weights:
    """Weights of an SAE in float64: W_enc (d, F), b_enc (F,), W_dec (F, d), b_dec (d,), threshold () or (F,) or None.

    `centred`: b_dec is subtracted from the encoder's input, as here; some libraries only add it after the decoder.
    Of transcoders: `b_in` (d,) or None, what is subtracted from the encoder's input; `W_skip` (d_out, d) or None.
    """

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    threshold: Tensor | None = None
    centred: bool = True
    b_in: Tensor | None = None
    W_skip: Tensor | None = None

    @classmethod
    def of(cls, threshold: Tensor | None = None, centred: bool = True, **given: Tensor | None) -> "Weights":
        """Weights from tensors of any float dtype. Raises ValueError for other dtypes."""
        tensors = {name: tensor for name, tensor in given.items() if tensor is not None}
        if whole := [f"{name} ({tensor.dtype})" for name, tensor in tensors.items() if not tensor.is_floating_point()]:
            raise ValueError(f"Weights must be floats, not quantised: {whole[0]}.")
        threshold = None if threshold is None else threshold.detach().double()
        return cls(**{k: v.detach().double() for k, v in tensors.items()}, threshold=threshold, centred=centred)

    def with_unit_rows(self, norms: Tensor | None = None) -> "Weights":
        """These weights with decoder rows divided by their norms (F,) and codes multiplied by them; x̂ is the same."""
        norms = self.W_dec.norm(dim=1) if norms is None else norms
        return replace(
            self,
            W_enc=self.W_enc * norms,
            b_enc=self.b_enc * norms,
            W_dec=self.W_dec / norms[:, None],
            threshold=None if self.threshold is None else self.threshold * norms,
        )

    @classmethod
    def gated(cls, W_enc: Tensor, b_gate: Tensor, b_mag: Tensor, r_mag: Tensor, **rest) -> "Weights":
        """A gated SAE as the equivalent JumpReLU SAE (Rajamanoharan et al. 2024, arXiv 2404.16014, appendix).

        With p = x W_enc: the gate p + b_gate > 0 opens exactly where the magnitude exp(r) p + b_mag exceeds
        b_mag - exp(r) b_gate.
        """
        gain = r_mag.detach().double().exp()
        threshold = b_mag.detach().double() - gain * b_gate.detach().double()
        return cls.of(W_enc=W_enc.detach().double() * gain, b_enc=b_mag, threshold=threshold, **rest)


def assemble(weights: Weights, transcodes: bool = False, **config) -> SAE:
    """The SAE of these weights; config: fields of `SAEConfig` for inference. ValueError for shapes that do not fit.

    transcodes: it is a transcoder, whose b_dec belongs to the site that it predicts.
    """
    d, n_features = weights.W_enc.shape
    target = Target(weights.W_dec.shape[-1], weights.W_skip is not None) if transcodes else None
    d_out = target.d if target else d
    shapes = {"W_dec": (n_features, d_out), "b_enc": (n_features,), "b_dec": (d_out,)}
    shapes |= {"b_in": (d,)} if weights.b_in is not None else {}
    shapes |= {"W_skip": (d_out, d)} if weights.W_skip is not None else {}
    for name, shape in shapes.items():
        if getattr(weights, name).shape != shape:
            raise ValueError(
                f"The encoder is (d, F) = {(d, n_features)}, so {name} should be {shape}, but it is "
                f"{tuple(getattr(weights, name).shape)}."
            )
    config = {"k": 1, **config} if config["kind"] in ("relu", "jumprelu") else config
    if weights.threshold is not None and weights.threshold.ndim and config["kind"] != "jumprelu":
        config["threshold"] = "per_feature"
    sae = SAE(SAEConfig(width=n_features, **config), d, target)
    b_enc = weights.b_enc if weights.centred or target else weights.b_enc + weights.b_dec @ weights.W_enc
    b_enc = b_enc if weights.b_in is None else b_enc - weights.b_in @ weights.W_enc
    with torch.no_grad():
        for name, tensor in (("W_enc", weights.W_enc), ("b_enc", b_enc), ("W_dec", weights.W_dec)):
            getattr(sae, name).copy_(tensor)
        if weights.W_skip is not None:
            sae.W_skip.copy_(weights.W_skip)
        sae.b_dec.copy_(weights.b_dec)
        if weights.threshold is not None:
            sae.threshold.copy_(weights.threshold)
    return sae.eval()


def group_fractions(sizes: Sequence[int]) -> tuple[float, ...]:
    """Matryoshka groups as shares of the latents, from their sizes."""
    return tuple(size / sum(sizes) for size in sizes)


def just_below(threshold: Tensor) -> Tensor:
    """The next smaller float32 of a threshold, for libraries that compare with `>=` where `lib.SAE` does with `>`."""
    return torch.nextafter(threshold.detach().float(), torch.tensor(-torch.inf)).double()
