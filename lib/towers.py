"""Families of models behind one face, and how each is loaded: all that lib knows of open_clip and transformers."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor, nn

Loaded = TypeVar("Loaded")
TINY_CLIP = Path(__file__).parent.parent / "assets" / "tiny" / "clip"


class Tower(ABC):
    """One model of a family: where its blocks are, what tokens they carry, how it embeds images and texts.

    Attributes: `model` the original module; `blocks` its transformer blocks; `d_model`, `d_embed`; `grid` (h, w) of the
    patches; `n_prefix` tokens stand before the patches, the first is CLS if `has_cls`; `transform` PIL -> (3, H, W),
    picklable; `transform_spec` JSON-able description of it.
    """

    model: nn.Module
    blocks: Sequence[nn.Module]
    d_model: int
    d_embed: int
    grid: tuple[int, int]
    n_prefix: int
    has_cls: bool
    transform: Callable[[Image.Image], Tensor]
    transform_spec: dict

    @abstractmethod
    def module(self, layer: int, kind: str) -> nn.Module:
        """The module whose output is the value of the site `layer.kind`."""

    @abstractmethod
    def embed_images(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, E), not normalised: the original model's whole forward pass."""

    def embed_texts(self, texts: list[str], device: torch.device) -> Tensor:
        """-> (B, E), not normalised."""
        raise ValueError("this encoder sees images only: it has no text tower; take a CLIP-like one to embed texts")

    @property
    def logit_scale(self) -> float:
        """What cosine similarities are multiplied with before the softmax; 1 where the model has no such number."""
        scale = getattr(self.model, "logit_scale", None)
        return 1.0 if scale is None else float(scale.detach().exp())


class OpenClipTower(Tower):
    """open_clip models, with open_clip's own vision transformer or a timm one (EVA, SigLIP, PE ...)."""

    def __init__(self, model: nn.Module, make_tokenizer: Callable[[], Callable[[list[str]], Tensor]]):
        from open_clip.transform import PreprocessCfg, image_transform_v2

        self.model, self._make_tokenizer, visual = model, make_tokenizer, model.visual
        if hasattr(visual, "transformer"):  # open_clip.transformer.VisionTransformer
            self.blocks, self.d_model = visual.transformer.resblocks, visual.transformer.width
            self.grid, self.n_prefix, self.has_cls = tuple(visual.grid_size), 1, True
            self._adds = {"attn_out": "ls_1", "mlp_out": "ls_2"}
        elif hasattr(getattr(visual, "trunk", None), "blocks") and hasattr(visual.trunk, "num_prefix_tokens"):
            trunk = visual.trunk
            self.blocks, self.d_model, self.grid = trunk.blocks, trunk.embed_dim, tuple(trunk.patch_embed.grid_size)
            self.n_prefix, self.has_cls = trunk.num_prefix_tokens, getattr(trunk, "cls_token", None) is not None
            self._adds = {"attn_out": "drop_path1", "mlp_out": "drop_path2"}
        else:
            raise ValueError(f"its image tower is no vision transformer but a {type(visual).__name__}")
        self.d_embed = self._embedding_width()
        self.transform_spec = dict(visual.preprocess_cfg)
        self.transform = image_transform_v2(PreprocessCfg(**self.transform_spec), is_train=False)

    @torch.no_grad()
    def _embedding_width(self) -> int:
        height, width = self.model.visual.image_size
        return self.embed_images(torch.zeros(1, 3, height, width)).shape[-1]

    def module(self, layer: int, kind: str) -> nn.Module:
        block = self.blocks[layer]
        return block if kind == "resid_post" else getattr(block, self._adds[kind])

    def embed_images(self, pixels: Tensor) -> Tensor:
        return self.model.encode_image(pixels, normalize=False)

    @cached_property
    def tokenizer(self) -> Callable[[list[str]], Tensor]:
        """Made when the first text comes: some must be fetched from the hub, and images need none."""
        return _with_clear_errors("the tokenizer", self._make_tokenizer)

    def embed_texts(self, texts: list[str], device: torch.device) -> Tensor:
        return self.model.encode_text(self.tokenizer(texts).to(device), normalize=False)


class HuggingFaceTransform:
    """PIL -> (3, H, W) with a Hugging Face image processor; picklable, so that worker processes can hold it."""

    def __init__(self, processor):
        self.processor = processor

    def __call__(self, image: Image.Image) -> Tensor:
        return self.processor(images=image, return_tensors="pt")["pixel_values"][0]


class HuggingFaceClipTower(Tower):
    """`transformers.CLIPModel`: OpenAI's CLIP and its kin."""

    has_cls, n_prefix = True, 1

    def __init__(self, model: nn.Module, processor, source: str):
        config = model.config.vision_config
        side = config.image_size // config.patch_size
        self.model, self.source, self.blocks = model, source, model.vision_model.encoder.layers
        self.d_model, self.d_embed, self.grid = config.hidden_size, model.config.projection_dim, (side, side)
        self.transform = HuggingFaceTransform(processor)
        self.transform_spec = processor.to_dict()

    def module(self, layer: int, kind: str) -> nn.Module:
        block = self.blocks[layer]
        return {"resid_post": block, "mlp_out": block.mlp, "attn_out": block.self_attn}[kind]

    def embed_images(self, pixels: Tensor) -> Tensor:
        return self.model.get_image_features(pixel_values=pixels).pooler_output

    @cached_property
    def tokenizer(self):
        from transformers import AutoTokenizer

        return _with_clear_errors(
            f"the tokenizer of {self.source}",
            lambda: AutoTokenizer.from_pretrained(self.source, trust_remote_code=False),
        )

    def embed_texts(self, texts: list[str], device: torch.device) -> Tensor:
        longest = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        return self.model.get_text_features(**tokens.to(device)).pooler_output


