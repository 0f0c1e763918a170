"""Encoders: one interface to models of open_clip and Hugging Face, the book's own CLIP and any `nn.Module`.

Every model runs its *own* forward pass, read with forward hooks, up to the last site that is needed: values are the
original model's by construction. A family needs one small `Tower` (lib/encoders/tower.py): its blocks, how it embeds.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from lib.devices import bring, choose_device, choose_dtype
from lib.encoders.described import output_digest
from lib.encoders.loading import Tower, load_tower
from lib.encoders.own_module import Layout, ModuleTower
from lib.encoders.site_places import AllRead, Place, reading
from lib.encoders.sites import Site, as_sites
from lib.encoders.tower import KINDS
from lib.encoders.weights import WeightsHash
from lib.images.one_picture import Picture, as_picture, is_one_picture
from storage.files import quoted

_EMBEDDED_AT_ONCE = 64  # pictures


class InterventionLike(Protocol):
    """What `Encoder.steered` takes: an edit of values (B, T, d) or (B, E); check_fit raises ValueError for a misfit."""

    site: str

    def check_fit(self, encoder: "Encoder") -> None: ...
    def edit(self, x: Tensor, encoder: "Encoder") -> Tensor: ...


@dataclass(frozen=True, eq=False)
class _Steering:
    """One `with encoder.steered(...)`, compared by identity."""

    encoder: "Encoder"
    interventions: tuple[InterventionLike, ...]


class _Active(threading.local):
    """The active `steered` contexts of a thread, in the order in which they were entered."""

    def __init__(self) -> None:
        self.steerings: list[_Steering] = []


_active = _Active()


class Encoder(nn.Module):
    """An image (and, for CLIP, text) encoder whose activations can be read at any `Site`. Made by `load_encoder`.

    Attributes: `spec` as given; `device`; `dtype` the precision of the forward pass (weights stay float32, autocast
    does the rest); `n_layers`, `d_model`, `d_embed`; `n_tokens` T with the prefix; `grid` (h, w) of patches; `has_cls`;
    `sites` all site names in order; `token_kinds` (T,) of "cls" | "register" | "spatial"; `transform` the picklable
    preprocessing for worker processes; `logit_scale`; `is_part` of another model, as LLaVA's image tower is.

    Threads may share it: each sees only the interventions that it has activated itself.
    """

    def __init__(self, tower: Tower, spec: str, device: torch.device, dtype: torch.dtype, is_part: bool = False):
        super().__init__()
        self.tower, self.spec, self.device, self.dtype, self.is_part = tower, spec, device, dtype, is_part
        self.model = tower.model.to(device).eval().requires_grad_(False)
        self.d_model, self.d_embed = tower.d_model, tower.d_embed
        self.grid, self.has_cls, self.transform = tower.grid, tower.has_cls, tower.transform
        registers = tower.n_prefix - tower.has_cls
        patches = self.grid[0] * self.grid[1]
        self.token_kinds = ("cls",) * tower.has_cls + ("register",) * registers + ("spatial",) * patches
        self.n_tokens = len(self.token_kinds)
        inner = tower.inner_sites
        self.n_layers = 1 + max(layer for layer, _ in inner)
        self.sites = [f"{layer}.{kind}" for layer, kind in inner] + ["proj"]
        self._weights_hash, self._mlp_norms = WeightsHash(self.model, tower.other_modules), {}
        self._shape_by: tuple[object, torch.Size] = (None, torch.Size())

    def __repr__(self) -> str:
        size = f"{self.n_layers} blocks, d_model {self.d_model}, {self.n_tokens} tokens, d_embed {self.d_embed}"
        return f"Encoder({self.spec!r}, {size}, {self.device}, {str(self.dtype).removeprefix('torch.')})"

    @property
    def fingerprint(self) -> str:
        """16 hex digits of the weights, the preprocessing and the precision, which determine all values.

        It follows weights that are changed or loaded into `model` later. Raises ValueError while this thread steers the
        encoder, because steered values must not be stored as its own.
        """
        if self.steering:
            raise ValueError("a steered encoder is not stored: leave `with encoder.steered(...)` before extracting")
        return self._weights_hash(self._about(self.dtype))

    def unsteered_fingerprint(self, precision: str = "") -> str:
        """The fingerprint, also while steered; cheap when repeated, but blind to writes through `weight.data`.

        precision: that of the forward pass, such as "torch.bfloat16"; "" is the encoder's own.
        """
        return self._weights_hash(self._about(precision or self.dtype), thorough=False)

    def _about(self, precision: str | torch.dtype) -> str:
        transform = sorted(self.tower.transform_spec.items(), key=str)
        if self.transform is not self.tower.transform:  # set by hand
            transform.append(("transform", output_digest(self.transform)))
        return f"{transform} {precision}"

    @property
    def mlp_norms(self) -> str:
        """Frobenius norms of each MLP's last matrix: they identify weights in any precision and under any names."""
        key = self.unsteered_fingerprint()
        if key not in self._mlp_norms:
            matrices = [self.place(site).module for site in self.sites if site.endswith(".mlp_act")]
            norms = [float(m.weight.detach().float().norm()) for m in matrices if isinstance(m, nn.Linear)]
            self._mlp_norms[key] = " ".join(f"{norm:.6g}" for norm in norms)
        return self._mlp_norms[key]

    @property
    def logit_scale(self) -> float:
        """Factor of the cosine similarities before the softmax; 1 for a model without one."""
        return self.tower.logit_scale

    @property
    def has_texts(self) -> bool:
        """Whether it embeds texts, too."""
        return type(self.tower).embed_texts is not Tower.embed_texts

    def site(self, name: str | Site) -> Site:
        """The named site of this encoder. Raises ValueError where it has none of that name."""
        site = Site.parse(name)
        if str(site) not in self.sites:
            raise ValueError(f"no site {name}: {self.spec} has {self._sites_in_words()}")
        return site

    def _sites_in_words(self) -> str:
        every = [f"{layer}.{kind}" for layer in range(self.n_layers) for kind in KINDS]
        if self.sites[:-1] == every:
            return f"layers 0 to {self.n_layers - 1}, each with {', '.join(KINDS)}, and proj"
        return f"the sites {', '.join(self.sites)}"

    def place(self, site: str | Site) -> Place:
        """The place of a site in the model. Raises ValueError for a site that the encoder lacks."""
        site = self.site(site)
        return self.tower.place(site.layer, site.kind)

    def width(self, site: str | Site) -> int:
        """d of the values at a site."""
        site = self.site(site)
        return self.d_embed if site.layer is None else self.tower.width(site.layer, site.kind)

    def positions(self, kind: str) -> Tensor:
        """Which of the T tokens are of the kind "cls", "register", "spatial" or "all": (n,) int64."""
        return torch.tensor([i for i, k in enumerate(self.token_kinds) if kind in (k, "all")], dtype=torch.long)

    def preprocess(self, image: Picture) -> Tensor:
        """One picture (PIL, a path, or an array (H, W, 3) of uint8) as the model takes it: (3, H, W) float32, CPU."""
        return self.transform(as_picture(image))

    @property
    def _pixel_shape(self) -> torch.Size:
        """(3, H, W) of every preprocessed picture; computed once for each `transform` that is set."""
        if self._shape_by[0] is not self.transform:
            self._shape_by = self.transform, self.preprocess(Image.new("RGB", (64, 64))).shape
        return self._shape_by[1]

    def pixels(self, images: Picture | Iterable[Picture] | Tensor) -> Tensor:
        """One or more pictures -> (B, 3, H, W) on the encoder's device; a tensor of floats is already preprocessed.

        Raises ValueError for other tensors, for objects that are not pictures, and for an empty list.
        """
        if isinstance(images, Tensor):
            if images.shape[1:] != self._pixel_shape or not images.is_floating_point():
                shape = ", ".join(map(str, self._pixel_shape))
                raise ValueError(
                    f"preprocessed pixels of {self.spec} are (B, {shape}) of floats, not {tuple(images.shape)} of "
                    f"{images.dtype}: give pictures, or what `preprocess` gives, stacked"
                )
            return bring(images, self.device)
        prepared = [self.preprocess(image) for image in ([images] if is_one_picture(images) else images)]
        if not prepared:
            raise ValueError("there are no pictures: give at least one")
        return bring(torch.stack(prepared), self.device)

    def run(self, pixels: Tensor, sites: str | Site | Sequence[str | Site]) -> dict[str, Tensor]:
        """Values at any number of sites from one forward pass, which ends at the last of them.

        pixels (B, 3, H, W), or pictures as `pixels` takes them -> {site: (B, T, d), "proj": (B, E) not normalised},
        float32. An autograd graph is built only where the pixels require gradients; then the values are part of it, in
        any precision. Raises ValueError for a site this encoder does not have.
        """
        wanted = dict.fromkeys(str(self.site(site)) for site in as_sites(sites))
        pixels, values = self.pixels(pixels), {}
        inner = {site: self.place(site) for site in wanted if site != "proj"}
        done = AllRead() if "proj" not in wanted else None
        with reading(inner, values, done), self.precision():
            try:
                embedding = self.tower.embed_images(pixels) if wanted else None
            except AllRead as stop:
                if stop is not done:
                    raise
        if "proj" in wanted:
            values["proj"] = self.edited("proj", embedding.float())
        return {site: values[site] for site in wanted}

    def embed_images(self, images: Tensor | Picture | Iterable[Picture]) -> Tensor:
        """Pixels (B, 3, H, W), or pictures as `pixels` takes them -> (B, E) float32 of unit norm.

        Pictures are opened and run 64 at a time.
        """
        if isinstance(images, Iterator):
            images = list(images)
        if not isinstance(images, Tensor) and not is_one_picture(images) and len(images) > _EMBEDDED_AT_ONCE:
            starts = range(0, len(images), _EMBEDDED_AT_ONCE)
            parts = ([images[i] for i in range(s, min(s + _EMBEDDED_AT_ONCE, len(images)))] for s in starts)
            return torch.cat([self.embed_images(part) for part in parts])
        return F.normalize(self.run(images, "proj")["proj"], dim=-1)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str], batch_size: int = 256) -> Tensor:
        """Texts -> (n, E) float32 of unit norm. Raises ValueError for an encoder without a text tower."""
        if isinstance(texts, str):
            raise ValueError(f"embed_texts takes a list of texts: write [{texts!r}]")
        with self.precision():
            parts = [
                self.tower.embed_texts(list(texts[i : i + batch_size]), self.device).float()
                for i in range(0, len(texts), batch_size)
            ]
        return F.normalize(torch.cat(parts), dim=-1) if parts else torch.empty(0, self.d_embed, device=self.device)

    @property
    def steering(self) -> tuple[InterventionLike, ...]:
        """The interventions that are active in this thread, in order."""
        return tuple(i for steering in self._steerings() for i in steering.interventions)

    def _steerings(self, site: str | None = None) -> list[_Steering]:
        mine = [steering for steering in _active.steerings if steering.encoder is self]
        return mine if site is None else [s for s in mine if any(i.site == site for i in s.interventions)]

    @contextmanager
    def steered(self, *interventions: InterventionLike) -> Iterator[None]:
        """Context in which the interventions edit every forward pass of this thread, in order; contexts add up.

        At `proj` they edit what `run` and `embed_images` give, before it is normalised; elsewhere they edit the
        original model's pass, whoever calls it. Contexts may exit in any order, also by an exception; each removes what
        it added. Weights and other threads are not affected: enter it in the thread that runs the model. Raises
        ValueError for an intervention that does not fit this encoder.
        """
        for intervention in interventions:
            intervention.check_fit(self)
        steering, steerings = _Steering(self, interventions), _active.steerings
        inner = dict.fromkeys(i.site for i in interventions if i.site != "proj")
        steerings.append(steering)
        handles = [self._edit_at(site, steering) for site in inner]
        try:
            yield
        finally:
            steerings.remove(steering)  # of the thread that entered, whichever leaves
            for handle in handles:
                handle.remove()

    def _edit_at(self, site: str, steering: _Steering) -> RemovableHandle:
        """Hook the active interventions at a site into the model; the first context there applies those of all."""

        def edit(value: Tensor) -> Tensor | None:
            steerings = self._steerings(site)
            return self.edited(site, value) if steerings and steerings[0] is steering else None

        # first among the hooks, because transformers collects its hidden_states by hooks too
        return self.place(site).watch(edit, first=True)

    def edited(self, site: str, value: Tensor) -> Tensor:
        """Values at a site after all interventions that are active there, of the same shape."""
        for intervention in self.steering:
            if intervention.site == site:
                value = intervention.edit(value, self)
        return value

    def precision(self):
        """Autocast to `dtype`; nothing where that is float32, or the weights are not float32 themselves."""
        weight = next(self.model.parameters(), None)
        lower = self.dtype != torch.float32 and weight is not None and weight.dtype == torch.float32
        return torch.autocast(self.device.type, self.dtype) if lower else nullcontext()


