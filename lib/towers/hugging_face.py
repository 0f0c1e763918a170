"""Vision transformers of Hugging Face's transformers: one small `Tower` for each family.

What a model's E is: CLIP and AIMv2's LiT variant project into the space they share with texts; SigLIP and AIMv2 pool
their tokens by attention; DINOv2, ViT and DeiT give the layer-normed CLS token. Weights that a checkpoint does not have
are never made up: a ViT's pooler, which classifiers lack, is not read.
"""

from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from lib.towers.base import Tower, with_clear_errors


class HuggingFaceTransform:
    """PIL -> (3, H, W) with a Hugging Face image processor; picklable, so that worker processes can hold it."""

    def __init__(self, processor):
        self.processor = processor

    def __call__(self, image: Image.Image) -> Tensor:
        return self.processor(images=image.convert("RGB"), return_tensors="pt")["pixel_values"][0]


class HuggingFaceTower(Tower):
    """A vision transformer, or the image part of a vision-text model; a subclass says how its blocks are built.

    Class attributes: `block_path` from the image part to its blocks; `branches` the modules of a block whose outputs are
    added to the residual stream, attention's and the MLP's; `any_size` if the model takes pictures of other sizes than its config says.
    """

    block_path = "encoder.layers"
    branches = ("self_attn", "mlp")
    any_size = False
    has_cls, n_prefix = True, 1

    def __init__(self, model: nn.Module, processor, source: str):
        self.model, self.source = model, source
        self.vision = getattr(model, "vision_model", model)
        self.blocks = self.vision.get_submodule(self.block_path)
        self.d_model = self.vision.config.hidden_size
        self.d_embed = self._embedding_width()
        self.transform = HuggingFaceTransform(processor)
        self.transform_spec = processor.to_dict()
        self.grid = self._grid()

    def _embedding_width(self) -> int:
        return self.d_model

    def _grid(self) -> tuple[int, int]:
        """Rows and columns of patches in the pictures that the image processor makes."""
        wide, tall = (tuple(self.transform(Image.new("RGB", size)).shape[1:]) for size in ((640, 480), (480, 640)))
        if wide != tall:
            raise ValueError(
                f"its image processor makes pictures of several sizes ({wide} and {tall}), and this book needs one: "
                "set size and crop_size in preprocessor_config.json to a fixed height and width"
            )
        expected = _pair(self.vision.config.image_size)
        if wide != expected and not self.any_size:
            raise ValueError(f"its image processor makes pictures of {wide}, but the model was built for {expected}")
        patch = _pair(self.vision.config.patch_size)
        return wide[0] // patch[0], wide[1] // patch[1]

    def module(self, layer: int, kind: str) -> nn.Module:
        block = self.blocks[layer]
        attn_out, mlp_out = self.branches
        return {"resid_post": block, "attn_out": getattr(block, attn_out), "mlp_out": getattr(block, mlp_out)}[kind]


def _pair(size: int | list[int] | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


class VisionTextTower(HuggingFaceTower):
    """A model with a text part, whose images and texts share one embedding."""

    padding: bool | str = True

    def embed_images(self, pixels: Tensor) -> Tensor:
        return self.model.get_image_features(pixel_values=pixels).pooler_output

    @cached_property
    def tokenizer(self):
        """Made when the first text comes: images need none."""
        from transformers import AutoTokenizer

        return with_clear_errors(
            f"the tokenizer of {self.source}",
            lambda: AutoTokenizer.from_pretrained(self.source, trust_remote_code=False),
        )

    def embed_texts(self, texts: list[str], device: torch.device) -> Tensor:
        longest = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(texts, padding=self.padding, truncation=True, max_length=longest, return_tensors="pt")
        return self.model.get_text_features(**tokens.to(device)).pooler_output


class ClipTower(VisionTextTower):
    """`CLIPModel`: OpenAI's CLIP and its kin."""

    def _embedding_width(self) -> int:
        return self.model.config.projection_dim


class Dinov2Tower(HuggingFaceTower):
    """`Dinov2Model`; its branches end in layer scales."""

    block_path = "encoder.layer"
    branches = ("layer_scale1", "layer_scale2")
    any_size = True  # positions are interpolated: checkpoints say 518, their processors 224

    def embed_images(self, pixels: Tensor) -> Tensor:
        return self.model(pixel_values=pixels).pooler_output


_FAMILIES: dict[str, tuple[str, type[HuggingFaceTower]]] = {
    "clip": ("CLIPModel", ClipTower),
    "dinov2": ("Dinov2Model", Dinov2Tower),
}
"""By the config's `model_type`: the class of transformers that loads it, and its tower."""


def hugging_face_tower(name: str) -> HuggingFaceTower:
    """The model `NAME` on the hub or in a folder in the hub's layout; see `lib.models.load_encoder` for the errors."""
    import transformers

    folder = Path(name).expanduser()
    is_folder = name.startswith((".", "/", "~")) or folder.is_dir()
    source = str(folder) if is_folder else name
    if is_folder and not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"no model in {source}: it needs a config.json, model.safetensors and preprocessor_config.json"
        )
    config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
    if config.model_type not in _FAMILIES:
        raise ValueError(
            f"it is a {config.model_type!r} model; of Hugging Face this book reads {', '.join(_FAMILIES)} models"
        )
    model_class, tower = _FAMILIES[config.model_type]
    model = getattr(transformers, model_class).from_pretrained(
        source, config=config, use_safetensors=True, dtype=torch.float32
    )
    processor = transformers.AutoImageProcessor.from_pretrained(source, trust_remote_code=False)
    return tower(model, processor, source)
