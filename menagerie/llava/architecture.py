"""The embedded LLaVA: its architecture, its tokenizer and its folder in the Hugging Face hub's layout."""

from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor, nn

from menagerie.clip.architecture import PREPROCESS, VISION

IMAGE_TOKEN = "<image>"
SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<unk>", IMAGE_TOKEN)
PATCHES = (VISION["image_size"] // VISION["patch_size"]) ** 2
FEATURE_LAYER = -2  # the last block but one, as LLaVA-1.5 has it
LANGUAGE = {
    "hidden_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "intermediate_size": 512,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ':' }}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ ' <image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}"
    "{{ ('' if message['content'][0]['type'] == 'image' else ' ') + part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)  # as llava-hf/llava-1.5-7b-hf: "USER: <image>\nWhat is this? ASSISTANT:"


def learn_tokenizer(texts: Iterable[str], n_tokens: int = 1500):
    """A byte-level BPE tokenizer learned on texts: `transformers.PreTrainedTokenizerFast` that begins with `<s>`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=n_tokens,
        min_frequency=2,
        show_progress=False,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(texts, trainer)
    bos = SPECIAL_TOKENS.index("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", bos)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": IMAGE_TOKEN},
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def build_llava(tokenizer) -> nn.Module:
    """A freshly initialised `LlavaForConditionalGeneration` of the embedded architecture, for that tokenizer."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    vision = CLIPVisionConfig(
        hidden_size=VISION["width"],
        num_hidden_layers=VISION["layers"],
        num_attention_heads=VISION["width"] // VISION["head_width"],
        intermediate_size=int(VISION["width"] * VISION["mlp_ratio"]),
        image_size=VISION["image_size"],
        patch_size=VISION["patch_size"],
        hidden_act="gelu",
    )
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    language = LlamaConfig(vocab_size=len(tokenizer), **LANGUAGE, **ids)
    config = LlavaConfig(
        vision_config=vision,
        text_config=language,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        image_seq_length=PATCHES,
        vision_feature_layer=FEATURE_LAYER,
        tie_word_embeddings=True,
    )
    return LlavaForConditionalGeneration(config)


def clip_vision_state(clip: dict[str, Tensor]) -> dict[str, Tensor]:
    """The image tower of an open_clip CLIP under the names that `transformers.CLIPVisionModel` has for it."""
    state = {
        "embeddings.class_embedding": clip["visual.class_embedding"],
        "embeddings.patch_embedding.weight": clip["visual.conv1.weight"],
        "embeddings.position_embedding.weight": clip["visual.positional_embedding"],
    }
    for ours, theirs in ("pre_layrnorm", "ln_pre"), ("post_layernorm", "ln_post"):
        state |= {f"{ours}.{part}": clip[f"visual.{theirs}.{part}"] for part in ("weight", "bias")}
    names = {
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "self_attn.out_proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    for layer in range(VISION["layers"]):
        ours, theirs = f"encoder.layers.{layer}", f"visual.transformer.resblocks.{layer}"
        for part in ("weight", "bias"):
            state |= {f"{ours}.{name}.{part}": clip[f"{theirs}.{other}.{part}"] for name, other in names.items()}
            stacked = clip[f"{theirs}.attn.in_proj_{part}"].chunk(3)
            state |= {f"{ours}.self_attn.{n}_proj.{part}": t for n, t in zip("qkv", stacked, strict=True)}
    return state


def save_llava(folder: Path, model: nn.Module, state: dict[str, Tensor], tokenizer) -> None:
    """Write model (fp16), processor and tokenizer: the hub's layout, which plain transformers loads."""
    from transformers import CLIPImageProcessor, GenerationConfig, LlavaProcessor

    folder, side = Path(folder), VISION["image_size"]
    half = deepcopy(model).half()
    half.load_state_dict(state)
    size = {"height": side, "width": side}
    images = CLIPImageProcessor(
        size=size,
        crop_size=size,
        do_center_crop=False,
        resample=3,
        image_mean=list(PREPROCESS["mean"]),
        image_std=list(PREPROCESS["std"]),
    )
    processor = LlavaProcessor(
        images,
        tokenizer,
        patch_size=VISION["patch_size"],
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as temporary:
        for part in half, GenerationConfig.from_model_config(model.config.text_config), processor:
            part.save_pretrained(temporary)
        for path in Path(temporary).iterdir():
            path.replace(folder / path.name)
