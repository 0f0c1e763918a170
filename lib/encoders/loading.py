"""Families of models behind one face, and how each is loaded: all that lib knows of open_clip and transformers."""

from pathlib import Path

from lib.encoders.tower import Tower, checked, with_clear_errors
from lib.files import quoted

__all__ = ["Tower", "load_tower", "embedded", "with_clear_errors", "TINY_CLIP", "TINY_EYE", "TINY_LLAVA", "TINY_TOPK"]

_TINY = Path(__file__).resolve().parents[2] / "assets" / "tiny"
TINY_CLIP, TINY_EYE, TINY_LLAVA = _TINY / "clip", _TINY / "eye", _TINY / "llava"
TINY_TOPK = _TINY / "topk_clip"


def load_tower(spec: str, weights: str | None = None) -> Tower:
    """The model that a spec names; see `lib.load_encoder` for specs and errors."""
    family, _, name = str(spec).partition(":")
    if spec not in ("tiny", "tiny-eye") and not (family in ("open_clip", "hf") and name):
        raise ValueError(
            f"unknown encoder {quoted(spec)}: write tiny, tiny-eye, open_clip:ARCH/PRETRAINED, open_clip:FOLDER, "
            "hf:NAME or hf:FOLDER"
        )
    if weights is not None and family in ("hf", "tiny-eye"):
        raise ValueError(f"weights= is for open_clip specs; give the folder of a model instead of {spec}")
    return with_clear_errors(spec, lambda: checked(_tower(spec, family, name, weights)))


def _tower(spec: str, family: str, name: str, weights: str | None) -> Tower:
    from lib.encoders import hub_files, open_clip

    if spec == "tiny":
        return open_clip.folder_tower(embedded(TINY_CLIP, "CLIP"), weights)
    if spec == "tiny-eye":
        return hub_files.hugging_face_tower(str(embedded(TINY_EYE, "image encoder")))
    if family == "open_clip":
        return open_clip.open_clip_tower(name, weights)
    return hub_files.hugging_face_tower(name)


def embedded(folder: Path, what: str) -> Path:
    """The folder of an embedded model. Raises FileNotFoundError where it is missing."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"the embedded {what} is not in {folder}: it comes with the repository, not with an installed copy of "
            "lib, so clone the repository and install it with `pip install -e .`"
        )
    return folder
