"""Sparse autoencoders inside vision transformers: what a researcher imports.

`import lib` is light (torch only). The public names below load their module when first used; open_clip, transformers
and scikit-learn load when a function first needs them.
"""

from importlib import import_module

from lib.torchvision_schemas import declare_missing_schemas

declare_missing_schemas()

__version__ = "0.1.0"

_HOME = {
    "ImageError": "lib.images.image_set",
    "ImageSet": "lib.images.image_set",
    "as_image_set": "lib.images.image_set",
    "class_words": "lib.images.image_set",
    "load_images": "lib.images.image_set",
    "Encoder": "lib.encoders.encoder",
    "Site": "lib.encoders.encoder",
    "from_module": "lib.encoders.encoder",
    "load_encoder": "lib.encoders.encoder",
    "ActivationStore": "lib.activations.extraction",
    "ActivationStream": "lib.activations.extraction",
    "extract": "lib.activations.extraction",
    "SAE": "lib.sae.model",
    "SAEConfig": "lib.sae.model",
    "train_sae": "lib.sae.training",
    "FeatureTable": "lib.features.table",
    "Directions": "lib.steering.interventions",
    "Intervention": "lib.steering.interventions",
    "Neurons": "lib.steering.interventions",
    "Llava": "lib.steering.llava",
    "load_llava": "lib.steering.llava",
    "load_sae": "lib.hub",
    "push_sae": "lib.hub",
}
_PACKAGES = (
    "activations",
    "artifacts",
    "distributed",
    "encoders",
    "features",
    "hub",
    "images",
    "metrics",
    "plots",
    "sae",
    "steering",
)
_MOVED = {  # names of earlier versions -> where they are now
    "Menagerie": "from menagerie import Menagerie",
    "FeatureExplorer": "from widgets import FeatureExplorer",
    "SteeringPanel": "from widgets import SteeringPanel",
    "SuppressionPanel": "from widgets import SuppressionPanel",
    "menagerie": "import menagerie",
    "widgets": "import widgets",
    "data": "from lib import load_images, ImageSet",
    "models": "from lib import load_encoder, from_module, Encoder, Site",
    "training": "from lib import train_sae",
    "llava": "from lib import load_llava, Llava",
}

__all__ = ["metrics", *_HOME]  # `from lib import *`


def __getattr__(name: str):
    """Load a public name from its home module when first asked for (PEP 562)."""
    if name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
    elif name in _PACKAGES:
        value = import_module(f"lib.{name}")
    elif name in _MOVED:
        raise AttributeError(f"lib.{name} has moved: write `{_MOVED[name]}`")
    else:
        raise AttributeError(f"module 'lib' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_PACKAGES})
