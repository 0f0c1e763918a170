"""Configuration of an SAE and its training, with the allowed values of each setting."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from inspect import Signature, signature
from itertools import accumulate, islice
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from storage.files import quoted

if TYPE_CHECKING:
    from lib.sae.model import SAE

KINDS: dict[str, Callable[[SAE, Tensor], Tensor]] = {}
"""The activation function of each kind: pre-activations (B, F) to codes (B, F) at inference."""


PENALISED = ("relu", "jumprelu", "gated")
"""Kinds without a k: a penalty decides how many latents are active."""

BY_BATCH = ("batchtopk", "matryoshka", "monoloss")
"""Kinds that keep k codes a row on average over the batch; at inference they have a threshold."""

CHOICES = {
    "lr_rule": ("paper", "code"),
    "threshold": ("scalar", "per_feature"),
    "matryoshka_loss": ("paper", "mean", "code"),
    "data_order": ("reshuffle", "replay"),
    "encoder_dtype": ("auto", "float32", "bfloat16"),
    "init": ("random", "data"),
    "input_norm": ("none", "layer_norm", "unit_rms"),
}

Range = tuple[Callable[[float], bool], str]

_ABOVE_0: Range = (lambda x: x > 0, "above 0")
_NOT_NEGATIVE: Range = (lambda x: x >= 0, "0 or more")
_AT_LEAST_1: Range = (lambda x: x >= 1, "at least 1")
_DECAY: Range = (lambda x: 0 <= x < 1, "from 0 to below 1")
_WIDTH: Range = (lambda x: 1 <= x <= 2**31, "from 1 to 2147483648")
_SEED: Range = (lambda x: abs(x) < 2**31, "between -2147483648 and 2147483648")

RANGES: dict[str, Range] = {
    **dict.fromkeys(("k", "steps", "batch_size", "log_every", "checkpoint_every"), _AT_LEAST_1),
    "width": _WIDTH,
    **dict.fromkeys(("archetypes", "aux_k", "normalization_batches", "dead_after"), _AT_LEAST_1),
    **dict.fromkeys(("expansion", "bandwidth", "noise", "lr", "clip_norm"), _ABOVE_0),
    **dict.fromkeys(("l1", "l0", "kl", "relaxation", "mono_weight", "aux_alpha"), _NOT_NEGATIVE),
    **dict.fromkeys(("warmup_steps", "decay_start", "threshold_start"), _NOT_NEGATIVE),
    **dict.fromkeys(("beta1", "beta2", "threshold_beta"), _DECAY),
    **dict.fromkeys(("seed", "data_seed"), _SEED),
}
"""The allowed range of each numeric field, and its words in errors."""

CONFIGS: dict[str, type[SAEConfig]] = {}
"""The config class of each kind; for kinds that are not listed it is `SAEConfig` itself."""


class _ByKind(type):
    """Metaclass that makes the config of the given `kind`, whichever class is called: for `dataclasses.replace` too."""

    def __call__(cls, *values: object, **settings: object) -> SAEConfig:
        given = cls.__signature__.bind_partial(*values).arguments
        if twice := given.keys() & settings:
            raise TypeError(f"SAEConfig got {', '.join(sorted(twice))} twice, by position and by name.")
        settings = {**given, **settings}
        kind = settings.setdefault("kind", cls.kind)
        made, known = _class_of(kind)
        for name in [name for name in settings if name not in known and name in DEFAULTS]:
            value = settings.pop(name)
            if (tuple(value) if isinstance(value, list) else value) != DEFAULTS[name]:
                kinds = " and ".join(other for other, config in CONFIGS.items() if hasattr(config, name))
                raise ValueError(f"{name} is a setting of {kinds}, and {kind} has no use for it: leave it out.")
        return super(_ByKind, made).__call__(**settings)

    @property
    def __signature__(cls) -> Signature:
        """Signature of the dataclass, for `help` and the API reference."""
        return Signature(list(signature(cls.__init__).parameters.values())[1:])


def _class_of(kind: object) -> tuple[type[SAEConfig], set[str]]:
    """The class of a kind's settings, and their names."""
    made = CONFIGS.get(kind, SAEConfig) if isinstance(kind, str) else SAEConfig
    return made, {field.name for field in fields(made)}


