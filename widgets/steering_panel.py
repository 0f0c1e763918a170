"""The steering panel: choose a picture, set features, and read LLaVA's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import traitlets
from PIL import Image

from lib.devices import to_numpy
from steering.interventions import Intervention
from widgets.llava_scripts import client_source
from widgets.packing import pack, sprite_sheets, unpack
from widgets.steering_kernel import MODES, Answering
from widgets.stored_widget import HERE, StoredWidget, joined

SCRIPTS = (  # one module, with the browser's engine in it
    "packing.js", "elements.js", "address.js", "kernel_line.js",
    "steering_engines.js", "steering_board.js", "steering_parts.js", "steering_panel.js",
)  # fmt: skip
TOP = 4  # most active pictures shown of a feature
THUMBNAIL, QUALITY = 48, 70  # of those, in pixels and WebP's scale
ALPHAS = (-1.0, 0.0, 1.0, 2.0, 4.0)


class SteeringPanel(StoredWidget):
    """Steer a LLaVA: with a kernel, in the reader's browser, or from answers that are stored in the page.

    llava: `lib.Llava`. sae: the dictionary to steer with, at `site` of the image tower. images: pictures to choose
    from, with `labels`. features: dicts with `feature` (its index), `name`, `max` (its largest code on any token) and,
    where known, `mean`, `score`, `note` (one line) and `pictures` (most active first); `steering_features` makes them.
    prompts: suggested prompts, the first one is preselected. peaks: (F,) largest codes of all features, so that any
    of them can be steered by its index.

    alphas: strengths of the stored answers, in units of a feature's maximum; the sliders go from the lowest to the
    highest, and start at `start`, one of them (by default the highest). stored: how many pictures, features and
    prompts, the first of each, have stored answers. mode and keep_error: the panel's initial settings; by default the
    paper's (2504.02821 §4.4): clamp, without the reconstruction error.
    page_files: addresses of the files with which a browser computes answers (`write_page_files`), or None; a browser
    steers only at the site that the language model reads. names: the notebook's variables for `llava`, `sae` and
    `images`, for the code that a reader copies.

    Pictures are stored losslessly at `picture_size` pixels a side. Raises ValueError where arguments do not fit.
    """

    _esm = "\n".join([client_source(), joined(*SCRIPTS)])
    _css = HERE / "steering_panel.css"

    pictures = traitlets.Bytes().tag(sync=True)
    sprites = traitlets.Bytes().tag(sync=True)

    def __init__(
        self,
        llava,
        sae,
        site: str,
        images: Sequence[Image.Image],
        features: Sequence[Mapping],
        prompts: Sequence[str],
        labels: Sequence[str] | None = None,
        peaks: Sequence[float] | None = None,
        alphas: Sequence[float] = ALPHAS,
        start: float | None = None,
        stored: tuple[int, int, int] = (8, 16, 1),
        mode: str = "clamp",
        keep_error: bool = False,
        max_new_tokens: int = 48,
        picture_size: int = 112,
        page_files: Mapping | None = None,
        names: Mapping[str, str] | None = None,
        key: str = "",
    ) -> None:
        super().__init__()
        images, alphas = [image.convert("RGB") for image in images], sorted(float(alpha) for alpha in alphas)
        site = str(llava.vision.site(site))
        start = alphas[-1] if start is None and alphas else start
        _check(sae, images, features, prompts, labels, alphas, start, mode)
        about, edit = _about(llava, sae, site, page_files, names), {"mode": mode, "keep_error": keep_error}
        grid, texts, answers = _stored_answers(
            llava, sae, site, images, features, prompts, alphas, stored, edit, max_new_tokens
        )
        labels = list(labels or [f"picture {i}" for i in range(len(images))])
        answering = {"stored": grid, "texts": texts, "max_new_tokens": max_new_tokens, "prompts": list(prompts)}
        self.meta = (
            {"key": key, "labels": labels, "edit": edit, "alphas": alphas, "start": start}
            | answering
            | about
            | self._packed(answers, peaks, images, features, picture_size)
        )
        self._answering = Answering(llava, sae, site, images, self.send)
        self.on_msg(lambda _widget, message, buffers: self._answering.receive(message, buffers))

    def _packed(self, answers: np.ndarray, peaks: Sequence[float] | None, images, features, picture_size: int) -> dict:
        """Set the binary traits; returns the entries of `meta` that describe them."""
        peaks = np.zeros(0) if peaks is None else to_numpy(peaks)
        arrays, self.numbers = pack({"answers": answers, "peaks": peaks.astype(np.float32)})
        shown, sprites = _with_sprites(features)
        sprite_sheets_, self.sprites = sprite_sheets(sprites, THUMBNAIL, QUALITY)
        picture_sheets, self.pictures = sprite_sheets(images, picture_size, quality=None)
        sheets = {"picture_sheets": picture_sheets, "sprite_sheets": sprite_sheets_}
        return {"arrays": arrays, "features": shown, **sheets}

    def stored_answers(self) -> list[dict]:
        """The answers in the page: prompt, picture, feature and alpha (both None for the unsteered model), text."""
        meta, answers = self.meta, unpack(self.meta["arrays"], self.numbers)["answers"]
        features = [described["feature"] for described in meta["features"][: meta["stored"]["features"]]]
        runs = [(None, None), *((feature, alpha) for feature in features for alpha in meta["alphas"])]
        return [
            {
                "prompt": meta["prompts"][p],
                "picture": i,
                "feature": feature,
                "alpha": alpha,
                "text": meta["texts"][answers[p, i, run]],
            }
            for p in range(answers.shape[0])
            for i in range(answers.shape[1])
            for run, (feature, alpha) in enumerate(runs)
        ]


def steering_features(
    names: Mapping[int, str],
    top_images: np.ndarray,
    images: Sequence[Image.Image],
    peaks: Sequence[float],
    notes: Mapping[int, str] | None = None,
) -> list[dict]:
    """The panel's `features` from {feature: name}, in that order.

    top_images: (F, top) indices in `images`, most active first, -1 for none; peaks: (F,) largest codes on any token.
    """
    return [
        {
            "feature": int(feature),
            "name": name,
            "note": (notes or {}).get(feature, ""),
            "max": float(peaks[feature]),
            "pictures": [images[int(i)] for i in top_images[feature][:TOP] if i >= 0],
        }
        for feature, name in names.items()
    ]


def write_page_files(folder: str | Path, sae, llava_folder: str | Path) -> dict:
    """Write the files with which a browser steers with this SAE into `<profile>/page_files/<name>`, which is served.

    llava_folder: that of the embedded model, which the book serves from `_static/llava`. Returns the panel's
    `page_files`: addresses below the book's `_static`, and the number of bytes that a reader downloads.
    """
    folder = Path(folder)
    sae.save(folder / "sae")
    loaded = [file for place in (folder / "sae", Path(llava_folder)) for file in place.iterdir() if file.is_file()]
    return {
        "llava": "llava/",
        "sae": f"page_files/{folder.name}/sae/",
        "bytes": sum(file.stat().st_size for file in loaded),
    }


def _about(llava, sae, site: str, page_files: Mapping | None, names: Mapping[str, str] | None) -> dict:
    """Entries of `meta` about the model. Raises ValueError for a site that a browser cannot steer."""
    if page_files and site != llava.site:
        raise ValueError(
            f"a browser steers {llava.site}, which the language model reads, and not {site}: leave page_files out."
        )
    return {
        "site": site,
        "grid": list(llava.vision.grid),
        "has_cls": bool(llava.vision.has_cls),
        "n_features": int(sae.n_features),
        "modes": list(MODES),
        "page_files": dict(page_files) if page_files else None,
        "names": {"llava": "llava", "sae": "sae", "images": "images"} | dict(names or {}),
    }


def _check(sae, images, features, prompts, labels, alphas: list[float], start: float, mode: str) -> None:
    for name, values in {"images": images, "features": features, "prompts": prompts, "alphas": alphas}.items():
        if not len(values):
            raise ValueError(f"{name} is empty: the panel needs at least one.")
    for described in features:
        missing = [name for name in ("feature", "name", "max") if name not in described]
        if missing:
            raise ValueError(f"a feature lacks {', '.join(missing)}: give each its number, name and maximum.")
        if not 0 <= described["feature"] < sae.n_features:
            raise ValueError(f"there is no feature {described['feature']}: this SAE has {sae.n_features}.")
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"labels has {len(labels)} entries for {len(images)} pictures: give one for each.")
    if start not in alphas:
        raise ValueError(f"start is {start}: choose one of the strengths {alphas}.")
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}: choose one of {', '.join(MODES)}.")


def strength(described: Mapping, alpha: float, mode: str) -> float:
    """The value of an edit: alpha times the feature's maximum, or, for the mode scale, alpha itself.

    Rounded to four digits, here and in the page, so that copied code reproduces exactly what was run.
    """
    return float(f"{alpha if mode == 'scale' else alpha * described['max']:.4g}")


def _stored_answers(
    llava, sae, site: str, images, features, prompts, alphas, stored, edit: dict, max_new_tokens: int
) -> tuple[dict, list[str], np.ndarray]:
    """Extents of the grid, its different texts, and a text's index for each (prompt, picture, 1 + feature x alpha)."""
    n_images, n_features, n_prompts = stored
    kept = features[:n_features] if n_images and n_prompts else []
    interventions = [
        Intervention(
            sae, site, {f["feature"]: strength(f, alpha, edit["mode"])}, edit["mode"], keep_error=edit["keep_error"]
        )
        for f in kept
        for alpha in alphas
    ]
    answers = [
        llava.answers(images[:n_images], prompt, [None, *interventions], max_new_tokens=max_new_tokens)
        for prompt in (prompts[:n_prompts] if kept else [])
    ]
    texts = sorted({text for per_image in answers for row in per_image for text in row})
    number = {text: i for i, text in enumerate(texts)}
    places = [[[number[text] for text in row] for row in per_image] for per_image in answers]
    grid = {
        "pictures": min(n_images, len(images)) if kept else 0,
        "features": len(kept),
        "prompts": len(answers),
    }
    shape = (grid["prompts"], grid["pictures"], 1 + len(interventions))
    return grid, texts, np.array(places, dtype=np.uint32).reshape(shape)


def _with_sprites(features: Sequence[Mapping]) -> tuple[list[dict], list[Image.Image]]:
    """The features as the page reads them, their pictures given as positions in the list of sprites."""
    sprites, shown = [], []
    for described in features:
        pictures = list(described.get("pictures", []))[:TOP]
        shown.append(
            {
                "feature": int(described["feature"]),
                "name": str(described["name"]),
                "note": str(described.get("note", "")),
                "score": described.get("score"),
                "max": float(described["max"]),
                "mean": described.get("mean"),
                "top": list(range(len(sprites), len(sprites) + len(pictures))),
            }
        )
        sprites += pictures
    return shown, sprites
