"""Small models of each Hugging Face family with random weights, saved in the hub's layout by their own classes."""

from pathlib import Path

import torch

import lib  # noqa: F401  transformers' image processors need its torchvision schemas

BLOCKS = {"num_hidden_layers": 3, "num_attention_heads": 2}
VISION = {"image_size": 32, "patch_size": 8, "hidden_size": 24, "intermediate_size": 48, **BLOCKS}
DINO = {"image_size": 64, "patch_size": 8, "hidden_size": 24, "mlp_ratio": 2, "layerscale_value": 0.5, **BLOCKS}
TEXT = {"vocab_size": 6, "hidden_size": 24, "intermediate_size": 32, "max_position_embeddings": 8, **BLOCKS}
CLIP_TEXT = {**TEXT, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}

WORDS = {**TEXT, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
DINO3 = {**VISION, "num_register_tokens": 4, "layerscale_value": 0.5}
BEIT = {**VISION, "layer_scale_init_value": 0.4}

SQUARE = {"height": 32, "width": 32}
AS_CLIP = ("CLIPImageProcessor", {"size": {"shortest_edge": 32}, "crop_size": SQUARE})
AS_SIGLIP = ("SiglipImageProcessor", {"size": SQUARE})
AS_DINO = ("BitImageProcessor", {"size": {"shortest_edge": 36}, "crop_size": {"height": 24, "width": 32}})
AS_VIT = ("ViTImageProcessor", {"size": SQUARE})
AS_DEIT = ("DeiTImageProcessor", {"size": {"height": 36, "width": 36}, "crop_size": SQUARE})

FAMILIES = {
    "clip": ("CLIPModel", {"vision_config": VISION, "text_config": CLIP_TEXT, "projection_dim": 12}, AS_CLIP),
    "clip vision": ("CLIPVisionModel", VISION, AS_CLIP),
    "clip vision projected": ("CLIPVisionModelWithProjection", {**VISION, "projection_dim": 12}, AS_CLIP),
    "siglip": ("SiglipModel", {"vision_config": VISION, "text_config": {**TEXT, "projection_size": 24}}, AS_SIGLIP),
    "siglip vision": ("SiglipVisionModel", VISION, AS_SIGLIP),
    "aimv2": ("Aimv2VisionModel", VISION, AS_CLIP),
    "aimv2 headless": ("Aimv2VisionModel", {**VISION, "use_head": False, "is_native": True}, AS_CLIP),
    "aimv2 lit": ("Aimv2Model", {"vision_config": VISION, "text_config": CLIP_TEXT, "projection_dim": 12}, AS_CLIP),
    "dinov2": ("Dinov2Model", DINO, AS_DINO),
    "dinov2 giant": ("Dinov2Model", {**DINO, "use_swiglu_ffn": True}, AS_DINO),
    "dinov2 registers": ("Dinov2WithRegistersModel", {**DINO, "num_register_tokens": 4}, AS_DINO),
    "dinov3": ("DINOv3ViTModel", DINO3, ("DINOv3ViTImageProcessor", {"size": {"height": 24, "width": 32}})),
    "dinov3 gated": ("DINOv3ViTModel", {**DINO3, "use_gated_mlp": True}, AS_VIT),
    "metaclip 2": (
        "MetaClip2Model",
        {"vision_config": VISION, "text_config": WORDS, "projection_dim": 12},
        AS_CLIP,
    ),
    "metaclip 2 vision": ("MetaClip2VisionModel", VISION, AS_CLIP),
    "mlcd": ("MLCDVisionModel", {**VISION, "num_key_value_groups": 1}, AS_CLIP),
    "mae": ("ViTMAEModel", VISION, AS_VIT),
    "mae with decoder": (
        "ViTMAEForPreTraining",
        {
            **VISION,
            "decoder_hidden_size": 16,
            "decoder_num_hidden_layers": 1,
            "decoder_num_attention_heads": 2,
            "decoder_intermediate_size": 16,
        },
        AS_VIT,
    ),
    "beit": ("BeitModel", {**BEIT, "use_relative_position_bias": True, "use_mean_pooling": False}, AS_VIT),
    "beit mean": ("BeitForImageClassification", {**BEIT, "use_mean_pooling": True, "num_labels": 5}, AS_VIT),
    "beit masked": (
        "BeitForMaskedImageModeling",
        {
            **BEIT,
            "use_shared_relative_position_bias": True,
            "use_mask_token": True,
            "use_mean_pooling": True,
            "vocab_size": 7,
        },
        AS_VIT,
    ),
    "ijepa": ("IJepaModel", VISION, AS_VIT),
    "vit": ("ViTModel", VISION, AS_VIT),
    "vit classifier": ("ViTForImageClassification", {**VISION, "num_labels": 5}, AS_VIT),
    "deit": ("DeiTModel", VISION, AS_DEIT),
    "deit classifier": ("DeiTForImageClassificationWithTeacher", {**VISION, "num_labels": 5}, AS_DEIT),
}
"""Name -> the model's class, its config's settings, its image processor."""


@torch.no_grad()
def hugging_face_folder(folder: Path, family: str) -> Path:
    """A model of 3 blocks (d 24, patches of 8 px, E 12 or 24) with its image processor and, for texts, a tokenizer."""
    import transformers

    model_class, settings, (processor, sizes) = FAMILIES[family]
    model_class = getattr(transformers, model_class)
    torch.manual_seed(4)
    model = model_class(model_class.config_class(**settings))
    for parameter in model.parameters():
        if parameter.ndim:  # no zeros, ones or constants behind which a mistake could hide
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    getattr(transformers, processor)(**sizes).save_pretrained(folder)
    if hasattr(model, "get_text_features"):
        words = family in ("siglip", "metaclip 2")
        (_word_tokenizer() if words else _clip_tokenizer()).save_pretrained(folder)
    return folder


def _clip_tokenizer():
    from transformers import CLIPTokenizer

    vocabulary = ["<|startoftext|>", "<|endoftext|>", "f", "o", "x</w>", "fo"]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(vocabulary)}, merges=[("f", "o")])


def _word_tokenizer():
    """Lower-case words, and </s> after the last as SigLIP's tokenizer has it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "</s>", "<unk>", "a", "fox", "owl"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
