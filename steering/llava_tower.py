"""Loading a LLaVA of transformers, with its image tower as a `lib` tower."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from lib.encoders.folders import check_tokenizer, check_weights
from lib.encoders.hub_files import load_model, require_files, settings_of
from lib.encoders.hugging_face import HuggingFaceTower, tower_of
from lib.encoders.tower import checked
from storage.files import naming

_TOWERS = ("clip_vision_model", "siglip_vision_model")
"""Kinds of image towers, by `model_type` of their configuration."""

_CHANGES_ANSWERS = {
    "repetition_penalty": 1,
    "no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1,
    "encoder_no_repeat_ngram_size": 0,
    "num_beams": 1,
    "guidance_scale": 1,
    "min_length": 0,
    "min_new_tokens": 0,
    **dict.fromkeys(("bad_words_ids", "sequence_bias", "suppress_tokens", "begin_suppress_tokens", "stop_strings")),
    **dict.fromkeys(("forced_bos_token_id", "forced_eos_token_id", "exponential_decay_length_penalty")),
    **dict.fromkeys(("force_words_ids", "penalty_alpha", "watermarking_config")),
}
"""Settings of a generation_config with which transformers may not choose the most probable token, with the values that
have no effect."""


@dataclass(frozen=True)
class LlavaParts:
    """A loaded LLaVA: the whole `model`, its `processor`, its image tower, and the block whose output is read."""

    model: nn.Module
    processor: object
    tower: HuggingFaceTower
    feature_block: int


def llava_parts(name: str, dtype: torch.dtype, device_map: str | dict | None) -> LlavaParts:
    """The LLaVA `NAME` on the hub or in a folder; see `lib.load_llava` for the errors."""
    import transformers

    folder, source, config = settings_of(name, "LLaVA", "model.safetensors, a processor and a tokenizer")
    block = _feature_block(config)
    require_files(folder, "LlavaForConditionalGeneration", source)
    check_tokenizer(str(folder))
    check_weights(folder, folder / "config.json")
    processor = transformers.AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    _check_template(processor, folder, config)
    options = {"dtype": dtype} | ({} if device_map is None else {"device_map": device_map})
    model = load_model(str(folder), transformers.LlavaForConditionalGeneration, config, options)
    _warn_of_settings(model.generation_config, source)
    vision, kind = model.model.vision_tower, config.vision_config.model_type
    tower = tower_of(vision, processor.image_processor, str(folder), kind)
    return LlavaParts(model.eval().requires_grad_(False), processor, checked(tower), block)


def _check_template(processor, folder: Path, config) -> None:
    """Raises ValueError where the chat template is damaged, or leaves out the picture or the question."""
    files = (folder / name for name in ("chat_template.jinja", "chat_template.json", "processor_config.json"))
    path = next((file for file in files if file.exists()), folder / "tokenizer_config.json")
    if not processor.chat_template and not path.name.startswith("chat_template"):
        return  # without a template, prompts have the format of LLaVA-1.5
    content = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    with naming(path, "filled in"):
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    if text.count(processor.tokenizer.convert_ids_to_tokens(config.image_token_id)) != 1 or "What is it?" not in text:
        raise ValueError(f"{path} leaves out the picture or the question: is it damaged?")


def _warn_of_settings(generation, source: str) -> None:
    """Warn of settings of the checkpoint that change answers in transformers, but not here."""
    given = {name: getattr(generation, name, None) for name in _CHANGES_ANSWERS}
    changing = [name for name, value in given.items() if value not in (None, _CHANGES_ANSWERS[name])]
    if changing:
        warnings.warn(
            f"the generation_config of {source} sets {', '.join(changing)}, which this library does not apply: answers "
            "take the most probable token, and differ from those of model.generate unless you remove it there",
            stacklevel=3,
        )


def _feature_block(config) -> int:
    """The block whose output the language model reads. Raises ValueError for a model that cannot be steered here."""
    if config.model_type != "llava":
        relative = "llava" in config.model_type
        raise ValueError(
            f"it is a {config.model_type!r} model, "
            + ("which cuts or pools its pictures otherwise; " if relative else "and no LLaVA; ")
            + "take one of the model_type 'llava', such as llava-hf/llava-1.5-7b-hf"
        )
    vision = config.vision_config
    if vision.model_type not in _TOWERS:
        raise ValueError(f"its image tower is a {vision.model_type!r}; this library steers {', '.join(_TOWERS)}")
    layer, n_blocks = config.vision_feature_layer, vision.num_hidden_layers
    if not isinstance(layer, int):
        raise ValueError(f"its language model reads several layers at once ({layer}); this library steers one")
    if not -n_blocks <= layer <= n_blocks or layer == 0:
        raise ValueError(f"its vision_feature_layer {layer} is the output of none of its {n_blocks} blocks")
    return (layer if layer > 0 else n_blocks + 1 + layer) - 1  # hidden_states[0] is what enters the first block
