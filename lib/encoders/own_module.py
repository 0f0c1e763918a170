"""Any `nn.Module` as a tower: its sites are submodules by name; one pass over a blank picture finds their shapes."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor, nn

from lib.devices import bring
from lib.encoders.described import described, modules_in, output_digest
from lib.encoders.site_places import Place
from lib.encoders.tower import KINDS, Tower
from storage.files import quoted

TOKENS = ("cls", "register")  # kinds before the patches


@dataclass(frozen=True)
class Layout:
    """Order of a model's tokens: `prefix`, the kinds before the patches ("cls" first, then "register"); `grid` (h, w).

    None: inferred from their number, which is a square, or one more than a square where the first is CLS. Positions of
    maps are tokens of the kind "spatial". channels_last: maps are (B, h, w, d) instead of (B, d, h, w); None: where
    only that makes them square.
    """

    prefix: Sequence[str] | None = None
    grid: tuple[int, int] | None = None
    channels_last: bool | None = None

    def of(self, shapes: Iterable[tuple[int, ...]]) -> "Layout":
        """This layout, with `channels_last` inferred from the shapes of maps."""
        if self.channels_last is not None:
            return self
        squares = [shape[1] == shape[2] != shape[3] for shape in shapes if len(shape) == 4]
        return replace(self, channels_last=bool(squares) and all(squares))


class ModuleTower(Tower):
    """Tower of a user's module. sites: (layer, kind) -> name of a submodule. It has no known blocks and runs whole."""

    blocks = ()

    def __init__(
        self,
        model: nn.Module,
        sites: Mapping[tuple[int, str], str],
        transform: Callable[[Image.Image], Tensor],
        embed: Callable[[Tensor], Tensor] | None,
        layout: Layout,
    ):
        self.model, self.transform, self._embed = model.eval(), transform, embed or model
        pixels = self._blank_picture()
        modules = {site: _submodule(model, name) for site, name in sites.items()}
        given, embedding = _one_pass(self.embed_images, pixels, modules)
        shapes = {site: _shape(f"{sites[site]} ({site[0]}.{site[1]})", outputs) for site, outputs in given.items()}
        layout = layout.of(shapes.values())
        maps = "maps, channels last" if layout.channels_last else "maps"
        self._places = {
            site: Place(modules[site], layout=maps if len(shape) == 4 else "tokens", changes=True)
            for site, shape in shapes.items()
        }
        self._widths = {
            site: shape[1] if place.layout == "maps" else shape[-1]
            for (site, place), shape in zip(self._places.items(), shapes.values(), strict=True)
        }
        self._find_tokens(shapes, layout)
        if not isinstance(embedding, Tensor) or embedding.ndim != 2:
            raise ValueError(
                "the model's output is no embedding (B, E): give embed=, which makes one of pixels (B, 3, H, W)"
            )
        self.d_embed, self.d_model = embedding.shape[1], next(iter(self._widths.values()))
        self.transform_spec = self._described(sites)

    @property
    def inner_sites(self) -> list[tuple[int, str]]:
        return sorted(self._places, key=lambda site: (site[0], KINDS.index(site[1])))

    def place(self, layer: int, kind: str) -> Place:
        return self._places[layer, kind]

    def width(self, layer: int, kind: str) -> int:
        return self._widths[layer, kind]

    def embed_images(self, pixels: Tensor) -> Tensor:
        return self._embed(bring(pixels, pixels, self._weight(pixels).dtype))

    def _weight(self, otherwise: Tensor) -> Tensor:
        """One of the model's weights, whose dtype and device pixels need; `otherwise` for a model without weights."""
        return next(self.model.parameters(), otherwise)

    def _blank_picture(self) -> Tensor:
        """A blank preprocessed picture (1, 3, H, W), on the model's device and in its dtype."""
        if not callable(self.transform):
            raise ValueError(f"transform= turns a PIL picture into a tensor (3, H, W), and {self.transform!r} does not")
        blank = self.transform(Image.new("RGB", (96, 64), (90, 120, 150)))
        if not isinstance(blank, Tensor) or blank.ndim != 3 or not blank.is_floating_point():
            raise ValueError("transform= turns a PIL picture into a tensor (3, H, W) of floats: add ToTensor to it")
        return bring(blank[None], self._weight(blank))

    def _find_tokens(self, shapes: Mapping[tuple[int, str], tuple[int, ...]], layout: Layout) -> None:
        """Set `grid`, `n_prefix` and `has_cls`. Raises ValueError where sites differ in their grid."""
        found = {site: _tokens(shape, layout) for site, shape in shapes.items()}
        if len(set(found.values())) > 1:
            listed = ", ".join(f"{layer}.{kind} {grid}" for (layer, kind), (_, grid) in found.items())
            raise ValueError(f"the sites have different grids of tokens ({listed}): make an encoder for each grid")
        prefix, self.grid = next(iter(found.values()))
        self.n_prefix, self.has_cls = len(prefix), prefix[:1] == ("cls",)

    @property
    def other_modules(self) -> list[nn.Module]:
        inside = set(self.model.modules())
        return [module for module in modules_in(self._embed) if module not in inside]

    @torch.no_grad()
    def _described(self, sites: Mapping[tuple[int, str], str]) -> dict:
        """What the values depend on besides the weights; the transform counts by its output for a test picture."""
        named = sorted((f"{layer}.{kind}", name) for (layer, kind), name in sites.items())
        transform, embed = output_digest(self.transform), described(self._embed)
        return {"transform": transform, "sites": str(named), "model": str(self.model), "embed": embed}


