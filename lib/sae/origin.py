"""`Origin`: what an SAE was trained on, so that its use on another encoder or site is noticed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from lib.encoders.encoder import Encoder, Site


class Target(NamedTuple):
    """What a transcoder predicts: activations of width d at another site; skip: also by a linear map of its input."""

    d: int
    skip: bool = False


@dataclass(frozen=True)
class Origin:
    """Encoder, site and pictures of the activations that an SAE was trained on; None where they are not known.

    encoder: its spec; fingerprint: that of its weights, preprocessing and precision; precision: dtype of its forward
    pass ("torch.bfloat16"); mlp_norms: see `Encoder`; images: fingerprint of the pictures; version: of this library;
    target: the site that a transcoder predicts.
    """

    encoder: str | None = None
    fingerprint: str | None = None
    site: str | None = None
    tokens: str | None = None
    images: str | None = None
    version: str | None = None
    precision: str | None = None
    mlp_norms: str | None = None
    target: str | None = None

    @classmethod
    def of(cls, store: object) -> Origin:
        """Origin of the activations in a store or stream, as far as its `meta` has it."""
        from lib import __version__

        meta = getattr(store, "meta", None) or {}
        spec = meta.get("spec") or {}
        known = {name: meta.get(name) for name in ("encoder", "site", "tokens", "precision", "mlp_norms", "target")}
        return cls(**known, fingerprint=spec.get("encoder"), images=spec.get("images"), version=__version__)

    @classmethod
    def from_dict(cls, values: object) -> Origin | None:
        """What `to_dict` gave; None where it is not that. Entries that this version does not know are left out."""
        if not isinstance(values, Mapping):
            return None
        known = {field.name: values.get(field.name) for field in fields(cls)}
        return cls(**{name: value if isinstance(value, str) else None for name, value in known.items()})

    def to_dict(self) -> dict[str, str]:
        """What is known, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def check(self, encoder: Encoder, site: str | Site) -> None:
        """Raise ValueError where the SAE is known to be from another site, or another encoder.

        The same weights in another precision count as the same encoder. LLaVA's image tower, a CLIP without its text
        part and with other names of weights, is identified by its `mlp_norms`.
        """
        rest = "train one on this, or pass check=False if it is intended"
        if self.site is not None and self.site != str(site):
            raise ValueError(f"This SAE was trained at {self.site}, not at {site}: {rest}.")
        if not self._may_be(encoder):
            name = "other weights or preprocessing of" * (self.encoder == encoder.spec)
            trained_on = f"{name} {self.encoder or 'another encoder'}".strip()
            raise ValueError(f"This SAE was trained on {trained_on}, not on this {encoder.spec}: {rest}.")

    def _may_be(self, encoder: Encoder) -> bool:
        if encoder.is_part:
            known, found = ((norms or "").split() for norms in (self.mlp_norms, encoder.mlp_norms))
            return all(math.isclose(float(a), float(b), rel_tol=1e-3) for a, b in zip(known, found, strict=False))
        return self.fingerprint in (None, encoder.unsteered_fingerprint(self.precision or ""))


_warned: set[str] = set()


def check_origin(dictionary: object, encoder: Encoder, site: str | Site) -> None:
    """Check the origin of a dictionary that has one; warn, once per process, of an SAE whose origin is unknown.

    Dictionaries without the attribute `origin`, such as neurons and directions, pass.
    """
    if not hasattr(dictionary, "origin"):
        return
    if dictionary.origin is not None and (dictionary.origin.encoder or dictionary.origin.site):
        dictionary.origin.check(encoder, site)
    elif "unknown" not in _warned:
        _warned.add("unknown")
        warnings.warn(
            "This SAE does not say which encoder and site it was trained on, so whether it fits these is not checked.",
            stacklevel=3,
        )