def load_encoder(
    spec: str, device: str | torch.device = "auto", dtype: str | torch.dtype | None = None, weights: str | None = None
) -> Encoder:
    """Load an encoder by its spec.

    spec, with what the site `proj` holds in brackets:
    - `tiny`, the book's own CLIP, and `tiny-eye`, its image-only encoder (layer-normed CLS);
    - `open_clip:ARCH/PRETRAINED`, any vision transformer of open_clip, with one of its tags, the path of a checkpoint,
      or `none` for random weights; `open_clip:FOLDER` with `open_clip_config.json` and a checkpoint (the joint
      embedding). `weights` is a checkpoint in place of PRETRAINED;
    - `hf:NAME` or `hf:FOLDER`, safetensors in the hub's layout: CLIP and MetaCLIP 2 (their projection), SigLIP and
      SigLIP 2 of a fixed resolution (attention pool), AIMv2 (attention pool; LiT variant: its projection), DINOv2 and
      DINOv3, MAE, MLCD, ViT and DeiT, also classifiers (layer-normed CLS), BEiT and I-JEPA (mean of the patches; a BEiT
      that pools by CLS: that).
    device "auto" is CUDA, else MPS, else the CPU; dtype None is bfloat16 autocast on CUDA and float32 elsewhere.

    Raises ValueError for an unknown spec, a model that is no vision transformer or weights that a checkpoint lacks,
    FileNotFoundError for a missing folder or file, ConnectionError when the hub cannot be reached.
    """
    device = choose_device(device)
    return Encoder(load_tower(spec, weights), spec, device, choose_dtype(dtype, _usual_dtype(device)))


