"""The suppression panel: choose features to suppress, and see the predictions for every group of pictures."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import traitlets
from PIL import Image

from experiments.disentanglement.protocol import SubsetResults
from lib.devices import to_numpy
from storage.files import quoted
from widgets.kernel_line import KernelLine
from widgets.packing import pack, sprite_sheets, unpack
from widgets.stored_widget import HERE, StoredWidget, joined

SCRIPTS = (  # one module
    "packing.js", "elements.js", "address.js", "kernel_line.js",
    "suppression_data.js", "suppression_parts.js", "suppression_panel.js",
)  # fmt: skip
THUMBNAIL, QUALITY = 96, 72  # of the examples, in pixels and WebP's scale
PER_PICTURE = ("truth", "group")
MOST_STRENGTH = 100  # limit of a page's requests; its sliders end far below

Live = Callable[[int, Mapping[int, float]], "Sequence[int] | tuple[Sequence[int], float]"]


class SuppressionPanel(StoredWidget):
    """Choose a task and a site, tick features, and see group accuracies, the damage elsewhere, and changed predictions.

    results: one for each task and site. pictures: for each result, its examples in order; equal ones are stored once.
    live: function for a kernel, of the index of a result and {feature: strength}, where a code is multiplied by
    (1 - strength) (0: unchanged, 1: suppressed); it returns (N,) predictions, or these and the zero-shot accuracy on
    ordinary pictures. Without a kernel, or without `live`, the page shows the stored predictions of all subsets.
    pictures_of: description of the N pictures for the caption ("1,000 test pictures of each task").

    Features with a true `chosen` are ticked at first. Raises ValueError where arguments do not fit.
    """

    _esm = joined(*SCRIPTS)
    _css = HERE / "suppression_panel.css"

    sprites = traitlets.Bytes().tag(sync=True)

    def __init__(
        self,
        results: Sequence[SubsetResults],
        pictures: Sequence[Sequence[Image.Image]],
        live: Live | None = None,
        pictures_of: str = "",
        key: str = "",
    ) -> None:
        super().__init__()
        _check(results, pictures)
        manifest, self.numbers = pack(_arrays(results))
        pool, places = _pool(pictures)
        layout, self.sprites = sprite_sheets(pool, THUMBNAIL, QUALITY)
        self.meta = {
            "key": key,
            "live": live is not None,
            "pictures_of": pictures_of,
            "arrays": manifest,
            "sprite_sheets": layout,
            "results": [_described(result, shown) for result, shown in zip(results, places, strict=True)],
        }
        self._line = Suppressing(results, live, self.send)
        if live is not None:
            self.on_msg(lambda _widget, message, buffers: self._line.receive(message, buffers))

    def stored_predictions(self, result: int) -> np.ndarray:
        """The predictions of one result that the page stores, (2**m, N) uint8: a row for each subset of m features."""
        arrays = unpack(self.meta["arrays"], self.numbers)
        return (arrays[f"{result}.before"][:, None] ^ arrays[f"{result}.changes"]).T


class Suppressing(KernelLine):
    """Answers one page's strengths: `done` with the predictions, and the accuracy on ordinary pictures where known."""

    def __init__(self, results: Sequence[SubsetResults], live: Live | None, send: Callable[[dict], None]) -> None:
        super().__init__(send)
        self._results, self._live = results, live

    def work(self, message: dict, buffers: Sequence[bytes], stop: threading.Event) -> bool:
        """Run the model once, and send the result unless the request was stopped."""
        number, strengths = self._asked(message)
        answer = self._live(number, strengths)
        predictions, ordinary = answer if isinstance(answer, tuple) else (answer, None)
        predictions = _checked(to_numpy(predictions), self._results[number])
        if stop.is_set():
            return False
        ordinary = None if ordinary is None else float(ordinary)
        reply = {"predictions": predictions.tolist(), "ordinary": ordinary}
        self.send({"kind": "done", "request": message["request"]} | reply)
        return True

    def _asked(self, message: dict) -> tuple[int, dict[int, float]]:
        """Index of the result, and the strengths, in a page's request. Raises ValueError for unknown or too many."""
        number = message["result"]
        if type(number) is not int or not 0 <= number < len(self._results):
            raise ValueError(f"The panel has results 0 to {len(self._results) - 1}, and no {quoted(number)}.")
        known = {int(feature["id"]) for feature in self._results[number].features}
        if len(message["strengths"]) > len(known):
            raise ValueError(f"The panel takes strengths of {len(known)} features, not of {len(message['strengths'])}.")
        strengths = {int(feature): float(strength) for feature, strength in message["strengths"]}
        if unknown := strengths.keys() - known:
            raise ValueError(f"The panel has no feature {quoted(min(unknown))} to suppress there.")
        if not all(abs(strength) <= MOST_STRENGTH for strength in strengths.values()):  # of NaN neither
            raise ValueError(f"The panel suppresses by strengths of -{MOST_STRENGTH} to {MOST_STRENGTH}.")
        return number, strengths


