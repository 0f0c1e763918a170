"""open_clip's architectures with hardly any width and depth, and everything else as it is."""

from collections.abc import Callable

from torch import nn

import lib  # noqa: F401  open_clip needs its torchvision schemas

TEXT = {"context_length": 4, "vocab_size": 8, "width": 16, "heads": 2, "layers": 1}
KEPT = ("embed_cls", "output_tokens", "pool_type", "no_causal_mask", "hf_tokenizer_name", "tokenizer_kwargs")


def _vision_configs() -> dict[str, dict]:
    import open_clip

    return {name: open_clip.get_model_config(name)["vision_cfg"] for name in open_clip.list_models()}


VISION = _vision_configs()
"""The image tower's configuration of every architecture that open_clip lists."""


def small_configs() -> dict[str, dict]:
    """`small-NAME` for every NAME; `text-from-the-hub`, whose text tower is one of transformers."""
    configs = {f"small-{name}": _small_config(name) for name in VISION}
    configs["text-from-the-hub"] = _small_config("roberta-ViT-B-32")
    configs["text-from-the-hub"]["text_cfg"] |= {"hf_model_name": "roberta-base"}
    return configs


def _small_config(name: str) -> dict:
    import open_clip

    config = open_clip.get_model_config(name)
    vision, text = config["vision_cfg"], config["text_cfg"]
    if "timm_model_name" not in vision:
        is_resnet = isinstance(vision["layers"], list)
        vision |= {"width": 8, "layers": [1, 1, 1, 1]} if is_resnet else {"width": 16, "layers": 2, "head_width": 8}
        vision |= {"attn_pooler_heads": 2, "attn_pooler_queries": 4}
    kept = {key: text[key] for key in KEPT if key in text and "hf_model_name" not in text}
    config |= {"embed_dim": 12, "vision_cfg": vision, "text_cfg": kept | TEXT}
    if "multimodal_cfg" in config:
        config["text_cfg"]["output_tokens"] = True
        config["multimodal_cfg"] = {**TEXT, "attn_pooler_heads": 2}
    return config


def small_timm(create: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """timm's `create_model`, which then builds the image towers of open_clip small."""
    from timm.models.vitamin import VitCfg, VitConvCfg

    def settings(name: str) -> dict:
        if name.startswith("vitamin"):
            conv = VitConvCfg(norm_layer="layernorm2d", norm_eps=1e-6)
            stem = VitCfg(embed_dim=(8, 8, 16), depths=(1, 1, 1), stem_width=8, conv_cfg=conv, head_type="1d")
            return {"embed_dim": 16, "depth": 2, "num_heads": 2, "embed_cfg": stem}
        if "mci_" in name:  # its stem is as wide as its blocks
            return {"depth": 2}
        if name.startswith(("vit", "eva")):
            return {"embed_dim": 64, "depth": 2, "num_heads": 8}
        if name.startswith("convnext"):
            return {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)}
        if name.startswith("swin"):
            return {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)}
        stages = 5 if name.endswith(("mci3", "mci4")) else 4  # fastvit
        return {"layers": (1,) * stages, "embed_dims": (32,) * stages}

    return lambda name, **given: create(name, **given, **settings(name))
