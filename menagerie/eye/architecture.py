"""The embedded eye: a small DINOv2 architecture of its own width, and its folder in the Hugging Face hub's layout."""

from pathlib import Path

import torch
from torch import nn

from storage import replacing, save_tensors

EYE = {
    "hidden_size": 160,
    "num_hidden_layers": 6,
    "num_attention_heads": 5,
    "mlp_ratio": 3,
    "patch_size": 16,
    "image_size": 112,
    "layerscale_value": 1.0,
    "attn_implementation": "eager",  # at 50 tokens two plain products beat the fused attention's backward on a CPU
}
MEAN, STD = 0.5, 0.25


def build_eye() -> nn.Module:
    """A freshly initialised `transformers.Dinov2Model` of the embedded architecture; `pooler_output` is (B, 160)."""
    from transformers import Dinov2Config, Dinov2Model

    return Dinov2Model(Dinov2Config(**EYE))


def to_pixels(images: torch.Tensor) -> torch.Tensor:
    """uint8 pictures (B, H, W, 3) -> normalised float (B, 3, H, W), as the saved image processor does."""
    return ((images.float() / 255 - MEAN) / STD).permute(0, 3, 1, 2).contiguous()


def save_eye(folder: Path, state: dict[str, torch.Tensor]) -> None:
    """Write `config.json`, `model.safetensors` (fp16) and `preprocessor_config.json`: the layout of the hub."""
    from transformers import Dinov2Config, ViTImageProcessor

    folder, side = Path(folder), EYE["image_size"]
    config = Dinov2Config(**EYE, architectures=["Dinov2Model"], dtype="float16")
    processor = ViTImageProcessor(
        size={"height": side, "width": side}, resample=3, image_mean=[MEAN] * 3, image_std=[STD] * 3
    )
    for name, text in (
        ("config.json", config.to_json_string()),
        ("preprocessor_config.json", processor.to_json_string()),
    ):
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    with replacing(folder / "model.safetensors") as temporary:
        save_tensors({name: value.half() for name, value in state.items()}, temporary, {"format": "pt"})