def _submodule(model: nn.Module, name: object) -> nn.Module:
    try:
        return model.get_submodule(name)
    except (AttributeError, TypeError) as error:
        some = ", ".join([found for found, _ in model.named_modules() if found][:12])
        raise ValueError(f"the model has no module {quoted(name)}; it has {some} ...") from error


@torch.no_grad()
def _one_pass(embed: Callable, pixels: Tensor, modules: Mapping) -> tuple[dict, object]:
    """The modules' outputs in one pass, {site: list of outputs}, and the embedding."""
    given: dict = {site: [] for site in modules}
    handles = [
        module.register_forward_hook(lambda module, inputs, output, site=site: given[site].append(output))
        for site, module in modules.items()
    ]
    try:
        return given, embed(pixels)
    finally:
        for handle in handles:
            handle.remove()


def _shape(name: str, outputs: list) -> tuple[int, ...]:
    if len(outputs) != 1:
        raise ValueError(f"{name} runs {len(outputs)} times in a pass: a site is a module that runs once")
    output = outputs[0][0] if isinstance(outputs[0], tuple) else outputs[0]
    if not isinstance(output, Tensor) or output.ndim not in (3, 4) or len(output) != 1:
        what = tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise ValueError(f"{name} gives {what}: a site's values are tokens (B, T, d) or maps (B, d, h, w)")
    return tuple(output.shape)


def _tokens(shape: tuple[int, ...], layout: Layout) -> tuple[tuple[str, ...], tuple[int, int]]:
    """Kinds of the tokens before the patches, and the grid (h, w) of the patches, for values of this shape."""
    if len(shape) == 4:
        return (), tuple(shape[1:3] if layout.channels_last else shape[2:])
    n = shape[1]
    prefix = layout.prefix
    if prefix is None:
        patches = math.prod(layout.grid) if layout.grid else math.isqrt(n) ** 2
        prefix = () if patches == n else ("cls",)
    prefix = tuple(prefix)
    if any(kind not in TOKENS or (kind == "cls" and place) for place, kind in enumerate(prefix)):
        raise ValueError(f"prefix= is of 'cls', which comes first, and 'register', not {quoted(prefix)}")
    side = math.isqrt(max(0, n - len(prefix)))
    grid = tuple(layout.grid or (side, side))
    if len(grid) != 2 or grid[0] * grid[1] + len(prefix) != n or not grid[0]:
        raise ValueError(
            f"{n} tokens are not {len(prefix)} before the patches and a grid of {grid}: give grid=(rows, columns), and "
            "prefix=, such as ('cls', 'register'), for those that are no patches"
        )
    return prefix, grid