def from_module(
    model: nn.Module,
    sites: Mapping[str, str],
    transform: "Callable[[Image.Image], Tensor]",
    embed: Callable[[Tensor], Tensor] | None = None,
    layout: Layout | None = None,
    *,
    spec: str = "",
    device: str | torch.device = "auto",
    dtype: str | torch.dtype | None = None,
) -> Encoder:
    """An encoder of any model: `from_module(model, {"4.resid_post": "blocks.4"}, transform, embed)`.

    sites: names of sites, and of the modules whose outputs are their values: tokens (B, T, d), or maps (B, d, h, w),
    whose positions are then tokens; all have one grid of tokens. transform: PIL -> (3, H, W), deterministic, and
    picklable for worker processes. embed: pixels (B, 3, H, W) -> (B, E), the site `proj`; None: the model's own output.
    layout: kinds of the tokens, where their number does not show them. spec: a name; "" is that of the model's class.

    The model itself is used, not a copy: it is moved to the device, set to evaluation mode and without gradients.
    Raises ValueError for modules that the model lacks, that run more than once in a pass or give other shapes.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"an encoder is made of a module of torch, not of {quoted(model)}; load_encoder reads a spec")
    if not sites or not isinstance(sites, Mapping):
        raise ValueError("an encoder needs a site: write {'4.resid_post': 'blocks.4'}")
    parsed = {Site.parse(site): name for site, name in sites.items()}
    if any(site.layer is None for site in parsed):
        raise ValueError("the site proj is what embed= gives: leave it out of sites=")
    places = {(site.layer, site.kind): name for site, name in parsed.items()}
    device = choose_device(device)
    tower = ModuleTower(model.to(device), places, transform, embed, layout or Layout())
    return Encoder(tower, spec or type(model).__name__, device, choose_dtype(dtype, _usual_dtype(device)))


def _usual_dtype(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if device.type == "cuda" else torch.float32
