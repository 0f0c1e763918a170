"""Many pushes at once, against one steered pass each, and on the embedded world against what is known."""

import pytest
import torch

from experiments import steerability
from experiments.steerability import Steerability
from experiments.sweep import clamps, measure_steerability
from experiments.vocabulary import load_vocabulary
from lib.encoders.encoder import load_encoder
from lib.images.image_set import load_images
from steering.interventions import Directions, Neurons

SITES = ("2.mlp_out", "5.attn_out", "6.resid_post", "7.resid_post", "proj")


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("tiny", device="cpu")


@pytest.fixture(scope="module")
def pixels(encoder):
    return encoder.pixels([load_images("menagerie:val[:4]")[i] for i in range(4)])


@pytest.fixture(scope="module")
def words(encoder):
    return encoder.embed_texts(load_vocabulary("menagerie"))


def one_by_one(encoder, pixels, pushes, words) -> Steerability:
    """The published way: a whole pass with a hook for each push."""
    base = (encoder.embed_images(pixels) @ words.T * encoder.logit_scale).softmax(-1)
    parts = []
    for push in pushes:
        with encoder.steered(*push):
            steered = (encoder.embed_images(pixels) @ words.T * encoder.logit_scale).softmax(-1)
        parts.append(steerability.steerability(base, steered))
    return Steerability.joined(parts)


@pytest.mark.parametrize("together", [1 << 24, 1])
def test_many_pushes_score_as_one_by_one(encoder, pixels, words, together, monkeypatch):
    monkeypatch.setattr("experiments.sweep._PROBABILITIES", together)
    pushes = [
        push
        for site in SITES
        for push in clamps(Neurons(encoder.width(site)), site, range(0, 100, 25), torch.full((4,), 100.0))
    ]
    measured = measure_steerability(encoder, pixels, pushes, words, progress=False)
    for field, expected in zip(measured, one_by_one(encoder, pixels, pushes, words), strict=True):
        assert torch.allclose(field, expected, atol=2e-4)
    assert measured.score.max() > 0.1


def test_the_embedding_pushed_along_a_word_shows_that_word(encoder, pixels, words):
    """Ground truth: at proj a word's own direction is what steers to it."""
    vocabulary = load_vocabulary("menagerie")
    chosen = [vocabulary.index(word) for word in ("owl", "snow", "glasses")]
    pushes = clamps(Directions(words[chosen]), "proj", range(3), [200.0] * 3)
    measured = measure_steerability(encoder, pixels, pushes, words, progress=False)
    assert measured.concept.tolist() == measured.risen.tolist() == chosen
    assert (measured.precision > 0.9).all()
    assert measured.steerable().all()


def test_each_feature_is_clamped_alone_and_the_error_kept(encoder):
    pushes = clamps(Neurons(192), "3.resid_post", [4, 9], [1.0, 2.0], tokens="cls")
    assert [dict(push[0].features) for push in pushes] == [{4: 1.0}, {9: 2.0}]
    assert {(push[0].mode, push[0].tokens, push[0].keep_error) for push in pushes} == {("clamp", "cls", True)}
    with pytest.raises(ValueError, match="zip"):
        clamps(Neurons(192), "3.resid_post", [4, 9], [1.0])
