"""Checks of a model's folder before anything in it is loaded: settings, headers of weights, tokenizer.

Errors name the damaged file in one sentence; no code runs; sizes that no model has are refused before memory is used.
"""

from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path

from storage.files import check_shards, naming, ordinary_file, quoted, read_json, refuse_code, safetensors_header

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model",
)  # fmt: skip
"""Each of them holds a vocabulary; without one transformers makes an empty one, so that all texts are equal."""

_LARGEST = {"image_size": 1 << 14, "patch_size": 1 << 14, "num_hidden_layers": 1 << 10, "layers": 1 << 10}
_LARGEST_OTHER = 1 << 24  # of all other integers: a vocabulary has up to 262,144 words


def check_settings(folder: Path) -> None:
    """Raises ValueError for settings in a folder that are damaged, absurd, or ask to run code; and for named pipes."""
    for path in sorted(folder.iterdir()):
        if path.exists() and not path.is_file() and not path.is_dir():  # reading merges.txt would block
            ordinary_file(path)
        if "config" in path.name and path.suffix == ".json":
            settings = read_json(path)
            refuse_code(settings, path)
            for name, value in _numbers(settings):
                largest = _LARGEST.get(name, _LARGEST_OTHER)
                if abs(value) > largest and not name.endswith(("_id", "max_length", "_pixels")):
                    raise ValueError(f"{path} says {name} = {quoted(value)}, which no model has: is it damaged?")


def _numbers(settings: object, name: str = "") -> Iterator[tuple[str, int | float]]:
    """(name, number) of all numbers in nested settings; those in a list have the list's name."""
    if isinstance(settings, int | float) and not isinstance(settings, bool):
        yield name, settings
    elif isinstance(settings, list):
        for value in settings:
            yield from _numbers(value, name)
    elif isinstance(settings, dict):
        for key, value in settings.items():
            yield from _numbers(value, str(key))


def check_weights(folder: Path, config: Path) -> None:
    """Raises ValueError for damaged weights in a folder, and for fewer than the widths in `config` need at least."""
    index = folder / "model.safetensors.index.json"
    files = check_shards(index) if index.is_file() else sorted(folder.glob("*.safetensors"))
    for file in (ordinary_file(folder / name) for name in ("model.safetensors",) if (folder / name).exists()):
        files = [file]  # transformers prefers it
    there = sum(prod(tensor.shape) for file in files for tensor in safetensors_header(file)[0].values())
    needed = max((_min_weights(part) for part in _nested(read_json(config))), default=0)
    if needed > there:
        raise ValueError(
            f"{config} describes a model of at least {needed:,} weights, and {', '.join(f.name for f in files[:3])} "
            f"holds {there:,}: one of them is damaged, or belongs to another model"
        )


def _nested(settings: Mapping) -> Iterator[Mapping]:
    """The settings, and the settings inside them, such as vision_config."""
    yield settings
    for value in settings.values():
        if isinstance(value, dict):
            yield from _nested(value)


def _min_weights(part: Mapping) -> int:
    """Lower bound of a transformer's number of weights: any attention has two square matrices in each layer."""
    width, layers = (
        next((part[name] for name in names if isinstance(part.get(name), int)), 0)
        for names in (("hidden_size", "width"), ("num_hidden_layers", "layers"))
    )
    words = part.get("vocab_size") if {"max_position_embeddings", "context_length"} & set(part) else 0
    return 2 * max(0, layers) * width**2 + (words if isinstance(words, int) else 0) * width


def check_tokenizer(source: str) -> None:
    """Raises FileNotFoundError for a folder without a vocabulary, ValueError for a damaged one."""
    folder = Path(source)
    if not folder.is_dir():  # on the hub
        return
    there = [folder / name for name in TOKENIZER_FILES if (folder / name).exists()]
    if not there:
        raise FileNotFoundError(
            f"no tokenizer in {folder}, so texts cannot be embedded: copy its tokenizer.json from where the model "
            "comes from"
        )
    for path in there:
        with naming(path):
            if path.suffix == ".json":
                read_json(path)
            else:
                ordinary_file(path)
