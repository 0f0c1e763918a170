"""Vision transformers of Hugging Face's transformers: one small `Tower` for each family.

What a model's E (the site `proj`) is: CLIP and AIMv2's LiT variant project into the space they share with texts; SigLIP
and AIMv2 pool their tokens by attention, or by their mean in a checkpoint without that head; I-JEPA and a BEiT that
pools by mean give the mean of their patches; DINO, ViT, DeiT, MAE, MLCD and other BEiTs give the normed CLS token.
The pooler of a ViT is not read: classifiers lack it, and it would be random numbers.
"""

from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType

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
        """The first part of it: (3, H, W), bytes unless the processor computes with other numbers."""
        options = {"do_rescale": False, "do_normalize": False, "return_tensors": "pt"}
        return self.processor(images=image.convert("RGB"), **options)["pixel_values"][0]

    def values(self, pixels: Tensor) -> Tensor:
        """The second part: bytes (3, h, w) -> the model's numbers, of the same shape."""
        options = {"do_resize": False, "do_center_crop": False, "return_tensors": "pt"}
        return self.processor(images=pixels, **options)["pixel_values"][0]


class HuggingFaceTower(Tower):
    """A vision transformer, or the image part of a vision-text model; a subclass says how its family is built.

    Class attributes: `options` of `from_pretrained`; `settings` that replace those of config.json; `block_path` from
    the image part to its blocks; `any_size` if the model takes pictures of other sizes than config.json says.
    """

    options: Mapping = MappingProxyType({})
    settings: Mapping = MappingProxyType({})
    block_path = "encoder.layers"
    branches = ("self_attn", "mlp")
    any_size = False
    has_cls, n_prefix = True, 1

    def __init__(self, model: nn.Module, processor, source: str):
        self.model, self.source = model, source
        self.vision = getattr(model, "vision_model", model)
        self.blocks = self.vision.get_submodule(self.block_path)
        self.d_model = self.vision.config.hidden_size
        projects = hasattr(model, "visual_projection")
        self.d_embed = model.visual_projection.out_features if projects else self.d_model
        self.transform = HuggingFaceTransform(processor)
        self.transform_spec = processor.to_dict()
        self.grid = self._grid()

    def _grid(self) -> tuple[int, int]:
        """Rows and columns of patches in the pictures that the image processor makes."""
        size, other = (tuple(self.transform(Image.new("RGB", s)).shape[1:]) for s in ((640, 480), (480, 640)))
        if size != other:
            raise ValueError(
                f"its image processor makes pictures of several sizes ({size} and {other}), and this book needs one: "
                "let size and crop_size in preprocessor_config.json fix height and width"
            )
        expected = _pair(self.vision.config.image_size)
        if size != expected and not self.any_size:
            raise ValueError(f"its image processor makes pictures of {size} pixels, and the model needs {expected}")
        patch = _pair(self.vision.config.patch_size)
        return size[0] // patch[0], size[1] // patch[1]

    def embed_images(self, pixels: Tensor) -> Tensor:
        output = self.model(pixel_values=pixels)
        return output.last_hidden_state.mean(1) if output.pooler_output is None else output.pooler_output


