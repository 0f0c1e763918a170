"""Vision transformers of Hugging Face's transformers: a table with one row per family, and the tower built from it.

What the site `proj` holds: CLIP and AIMv2's LiT variant project into the space they share with texts; SigLIP
and AIMv2 pool their tokens by attention, or by their mean in a checkpoint without that head; I-JEPA and a BEiT that
pools by mean give the mean of their patches; DINO, ViT, DeiT, MAE, MLCD and other BEiTs give the normed CLS token.
The pooler of a ViT is not read: classifiers lack it, and it would be random numbers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from PIL import Image
from torch import Tensor, nn

from lib.devices import bring
from lib.encoders.folders import check_tokenizer
from lib.encoders.tower import Tower, with_clear_errors


class HuggingFaceTransform:
    """PIL -> (3, H, W) with a Hugging Face image processor; picklable, so that worker processes can hold it."""

    def __init__(self, processor):
        self.processor = processor

    def __call__(self, image: Image.Image) -> Tensor:
        return self.processor(images=image.convert("RGB"), return_tensors="pt")["pixel_values"][0]

    def geometry(self, image: Image.Image) -> Tensor:
        """Resize and crop only: (3, H, W), uint8 unless the processor computes in another dtype."""
        options = {"do_rescale": False, "do_normalize": False, "return_tensors": "pt"}
        return self.processor(images=image.convert("RGB"), **options)["pixel_values"][0]

    def values(self, pixels: Tensor) -> Tensor:
        """Rescale and normalise only: uint8 (3, h, w) -> floats of the same shape."""
        options = {"do_resize": False, "do_center_crop": False, "return_tensors": "pt"}
        return self.processor(images=pixels, **options)["pixel_values"][0]


@dataclass(frozen=True)
class Family:
    """How a family of models is built. Fields that are not given are as in CLIP.

    classes: names in transformers, the first where config.json names none. block_path: from the image part to its
    blocks. branches: see `Tower`. n_prefix: tokens before the patches, the first of them CLS, registers not counted.
    any_size: whether it takes pictures of other sizes than config.json says, by interpolating position embeddings.
    options: of `from_pretrained`. settings: replace those in config.json. prepare: changes the loaded model.
    """

    classes: tuple[str, ...]
    block_path: str = "encoder.layers"
    branches: tuple[str, str] = ("self_attn", "mlp")
    n_prefix: int = 1
    any_size: bool = False
    embed: "Callable[[HuggingFaceTower, Tensor], Tensor]" = lambda tower, pixels: tower.pooled(pixels)
    options: Mapping = field(default_factory=dict)
    settings: Mapping = field(default_factory=dict)
    prepare: Callable[[nn.Module], None] = lambda model: None


class HuggingFaceTower(Tower):
    """A vision transformer, or the image part of a vision-text model."""

    def __init__(self, model: nn.Module, processor, source: str, family: Family):
        family.prepare(model)
        self.model, self.source, self.family, self.branches = model, source, family, family.branches
        self.vision = getattr(model, "vision_model", model)
        self.blocks = self.vision.get_submodule(family.block_path)
        self.d_model = self.vision.config.hidden_size
        projects = hasattr(model, "visual_projection")
        self.d_embed = model.visual_projection.out_features if projects else self.d_model
        self.has_cls = family.n_prefix > 0
        self.n_prefix = family.n_prefix + getattr(model.config, "num_register_tokens", 0)
        self.transform = HuggingFaceTransform(processor)
        self.transform_spec = processor.to_dict()
        self.grid = self._grid()

    def _grid(self) -> tuple[int, int]:
        """Rows and columns of patches in the pictures that the image processor makes."""
        size, other = (tuple(self.transform(Image.new("RGB", s)).shape[1:]) for s in ((640, 480), (480, 640)))
        if size != other:
            raise ValueError(
                f"its image processor makes pictures of several sizes ({size} and {other}), and one is needed: "
                "let size and crop_size in preprocessor_config.json fix height and width"
            )
        expected = _pair(self.vision.config.image_size)
        if size != expected and not self.family.any_size:
            raise ValueError(f"its image processor makes pictures of {size} pixels, and the model needs {expected}")
        patch = _pair(self.vision.config.patch_size)
        return size[0] // patch[0], size[1] // patch[1]

    def embed_images(self, pixels: Tensor) -> Tensor:
        return self.family.embed(self, pixels)

    def pooled(self, pixels: Tensor) -> Tensor:
        """The model's projection or pooled token, where the checkpoint has them; else the mean of its tokens."""
        output = self.model(pixel_values=pixels)
        if hasattr(self.model, "visual_projection"):
            return output.image_embeds
        return output.last_hidden_state.mean(1) if output.pooler_output is None else output.pooler_output


