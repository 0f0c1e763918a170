"""Encoders: one face for open_clip, Hugging Face and the book's own CLIP.

Every model runs its *own* forward pass; values are read with forward hooks, and the pass is broken off as soon as the
last wanted site was reached. So a site's value is the original model's by construction, whatever the family. A family
needs one small `Tower` (lib/towers/) that says where its blocks are and how it embeds.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from lib.devices import choose_device
from lib.towers import Tower, load_tower

if TYPE_CHECKING:
    from lib.steering import Intervention

_KINDS = ("resid_post", "mlp_out", "attn_out")


@dataclass(frozen=True)
class Site:
    """A place in an encoder, by TransformerLens' names: `4.resid_post`, `4.mlp_out`, `4.attn_out`, or `proj`.

    `resid_post` is the residual stream after block `layer` (0-based); `mlp_out` and `attn_out` are what the block's MLP
    and attention add to it (layer scale included); `proj` is the joint embedding before normalisation (layer None).
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
        match = re.fullmatch(r"(\d+)\.(\w+)", text)
        if match is None or match[2] not in _KINDS:
            raise ValueError(f"unknown site {text!r}: write 'proj' or LAYER.KIND with KIND one of {', '.join(_KINDS)}")
        return cls(match[2], int(match[1]))

    def __str__(self) -> str:
        return self.kind if self.layer is None else f"{self.layer}.{self.kind}"


class _AllRead(Exception):
    """Raised inside the forward pass once every wanted site was read, so that nothing after it runs."""


