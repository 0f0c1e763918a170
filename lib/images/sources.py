"""Where pictures come from: one module a family of data sets, and the table of all kinds that a spec can name."""

from collections.abc import Callable
from functools import partial

from lib.images.celeba import CelebASource
from lib.images.folder import FolderSource
from lib.images.hub_datasets import HuggingFaceSource
from lib.images.imagenet import ImageNetSource
from lib.images.inaturalist import INaturalistSource
from lib.images.source import Source
from lib.images.typographic import PAINT, RTA100, DisentanglingSource, NamedSource
from lib.images.waterbirds import WaterbirdsSource
from lib.registry import registered

# By kind: how its specs are written, and what makes a source of what follows the colon, if anything does. The modules
# are light: pandas, datasets and open_clip are imported when they are used.
_OWN: dict[str, tuple[str, Callable[..., Source]]] = {
    "folder": ("folder:PATH", FolderSource),
    "imagenet": ("imagenet:train|val", ImageNetSource),
    "inat21": ("inat21:train|mini|val", INaturalistSource),
    "celeba": ("celeba:train|val|test|all", CelebASource),
    "waterbirds": ("waterbirds:train|val|test", WaterbirdsSource),
    "rta100": ("rta100", partial(NamedSource, RTA100)),
    "paint": ("paint", partial(NamedSource, PAINT)),
    "disentangling": ("disentangling", DisentanglingSource),
    "hf": ("hf:OWNER/NAME:SPLIT", HuggingFaceSource),
}


def kinds() -> list[str]:
    """The words before the colon of a spec: those of other packages, then our own."""
    return [*registered("images"), *_OWN]


def kind(name: str) -> tuple[str, Callable[..., Source]]:
    """How specs of a kind are written, and what makes its source. Raises KeyError for a kind that is not there."""
    if name in registered("images"):
        source = registered("images")[name].load()
        return source.FORM, source
    return _OWN[name]
