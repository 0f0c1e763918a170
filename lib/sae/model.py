"""Sparse autoencoders: what they are configured by, what they compute, and how they are stored.

An SAE reads x (d,) as x ≈ b_dec + sum_j f_j W_dec[j] with sparse, non-negative codes f (F,) (arXiv 2504.02821).
Training is elsewhere: `lib.sae.training` runs the loop, `lib.sae.objectives` holds each kind's loss and gradients.
"""

import json
import math
import os
import warnings
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lib.artifacts import (
    check_file,
    check_files,
    digest_of,
    load_tensors,
    replacing,
    save_tensors,
    sound_meta,
    write_meta,
)
from lib.devices import bring, choose_device
from lib.files import naming, quoted, read_json, safetensors_header
from lib.sae.config import KINDS, PENALISED, SAEConfig, register_kind
from lib.sae.origin import Origin
from lib.sae.selection import Codes, PreActivations
from lib.sae.training_log import read_metrics

__all__ = ["KINDS", "PENALISED", "SAE", "SAEConfig", "register_kind"]


@register_kind("relu", "batchtopk", "matryoshka", "jumprelu")
def above_threshold(sae: "SAE", pre: Tensor) -> Tensor:
    """ReLU, then zero what does not exceed the learned threshold (0 for relu, one for each latent for jumprelu)."""
    return torch.where(pre > sae.threshold.clamp(min=0), pre, 0)


@register_kind("topk", "vsae", "archetypal")
def row_top_k(sae: "SAE", pre: Tensor) -> Tensor:
    """The k largest positive pre-activations of each row."""
    top = pre.topk(sae.config.k, dim=-1)
    return torch.zeros_like(pre).scatter(-1, top.indices, top.values.clamp(min=0))


@register_kind("signed_topk")
def row_top_k_signed(sae: "SAE", pre: Tensor) -> Tensor:
    """The k largest pre-activations of each row, negative ones among them where fewer than k are positive (saev's)."""
    top = pre.topk(sae.config.k, dim=-1)
    return torch.zeros_like(pre).scatter(-1, top.indices, top.values)


@register_kind("gated")
def gated_magnitude(sae: "SAE", pre: Tensor) -> Tensor:
    """The pre-activation is the gate: where it is positive, ReLU of the magnitude exp(r_mag) x W_enc + b_mag."""
    magnitude = (pre - sae.b_enc) * sae.r_mag.exp() + sae.b_mag
    return torch.where(pre > 0, magnitude.relu(), 0)


def input_scale(x: Tensor, norm: str) -> tuple[Tensor, Tensor]:
    """Shift and scale (..., 1) by which an `input_norm` other than none brings x (..., d) to (x - shift) / scale."""
    if norm == "layer_norm":
        return x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
    rms = torch.linalg.vector_norm(x, dim=-1, keepdim=True) / math.sqrt(x.shape[-1])
    return torch.zeros_like(rms), rms