class Encoder(nn.Module):
    """An image (and, for CLIP, text) encoder whose inside can be read at any `Site`. Made by `load_encoder`.

    Attributes: `spec` as given; `device`; `dtype` the precision of the forward pass (weights stay float32, autocast
    does the rest); `n_layers`, `d_model`, `d_embed`; `n_tokens` T with the prefix; `grid` (h, w) of patches; `has_cls`;
    `sites` all site names in order; `token_kinds` (T,) of "cls" | "register" | "spatial"; `transform` the picklable
    preprocessing for worker processes; `logit_scale`.
    """

    def __init__(self, tower: Tower, spec: str, device: torch.device, dtype: torch.dtype):
        super().__init__()
        self.tower, self.spec, self.device, self.dtype = tower, spec, device, dtype
        self.model = tower.model.to(device).eval().requires_grad_(False)
        self.n_layers, self.d_model, self.d_embed = len(tower.blocks), tower.d_model, tower.d_embed
        self.grid, self.has_cls, self.transform = tower.grid, tower.has_cls, tower.transform
        registers = tower.n_prefix - tower.has_cls
        patches = self.grid[0] * self.grid[1]
        self.token_kinds = ("cls",) * tower.has_cls + ("register",) * registers + ("spatial",) * patches
        self.n_tokens = len(self.token_kinds)
        self.sites = [f"{layer}.{kind}" for layer in range(self.n_layers) for kind in reversed(_KINDS)] + ["proj"]
        self.logit_scale = tower.logit_scale
        self._interventions: tuple[Intervention, ...] = ()  # those in force, see `steered`

    def __repr__(self) -> str:
        size = f"{self.n_layers} blocks, d_model {self.d_model}, {self.n_tokens} tokens, d_embed {self.d_embed}"
        return f"Encoder({self.spec!r}, {size}, {self.device}, {str(self.dtype).removeprefix('torch.')})"

    @property
    def fingerprint(self) -> str:
        """16 hex digits of the weights, the preprocessing and the precision: other numbers, other fingerprint.

        Raises ValueError while the encoder is steered: what it then says must not be stored as its own.
        """
        if self._interventions:
            raise ValueError("a steered encoder is not stored: leave `with encoder.steered(...)` before extracting")
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(f"{sorted(self.tower.transform_spec.items(), key=str)} {self.dtype}".encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()[:16]

    @property
    def has_texts(self) -> bool:
        """Whether it embeds texts, too."""
        return type(self.tower).embed_texts is not Tower.embed_texts

    def site(self, name: str | Site) -> Site:
        """The named site of this encoder. Raises ValueError where it has none of that name."""
        site = Site.parse(name)
        if site.layer is not None and site.layer >= self.n_layers:
            raise ValueError(f"no site {name}: {self.spec} has layers 0 to {self.n_layers - 1}")
        return site

    def width(self, site: str | Site) -> int:
        """d of the values at a site."""
        return self.d_embed if self.site(site).kind == "proj" else self.d_model

    def positions(self, kind: str) -> Tensor:
        """Which of the T tokens are of the kind "cls", "register", "spatial" or "all": (n,) int64."""
        return torch.tensor([i for i, k in enumerate(self.token_kinds) if kind in (k, "all")], dtype=torch.long)

    def preprocess(self, image: Image.Image) -> Tensor:
        """One picture as the model wants it: (3, H, W) float32 on the CPU."""
        return self.transform(image)

    def pixels(self, images: Sequence[Image.Image]) -> Tensor:
        """Pictures -> (B, 3, H, W) on the encoder's device."""
        return torch.stack([self.transform(image) for image in images]).to(self.device)

    def run(self, pixels: Tensor, sites: Sequence[str | Site]) -> dict[str, Tensor]:
        """Values at any number of sites from one forward pass, which ends at the last of them.

        (B, 3, H, W) -> {site: (B, T, d_model), "proj": (B, E) not normalised}, float32. No graph is built unless the
        pixels ask for gradients. Raises ValueError for a site this encoder does not have.
        """
        wanted = [self.site(site) for site in sites]
        values: dict[str, Tensor] = {}
        inner = {str(site): self.tower.module(site.layer, site.kind) for site in wanted if site.kind != "proj"}
        reads_proj = len(inner) < len({str(site) for site in wanted})
        stop_after = None if reads_proj else len(inner)
        with _reading(inner, values, stop_after), self.precision():
            try:
                embedding = self.tower.embed_images(pixels.to(self.device)) if wanted else None
            except _AllRead:
                embedding = None
        if reads_proj:
            values["proj"] = self._edited("proj", embedding)
        return {str(site): values[str(site)].float() for site in wanted}

    def embed_images(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, E) float32 of unit norm."""
        return F.normalize(self.run(pixels, ["proj"])["proj"], dim=-1)

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

    @contextmanager
    def steered(self, *interventions: "Intervention") -> Iterator[None]:
        """While it lasts, every forward pass is steered by the interventions, in their order; contexts add up.

        At `proj` they edit what `run` and `embed_images` give, before it is normalised; elsewhere they edit the
        original model's pass, whoever calls it. No weight is touched: leaving the context, also by an exception,
        restores the model bit for bit. Raises ValueError for an intervention that does not fit this encoder.
        """
        for intervention in interventions:
            intervention.check(self)
        outer = self._interventions
        hooked = {intervention.site for intervention in outer} | {"proj"}
        handles = []
        try:
            self._interventions = (*outer, *interventions)
            for site in dict.fromkeys(i.site for i in interventions if i.site not in hooked):
                handles.append(self._edit_output_at(self.site(site)))
            yield
        finally:
            self._interventions = outer
            for handle in handles:
                handle.remove()

    def _edit_output_at(self, site: Site) -> RemovableHandle:
        """Hook the interventions in force at an inner site into the model."""

        def edit(module: nn.Module, inputs: tuple, output: Tensor | tuple) -> Tensor | tuple:
            if isinstance(output, tuple):
                return self._edited(str(site), output[0]), *output[1:]
            return self._edited(str(site), output)

        # first among the hooks, because transformers collects its hidden_states by hooks too
        return self.tower.module(site.layer, site.kind).register_forward_hook(edit, prepend=True)

    def _edited(self, site: str, value: Tensor) -> Tensor:
        for intervention in self._interventions:
            if intervention.site == site:
                value = intervention.edit(value, self)
        return value

    def precision(self):
        """Autocast, unless the weights have another precision than float32 themselves."""
        lower = self.dtype != torch.float32 and next(self.model.parameters()).dtype == torch.float32
        return torch.autocast(self.device.type, self.dtype) if lower else nullcontext()


@contextmanager
def _reading(modules: dict[str, nn.Module], values: dict[str, Tensor], stop_after: int | None) -> Iterator[None]:
    """Fill `values` from the modules' outputs; after `stop_after` of them leave the forward pass by `_AllRead`."""

    def reader(name: str):
        def read(module: nn.Module, inputs: tuple, output: Tensor | tuple) -> None:
            values[name] = output[0] if isinstance(output, tuple) else output
            if len(values) == stop_after:
                raise _AllRead

        return read

    handles = [module.register_forward_hook(reader(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def load_encoder(
    spec: str, device: str | torch.device = "auto", dtype: str | torch.dtype | None = None, weights: str | None = None
) -> Encoder:
    """Load an encoder by its spec.

    spec, where the text says what E (the site `proj`) is:
    - `tiny`, the book's own CLIP, and `tiny-eye`, its image-only encoder (layer-normed CLS);
    - `open_clip:ARCH/PRETRAINED`, any vision transformer of open_clip, with one of its tags, the path of a checkpoint,
      or `none` for random weights; `open_clip:FOLDER` with `open_clip_config.json` and a checkpoint (E: the joint
      embedding). `weights` is a checkpoint in the place of PRETRAINED;
    - `hf:NAME` or `hf:FOLDER`, safetensors in the hub's layout: CLIP (its projection), SigLIP and SigLIP 2 of a fixed
      resolution (attention pool), AIMv2 (attention pool; LiT variant: its projection), DINOv2 with or without
      registers, ViT and DeiT, also classifiers (layer-normed CLS).
    device "auto" is CUDA, else MPS, else the CPU; dtype None is bfloat16 autocast on CUDA and float32 elsewhere.

    Raises ValueError for an unknown spec, a model that is no vision transformer or weights that a checkpoint lacks,
    FileNotFoundError for a missing folder or file, ConnectionError when the hub cannot be reached.
    """
    device = choose_device(device)
    usual = torch.bfloat16 if device.type == "cuda" else torch.float32
    return Encoder(load_tower(spec, weights), spec, device, choose_dtype(dtype, usual))


def choose_dtype(dtype: str | torch.dtype | None, usual: torch.dtype) -> torch.dtype:
    """The precision of that name, `usual` for None. Raises ValueError for others than a model runs in."""
    dtype = usual if dtype is None else getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError("the dtype of a model is 'float32', 'bfloat16' or 'float16'")
    return dtype
