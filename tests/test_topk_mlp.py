"""The embedded CLIP with TopK MLPs: what a token keeps, what is read, what training is after, what ships."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lib.encoders.encoder import load_encoder
from menagerie import Menagerie
from menagerie.clip.exam import predict, zero_shot_classes
from menagerie.clip.pool import PicturePool
from menagerie.topk_clip.card import write_card
from menagerie.topk_clip.topk_mlp import (
    TopKGELU,
    TopKPlan,
    TopKTrainer,
    distance,
    load_topk_clip,
    pool_neurons,
    read_mlps,
    seen,
    with_topk,
)
from tests.shipped_models import assert_card_follows_from, assert_resuming_changes_nothing


@pytest.fixture(scope="module")
def shipped(root):
    return root / "assets/tiny/topk_clip"


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return PicturePool(tmp_path_factory.mktemp("pool"), 12, chunk=12, workers=1)


@pytest.fixture(scope="module")
def pixels():
    world, encoder = Menagerie("val"), load_encoder("tiny", device="cpu")
    return encoder.pixels([world.image(i) for i in range(6)])


def plan(**changes) -> TopKPlan:
    return TopKPlan(**{"steps": 4, "batch_size": 6, "warmup": 2, **changes})


def test_a_token_keeps_its_largest_values_and_no_negative_ones():
    hidden = torch.tensor([[3.0, -1.0, 1.0, 2.0], [-3.0, -1.0, 0.5, -2.0]])
    kept = TopKGELU(2)(hidden)
    for row, before in zip(kept, hidden, strict=True):
        values = F.gelu(before).tolist()
        wanted = [v if v in sorted(values)[-2:] and v > 0 else 0 for v in values]
        assert row.tolist() == wanted


def test_with_as_many_as_there_are_only_negative_values_are_lost():
    hidden = torch.randn(5, 7)
    torch.testing.assert_close(TopKGELU(100)(hidden), F.gelu(hidden).clamp_min(0))


def test_at_least_one_neuron_is_kept():
    with pytest.raises(ValueError, match="at least one neuron"):
        TopKGELU(0)


def test_what_is_read_of_the_mlps_is_what_the_blocks_compute_and_at_most_k(pixels):
    encoder = with_topk(load_encoder("tiny", device="cpu"), 9)
    blocks = encoder.model.visual.transformer.resblocks
    read, embeddings = read_mlps(encoder, pixels, [2, 5])
    stream = encoder.run(pixels, ["4.resid_post"])["4.resid_post"]
    stream = stream + blocks[5].attention(blocks[5].ln_1(stream))
    wanted = blocks[5].mlp.gelu(blocks[5].mlp.c_fc(blocks[5].ln_2(stream)))
    torch.testing.assert_close(read[5], wanted, atol=1e-4, rtol=1e-4)
    assert int((read[2] != 0).sum(-1).max()) == 9
    torch.testing.assert_close(embeddings, encoder.embed_images(pixels))


def test_a_survey_pools_what_is_read_batch_by_batch(pixels):
    encoder = with_topk(load_encoder("tiny", device="cpu"), 9)
    read, embeddings = read_mlps(encoder, pixels, [1, 3])
    found = pool_neurons(encoder, pixels, [1, 3], batch_size=4)
    torch.testing.assert_close(found.embeddings, embeddings, atol=1e-5, rtol=1e-4)
    for i, tokens in enumerate(read[3]):
        torch.testing.assert_close(found.cls[3][i], tokens[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found.largest[3][i], tokens.max(0).values, atol=1e-4, rtol=1e-4)
        assert float(found.active[3][i]) == pytest.approx(np.mean([int((token > 0).sum()) for token in tokens]))


def test_an_encoder_without_such_mlps_and_a_block_that_is_not_there_are_refused(pixels):
    with pytest.raises(ValueError, match="has no open_clip MLPs"):
        with_topk(load_encoder("tiny-eye", device="cpu"), 4)
    with pytest.raises(ValueError, match="blocks 0 to 7"):
        read_mlps(load_encoder("tiny", device="cpu"), pixels, [8])


def test_what_training_sees_is_what_the_model_itself_computes(pixels):
    encoder = load_encoder("tiny", device="cpu")
    *streams, embedding = seen(encoder.model.visual, pixels)
    sites = [f"{layer}.resid_post" for layer in range(8)]
    values = encoder.run(pixels, [*sites, "proj"])
    for stream, site in zip(streams, sites, strict=True):
        torch.testing.assert_close(stream, values[site], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(embedding, values["proj"], atol=1e-4, rtol=1e-4)


def test_the_distance_is_zero_for_equals_and_one_for_the_mean():
    y = torch.randn(4, 5, 3)
    assert float(distance(y, y)) == 0
    assert float(distance(y.mean((0, 1)).expand_as(y), y)) == pytest.approx(1)


def test_a_resumed_run_equals_an_uninterrupted_one(pool, tmp_path):
    assert_resuming_changes_nothing(lambda folder: TopKTrainer(pool, plan(), folder), tmp_path)


def test_training_brings_the_pupil_nearer_to_the_teacher_and_leaves_the_teacher_alone(pool, tmp_path):
    trainer = TopKTrainer(pool, plan(steps=12, learning_rate=1e-3, shift=0), tmp_path)
    before = {name: value.clone() for name, value in trainer.teacher.state_dict().items()}
    trainer.run(log_every=1)
    losses = [json.loads(row)["stream"] for row in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])
    assert all(torch.equal(value, before[name]) for name, value in trainer.teacher.state_dict().items())


def test_a_run_loads_with_its_own_k(pool, tmp_path, pixels):
    folder = TopKTrainer(pool, plan(steps=1, k=5), tmp_path).run()
    read, _ = read_mlps(load_topk_clip(folder, device="cpu"), pixels, [0])
    assert int((read[0] > 0).sum(-1).max()) == 5


def test_a_folder_without_such_a_model_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no TopK CLIP in"):
        load_topk_clip(tmp_path)


def test_the_shipped_weights_take_at_most_eight_megabytes(shipped):
    assert (shipped / "model.safetensors").stat().st_size <= 8_000_000


def test_the_card_is_written_from_the_files_beside_it(shipped, tmp_path):
    assert_card_follows_from(shipped, write_card, tmp_path)


def test_the_shipped_model_names_species_as_its_card_says(shipped):
    world, n = Menagerie("val"), 150
    rows = np.flatnonzero(world.facts["kind"] == "creature")[:n]
    encoder = load_topk_clip(device="cpu")
    embeddings = encoder.embed_images(encoder.pixels([world.image(int(i)) for i in rows]))
    said = predict(embeddings, zero_shot_classes(encoder, "species"))
    share = json.loads((shipped / "exam.json").read_text())["exam"]["species top-1, one creature"] / 100
    right = np.mean(said == world.facts["species"].to_numpy()[rows])
    assert abs(right - share) < 0.02 + 3 * np.sqrt(share * (1 - share) / n)
