"""The embedded LLaVA: true lessons, a row of questions that equals each alone, a folder that loads anywhere."""

import json
import re

import numpy as np
import pytest
import torch

from lib.encoders.encoder import load_encoder
from menagerie import Menagerie
from menagerie.clip.architecture import to_pixels
from menagerie.clip.pool import PicturePool
from menagerie.llava import training
from menagerie.llava.architecture import build_llava, clip_vision_state, learn_tokenizer, save_llava
from menagerie.llava.card import BARS, write_card
from menagerie.llava.exam import draw, mentions_all, names_subject
from menagerie.llava.lessons import FORMS, LESSONS, ONE_WORD, OPEN, describe, lessons, subject
from menagerie.llava.training import LlavaPlan, TinyLlavaTrainer, packed_states, plain_pictures
from tests.shipped_models import assert_card_follows_from, assert_resuming_changes_nothing


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return PicturePool(tmp_path_factory.mktemp("pool"), 24, chunk=12, workers=1)


@pytest.fixture(scope="module")
def clip():
    return load_encoder("tiny", device="cpu")


@pytest.fixture(scope="module")
def tokenizer():
    scenes = [Menagerie("train").scene(i) for i in range(200)]
    return learn_tokenizer((f" {each.answer(s)}" for s in scenes for each in OPEN.values()), n_tokens=600)


@pytest.fixture(autouse=True)
def learn_tokenizers_from_few_lessons(monkeypatch):
    monkeypatch.setattr(training, "TOKENIZER_SCENES", 100)


@pytest.fixture(scope="module")
def shipped(root):
    return root / "assets/tiny/llava"


def plan(**changes) -> LlavaPlan:
    return LlavaPlan(**{"steps": 4, "batch_size": 6, "questions": 3, "warmup": 2, **changes})


def test_every_open_answer_has_the_form_that_its_prompt_asks_for():
    world = Menagerie("train")
    for scene in [None, *(world.scene(i) for i in range(100))]:
        for name, each in OPEN.items():
            assert re.fullmatch(FORMS[name], each.answer(scene)), (name, each.answer(scene))


def test_a_question_is_asked_only_where_it_makes_sense():
    rng, world = np.random.default_rng(0), Menagerie("train")
    questions_about_people = {prompt for name in ("glasses", "hat", "skin") for prompt in LESSONS[name].prompts}
    for scene in [None, *(world.scene(i) for i in range(150))]:
        asked = {prompt for prompt, _ in lessons(scene, 20, rng)}
        if scene is None or not scene.person:
            assert not asked & questions_about_people


def test_of_two_creatures_the_left_one_is_the_subject():
    world = Menagerie("train")
    pair = next(s for s in map(world.scene, range(300)) if len({c.species for c in s.creatures}) == 2)
    left, right = sorted(pair.creatures, key=lambda creature: creature.x)
    assert subject(pair) == left.species
    assert describe(pair).lower().index(left.species) < describe(pair).lower().index(right.species)


def test_the_right_answers_pass_the_exam_and_wrong_ones_fail():
    world = Menagerie("val")
    for scene in map(world.scene, range(100)):
        assert names_subject(scene, LESSONS["one word"].answer(scene))
        assert mentions_all(scene, describe(scene))
        assert not names_subject(scene, "Teapot")
        assert not mentions_all(scene, "A teapot on the water.")


def test_the_tower_gives_the_embedded_clips_values(clip, tokenizer):
    tower = build_llava(tokenizer).model.vision_tower
    tower.load_state_dict(clip_vision_state(clip.model.state_dict()))
    pixels = clip.pixels([Menagerie("val").image(0)])
    with torch.no_grad():
        states = tower(pixels, output_hidden_states=True).hidden_states
    sites = [f"{layer}.resid_post" for layer in range(clip.n_layers)]
    for value, state in zip(clip.run(pixels, sites).values(), states[1:], strict=True):
        torch.testing.assert_close(value, state, atol=1e-5, rtol=0)


def test_questions_in_one_row_are_answered_as_each_would_be_alone(pool, clip, tmp_path):
    trainer = TinyLlavaTrainer(pool, plan(), tmp_path, clip)
    trainer.model.set_attn_implementation("eager")
    trainer.model.eval()
    batch = trainer.batch(0)
    pixels = to_pixels(batch["pixels"])
    with torch.no_grad():
        seen = clip.run(pixels, [trainer.site])[trainer.site][:, 1:]
        packed = packed_states(trainer.model, seen, batch, trainer.ids("USER: "))[:, -batch["ids"].shape[1] :]
        for row, branch in ((0, 1), (3, 2), (5, 3)):
            here = batch["branch"][row] == branch
            patches = [trainer.model.config.image_token_id] * seen.shape[1]
            begin = [trainer.tokenizer.bos_token_id, *trainer.ids("USER: "), *patches]
            ids = torch.tensor([begin + batch["ids"][row, here].tolist()])
            alone = trainer.model.model(input_ids=ids, pixel_values=pixels[row : row + 1]).last_hidden_state
            torch.testing.assert_close(packed[row, here], alone[0, len(begin) :], atol=1e-4, rtol=0)


