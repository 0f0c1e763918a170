"""Small LLaVAs of random weights with the settings of LLaVA-1.5, saved in the hub's layout by transformers itself."""

from pathlib import Path

import torch

import lib  # noqa: F401  transformers' image processors need its torchvision schemas

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)  # of llava-hf/llava-1.5-7b-hf
CLIP = {
    "model_type": "clip_vision_model",
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 5,
    "num_attention_heads": 2,
    "projection_dim": 12,
}
SIGLIP = {**{k: v for k, v in CLIP.items() if k != "projection_dim"}, "model_type": "siglip_vision_model"}
LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
FAMILIES = {
    "llava 1.5": {"vision": CLIP, "text": LLAMA},
    "siglip, full": {"vision": SIGLIP, "text": LLAMA, "select": "full", "layer": -1},
    "mistral": {"vision": CLIP, "text": {**LLAMA, "model_type": "mistral", "sliding_window": 16}, "layer": 3},
    "many ends": {"vision": CLIP, "text": LLAMA, "ends": list(range(60, 200))},
    "tied, no template": {"vision": CLIP, "text": {**LLAMA, "tie_word_embeddings": True}, "template": None},
}
"""Name -> image tower and language model; which tokens of which hidden state it reads (LLaVA-1.5: default, -2); tokens
that end an answer beside </s>; the chat template."""


@torch.no_grad()
def llava_folder(folder: Path, family: str = "llava 1.5", **text) -> Path:
    """A LLaVA of 5 blocks (d 24, 4 x 4 patches) and 3 layers of text (d 32, 2 of 4 heads for keys and values).

    Stored in float16. The random weights are large enough for answers that depend on the picture. text: other settings
    of the language model.
    """
    import transformers

    settings = FAMILIES[family]
    tokenizer = byte_tokenizer()
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    select = settings.get("select", "default")
    config = transformers.LlavaConfig(
        vision_config=settings["vision"],
        text_config={**settings["text"], **text, "vocab_size": len(tokenizer), **ids},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
        vision_feature_select_strategy=select,
        vision_feature_layer=settings.get("layer", -2),
    )
    torch.manual_seed(4)
    model = transformers.LlavaForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
        elif "norm" not in name:
            parameter.copy_(0.2 * torch.randn_like(parameter))
    model.half().save_pretrained(folder)
    ends = [ids["eos_token_id"], *settings.get("ends", [])]
    transformers.GenerationConfig(**{**ids, "eos_token_id": ends}).save_pretrained(folder)
    processor(tokenizer, settings, select).save_pretrained(folder)
    return folder


def processor(tokenizer, settings: dict, select: str):
    """The processor as LLaVA-1.5 has it: shortest edge, centre crop, CLS counted and dropped."""
    import transformers

    side = settings["vision"]["image_size"]
    square = {"height": side, "width": side}
    clip = settings["vision"]["model_type"].startswith("clip")
    images = (
        transformers.CLIPImageProcessor(size={"shortest_edge": side}, crop_size=square)
        if clip
        else transformers.SiglipImageProcessor(size=square)
    )
    return transformers.LlavaProcessor(
        images,
        tokenizer,
        patch_size=settings["vision"]["patch_size"],
        vision_feature_select_strategy=select,
        num_additional_image_tokens=int(clip),
        chat_template=settings.get("template", CHAT_TEMPLATE),
    )


def byte_tokenizer():
    """A byte-level BPE tokenizer of the 256 bytes and a few merges, which begins every text with <s>."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    merges = [("Ġ", "a"), ("o", "w"), ("ow", "l"), ("Ġ", "owl")]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*SPECIAL, *alphabet, *(a + b for a, b in merges)]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
        clean_up_tokenization_spaces=False,
    )
