"""Kernel side of the steering panel: streams the answers to a page's requests."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence

import torch
from PIL import Image

from steering.interventions import Intervention
from widgets.kernel_line import KernelLine

MODES = ("clamp", "add", "scale")
MOST_SIDE, MOST_LETTERS, MOST_TOKENS, MOST_RUNS = 2048, 4000, 1024, 64
"""Limits of a request: pixels of a picture's side, letters of a prompt, tokens of an answer, runs of a request."""


class Answering(KernelLine):
    """Streams a LLaVA's answers to one page: for each run of a request `text` (a piece of the answer), then `done`."""

    def __init__(self, llava, sae, site: str, images: Sequence[Image.Image], send: Callable[[dict], None]) -> None:
        super().__init__(send)
        self._llava, self._sae, self._site, self._images = llava, sae, site, images

    def work(self, message: dict, buffers: Sequence[bytes], stop: threading.Event) -> bool:
        """Stream the runs of one request in order; returns False where it was stopped. ValueError for bad requests."""
        picture = self._picture(message["picture"], buffers)
        prompt = message["prompt"].strip()
        if not prompt:
            raise ValueError("The prompt is empty: type a question about the picture.")
        tokens, runs = int(message["max_new_tokens"]), len(message["edits"])
        asked = {"tokens": (tokens, MOST_TOKENS), "letters": (len(prompt), MOST_LETTERS), "runs": (runs, MOST_RUNS)}
        for what, (number, most) in asked.items():
            if not 1 <= number <= most:
                raise ValueError(f"The panel answers requests of 1 to {most:,} {what}, not {number:,}.")
        options = {"max_new_tokens": tokens, "stop": stop.is_set}
        for run, edit in enumerate(message["edits"]):
            for piece in self._llava.stream(picture, prompt, self._intervention(edit), **options):
                if stop.is_set():
                    break
                self.send({"kind": "text", "request": message["request"], "run": run, "text": piece})
            if stop.is_set():
                return False
            self.send({"kind": "done", "request": message["request"], "run": run})
        return True

    def _picture(self, place: int | None, buffers: Sequence[bytes]) -> Image.Image:
        """One of the panel's pictures by its position, or (None) the reader's own: RGBA bytes of a square."""
        if place is not None:
            if not 0 <= int(place) < len(self._images):
                raise ValueError(f"The panel has pictures 0 to {len(self._images) - 1}, and no {place}.")
            return self._images[int(place)]
        side = math.isqrt(len(buffers[0]) // 4) if buffers else 0
        if side == 0 or side * side * 4 != len(buffers[0]):
            raise ValueError("The picture that the page sent is not a square: choose or draw it again.")
        if side > MOST_SIDE:
            raise ValueError(f"The picture is {side:,} pixels wide: choose one of at most {MOST_SIDE:,}.")
        return Image.frombytes("RGBA", (side, side), bytes(buffers[0])).convert("RGB")

    def _intervention(self, edit: dict | None) -> Intervention | None:
        """The intervention of a page's edit; None for the unsteered model."""
        if edit is None:
            return None
        values = {int(feature): float(value) for feature, value in edit["features"]}
        if edit["mode"] not in MODES:
            raise ValueError(f"The panel cannot {edit['mode']!r} a feature: choose one of {', '.join(MODES)}.")
        tokens = edit["tokens"] if isinstance(edit["tokens"], str) else torch.tensor(edit["tokens"], dtype=torch.bool)
        return Intervention(self._sae, self._site, values, edit["mode"], tokens, keep_error=bool(edit["keep_error"]))
