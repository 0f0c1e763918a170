"""Sizes of encoders and sets of pictures named by specs, without loading or downloading them."""

import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path

DATA_SETS = {  # pictures, and gigabytes of files, as their publishers state them
    "imagenet:train": (1_281_167, 138),
    "imagenet:val": (50_000, 6.3),
    "inat21:train": (2_686_843, 224),
    "inat21:mini": (500_000, 42),
    "inat21:val": (100_000, 8.4),
    "hf:Sijuade/ImageNette:train": (9_469, 1.1),
    "hf:Sijuade/ImageNette:validation": (3_925, 0.5),
}
ASSUMED_PICTURES = 50_000  # of a set that is not on this machine


@dataclass(frozen=True)
class VisionTransformer:
    """Dimensions of a vision transformer, from which its cost follows."""

    layers: int
    width: int
    mlp: int
    patch: int
    image: int
    embed: int

    @property
    def patches(self) -> int:
        return (self.image // self.patch) ** 2

    @property
    def tokens(self) -> int:
        """Patches and the class token; a model without one has one less."""
        return self.patches + 1

    def parameters(self) -> int:
        """Weights of the patch embedding and the blocks; biases and norms are too few to count."""
        block = 4 * self.width**2 + 2 * self.width * self.mlp
        return 3 * self.patch**2 * self.width + self.layers * block

    def flops(self, sites: list[str]) -> float:
        """FLOPs of one picture's forward pass up to the last of the sites; a multiply-add is two.

        A block: 8 d² + 4 d m a token for its products, 4 T² d for attention.
        """
        depth = max(self.layers if site == "proj" else int(site.split(".")[0]) + 1 for site in sites)
        block = self.tokens * (8 * self.width**2 + 4 * self.width * self.mlp) + 4 * self.tokens**2 * self.width
        return 2 * self.patches * 3 * self.patch**2 * self.width + depth * block

    def width_at(self, site: str) -> int:
        return self.embed if site == "proj" else self.width

    def rows(self, site: str, tokens: str) -> int:
        """Number of activations of a picture at a site."""
        if site == "proj" or tokens in ("cls", "mean"):
            return 1
        if tokens.startswith("random:"):
            return int(tokens.partition(":")[2])
        return self.patches if tokens == "spatial" else self.tokens


TIMM_SIZES = {"small": (12, 384, 1536), "base": (12, 768, 3072), "large": (24, 1024, 4096), "so400m": (27, 1152, 4304)}
HUB = {
    "openai/clip-vit-base-patch32": VisionTransformer(12, 768, 3072, 32, 224, 512),
    "openai/clip-vit-base-patch16": VisionTransformer(12, 768, 3072, 16, 224, 512),
    "openai/clip-vit-large-patch14": VisionTransformer(24, 1024, 4096, 14, 224, 768),
    "openai/clip-vit-large-patch14-336": VisionTransformer(24, 1024, 4096, 14, 336, 768),
    "google/siglip-base-patch16-224": VisionTransformer(12, 768, 3072, 16, 224, 768),
    "google/siglip-so400m-patch14-384": VisionTransformer(27, 1152, 4304, 14, 384, 1152),
    "facebook/dinov2-small": VisionTransformer(12, 384, 1536, 14, 224, 384),
    "facebook/dinov2-base": VisionTransformer(12, 768, 3072, 14, 224, 768),
    "facebook/dinov2-large": VisionTransformer(24, 1024, 4096, 14, 224, 1024),
}
EMBEDDED = {"tiny": "assets/tiny/clip/open_clip_config.json", "tiny-eye": "hf:assets/tiny/eye"}


def encoder_size(spec: str, root: Path = Path()) -> VisionTransformer:
    """Size of the encoder that a spec names, from tables and configs on this machine. Raises ValueError for others."""
    if spec == "tiny":
        return _open_clip_size(json.loads((root / EMBEDDED["tiny"]).read_text()))
    kind, _, name = EMBEDDED.get(spec, spec).partition(":")
    if kind == "open_clip" and (config := _open_clip_config(name.partition("/")[0])):
        return _open_clip_size(config)
    if kind == "hf" and name in HUB:
        return HUB[name]
    if kind == "hf" and (config := _hub_config(name, root)):
        return _hub_size(config)
    raise ValueError(
        f"the size of the encoder {spec} is not known here: load it once, or add it to HUB in book/tools/sizes.py"
    )


def _open_clip_config(architecture: str) -> dict | None:
    folders = importlib.util.find_spec("open_clip").submodule_search_locations
    file = Path(folders[0], "model_configs", f"{architecture}.json")
    return json.loads(file.read_text()) if file.is_file() else None


def _open_clip_size(config: dict) -> VisionTransformer:
    config = config.get("model_cfg", config)
    vision = config["vision_cfg"]
    timm = re.match(r"vit_(\w+?)_patch(\d+)_", vision.get("timm_model_name", ""))
    if timm and timm[1] in TIMM_SIZES:
        return VisionTransformer(*TIMM_SIZES[timm[1]], int(timm[2]), vision["image_size"], config["embed_dim"])
    width, mlp = vision["width"], round(vision.get("mlp_ratio", 4) * vision["width"])
    return VisionTransformer(
        vision["layers"], width, mlp, vision["patch_size"], vision["image_size"], config["embed_dim"]
    )


def _hub_config(name: str, root: Path) -> dict | None:
    """`config.json` of a local folder, or of a model that was downloaded before."""
    from huggingface_hub import try_to_load_from_cache

    local = root / name / "config.json"
    file = local if local.is_file() else try_to_load_from_cache(name, "config.json") if name.count("/") == 1 else None
    return json.loads(Path(file).read_text()) if isinstance(file, str | Path) else None


def _hub_size(config: dict) -> VisionTransformer:
    vision = config.get("vision_config", config)
    width = vision.get("hidden_size", 768)
    mlp = vision.get("intermediate_size") or round(vision.get("mlp_ratio", 4) * width)
    image, patch = vision.get("image_size", 224), vision.get("patch_size", 32)
    return VisionTransformer(
        vision.get("num_hidden_layers", 12), width, mlp, patch, image, config.get("projection_dim", width)
    )


@dataclass(frozen=True)
class Pictures:
    """A set of pictures: `spec` as an `ImageSet` writes it, their number, and whether that is `known` or assumed."""

    base: str
    spec: str
    count: int
    known: bool


def pictures(spec: str) -> Pictures:
    """The pictures that a spec names; only the Menagerie and folders are opened to be counted."""
    from lib.images.image_set import ImageSpec

    parsed = ImageSpec.parse(spec)
    total = DATA_SETS[parsed.base][0] if parsed.base in DATA_SETS else _counted(parsed.base)
    canonical, chosen = parsed.canonical(total or ASSUMED_PICTURES)
    return Pictures(parsed.base, canonical, len(chosen), total is not None)


def _counted(base: str) -> int | None:
    from lib.images.image_set import load_images

    if not base.startswith(("menagerie:", "folder:")):
        return None
    try:
        return len(load_images(base))
    except (ValueError, OSError):
        return None
