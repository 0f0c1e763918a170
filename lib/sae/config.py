"""What an SAE and its training are configured by, and what a value of each setting may be."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from lib.files import quoted

if TYPE_CHECKING:
    from lib.sae.model import SAE

KINDS: dict[str, Callable[[SAE, Tensor], Tensor]] = {}
"""By kind: pre-activations (B, F) to codes (B, F) at inference."""


def register_kind(*names: str) -> Callable:
    """Decorate the inference activation of a kind of SAE."""

    def register(function: Callable[[SAE, Tensor], Tensor]) -> Callable[[SAE, Tensor], Tensor]:
        KINDS.update(dict.fromkeys(names, function))
        return function

    return register


PENALISED = ("relu", "jumprelu", "gated")
"""Kinds without a k: a penalty decides how many latents are active."""

BUILT_IN = ("topk", "batchtopk", "matryoshka", "vsae", "archetypal", "signed_topk", *PENALISED)
"""Kinds whose settings are known here."""

CHOICES = {
    "lr_rule": ("paper", "code"),
    "threshold": ("scalar", "per_feature"),
    "matryoshka_loss": ("paper", "mean", "code"),
    "data_order": ("reshuffle", "replay"),
    "encoder_dtype": ("auto", "float32", "bfloat16"),
    "init": ("random", "data"),
    "input_norm": ("none", "layer_norm", "unit_rms"),
}

OWN_FIELDS = {
    **dict.fromkeys(("group_fractions", "matryoshka_loss"), ("matryoshka",)),
    "l1": ("relu", "gated"),
    **dict.fromkeys(("l0", "bandwidth"), ("jumprelu",)),
    **dict.fromkeys(("noise", "kl"), ("vsae",)),
    **dict.fromkeys(("archetypes", "relaxation"), ("archetypal",)),
}
"""Fields that only some kinds read, with those kinds. k is no such field: comparisons of kinds share it."""

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
    **dict.fromkeys(("l1", "l0", "kl", "relaxation", "aux_alpha"), _NOT_NEGATIVE),
    **dict.fromkeys(("warmup_steps", "decay_start", "threshold_start"), _NOT_NEGATIVE),
    **dict.fromkeys(("beta1", "beta2", "threshold_beta"), _DECAY),
    **dict.fromkeys(("seed", "data_seed"), _SEED),
}
"""What values of the numeric fields have to be, and how it is said."""


@dataclass(frozen=True)
class SAEConfig:
    """Everything that determines an SAE and its training; the defaults are the recipe of arXiv 2504.02821.

    "paper" and "code" name the choices where the paper's text and the authors' released code disagree.
    Settings in steps are those of a long run; short runs shorten them, as each field says.
    """

    kind: str = "batchtopk"
    """relu, topk, batchtopk, matryoshka, jumprelu, gated, vsae or archetypal; later kinds register themselves in
    `KINDS`, and their objectives as entry points. signed_topk comes from other libraries (`lib.hub`) and is not
    trained here."""
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
        for field in fields(self):
            value = _of_its_type(field.name, field.type, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        if self.kind not in KINDS:
            raise ValueError(f"Unknown SAE kind {quoted(self.kind)}; choose one of {', '.join(sorted(KINDS))}.")
        for name, choices in CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                raise ValueError(f"{name}={quoted(value)} is unknown; choose one of {', '.join(choices)}.")
        for name, (fits, range_) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not fits(value):
                raise ValueError(f"{name} must be {range_}, not {value:g}.")
        if foreign := self.foreign():
            kinds = " and ".join(OWN_FIELDS[foreign[0]])
            raise ValueError(f"{foreign[0]} is a setting of {kinds}, and {self.kind} has no use for it: leave it out.")
        if self.kind == "matryoshka" and abs(sum(self.group_fractions) - 1) > 1e-3:
            raise ValueError(f"group_fractions must sum to 1, not {sum(self.group_fractions):g}.")
        if min(self.group_fractions, default=1) <= 0:
            raise ValueError(f"group_fractions must be above 0, not {min(self.group_fractions):g}.")

    def foreign(self) -> list[str]:
        """Fields of other kinds that are set to something else than their default."""
        if self.kind not in BUILT_IN:
            return []
        others = [field for field in fields(self) if self.kind not in OWN_FIELDS.get(field.name, BUILT_IN)]
        return [field.name for field in others if getattr(self, field.name) != field.default]

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
    def from_dict(cls, values: dict) -> SAEConfig:
        """The config of `dataclasses.asdict`; raises ValueError naming fields that this version does not know.

        What older versions kept of other kinds' fields, which had no effect, is dropped.
        """
        unknown = [name for name in values if name not in {field.name for field in fields(cls)}]
        if unknown:
            raise ValueError(f"Unknown SAE config fields: {', '.join(sorted(map(quoted, unknown[:8])))}.")
        kind = values.get("kind", cls.kind)
        useless = [name for name in values if kind in BUILT_IN and kind not in OWN_FIELDS.get(name, BUILT_IN)]
        return cls(**{name: value for name, value in values.items() if name not in useless})


def as_configs(config: object) -> list[SAEConfig]:
    """One config, or several, as a list. Raises TypeError for what is neither."""
    configs = list(config) if isinstance(config, Iterable) and not isinstance(config, str) else [config]
    if wrong := [one for one in configs if not isinstance(one, SAEConfig)]:
        raise TypeError(f"An SAE is configured by an SAEConfig, or a list of them, not by {quoted(wrong[0])}.")
    return configs


def _of_its_type(name: str, annotation: str, value: object) -> object:
    """The value as an int, float, bool, str or tuple of floats, as the field says; whole floats are integers too."""
    if value is None and annotation.endswith("| None"):
        return None
    wanted = annotation.removesuffix("| None").strip()
    if wanted.startswith("tuple") and isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return tuple(_of_its_type(name, "float", item) for item in value)
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
