"""Models of the real families with random weights, in the layouts in which the hub has the ones that profiles name.

Widths, pictures and language models are small, because loaders read them from the configuration; the number of blocks,
the patches, the vocabulary of CLIP, the files and the old forms of the configurations are those of the originals.
"""

import json
import math
import struct
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save, save_file

import lib  # noqa: F401  transformers' image processors need its torchvision schemas
from tests.small_hub import files_of
from tests.small_llava import CHAT_TEMPLATE, LLAMA, byte_tokenizer

WIDTH = 32
HEADS = {"num_attention_heads": 2}
CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
CLIP_TEXT = {
    "vocab_size": 49408,
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": 2,
    "max_position_embeddings": 77,
    "bos_token_id": 0,
    "eos_token_id": 2,  # as in all of OpenAI's: wrong, and taken as the token of the largest number
    "pad_token_id": 1,
    **HEADS,
}
SIGLIP_WORDS = ("a", "e", "i", "o", "u", "n", "r", "s", "t", "er", "ing", "▁photo", "▁of", "▁a", "▁dog")


def clip(folder: Path, layers: int, patch: int, side: int, kept_as: str) -> None:
    """A CLIP as OpenAI's repositories have it: the image processor's numbers are old ones, without names.

    kept_as: "safetensors", or "bin" for tensors that only pickle can read, as some of the repositories do.
    """
    vision = {"image_size": side, "patch_size": patch, "num_hidden_layers": layers, **_size()}
    settings = {"vision_config": vision, "text_config": CLIP_TEXT, "projection_dim": WIDTH // 2}
    _save(folder, "CLIPModel", settings, kept_as)
    _write(
        folder / "preprocessor_config.json",
        {
            "crop_size": side,
            "do_center_crop": True,
            "do_normalize": True,
            "do_resize": True,
            "feature_extractor_type": "CLIPFeatureExtractor",
            "image_mean": CLIP_MEAN,
            "image_std": CLIP_STD,
            "resample": 3,
            "size": side,
        },
    )
    _clip_tokenizer(folder)


def siglip(folder: Path, layers: int, patch: int, side: int) -> None:
    """A SigLIP, whose tokenizer is one of sentencepiece."""
    vision = {"image_size": side, "patch_size": patch, "num_hidden_layers": layers, **_size()}
    text = {k: v for k, v in CLIP_TEXT.items() if not k.endswith("_id")}
    text |= {"vocab_size": 3 + 26 + len(SIGLIP_WORDS), "max_position_embeddings": 64, "projection_size": WIDTH}
    _save(folder, "SiglipModel", {"vision_config": vision, "text_config": text})
    half = [0.5, 0.5, 0.5]
    _write(
        folder / "preprocessor_config.json",
        {
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": half,
            "image_processor_type": "SiglipImageProcessor",
            "image_std": half,
            "processor_class": "SiglipProcessor",
            "resample": 3,
            "rescale_factor": 1 / 255,
            "size": {"height": side, "width": side},
        },
    )
    _sentencepiece(folder)


def dinov2(folder: Path, layers: int, side: int) -> None:
    """A DINOv2, trained at another size than its image processor makes."""
    settings = {"image_size": 518 // 14 * 14, "patch_size": 14, "num_hidden_layers": layers, "hidden_size": WIDTH}
    _save(folder, "Dinov2Model", {**settings, "mlp_ratio": 2, **HEADS})
    _write(
        folder / "preprocessor_config.json",
        {
            "crop_size": {"height": side, "width": side},
            "do_center_crop": True,
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": [0.485, 0.456, 0.406],
            "image_processor_type": "BitImageProcessor",
            "image_std": [0.229, 0.224, 0.225],
            "resample": 3,
            "rescale_factor": 1 / 255,
            "size": {"shortest_edge": side * 8 // 7},
        },
    )


def llava(folder: Path, layers: int, patch: int, side: int) -> None:
    """LLaVA-1.5: the tower of CLIP, of which the last block is not read, in three files of weights."""
    import transformers

    tokenizer = byte_tokenizer()
    vision = {"image_size": side, "patch_size": patch, "num_hidden_layers": layers, "projection_dim": 16, **_size()}
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    text = {**LLAMA, "max_position_embeddings": 4096, "vocab_size": len(tokenizer), **ids}
    config = transformers.LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **vision},
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(side // patch) ** 2,
        vision_feature_select_strategy="default",
        vision_feature_layer=-2,
    )
    model = _random(transformers.LlavaForConditionalGeneration(config)).half()
    model.save_pretrained(folder, max_shard_size=f"{model.num_parameters() * 2 // 3 // 1000 + 20}KB")
    transformers.GenerationConfig(**ids).save_pretrained(folder)
    square = {"height": side, "width": side}
    transformers.LlavaProcessor(
        transformers.CLIPImageProcessor(size={"shortest_edge": side}, crop_size=square),
        tokenizer,
        patch_size=patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(folder)


def open_clip(folder: Path, layers: int, patch: int, side: int, quick_gelu: bool = False) -> None:
    """A CLIP in open_clip's layout, the weights as safetensors and as bare tensors."""
    import open_clip

    folder.mkdir(parents=True, exist_ok=True)
    text = {"context_length": 77, "vocab_size": 49408, "width": WIDTH, "heads": 2, "layers": 2}
    vision = {"image_size": side, "layers": layers, "width": WIDTH, "head_width": 16, "patch_size": patch}
    model = {"embed_dim": WIDTH // 2, "vision_cfg": vision, "text_cfg": text}
    preprocess = {"mean": CLIP_MEAN, "std": CLIP_STD}
    config = {"model_cfg": {**model, "quick_gelu": True} if quick_gelu else model, "preprocess_cfg": preprocess}
    _write(folder / "open_clip_config.json", config)
    save_open_clip(_random(open_clip.create_model(f"local-dir:{folder}", load_weights=False)), folder)


def save_open_clip(model: torch.nn.Module, folder: Path) -> None:
    """The weights as open_clip's repositories have them."""
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    torch.save(weights, folder / "open_clip_pytorch_model.bin")


def full_size(architecture: str) -> bytes:
    """Weights of an architecture of open_clip at its own size, as safetensors in half precision."""
    import open_clip

    model = _random(open_clip.create_model(architecture)).half()
    return save({name: tensor.contiguous() for name, tensor in model.state_dict().items()})


MODELS: dict[str, Callable[[Path], None]] = {
    "openai/clip-vit-base-patch32": lambda folder: clip(folder, 12, 32, 224, "safetensors"),
    "openai/clip-vit-large-patch14-336": lambda folder: clip(folder, 24, 14, 112, "bin"),
    "google/siglip-so400m-patch14-384": lambda folder: siglip(folder, 27, 14, 84),
    "facebook/dinov2-small": lambda folder: dinov2(folder, 12, 56),
    "facebook/dinov2-base": lambda folder: dinov2(folder, 12, 56),
    "llava-hf/llava-1.5-7b-hf": lambda folder: llava(folder, 24, 14, 112),
    "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K": lambda folder: open_clip(folder, 12, 32, 224),
    "timm/vit_base_patch32_clip_224.openai": lambda folder: open_clip(folder, 12, 32, 224, quick_gelu=True),
}
"""By name on the hub."""


def model_repositories(folder: Path, names: list[str] | None = None) -> dict[str, dict[str, bytes]]:
    """What a hub with these models holds, all unless named; a CLIP kept as pickle has the pull request of the hub's
    converter, which transformers then reads."""
    repos = {}
    for name in names or list(MODELS):
        MODELS[name](folder / name)
        repos[name] = files_of(folder / name)
        repos[name][".gitattributes"] = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
        if "converted.safetensors" in repos[name]:
            converted = repos[name].pop("converted.safetensors")
            repos[f"{name}@refs/pr/8"] = {**repos[name], "model.safetensors": converted}
    return repos


def _size() -> dict:
    return {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, **HEADS}


@torch.no_grad()
def _random(model: torch.nn.Module) -> torch.nn.Module:
    """Weights large enough that what a model gives depends on the picture."""
    torch.manual_seed(4)
    for name, parameter in model.named_parameters():
        if name.endswith("logit_scale"):
            parameter.fill_(math.log(100))  # as training leaves it: probabilities are sharp
        elif parameter.ndim > 1:
            parameter.copy_(torch.randn_like(parameter) / parameter[0].numel() ** 0.5)
        elif parameter.ndim and "norm" not in name and "ln_" not in name and "layer_scale" not in name:
            parameter.copy_(0.2 * torch.randn_like(parameter))
    return model


def _save(folder: Path, model_class: str, settings: dict, kept_as: str = "safetensors") -> None:
    import transformers

    model_class = getattr(transformers, model_class)
    model = _random(model_class(model_class.config_class(**settings)))
    model.save_pretrained(folder)
    if kept_as == "bin":
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").rename(folder / "converted.safetensors")


def _clip_tokenizer(folder: Path) -> None:
    """CLIP's own vocabulary, in all the files in which its repositories have it."""
    from open_clip import SimpleTokenizer
    from transformers import CLIPTokenizer

    own = SimpleTokenizer()
    merges = sorted(own.bpe_ranks, key=own.bpe_ranks.__getitem__)
    special = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {special.get(token, token): i for token, i in own.encoder.items()}
    CLIPTokenizer(vocab=vocabulary, merges=merges).save_pretrained(folder)
    _write(folder / "vocab.json", vocabulary)
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, merges)]) + "\n", encoding="utf-8")


def _sentencepiece(folder: Path) -> None:
    """A small vocabulary as sentencepiece writes it, a message of protobuf, and the settings of SigLIP's tokenizer."""
    special = [("<pad>", 0.0, 3), ("</s>", 0.0, 3), ("<unk>", 0.0, 2)]
    letters = ["▁", *"bcdfghjklmpqvwxyz", *"0123456789"[:8]]
    pieces = special + [(piece, -float(i + 1), 1) for i, piece in enumerate([*SIGLIP_WORDS, *letters])]
    message = b"".join(_field(1, _piece(*piece)) for piece in pieces)
    trainer = _number(3, 1) + _number(40, 2) + _number(41, (1 << 64) - 1) + _number(42, 1) + _number(43, 0)
    (folder / "spiece.model").write_bytes(message + _field(2, trainer) + _field(3, _field(1, b"identity")))
    settings = {"tokenizer_class": "SiglipTokenizer", "model_max_length": 64, "do_lower_case": True}
    special_tokens = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    _write(folder / "tokenizer_config.json", settings | special_tokens)
    _write(folder / "special_tokens_map.json", special_tokens)


def _piece(text: str, score: float, kind: int) -> bytes:
    return _field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + _number(3, kind)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