@dataclass(frozen=True)
class SAEConfig(metaclass=_ByKind):
    """Everything that determines an SAE and its training; the defaults are the recipe of arXiv 2504.02821.

    Settings that only one kind has are fields of that kind's class, which `SAEConfig(kind=..., ...)` makes: see
    `MatryoshkaConfig`, `ReLUConfig`, `JumpReLUConfig`, `VariationalConfig`, `ArchetypalConfig`, `MonoLossConfig`. k is
    shared, so that kinds can be compared at one k.

    "paper" and "code" name the choices where the paper's text and the authors' released code disagree.
    Settings in steps are those of a long run; short runs shorten them, as each field says.
    """

    kind: str = "batchtopk"
    """relu, topk, batchtopk, matryoshka, jumprelu, gated, vsae, archetypal, monoloss, or the nulls frozen_decoder and
    frozen_encoder; later kinds register themselves in `KINDS`, and their objectives as entry points. signed_topk comes
    from other libraries (`peers`) and is not trained here."""
    expansion: float = 8
    """Latents per input dimension, F / d."""
    width: int | None = None
    """Number of latents F; overrides `expansion`."""
    k: int = 20
    """Active latents per row: on average over the batch (`BY_BATCH`) or at most (other kinds with a k)."""
    init: str = "random"
    """Initial decoder rows. random: random directions, or archetypes, drawn by the seed; data: rows of the data, the
    same for every seed."""
    steps: int = 100_000
    """Optimiser steps; paper: 100,000 (the code runs 110,000 and evaluates the checkpoint at 100,000)."""
    batch_size: int = 4096
    """Activations per step."""
    seed: int = 0
    """Seed of the initial weights."""
    data_seed: int = 0
    """Seed of the order of the activations; SAEs trained in one pass share it."""
    data_order: str = "reshuffle"
    """reshuffle: another order every epoch; replay: as in the code, the first epoch's batches again and again."""
    lr: float | None = None
    """Learning rate; None: by `lr_rule`."""
    lr_rule: str = "paper"
    """paper: 16 / (125 sqrt(F)); code: 16 / (625 sqrt(F)), five times smaller."""
    warmup_steps: int = 1000
    """Steps of the learning rate's linear warm-up; at most a tenth of the run."""
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
    """Normalisation of each input before the encoder, undone after the decoder, of SAEs from other libraries.
    layer_norm: subtract the mean over d, divide by the standard deviation; unit_rms: divide by |x| / sqrt(d)."""
    log_every: int = 100
    """Steps between lines of metrics.jsonl."""
    checkpoint_every: int = 5000
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        for field in fields(self):
            name, value = field.name, _converted(field.name, field.type, getattr(self, field.name))
            object.__setattr__(self, name, value)
            if name in CHOICES and value not in CHOICES[name]:
                raise ValueError(f"{name}={quoted(value)} is unknown; choose one of {', '.join(CHOICES[name])}.")
            if name in RANGES and value is not None and not RANGES[name][0](value):
                raise ValueError(f"{name} must be {RANGES[name][1]}, not {value:g}.")
        if self.kind not in KINDS:
            raise ValueError(f"Unknown SAE kind {quoted(self.kind)}; choose one of {', '.join(sorted(KINDS))}.")

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
        return (n_features,)

    def to_dict(self) -> dict[str, object]:
        """All settings by name, as JSON types: those of this kind, and the defaults of those in `_WRITTEN`.

        Specs and config.json hold them, so that no hash depends on a setting's class or on kinds added later.
        """
        values = {**_WRITTEN, **asdict(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: dict) -> SAEConfig:
        """The config of `to_dict`; raises ValueError naming settings that this version does not know.

        Settings of other kinds, which older versions kept and which had no effect, are dropped.
        """
        _, known = _class_of(values.get("kind", cls.kind))
        if unknown := [name for name in values if name not in known and name not in DEFAULTS]:
            raise ValueError(f"Unknown SAE config fields: {', '.join(sorted(map(quoted, unknown[:8])))}.")
        return SAEConfig(**{name: value for name, value in values.items() if name in known})


@dataclass(frozen=True)
class MatryoshkaConfig(SAEConfig):
    """Settings of nested dictionaries (Bussmann et al., arXiv 2503.17547)."""

    kind: str = "matryoshka"
    group_fractions: tuple[float, ...] = (0.0625, 0.125, 0.25, 0.5625)
    """Shares of the latents in each group; the nested prefixes are their running sums."""
    matryoshka_loss: str = "paper"
    """paper: sum over the G prefixes' losses, as Bussmann et al. define it; mean: 1/G of it, so that it weighs against
    the auxiliary loss as one reconstruction does; code: 1/G² of it. It matters only relative to the auxiliary loss and
    to clipping, because Adam is invariant to the loss's scale."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.group_fractions, default=1) <= 0:
            raise ValueError(f"group_fractions must be above 0, not {min(self.group_fractions):g}.")
        if abs(sum(self.group_fractions) - 1) > 1e-3:
            raise ValueError(f"group_fractions must sum to 1, not {sum(self.group_fractions):g}.")

    def group_ends(self, n_features: int) -> tuple[int, ...]:
        """Widths of the nested prefixes, the last one being F. Raises ValueError where a group would be empty."""
        ends = *(int(share * n_features + 1e-6) for share in accumulate(self.group_fractions[:-1])), n_features
        if any(b <= a for a, b in zip((0, *ends), ends, strict=False)):
            raise ValueError(f"group_fractions {self.group_fractions} leave a group of F = {n_features} latents empty.")
        return ends


@dataclass(frozen=True)
class ReLUConfig(SAEConfig):
    """Settings of the kinds relu and gated, whose codes' sum is penalised."""

    kind: str = "relu"
    l1: float = 0.02
    """Weight of the codes' (the gates') sum in the loss, in units of the normalised input."""


@dataclass(frozen=True)
class JumpReLUConfig(SAEConfig):
    """Settings of latents with a trained threshold each (Rajamanoharan et al., arXiv 2407.14435)."""

    kind: str = "jumprelu"
    l0: float = 0.01
    """Weight of the number of active latents in the loss, in units of the normalised input."""
    bandwidth: float = 0.001
    """Width of the kernel in the thresholds' gradient, and their initial value; the default is the paper's. Short runs
    need a wider one, because few codes lie within it."""


@dataclass(frozen=True)
class VariationalConfig(SAEConfig):
    """Settings of variational SAEs, whose latents are sampled in training."""

    kind: str = "vsae"
    noise: float = 0.1
    """Standard deviation of the latents in training, in units of the normalised input."""
    kl: float = 1e-5
    """Weight of the KL divergence of the latents from their prior."""


@dataclass(frozen=True)
class ArchetypalConfig(SAEConfig):
    """Settings of dictionaries whose rows are mixtures of rows of the data (Fel et al., arXiv 2502.12892)."""

    kind: str = "archetypal"
    archetypes: int | None = None
    """Rows of the data that the decoder's rows are mixtures of; None: four for each latent, or all."""
    relaxation: float = 0.1
    """How far a decoder row may leave the points' convex hull, in units of the normalised input; 0: not at all. The
    authors' library has 1."""


@dataclass(frozen=True)
class MonoLossConfig(SAEConfig):
    """Settings of BatchTopK that is also trained for monosemantic latents (Nasiri-Sarvi et al., arXiv 2602.12403)."""

    kind: str = "monoloss"
    mono_weight: float = 0.1
    """Weight of 1 - the latents' mean Monosemanticity Score on the batch. The authors' code has .0003 (BatchTopK) and
    .09 (TopK) for CLIP; its squared errors have other units."""


CONFIGS |= {"matryoshka": MatryoshkaConfig, "relu": ReLUConfig, "gated": ReLUConfig, "jumprelu": JumpReLUConfig}
CONFIGS |= {"vsae": VariationalConfig, "archetypal": ArchetypalConfig}


def _own_settings() -> dict[str, object]:
    return {own.name: own.default for config in CONFIGS.values() for own in fields(config) if own.name not in _SHARED}


_SHARED = {field.name: field.default for field in fields(SAEConfig)}
_WRITTEN: dict[str, object] = dict(islice(_SHARED.items(), 4)) | _own_settings() | _SHARED
"""What every config.json holds, in its order: settings of single kinds follow kind, expansion, width and k."""

CONFIGS |= {"monoloss": MonoLossConfig}  # later kinds: only their own config.json holds their settings
DEFAULTS: dict[str, object] = _WRITTEN | _own_settings()
"""Each setting's default."""


def as_configs(config: object) -> list[SAEConfig]:
    """One config, or several, as a list. Raises TypeError for what is neither."""
    configs = list(config) if isinstance(config, Iterable) and not isinstance(config, str) else [config]
    if wrong := [one for one in configs if not isinstance(one, SAEConfig)]:
        raise TypeError(f"An SAE is configured by an SAEConfig, or a list of them, not by {quoted(wrong[0])}.")
    return configs


def _converted(name: str, annotation: str, value: object) -> object:
    """The value in the type of the field: int (integral floats too), float, bool, str or tuple of floats."""
    if value is None and annotation.endswith("| None"):
        return None
    wanted = annotation.removesuffix("| None").strip()
    if wanted.startswith("tuple") and isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return tuple(_converted(name, "float", item) for item in value)
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    number = number and abs(value) < 2**63  # neither NaN nor infinity is
    if wanted == "int" and number and float(value).is_integer():
        return int(value)
    if wanted == "float" and number:
        return float(value)
    if (wanted, type(value)) in (("bool", bool), ("str", str)):
        return value
    raise ValueError(f"{name} must be {_WORDS[wanted.split('[')[0]]}, not {quoted(value)}.")


_WORDS = {"int": "an integer", "float": "a finite number", "bool": "True or False", "str": "a word"}
_WORDS |= {"tuple": "a list of numbers"}
