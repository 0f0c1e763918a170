"""`SAE`: the model, the activation functions of its kinds, saving and loading.

An SAE reads x (d,) as x ≈ b_dec + sum_j f_j W_dec[j] with sparse, non-negative codes f (F,) (arXiv 2504.02821).
Training is elsewhere: `lib.sae.training` runs the loop, `lib.sae.objectives` holds each kind's loss and gradients.
"""

import json
import math
import os
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lib.devices import bring, choose_device
from lib.sae.config import BY_BATCH, KINDS, PENALISED, RANGES, SAEConfig
from lib.sae.origin import Origin, Target
from lib.sae.selection import Codes, PreActivations
from lib.sae.training_log import read_metrics
from storage import (
    check_file,
    check_files,
    checked_meta,
    digest_of,
    load_tensors,
    replacing,
    save_tensors,
    write_meta,
)
from storage.files import naming, quoted, read_json, safetensors_header

__all__ = ["KINDS", "PENALISED", "SAE", "SAEConfig"]


def above_threshold(sae: "SAE", pre: Tensor) -> Tensor:
    """ReLU, then zero what does not exceed the learned threshold (0 for relu, one for each latent for jumprelu)."""
    return torch.where(pre > sae.threshold.clamp(min=0), pre, 0)


def row_top_k(sae: "SAE", pre: Tensor) -> Tensor:
    """The k largest positive pre-activations of each row."""
    top = pre.topk(sae.config.k, dim=-1)
    return torch.zeros_like(pre).scatter(-1, top.indices, top.values.clamp(min=0))


def row_top_k_signed(sae: "SAE", pre: Tensor) -> Tensor:
    """The k largest pre-activations of each row, with negative ones where fewer than k are positive (as in saev)."""
    top = pre.topk(sae.config.k, dim=-1)
    return torch.zeros_like(pre).scatter(-1, top.indices, top.values)


def gated_magnitude(sae: "SAE", pre: Tensor) -> Tensor:
    """The pre-activation is the gate: where it is positive, ReLU of the magnitude exp(r_mag) x W_enc + b_mag."""
    magnitude = (pre - sae.b_enc) * sae.r_mag.exp() + sae.b_mag
    return torch.where(pre > 0, magnitude.relu(), 0)


KINDS |= dict.fromkeys(("relu", "jumprelu", *BY_BATCH), above_threshold)
KINDS |= dict.fromkeys(("topk", "vsae", "archetypal", "frozen_decoder", "frozen_encoder"), row_top_k)
KINDS |= {"signed_topk": row_top_k_signed, "gated": gated_magnitude}


def input_scale(x: Tensor, norm: str) -> tuple[Tensor, Tensor]:
    """Shift and scale (..., 1) by which an `input_norm` other than none brings x (..., d) to (x - shift) / scale."""
    if norm == "layer_norm":
        return x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
    rms = torch.linalg.vector_norm(x, dim=-1, keepdim=True) / math.sqrt(x.shape[-1])
    return torch.zeros_like(rms), rms


