"""The profiles of the book in small: every chapter and every parameter, other sizes.

A profile's file is rewritten key by key, so that a parameter added to it later is exercised too, at the size it has
there unless `SMALLER` knows a smaller one.
"""

from pathlib import Path

import yaml

SMALLER: dict[str, object] = {
    "alive_tokens": 200,
    "batch_size": 64,
    "expansion": 4,
    "expansions": [1, 4, 8],
    "few": [50, 100],
    "features_on_pictures": 2,
    "k": 4,
    "levels": [1, 2, 4, 8, 32],
    "max_pictures": 40,
    "min_support": 2,
    "n_bootstrap": 20,
    "n_candidates": 8,
    "n_close": 8,
    "n_concepts": 3,
    "n_elsewhere": 2,
    "n_facts": 4,
    "n_features": 8,
    "n_per_level": 1,
    "n_permutations": 99,
    "n_pictures": 4,
    "n_selection": 3,
    "n_selection_concepts": 2,
    "n_spliced": 20,
    "named_on": 40,
    "open_tokens": 8,
    "ordinary_sizes": [12, 12],
    "panel_features": 3,
    "panel_pictures": 12,
    "seeds": [0, 1, 2],
    "sizes": [24, 12, 24],
    "steer_pictures": 2,
    "steps": 6,
    "sweep": [1, 6],
}
"""Parameter -> its value in the small profile; of the others the profile's own value stays."""

INSTEAD = {
    "open_clip:ViT-B-32/datacomp_xl_s13b_b90k": "open_clip:hf-hub:laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K",
    "open_clip:ViT-B-32/openai": "open_clip:hf-hub:timm/vit_base_patch32_clip_224.openai",
    "wordfreq:5000": "wordfreq:200",
}
"""Value -> what stands for it. A tag of open_clip fixes the size of the model; its repository tells the size itself."""


MOST_SITES = 5  # of more, every third layer is kept
MOST_NUMBERS = 2  # of a longer list of numbers, such as strengths, the first and the last are kept


def make_small(file: Path) -> None:
    """Rewrite a profile in place; its keys, chapters and the names of its parameters stay as they are."""
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    content["shared"] = _smaller(content.get("shared") or {})
    for entry in content["notebooks"].values():
        if entry and "parameters" in entry:
            entry["parameters"] = _smaller(entry["parameters"])
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def _smaller(parameters: dict) -> dict:
    small = {name: SMALLER.get(name, _replaced(value)) for name, value in parameters.items()}
    if len(small.get("sites", [])) > MOST_SITES:
        small["sites"] = [site for site in small["sites"] if int(site.split(".")[0]) % 3 == 2]
    return small


def _replaced(value: object) -> object:
    if isinstance(value, list):
        long = len(value) > MOST_NUMBERS and not any(isinstance(each, str) for each in value)
        kept = [value[0], value[-1]] if long else value
        return [_replaced(each) for each in kept]
    return INSTEAD.get(value, value) if isinstance(value, str) else value
