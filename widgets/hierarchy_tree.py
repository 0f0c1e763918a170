"""The hierarchy tree: levels of a Matryoshka SAE, each feature below the coarser feature that it is active with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import traitlets

from experiments.hierarchy import Parents
from lib.devices import to_numpy
from widgets.packing import MAX_PICTURES, NONE, class_numbers, pack, picture_pool, sprite_sheets
from widgets.stored_widget import HERE, StoredWidget, joined

SCRIPTS = ("packing.js", "elements.js", "hierarchy_layout.js", "hierarchy_tree.js")  # one module
PICTURES = 12  # most active pictures shown of a feature
QUALITY = 62  # of the sprites


class HierarchyTree(StoredWidget):
    """Browse an SAE from its coarsest features to its finest; needs no kernel once displayed.

    top_images: (F, top) indices in `images`, most active first, -1 for none; a feature without any is dead and left
    out of the tree. parents: each feature's parent (`experiments.hierarchy.parents`). group_ends: where the levels end.
    measures: per name (F,) numbers, NaN where undefined; the first one colours the tree. names: (F,) names of the
    features, "" for none.

    The page stores at most `max_pictures` different pictures of `thumbnail` pixels, each once: the first picture of
    every feature, then the second and so on. Raises ValueError where lengths, levels or limits do not fit.
    """

    _esm = joined(*SCRIPTS)
    _css = HERE / "hierarchy_tree.css"

    sheets = traitlets.Bytes().tag(sync=True)

    def __init__(
        self,
        top_images,
        parents: Parents,
        group_ends: Sequence[int],
        images,
        measures: Mapping[str, Sequence[float]],
        names: Sequence[str],
        max_pictures: int = 1200,
        thumbnail: int = 72,
    ) -> None:
        super().__init__()
        top = to_numpy(top_images)[:, :PICTURES]
        ends = [0, *map(int, group_ends)]
        _check(top, ends, {"parents": parents.feature, "names": names} | dict(measures), measures, max_pictures)
        pool = picture_pool(top, max_pictures)
        position = np.full(int(top.max(initial=0)) + 2, NONE, dtype=np.uint16)  # the last stands for "no image" (-1)
        position[pool] = np.arange(len(pool))
        vocabulary, name = np.unique(np.asarray(names, dtype=str), return_inverse=True)
        shown = {"name": name.astype(np.uint32), "top": position[top]}
        shown |= {"pool": pool.astype(np.uint32), "pool_class": class_numbers(images, pool)}
        manifest, self.numbers = pack(_arrays(top, parents, measures) | shown)
        layout, self.sheets = sprite_sheets((images[int(i)] for i in pool), thumbnail, QUALITY)
        self.meta = {
            "arrays": manifest,
            "sheets": layout,
            "levels": [{"start": start, "end": end} for start, end in pairwise(ends)],
            "measures": list(measures),
            "vocabulary": vocabulary.tolist(),
            "classes": list(images.class_names or []),
            "images": {"spec": images.spec, "count": len(images)},
        }


def _arrays(top: np.ndarray, parents: Parents, measures: Mapping[str, Sequence[float]]) -> dict[str, np.ndarray]:
    """Arrays (F, ...) from which the tree is drawn."""
    return {
        "alive": (top[:, 0] >= 0).astype(np.uint8),
        "parent": (to_numpy(parents.feature) + 1).astype(np.uint32),  # 0: none
        "conditional": to_numpy(parents.conditional).astype(np.float32),
        "lift": to_numpy(parents.lift).astype(np.float32),
        "measures": np.stack([to_numpy(values).astype(np.float32) for values in measures.values()], axis=1),
    }


def _check(top: np.ndarray, ends: list[int], per_feature: Mapping, measures: Mapping, max_pictures: int) -> None:
    if ends[-1] != len(top) or any(b <= a for a, b in pairwise(ends)):
        raise ValueError(f"levels must end at rising widths up to F = {len(top)}, got {tuple(ends[1:])}")
    for name, values in per_feature.items():
        if len(values) != len(top):
            raise ValueError(f"{name} has {len(values)} entries for {len(top)} features: give one for each")
    if not measures:
        raise ValueError("the tree needs at least one measure to colour it by")
    if not 0 < max_pictures <= MAX_PICTURES:
        raise ValueError(f"max_pictures is {max_pictures}: choose 1 to {MAX_PICTURES}")