def _pair(size: int | list[int] | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


class VisionTextTower(HuggingFaceTower):
    """A model with a text part; its images and texts share one embedding."""

    padding: bool | str = True

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
        """Texts as the text part takes them."""
        longest = self.model.config.text_config.max_position_embeddings
        return self.tokenizer(texts, padding=self.padding, truncation=True, max_length=longest, return_tensors="pt")

    def embed_texts(self, texts: list[str], device: torch.device) -> Tensor:
        tokens = {name: bring(tensor, device) for name, tensor in self.tokens(texts).items()}
        return self.model.get_text_features(**tokens).pooler_output


class ClipVisionTower(HuggingFaceTower):
    """The image part of a CLIP, with its projection where the checkpoint has it, else with the layer-normed CLS."""

    def embed_images(self, pixels: Tensor) -> Tensor:
        output = self.model(pixel_values=pixels)
        return output.image_embeds if hasattr(self.model, "visual_projection") else output.pooler_output


class TowerWithoutCls(HuggingFaceTower):
    """The image part of a SigLIP, and others whose tokens are patches alone."""

    has_cls, n_prefix = False, 0


class SiglipTower(VisionTextTower):
    """SigLIP, and SigLIP 2 of a fixed resolution: no CLS, the tokens are pooled by attention."""

    has_cls, n_prefix = False, 0
    padding = "max_length"

    def tokens(self, texts: list[str]) -> Mapping[str, Tensor]:
        """As in training: lower case, padded to the full length, and the padding is attended to."""
        return {"input_ids": super().tokens([text.lower() for text in texts])["input_ids"]}


class Aimv2Tower(VisionTextTower):
    """AIMv2's LiT variant, with a text part: no CLS, the tokens are pooled by attention and projected."""

    branches = ("attention", "ffn")
    has_cls, n_prefix = False, 0

    def __init__(self, model: nn.Module, processor, source: str):
        super().__init__(model, processor, source)
        # its fused attention drops the causal mask where no text is padded: embeddings would depend on the batch
        model.text_model.set_attn_implementation("eager")


class Aimv2VisionTower(TowerWithoutCls):
    """AIMv2."""

    branches = ("attention", "ffn")


class Dinov2Tower(HuggingFaceTower):
    """DINOv2; a layer scale ends both branches of a block."""

    block_path = "encoder.layer"
    branches = ("layer_scale1", "layer_scale2")
    any_size = True  # positions are interpolated: checkpoints say 518, their processors 224


class Dinov2WithRegistersTower(Dinov2Tower):
    """DINOv2 with register tokens between CLS and the patches."""

    def __init__(self, model: nn.Module, processor, source: str):
        super().__init__(model, processor, source)
        self.n_prefix = 1 + model.config.num_register_tokens


class VitTower(HuggingFaceTower):
    """The plain ViT, and classifiers built on it."""

    options = MappingProxyType({"add_pooling_layer": False})
    block_path = "layers"
    branches = ("attention", "mlp")

    def embed_images(self, pixels: Tensor) -> Tensor:
        return self.model(pixel_values=pixels).last_hidden_state[:, 0]


class DeitTower(VitTower):
    """Distilled DeiT: a distillation token follows CLS. The undistilled one is a plain ViT."""

    n_prefix = 2


class Dinov3Tower(Dinov2WithRegistersTower):
    """DINOv3's vision transformers: CLS, registers, rotary positions; a layer scale ends both branches of a block."""

    block_path = "model.layer"


class MaeTower(VitTower):
    """The encoder of a masked autoencoder, which sees all patches, in their order."""

    options = MappingProxyType({})
    settings = MappingProxyType({"mask_ratio": 0.0})

    def embed_images(self, pixels: Tensor) -> Tensor:
        order = torch.arange(self.grid[0] * self.grid[1], device=pixels.device)  # by which patches are sorted
        noise = order.float().expand(len(pixels), -1)
        return self.model(pixel_values=pixels, noise=noise).last_hidden_state[:, 0]


class BeitTower(VitTower):
    """BEiT. Its layer scales are factors in a block's code; here they end the branches as modules, to be read there."""

    def __init__(self, model: nn.Module, processor, source: str):
        super().__init__(model, processor, source)
        for block in self.blocks:
            for branch, factor in zip(self.branches, ("lambda_1", "lambda_2"), strict=True):
                scale = getattr(block, factor)
                if isinstance(scale, nn.Parameter):
                    delattr(block, factor)
                    setattr(block, factor, 1.0)
                    setattr(block, branch, _Scaled(getattr(block, branch), scale))

    def embed_images(self, pixels: Tensor) -> Tensor:
        tokens = self.model(pixel_values=pixels).last_hidden_state
        return tokens[:, 1:].mean(1) if self.model.config.use_mean_pooling else tokens[:, 0]


class _Scaled(nn.Module):
    """A module whose output (or the first part of it) is multiplied by a layer scale."""

    def __init__(self, module: nn.Module, scale: nn.Parameter):
        super().__init__()
        self.module, self.scale = module, scale

    def forward(self, *args, **options) -> Tensor | tuple:
        output = self.module(*args, **options)
        return (self.scale * output[0], *output[1:]) if isinstance(output, tuple) else self.scale * output


class IJepaTower(VitTower):
    """I-JEPA: no CLS."""

    has_cls, n_prefix = False, 0

    def embed_images(self, pixels: Tensor) -> Tensor:
        return self.model(pixel_values=pixels).last_hidden_state.mean(1)
