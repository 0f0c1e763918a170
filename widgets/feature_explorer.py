"""The feature explorer: search, sort and inspect the features of one SAE on one image set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import traitlets

from lib.devices import to_numpy
from widgets.packing import MAX_PICTURES, NONE, class_numbers, pack, picture_pool, quantise, sprite_sheets
from widgets.stored_widget import HERE, StoredWidget, joined

SCRIPTS = (  # one module
    "packing.js", "elements.js", "address.js", "explorer_data.js", "explorer_parts.js", "feature_explorer.js",
)  # fmt: skip
PICTURES = 12  # most active pictures shown of a feature
BINS = 20  # bars of an activation histogram
PER_BIN = 4  # example pictures stored for a bar
QUANTILES = (0.25, 0.5, 0.75, 0.95)
VALUE_LEVELS = 65_536  # activations are stored as fractions of the feature's maximum
MAP_LEVELS = 64  # patch maps are stored as fractions of the feature's largest patch; the eye sees fewer shades
TINY = np.finfo(np.float32).tiny  # divisor in place of zero
QUALITY = 62  # WebP quality of the sprites in the page; pictures that a kernel sends are less compressed
LIVE_QUALITY = 85


class FeatureExplorer(StoredWidget):
    """Browse the features of an SAE; needs no kernel once displayed, and loads more details from one if there is one.

    table: `lib.FeatureTable` of F features over N images. images: the N images it was made of. sae: its SAE.
    scores: (F,) one number a feature, higher is better, NaN where undefined. names: per feature its `(name, score)`
    candidates, best first. facts: per feature one line about it, or None.

    The page stores numbers for all F features, details for the `max_features` best, and at most `max_pictures`
    different pictures of `thumbnail` pixels, each stored once. The view is kept in the page's address, under `key`
    where a page shows several explorers (those of one key are numbered). Raises ValueError where table, images, SAE
    and values per feature do not belong together.
    """

    _esm = joined(*SCRIPTS)
    _css = HERE / "feature_explorer.css"

    sheets = traitlets.Bytes().tag(sync=True)

    def __init__(
        self,
        table,
        images,
        sae,
        scores: Sequence[float] | None = None,
        names: Sequence[Sequence[tuple[str, float]]] | None = None,
        facts: Sequence[str | None] | None = None,
        max_features: int = 2048,
        max_pictures: int = 1500,
        thumbnail: int = 80,
        score_name: str = "score",
        key: str = "",
    ) -> None:
        super().__init__()
        _check(table, images, sae, {"scores": scores, "names": names, "facts": facts}, max_pictures)
        self._table, self._images, self._thumbnail = table, images, thumbnail
        scores = None if scores is None else to_numpy(scores).astype(np.float32)
        chosen = _best(table, scores, max_features)
        pool = picture_pool(to_numpy(table.top_images)[chosen, :PICTURES], max_pictures)
        vocabulary, name_arrays = _name_arrays(names)
        manifest, self.numbers = pack(_columns(table, sae, scores) | name_arrays | self._details(chosen, pool))
        layout, self.sheets = sprite_sheets((images[int(i)] for i in pool), thumbnail, QUALITY)
        self.meta = {
            "key": key,
            "arrays": manifest,
            "sheets": layout,
            "classes": list(images.class_names or []),
            "vocabulary": vocabulary,
            "facts": list(facts) if facts is not None else [],
            "score_name": score_name if scores is not None else "",
            "quantiles": list(QUANTILES),
            "images": {"spec": images.spec, "count": len(images)},
            "site": str(table.site),
        }
        self.on_msg(self._answer)

    def _details(self, features: np.ndarray, pool: np.ndarray) -> dict[str, np.ndarray]:
        """Arrays of the details of n features, their pictures given as positions in `pool` (p,)."""
        table = self._table
        position = np.full(len(self._images) + 1, NONE, dtype=np.uint16)  # the last one stands for "no image" (-1)
        position[pool] = np.arange(len(pool))
        peak = np.maximum(to_numpy(table.max)[features], TINY)
        maps = to_numpy(table.patch_maps)[features, :PICTURES].astype(np.float32)  # (n, PICTURES, h, w)
        map_peak = maps.max(axis=(1, 2, 3), initial=0)
        return {
            "features": features.astype(np.uint32),
            "pool": pool.astype(np.uint32),
            "pool_class": class_numbers(self._images, pool),
            "top": position[to_numpy(table.top_images)[features, :PICTURES]],
            "top_value": quantise(to_numpy(table.top_values)[features, :PICTURES] / peak[:, None], VALUE_LEVELS),
            "maps": quantise(maps / np.maximum(map_peak, TINY)[:, None, None, None], MAP_LEVELS),
            "map_peak": map_peak.astype(np.float32),
            **self._histograms(features, peak, position),
        }

    def _histograms(self, features: np.ndarray, peak: np.ndarray, position: np.ndarray) -> dict[str, np.ndarray]:
        """Counts (n, BINS) of codes from 0 to `peak` (n,); example pictures of each bin; quantiles of the codes.

        position: (N + 1,) positions of the images in the pool, or NONE.
        """
        counts = np.zeros((len(features), BINS), dtype=np.uint32)
        examples = np.full((len(features), BINS, PER_BIN), NONE, dtype=np.uint16)
        fractions = np.zeros(examples.shape, dtype=np.float32)
        quantiles = np.zeros((len(features), len(QUANTILES)), dtype=np.float32)
        for e, feature in enumerate(features):
            images, codes = (to_numpy(part) for part in self._table.activations(int(feature)))  # weakest first
            share = codes / peak[e]
            counts[e], edges = (to_numpy(part) for part in self._table.histogram(int(feature), BINS))
            bins = np.searchsorted(edges[1:-1], codes, side="right")
            quantiles[e] = np.quantile(codes, QUANTILES)
            stored = np.flatnonzero(position[images] != NONE)
            for b in np.unique(bins[stored]):
                here = _spread(stored[bins[stored] == b], PER_BIN)
                examples[e, b, : len(here)], fractions[e, b, : len(here)] = position[images[here]], share[here]
        example_value = quantise(fractions, VALUE_LEVELS)
        return {"counts": counts, "examples": examples, "example_value": example_value, "quantiles": quantiles}

    def _answer(self, _widget, message: dict, _buffers) -> None:
        """Answer a message of the page: `ping` checks for a kernel, `feature` requests all details of one feature."""
        if message.get("kind") == "ping":
            self.send({"kind": "pong"})
        elif message.get("kind") == "feature":
            self.send(*self._all_about(int(message["feature"])))

    def _all_about(self, feature: int) -> tuple[dict, list[bytes]]:
        features = np.array([feature])
        pool = picture_pool(to_numpy(self._table.top_images)[features, :PICTURES], MAX_PICTURES)
        images, _ = self._table.activations(feature)
        pool = np.union1d(pool, _spread(to_numpy(images), BINS * PER_BIN))
        manifest, numbers = pack(self._details(features, pool))
        layout, sheets = sprite_sheets((self._images[int(i)] for i in pool), 2 * self._thumbnail, LIVE_QUALITY)
        reply = {"kind": "feature", "feature": feature, "arrays": manifest, "sheets": layout}
        return reply, [numbers, sheets]


def _check(table, images, sae, per_feature: dict[str, Sequence | None], max_pictures: int) -> None:
    n_images, n_features = table.codes.shape
    if len(images) != n_images:
        raise ValueError(f"the table covers {n_images} images, but {len(images)} were given: pass the table's images")
    if table.images_spec != images.spec:
        raise ValueError(f"the table was made from images {table.images_spec!r}, not from {images.spec!r}")
    if sae.n_features != n_features:
        raise ValueError(f"the table has {n_features} features, the SAE {sae.n_features}: pass the table's SAE")
    for name, values in per_feature.items():
        if values is not None and len(values) != n_features:
            raise ValueError(f"{name} has {len(values)} entries for {n_features} features: give one for each")
    if not 0 < max_pictures <= MAX_PICTURES:
        raise ValueError(f"max_pictures is {max_pictures}: choose 1 to {MAX_PICTURES}")


def _best(table, scores: np.ndarray | None, count: int) -> np.ndarray:
    """Indices of the alive features, at most `count`, best score (else highest activation) first."""
    merit = to_numpy(table.max) if scores is None else scores
    alive = np.flatnonzero(to_numpy(table.alive))
    merit = np.nan_to_num(merit[alive], nan=-np.inf)
    return alive[np.argsort(-merit, kind="stable")][:count]


def _spread(items: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the items, evenly from first to last."""
    return items[np.linspace(0, len(items) - 1, min(count, len(items))).astype(int)]


