"""Loading a vision transformer of Hugging Face from the hub, or from a folder in the hub's layout.

Only safetensors are read, no code of a checkpoint is run, and every weight of the model must be in the checkpoint.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import torch
from torch import nn

from lib.encoders import hugging_face as families
from lib.encoders.folders import check_settings, check_weights
from lib.encoders.hugging_face import HuggingFaceTower
from lib.files import read_json

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_TOWERS: dict[str, tuple[type[HuggingFaceTower], tuple[str, ...]]] = {
    "clip": (families.VisionTextTower, ("CLIPModel",)),
    "clip_vision_model": (families.ClipVisionTower, ("CLIPVisionModel", "CLIPVisionModelWithProjection")),
    "metaclip_2": (families.VisionTextTower, ("MetaClip2Model",)),
    "metaclip_2_vision_model": (
        families.ClipVisionTower,
        ("MetaClip2VisionModel", "MetaClip2VisionModelWithProjection"),
    ),
    "mlcd": (HuggingFaceTower, ("MLCDVisionModel",)),
    "mlcd_vision_model": (HuggingFaceTower, ("MLCDVisionModel",)),
    "siglip": (families.SiglipTower, ("SiglipModel",)),
    "siglip_vision_model": (families.TowerWithoutCls, ("SiglipVisionModel",)),
    "aimv2": (families.Aimv2Tower, ("Aimv2Model",)),
    "aimv2_vision_model": (families.Aimv2VisionTower, ("Aimv2VisionModel",)),
    "dinov2": (families.Dinov2Tower, ("Dinov2Model",)),
    "dinov2_with_registers": (families.Dinov2WithRegistersTower, ("Dinov2WithRegistersModel",)),
    "dinov3_vit": (families.Dinov3Tower, ("DINOv3ViTModel",)),
    "beit": (families.BeitTower, ("BeitModel",)),
    "ijepa": (families.IJepaTower, ("IJepaModel",)),
    "vit_mae": (families.MaeTower, ("ViTMAEModel",)),
    "vit": (families.VitTower, ("ViTModel",)),
    "deit": (families.DeitTower, ("DeiTModel",)),
}
"""By `model_type` of config.json; the classes are transformers', the first where config.json names none."""

_SETTINGS = ("*.json", "*.txt", "*.model", "*.jinja", "bpe.txt.gz")
_CONVERTER = "SFconvertbot"

_NEVER_READ = ("mask_token",)
"""Weights that only training uses, and that a checkpoint may therefore lack."""


def hugging_face_tower(name: str) -> HuggingFaceTower:
    """The model `NAME` on the hub or in a folder; see `lib.load_encoder` for the errors."""
    import transformers

    folder, source, config = settings_of(name, "model", "model.safetensors and preprocessor_config.json")
    if config.model_type not in _TOWERS:
        _refuse(config.model_type)
    tower, classes = _TOWERS[config.model_type]
    for setting, value in tower.settings.items():
        setattr(config, setting, value)
    model_class = next((name for name in config.architectures or [] if name in classes), classes[0])
    check_files(folder, model_class, source)
    check_weights(folder, folder / "config.json")
    options = {"dtype": torch.float32, **tower.options}
    model = load_model(str(folder), getattr(transformers, model_class), config, options)
    processor = transformers.AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
    return tower(model, processor, str(folder))


def settings_of(name: str, what: str, needs: str) -> tuple[Path, str, "PretrainedConfig"]:
    """A model's folder, downloaded where it must be, its name as errors say it, and its checked settings.

    Raises FileNotFoundError for a folder without settings: there is no `what`, which needs also `needs`.
    """
    import transformers

    folder, source = local_folder(name)
    if folder is not None and not (folder / "config.json").exists():
        raise FileNotFoundError(f"no {what} in {source}: it needs a config.json, {needs}")
    folder = folder or download(name)
    check_settings(folder)
    return folder, source, transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)


