"""Where a profile keeps its dictionaries, so that one notebook finds what another trained."""

import re
from dataclasses import asdict
from pathlib import Path

from lib.artifacts import spec_hash
from lib.sae.model import SAEConfig

_CHANGES_NOTHING = ("log_every", "checkpoint_every")  # as in the trainer's own spec of an SAE


def sae_folder(root: str | Path, site: str, tokens: str, config: SAEConfig) -> Path:
    """The folder of one dictionary: `root/saes/<site>/<tokens>/<kind>-x<expansion>-k<k>-s<seed>`, with a hash behind.

    The width, as `-w<F>`, takes the expansion's place where the config gives one. The eight digits behind stand for all
    other settings and are left out where these have their defaults: two settings never share a folder, and trying
    another setting replaces no dictionary. The encoder and the training images are `root`'s affair.
    """
    size = f"x{config.expansion:g}" if config.width is None else f"w{config.width}"
    named = SAEConfig(kind=config.kind, expansion=_as_written(config), width=config.width, k=config.k, seed=config.seed)
    usual = asdict(named)
    rest = {
        name: value for name, value in asdict(config).items() if value != usual[name] and name not in _CHANGES_NOTHING
    }
    name = "-".join([config.kind, size, f"k{config.k}", f"s{config.seed}", *([spec_hash(rest)[:8]] if rest else [])])
    return Path(root, "saes", str(site), re.sub(r"\W+", "-", tokens), name)


def _as_written(config: SAEConfig) -> float:
    """The expansion that the folder's name tells: its first six digits, or the default where a width is told."""
    return float(f"{config.expansion:g}") if config.width is None else SAEConfig().expansion