def load_tower(spec: str, weights: str | None = None) -> Tower:
    """The model that a spec names; see `lib.models.load_encoder` for specs and errors."""
    family, _, name = spec.partition(":")
    if family == "hf" and weights is not None:
        raise ValueError(f"weights= is for open_clip specs; give the folder of a model instead of {spec}")
    if spec == "tiny":
        if not TINY_CLIP.is_dir():
            raise FileNotFoundError(
                f"the embedded CLIP is not in {TINY_CLIP}: it comes with the repository, not with an installed copy of "
                "lib, so clone the repository and install it with `pip install -e .`"
            )
        return _with_clear_errors(spec, lambda: _open_clip_folder(TINY_CLIP, weights))
    if family == "open_clip" and name:
        return _with_clear_errors(spec, lambda: _open_clip(name, weights))
    if family == "hf" and name:
        return _with_clear_errors(spec, lambda: _hugging_face(name))
    raise ValueError(
        f"unknown encoder {spec!r}: write tiny, open_clip:ARCH/PRETRAINED, open_clip:FOLDER, hf:NAME or hf:FOLDER"
    )


def _with_clear_errors(what: str, load: Callable[[], Loaded]) -> Loaded:
    """Turn the loaders' many ways to fail into one sentence that says what could not be loaded."""
    try:
        return load()
    except FileNotFoundError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        unreachable = ("offline mode", "couldn't connect", "Failed to download", "LocalEntryNotFound", "Max retries")
        if isinstance(error, ConnectionError) or any(sign.lower() in reason.lower() for sign in unreachable):
            raise ConnectionError(
                f"cannot fetch {what} from the Hugging Face hub and it is not in the cache: "
                f"connect to the internet, or give a local folder or file ({reason[:200]})"
            ) from error
        raise ValueError(f"cannot load {what}: {reason[:400]}") from error


def _open_clip(name: str, weights: str | None) -> Tower:
    """`ARCH/PRETRAINED`, `FOLDER` or `hf-hub:OWNER/NAME`."""
    import open_clip

    folder = Path(name).expanduser()
    if name.startswith((".", "/", "~")) or folder.is_dir():
        return _open_clip_folder(folder, weights)
    if name.startswith("hf-hub:"):
        return OpenClipTower(open_clip.create_model(name), lambda: open_clip.get_tokenizer(name))
    architecture, _, pretrained = name.partition("/")
    if architecture not in open_clip.list_models():
        raise ValueError(f"open_clip has no architecture {architecture!r}; open_clip.list_models() names them all")
    pretrained = weights or pretrained
    known = open_clip.get_pretrained_cfg(architecture, pretrained)
    if not known and pretrained != "none" and not Path(pretrained).is_file():
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "no tag"
        raise ValueError(f"{pretrained!r} is neither a checkpoint file nor a tag of {architecture} ({tags})")
    with torch.random.fork_rng(devices=[]):  # random weights are the same ones each time
        torch.manual_seed(0)
        model = open_clip.create_model(
            architecture,
            pretrained=None if pretrained == "none" else pretrained,
            # open_clip only warns when a tag's weights were trained with another activation than the architecture's
            force_quick_gelu=bool(known.get("quick_gelu", False)),
        )
    return OpenClipTower(model, lambda: open_clip.get_tokenizer(architecture))


def _open_clip_folder(folder: Path, weights: str | None) -> Tower:
    """A folder with `open_clip_config.json`, a checkpoint and, for a vocabulary of its own, `bpe.txt.gz`."""
    import open_clip

    if not (folder / "open_clip_config.json").is_file():
        raise FileNotFoundError(f"no CLIP in {folder}: it needs an open_clip_config.json and a checkpoint")
    if weights is None and not any(folder.glob("*.safetensors")):
        raise FileNotFoundError(f"no weights in {folder}: it needs an open_clip_model.safetensors")
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=weights is None)
    if weights is not None:
        open_clip.load_checkpoint(model, weights)
    return OpenClipTower(model, lambda: _folder_tokenizer(folder))


def _folder_tokenizer(folder: Path) -> Callable[[list[str]], Tensor]:
    import open_clip

    vocabulary = folder / "bpe.txt.gz"
    if not vocabulary.is_file():
        return open_clip.get_tokenizer(f"local-dir:{folder}")
    text_cfg = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]["text_cfg"]
    return open_clip.SimpleTokenizer(str(vocabulary), context_length=text_cfg["context_length"])


def _hugging_face(name: str) -> Tower:
    from transformers import AutoConfig, AutoImageProcessor, CLIPModel

    is_folder = name.startswith((".", "/", "~"))
    source = str(Path(name).expanduser()) if is_folder else name
    if is_folder and not (Path(source) / "config.json").is_file():
        raise FileNotFoundError(
            f"no model in {source}: it needs a config.json, model.safetensors and preprocessor_config.json"
        )
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    if config.model_type != "clip":
        raise ValueError(
            f"it is a {config.model_type!r} model; of Hugging Face this book reads CLIP vision-text models"
        )
    model = CLIPModel.from_pretrained(source, config=config, use_safetensors=True, dtype=torch.float32)
    processor = AutoImageProcessor.from_pretrained(source, trust_remote_code=False)
    return HuggingFaceClipTower(model, processor, source)