class SAE(nn.Module):
    """A sparse autoencoder: W_enc (d, F), b_enc (F,), W_dec (F, d) with unit rows, b_dec (d,), threshold () or (F,).

    The kind gated also has r_mag (F,) and b_mag (F,). `W_enc` is stored by latent, as `W_dec` is; its strides show it,
    its shape does not. Decoder rows that another library trained keep the norms that it gave them.

    `origin`: what it was trained on, where known. `history`: the rows of its training's log, oldest first.

    It takes activations and codes from any device, of any float type, tensors or numpy arrays, and answers where its
    weights are, in their type.
    """

    def __init__(self, config: SAEConfig, d: int) -> None:
        super().__init__()
        shapes = weight_shapes(config, d)
        self.config, self.d, self.n_features = config, d, shapes["W_dec"][0]
        self.origin: Origin | None = None
        self.history: list[dict[str, float]] = []
        generator = torch.Generator().manual_seed(config.seed)
        try:
            directions = torch.rand(self.n_features, d, generator=generator).mul_(2).sub_(1)
        except RuntimeError as error:
            gib = 8 * self.n_features * d / 2**30
            raise ValueError(f"an SAE of {self.n_features:,} latents takes {gib:,.0f} GiB: choose fewer") from error
        directions = nn.functional.normalize(directions, dim=1)
        self.W_enc = nn.Parameter(directions.clone().t())
        self.b_enc = nn.Parameter(torch.zeros(self.n_features))
        self.W_dec = nn.Parameter(directions)
        self.b_dec = nn.Parameter(torch.zeros(d))
        if config.kind == "gated":
            self.r_mag, self.b_mag = (nn.Parameter(torch.zeros(self.n_features)) for _ in range(2))
        self.register_buffer("threshold", torch.full(shapes["threshold"], -1.0))

    def extra_repr(self) -> str:
        return f"kind={self.config.kind}, d={self.d}, n_features={self.n_features}"

    def pre_activations(self, x: Tensor | np.ndarray) -> Tensor:
        """(..., d) to (..., F), before the activation function."""
        return (self._normalized(self._checked(x)) - self.b_dec) @ self.W_enc + self.b_enc

    def encode(self, x: Tensor | np.ndarray) -> Tensor:
        """Codes (..., F) of x (..., d): non-negative (but for kind signed_topk), zero where inactive."""
        return KINDS[self.config.kind](self, self.pre_activations(x))

    @torch.no_grad()
    def encode_sparse(self, x: Tensor | np.ndarray, chunk: int = 4096) -> Tensor:
        """Codes of x (rows, d) as a torch sparse CSR tensor (rows, F); `chunk` rows are dense at a time."""
        x = self._checked(x)
        if x.ndim != 2:
            raise ValueError(f"encode_sparse takes (rows, d) activations, not a tensor of shape {tuple(x.shape)}.")
        parts = [self._sparse_codes(part) for part in x.split(chunk)]
        counts = torch.cat([part.offsets.diff() for part in parts])
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        features, values = (torch.cat([getattr(part, name) for part in parts]) for name in ("features", "values"))
        return Codes(features, features, values, offsets).to_csr(self.n_features)

    def _sparse_codes(self, x: Tensor) -> Codes:
        """Thresholding kinds take the few latents above the lowest threshold; others their dense codes' non-zeros."""
        if KINDS[self.config.kind] is above_threshold:
            encoder = PreActivations(self.W_enc.t(), self.b_enc)
            flat, values = encoder.above(self._normalized(x) - self.b_dec, max(0.0, float(self.threshold.min())))
            if self.threshold.ndim:
                keep = values > self.threshold[flat % self.n_features]
                flat, values = flat[keep], values[keep]
        else:
            dense = self.encode(x).view(-1)
            flat = dense.nonzero().squeeze(1)
            values = dense[flat]
        return Codes.from_flat(flat, values, len(x), self.n_features)

    def decode(self, codes: Tensor | np.ndarray, x: Tensor | np.ndarray | None = None) -> Tensor:
        """Reconstruction (..., d) of codes (..., F), dense or sparse CSR (rows, F).

        An SAE with an `input_norm` also needs the inputs x (..., d), whose shift and scale it gives back.
        """
        codes = bring(codes, self.W_dec, self.W_dec.dtype)
        if codes.shape[-1:] != (self.n_features,):
            raise ValueError(f"This SAE has {self.n_features} latents; the codes have shape {tuple(codes.shape)}.")
        decoded = codes @ self.W_dec + self.b_dec
        if self.config.input_norm == "none":
            return decoded
        if x is None:
            raise ValueError(
                f"This SAE normalises each input ({self.config.input_norm}): call decode(codes, x) with the inputs x."
            )
        shift, scale = input_scale(self._checked(x), self.config.input_norm)
        return decoded * scale + shift

    def forward(self, x: Tensor | np.ndarray) -> Tensor:
        """Reconstruction (..., d), in the units of x."""
        return self.decode(self.encode(x), x)

    def _normalized(self, x: Tensor) -> Tensor:
        """What the encoder reads of x (..., d)."""
        if self.config.input_norm == "none":
            return x
        shift, scale = input_scale(x, self.config.input_norm)
        return (x - shift) / (scale + (1e-5 if self.config.input_norm == "layer_norm" else 0.0))

    def _checked(self, x: Tensor | np.ndarray) -> Tensor:
        x = bring(x, self.W_enc, self.W_enc.dtype)
        if x.shape[-1:] != (self.d,):
            raise ValueError(f"This SAE reads activations of width {self.d}; these have shape {tuple(x.shape)}.")
        return x

    @torch.no_grad()
    def rescale_(self, factor: float) -> "SAE":
        """Make an SAE of x / factor one of x: codes and reconstructions scale with the input."""
        for name in ("b_enc", "b_dec", "threshold", *(["b_mag"] if self.config.kind == "gated" else [])):
            getattr(self, name).mul_(factor)
        return self

    def check_finite(self, where: str) -> None:
        """Raise ValueError where a weight is NaN or infinite; `where` begins the sentence."""
        broken = [name for name, tensor in self.state_dict().items() if not tensor.isfinite().all()]
        if broken:
            raise ValueError(f"{where} holds NaN or infinity in {', '.join(broken)}: such an SAE computes nothing.")

    def save(self, folder: str | os.PathLike, meta: dict | None = None) -> None:
        """Write `config.json` and `model.safetensors`, which carries the digests of both, into the folder.

        meta: what `meta.json` is to say beside the digests; without it there is none. Raises ValueError for weights not
        finite.
        """
        self.check_finite("This SAE is not saved: it")
        folder, about = Path(folder).expanduser(), {"d": self.d, **asdict(self.config)}
        about |= {"origin": self.origin.to_dict()} if self.origin else {}
        if meta is None and (folder / "meta.json").is_file():
            if not (folder / "model.safetensors").is_file():
                raise ValueError(f"{folder} holds an artifact that is no SAE: save this one into a folder of its own.")
            (folder / "meta.json").unlink()  # of the SAE that lay there
        with replacing(folder / "config.json") as temporary:
            temporary.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
            config = digest_of(temporary)
        with replacing(folder / "model.safetensors") as temporary:
            weights = save_tensors(self.state_dict(), temporary, {"config": config})
        if meta is not None:
            write_meta(folder, {**meta, "digests": {"config.json": config, "model.safetensors": weights}})

    @classmethod
    def load(cls, folder: str | os.PathLike, device: str | torch.device = "auto") -> "SAE":
        """Read what `save` wrote; raises FileNotFoundError or ValueError in one sentence that names the file.

        Files that are not as they were written are refused; a damaged metrics.jsonl only costs the history.
        """
        folder = Path(folder).expanduser()
        for name in ("config.json", "model.safetensors"):
            if not (folder / name).exists():
                raise FileNotFoundError(f"No SAE in {folder}: {name} is missing.")
        values = read_json(folder / "config.json")
        with naming(folder / "config.json"):
            d, origin = _width(values.pop("d", None)), Origin.from_dict(values.pop("origin", None))
            config = SAEConfig.from_dict(values)
            shapes = weight_shapes(config, d)
        check_files(folder, sound_meta(folder) or {})
        sae = _of_file(config, d, shapes, folder / "model.safetensors")
        sae.origin, sae.history = origin, _history(folder)
        return sae.to(choose_device(device))


