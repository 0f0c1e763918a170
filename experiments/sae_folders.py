"""Folders of a profile's dictionaries, so that one notebook finds what another trained."""

import re
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from lib.sae.model import SAE, SAEConfig
from lib.sae.training import train_sae
from lib.sae.training_data import Activations
from storage import spec_hash

_OF_A_PASS = ("batch_size", "data_seed", "data_order")  # equal for SAEs that are trained in one pass over the data
_CHANGES_NOTHING = ("log_every", "checkpoint_every")  # as in the trainer's own spec of an SAE


def sae_folder(root: str | Path, site: str, tokens: str, config: SAEConfig) -> Path:
    """The folder of one dictionary: `root/saes/<site>/<tokens>/<kind>-x<expansion>-k<k>-s<seed>`, and a hash.

    `w<F>` replaces `x<expansion>` where the config has a width. The hash, eight digits, covers all other settings and
    is left out where they have their defaults, so two settings never share a folder. Encoder and training images are
    not in the path: use one root for each.
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
    """The expansion as the folder's name has it, in six digits; the default where the config has a width."""
    return float(f"{config.expansion:g}") if config.width is None else SAEConfig().expansion


@dataclass(frozen=True)
class SAEStore:
    """The dictionaries of a profile, in `root`, that read these tokens at this site."""

    root: Path
    site: str
    tokens: str

    def folder(self, config: SAEConfig) -> Path:
        return sae_folder(self.root, self.site, self.tokens, config)

    def trained(
        self, store: Activations, configs: Mapping[Hashable, SAEConfig], progress: bool = True
    ) -> dict[Hashable, SAE]:
        """An SAE for each config, by name, trained or loaded; configs with the same data order share one pass."""
        passes: dict[tuple, dict[Hashable, SAEConfig]] = {}
        for name, config in configs.items():
            order = tuple(getattr(config, setting) for setting in _OF_A_PASS)
            passes.setdefault(order, {})[name] = config
        found: dict[Hashable, SAE] = {}
        for some in passes.values():
            folders = [self.folder(config) for config in some.values()]
            found |= zip(some, train_sae(store, list(some.values()), out=folders, progress=progress), strict=True)
        return {name: found[name] for name in configs}
