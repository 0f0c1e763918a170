"""Small models with random weights, written in the layouts that users have on disk."""

import gzip
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

import lib  # noqa: F401  open_clip needs its torchvision schemas

MERGES = ["f o", "fo x</w>", "o w", "ow l</w>"]
N_BYTE_TOKENS, N_SPECIAL_TOKENS = 512, 2

MODEL_CFG = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 24, "layers": 4, "head_width": 8},
    "text_cfg": {
        "context_length": 16,
        "vocab_size": N_BYTE_TOKENS + len(MERGES) + N_SPECIAL_TOKENS,
        "width": 16,
        "heads": 2,
        "layers": 2,
    },
}


def open_clip_folder(folder: Path, init_seed: int = 3, **vision_cfg) -> Path:
    """A CLIP of 4 blocks (d 24, 4 x 4 patches, E 12) in the book's own layout: config, fp16 weights, vocabulary."""
    import open_clip

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bpe.txt.gz").write_bytes(gzip.compress("\n".join(["#version: 0.2", *MERGES]).encode()))
    model_cfg = {**MODEL_CFG, "vision_cfg": {**MODEL_CFG["vision_cfg"], **vision_cfg}}
    preprocess_cfg = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(init_seed)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    for name, parameter in model.named_parameters():
        if "ls_" in name:  # layer scales start so small that every block would be the identity
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    weights = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    return folder
