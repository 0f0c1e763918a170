"""Every notebook on pictures that are not the Menagerie's, with a small encoder of each layout of tokens."""

import re

import numpy as np
import pytest
from PIL import Image

from tests.notebook_cells import CellError, Shown, parameters, run_cells
from tests.small_hugging_face import hugging_face_folder
from tests.small_models import open_clip_folder

LAYOUTS = ("CLS and texts", "no CLS", "registers", "images only")
HAVE_TEXTS = LAYOUTS[:2]
TEXTS = {"09_steerability"}  # concepts are words there
SLOW = {"A4_choices"}  # dozens of dictionaries
SITES = ["0.resid_post", "2.resid_post"]
SAE = {"expansion": 1, "k": 4, "steps": 3, "batch_size": 16}
SEVERAL = {"expansions": [1, 2], "k": 4, "steps": 3, "batch_size": 16}

CHAPTERS = {
    "02_activations": {"n_close": 6, "sites": SITES, "n_maps": 2},
    "03_train_saes": {"sites": SITES, "sweep": [2], **SEVERAL},
    "04_monosemanticity": {
        "sites": SITES, "sweep": [2], "shown_expansion": 2, "seeds": [1], "n_bootstrap": 10, "min_support": 2,
        "n_shown": 1, **SEVERAL,
    },
    "04a_uniqueness": {"site": SITES[1], "expansion": 2, "n_bootstrap": 10, "n_top": 4, **SEVERAL},
    "04c_stability": {"site": SITES[1], "seeds": [0, 1], "n_bootstrap": 10, "min_support": 2, "min_pictures": 4, **SAE},
    "05_features": {"site": SITES[1], "vocabulary": "VOCABULARY", "min_support": 2, "max_pictures": 20, **SAE},
    "08_sparsity": {"sites": SITES, "alive_tokens": 50, "n_bootstrap": 10, **SAE},
    "09_steerability": {
        "sites": SITES, "patch_site": SITES[0], "vocabulary": "VOCABULARY", "n_pictures": 2, "strengths": [20, 150],
        "n_features": 8, "n_elsewhere": 4, "own_multiples": [1], "n_steered_patches": [1, 4], "min_support": 2,
        "n_bootstrap": 10, **SAE,
    },
    "11_variants": {
        "site": SITES[1], "seeds": [0, 1, 2], "relu_prices": [0.1, 0.3], "min_pictures": 4, "n_spliced": 12,
        "archetypes": 24, "kinds": ["relu", "topk", "vsae", "archetypal"], **SAE,
    },
    "12_probing": {
        "sites": SITES, "n_facts": 3, "min_support": 4, "sparse": [1, 5], "few": [10], "shifts": [], "label": "class",
        "ordinary": "", "held_out": 3, "ood": [], "topk_layers": [], "n_bootstrap": 10, **SAE,
    },
    "13_metrics": {
        "site": SITES[0], "elsewhere": "", "expansions": [0.5], "ks": [4], "steps": [2, 5], "batch_size": 64,
        "planted": [1.0], "min_support": 2, "n_spliced": 8, "n_steered": 2, "steered_pictures": 2, "n_bootstrap": 5,
    },
    "A4_choices": {"site": SITES[1], "k_values": [2, 4], "sweep_expansions": [1, 2], **SAE | {"steps": 10}},
}  # fmt: skip
"""The chapters that any pictures can fill, with parameters as small as they get."""


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> dict[str, str]:
    """By parameter or layout: what it is called in a notebook's parameters."""
    folder = tmp_path_factory.mktemp("layouts")
    made = {
        "CLS and texts": f"open_clip:{open_clip_folder(folder / 'clip')}",
        "no CLS": f"hf:{hugging_face_folder(folder / 'siglip', 'siglip')}",
        "registers": f"hf:{hugging_face_folder(folder / 'dino', 'dinov2 registers')}",
        "images only": f"hf:{hugging_face_folder(folder / 'vit', 'vit')}",
    }
    for split, count in {"train": 24, "val": 16}.items():
        made[split] = f"folder:{photographs(folder / split, count)}"
    (folder / "words.txt").write_text("fox\nowl\nred fox\n", encoding="utf-8")
    return made | {"VOCABULARY": str(folder / "words.txt"), "root": str(folder / "build")}


def photographs(folder, count: int):
    """`count` pictures of noise of each of three classes, which differ in colour and in the frequency of a grating.

    A file that is none lies beside them.
    """
    for number, name in enumerate(("fox", "barn owl", "newt")):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            rng = np.random.default_rng([number, i, count])
            wave = np.sin(np.arange(48) * (number + 1) / 3 + rng.uniform(0, 6))[:, None, None]
            pixels = 128 + 60 * wave * np.eye(3)[number] + rng.normal(0, 30, (48, 40, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / f"{i}.png")
    (folder / "notes.md").write_text("Photographs of noise.", encoding="utf-8")
    return folder


def run(chapter: str, layout: str, small: dict[str, str]) -> list[Shown]:
    places = {"train_images": "train", "token_images": "train", "images": "val", "eval_images": "val"}
    given = {name: small[place] for name, place in places.items() if name in parameters(chapter)}
    given |= {name: small.get(str(value), value) for name, value in CHAPTERS[chapter].items()}
    if layout == "no CLS" and parameters(chapter).get("tokens") == "cls":
        given["tokens"] = "mean"
    root = f"{small['root']}/{layout.replace(' ', '-')}"
    return run_cells(chapter, encoder=small[layout], profile_dir=root, **given)


def once() -> list[tuple[str, str]]:
    """Every chapter on one layout, one chapter on every layout, and names where no texts are read: what `make test` has
    time for."""
    spread = [(c, LAYOUTS[i % len(LAYOUTS)]) for i, c in enumerate(CHAPTERS) if c not in TEXTS | SLOW]
    return [*spread, *(("02_activations", layout) for layout in LAYOUTS), ("05_features", "images only")]


def cases() -> list:
    """All pairs; those that `once` leaves out are long."""
    pairs = [(c, layout) for c in CHAPTERS for layout in LAYOUTS if c not in TEXTS or layout in HAVE_TEXTS]
    kept = [*once(), *((chapter, "no CLS") for chapter in TEXTS)]
    return [pytest.param(*pair, marks=[] if pair in kept else pytest.mark.long) for pair in pairs]


@pytest.mark.parametrize(("chapter", "layout"), cases())
def test_runs_and_shows_no_empty_figure_and_no_nan_and_says_what_it_left_out(chapter, layout, small):
    results = run(chapter, layout, small)
    left_out = [shown.text for shown in results if "not read as pictures" in shown.text]
    assert left_out
    assert "/" not in "".join(left_out)
    for shown in results:
        assert not re.search(r"\bnan\b|\bNaN\b|\bNone\b|\bNaT\b", shown.text), f"{shown.cell}: {shown.text[:3000]}"
        assert "application/vnd.plotly.v1+json" not in shown.data or has_something(shown), f"{shown.cell}: empty figure"


def has_something(shown: Shown) -> bool:
    """Whether a figure has a picture, a sentence or a number."""
    figure = shown.data["application/vnd.plotly.v1+json"]
    layout = figure["layout"]
    return bool(layout.get("images") or layout.get("annotations") or figure["data"])


@pytest.mark.parametrize("layout", ["registers", "images only"])
def test_steerability_refuses_an_encoder_without_texts_before_anything_is_trained(layout, small, monkeypatch):
    monkeypatch.setattr("lib.train_sae", lambda *_, **__: pytest.fail("trained first"))
    with pytest.raises(CellError, match="reads no texts"):
        run("09_steerability", layout, small)