class SAE(nn.Module):
    """A sparse autoencoder: W_enc (d, F), b_enc (F,), W_dec (F, d) with unit rows, b_dec (d,), threshold () or (F,).

    The kind gated also has r_mag (F,) and b_mag (F,). `W_enc` is a transposed view of memory that is ordered by latent,
    as `W_dec` is. Decoder rows that another library trained keep their norms.

    With a `target` it is a transcoder (arXiv 2406.11944): it reads x at one site and predicts y (target.d,) at another,
    such as what an MLP makes of x: y ≈ b_dec + sum_j f_j W_dec[j], and + W_skip x, (target.d, d), with `target.skip`.

    `origin`: what it was trained on, where known. `history`: the rows of its training's log, oldest first.

    Methods take activations and codes as tensors on any device or numpy arrays, of any float dtype, and return tensors
    on the device of the weights and in their dtype.
    """

    def __init__(self, config: SAEConfig, d: int, target: Target | None = None) -> None:
        super().__init__()
        shapes = weight_shapes(config, d, target)
        self.config, self.d, self.n_features, self.target = config, d, shapes["W_dec"][0], target
        self.origin: Origin | None = None
        self.history: list[dict[str, float]] = []
        generator = torch.Generator().manual_seed(config.seed)
        try:
            drawn = [torch.rand(self.n_features, d, generator=generator).mul_(2).sub_(1)]
            drawn += [torch.rand(shapes["W_dec"], generator=generator).mul_(2).sub_(1)] if target else []
        except RuntimeError as error:
            gib = 8 * self.n_features * d / 2**30
            raise ValueError(f"an SAE of {self.n_features:,} latents takes {gib:,.0f} GiB: choose fewer") from error
        drawn = [nn.functional.normalize(directions, dim=1) for directions in drawn]
        self.W_enc = nn.Parameter(drawn[0].clone().t())
        self.b_enc = nn.Parameter(torch.zeros(self.n_features))
        self.W_dec = nn.Parameter(drawn[-1])
        self.b_dec = nn.Parameter(torch.zeros(shapes["b_dec"]))
        if "W_skip" in shapes:
            self.W_skip = nn.Parameter(torch.zeros(shapes["W_skip"]))
        if config.kind == "gated":
            self.r_mag, self.b_mag = (nn.Parameter(torch.zeros(self.n_features)) for _ in range(2))
        self.register_buffer("threshold", torch.full(shapes["threshold"], -1.0))

    def extra_repr(self) -> str:
        target = f", target={self.target}" if self.target else ""
        return f"kind={self.config.kind}, d={self.d}, n_features={self.n_features}{target}"

    def pre_activations(self, x: Tensor | np.ndarray) -> Tensor:
        """Pre-activations (..., F) of x (..., d), before the activation function."""
        return self._centred(self._checked(x)) @ self.W_enc + self.b_enc

    def encode(self, x: Tensor | np.ndarray) -> Tensor:
        """Codes (..., F) of x (..., d): non-negative (but for kind signed_topk), zero where inactive."""
        return KINDS[self.config.kind](self, self.pre_activations(x))

    @torch.no_grad()
    def encode_sparse(self, x: Tensor | np.ndarray, chunk: int = 4096) -> Tensor:
        """Codes of x (rows, d) as a torch sparse CSR tensor (rows, F), `chunk` rows at a time."""
        x = self._checked(x)
        if x.ndim != 2:
            raise ValueError(f"encode_sparse takes (rows, d) activations, not a tensor of shape {tuple(x.shape)}.")
        parts = [self._sparse_codes(part) for part in x.split(chunk)]
        counts = torch.cat([part.offsets.diff() for part in parts])
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        features, values = (torch.cat([getattr(part, name) for part in parts]) for name in ("features", "values"))
        return Codes(features, features, values, offsets).to_csr(self.n_features)

    def _sparse_codes(self, x: Tensor) -> Codes:
        """Codes of x (B, d): for thresholding kinds without dense codes, for others the non-zeros of dense codes."""
        if KINDS[self.config.kind] is above_threshold:
            encoder = PreActivations(self.W_enc.t(), self.b_enc)
            flat, values = encoder.above(self._centred(x), max(0.0, float(self.threshold.min())))
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

        An SAE with an `input_norm` or a skip connection also needs the inputs x (..., d); without them it raises
        ValueError.
        """
        codes = bring(codes, self.W_dec, self.W_dec.dtype)
        if codes.shape[-1:] != (self.n_features,):
            raise ValueError(f"This SAE has {self.n_features} latents; the codes have shape {tuple(codes.shape)}.")
        decoded = codes @ self.W_dec + self.b_dec
        norm, skips = self.config.input_norm, self.target is not None and self.target.skip
        if x is None and (skips or norm != "none"):
            why = "adds a linear map of each input" if skips else f"normalises each input ({norm})"
            raise ValueError(f"This SAE {why}: call decode(codes, x) with the inputs x.")
        if skips:
            decoded = decoded + self._checked(x) @ self.W_skip.t()
        if norm == "none":
            return decoded
        shift, scale = input_scale(self._checked(x), norm)
        return decoded * scale + shift

    def forward(self, x: Tensor | np.ndarray) -> Tensor:
        """Reconstruction (..., d), in the units of x; of a transcoder, its prediction (..., target.d)."""
        return self.decode(self.encode(x), x)

    def _centred(self, x: Tensor) -> Tensor:
        """x (..., d) after the `input_norm`, less b_dec unless that is of another site."""
        if self.config.input_norm != "none":
            shift, scale = input_scale(x, self.config.input_norm)
            x = (x - shift) / (scale + (1e-5 if self.config.input_norm == "layer_norm" else 0.0))
        return x if self.target else x - self.b_dec

    def _checked(self, x: Tensor | np.ndarray) -> Tensor:
        x = bring(x, self.W_enc, self.W_enc.dtype)
        if x.shape[-1:] != (self.d,):
            raise ValueError(f"This SAE reads activations of width {self.d}; these have shape {tuple(x.shape)}.")
        return x

    @torch.no_grad()
    def rescale_(self, factor: float, inputs: float | None = None) -> "SAE":
        """Turn an SAE of x / factor into one of x, in place: codes and reconstructions scale with the input.

        inputs: of a transcoder of x / inputs that predicts y / factor, where they differ.
        """
        for name in ("W_enc", *(["W_skip"] if self.target.skip else [])) if self.target else ():
            getattr(self, name).mul_(factor / (inputs or factor))
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

        meta: entries of `meta.json` besides the digests; None writes no such file. Raises ValueError for weights that
        are not finite.
        """
        self.check_finite("This SAE is not saved: it")
        folder, about = Path(folder).expanduser(), {"d": self.d, **self.config.to_dict()}
        about |= {"target": self.target._asdict()} if self.target else {}
        about |= {"origin": self.origin.to_dict()} if self.origin else {}
        stale = meta is None and (folder / "meta.json").is_file()
        if stale and not (folder / "model.safetensors").is_file():
            raise ValueError(f"{folder} holds an artifact that is no SAE: save this one into a folder of its own.")
        with replacing(folder / "model.safetensors") as of_weights, replacing(folder / "config.json") as of_config:
            of_config.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
            config = digest_of(of_config)
            weights = save_tensors(self.state_dict(), of_weights, {"config": config})
            if stale:  # of the SAE that is replaced, which stays valid until both files are written
                (folder / "meta.json").unlink()
        if meta is not None:
            write_meta(folder, {**meta, "digests": {"config.json": config, "model.safetensors": weights}})

    @classmethod
    def load(cls, folder: str | os.PathLike, device: str | torch.device = "auto") -> "SAE":
        """Read what `save` wrote; raises FileNotFoundError or ValueError in one sentence that names the file.

        Files are checked against their digests; where only metrics.jsonl is damaged, the history is left empty.
        """
        folder = Path(folder).expanduser()
        for name in ("config.json", "model.safetensors"):
            if not (folder / name).exists():
                raise FileNotFoundError(f"No SAE in {folder}: {name} is missing.")
        values = read_json(folder / "config.json")
        with naming(folder / "config.json"):
            d, origin = _width(values.pop("d", None)), Origin.from_dict(values.pop("origin", None))
            target = _target(values.pop("target", None))
            config = SAEConfig.from_dict(values)
            shapes = weight_shapes(config, d, target)
        check_files(folder, checked_meta(folder) or {})
        sae = _with_weights(partial(cls, config, d, target), shapes, folder / "model.safetensors")
        sae.origin, sae.history = origin, _history(folder)
        return sae.to(choose_device(device))


