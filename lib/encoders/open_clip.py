"""Image towers of open_clip, and how its models are loaded."""

import logging
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from lib.devices import bring
from lib.encoders.folders import check_settings, check_tokenizer, check_weights
from lib.encoders.hub_files import download_model, local_folder
from lib.encoders.tower import Tower, with_clear_errors
from storage.files import check_archive, naming, ordinary_file, quoted, read_json, safetensors_header

_CLIP_WORDS = 49408
_PREPROCESSING = ("size", "mean", "std", "interpolation", "resize_mode")
_TOKENIZER_SETTINGS = ("clean", "context_length", "strip_sep_token")
"""Arguments of a tokenizer that a configuration may set: those of open_clip's own configs; others could run code."""


class OpenClipTower(Tower):
    """A model of open_clip; a subclass says how its kind of image tower is built."""

    def __init__(self, model: nn.Module, make_tokenizer: Callable[[], Callable[[list[str]], Tensor]]):
        from open_clip.transform import PreprocessCfg, image_transform_v2

        self.model, self._make_tokenizer = model.eval(), make_tokenizer
        self.transform_spec = dict(model.visual.preprocess_cfg)
        self.transform = image_transform_v2(PreprocessCfg(**self.transform_spec), is_train=False)
        self._find_parts()
        self.d_embed = self._embedding_width()

    @abstractmethod
    def _find_parts(self) -> None:
        """Set `blocks`, `d_model`, `grid`, `n_prefix` and `has_cls`."""

    @torch.no_grad()
    def _embedding_width(self) -> int:
        """E, from one pass, which also checks the number of tokens that the blocks carry."""
        n_tokens = []
        handle = self.blocks[0].register_forward_pre_hook(lambda block, inputs: n_tokens.append(inputs[0].shape[1]))
        width = self.embed_images(torch.zeros(1, 3, *self.model.visual.image_size)).shape[-1]
        handle.remove()
        if n_tokens != [self.n_prefix + self.grid[0] * self.grid[1]]:
            raise ValueError(
                f"its blocks carry {n_tokens[0]} tokens, which are not {self.n_prefix} and one for each of the "
                f"{self.grid[0]} x {self.grid[1]} patches"
            )
        return width

    def embed_images(self, pixels: Tensor) -> Tensor:
        return self.model.encode_image(pixels, normalize=False)

    @cached_property
    def tokenizer(self) -> Callable[[list[str]], Tensor]:
        """Made for the first text: some tokenizers are downloaded from the hub, and images need none."""
        return with_clear_errors("the tokenizer", self._make_tokenizer)

    def embed_texts(self, texts: list[str], device: torch.device) -> Tensor:
        return self.model.encode_text(bring(self.tokenizer(texts), device), normalize=False)


