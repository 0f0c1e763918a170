"""Loading a vision transformer of Hugging Face from the hub, or from a folder in the hub's layout.

Only safetensors are read, no code of a checkpoint is run, and every weight of the model must be in the checkpoint.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import torch
from torch import nn

from lib.encoders.folders import check_settings, check_weights
from lib.encoders.hugging_face import FAMILIES, HuggingFaceTower, tower_of
from storage.files import read_json

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_SETTINGS = ("*.json", "*.txt", "*.model", "*.jinja", "bpe.txt.gz")
_CONVERTER = "SFconvertbot"

_NEVER_READ = ("mask_token",)
"""Weights that are used only in training, so that a checkpoint may lack them."""


def hugging_face_tower(name: str) -> HuggingFaceTower:
    """The tower of the model `NAME` on the hub or in a folder; see `lib.load_encoder` for the errors."""
    import transformers

    folder, source, config = settings_of(name, "model", "model.safetensors and preprocessor_config.json")
    if config.model_type not in FAMILIES:
        _refuse(config.model_type)
    family = FAMILIES[config.model_type]
    for setting, value in family.settings.items():
        setattr(config, setting, value)
    model_class = next((name for name in config.architectures or [] if name in family.classes), family.classes[0])
    require_files(folder, model_class, source)
    check_weights(folder, folder / "config.json")
    options = {"dtype": torch.float32, **family.options}
    model = load_model(str(folder), getattr(transformers, model_class), config, options)
    processor = transformers.AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
    return tower_of(model, processor, str(folder), config.model_type)


def settings_of(name: str, what: str, needs: str) -> tuple[Path, str, "PretrainedConfig"]:
    """A model's folder (downloaded if needed), its name for error messages, and its checked config.

    Raises FileNotFoundError for a folder without config.json; `what` and `needs` are words of the message.
    """
    import transformers

    folder, source = local_folder(name)
    if folder is not None and not (folder / "config.json").exists():
        raise FileNotFoundError(f"no {what} in {source}: it needs a config.json, {needs}")
    folder = folder or download_model(name)
    check_settings(folder)
    return folder, source, transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)


def local_folder(name: str) -> tuple[Path | None, str]:
    """The local folder that a name refers to, None for a name on the hub; and the name for error messages."""
    folder = Path(name).expanduser()
    is_folder = name.startswith((".", "/", "~")) or folder.is_dir()
    return (folder, str(folder)) if is_folder else (None, name)


def download_model(name: str, weights: str = "model.safetensors") -> Path:
    """The folder of a model in the hub's cache, with its settings, safetensors and tokenizer, and without code.

    Cached files are found offline too.
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
    """The pull request, cached or on the hub, in which its converter offers safetensors for a model without them."""
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
        f"it is a {model_type!r} model; the vision transformers read from Hugging Face are {', '.join(FAMILIES)}"
    )


def require_files(folder: Path, model_class: str, source: str) -> None:
    """Raises FileNotFoundError where a folder lacks weights that may be read, or the preprocessing."""
    if not any(folder.glob("*.safetensors")):
        raise FileNotFoundError(_no_weights(source, model_class))
    if not any((folder / file).is_file() for file in ("preprocessor_config.json", "processor_config.json")):
        raise FileNotFoundError(
            f"no preprocessor_config.json in {source}: it describes the model's preprocessing; "
            "copy it from where the model comes from"
        )


def _no_weights(source: str, model_class: str) -> str:
    return (
        f"no model.safetensors in {source}: no other weights are read, because a .bin file can run code; "
        f"where you trust the file, convert it by `transformers.{model_class}.from_pretrained({source!r})"
        ".save_pretrained(FOLDER)` and give that folder"
    )


def load_model(source: str, model_class: type, config, options: dict) -> nn.Module:
    """`model_class.from_pretrained(source, **options)` from safetensors only. Raises ValueError for missing weights."""
    with _quietly():
        model, report = model_class.from_pretrained(
            source, config=config, use_safetensors=True, output_loading_info=True, **options
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
    """Context without transformers' progress bar, which a notebook would store, and without its report on loading:
    missing weights are an error here."""
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
