"""The kinds of pictures that a spec can name: folders here, all others as other packages register them."""

from lib.images.folder import FolderSource
from lib.registry import registered


def kinds() -> list[str]:
    """The words before the colon of a spec."""
    return ["folder", *registered("images")]


def kind(name: str) -> type:
    """The source that is made of what follows the colon, if anything does; `FORM` says how its specs are written."""
    return FolderSource if name == "folder" else registered("images")[name].load()
