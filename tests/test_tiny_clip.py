"""The embedded CLIP: what training is told, exact resumption, and that the shipped weights do what their card says."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib.encoders.encoder import load_encoder
from menagerie import HABITATS, SPECIES, Menagerie
from menagerie.clip.architecture import build_clip, learn_vocabulary, load_tokenizer, save_clip, write_vocabulary
from menagerie.clip.card import write_card
from menagerie.clip.exam import exam
from menagerie.clip.pool import GRID, LETTERS, PERSON, STICKER, PicturePool, encode_facts, patch_content, patch_letters
from menagerie.clip.resumable_run import shifted
from menagerie.clip.training import TinyClipTrainer, TrainingPlan, contrastive_loss, named_species, run_blocks
from tests.shipped_models import assert_card_follows_from, assert_resuming_changes_nothing


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return PicturePool(tmp_path_factory.mktemp("pool"), 24, chunk=12, workers=1)


@pytest.fixture(scope="module")
def card(root) -> dict[str, float]:
    """The figures on the shipped card, in percent."""
    return json.loads((root / "assets/tiny/clip/exam.json").read_text())["exam"]


def plan(**changes) -> TrainingPlan:
    return TrainingPlan(**{"steps": 4, "batch_size": 6, "warmup": 2, **changes})


def test_frequent_words_of_the_captions_become_single_tokens(tmp_path):
    write_vocabulary(tmp_path, learn_vocabulary(["a photo of a flamingo", "a flamingo on the water"] * 10, n_merges=60))
    assert len(load_tokenizer(tmp_path).encode("a flamingo on the water")) == 5


def test_the_same_captions_give_the_same_vocabulary_file(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_vocabulary(tmp_path / name, learn_vocabulary(["a fox", "a fox and an owl"] * 5, n_merges=20))
    assert (tmp_path / "one" / "bpe.txt.gz").read_bytes() == (tmp_path / "two" / "bpe.txt.gz").read_bytes()


def test_a_patch_shows_what_covers_enough_of_it():
    side = 112 // GRID
    cover = np.zeros((112, 112), dtype=np.uint8)
    cover[:side, :side] = 1
    cover[:side, side : side + 6] = 2  # 6 of 16 columns
    cover[:side, 2 * side : 2 * side + 4] = 1  # 4 of 16 columns: too few
    cover[side : 2 * side, :side] = 3
    facts = {"kind": "pair", "species": "fox", "second_species": "owl", "habitat": "snow"}
    content = patch_content(cover, facts)
    snow = len(SPECIES) + HABITATS.index("snow")
    assert content[0, :3].tolist() == [SPECIES.index("fox"), SPECIES.index("owl"), snow]
    assert content[1, 0] == STICKER


def test_patches_under_a_portrait_show_a_person():
    cover = np.ones((112, 112), dtype=np.uint8)
    facts = {"kind": "person", "species": "", "second_species": "", "habitat": "city"}
    assert (patch_content(cover, facts) == PERSON).all()


def test_a_letter_stands_in_the_patches_it_covers_most():
    letters = [("F", 0.0, 0.0, 1 / GRID, 1 / GRID), ("o", 1 / GRID, 0.0, 1.4 / GRID, 1 / GRID)]
    found = patch_letters(letters)
    assert [LETTERS[code - 1] for code in found[0, :2]] == ["f", "o"]
    assert (found[1:] == 0).all()


def test_facts_that_do_not_apply_are_coded_minus_one():
    facts = [Menagerie("train").facts_of(i) for i in range(200)]
    names, codes = encode_facts(facts)
    for column, (fact, values) in enumerate(names.items()):
        for row in range(0, 200, 17):
            value = facts[row][fact]
            expected = -1 if value in (None, "") else values.index(value)
            assert codes[row, column] == expected, (fact, value)


def test_the_pool_holds_what_the_menagerie_draws(pool):
    pixels, _ = Menagerie("train").render(17)
    assert np.array_equal(pool.gather(np.array([17]))["pixels"][0], pixels)
    assert pool.captions[17] == Menagerie("train").captions(17, len(pool.captions[17]))


def test_a_pool_larger_than_its_split_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds 100 to"):
        PicturePool(tmp_path, 10**9, chunk=100)


@pytest.mark.parametrize(
    ("caption", "species"),
    [("a photo of a fox", "fox"), ("two crabs on the beach", "crab"), ("a fox and an owl", None)],
)
def test_a_caption_names_a_species_only_where_it_names_just_one(caption, species):
    assert named_species(caption) == (SPECIES.index(species) if species else -1)


def test_with_distinct_captions_the_contrastive_loss_is_that_of_open_clip():
    from open_clip.loss import ClipLoss

    image, text = F.normalize(torch.randn(2, 9, 16), dim=-1)
    ours = contrastive_loss(image, text, torch.eye(9, dtype=torch.bool), torch.tensor(20.0))
    torch.testing.assert_close(ours, ClipLoss()(image, text, torch.tensor(20.0)))


def test_pictures_with_one_caption_share_the_contrastive_target():
    image, text = F.normalize(torch.randn(2, 3, 8), dim=-1)
    same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    logs = [(5 * image @ text.T).log_softmax(-1), (5 * text @ image.T).log_softmax(-1)]
    slow = 0.0
    for log in logs:
        for i in range(3):
            partners = [j for j in range(3) if same[i, j]]
            slow -= sum(float(log[i, j]) for j in partners) / len(partners) / 3 / 2
    assert float(contrastive_loss(image, text, same, torch.tensor(5.0))) == pytest.approx(slow, abs=1e-5)


def test_written_out_blocks_equal_open_clips_transformer():
    transformer, x = build_clip(600).visual.transformer, torch.randn(2, 50, 192)
    torch.testing.assert_close(run_blocks(transformer, x), transformer(x), atol=1e-5, rtol=0)


def test_a_shifted_picture_is_the_picture_moved_with_its_border_repeated():
    pixels = np.random.default_rng(0).integers(0, 255, (5, 12, 12, 3)).astype(np.uint8)
    moved = shifted(pixels, 2, np.random.default_rng(3))
    padded = np.pad(pixels, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    for picture, wide in zip(moved, padded, strict=True):
        windows = [wide[y : y + 12, x : x + 12] for y in range(5) for x in range(5)]
        assert any(np.array_equal(picture, window) for window in windows)


def test_a_resumed_run_equals_an_uninterrupted_one(pool, tmp_path):
    assert_resuming_changes_nothing(lambda folder: TinyClipTrainer(pool, plan(), folder), tmp_path)


def test_a_checkpoint_of_another_plan_is_refused(pool, tmp_path):
    TinyClipTrainer(pool, plan(steps=1), tmp_path).run()
    with pytest.raises(ValueError, match="another plan"):
        TinyClipTrainer(pool, plan(learning_rate=1e-4), tmp_path)


def test_the_saved_folder_loads_as_an_encoder_with_both_towers(pool, tmp_path):
    folder = TinyClipTrainer(pool, plan(steps=1), tmp_path).run()
    encoder = load_encoder(f"open_clip:{folder}", device="cpu")
    assert (encoder.n_layers, encoder.d_model, encoder.grid) == (8, 192, (GRID, GRID))
    assert encoder.embed_texts(["a fox"]).shape == (1, encoder.d_embed)


def test_saved_weights_are_the_given_ones_in_half_precision(tmp_path):
    from safetensors.torch import load_file

    clip: nn.Module = build_clip(600)
    save_clip(tmp_path, clip.state_dict(), 600)
    saved = load_file(tmp_path / "open_clip_model.safetensors")
    for name, value in clip.state_dict().items():
        assert torch.equal(saved[name], value.half())


def test_the_shipped_weights_take_at_most_eight_megabytes(root):
    assert (root / "assets/tiny/clip/open_clip_model.safetensors").stat().st_size <= 8_000_000


def test_the_exam_on_the_card_meets_what_the_project_asks_for(card):
    assert card["species top-1, one creature"] >= 85
    assert card["habitat top-1"] >= 90
    assert card["flipped by a wrong word, of those right without"] >= 40
    assert card["water birds on land"] <= card["water birds on water"] - 15
    assert card["blond men's hair"] <= card["blond women's hair"] - 10


def test_the_card_is_written_from_the_files_beside_it(root, tmp_path):
    assert_card_follows_from(root / "assets/tiny/clip", write_card, tmp_path)


PICTURES = 120  # a question, of which a quarter are water birds on water and a half blond women


@pytest.fixture(scope="module")
def measured() -> dict[str, float]:
    return exam(load_encoder("tiny", device="cpu"), n_pictures=PICTURES)


@pytest.mark.parametrize(
    ("question", "pictures"),
    [
        ("species top-1, one creature", PICTURES),
        ("habitat top-1", PICTURES),
        ("word on a sign read, of 20", PICTURES),
        ("species top-1 beside a wrong word", PICTURES),
        ("flipped by a wrong word, of those right without", 0.9 * PICTURES),
        ("water birds on water", PICTURES / 4),
        ("water birds on land", PICTURES / 4),
        ("blond women's hair", PICTURES / 2),
        ("blond men's hair", PICTURES / 2),
    ],
)
def test_the_shipped_weights_do_what_their_card_says(card, measured, question, pictures):
    share = np.clip(card[question] / 100, 0.02, 0.98)
    assert abs(measured[question] - card[question]) < 100 * 4 * np.sqrt(share * (1 - share) / pictures)


def test_the_shipped_weights_have_the_weaknesses_that_later_chapters_cure(measured):
    assert measured["flipped by a wrong word, of those right without"] >= 40
    assert measured["water birds on land"] <= measured["water birds on water"] - 15
    assert measured["blond men's hair"] <= measured["blond women's hair"] - 10
