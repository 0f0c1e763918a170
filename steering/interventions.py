"""Interventions: change the codes of a few features of an activation, and write the change into the forward pass.

With codes f = encode(x) and the features' new values f', an intervention replaces x by

    x + sum_j (f'_j - f_j) W_dec[j]        keep_error=True: keeps the reconstruction error (arXiv 2504.08729)
    decode(f')                             keep_error=False: drops it (arXiv 2504.02821, 4.4)

`Encoder.steered` and `Llava` apply them. An SAE is one dictionary; `Neurons` and `Directions` are the baselines.
"""

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from lib.devices import bring, check_finite, home_of
from lib.encoders.encoder import Site
from lib.sae.model import input_scale
from lib.sae.origin import check_origin
from storage.files import quoted

if TYPE_CHECKING:
    from lib.encoders.encoder import Encoder

MODES = ("clamp", "add", "scale", "suppress")
TOKENS = ("all", "cls", "spatial")
DENSE_CODES = 1 << 26  # dense codes in memory at a time: 256 MiB

Mask = tuple[bool, ...] | tuple[tuple[bool, ...], ...]


class Dictionary(Protocol):
    """What an intervention needs of an SAE: d, n_features F, W_dec (F, d), encode (.., d) -> (.., F), and decode."""

    d: int
    n_features: int
    W_dec: Tensor

    def encode(self, x: Tensor) -> Tensor: ...
    def decode(self, codes: Tensor, x: Tensor | None = None) -> Tensor: ...


@dataclass(frozen=True)
class Neurons:
    """The d neurons of a site as a dictionary, the papers' baseline: feature j is dimension j of x."""

    d: int

    @property
    def n_features(self) -> int:
        """F, which is d."""
        return self.d

    @cached_property
    def W_dec(self) -> Tensor:
        """The identity matrix (d, d)."""
        return torch.eye(self.d)

    def encode(self, x: Tensor) -> Tensor:
        """Codes (..., d): x itself."""
        return x

    def decode(self, codes: Tensor, x: Tensor | None = None) -> Tensor:
        """Reconstruction (..., d): the codes themselves."""
        return codes


class Directions:
    """Directions (F, d) as a dictionary: a feature's code is the projection of x on its unit vector.

    They do not reconstruct x: steer with keep_error=True, which moves x only along the directions.
    Raises ValueError for vectors of length zero, or of infinite length.
    """

    def __init__(self, vectors: Tensor):
        vectors = torch.as_tensor(vectors, dtype=torch.float32)
        if vectors.ndim != 2:
            raise ValueError(f"directions are a matrix (F, d), not of shape {tuple(vectors.shape)}: add a dimension")
        length = vectors.norm(dim=1, keepdim=True)
        if not bool((length > 0).all()) or not bool(length.isfinite().all()):
            raise ValueError("a direction has length zero, or a length that is not finite: leave it out")
        self.W_dec = vectors / length
        self.n_features, self.d = vectors.shape

    def encode(self, x: Tensor) -> Tensor:
        """Projections (..., F) of x (..., d) on the unit vectors."""
        return x @ bring(self.W_dec, x, x.dtype).T

    def decode(self, codes: Tensor, x: Tensor | None = None) -> Tensor:
        """Sum (..., d) of the unit vectors, weighted by codes (..., F)."""
        return codes @ bring(self.W_dec, codes, codes.dtype)


