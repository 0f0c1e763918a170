"""`Site`: the name of a place in an encoder where activations are read and steered."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lib.encoders.tower import KINDS
from storage.files import quoted


@dataclass(frozen=True)
class Site:
    """A place in an encoder, by TransformerLens' names, such as `4.resid_post`, or `proj`.

    `resid_post` is the residual stream after block `layer` (0-based); `mlp_out` and `attn_out` are what the block's MLP
    and attention add to it (layer scale included); `mlp_in` is what the MLP reads, normed; `mlp_act` are the hidden
    neurons of the MLP, as its last matrix reads them; `proj` is the joint embedding before normalisation (layer None).
    """

    kind: str
    layer: int | None = None

    @classmethod
    def parse(cls, text: "str | Site") -> "Site":
        """Read a site's name. Raises ValueError for anything else."""
        if isinstance(text, Site):
            return text
        if text == "proj":
            return cls("proj")
        match = re.fullmatch(r"(\d+)\.(\w+)", text) if isinstance(text, str) else None
        if match is None or match[2] not in KINDS:
            raise ValueError(
                f"unknown site {quoted(text)}: write 'proj' or LAYER.KIND with KIND one of {', '.join(KINDS)}"
            )
        return cls(match[2], int(match[1]))

    def __str__(self) -> str:
        return self.kind if self.layer is None else f"{self.layer}.{self.kind}"


def as_sites(sites: object) -> list:
    """One site, or several, as a list; any other object is its only element, for `Site.parse` to refuse."""
    several = isinstance(sites, Iterable) and not isinstance(sites, str | bytes)
    return list(sites) if several else [sites]
