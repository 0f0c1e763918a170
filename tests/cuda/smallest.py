"""Every notebook with parameters as small as they get, on a CUDA device."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

from menagerie.llava import lessons
from tests.cuda.both import cuda_device
from tests.notebook_cells import run_cells

SAES = {"train_images": "menagerie:train[:200]", "k": 4, "steps": 10, "batch_size": 64}
VAL = {"eval_images": "menagerie:val[:80]"}
CLASSIC = SAES | {"kinds": ["batchtopk", "matryoshka"], "expansions": [0.5, 1]}
LLAVA = SAES | {"train_images": "menagerie:train[:80]", "eval_images": "menagerie:val[:60]", "expansion": 1}
ALL_TOKENS = SAES | {"train_images": "menagerie:train[:20]", "expansion": 1}
TRAINING = {"n_pictures": 40, "pool_chunk": 20, "steps": 1, "batch_size": 8, "exam_pictures": 10, "workers": 1}

SMALLEST = {
    "01_menagerie": {"gallery": 2, "per_split": 1, "per_leaf": 1, "n_facts": 100},
    "02_activations": {
        "images": "menagerie:val[:40]", "n_close": 8, "train_images": "menagerie:train[:20]", "n_maps": 1,
    },
    "03_train_saes": CLASSIC | VAL | {"sweep": [1]},
    "04_monosemanticity": CLASSIC | VAL | {
        "sweep": [1], "shown_expansion": 1, "seeds": [1], "n_shown": 1, "n_bootstrap": 5,
    },
    "04a_uniqueness": CLASSIC | {"expansion": 1, "n_top": 4, "n_shown": 1, "n_bootstrap": 5},
    "04b_hierarchy": SAES | VAL | {
        "levels": [3, 16, 64], "n_top": 4, "n_permutations": 9, "n_bootstrap": 5, "max_pictures": 20,
    },
    "04c_stability": SAES | VAL | {"expansion": 0.5, "seeds": [0, 1], "min_pictures": 4, "n_bootstrap": 5},
    "05_features": SAES | VAL | {"expansion": 1, "max_pictures": 20, "thumbnail": 16, "min_support": 5},
    "06_steering_llava": LLAVA | {
        "strengths": [4], "poem_shares": [0.3], "negative_strengths": [0.5], "n_pictures": 1, "answer_tokens": 2,
        "open_tokens": 3, "min_support": 2, "concept": "snow", "second": "forest", "concept_columns": ["habitat"],
    },
    "06a_steering_panel": LLAVA | {
        "n_features": 8, "n_pictures": 2, "alphas": [0, 1], "start": 1, "stored": [1, 1, 1], "max_new_tokens": 3,
        "picture_size": 32,
    },
    "07_steering_scores": LLAVA | {
        "answer_tokens": 2, "open_tokens": 3, "strengths": [4], "weak_strengths": [0.5], "n_features": 2,
        "n_selection": 1, "n_per_level": 2, "n_pictures": 2, "features_on_pictures": 2, "n_concepts": 1,
        "n_selection_concepts": 1, "text_set": 4, "n_bootstrap": 5, "min_f1": 0.1, "concept_columns": ["habitat"],
    },
    "08_sparsity": ALL_TOKENS | {
        "eval_images": "menagerie:val[:12]", "sites": ["1.resid_post", "6.resid_post"], "scopes": ["all", "cls"],
        "alive_tokens": 100, "n_bootstrap": 5,
    },
    "09_steerability": ALL_TOKENS | {
        "eval_images": "menagerie:val[:40]", "n_pictures": 2, "strengths": [50, 150], "n_features": 8,
        "n_elsewhere": 2, "own_multiples": [5], "n_steered_patches": [4], "n_bootstrap": 5,
    },
    "10_disentanglement": ALL_TOKENS | {
        "birds_images": "", "word_images": "", "sign_images": "", "people_images": "menagerie:people[:200]",
        "ordinary_images": "menagerie:val[:60]", "sizes": [12, 8, 8], "ordinary_sizes": [8, 8], "reading_size": 0,
        "sites": ["6.resid_post"], "counts": [2], "strengths": [], "gains": [0.5], "n_candidates": 4,
        "anchors": [0.1],
        "panel_pictures": 8, "panel_features": 2, "named_on": 20, "n_bootstrap": 5,
    },
    "11_variants": SAES | VAL | {
        "train_images": "menagerie:train[:60]", "expansion": 0.25, "relu_prices": [0.1, 0.3], "steps": 3,
        "kinds": ["relu", "jumprelu", "gated", "topk", "vsae", "archetypal", "monoloss"], "gated_prices": [0.1],
        "archetypes": 50, "jumprelu_prices": [0.003], "kl_sweep": [], "relaxation_sweep": [], "n_spliced": 6,
        "min_pictures": 2,
    },
    "12_probing": ALL_TOKENS | {
        "eval_images": "menagerie:val[:160]", "sites": ["7.resid_post"], "poolings": ["cls", "max"], "n_facts": 2,
        "min_support": 12, "sparse": [1, 5], "few": [40], "shifts": ["habitat is forest, meadow"],
        "neuron_images": 20, "n_bootstrap": 5, "expansion": 0.5,
    },
    "13_metrics": {
        "train_images": "menagerie:train[:60]", "eval_images": "menagerie:val[:60]",
        "elsewhere": "menagerie:waterbirds[:20]", "expansions": [0.25], "ks": [4], "steps": [2, 3], "batch_size": 64,
        "min_support": 4, "n_spliced": 6, "planted": [1.0], "n_steered": 2, "steered_pictures": 2, "n_bootstrap": 5,
        "llava_features": 1, "llava_pictures": 1,
    },
    "90_scoreboard": {},
    "A1_train_tiny_clip": TRAINING,
    "A2_train_tiny_llava": TRAINING | {"questions": 1},
    "A3_train_tiny_eye": TRAINING | {"exam_pictures": 60},  # of fewer, some questions concern none
    "A4_choices": VAL | {
        "train_images": "menagerie:train[:200]", "token_images": "menagerie:train[:10]", "expansion": 0.5, "k": 4,
        "steps": 40, "batch_size": 64, "k_values": [1], "sweep_expansions": [0.5, 1],
    },
    "A5_train_topk_clip": TRAINING,
}  # fmt: skip

OTHERS = (
    "06_steering_llava",
    "06a_steering_panel",
    "07_steering_scores",
    "A1_train_tiny_clip",
    "A2_train_tiny_llava",
    "A3_train_tiny_eye",
    "A5_train_topk_clip",
)
"""What a second process of the tests runs: chapters that steer LLaVA or train a model. Both take about as long."""


@contextlib.contextmanager
def few_lessons() -> Iterator[None]:
    """LLaVA is trained, and examined, on seven kinds of lessons of 27: the others only take longer."""
    kept = ("one word", "description", "habitat", "time", "no person", "no creature", "title")
    with contextlib.ExitStack() as stack:
        for some in (lessons.LESSONS, lessons.OPEN):
            stack.enter_context(patch.dict(some, {name: some[name] for name in kept if name in some}, clear=True))
        stack.enter_context(patch("menagerie.llava.training.TOKENIZER_SCENES", 100))
        yield


SHORTER = {"A2_train_tiny_llava": few_lessons}


def run_on_cuda(name: str, profile_dir: Path) -> None:
    """Run the code cells of a notebook; what it makes lies in profile_dir, for the chapters after it."""
    with cuda_device(), SHORTER.get(name, contextlib.nullcontext)():
        run_cells(name, profile_dir=str(profile_dir), **SMALLEST[name])