class NativeTower(OpenClipTower):
    """open_clip's own vision transformer: CLIP, CLIPA, CoCa; it always has a CLS token, pooled or not."""

    branches = ("ls_1", "ls_2")

    def _find_parts(self) -> None:
        visual = self.model.visual
        self.blocks, self.d_model = visual.transformer.resblocks, visual.transformer.width
        self.grid, self.n_prefix, self.has_cls = tuple(visual.grid_size), 1, True

    def first_token(self, layer: int, stream: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """As in `Tower`; open_clip's standard blocks skip the queries of other tokens: (B, T, d) -> (B, 1, d)."""
        block = self.blocks[layer]
        if not hasattr(block, "attention"):  # CustomResidualAttentionBlock
            return super().first_token(layer, stream, attn_mask=attn_mask)
        normed = block.ln_1(stream)
        first = stream[:, :1] + block.ls_1(block.attention(normed[:, :1], normed, normed, attn_mask))
        return first + block.ls_2(block.mlp(block.ln_2(first)))


class TimmTower(OpenClipTower):
    """A vision transformer of timm: SigLIP, EVA, PE, MobileCLIP-B, and ViTamin, whose patches come from a conv stem."""

    branches = ("drop_path1", "drop_path2")

    def __init__(self, model: nn.Module, make_tokenizer: Callable[[], Callable[[list[str]], Tensor]]):
        visual = model.visual
        size = visual.trunk.patch_embed.img_size
        if size and tuple(size) != tuple(visual.image_size):  # ViTamin-XL-384's configuration says 256
            visual.image_size = tuple(size)
            visual.preprocess_cfg = {**visual.preprocess_cfg, "size": tuple(size)}
        super().__init__(model, make_tokenizer)

    def _find_parts(self) -> None:
        trunk = self.model.visual.trunk
        self.blocks, self.d_model, self.grid = trunk.blocks, trunk.embed_dim, tuple(trunk.patch_embed.grid_size)
        self.n_prefix, self.has_cls = trunk.num_prefix_tokens, getattr(trunk, "cls_token", None) is not None


def tower_of(model: nn.Module, make_tokenizer: Callable[[], Callable[[list[str]], Tensor]]) -> OpenClipTower:
    """The tower for open_clip's `model`. Raises ValueError where the image tower is no vision transformer."""
    trunk = getattr(model.visual, "trunk", None)
    if trunk is None and hasattr(model.visual, "transformer"):
        return NativeTower(model, make_tokenizer)
    blocks = getattr(trunk, "blocks", None)
    if blocks and hasattr(trunk, "num_prefix_tokens") and hasattr(blocks[0], "drop_path1"):
        return TimmTower(model, make_tokenizer)
    kind = type(model.visual if trunk is None else trunk).__name__
    raise ValueError(
        f"its image tower is no vision transformer but a {kind}: take one whose blocks carry one token "
        "for each patch and add attention and MLP to it in turn"
    )


def open_clip_tower(name: str, weights: str | None) -> Tower:
    """The tower of `ARCH/PRETRAINED`, `FOLDER` or `hf-hub:OWNER/NAME`; see `lib.load_encoder` for the errors."""
    import open_clip

    folder, _ = local_folder(name)
    if folder is not None:
        return folder_tower(folder, weights)
    if name.startswith("hf-hub:"):
        return _hub_tower(name.removeprefix("hf-hub:"), weights)
    architecture, _, pretrained = name.partition("/")
    if architecture not in open_clip.list_models():
        raise ValueError(f"open_clip has no architecture {architecture!r}; open_clip.list_models() names them all")
    tag = open_clip.get_pretrained_cfg(architecture, pretrained)  # its training settings, which `weights` share
    pretrained = weights or pretrained
    if not (tag and weights is None) and pretrained != "none" and not Path(pretrained).expanduser().exists():
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "no tag"
        raise ValueError(f"{pretrained!r} is neither a checkpoint file nor a tag of {architecture} ({tags})")
    with torch.random.fork_rng(devices=[]), _no_random_weights_warning():  # random weights are the same in each run
        torch.manual_seed(0)
        model = open_clip.create_model(
            architecture,
            pretrained=pretrained if tag and weights is None else None,
            pretrained_text=False,  # the whole checkpoint or none of it
            # open_clip only warns when a tag's weights were trained with another activation than the architecture's
            force_quick_gelu=bool(tag.get("quick_gelu", False)),
            force_preprocess_cfg={name: tag[name] for name in _PREPROCESSING if name in tag} or None,
        )
    if pretrained != "none" and not (tag and weights is None):
        load_weights(model, Path(pretrained))
        if not tag:
            _warn_of_activation(architecture, pretrained)
    return tower_of(model, lambda: open_clip.get_tokenizer(architecture))


def _warn_of_activation(architecture: str, weights: str) -> None:
    """Warn that a file of weights does not say its activation, where the architecture's own tags have two."""
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(architecture)
    quick = [tag for tag in tags if open_clip.get_pretrained_cfg(architecture, tag).get("quick_gelu")]
    if quick and not open_clip.get_model_config(architecture).get("quick_gelu"):
        warnings.warn(
            f"{weights} does not say its activation and is read with GELU, while {architecture} has weights trained "
            f"with QuickGELU ({', '.join(quick[:3])}): if these are such, name open_clip:{architecture}/{quick[0]} and "
            f"give the file as weights=.",
            stacklevel=4,
        )


@contextmanager
def _no_random_weights_warning() -> Iterator[None]:
    """Silence open_clip's warning that weights are random: they are loaded in the next step, or were requested."""

    def wanted(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("No pretrained weights loaded")

    logging.getLogger().addFilter(wanted)
    try:
        yield
    finally:
        logging.getLogger().removeFilter(wanted)


def _hub_tower(name: str, weights: str | None) -> Tower:
    folder = download_model(name, "open_clip_model.safetensors")
    if weights is None and not any(folder.glob("*.safetensors")):  # an older repository
        weights = str(download_model(name, "open_clip_pytorch_model.bin") / "open_clip_pytorch_model.bin")
    return folder_tower(folder, weights)


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a checkpoint file into the model. Raises ValueError for a damaged file, or one of another model."""
    import open_clip

    path = ordinary_file(path.expanduser())
    if path.suffix == ".safetensors":
        safetensors_header(path)
    with naming(path, "loaded"):
        check_archive(path)
        open_clip.load_checkpoint(model, str(path))


def folder_tower(folder: Path, weights: str | None) -> Tower:
    """The tower of a folder with `open_clip_config.json`, a checkpoint and, for its own vocabulary, `bpe.txt.gz`."""
    import open_clip

    if not (folder / "open_clip_config.json").exists():
        raise FileNotFoundError(f"no CLIP in {folder}: it needs an open_clip_config.json and a checkpoint")
    if weights is None and not any(folder.glob("*.safetensors")):
        raise FileNotFoundError(f"no weights in {folder}: it needs an open_clip_model.safetensors")
    config = folder / "open_clip_config.json"
    check_settings(folder)
    text = _text_settings(config)
    if weights is None:
        check_weights(folder, config)
    with naming(config, "made a model of"), torch.random.fork_rng([]), _no_random_weights_warning():
        model = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)
    load_weights(model, Path(weights) if weights else _checkpoint(folder))
    return tower_of(model, lambda: _folder_tokenizer(folder, text))


def _text_settings(config: Path) -> dict:
    """text_cfg of a configuration. Raises ValueError for a damaged one, and for unknown arguments of the tokenizer."""
    model = read_json(config).get("model_cfg")
    text = model.get("text_cfg") if isinstance(model, dict) else None
    if not isinstance(text, dict) or not isinstance(model.get("vision_cfg"), dict):
        raise ValueError(f"{config} describes no CLIP: it has no model_cfg with a vision_cfg and a text_cfg")
    unknown = set(text.get("tokenizer_kwargs") or ()) - set(_TOKENIZER_SETTINGS)
    if unknown:
        raise ValueError(f"{config} sets {quoted(sorted(unknown))} of the tokenizer, which is not passed on")
    return text


def _checkpoint(folder: Path) -> Path:
    """The file of weights in a folder: one of open_clip's standard names first."""
    usual = (folder / name for name in ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors"))
    return next((path for path in usual if path.exists()), min(folder.glob("*.safetensors")))


def _folder_tokenizer(folder: Path, text: dict) -> Callable[[list[str]], Tensor]:
    """The tokenizer of a folder. Raises FileNotFoundError where its files are missing."""
    import open_clip

    vocabulary = folder / "bpe.txt.gz"
    if vocabulary.exists():
        ordinary_file(vocabulary)
        length = text.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH)
        with naming(vocabulary):
            return open_clip.SimpleTokenizer(str(vocabulary), context_length=length)
    if text.get("hf_tokenizer_name"):
        check_tokenizer(str(folder))
        return open_clip.get_tokenizer(f"local-dir:{folder}", trust_remote_code=False)
    if text.get("vocab_size", _CLIP_WORDS) != _CLIP_WORDS:
        raise FileNotFoundError(
            f"no tokenizer in {folder}, so texts cannot be embedded: its {text['vocab_size']} words are not CLIP's "
            f"{_CLIP_WORDS}; copy its bpe.txt.gz or tokenizer.json from where the model comes from"
        )
    return open_clip.get_tokenizer(f"local-dir:{folder}")
