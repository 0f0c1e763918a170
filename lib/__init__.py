"""Sparse autoencoders inside vision transformers: the machinery behind the book's notebooks.

`import lib` is light (torch only). The public names below load their module when first used; open_clip, transformers
and scikit-learn load when a function first needs them.
"""

from importlib import import_module

from lib.torchvision_schemas import declare_missing_schemas

declare_missing_schemas()

__version__ = "0.1.0"

_HOME = {
    "Menagerie": "lib.menagerie",
    "ImageError": "lib.data",
    "ImageSet": "lib.data",
    "as_image_set": "lib.data",
    "class_words": "lib.data",
    "load_images": "lib.data",
    "Encoder": "lib.models",
    "Site": "lib.models",
    "from_module": "lib.models",
    "load_encoder": "lib.models",
    "ActivationStore": "lib.activations",
    "ActivationStream": "lib.activations",
    "extract": "lib.activations",
    "SAE": "lib.sae",
    "SAEConfig": "lib.sae",
    "train_sae": "lib.training",
    "FeatureTable": "lib.features",
    "Directions": "lib.steering",
    "Intervention": "lib.steering",
    "Neurons": "lib.steering",
    "Llava": "lib.llava",
    "load_llava": "lib.llava",
    "FeatureExplorer": "lib.widgets",
    "SteeringPanel": "lib.widgets",
    "SuppressionPanel": "lib.widgets",
    "load_sae": "lib.hub",
    "push_sae": "lib.hub",
}
_MODULES = (
    "activations",
    "artifacts",
    "data",
    "distributed",
    "features",
    "hub",
    "llava",
    "menagerie",
    "metrics",
    "models",
    "plots",
    "sae",
    "steering",
    "training",
    "widgets",
)

__all__ = ["metrics", *_HOME]  # `from lib import *`


def __getattr__(name: str):
    """Load a public name from its home module when first asked for (PEP 562)."""
    if name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
    elif name in _MODULES:
        value = import_module(f"lib.{name}")
    else:
        raise AttributeError(f"module 'lib' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_MODULES})
