"""The embedded CLIP: its architecture, its vocabulary and its folder layout (trained by `menagerie.clip.training`)."""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from storage import replacing, save_tensors

CONTEXT_LENGTH = 24  # tokens; the longest Menagerie caption needs fewer
VISION = {"layers": 8, "width": 192, "head_width": 64, "mlp_ratio": 3.0, "patch_size": 16, "image_size": 112}
TEXT = {"context_length": CONTEXT_LENGTH, "width": 128, "heads": 2, "layers": 2}
PREPROCESS = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "interpolation": "bicubic", "resize_mode": "squash"}
EMBED_DIM = 128
_BYTE_SYMBOLS = 2 * 256  # open_clip's tokenizer starts from every byte, once inside a word and once at its end


def learn_vocabulary(captions: Iterable[str], n_merges: int = 900) -> str:
    """Byte-pair merges learned on captions, in the text format of open_clip's `SimpleTokenizer` (one merge a line)."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=n_merges + _BYTE_SYMBOLS, end_of_word_suffix="</w>", show_progress=False, min_frequency=2
    )
    tokenizer.train_from_iterator(captions, trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"][:n_merges]
    return "\n".join(["#version: monosemantic vision", *(" ".join(pair) for pair in merges)])


def write_vocabulary(folder: Path, merges: str) -> None:
    """Write `bpe.txt.gz`; the same merges give the same bytes (no time stamp inside)."""
    with replacing(Path(folder) / "bpe.txt.gz") as temporary:
        temporary.write_bytes(gzip.compress(merges.encode(), mtime=0))


def load_tokenizer(folder: Path):
    """open_clip's tokenizer over the folder's own merges: `tokenizer(texts) -> (B, CONTEXT_LENGTH)` int64."""
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(bpe_path=str(Path(folder) / "bpe.txt.gz"), context_length=CONTEXT_LENGTH)


def build_clip(vocab_size: int) -> nn.Module:
    """A freshly initialised `open_clip.model.CLIP` of the embedded architecture."""
    from open_clip.model import CLIP

    return CLIP(EMBED_DIM, vision_cfg=dict(VISION), text_cfg={**TEXT, "vocab_size": vocab_size})


def to_pixels(images: torch.Tensor) -> torch.Tensor:
    """uint8 pictures (B, H, W, 3) -> normalised float (B, 3, H, W), as the encoder's own preprocessing does."""
    mean = torch.tensor(PREPROCESS["mean"], device=images.device)
    std = torch.tensor(PREPROCESS["std"], device=images.device)
    return ((images.float() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()


def save_clip(folder: Path, state: dict[str, torch.Tensor], vocab_size: int) -> None:
    """Write `open_clip_config.json` and `open_clip_model.safetensors` (fp16): the layout `load_encoder` reads."""
    folder = Path(folder)
    config = {
        "model_cfg": {"embed_dim": EMBED_DIM, "vision_cfg": VISION, "text_cfg": {**TEXT, "vocab_size": vocab_size}},
        "preprocess_cfg": {"size": [VISION["image_size"]] * 2, "mode": "RGB", **PREPROCESS},
    }
    with replacing(folder / "open_clip_config.json") as temporary:
        temporary.write_text(json.dumps(config, indent=2) + "\n")
    with replacing(folder / "open_clip_model.safetensors") as temporary:
        save_tensors({name: value.half() for name, value in state.items()}, temporary)