@dataclass(frozen=True)
class Reading:
    """Values at a site with their codes in one dictionary: made once, shared by any number of interventions.

    x (..., d) float32; column: feature -> column of codes (..., n); scale: units of x per unit of the decoder, one
    number or (..., 1); reconstruction (..., d), where an intervention drops the error.
    """

    x: Tensor
    column: dict[int, int]
    codes: Tensor
    scale: Tensor | float
    reconstruction: Tensor | None

    @classmethod
    def of(cls, sae: Dictionary, x: Tensor, features: Sequence[int], reconstruct: bool) -> "Reading":
        """Encode x (..., d), of any float dtype, in float32 and keep the codes of the features."""
        x = x.float()
        rows = bring(x.reshape(-1, x.shape[-1]), home(sae, x))
        codes, decoded = [], []
        for part in rows.split(max(1, DENSE_CODES // sae.n_features)):
            dense = sae.encode(part)
            codes.append(bring(dense[:, list(features)], x, x.dtype))
            if reconstruct:
                decoded.append(bring(sae.decode(dense, part), x, x.dtype))
        norm = getattr(getattr(sae, "config", None), "input_norm", "none")
        return cls(
            x=x,
            column={feature: i for i, feature in enumerate(features)},
            codes=torch.cat(codes).view(*x.shape[:-1], -1),
            scale=1.0 if norm == "none" else input_scale(x, norm)[1],
            reconstruction=torch.cat(decoded).view(x.shape) if reconstruct else None,
        )


def home(sae: Dictionary, x: Tensor) -> torch.device:
    """The device on which a dictionary computes: for an SAE that of its weights, for others that of x."""
    return home_of(sae if isinstance(sae, nn.Module) else x)


@dataclass(frozen=True)
class Intervention:
    """Set, shift or scale features of a dictionary at a site of an encoder.

    sae: an `SAE`, `Neurons` or `Directions` of the site's width. features: {feature: value v}, several at once. mode:
    - clamp: f_j := v, the papers' steering; - add: f_j + v; - scale: f_j * v;
    - suppress: f_j := -v for v >= 0, the negative strength by which arXiv 2504.02821 removes a concept.
    tokens: "all", "cls", "spatial", or a mask: (h, w) over the patches or (T,) over all tokens, true where to edit;
    tokens that are not chosen stay as they are. keep_error: see the module. check: refuse an encoder or a site on which
    the SAE is known not to have been trained.

    Raises ValueError for unknown modes, tokens, sites and features, and for values and weights that are not finite.
    """

    sae: Dictionary
    site: str
    features: Mapping[int, float]
    mode: str = "clamp"
    tokens: str | Mask = "all"
    keep_error: bool = True
    check: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "site", str(Site.parse(self.site)))
        object.__setattr__(self, "features", _values(self.features))
        object.__setattr__(self, "keep_error", bool(self.keep_error))
        if not isinstance(self.tokens, str):
            object.__setattr__(self, "tokens", _frozen_mask(self.tokens))
        if not hasattr(self.sae, "n_features"):
            raise ValueError(f"an intervention needs an SAE, Neurons or Directions, not {quoted(self.sae)}")
        if getattr(self.sae, "target", None) is not None:
            raise ValueError("a transcoder writes at another site than it reads: see steering.transcoders.transcoded")
        if self.mode not in MODES:
            raise ValueError(f"unknown mode {self.mode!r}: choose one of {', '.join(MODES)}")
        if isinstance(self.tokens, str) and self.tokens not in TOKENS:
            raise ValueError(f"unknown tokens {self.tokens!r}: choose one of {', '.join(TOKENS)}, or give a mask")
        if not self.features:
            raise ValueError("an intervention needs a feature: write {feature: value}")
        for feature, value in self.features.items():
            self._check_feature(feature, value)
        _check_weights(self.sae)

    def _check_feature(self, feature: int, value: float) -> None:
        if not 0 <= feature < self.sae.n_features:
            raise ValueError(f"no feature {feature}: the dictionary has features 0 to {self.sae.n_features - 1}")
        if not math.isfinite(value):
            raise ValueError(f"feature {feature} cannot be set by {value}: give a finite number")
        if self.mode == "suppress" and value < 0:
            raise ValueError(f"suppress sets a feature to minus its value: give {-value:g} in place of {value:g}")

    def check_fit(self, encoder: "Encoder") -> None:
        """Raises ValueError where the encoder lacks the site or tokens, or the SAE was trained on another one."""
        width = encoder.width(self.site)
        if width != self.sae.d:
            raise ValueError(
                f"the dictionary reads activations of width {self.sae.d}, and {self.site} of {encoder.spec} has width "
                f"{width}: take one that was trained there"
            )
        if self.check:
            check_origin(self.sae, encoder, self.site)
        self.mask(encoder)

    def mask(self, encoder: "Encoder") -> Tensor | None:
        """Which of the T tokens are edited: (T, 1) bool, or None for all of them."""
        if self.tokens == "all":
            return None
        if self.site == "proj":
            raise ValueError("proj has one vector for each picture and no tokens: leave tokens='all'")
        chosen = torch.zeros(encoder.n_tokens, dtype=torch.bool)
        if isinstance(self.tokens, str):
            positions = encoder.positions(self.tokens)
            if not len(positions):
                raise ValueError(f"{encoder.spec} has no {self.tokens} tokens: choose others")
            chosen[positions] = True
            return chosen[:, None]
        given = torch.tensor(self.tokens, dtype=torch.bool)
        if given.shape == encoder.grid:
            chosen[encoder.positions("spatial")] = given.flatten()
        elif given.shape == (encoder.n_tokens,):
            chosen = given
        else:
            raise ValueError(
                f"a mask of shape {tuple(given.shape)} does not fit: {encoder.spec} has patches {encoder.grid} and "
                f"{encoder.n_tokens} tokens"
            )
        return chosen[:, None]

    def edit(self, x: Tensor, encoder: "Encoder") -> Tensor:
        """Values at the site (B, T, d), or (B, E) at proj, after the intervention; computed in float32, typed as x."""
        builds_graph = torch.is_grad_enabled() and x.requires_grad  # not for an SAE's weights alone
        with torch.autocast(x.device.type, enabled=False), torch.set_grad_enabled(builds_graph):
            reading = Reading.of(self.sae, x, list(self.features), reconstruct=not self.keep_error)
            edited = self.edited(reading, self.mask(encoder)).to(x.dtype)
            return check_edited(edited, self.site, encoder)

    def edited(self, reading: Reading, mask: Tensor | None) -> Tensor:
        """Edited values (..., d) float32 from a reading by this dictionary, with only the features' rows of W_dec."""
        features = list(self.features)
        codes = reading.codes[..., [reading.column[j] for j in features]]  # (..., n)
        rows = bring(self.sae.W_dec[features].detach(), reading.x, reading.x.dtype)  # (n, d)
        start = reading.x if self.keep_error else reading.reconstruction
        new = start + (self._new_codes(codes) - codes) @ rows * reading.scale
        return new if mask is None else torch.where(bring(mask, new), new, reading.x)

    def _new_codes(self, codes: Tensor) -> Tensor:
        """f' of the edited features, (..., n), from their codes f."""
        values = codes.new_tensor(list(self.features.values()))
        if self.mode == "add":
            return codes + values
        if self.mode == "scale":
            return codes * values
        return (values if self.mode == "clamp" else -values).expand_as(codes)

    def describe(self) -> dict:
        """The intervention as a dict of JSON values, without the dictionary's weights."""
        return {
            "dictionary": {"kind": _kind(self.sae), "d": self.sae.d, "n_features": self.sae.n_features},
            "site": self.site,
            "features": {str(feature): value for feature, value in self.features.items()},
            "mode": self.mode,
            "tokens": self.tokens if isinstance(self.tokens, str) else torch.tensor(self.tokens).tolist(),
            "keep_error": self.keep_error,
        }

    def as_code(self, dictionary: str = "sae") -> str:
        """The Python expression of the intervention; `dictionary` is the variable of the SAE or the directions."""
        features = ", ".join(f"{feature}: {value!r}" for feature, value in self.features.items())
        parts = [repr(self.sae) if isinstance(self.sae, Neurons) else dictionary, f'"{self.site}"', f"{{{features}}}"]
        if self.mode != "clamp":
            parts.append(f'mode="{self.mode}"')
        if isinstance(self.tokens, str) and self.tokens != "all":
            parts.append(f'tokens="{self.tokens}"')
        elif not isinstance(self.tokens, str):
            parts.append(f"tokens={torch.tensor(self.tokens).int().tolist()}")
        parts.append(f"keep_error={self.keep_error}")
        if not self.check:
            parts.append("check=False")
        return f"Intervention({', '.join(parts)})"


_finite: WeakKeyDictionary[nn.Module, list[tuple]] = WeakKeyDictionary()  # SAE -> versions of its checked weights


def _check_weights(dictionary: Dictionary) -> None:
    """Raises ValueError where a weight of an SAE is not finite, because its codes would be wrong without notice.

    Weights are checked again only when they have changed, because interventions are made by the thousand.
    """
    if not isinstance(dictionary, nn.Module):
        return
    weights = dictionary.state_dict()
    state = [(name, w.data_ptr(), None if w.is_inference() else w._version) for name, w in weights.items()]
    if _finite.get(dictionary) != state:
        for name, weight in weights.items():
            check_finite(weight, f"{name} of the dictionary")
        _finite[dictionary] = state


def check_edited(values: Tensor, site: str, encoder: "Encoder") -> Tensor:
    """Return the values. Raises ValueError where one is not finite, for example after too strong an edit."""
    if not bool(values.isfinite().all()):
        raise ValueError(
            f"steering makes values at {site} of {encoder.spec} that are not finite in "
            f"{str(values.dtype).removeprefix('torch.')}: steer less strongly, or load the model with "
            "dtype='bfloat16' or 'float32'"
        )
    return values


def _kind(sae: Dictionary) -> str:
    return sae.config.kind if hasattr(sae, "config") else type(sae).__name__.lower()


def _values(features: object) -> dict[int, float]:
    try:
        given = dict(features)
    except (TypeError, ValueError):
        raise ValueError(f"features must be {{feature index: value}}, not {quoted(features)}") from None
    values = {}
    for feature, value in given.items():
        number = _feature_index(feature)
        try:
            values[number] = float(value)
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(f"feature {quoted(feature)} cannot be set by {quoted(value)}: give numbers") from None
    return values


def _feature_index(feature: object) -> int:
    try:
        return operator.index(feature)
    except TypeError as error:
        raise ValueError(f"feature index must be an integer, not {quoted(feature)}") from error


def _frozen_mask(mask: object) -> Mask:
    """A mask of any kind (tensor, array, nested lists) as nested tuples, which compare and print."""
    try:
        array = torch.as_tensor(mask)
    except (TypeError, ValueError, RuntimeError):
        array = torch.empty(())
    if array.ndim not in (1, 2) or not bool(((array == 0) | (array == 1)).all()):
        raise ValueError(
            f"a mask of tokens is (h, w) over the patches or (T,) over all tokens, true or false, not {quoted(mask)}"
        )
    rows = array.bool().tolist()
    return tuple(map(tuple, rows)) if array.ndim == 2 else tuple(rows)
