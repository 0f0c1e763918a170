"""The embedded models in `assets/tiny`, under the names that pyproject.toml registers for them."""

from pathlib import Path

_TINY = Path(__file__).resolve().parents[1] / "assets" / "tiny"
TINY_CLIP, TINY_EYE, TINY_LLAVA = _TINY / "clip", _TINY / "eye", _TINY / "llava"
TINY_TOPK = _TINY / "topk_clip"


def clip_spec() -> str:
    """`load_encoder("tiny")`."""
    return f"open_clip:{embedded(TINY_CLIP, 'CLIP')}"


def eye_spec() -> str:
    """`load_encoder("tiny-eye")`."""
    return f"hf:{embedded(TINY_EYE, 'image encoder')}"


def llava_spec() -> str:
    """`load_llava("tiny")`."""
    return f"hf:{embedded(TINY_LLAVA, 'LLaVA')}"


def embedded(folder: Path, what: str) -> Path:
    """The folder of an embedded model. Raises FileNotFoundError where it is missing."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"the embedded {what} is not in {folder}: it comes with the repository, not with an installed copy of "
            "menagerie, so clone the repository and install it with `pip install -e .`"
        )
    return folder
