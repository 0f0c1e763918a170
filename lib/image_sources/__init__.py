"""Where pictures come from: one module a family of data sets, and the table of all kinds that a spec can name."""

from collections.abc import Callable
from functools import partial

from lib.image_sources.base import Source
from lib.image_sources.celeba import CelebASource
from lib.image_sources.folder import FolderSource
from lib.image_sources.hugging_face import HuggingFaceSource
from lib.image_sources.imagenet import ImageNetSource
from lib.image_sources.inaturalist import INaturalistSource
from lib.image_sources.menagerie import MenagerieSource
from lib.image_sources.typographic import PAINT, RTA100, DisentanglingSource, NamedSource
from lib.image_sources.waterbirds import WaterbirdsSource

# These modules are light: what they need from pandas, datasets, open_clip or the Menagerie they import when used.
SOURCES: dict[str, Callable[[str], Source]] = {
    "menagerie": MenagerieSource,
    "folder": FolderSource,
    "imagenet": ImageNetSource,
    "inat21": INaturalistSource,
    "celeba": CelebASource,
    "waterbirds": WaterbirdsSource,
    "rta100": partial(NamedSource, RTA100),
    "paint": partial(NamedSource, PAINT),
    "disentangling": DisentanglingSource,
    "hf": HuggingFaceSource,
}
FORMS = {
    "menagerie": "menagerie:SPLIT",
    "folder": "folder:PATH",
    "imagenet": "imagenet:train|val",
    "inat21": "inat21:train|mini|val",
    "celeba": "celeba:train|val|test|all",
    "waterbirds": "waterbirds:train|val|test",
    "rta100": "rta100",
    "paint": "paint",
    "disentangling": "disentangling",
    "hf": "hf:OWNER/NAME:SPLIT",
}
