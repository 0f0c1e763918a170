"""Image towers of open_clip, and how its models are loaded."""

import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from lib.towers.base import Tower, with_clear_errors


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
        return with_clear_errors("the tokenizer", self._make_tokenizer)

    def embed_texts(self, texts: list[str], device: torch.device) -> Tensor:
        return self.model.encode_text(self.tokenizer(texts).to(device), normalize=False)


def open_clip_tower(name: str, weights: str | None) -> Tower:
    """`ARCH/PRETRAINED`, `FOLDER` or `hf-hub:OWNER/NAME`."""
    import open_clip

    folder = Path(name).expanduser()
    if name.startswith((".", "/", "~")) or folder.is_dir():
        return folder_tower(folder, weights)
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


def folder_tower(folder: Path, weights: str | None) -> Tower:
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
