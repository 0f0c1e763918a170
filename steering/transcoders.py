"""Transcoders in a model: a context in which one takes the place of the MLP that it has learned."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from lib.devices import bring
from lib.encoders.sites import Site
from lib.sae.origin import check_origin

if TYPE_CHECKING:
    from lib.encoders.encoder import Encoder
    from lib.sae.model import SAE


def transcoded(
    encoder: Encoder, transcoder: SAE, sites: tuple[str, str] | None = None, check: bool = True
) -> AbstractContextManager[None]:
    """Context in which a transcoder takes the place of what it predicts, in every pass of this thread.

    sites: where it reads and writes; None: as its origin says. check: refuse an encoder or a site on which it is known
    not to have been trained. Raises ValueError for an SAE without a target, and for sites that do not fit.
    """
    if transcoder.target is None:
        raise ValueError(
            "this SAE predicts its own input: steer with Intervention(..., keep_error=False) to splice it in"
        )
    origin = transcoder.origin
    read, written = sites or (origin and origin.site, origin and origin.target)
    if not read or not written:
        raise ValueError(
            "this transcoder does not record its sites: give them, such as sites=('4.mlp_in', '4.mlp_out')"
        )
    reading = _Reading(str(Site.parse(read)), transcoder, check)
    return encoder.steered(reading, _Writing(str(Site.parse(written)), reading))


@dataclass(frozen=True, eq=False)
class _Reading:
    """Notes the values at the site where the transcoder reads; an intervention that changes nothing."""

    site: str
    transcoder: SAE
    check: bool
    noted: list[Tensor] = field(default_factory=list)

    def check_fit(self, encoder: Encoder) -> None:
        _check_width(encoder, self.site, self.transcoder.d, "reads")
        if self.check:
            check_origin(self.transcoder, encoder, self.site)

    def edit(self, x: Tensor, encoder: Encoder) -> Tensor:
        self.noted[:] = [x]
        return x


@dataclass(frozen=True, eq=False)
class _Writing:
    """Replaces the values at the site that the transcoder predicts by its prediction."""

    site: str
    reading: _Reading

    def check_fit(self, encoder: Encoder) -> None:
        _check_width(encoder, self.site, self.reading.transcoder.target.d, "writes")
        if encoder.sites.index(self.site) <= encoder.sites.index(self.reading.site):
            raise ValueError(f"a transcoder writes after it reads, and {self.site} comes before {self.reading.site}")

    def edit(self, x: Tensor, encoder: Encoder) -> Tensor:
        return bring(self.reading.transcoder(self.reading.noted.pop()), x, x.dtype)


def _check_width(encoder: Encoder, site: str, d: int, does: str) -> None:
    width = encoder.width(site)
    if width != d:
        raise ValueError(f"the transcoder {does} width {d}, and {site} of {encoder.spec} has width {width}")
