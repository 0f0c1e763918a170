"""Loading a vision transformer of Hugging Face from the hub, or from a folder in the hub's layout.

Only safetensors are read, no code of a checkpoint is run, and every weight of the model must be in the checkpoint.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NoReturn

import torch
from torch import nn

from lib.towers import hugging_face as families
from lib.towers.hugging_face import HuggingFaceTower

_TOWERS: dict[str, type[HuggingFaceTower]] = {
    "clip": families.ClipTower,
    "clip_vision_model": families.ClipVisionTower,
    "siglip": families.SiglipTower,
    "siglip_vision_model": families.SiglipVisionTower,
    "aimv2": families.Aimv2Tower,
    "aimv2_vision_model": families.Aimv2VisionTower,
    "dinov2": families.Dinov2Tower,
    "dinov2_with_registers": families.Dinov2WithRegistersTower,
    "vit": families.VitTower,
    "deit": families.DeitTower,
}
"""By `model_type` of config.json."""

_NEVER_READ = ("mask_token",)
"""Weights that only training uses, and that a checkpoint may therefore lack."""


def hugging_face_tower(name: str) -> HuggingFaceTower:
    """The model `NAME` on the hub or in a folder; see `lib.models.load_encoder` for the errors."""
    import transformers

    folder = Path(name).expanduser()
    is_folder = name.startswith((".", "/", "~")) or folder.is_dir()
    source = str(folder) if is_folder else name
    if is_folder and not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"no model in {source}: it needs a config.json, model.safetensors and preprocessor_config.json"
        )
    config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
    if config.model_type not in _TOWERS:
        _refuse(config.model_type)
    tower = _TOWERS[config.model_type]
    named = [name for name in config.architectures or [] if name in tower.model_classes]
    model_class = named[0] if named else tower.model_classes[0]
    if is_folder:
        check_files(folder, model_class)
    options = {"dtype": torch.float32, **tower.options}
    model = load_model(source, getattr(transformers, model_class), config, options)
    processor = transformers.AutoImageProcessor.from_pretrained(source, trust_remote_code=False)
    return tower(model, processor, source)


def _refuse(model_type: str) -> NoReturn:
    if model_type in ("siglip2", "siglip2_vision_model"):
        raise ValueError(
            "it is the NaFlex variant of SigLIP 2, whose number of patches changes from picture to picture; "
            "take one of a fixed resolution, such as google/siglip2-base-patch16-224"
        )
    raise ValueError(
        f"it is a {model_type!r} model; of Hugging Face this book reads the vision transformers {', '.join(_TOWERS)}"
    )


def check_files(folder: Path, model_class: str) -> None:
    """Raises FileNotFoundError where a folder lacks weights that may be read, or the preprocessing."""
    if not any(folder.glob("*.safetensors")):
        raise FileNotFoundError(_no_weights(str(folder), model_class))
    if not any((folder / file).is_file() for file in ("preprocessor_config.json", "processor_config.json")):
        raise FileNotFoundError(
            f"no preprocessor_config.json in {folder}: it says how the model wants its pictures; "
            "copy it from where the model comes from"
        )


def _no_weights(source: str, model_class: str) -> str:
    return (
        f"no model.safetensors in {source}: the book reads no other weights, because reading a .bin file can run code; "
        f"where you trust the file, convert it by `transformers.{model_class}.from_pretrained({source!r})"
        ".save_pretrained(FOLDER)` and give that folder"
    )


def load_model(source: str, model_class: type, config, options: dict) -> nn.Module:
    """`model_class.from_pretrained`, of safetensors alone and of every weight; options: more of its arguments."""
    try:
        with _without_progress_bar() if Path(source).is_dir() else nullcontext():  # a download shows its bars
            model, report = model_class.from_pretrained(
                source,
                config=config,
                use_safetensors=True,
                output_loading_info=True,
                **options,
            )
    except OSError as error:
        if "does not appear to have a file named" in str(error):
            raise FileNotFoundError(_no_weights(source, model_class.__name__)) from error
        raise
    missing = sorted(key for key in report["missing_keys"] if not key.endswith(_NEVER_READ))
    if missing:
        raise ValueError(
            f"its checkpoint lacks {len(missing)} weights of a {model_class.__name__}, such as {missing[0]}; "
            "they would be random numbers"
        )
    return model


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    """No bar for weights that are read in a moment: in a notebook it would be kept as an output."""
    from transformers.utils import logging

    was_enabled = logging.is_progress_bar_enabled()
    if not was_enabled:
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()
