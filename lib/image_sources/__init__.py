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