def test_only_answers_are_learned(pool, clip, tmp_path):
    trainer = TinyLlavaTrainer(pool, plan(), tmp_path, clip)
    row = trainer.row([("What is this?", "Heron"), ("Where?", "Here.")])
    learned = [i for i, is_learned in zip(row.ids, row.learned, strict=True) if is_learned]
    assert trainer.tokenizer.decode(learned) == " Heron</s> Here.</s>"


def test_a_plain_picture_has_one_colour():
    pictures = plain_pictures(5, np.random.default_rng(0))
    assert pictures.shape == (5, 112, 112, 3)
    assert (pictures == pictures[:, :1, :1]).all()


def test_a_resumed_run_equals_an_uninterrupted_one(pool, clip, tmp_path):
    assert_resuming_changes_nothing(lambda folder: TinyLlavaTrainer(pool, plan(), folder, clip), tmp_path)


def test_training_leaves_the_tower_alone_and_lowers_the_loss(pool, clip, tmp_path):
    trainer = TinyLlavaTrainer(pool, plan(steps=14, batch_size=8, questions=2), tmp_path, clip)
    before = {name: value.clone() for name, value in trainer.model.model.vision_tower.state_dict().items()}
    trainer.run(log_every=1)
    losses = [json.loads(row)["answers"] for row in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    for name, value in trainer.model.model.vision_tower.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_saved_folder_loads_in_plain_transformers(tokenizer, tmp_path):
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    llava = build_llava(tokenizer).eval()
    save_llava(tmp_path, llava, llava.state_dict(), tokenizer)
    processor = AutoProcessor.from_pretrained(tmp_path)
    loaded = LlavaForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32).eval()
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": ONE_WORD}]}]
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    assert text == f"USER: <image>\n{ONE_WORD} ASSISTANT:"
    picture = Menagerie("val").image(0)
    inputs = processor(images=picture, text=text, return_tensors="pt")
    pixels = to_pixels(torch.from_numpy(np.array(picture))[None])
    torch.testing.assert_close(inputs["pixel_values"], pixels, atol=1e-5, rtol=0)
    with torch.no_grad():
        expected = llava(**inputs).logits
        torch.testing.assert_close(loaded(**inputs).logits, expected, atol=2e-2, rtol=0)  # weights are halved


def test_any_text_survives_the_tokenizer(tokenizer):
    for text in (" Two herons.\nÜber 3 Füße, 木 and 🦉!", "USER: \n\n  x  ASSISTANT:"):
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_the_shipped_weights_take_at_most_sixteen_megabytes(shipped):
    assert (shipped / "model.safetensors").stat().st_size <= 16_000_000


def test_the_shipped_tower_is_the_embedded_clips_weight_for_weight(root, shipped):
    from safetensors.torch import load_file

    stored = load_file(shipped / "model.safetensors")
    tower = {name.split("vision_tower.")[1].removeprefix("vision_model."): name for name in stored if "tower" in name}
    ours = clip_vision_state(load_file(root / "assets/tiny/clip/open_clip_model.safetensors"))
    assert tower.keys() == ours.keys()
    for name, value in ours.items():
        assert torch.equal(stored[tower[name]], value), name


def test_the_card_is_written_from_the_files_beside_it(shipped, tmp_path):
    assert_card_follows_from(shipped, write_card, tmp_path)


def test_the_shipped_weights_meet_the_projects_bars_and_do_what_their_card_says(shipped):
    from steering.llava import load_llava

    card = json.loads((shipped / "exam.json").read_text())["exam"]
    assert min(card[name] for name in BARS) >= 85
    world, n = Menagerie("val"), 150
    llava, pictures, scenes = load_llava("tiny", device="cpu"), draw(world, range(n)), [*map(world.scene, range(n))]
    for name, right in zip(BARS, (names_subject, mentions_all), strict=True):
        prompt = ONE_WORD if right is names_subject else LESSONS["description"].prompts[0]
        answers = llava.generate(pictures, prompt, max_new_tokens=48)
        measured = np.mean([right(scene, answer) for scene, answer in zip(scenes, answers, strict=True)])
        share = card[name] / 100
        assert abs(measured - share) < 3.5 * np.sqrt(share * (1 - share) / n) + 0.01, name