def _history(folder: Path) -> list[dict[str, float]]:
    """The rows of a folder's training log; none, and a warning, where it is damaged."""
    try:
        return read_metrics(folder)
    except ValueError as error:
        warnings.warn(f"{error}; the SAE is loaded without its history.", stacklevel=3)
        return []


def weight_shapes(config: SAEConfig, d: int, target: Target | None = None) -> dict[str, tuple[int, ...]]:
    """{name: shape} of the weights of an SAE of this config. Raises ValueError where F, k and the groups do not fit."""
    n_features = config.n_features(d)
    config.group_ends(n_features)
    per_feature = config.threshold == "per_feature" and config.kind in BY_BATCH
    d_out = target.d if target else d
    shapes = {"W_enc": (d, n_features), "b_enc": (n_features,), "W_dec": (n_features, d_out), "b_dec": (d_out,)}
    shapes |= {"W_skip": (d_out, d)} if target and target.skip else {}
    shapes |= {name: (n_features,) for name in ("r_mag", "b_mag") if config.kind == "gated"}
    return shapes | {"threshold": (n_features,) if per_feature or config.kind == "jumprelu" else ()}


def _width(d: object) -> int:
    if not isinstance(d, int) or isinstance(d, bool) or not RANGES["width"][0](d):
        raise ValueError(f"d, the width of the activations, must be an integer {RANGES['width'][1]}, not {quoted(d)}.")
    return d


def _target(values: object) -> Target | None:
    """The target of a transcoder from config.json; None for an SAE. Raises ValueError for anything else."""
    if values is None:
        return None
    if not isinstance(values, dict) or set(values) != {"d", "skip"} or not isinstance(values["skip"], bool):
        raise ValueError(
            f"target, what a transcoder predicts, must be a width d and skip, true or false: {quoted(values)}."
        )
    return Target(_width(values["d"]), values["skip"])


def _with_weights(made: Callable[[], SAE], shapes: dict[str, tuple[int, ...]], path: Path) -> SAE:
    """An SAE with the weights of a file. Raises ValueError where the file's header does not fit its config."""
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
    sae = made()
    sae.load_state_dict(load_tensors(path)[0])
    sae.check_finite(str(path))
    return sae
