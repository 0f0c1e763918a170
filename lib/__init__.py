"""Sparse autoencoders inside vision transformers: what a researcher imports.

`import lib` is light (torch only). The public names below load their module when first used; open_clip, transformers
and scikit-learn load when a function first needs them.
"""

import sys
from importlib import import_module
from importlib.abc import MetaPathFinder

from lib.registry import registered
from lib.torchvision_schemas import declare_missing_schemas

declare_missing_schemas()

__version__ = "0.1.0"

_HOME = {  # public name -> the module that defines it
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
    "PairedActivations": "lib.sae.training_data",
    "FeatureTable": "lib.features.table",
    "load_sae": "lib.hub",
    "push_sae": "lib.hub",
}
_PACKAGES = ("activations", "distributed", "encoders", "features", "hub", "images", "metrics", "sae")
_MOVED = {  # names of earlier versions -> where they are now
    "Menagerie": "from menagerie import Menagerie",
    "FeatureExplorer": "from widgets import FeatureExplorer",
    "SteeringPanel": "from widgets import SteeringPanel",
    "SuppressionPanel": "from widgets import SuppressionPanel",
    "plots": "from experiments import plots",
    "menagerie": "import menagerie",
    "widgets": "import widgets",
    "artifacts": "import storage",
    "data": "from lib import load_images, ImageSet",
    "models": "from lib import load_encoder, from_module, Encoder, Site",
    "training": "from lib import train_sae",
    "llava": "from lib import load_llava, Llava",
    "steering": "import steering",
    "hub.export_saelens": "from peers import export_saelens",
}
_CHAPTERS = {  # metrics of single chapters, earlier in lib.metrics
    "experiments": "ground_truth hierarchy outliers steering_scores trends",
    "experiments.disentanglement.group_accuracy": "GroupAccuracy accuracy_change group_accuracy proportion "
    "worst_group_change",
    "experiments.hierarchy": "Level Parents by_level clades lca_depth majority_depth parents",
    "experiments.published_fidelity": "PublishedReconstruction published_recovered",
    "experiments.steerability": "Steerability concept_probabilities coverage expected_coverage steerability",
    "experiments.steering_scores": "Rates crossed_mean feature_embeddings mean_difference name_bounds rates "
    "steering_score",
    "experiments.token_suite": "centre_minus_border",
    "experiments.trends": "Trend trend_test",
}
_MOVED |= {f"metrics.{n}": f"from {home} import {n}" for home, names in _CHAPTERS.items() for n in names.split()}


def __getattr__(name: str):
    """Load a public name from its module on first access (PEP 562)."""
    if name == "__all__":  # of `from lib import *`
        return ["metrics", *_HOME, *registered("names")]
    if name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
    elif name in _PACKAGES:
        value = import_module(f"lib.{name}")
    elif name in registered("names"):
        value = registered("names")[name].load()
    else:
        raise missing("lib", name)
    globals()[name] = value
    return value


def missing(module: str, name: str) -> AttributeError:
    """AttributeError for a name that `module` lacks; for a name that has moved, it says where to."""
    path = f"{module}.{name}".removeprefix("lib.")
    if path in _MOVED:
        return AttributeError(f"lib.{path} has moved: write `{_MOVED[path]}`")
    hint = (
        "" if registered("names") else "; is monosemantic-vision installed, so that its packages register their names?"
    )
    return AttributeError(f"module {module!r} has no attribute {name!r}{hint}")


class _MovedModules(MetaPathFinder):
    """Says where a module of an earlier version is now; asked last, for modules that no other finder knows."""

    def find_spec(self, fullname: str, path=None, target=None) -> None:
        if fullname.startswith("lib.") and (where := _MOVED.get(fullname.removeprefix("lib."))):
            raise ModuleNotFoundError(f"{fullname} has moved: write `{where}`", name=fullname)


sys.meta_path.append(_MovedModules())


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_PACKAGES, *registered("names")})
