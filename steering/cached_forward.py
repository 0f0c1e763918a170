"""Forward passes from cached activations: the tower runs once up to each site, then only what follows each edit.

An edit at the site that is read runs no block; an edit L blocks before it runs L blocks, one more if it is within a
block. Where only the first token is used at the end, as in most CLIPs, the last block computes no other token.
Nothing in the model is replaced, and passes of other threads are not affected.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property

import torch
from torch import Tensor, nn

from lib.devices import bring
from lib.encoders.encoder import Encoder
from lib.encoders.loading import Tower
from lib.encoders.site_places import in_this_thread
from steering.interventions import Intervention, Reading, check_edited

Variant = tuple[Intervention, ...]
"""Interventions that act together; () is the unedited tower."""

_MAX_VALUES = {"cpu": 1 << 20, "cuda": 1 << 27}
"""Edited values in a forward pass: on a CPU as many as its caches hold, on a GPU half a gigabyte."""


class CachedForward:
    """Activations of pictures (P, 3, H, W), cached at every site where one of the variants acts.

    `values` returns those at `read`, a residual stream or `proj`, which no intervention may follow. A tower without
    known blocks runs whole for every variant.
    """

    def __init__(self, encoder: Encoder, read: str, pixels: Tensor, variants: Sequence[Variant]):
        self.encoder, self.read, self.pixels = encoder, encoder.site(read), bring(pixels, encoder.device)
        self._end = encoder.n_layers if self.read.layer is None else self.read.layer + 1  # blocks up to what is read
        self._inputs: dict[int, tuple[Tensor, tuple, dict]] = {}  # by block: what enters it, and its other arguments
        self._dtypes: dict[str, torch.dtype] = {"proj": torch.float32}  # of the values at a site in the model's pass
        sites = sorted({site for variant in variants if (site := self._only_site(variant))} | {str(self.read)})
        with torch.no_grad(), self._keeping(sites):
            self._values = encoder.run(self.pixels, sites)  # {site: (P, T, d)} float32
        self._first_only = False
        self._first_only = self.read.layer is None and self._pools_first_token()
        if self._first_only:
            self._forget_other_tokens()
        self._readings = self._read_dictionaries(variant for variant in variants if self._only_site(variant))

    @torch.no_grad()
    def values(self, variants: Sequence[Variant]) -> Tensor:
        """Values at `read`: (variants, P, T, d) in the model's dtype, or (variants, P, E) float32 at `proj`.

        At `proj` they are not normalised. Raises ValueError where a variant makes values that are not finite.
        """
        found: list[Tensor | None] = [None] * len(variants)
        for site in dict.fromkeys(map(self._only_site, variants)):
            members = [i for i, variant in enumerate(variants) if self._only_site(variant) == site]
            for i, value in zip(members, self._from(site, [variants[i] for i in members]), strict=True):
                found[i] = value
        values = torch.stack(found).to(torch.float32 if self.read.layer is None else self.encoder.dtype)
        return check_edited(values, str(self.read), self.encoder)

    def _from(self, site: str | None, variants: Sequence[Variant]) -> Iterator[Tensor]:
        """Values at `read` of variants that all act at `site`; None: each at no site or at several."""
        if site is None:
            yield from (self._whole_pass(variant) if variant else self._values[str(self.read)] for variant in variants)
            return
        n = max(1, _MAX_VALUES.get(self.encoder.device.type, 1 << 24) // self._values[site].numel())
        for begin in range(0, len(variants), n):
            some = variants[begin : begin + n]
            edited = torch.cat([self._edited(site, variant) for variant in some])
            yield from self._resumed(site, edited, len(some)).chunk(len(some))

    def _only_site(self, variant: Variant) -> str | None:
        """The only site at which a variant acts; None for several, for none, and for a tower without known blocks."""
        sites = {intervention.site for intervention in variant}
        return sites.pop() if len(sites) == 1 and len(self.encoder.tower.blocks) else None

    def _whole_pass(self, variant: Variant) -> Tensor:
        with self.encoder.steered(*variant):
            return self.encoder.run(self.pixels, [self.read])[str(self.read)]

    def _edited(self, site: str, variant: Variant) -> Tensor:
        """Values (P, T, d) float32 at the site after the variant."""
        first, *others = variant
        value = first.edited(self._readings[site, id(first.sae)], self._mask(site, first))
        for other in others:
            reading = Reading.of(other.sae, value, list(other.features), reconstruct=not other.keep_error)
            value = other.edited(reading, self._mask(site, other))
        return value

    def _mask(self, site: str, intervention: Intervention) -> Tensor | None:
        mask = intervention.mask(self.encoder)
        return None if mask is None else mask[: self._n_kept(site)]

    # The rest of the forward pass, from an edited value

    def _resumed(self, site: str, values: Tensor, copies: int) -> Tensor:
        """Values at `read`, from values (copies * P, T, d) at the site."""
        place, values = self.encoder.site(site), values.to(self._dtypes[site])
        if place == self.read:
            return values.float()
        with self.encoder.precision():
            begin = self._next_block(site)
            if place.kind not in (
                "resid_post",
                "proj",
            ):  # within a block, which runs again
                entered, others, options = self._inputs[begin]
                with self.encoder.place(site).replaced_by(values):
                    values = _tensor(self.encoder.tower.blocks[begin](entered.repeat(copies, 1, 1), *others, **options))
                begin += 1
            for layer in range(begin, self._end):
                values = self._block(layer, values)
            return values if self.read.layer is not None else self._head(values)

    def _block(self, layer: int, values: Tensor) -> Tensor:
        """The residual stream (N, T, d) after a block; (N, 1, d) after the last one if only the first token is used."""
        tower, (_, others, options) = self.encoder.tower, self._inputs[layer if layer in self._inputs else 0]
        if self._first_only and layer == self._end - 1:
            return tower.first_token(layer, values, *others, **options)
        return _tensor(tower.blocks[layer](values, *others, **options))

    def _head(self, values: Tensor) -> Tensor:
        """The embedding (N, E) from the residual stream (N, T, d) after the last block.

        It is the model's own pass over one picture with bypassed blocks, the last of which returns these values.
        """
        self._stream = values[:, :1] if self._first_only else values
        embedding = self._after_blocks.embed_images(self.pixels[:1]).float()
        del self._stream
        return self.encoder.edited("proj", embedding)

    @cached_property
    def _after_blocks(self) -> Tower:
        return self.encoder.tower.after_blocks(lambda: self._stream)

    @torch.no_grad()
    def _pools_first_token(self) -> bool:
        """Whether the embedding depends on the CLS token alone, tested by changing all other tokens."""
        if not self.encoder.has_cls or self.encoder.steering or not len(self.encoder.tower.blocks):
            return False
        stream = self._inputs[0][0][:1]
        with self.encoder.precision():
            return torch.equal(self._head(stream), self._head(stream[:, :1].expand_as(stream).contiguous()))

    def _forget_other_tokens(self) -> None:
        for site, value in self._values.items():
            if self._n_kept(site) == 1:
                self._values[site] = value[:, :1]

    def _n_kept(self, site: str) -> int | None:
        """How many tokens of a site are cached; None for all."""
        place = self.encoder.site(site)
        return 1 if self._first_only and place.kind == "resid_post" and place.layer == self._end - 1 else None

    def _next_block(self, site: str) -> int:
        """The first block that runs after an edit at a site."""
        place = self.encoder.site(site)
        return self._end if place.layer is None else place.layer + (place.kind == "resid_post")

    def _read_dictionaries(self, variants: Iterable[Variant]) -> dict[tuple[str, int], Reading]:
        """The reading of each site by each dictionary, made once for all variants that begin with it."""
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
    def _keeping(self, sites: Iterable[str]) -> Iterator[None]:
        """Context that caches the inputs of the blocks after the sites, and the dtypes of the values at the sites."""

        def keep(i: int):
            def hook(module: nn.Module, inputs: tuple, options: dict) -> None:
                self._inputs[i] = (inputs[0], inputs[1:], options)

            return in_this_thread(hook)

        blocks, inner = self.encoder.tower.blocks, [site for site in sites if site != "proj"]
        with ExitStack() as kept:
            for i in {0, *map(self._next_block, sites)}:
                if i < min(self._end, len(blocks)):
                    handle = blocks[i].register_forward_pre_hook(keep(i), with_kwargs=True)
                    kept.callback(handle.remove)
            for site in inner:
                note = lambda value, site=site: self._dtypes.__setitem__(site, value.dtype)  # noqa: E731
                kept.callback(self.encoder.place(site).watch(note).remove)
            yield


def _tensor(output: Tensor | tuple) -> Tensor:
    return output[0] if isinstance(output, tuple) else output
