"""How far figures of a GPU may lie from the CPU's: the bounds that `book/how_to.md` states.

A GPU runs encoders in bfloat16, and that is what moves figures; so bfloat16 on the CPU stands in for it where there is
no GPU.
"""

import re
from pathlib import Path

import pytest
import torch

from experiments.similarity import judge_embeddings
from lib import SAEConfig, extract, load_encoder, load_images, metrics, train_sae
from lib.devices import to_cpu
from tests.cuda.both import REAL

SITES = ["3.resid_post", "5.mlp_out", "7.resid_post", "proj"]
ACTIVATIONS, JACCARD, SCORE = 0.006, 0.98, 0.0025
HOW_TO = Path(__file__).parents[2] / "book" / "how_to.md"


@pytest.fixture(scope="module")
def images():
    return load_images("menagerie:val[:400]")


@pytest.fixture(scope="module")
def rows(images, tmp_path_factory) -> list[dict[str, torch.Tensor]]:
    """{site: (N, d)} in float32 on the CPU, and in bfloat16 on a GPU, or on the CPU where there is none."""
    found = []
    for device, dtype in (("cpu", "float32"), ("cuda" if REAL else "cpu", "bfloat16")):
        encoder, out = load_encoder("tiny", device=device, dtype=dtype), tmp_path_factory.mktemp(dtype)
        stores = extract(encoder, images, SITES, "cls", out, "float32", workers=0, progress=False)
        found.append({site: store[:] for site, store in stores.items()})
    return found


@pytest.mark.parametrize("site", SITES)
def test_activations_differ_by_less_than_the_bound(rows, site):
    here, there = (found[site] for found in rows)
    assert 0 < float((there - here).norm() / here.norm()) < ACTIVATIONS


def test_active_features_and_scores_differ_by_less_than_the_bounds(rows, images, tmp_path):
    here, there = (found["7.resid_post"] for found in rows)
    from lib.activations.extraction import ActivationStore

    config = SAEConfig(kind="batchtopk", expansion=2, k=8, steps=300, batch_size=128)
    sae = train_sae(ActivationStore.from_tensor(here), config, device="cpu", progress=False)
    codes = [to_cpu(sae.encode_sparse(x)) for x in (here, there)]
    one, other = (found.to_dense() > 0 for found in codes)
    assert float((one & other).sum() / (one | other).sum()) > JACCARD
    eye = judge_embeddings("tiny-eye", images, tmp_path)
    scores = [metrics.monosemanticity(found, eye).nanmean() for found in codes]
    assert float((scores[0] - scores[1]).abs()) < SCORE


def test_the_book_states_these_bounds():
    text = re.sub(r"\s+", " ", HOW_TO.read_text())
    for bound in (f"{100 * ACTIVATIONS:g} %", f"{JACCARD:g}", f"{SCORE:g}"):
        assert bound in text.partition("bfloat16 moves figures")[2][:600]
