"""The embedded eye: exact resumption, a folder that loads without this project, and the shipped weights' card."""

import json

import numpy as np
import pytest
import torch

from lib.encoders.encoder import load_encoder
from menagerie import Menagerie
from menagerie.clip.pool import PicturePool
from menagerie.eye.architecture import build_eye, save_eye, to_pixels
from menagerie.eye.card import write_card
from menagerie.eye.exam import exam, neighbours_vote
from menagerie.eye.training import EyePlan, TinyEyeTrainer
from tests.shipped_models import assert_card_follows_from, assert_resuming_changes_nothing


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return PicturePool(tmp_path_factory.mktemp("pool"), 24, chunk=12, workers=1)


@pytest.fixture(scope="module")
def shipped(root):
    return root / "assets/tiny/eye"


def plan(**changes) -> EyePlan:
    return EyePlan(**{"steps": 4, "batch_size": 6, "warmup": 2, **changes})


def test_a_resumed_run_equals_an_uninterrupted_one(pool, tmp_path):
    assert_resuming_changes_nothing(lambda folder: TinyEyeTrainer(pool, plan(), folder), tmp_path)


def test_training_lowers_the_loss_on_the_pictures_it_repeats(pool, tmp_path):
    trainer = TinyEyeTrainer(pool, plan(steps=30, batch_size=12, learning_rate=2e-3, shift=0), tmp_path)
    trainer.run(log_every=1)
    losses = [json.loads(row)["cls"] for row in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert np.mean(losses[-4:]) < 0.7 * np.mean(losses[:4])


def test_the_saved_folder_loads_in_plain_transformers(tmp_path):
    from transformers import AutoImageProcessor, AutoModel

    eye = build_eye().eval()
    save_eye(tmp_path, eye.state_dict())
    picture = Menagerie("val").image(0)
    pixels = AutoImageProcessor.from_pretrained(tmp_path)(images=picture, return_tensors="pt")["pixel_values"]
    loaded = AutoModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    torch.testing.assert_close(pixels, to_pixels(torch.from_numpy(np.array(picture))[None]), atol=1e-5, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(
            loaded(pixels).pooler_output, eye(pixels).pooler_output, atol=2e-2, rtol=0
        )  # weights are halved


def test_neighbours_vote_with_their_similarity():
    similarity = torch.tensor([[0.9, 0.5, 0.45, 0.1], [0.1, 0.2, 0.3, 0.9]])
    labels = np.array(["fox", "owl", "owl", "crab"], dtype=object)
    assert neighbours_vote(similarity, labels, k=3).tolist() == ["owl", "crab"]


def test_the_shipped_weights_take_at_most_six_megabytes(shipped):
    assert (shipped / "model.safetensors").stat().st_size <= 6_000_000


def test_the_eye_is_of_another_width_and_seed_than_the_embedded_clip(root, shipped):
    seeds = [
        json.loads((root / f"assets/tiny/{name}/run.json").read_text())["plan"]["seed"] for name in ("clip", "eye")
    ]
    assert seeds[0] != seeds[1]
    assert load_encoder("tiny-eye", device="cpu").d_model != load_encoder("tiny", device="cpu").d_model


def test_the_card_is_written_from_the_files_beside_it(shipped, tmp_path):
    assert_card_follows_from(shipped, write_card, tmp_path)


def test_the_shipped_weights_do_what_their_card_says(shipped):
    card = json.loads((shipped / "exam.json").read_text())
    n = 600
    measured = exam(load_encoder("tiny-eye", device="cpu"), n, workers=0)
    for question in ("species", "habitat"):
        name = f"{question}, by five nearest neighbours"
        share = card["exam"][name] / 100
        # fewer neighbours to choose from cost a little, chance the rest: three standard errors
        slack = 0.06 + 3 * np.sqrt(share * (1 - share) / (n / 2))
        assert abs(measured[name] / 100 - share) < slack, name


def test_the_eye_tells_species_and_habitats_apart(shipped):
    card = json.loads((shipped / "exam.json").read_text())["exam"]
    for question, bar in (("species", 70), ("habitat", 85)):
        assert card[f"{question}, by five nearest neighbours"] >= bar
        assert card[f"{question}, by five nearest neighbours"] > card[f"{question}, always the commonest"] + 40