def _history(folder: Path) -> list[dict[str, float]]:
    """The rows of a folder's training log; none where it is damaged, which a warning says."""
    try:
        return read_metrics(folder)
    except ValueError as error:
        warnings.warn(f"{error}; the SAE is loaded without its history.", stacklevel=3)
        return []


def weight_shapes(config: SAEConfig, d: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of each weight of such an SAE. Raises ValueError where F, k and the groups do not fit."""
    n_features = config.n_features(d)
    config.group_ends(n_features)
    per_feature = config.threshold == "per_feature" and config.kind in ("batchtopk", "matryoshka")
    shapes = {"W_enc": (d, n_features), "b_enc": (n_features,), "W_dec": (n_features, d), "b_dec": (d,)}
    shapes |= {name: (n_features,) for name in ("r_mag", "b_mag") if config.kind == "gated"}
    return shapes | {"threshold": (n_features,) if per_feature or config.kind == "jumprelu" else ()}


def _width(d: object) -> int:
    if not isinstance(d, int) or isinstance(d, bool) or d < 1:
        raise ValueError(f"d, the width of the activations, must be an integer of at least 1, not {quoted(d)}.")
    return d


def _of_file(config: SAEConfig, d: int, shapes: dict[str, tuple[int, ...]], path: Path) -> SAE:
    """The SAE of this config with the weights of a file, whose header is compared with the config first."""
    found, metadata = safetensors_header(path)
    wrong = [f"{name} is missing" for name in shapes if name not in found]
    wrong += [f"{quoted(name)} is not a weight of it" for name in found if name not in shapes]
    wrong += [
        f"{name} has shape {found[name].shape} and not {shape}"
        for name, shape in shapes.items()
        if name in found and found[name].shape != shape
    ]
    kinds = {name: found[name].dtype for name in shapes if name in found}
    wrong += [f"{name} is of type {dtype}" for name, dtype in kinds.items() if dtype[0] != "F" and dtype != "BF16"]
    if wrong:
        raise ValueError(f"The weights in {path} do not belong to its config.json: {'; '.join(wrong[:4])}.")
    check_file(path.with_name("config.json"), metadata.get("config"))
    sae = SAE(config, d)
    sae.load_state_dict(load_tensors(path)[0])
    sae.check_finite(str(path))
    return sae