def _checked(predictions: np.ndarray, result: SubsetResults) -> np.ndarray:
    """The predictions (N,) that `live` returned. Raises ValueError for another shape or unknown classes."""
    if predictions.shape != result.truth.shape:
        raise ValueError(f"live returned {predictions.shape}: give one prediction for each of {len(result.truth)}.")
    if predictions.min() < 0 or predictions.max() >= len(result.classes):
        raise ValueError(f"live returned class {predictions.max()}: there are {len(result.classes)} classes.")
    return predictions


def _check(results: Sequence[SubsetResults], pictures: Sequence[Sequence]) -> None:
    if not len(results):
        raise ValueError("results is empty: the panel needs at least one task and layer.")
    if len(pictures) != len(results):
        raise ValueError(f"pictures has {len(pictures)} entries for {len(results)} results: give one list for each.")
    for result, shown in zip(results, pictures, strict=True):
        where = f"{result.task}, {result.site}"
        if len(shown) != len(result.examples):
            raise ValueError(
                f"{where} shows {len(result.examples)} examples: {len(shown)} pictures are given for them."
            )
    if len({(result.task, result.site) for result in results}) < len(results):
        raise ValueError("a task and layer are there twice: give each its own name.")


def _arrays(results: Sequence[SubsetResults]) -> dict[str, np.ndarray]:
    """The page's arrays. Predictions are stored picture by picture, as differences from the unedited model.

    Most predictions are the same for most suppressed subsets: runs of zeros, which compress well.
    """
    arrays = {}
    for number, result in enumerate(results):
        before = result.predictions[0]  # (N,)
        arrays[f"{number}.before"] = before
        arrays[f"{number}.changes"] = result.predictions.T ^ before[:, None]  # (N, 2**m)
        arrays[f"{number}.ordinary"] = result.ordinary.astype(np.float32)
        arrays |= {f"{number}.{name}": getattr(result, name) for name in PER_PICTURE}
    return arrays


def _pool(pictures: Sequence[Sequence[Image.Image]]) -> tuple[list[Image.Image], list[list[int]]]:
    """The different pictures, and the positions of each result's examples among them."""
    pool, known, places = [], {}, []
    for shown in pictures:
        places.append([])
        for picture in shown:
            content = (picture.size, picture.convert("RGB").tobytes())
            if content not in known:
                known[content] = len(pool)
                pool.append(picture)
            places[-1].append(known[content])
    return pool, places


def _described(result: SubsetResults, places: list[int]) -> dict:
    """A result as the page reads it, without its arrays."""
    features = [
        {
            "id": int(feature["id"]),
            "name": str(feature["name"]),
            "note": str(feature.get("note", "")),
            "chosen": bool(feature.get("chosen", False)),
        }
        for feature in result.features
    ]
    return {
        "task": result.task,
        "site": result.site,
        "features": features,
        "classes": list(result.classes),
        "groups": list(result.groups),
        "examples": result.examples,
        "sprites": places,
        "ordinary_count": result.ordinary_count,
    }
