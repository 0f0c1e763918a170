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
from menagerie.images import MenagerieSource

# By kind; each takes what its form has after the colon, if anything. The modules are light: pandas, datasets, open_clip
# and the Menagerie are imported when they are used.
SOURCES: dict[str, Callable[..., Source]] = {
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
FORMS = {  # how a spec of each kind is written
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