class VisionTextTower(HuggingFaceTower):
    """A model with a text part; its images and texts share one embedding."""

    def embed_images(self, pixels: Tensor) -> Tensor:
        return self.model.get_image_features(pixel_values=pixels).pooler_output

    @cached_property
    def tokenizer(self):
        """Made when the first text comes: images need none. Raises FileNotFoundError for a folder without one."""
        from transformers import AutoTokenizer

        check_tokenizer(self.source)
        return with_clear_errors(
            f"the tokenizer of {self.source}",
            lambda: AutoTokenizer.from_pretrained(self.source, trust_remote_code=False),
        )

    def tokens(self, texts: list[str]) -> Mapping[str, Tensor]:
        """Inputs of the text part. SigLIP's are as in training: lower case, padded, with attention to the padding."""
        siglip, longest = "Siglip" in type(self.model).__name__, self.model.config.text_config.max_position_embeddings
        texts, padding = ([text.lower() for text in texts], "max_length") if siglip else (texts, True)
        tokens = self.tokenizer(texts, padding=padding, truncation=True, max_length=longest, return_tensors="pt")
        return {"input_ids": tokens["input_ids"]} if siglip else tokens

    def embed_texts(self, texts: list[str], device: torch.device) -> Tensor:
        tokens = {name: bring(tensor, device) for name, tensor in self.tokens(texts).items()}
        return self.model.get_text_features(**tokens).pooler_output


def _pair(size: int | list[int] | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _cls_or_mean(tower: HuggingFaceTower, pixels: Tensor) -> Tensor:
    """CLS (B, d); the mean of the patches for a model without CLS, and for a BEiT with use_mean_pooling."""
    tokens = tower.model(pixel_values=pixels).last_hidden_state
    mean = not tower.has_cls or getattr(tower.model.config, "use_mean_pooling", False)
    return tokens[:, tower.n_prefix :].mean(1) if mean else tokens[:, 0]


def _cls_unshuffled(tower: HuggingFaceTower, pixels: Tensor) -> Tensor:
    """CLS (B, d) of a masked autoencoder: rising noise keeps the patches in order, since it sorts them by noise."""
    noise = torch.arange(tower.grid[0] * tower.grid[1], device=pixels.device).float().expand(len(pixels), -1)
    return tower.model(pixel_values=pixels, noise=noise).last_hidden_state[:, 0]


def _use_eager_attention(model: nn.Module) -> None:
    """Avoid fused attention: without padding it drops the causal mask, so embeddings would depend on the batch."""
    model.text_model.set_attn_implementation("eager")


def _layer_scales_as_modules(model: nn.Module) -> None:
    """Move BEiT's layer scales from the block's code into modules at the end of its branches, for hooks to read."""
    for block in model.get_submodule("layers"):
        for branch, factor in (("attention", "lambda_1"), ("mlp", "lambda_2")):
            scale = getattr(block, factor)
            if isinstance(scale, nn.Parameter):
                delattr(block, factor)
                setattr(block, factor, 1.0)
                setattr(block, branch, _Scaled(getattr(block, branch), scale))


class _Scaled(nn.Module):
    """A module whose output (or the first part of it) is multiplied by a layer scale."""

    def __init__(self, module: nn.Module, scale: nn.Parameter):
        super().__init__()
        self.module, self.scale = module, scale

    def forward(self, *args, **options) -> Tensor | tuple:
        output = self.module(*args, **options)
        return (self.scale * output[0], *output[1:]) if isinstance(output, tuple) else self.scale * output


_VIT = {"block_path": "layers", "branches": ("attention", "mlp"), "embed": _cls_or_mean}
_NO_POOLER = {"options": {"add_pooling_layer": False}}
_DINO = {"branches": ("layer_scale1", "layer_scale2"), "any_size": True}  # checkpoints say 518, their processors 224
_AIM = {"branches": ("attention", "ffn"), "n_prefix": 0}

FAMILIES: dict[str, Family] = {
    "clip": Family(("CLIPModel",)),
    "clip_vision_model": Family(("CLIPVisionModel", "CLIPVisionModelWithProjection")),
    "metaclip_2": Family(("MetaClip2Model",)),
    "metaclip_2_vision_model": Family(("MetaClip2VisionModel", "MetaClip2VisionModelWithProjection")),
    "mlcd": Family(("MLCDVisionModel",)),
    "mlcd_vision_model": Family(("MLCDVisionModel",)),
    "siglip": Family(("SiglipModel",), n_prefix=0),
    "siglip_vision_model": Family(("SiglipVisionModel",), n_prefix=0),
    "aimv2": Family(("Aimv2Model",), **_AIM, prepare=_use_eager_attention),
    "aimv2_vision_model": Family(("Aimv2VisionModel",), **_AIM),
    "dinov2": Family(("Dinov2Model",), "encoder.layer", **_DINO),
    "dinov2_with_registers": Family(("Dinov2WithRegistersModel",), "encoder.layer", **_DINO),
    "dinov3_vit": Family(("DINOv3ViTModel",), "model.layer", **_DINO),
    "beit": Family(("BeitModel",), **_VIT, **_NO_POOLER, prepare=_layer_scales_as_modules),
    "ijepa": Family(("IJepaModel",), n_prefix=0, **_VIT, **_NO_POOLER),
    "vit_mae": Family(("ViTMAEModel",), **{**_VIT, "embed": _cls_unshuffled}, settings={"mask_ratio": 0.0}),
    "vit": Family(("ViTModel",), **_VIT, **_NO_POOLER),
    "deit": Family(("DeiTModel",), n_prefix=2, **_VIT, **_NO_POOLER),  # distilled: a token of its own follows CLS
}
"""By `model_type` of config.json. An undistilled DeiT is a plain ViT."""


def tower_of(model: nn.Module, processor, source: str, model_type: str) -> HuggingFaceTower:
    """The tower of a loaded model; one with a text part embeds texts, too."""
    kind = VisionTextTower if hasattr(model, "get_text_features") else HuggingFaceTower
    return kind(model, processor, source, FAMILIES[model_type])
