"""Sparse autoencoders: what they are configured by, what they compute, and how they are stored.

An SAE reads x (d,) as x ≈ b_dec + sum_j f_j W_dec[j] with sparse, non-negative codes f (F,) (arXiv 2504.02821).
Training is elsewhere: `lib.training` runs the loop, `lib.objectives` holds each kind's loss and gradients.
"""

import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lib.artifacts import replacing
from lib.devices import bring, choose_device, to_cpu
from lib.sae_origin import Origin
from lib.sparse_codes import Codes, Encoder
from lib.training_log import read_metrics

PENALISED = ("relu", "jumprelu", "gated")
"""Kinds without a k: a penalty decides how many latents are active."""

CHOICES = {
    "lr_rule": ("paper", "code"),
    "threshold": ("scalar", "per_feature"),
    "matryoshka_loss": ("paper", "mean", "code"),
    "data_order": ("reshuffle", "replay"),
    "encoder_dtype": ("auto", "float32", "bfloat16"),
    "init": ("random", "data"),
    "input_norm": ("none", "layer_norm", "unit_rms"),
}


@dataclass(frozen=True)
class SAEConfig:
    """Everything that determines an SAE and its training; the defaults are the recipe of arXiv 2504.02821.

    "paper" and "code" name the choices where the paper's text and the authors' released code disagree.
    Settings in steps are those of a long run; short runs shorten them, as each field says.
    """

    kind: str = "batchtopk"
    """relu, topk, batchtopk, matryoshka, jumprelu, gated, vsae or archetypal; later kinds register themselves in
    `KINDS` and `OBJECTIVES`. signed_topk comes from other libraries (`lib.hub`) and is not trained here."""
    expansion: float = 8
    """Latents per input dimension, F / d."""
    width: int | None = None
    """Number of latents F; overrides `expansion`."""
    k: int = 20
    """Active latents per row: at most (topk, vsae, archetypal) or on average over the batch (batchtopk, matryoshka)."""
    group_fractions: tuple[float, ...] = (0.0625, 0.125, 0.25, 0.5625)
    """Matryoshka: shares of the latents in each group; the nested prefixes are their running sums."""
    matryoshka_loss: str = "paper"
    """paper: sum over the G prefixes' losses, as Bussmann et al. (arXiv 2503.17547) define it; mean: 1/G of it, so that
    it weighs against the auxiliary loss as one reconstruction does; code: 1/G² of it. It matters beside the auxiliary
    loss and clipping alone, for Adam takes no notice of the loss's scale."""
    l1: float = 0.02
    """relu, gated: weight of the codes' (the gates') sum in the loss, in units of the normalised input."""
    l0: float = 0.01
    """jumprelu: weight of the number of active latents in the loss, in units of the normalised input."""
    bandwidth: float = 0.001
    """jumprelu: width of the smeared jump by which thresholds learn, and where they begin; the default is the paper's.
    Short runs need a wider one, for few codes lie within it."""
    noise: float = 0.1
    """vsae: standard deviation of the latents while training, in units of the normalised input."""
    kl: float = 1e-5
    """vsae: weight of the latents' divergence from their prior."""
    archetypes: int | None = None
    """archetypal: rows of the data that the decoder's rows are mixtures of; None: four for each latent."""
    relaxation: float = 0.1
    """archetypal: how far an atom may leave the points' convex hull, in units of the normalised input; 0: not at all.
    The authors' library has 1."""
    init: str = "random"
    """Where decoder rows begin. random: directions, or archetypes, that the seed draws; data: rows of the data, the
    same for every seed."""
    steps: int = 100_000
    """Optimiser steps; paper: 100,000 (the code runs 110,000 and evaluates the checkpoint at 100,000)."""
    batch_size: int = 4096
    """Activations per step."""
    seed: int = 0
    """Initial weights."""
    data_seed: int = 0
    """Order of the activations; SAEs trained in one pass share it."""
    data_order: str = "reshuffle"
    """reshuffle: another order every epoch; replay: the code's, which repeats the first epoch's batches for ever."""
    lr: float | None = None
    """Learning rate; None: by `lr_rule`."""
    lr_rule: str = "paper"
    """paper: 16 / (125 sqrt(F)); code: 16 / (625 sqrt(F)), five times smaller."""
    warmup_steps: int = 1000
    """Linear rise of the learning rate; at most a tenth of the run."""
    decay_start: int | None = None
    """Step from which the learning rate falls linearly to 0 at the end; None: never, as the code does in effect."""
    beta1: float = 0.9
    """Adam's decay of the first moment."""
    beta2: float = 0.999
    """Adam's decay of the second moment."""
    clip_norm: float = 1.0
    """Largest norm of the whole gradient."""
    normalize: bool = True
    """Train on x / sqrt(mean |x|²); the factor is folded into the biases and the threshold at the end."""
    normalization_batches: int = 100
    """Batches that estimate the factor; at most one epoch."""
    aux_alpha: float = 0.03
    """Weight of the auxiliary loss, by which dead latents learn to predict the residual; 0: none."""
    aux_k: int | None = None
    """Dead latents that take part per row; None: d / 2."""
    dead_after: int = 10_000_000
    """Activations without firing after which a latent counts as dead; at most a twentieth of the run."""
    threshold: str = "scalar"
    """Inference threshold. scalar: the code's single one; per_feature: the paper's vector, one for each latent."""
    threshold_beta: float = 0.999
    """Decay of its moving average over the batches' smallest kept codes; its horizon is at most a tenth of the run."""
    threshold_start: int = 1000
    """Steps before the average starts; at most a tenth of the run."""
    encoder_dtype: str = "auto"
    """bfloat16: screen the latents by a bfloat16 product, then compute the survivors in float32 (exact); float32: one
    float32 product; auto: bfloat16 on processors that multiply it in hardware (AMX), else float32."""
    input_norm: str = "none"
    """What an SAE from another library does to each input by itself before the encoder, and undoes after the decoder.
    layer_norm: subtract the mean over d, divide by the standard deviation; unit_rms: divide by |x| / sqrt(d)."""
    log_every: int = 100
    """Steps between lines of metrics.jsonl."""
    checkpoint_every: int = 5000
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "group_fractions", tuple(self.group_fractions))
        object.__setattr__(self, "expansion", float(self.expansion))  # 8 and 8.0 are one spec
        if self.kind not in KINDS:
            raise ValueError(f"Unknown SAE kind {self.kind!r}; choose one of {', '.join(sorted(KINDS))}.")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown; choose one of {', '.join(choices)}.")
        for name in ("k", "steps", "batch_size", "log_every", "checkpoint_every", "normalization_batches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")
        for name in ("bandwidth", "noise"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name):g}.")
        if self.relaxation < 0:
            raise ValueError(f"relaxation is a distance and cannot be {self.relaxation:g}.")
        if self.kind == "matryoshka" and abs(sum(self.group_fractions) - 1) > 1e-3:
            raise ValueError(f"group_fractions must sum to 1, not {sum(self.group_fractions):g}.")

    @property
    def patience(self) -> int:
        """Activations without firing after which a latent counts as dead in this run."""
        return min(self.dead_after, max(1, self.steps * self.batch_size // 20))

    def n_features(self, d: int) -> int:
        """Number of latents F for inputs of width d; raises ValueError where F and k or the groups do not fit."""
        n = self.width if self.width is not None else round(self.expansion * d)
        if n < 1:
            raise ValueError(f"An SAE needs at least one latent; expansion {self.expansion:g} of width {d} gives {n}.")
        if self.kind not in PENALISED and self.k > n:
            raise ValueError(f"k = {self.k} active latents do not fit into F = {n}; lower k or widen the SAE.")
        return n

    def group_ends(self, n_features: int) -> tuple[int, ...]:
        """Widths of the nested prefixes, the last one being F; a single one unless the kind is matryoshka."""
        if self.kind != "matryoshka":
            return (n_features,)
        ends = *(int(share * n_features + 1e-6) for share in accumulate(self.group_fractions[:-1])), n_features
        if any(b <= a for a, b in zip((0, *ends), ends, strict=False)):
            raise ValueError(f"group_fractions {self.group_fractions} leave a group of F = {n_features} latents empty.")
        return ends

    @classmethod
    def from_dict(cls, values: dict) -> "SAEConfig":
        """The config of `dataclasses.asdict`; raises ValueError naming fields that this version does not know."""
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"Unknown SAE config fields: {', '.join(sorted(unknown))}.")
        return cls(**values)


KINDS: dict[str, Callable[["SAE", Tensor], Tensor]] = {}
"""By kind: pre-activations (B, F) to codes (B, F) at inference."""


def register_kind(*names: str) -> Callable:
    """Decorate the inference activation of a kind of SAE."""

    def register(function: Callable[["SAE", Tensor], Tensor]) -> Callable[["SAE", Tensor], Tensor]:
        KINDS.update(dict.fromkeys(names, function))
        return function

    return register


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
        self.config, self.d, self.n_features = config, d, config.n_features(d)
        self.origin: Origin | None = None
        self.history: list[dict[str, float]] = []
        config.group_ends(self.n_features)
        generator = torch.Generator().manual_seed(config.seed)
        directions = torch.rand(self.n_features, d, generator=generator).mul_(2).sub_(1)
        directions = nn.functional.normalize(directions, dim=1)
        self.W_enc = nn.Parameter(directions.clone().t())
        self.b_enc = nn.Parameter(torch.zeros(self.n_features))
        self.W_dec = nn.Parameter(directions)
        self.b_dec = nn.Parameter(torch.zeros(d))
        if config.kind == "gated":
            self.r_mag, self.b_mag = (nn.Parameter(torch.zeros(self.n_features)) for _ in range(2))
        per_feature = config.threshold == "per_feature" and config.kind in ("batchtopk", "matryoshka")
        per_feature = per_feature or config.kind == "jumprelu"
        self.register_buffer("threshold", torch.full((self.n_features,) if per_feature else (), -1.0))

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
            encoder = Encoder(self.W_enc.t(), self.b_enc)
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

    def save(self, folder: str | os.PathLike) -> None:
        """Write `config.json` and `model.safetensors` into the folder."""
        folder = Path(folder)
        with replacing(folder / "model.safetensors") as temporary:
            save_file({name: to_cpu(tensor).contiguous() for name, tensor in self.state_dict().items()}, temporary)
        with replacing(folder / "config.json") as temporary:
            about = {"d": self.d, **asdict(self.config)} | ({"origin": self.origin.to_dict()} if self.origin else {})
            temporary.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | os.PathLike, device: str | torch.device = "auto") -> "SAE":
        """Read what `save` wrote; raises FileNotFoundError or ValueError in one sentence."""
        folder = Path(folder)
        for name in ("config.json", "model.safetensors"):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"No SAE in {folder}: {name} is missing.")
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        d, origin = values.pop("d"), Origin.from_dict(values.pop("origin", None))
        sae = cls(SAEConfig.from_dict(values), d)
        sae.origin, sae.history = origin, read_metrics(folder)
        try:
            sae.load_state_dict(load_file(folder / "model.safetensors"))
        except RuntimeError as error:
            raise ValueError(f"The weights in {folder} do not belong to its config.json: {error}") from error
        return sae.to(choose_device(device))