def local_folder(name: str) -> tuple[Path | None, str]:
    """The folder that a name means, if it is no name on the hub; and the name as errors say it."""
    folder = Path(name).expanduser()
    is_folder = name.startswith((".", "/", "~")) or folder.is_dir()
    return (folder, str(folder)) if is_folder else (None, name)


def download(name: str, weights: str = "model.safetensors") -> Path:
    """The folder in which the hub's cache keeps a model: its settings, safetensors and tokenizer, and no code.

    What is in the cache is found offline too.
    """
    from huggingface_hub import snapshot_download

    def fetch(*patterns: str, revision: str | None = None) -> Path:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))

    folder = fetch(*_SETTINGS)
    index = folder / "model.safetensors.index.json"
    shards = read_json(index).get("weight_map") if index.is_file() else None
    folder = fetch(*({str(shard) for shard in shards.values()} if isinstance(shards, dict) else {weights}))
    if any(folder.glob("*.safetensors")) or (converted := _converted(name)) is None:
        return folder
    return fetch(*_SETTINGS, weights, revision=converted)


def _converted(name: str) -> str | None:
    """The pull request by which the hub's own converter offers safetensors of a model that has none, in the cache or on
    the hub: OpenAI's larger CLIPs have nothing else that may be read."""
    from huggingface_hub import constants, get_repo_discussions
    from huggingface_hub.file_download import repo_folder_name

    refs = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type="model"), "refs", "refs", "pr")
    if cached := sorted(refs.glob("*")):
        return f"refs/pr/{cached[-1].name}"
    if constants.is_offline_mode():
        return None
    offered = get_repo_discussions(name, discussion_type="pull_request", author=_CONVERTER)
    return next((each.git_reference for each in offered if each.author == _CONVERTER), None)


def _refuse(model_type: str) -> NoReturn:
    if model_type in ("siglip2", "siglip2_vision_model"):
        raise ValueError(
            "it is the NaFlex variant of SigLIP 2, whose number of patches changes from picture to picture; "
            "take one of a fixed resolution, such as google/siglip2-base-patch16-224"
        )
    raise ValueError(
        f"it is a {model_type!r} model; of Hugging Face this book reads the vision transformers {', '.join(_TOWERS)}"
    )


def check_files(folder: Path, model_class: str, source: str) -> None:
    """Raises FileNotFoundError where a folder lacks weights that may be read, or the preprocessing."""
    if not any(folder.glob("*.safetensors")):
        raise FileNotFoundError(_no_weights(source, model_class))
    if not any((folder / file).is_file() for file in ("preprocessor_config.json", "processor_config.json")):
        raise FileNotFoundError(
            f"no preprocessor_config.json in {source}: it says how the model wants its pictures; "
            "copy it from where the model comes from"
        )


def _no_weights(source: str, model_class: str) -> str:
    return (
        f"no model.safetensors in {source}: the book reads no other weights, because reading a .bin file can run code; "
        f"where you trust the file, convert it by `transformers.{model_class}.from_pretrained({source!r})"
        ".save_pretrained(FOLDER)` and give that folder"
    )


def load_model(source: str, model_class: type, config, options: dict) -> nn.Module:
    """`model_class.from_pretrained` of a folder, of safetensors alone and of every weight; options: more arguments."""
    with _quietly():
        model, report = model_class.from_pretrained(
            source,
            config=config,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    missing = sorted(key for key in report["missing_keys"] if not key.endswith(_NEVER_READ))
    if missing:
        raise ValueError(
            f"its checkpoint lacks {len(missing)} weights of a {model_class.__name__}, such as {missing[0]}; "
            "they would be random numbers"
        )
    return model


@contextmanager
def _quietly() -> Iterator[None]:
    """No bar for weights that are read in a moment: in a notebook it would be kept as an output; and no report of
    weights that are left out, or of how they are spread: what matters of it is an error here."""
    from transformers.utils import logging

    level, was_enabled = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if was_enabled:
            logging.enable_progress_bar()
