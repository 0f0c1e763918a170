"""Bringing other libraries' conventions to those of `lib.SAE`: codes = act((x - b_dec) W_enc + b_enc).

Whatever is folded is folded in float64, so that codes and reconstructions stay those of the library.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from lib.hub.safe_files import names
from lib.sae.model import SAE, SAEConfig


@dataclass(frozen=True)
class Weights:
    """W_enc (d, F), b_enc (F,), W_dec (F, d), b_dec (d,), threshold () or (F,) or None, in float64.

    `centred`: b_dec is subtracted from the encoder's input, as here; some libraries only add it after the decoder.
    """

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    threshold: Tensor | None = None
    centred: bool = True

    @classmethod
    def of(cls, threshold: Tensor | None = None, centred: bool = True, **tensors: Tensor) -> "Weights":
        """The same from tensors of any float type. Raises ValueError for others."""
        if whole := [f"{name} ({tensor.dtype})" for name, tensor in tensors.items() if not tensor.is_floating_point()]:
            raise ValueError(f"Weights that are not floats, as quantisation leaves them, are not read: {whole[0]}.")
        threshold = None if threshold is None else threshold.detach().double()
        return cls(**{k: v.detach().double() for k, v in tensors.items()}, threshold=threshold, centred=centred)

    def with_unit_rows(self, norms: Tensor | None = None) -> "Weights":
        """Decoder rows divided by their norms (F,) and codes multiplied by them: the same reconstruction."""
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
        """A gated SAE as the JumpReLU that it equals (Rajamanoharan et al. 2024, arXiv 2404.16014, appendix).

        With p = x W_enc: the gate p + b_gate > 0 opens exactly where the magnitude exp(r) p + b_mag exceeds
        b_mag - exp(r) b_gate.
        """
        gain = r_mag.detach().double().exp()
        threshold = b_mag.detach().double() - gain * b_gate.detach().double()
        return cls.of(W_enc=W_enc.detach().double() * gain, b_enc=b_mag, threshold=threshold, **rest)


def assemble(weights: Weights, **config) -> SAE:
    """An SAE of these weights; `config` holds the fields of `SAEConfig` that matter for what it computes."""
    d, n_features = weights.W_enc.shape
    shapes = {"W_dec": (n_features, d), "b_enc": (n_features,), "b_dec": (d,)}
    for name, shape in shapes.items():
        if getattr(weights, name).shape != shape:
            raise ValueError(
                f"The encoder is (d, F) = {(d, n_features)}, so {name} should be {shape}, but it is "
                f"{tuple(getattr(weights, name).shape)}."
            )
    config = {"k": 1, **config} if config["kind"] in ("relu", "jumprelu") else config
    if weights.threshold is not None and weights.threshold.ndim and config["kind"] != "jumprelu":
        config["threshold"] = "per_feature"
    sae = SAE(SAEConfig(width=n_features, **config), d)
    b_enc = weights.b_enc if weights.centred else weights.b_enc + weights.b_dec @ weights.W_enc
    with torch.no_grad():
        for name, tensor in (("W_enc", weights.W_enc), ("b_enc", b_enc), ("W_dec", weights.W_dec)):
            getattr(sae, name).copy_(tensor)
        sae.b_dec.copy_(weights.b_dec)
        if weights.threshold is not None:
            sae.threshold.copy_(weights.threshold)
    return sae.eval()


def group_fractions(sizes: Sequence[int]) -> tuple[float, ...]:
    """Matryoshka groups as shares of the latents, from their sizes."""
    return tuple(size / sum(sizes) for size in sizes)


def just_below(threshold: Tensor) -> Tensor:
    """For libraries that keep what equals the threshold: the next smaller float32, which `>` then exceeds."""
    return torch.nextafter(threshold.detach().float(), torch.tensor(-torch.inf)).double()


def required(state: Mapping[str, Tensor], wanted: Sequence[str], path: Path) -> list[Tensor]:
    """The named tensors; raises ValueError telling which are missing and what is there."""
    missing = [name for name in wanted if not isinstance(dict.get(state, name), Tensor)]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; it holds {names(state)}.")
    return [state[name] for name in wanted]


def inexpressible(path: Path, what: str) -> ValueError:
    """The error for an SAE that `lib.SAE` cannot compute."""
    return ValueError(f"{path} cannot be loaded as an SAE here: {what}.")
