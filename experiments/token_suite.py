"""Dictionaries of many sites and kinds of token, on the tokens of the same pictures (after arXiv 2504.08729)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from tqdm import tqdm

from experiments.splicing import TokenFit, fit_tokens
from lib import metrics
from lib.activations.store import ActivationStore
from lib.devices import metric
from lib.encoders.encoder import Encoder
from lib.hub import load_sae
from lib.metrics.intervals import Interval
from lib.sae.model import SAE

Key = tuple[str, str, str]
"""Site, scope of tokens and kind of a dictionary."""
SCOPES = {"all": "All tokens", "cls": "CLS only", "spatial": "Patches only"}
"""Tokens that a dictionary reads, and their name in titles."""
RELEASED = "released"  # kind of dictionaries trained by others
STREAM = "resid_post"


def spread(x: Tensor) -> float:
    """Relative spread of rows (n, d): root of their squared distance from the mean over their squared norm."""
    return float(((x - x.mean(0)).square().sum() / x.square().sum()).sqrt())


def load_released(released: Mapping[str, str], places: Sequence[tuple[str, str]], model: Encoder) -> dict[Key, SAE]:
    """Load SAEs trained by others; released: specs by "SITE/SCOPE", places: (site, scope) that are measured.

    Raises ValueError for a SITE/SCOPE that is not measured, and for a wrong width.
    """
    found = {(*name.split("/"), RELEASED): load_sae(spec) for name, spec in released.items()}
    for (*place, _), name in zip(found, released, strict=True):
        if tuple(place) not in places:
            raise ValueError(
                f"released names {name}, but only {', '.join(map('/'.join, places))} are measured: add it."
            )
    for key, sae in found.items():
        if sae.d != model.width(key[0]):
            raise ValueError(f"{released['/'.join(key[:2])]} reads {sae.d} values, {key[0]} has {model.width(key[0])}.")
    return found


@dataclass(frozen=True, eq=False)
class Suite:
    """Dictionaries by key, measured on the tokens of P pictures.

    drawn: training tokens (n, d) by site and scope, as many for each: a latent that none of them activates is dead;
    stores: the pictures' tokens by site and scope; n: resamples of the pictures behind an interval.
    """

    model: Encoder
    saes: Mapping[Key, SAE]
    drawn: Mapping[tuple[str, str], Tensor]
    stores: Mapping[tuple[str, str], ActivationStore]
    n: int = 2000

    @cached_property
    def fits(self) -> dict[Key, TokenFit]:
        """L0, explained variance and cosine on the pictures' tokens."""
        bar = tqdm(self.saes.items(), desc="fit")
        return {key: fit_tokens(sae, self.stores[key[:2]]) for key, sae in bar}

    @cached_property
    def alive(self) -> dict[Key, float]:
        """Share of the latents that are active on at least one of the tokens drawn."""
        return {
            key: float((sae.encode(self.drawn[key[:2]]) != 0).any(0).float().mean()) for key, sae in self.saes.items()
        }

    def of_scope(self, scope: str) -> list[Key]:
        """Keys of own dictionaries that read these tokens."""
        return [key for key in self.saes if key[1] == scope and key[2] != RELEASED]

    def beside(self, other: Key) -> list[Key]:
        """Own dictionaries of the same site and tokens as another, and that one last."""
        return [*(key for key in self.of_scope(other[1]) if key[0] == other[0]), other]

    @property
    def scopes(self) -> list[str]:
        return list(dict.fromkeys(scope for _, scope, _ in self.saes))

    @property
    def kinds(self) -> list[str]:
        """Kinds of own dictionaries."""
        return list(dict.fromkeys(kind for *_, kind in self.saes if kind != RELEASED))

    @property
    def sublayers(self) -> list[str]:
        """Sublayers that are read, of the residual stream and the MLPs."""
        return [name for name in (STREAM, "mlp_out") if self.layers(name)]

    def layers(self, sublayer: str = STREAM) -> list[int]:
        """Blocks of which this sublayer is read."""
        sites = dict.fromkeys(site for site, *_ in self.saes)
        return sorted(int(site.split(".")[0]) for site in sites if site.endswith(f".{sublayer}"))

    def l0_of(self, key: Key, tokens: str) -> Tensor:
        """(P,) latents active on the tokens of a kind, mean over a picture's tokens."""
        columns = self.model.positions(tokens) if key[1] == "all" else slice(None)
        return self.fits[key].l0[:, columns].mean(1)

    def l0_by_layer(self, sublayer: str, scope: str, kind: str, tokens: str) -> list[Interval]:
        """Mean L0 of the tokens of a kind, for each of `layers`, with intervals over pictures."""
        keys = [(f"{layer}.{sublayer}", scope, kind) for layer in self.layers(sublayer)]
        return [metrics.mean_interval(self.l0_of(key, tokens), self.n) for key in keys]

    def l0_maps(self, kind: str) -> dict[int, Tensor]:
        """L0 of every patch (P, h, w) by layer, of the residual stream's dictionaries of all tokens."""
        columns, keys = self.model.positions("spatial"), {x: (f"{x}.{STREAM}", "all", kind) for x in self.layers()}
        return {
            layer: self.fits[key].l0[:, columns].view(-1, *self.model.grid)
            for layer, key in keys.items()
            if key in self.saes
        }


@dataclass(frozen=True)
class Inside:
    """L0 of inner patches minus that of the outermost ring, relative to the mean L0.

    by_layer: an interval over pictures for each layer; over_layers: of their mean.
    """

    by_layer: Mapping[int, Interval]
    over_layers: Interval

    @classmethod
    def of(cls, maps: Mapping[int, Tensor], n: int) -> Inside:
        """From maps of L0 (P, h, w) by layer; those of fewer than 3 x 3 patches have no inside, and are left out."""
        wide = {layer: found for layer, found in maps.items() if min(found.shape[1:]) >= 3}
        gaps = {layer: centre_minus_border(found) / found.mean() for layer, found in wide.items()}
        mean = torch.stack(list(gaps.values())).mean(0) if gaps else torch.empty(0)
        by_layer = {layer: metrics.mean_interval(gap, n) for layer, gap in gaps.items()}
        return cls(by_layer, metrics.mean_interval(mean, n))


@metric()
def centre_minus_border(maps: Tensor) -> Tensor:
    """By how much a map's inner cells exceed its outer ring on average: `(P, h, w)` to `(P,)`.

    The ring is the outermost row and column on each side; what is not in it is the inside, for 7 x 7 patches the 5 x 5
    in the middle. Raises ValueError for maps that have no inside.
    """
    if maps.ndim != 3 or min(maps.shape[1:]) < 3:
        raise ValueError(f"maps are (P, h, w) of 3 x 3 cells or more, not {tuple(maps.shape)}.")
    border = torch.ones(maps.shape[1:], dtype=torch.bool, device=maps.device)
    border[1:-1, 1:-1] = False
    return maps[:, ~border].mean(1) - maps[:, border].mean(1)
