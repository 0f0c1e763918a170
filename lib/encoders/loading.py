"""Loading the tower that an encoder's spec names, from open_clip or Hugging Face."""

from lib.encoders.tower import Tower, checked, with_clear_errors
from lib.registry import registered
from storage.files import quoted


def load_tower(spec: str, weights: str | None = None) -> Tower:
    """The tower of the model that a spec names; see `lib.load_encoder` for specs and errors."""
    family, name = parts_of(spec, "encoder", ("open_clip", "hf"))
    if weights is not None and family != "open_clip":
        raise ValueError(f"weights= is for open_clip specs; give the folder of a model instead of {spec}")
    return with_clear_errors(spec, lambda: checked(_tower(family, name, weights)))


def parts_of(spec: str, what: str, families: tuple[str, ...]) -> tuple[str, str]:
    """(family, name) of a spec, or of the spec for which a registered name stands. Raises ValueError for others."""
    names = registered(f"{what.lower()}s")
    full = names[spec].load()() if isinstance(spec, str) and spec in names else str(spec)
    family, _, name = full.partition(":")
    if family not in families or not name:
        forms = {"open_clip": "open_clip:ARCH/PRETRAINED, open_clip:FOLDER", "hf": "hf:NAME or hf:FOLDER"}
        known = ", ".join([*names, *(forms[family] for family in families)])
        raise ValueError(f"unknown {what} {quoted(spec)}: write {known}")
    return family, name


def _tower(family: str, name: str, weights: str | None) -> Tower:
    from lib.encoders import hub_files, open_clip

    return open_clip.open_clip_tower(name, weights) if family == "open_clip" else hub_files.hugging_face_tower(name)
