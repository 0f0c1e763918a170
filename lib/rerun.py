"""Many interventions on the same pictures: the tower runs once up to each site, and then only what lies behind it.

An edit at the site that is read costs no block at all; an edit L blocks before it costs L blocks.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lib.models import Encoder, Site
from lib.steering import Intervention, Reading

Variant = tuple[Intervention, ...]
"""Interventions that act at once; none: the tower as it is."""


class Looks:
    """Pictures (P, 3, H, W) as the tower sees them, kept at every site where one of the variants acts.

    Their values are given at the residual stream `read`, which no intervention may lie behind.
    """

    def __init__(self, encoder: Encoder, read: str, pixels: Tensor, variants: Sequence[Variant]):
        self.encoder, self.read, self.pixels = encoder, Site.parse(read), pixels
        self._inputs: dict[int, tuple[Tensor, tuple, dict]] = {}  # by block: what enters it, and its other arguments
        sites = {site for variant in variants if (site := _only_site(variant))}
        with self._keeping_inputs({self._next_block(site) for site in sites}):
            self._values = encoder.run(pixels, [*sorted(sites), read])  # {site: (P, T, d)}
        self._readings = self._read_dictionaries(variant for variant in variants if _only_site(variant))

    def values(self, variants: Sequence[Variant]) -> Tensor:
        """(variants, P, T, d) at `read`, typed as the model."""
        found: list[Tensor | None] = [None] * len(variants)
        for site in dict.fromkeys(map(_only_site, variants)):
            members = [i for i, variant in enumerate(variants) if _only_site(variant) == site]
            for i, value in zip(members, self._from(site, [variants[i] for i in members]), strict=True):
                found[i] = value
        return torch.stack(found).to(self.encoder.dtype)

    def _from(self, site: str | None, variants: Sequence[Variant]) -> Iterable[Tensor]:
        """The values of variants that all act at one site, or (None) all at none or several."""
        if site is None:
            return [self._whole_pass(variant) if variant else self._values[str(self.read)] for variant in variants]
        edited = torch.cat([self._edited(site, variant) for variant in variants])
        return self._resumed(site, edited, len(variants)).chunk(len(variants))

    def _whole_pass(self, variant: Variant) -> Tensor:
        with self.encoder.steered(*variant):
            return self.encoder.run(self.pixels, [self.read])[str(self.read)]

    def _edited(self, site: str, variant: Variant) -> Tensor:
        first, *others = variant
        value = first.edited(self._readings[site, id(first.sae)], first.mask(self.encoder)).to(self.encoder.dtype)
        for other in others:
            value = other.edit(value, self.encoder)
        return value

    def _resumed(self, site: str, values: Tensor, copies: int) -> Tensor:
        """Go on from values (copies * P, T, d) at the site."""
        place, blocks = self.encoder.site(site), self.encoder.tower.blocks
        if place == self.read:
            return values
        begin = self._next_block(site)
        entered, others, options = self._inputs[begin]
        if place.kind != "resid_post":  # within a block: run it again, with what its branch gives replaced
            with _giving(self.encoder.tower.module(place.layer, place.kind), values):
                values = _tensor(blocks[begin](entered.repeat(copies, 1, 1), *others, **options))
            begin += 1
        for block in blocks[begin : self.read.layer + 1]:
            values = _tensor(block(values, *others, **options))
        return values

    def _next_block(self, site: str) -> int:
        """The block that runs when the tower goes on from a site."""
        place = self.encoder.site(site)
        return place.layer + (place.kind == "resid_post")

    def _read_dictionaries(self, variants: Iterable[Variant]) -> dict[tuple[str, int], Reading]:
        """What each dictionary says of each site, once for all variants that begin with it."""
        users: dict[tuple[str, int], list[Intervention]] = {}
        for first, *_ in variants:
            users.setdefault((first.site, id(first.sae)), []).append(first)
        readings = {}
        for (site, key), some in users.items():
            features = list(dict.fromkeys(feature for one in some for feature in one.features))
            drops_error = not all(one.keep_error for one in some)
            readings[site, key] = Reading.of(some[0].sae, self._values[site], features, drops_error)
        return readings

    @contextmanager
    def _keeping_inputs(self, blocks: Iterable[int]) -> Iterator[None]:
        def keep(i: int):
            def hook(module: nn.Module, inputs: tuple, options: dict) -> None:
                self._inputs[i] = (inputs[0], inputs[1:], options)

            return hook

        tower = self.encoder.tower.blocks
        handles = [
            tower[i].register_forward_pre_hook(keep(i), with_kwargs=True) for i in blocks if i <= self.read.layer
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _only_site(variant: Variant) -> str | None:
    sites = {intervention.site for intervention in variant}
    return sites.pop() if len(sites) == 1 else None


def _tensor(output: Tensor | tuple) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


@contextmanager
def _giving(module: nn.Module, values: Tensor) -> Iterator[None]:
    """Let a module give these values, whatever it computes."""

    def replace(module: nn.Module, inputs: tuple, output: Tensor | tuple) -> Tensor | tuple:
        return (values, *output[1:]) if isinstance(output, tuple) else values

    handle = module.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()