def _columns(table, sae, scores: np.ndarray | None) -> dict[str, np.ndarray]:
    """Arrays (F, ...) that the list of features shows."""
    neighbours, cosine = (to_numpy(part) for part in table.neighbours(sae))
    columns = {
        "alive": to_numpy(table.alive).astype(np.uint8),
        "frequency": to_numpy(table.frequency).astype(np.float32),
        "max": to_numpy(table.max).astype(np.float32),
        "mean": to_numpy(table.mean_active).astype(np.float32),
        "neighbours": neighbours.astype(np.uint32),
        "cosine": cosine.astype(np.float32),
    }
    return columns if scores is None else columns | {"score": scores}


def _name_arrays(names) -> tuple[list[str], dict[str, np.ndarray]]:
    """Vocabulary, and per feature its candidates as positions in it (F, c) with their scores; c is the longest list."""
    if names is None:
        return [], {}
    vocabulary = sorted({name for candidates in names for name, _ in candidates})
    number = {name: i for i, name in enumerate(vocabulary)}
    width = max((len(candidates) for candidates in names), default=0)
    index = np.full((len(names), width), NONE, dtype=np.uint16)
    score = np.zeros((len(names), width), dtype=np.float32)
    for feature, candidates in enumerate(names):
        for rank, (name, value) in enumerate(candidates):
            index[feature, rank], score[feature, rank] = number[name], value
    return vocabulary, {"name": index, "name_score": score}
