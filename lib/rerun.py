"""Many interventions on the same pictures: the tower runs once up to each site, and then only what lies behind it.

An edit at the site that is read costs no block at all; an edit L blocks before it costs L blocks. Where only the first
token counts at the end, as in most CLIPs, the last of these blocks computes no other.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lib.models import Encoder, Site
from lib.steering import Intervention, Reading

Variant = tuple[Intervention, ...]
"""Interventions that act at once; none: the tower as it is."""

_TOGETHER = {"cpu": 1 << 20, "cuda": 1 << 27}
"""Edited values that go through a block at a time: on a CPU what its caches hold, on a GPU half a gigabyte."""


class Looks:
    """Pictures (P, 3, H, W) as the tower sees them, kept at every site where one of the variants acts.

    Their values are given at `read`, a residual stream or `proj`, which no intervention may lie behind.
    """

    def __init__(self, encoder: Encoder, read: str, pixels: Tensor, variants: Sequence[Variant]):
        self.encoder, self.read, self.pixels = encoder, Site.parse(read), pixels
        self._end = encoder.n_layers if self.read.layer is None else self.read.layer + 1  # blocks up to what is read
        self._inputs: dict[int, tuple[Tensor, tuple, dict]] = {}  # by block: what enters it, and its other arguments
        sites = {site for variant in variants if (site := _only_site(variant))}
        streams = {self._stream_behind(site) for site in sites}
        with torch.no_grad(), self._keeping_inputs({0, *map(self._next_block, sites)}):
            self._values = encoder.run(pixels, [*sorted(sites | streams), read])  # {site: (P, T, d)}
        self._first_only = False
        self._first_only = self.read.layer is None and self._pools_first_token()
        if self._first_only:
            self._forget_other_tokens()
        self._readings = self._read_dictionaries(variant for variant in variants if _only_site(variant))

    @torch.no_grad()
    def values(self, variants: Sequence[Variant]) -> Tensor:
        """(variants, P, T, d) at a residual stream, typed as the model; (variants, P, E) at `proj`, float32.

        What `proj` gives is not normalised.
        """
        found: list[Tensor | None] = [None] * len(variants)
        for site in dict.fromkeys(map(_only_site, variants)):
            members = [i for i, variant in enumerate(variants) if _only_site(variant) == site]
            for i, value in zip(members, self._from(site, [variants[i] for i in members]), strict=True):
                found[i] = value
        return torch.stack(found).to(torch.float32 if self.read.layer is None else self.encoder.dtype)

    def _from(self, site: str | None, variants: Sequence[Variant]) -> Iterator[Tensor]:
        """The values of variants that all act at one site, or (None) all at none or several."""
        if site is None:
            yield from (self._whole_pass(variant) if variant else self._values[str(self.read)] for variant in variants)
            return
        together = max(1, _TOGETHER.get(self.encoder.device.type, 1 << 24) // self._values[site].numel())
        for begin in range(0, len(variants), together):
            some = variants[begin : begin + together]
            edited = torch.cat([self._edited(site, variant) for variant in some])
            yield from self._resumed(site, edited, len(some)).chunk(len(some))

    def _whole_pass(self, variant: Variant) -> Tensor:
        with self.encoder.steered(*variant):
            return self.encoder.run(self.pixels, [self.read])[str(self.read)]

    def _edited(self, site: str, variant: Variant) -> Tensor:
        """(P, T, d) float32."""
        first, *others = variant
        value = first.edited(self._readings[site, id(first.sae)], self._mask(site, first))
        for other in others:
            reading = Reading.of(other.sae, value, list(other.features), reconstruct=not other.keep_error)
            value = other.edited(reading, self._mask(site, other))
        return value

    def _mask(self, site: str, intervention: Intervention) -> Tensor | None:
        mask = intervention.mask(self.encoder)
        return None if mask is None else mask[: self._n_kept(site)]

    # From an edited value on

    def _resumed(self, site: str, values: Tensor, copies: int) -> Tensor:
        """Go on from values (copies * P, T, d) at the site."""
        place = self.encoder.site(site)
        if place == self.read:
            return values
        with self.encoder.precision():
            if place.kind == "mlp_out":  # the last to be added to the stream, so that its change is the stream's
                stream, before = self._values[self._stream_behind(site)], self._values[site]
                values = values + (stream - before).repeat(copies, 1, 1)
            values = values.to(self._inputs[0][0].dtype)
            begin = self._next_block(site)
            if place.kind == "attn_out":  # within a block: run it again, with what its attention gives replaced
                entered, others, options = self._inputs[begin]
                with _giving(self.encoder.tower.module(place.layer, place.kind), values):
                    values = _tensor(self.encoder.tower.blocks[begin](entered.repeat(copies, 1, 1), *others, **options))
                begin += 1
            for layer in range(begin, self._end):
                values = self._block(layer, values)
            return values if self.read.layer is not None else self._head(values)

    def _block(self, layer: int, values: Tensor) -> Tensor:
        """The stream (N, T, d) after a block; (N, 1, d) where nothing else is asked for."""
        tower, (_, others, options) = self.encoder.tower, self._inputs[layer if layer in self._inputs else 0]
        if self._first_only and layer == self._end - 1:
            return tower.first_token(layer, values, *others, **options)
        return _tensor(tower.blocks[layer](values, *others, **options))

    def _head(self, values: Tensor) -> Tensor:
        """What the tower makes of the stream (N, T, d) behind its last block: (N, E).

        It is the model's own pass over one picture, whose blocks hand through and in the end give these values.
        """
        blocks = list(self.encoder.tower.blocks)
        values = values[:, :1] if self._first_only else values
        with _handing_through(blocks), _giving(blocks[-1], values):
            embedding = self.encoder.tower.embed_images(self.pixels[:1].to(self.encoder.device))
        return embedding.float()

    @torch.no_grad()
    def _pools_first_token(self) -> bool:
        """Whether the embedding is made of CLS alone: tried with a stream whose other tokens are something else."""
        if not self.encoder.has_cls or self.encoder._interventions:
            return False
        stream = self._inputs[0][0][:1]
        with self.encoder.precision():
            return torch.equal(self._head(stream), self._head(stream[:, :1].expand_as(stream).contiguous()))

    def _forget_other_tokens(self) -> None:
        for site, value in self._values.items():
            if self._n_kept(site) == 1:
                self._values[site] = value[:, :1]

    def _n_kept(self, site: str) -> int | None:
        """How many tokens of a site matter; None for all."""
        place = self.encoder.site(site)
        behind_attention = place.kind in ("resid_post", "mlp_out") and place.layer == self._end - 1
        return 1 if self._first_only and behind_attention else None

    def _next_block(self, site: str) -> int:
        """The block that runs when the tower goes on from a site."""
        place = self.encoder.site(site)
        return self._end if place.layer is None else place.layer + (place.kind != "attn_out")

    def _stream_behind(self, site: str) -> str:
        """The stream that the values of a site are part of, where they are the last to be added; else the site."""
        place = self.encoder.site(site)
        return str(Site("resid_post", place.layer)) if place.kind == "mlp_out" else site

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
        handles = [tower[i].register_forward_pre_hook(keep(i), with_kwargs=True) for i in blocks if i < self._end]
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


@contextmanager
def _handing_through(blocks: Iterable[nn.Module]) -> Iterator[None]:
    """Let blocks compute nothing and give what they are given."""
    for block in blocks:
        block.forward = lambda values, *others, **options: values
    try:
        yield
    finally:
        for block in blocks:
            del block.forward
