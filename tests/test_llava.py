"""A steered LLaVA answers as in the published way, one picture and one feature at a time, and says what is wrong."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from lib.sae.model import SAE, SAEConfig
from steering.interventions import Intervention, Neurons
from steering.llava import load_llava
from tests.small_hugging_face import hugging_face_folder
from tests.small_llava import FAMILIES, llava_folder

QUESTION = "What is an owl?"


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """Family -> folder, written once."""
    folders = {}

    def folder(family: str = "llava 1.5"):
        if family not in folders:
            folders[family] = llava_folder(tmp_path_factory.mktemp("hub") / family.split()[0], family)
        return folders[family]

    return folder


@pytest.fixture(scope="module")
def llava_of(folder_of):
    """Family -> LLaVA in float32, loaded once."""
    loaded = {}

    def llava(family: str = "llava 1.5"):
        if family not in loaded:
            loaded[family] = load_llava(f"hf:{folder_of(family)}", device="cpu")
        return loaded[family]

    return llava


@pytest.fixture(scope="module")
def llava(llava_of):
    return llava_of()


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [
        Image.fromarray(random.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in ((48, 60), (70, 33), (32, 32))
    ]


@pytest.fixture(scope="module")
def sae() -> SAE:
    sae = SAE(SAEConfig(kind="batchtopk", width=72, k=4), 24)
    sae.threshold.fill_(0.2)
    return sae


def published(llava, picture: Image.Image, prompt: str, n: int = 6, hook=None) -> str:
    """Hooked tower, whole pass, transformers' own `generate`; hook: on the block that the language model reads."""
    blocks = llava.model.model.vision_tower.encoder.layers
    handle = blocks[int(llava.site.split(".")[0])].register_forward_hook(hook, prepend=True) if hook else None
    text = f"USER: <image>\n{prompt} ASSISTANT:"
    inputs = llava.processor(images=picture, text=text, return_tensors="pt")
    out = llava.model.generate(**inputs.to(dtype=llava.model.dtype), do_sample=False, max_new_tokens=n)
    if handle:
        handle.remove()
    return llava.processor.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_those_of_the_published_way(llava_of, pictures, sae, family):
    """The latent set to alpha on all tokens, the SAE's decoding in the place of x (arXiv 2504.02821, 4.4)."""
    llava = llava_of(family)

    def clamping(feature: int, value: float):
        def hook(module, inputs, output):
            codes = sae.encode(output)
            codes[..., feature] = value
            return sae.decode(codes)

        return hook

    features = (3, 40, 71)
    edits = [Intervention(sae, llava.site, {j: 8.0}, keep_error=False) for j in features]
    answers = llava.answers(pictures, QUESTION, [None, *edits], max_new_tokens=6)
    hooks = [None, *(clamping(j, 8.0) for j in features)]
    assert answers == [[published(llava, picture, QUESTION, hook=hook) for hook in hooks] for picture in pictures]
    assert len({text for row in answers for text in row}) > 3


SITES = ("0.attn_out", "0.mlp_out", "0.resid_post", "2.attn_out", "2.mlp_out", "2.resid_post", "3.mlp_out")


@pytest.mark.parametrize("site", SITES)
def test_an_edit_before_the_site_that_is_read_runs_through_the_blocks_between(llava, pictures, sae, site):
    some = [Intervention(sae, site, {j: 3.0}, "add", tokens) for j, tokens in ((5, "all"), (9, "cls"))]
    some.append(Intervention(Neurons(24), site, dict.fromkeys(range(24), 4.0), tokens=torch.eye(4)))
    for picture, row in zip(pictures, llava.answers(pictures, QUESTION, some, max_new_tokens=4), strict=True):
        for edit, answer in zip(some, row, strict=True):
            with llava.steered(edit):
                assert answer == published(llava, picture, QUESTION, 4)


def test_values_after_a_resumed_pass_are_those_of_a_whole_one(llava, pictures, sae):
    from steering.cached_forward import CachedForward

    pixels = llava.vision.pixels(pictures)
    variants = [(Intervention(sae, site, {5: 3.0}),) for site in (*SITES, llava.site)]
    variants += [(), (variants[0] + variants[4]), (variants[5][0], variants[5][0])]
    values = CachedForward(llava.vision, llava.site, pixels, variants).values(variants)
    for variant, value in zip(variants, values, strict=True):
        with llava.vision.steered(*variant):
            expected = llava.vision.run(pixels, [llava.site])[llava.site]
        assert torch.allclose(value, expected, atol=1e-5)


def test_interventions_in_a_tuple_act_at_once(llava, pictures, sae):
    here, there = Intervention(sae, llava.site, {5: 6.0}), Intervention(Neurons(24), "1.mlp_out", {3: 6.0})
    later = Intervention(Neurons(24), llava.site, {7: 6.0})
    both = [(here, there), (here, later), [later, here]]
    for edits, answer in zip(both, llava.answers(pictures[:1], QUESTION, both)[0], strict=True):
        with llava.steered(*edits):
            assert answer == published(llava, pictures[0], QUESTION, 32)


def test_each_prompt_has_its_answer_whatever_its_length(llava, pictures):
    prompts = ["Who?", "What is shown in this image? Use exactly one word!", "Who?"]
    assert llava.generate(pictures, prompts, max_new_tokens=6) == [
        published(llava, picture, prompt) for picture, prompt in zip(pictures, prompts, strict=True)
    ]


def test_answers_end_where_the_model_ends_them(llava_of, pictures):
    llava = llava_of("many ends")
    edits = [None, *(Intervention(Neurons(24), llava.site, {j: 6.0}) for j in range(12))]
    answers = llava.answers(pictures[:1], QUESTION, edits, max_new_tokens=12)[0]
    for edit, answer in zip(edits, answers, strict=True):
        with llava.steered(*([edit] if edit else [])):
            assert answer == published(llava, pictures[0], QUESTION, 12)
    assert len({len(llava.processor.tokenizer.encode(answer)) for answer in answers}) > 2


def test_answers_do_not_depend_on_the_batches_they_came_in(llava, pictures, sae, monkeypatch):
    edits = [None, *(Intervention(sae, site, {j: 8.0}) for j in (3, 9) for site in (llava.site, "1.mlp_out"))]
    whole = llava.answers(pictures, QUESTION, edits, max_new_tokens=6)
    for rows in (1, 3, 7):
        monkeypatch.setattr("steering.llava._MOST_ROWS", rows)
        assert llava.answers(pictures, QUESTION, edits, max_new_tokens=6) == whole


def rows_into(module, calls: list[tuple[int, int]]):
    """Record (rows, tokens) of each call of a module."""

    def hook(module, inputs, options):
        x = inputs[0] if inputs else options["inputs_embeds"]
        calls.append(tuple(x.shape[:2]))

    return module.register_forward_pre_hook(hook, with_kwargs=True)


def texts_into(llava, monkeypatch) -> list[tuple[int, int]]:
    """(rows, tokens) of each pass of the language model from now on."""
    calls, last_hidden = [], llava._decoder._last_hidden

    def recorded(inputs, memory):
        calls.append(tuple(inputs.shape[:2]))
        return last_hidden(inputs, memory)

    monkeypatch.setattr(llava._decoder, "_last_hidden", recorded)
    return calls


def test_what_steered_answers_share_is_computed_once(llava, pictures, sae, monkeypatch):
    """The tower for each picture, the codes for each picture, the text before the picture for each prompt."""
    edits = [Intervention(sae, llava.site, {j: 8.0}) for j in range(20)]
    first, last, after, codes = [], [], [], []
    blocks, text = llava.vision.tower.blocks, texts_into(llava, monkeypatch)
    handles = [rows_into(m, c) for m, c in ((blocks[0], first), (blocks[3], last), (blocks[4], after))]
    encode, sae.encode = sae.encode, lambda x: codes.append(len(x)) or type(sae).encode(sae, x)
    llava.answers(pictures, QUESTION, edits, max_new_tokens=2)
    for handle in handles:
        handle.remove()
    del sae.encode
    assert encode == sae.encode
    assert first == last == [(3, 17)]
    assert after == []
    assert sum(codes) == 3 * 17
    prefix = len(llava.processor.tokenizer("USER: ")["input_ids"])
    assert text[0] == (1, prefix)
    assert sum(rows for rows, tokens in text[1:] if tokens > 1) == 60
    assert all(tokens < prefix + 16 + 40 for _, tokens in text)


def test_answers_leave_the_model_bit_for_bit_as_it_was(llava, pictures, sae):
    pixels = llava.vision.pixels(pictures)

    def state():
        hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in llava.model.modules())
        return hooks, llava.model.get_image_features(pixels).pooler_output

    state()  # transformers installs its own hooks in the first pass
    hooks, before = state()
    edit = Intervention(sae, "1.attn_out", {5: 30.0})
    llava.answers(pictures, QUESTION, [edit, (edit, Intervention(sae, llava.site, {5: 30.0}))], max_new_tokens=2)
    with pytest.raises(RuntimeError, match="mine"), llava.steered(edit):
        raise RuntimeError("mine")
    hooks_after, after = state()
    assert hooks_after == hooks
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


# Streaming and sampling


def test_streamed_pieces_make_up_the_answer(llava, pictures, sae):
    for edit in (None, *(Intervention(sae, llava.site, {j: 8.0}) for j in range(8))):
        pieces = list(llava.stream(pictures[0], QUESTION, edit, max_new_tokens=24))
        assert "".join(pieces) == llava.generate(pictures[:1], QUESTION, edit, max_new_tokens=24)[0]
        assert all(pieces)


def scripted(llava, monkeypatch, text: str) -> list[str]:
    """The pieces in which a text comes that the model is made to say."""
    ids = llava.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    steps = [{0: token} for token in [*ids, llava.processor.tokenizer.eos_token_id]]
    monkeypatch.setattr(llava._decoder, "tokens", lambda *arguments: iter(steps))
    return list(llava.stream(Image.new("RGB", (32, 32)), QUESTION))


def test_a_piece_ends_where_a_character_does_and_never_in_spaces(llava, monkeypatch):
    assert scripted(llava, monkeypatch, "  an öwl  ✓\n") == ["a", "n", " ö", "w", "l", "  ✓"]


def test_a_broken_character_at_the_end_is_told_at_last(llava, monkeypatch):
    half = llava.processor.tokenizer("ö", add_special_tokens=False)["input_ids"][:1]
    monkeypatch.setattr(llava._decoder, "tokens", lambda *arguments: iter([{0: half[0]}]))
    assert list(llava.stream(Image.new("RGB", (32, 32)), QUESTION)) == ["\ufffd"]


def test_a_stream_asks_before_every_token_whether_to_stop(llava, pictures, monkeypatch):
    calls = texts_into(llava, monkeypatch)
    answers = iter([False, False, True])
    list(llava.stream(pictures[0], QUESTION, max_new_tokens=20, stop=lambda: next(answers)))
    assert len(calls) == 3  # the text before the picture, and two tokens
    assert list(llava.stream(pictures[0], QUESTION, stop=lambda: True)) == []
    assert len(calls) == 3


def test_drawn_answers_depend_on_the_seed_and_not_on_the_batch(llava, pictures):
    def drawn(images, seed):
        return llava.generate(images, QUESTION, max_new_tokens=6, temperature=1.0, seed=seed)

    assert drawn(pictures, 0) == drawn(pictures, 0)
    assert drawn(pictures, 0)[1] == drawn(pictures[1:], 1)[0]
    assert "".join(llava.stream(pictures[0], QUESTION, None, 6, 1.0, seed=5)) == drawn(pictures[:1], 5)[0]
    assert len({drawn(pictures[:1], seed)[0] for seed in range(6)}) > 3


def test_tokens_are_drawn_by_their_probabilities():
    from steering.decoding import TokenSampler

    logits = torch.tensor([[1.0, 3.0, 2.0, -50.0]]).repeat(4000, 1)
    drawn = torch.tensor(TokenSampler(0.5, range(4000))(logits, range(4000))).bincount(minlength=4) / 4000
    assert (drawn - (logits[0] / 0.5).softmax(0)).abs().max() < 0.03


# Loading


def test_the_tower_is_an_encoder_with_the_models_own_values(llava_of, pictures):
    for family, site, index in (
        ("llava 1.5", "3.resid_post", -2),
        ("siglip, full", "4.resid_post", -1),
        ("mistral", "2.resid_post", 3),
    ):
        llava = llava_of(family)
        assert llava.site == site
        pixels = llava.vision.pixels(pictures)
        states = llava.model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
        assert torch.equal(llava.vision.run(pixels, [site])[site], states[index])
        own = llava.processor(images=pictures, text=["<image>"] * 3, return_tensors="pt")["pixel_values"]
        assert torch.equal(pixels, own)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_lower_precision_is_that_of_the_weights_and_answers_as_published(folder_of, pictures, sae, dtype):
    llava = load_llava(f"hf:{folder_of()}", device="cpu", dtype=dtype)
    assert {str(p.dtype) for p in llava.model.parameters()} == {f"torch.{dtype}"}
    edit = Intervention(sae, llava.site, {5: 8.0}, keep_error=False)
    with llava.steered(edit):
        expected = published(llava, pictures[0], QUESTION, 4)
    assert llava.generate(pictures[:1], QUESTION, edit, max_new_tokens=4) == [expected]
    pixels = llava.vision.pixels(pictures)
    states = llava.model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
    assert torch.equal(llava.vision.run(pixels, [llava.site])[llava.site], states[-2].float())


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}])
def test_a_device_map_places_the_model(folder_of, llava, pictures, device_map):
    placed = load_llava(f"hf:{folder_of()}", dtype="float32", device_map=device_map)
    assert placed.generate(pictures, QUESTION, max_new_tokens=4) == llava.generate(pictures, QUESTION, max_new_tokens=4)


@pytest.mark.parametrize("place", ["disk", "split"])
def test_a_device_map_that_splits_or_offloads_the_tower_is_refused(folder_of, tmp_path, place):
    parts = ["model.vision_tower.embeddings", "model.vision_tower.pre_layrnorm", "model.vision_tower.post_layernorm"]
    blocks = [f"model.vision_tower.encoder.layers.{i}" for i in range(5)]
    others = ["model.multi_modal_projector", "model.language_model", "lm_head"]
    placed = dict.fromkeys([*parts, *blocks, *others], "cpu")
    placed |= dict.fromkeys([*parts, *blocks] if place == "disk" else blocks[2:], "disk")
    with pytest.raises(ValueError, match=r"splits or offloads the image tower: give model.vision_tower one device"):
        load_llava(f"hf:{folder_of()}", dtype="float32", device_map=placed)


def test_a_text_model_that_is_offloaded_answers_the_same(folder_of, llava, pictures):
    placed = dict.fromkeys(["model.vision_tower", "model.multi_modal_projector", "lm_head"], "cpu")
    placed["model.language_model"] = "disk"
    offloaded = load_llava(f"hf:{folder_of()}", dtype="float32", device_map=placed)
    assert offloaded.generate(pictures, QUESTION, max_new_tokens=4) == llava.generate(
        pictures, QUESTION, max_new_tokens=4
    )


def test_the_embedded_llava_loads_like_a_folder_of_the_hub(folder_of, llava, pictures, monkeypatch):
    monkeypatch.setattr("menagerie.shipped.TINY_LLAVA", folder_of())
    tiny = load_llava("tiny", device="cpu")
    assert tiny.generate(pictures, QUESTION, max_new_tokens=4) == llava.generate(pictures, QUESTION, max_new_tokens=4)


def test_the_prompt_is_the_chat_templates_or_that_of_llava_1_5(llava_of):
    expected = f"USER: <image>\n{QUESTION} ASSISTANT:"
    assert llava_of("llava 1.5")._chat(QUESTION) == expected
    assert llava_of("tied, no template")._chat(QUESTION) == expected


def test_a_template_that_begins_the_text_itself_does_not_begin_it_twice(folder_of, tmp_path, pictures):
    folder = shutil.copytree(folder_of(), tmp_path / "copy")
    template = folder / "chat_template.jinja"
    template.write_text("{{ bos_token }}" + template.read_text())
    changed, plain = (load_llava(f"hf:{f}", device="cpu") for f in (folder, folder_of()))
    assert changed._chat(QUESTION).startswith("<s>USER")
    assert changed.generate(pictures, QUESTION, max_new_tokens=4) == plain.generate(
        pictures, QUESTION, max_new_tokens=4
    )


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"prompt": "  "}, "the prompt is empty"),
        ({"prompt": "What is <image>?"}, "leave <image> out of the prompt"),
        ({"prompt": ["a", "b"]}, "2 prompts for 1 pictures"),
        ({"prompt": "owl " * 100}, "take 1.. tokens, and the model reads 128: shorten"),
        ({"max_new_tokens": 100}, "or lower max_new_tokens"),
        ({"max_new_tokens": 0}, "at least 1"),
        ({"temperature": -1.0}, "a temperature is 0"),
        ({"images": []}, "there are no pictures"),
        ({"images": Image.new("RGB", (32, 32))}, r"write \[image\]"),
        ({"images": ["a.png"]}, "'a.png' is no opened picture: open it with PIL's Image.open"),
    ],
)
def test_a_wrong_question_is_an_error_that_says_what_to_do(llava, arguments, sentence):
    question = {"images": [Image.new("RGB", (32, 32))], "prompt": QUESTION, **arguments}
    with pytest.raises(ValueError, match=sentence):
        llava.generate(**question)


def test_a_stream_refuses_a_wrong_question_at_once(llava):
    with pytest.raises(ValueError, match="the prompt is empty"):
        llava.stream(Image.new("RGB", (32, 32)), "")


@pytest.mark.parametrize(
    ("site", "d", "sentence"),
    [
        ("5.resid_post", 24, "has layers 0 to 4"),
        ("4.mlp_out", 24, r"an intervention at 4\.mlp_out changes no answer: the language model reads 3\.resid_post"),
        ("proj", 24, "an intervention at proj changes no answer"),
        ("3.resid_post", 32, "of width 32, and 3.resid_post of .* has width 24"),
    ],
)
def test_an_intervention_that_does_not_fit_is_an_error(llava, pictures, site, d, sentence):
    edit = Intervention(Neurons(d), site, {0: 1.0})
    with pytest.raises(ValueError, match=sentence):
        llava.answers(pictures, QUESTION, [None, edit])
    with pytest.raises(ValueError, match=sentence):
        llava.steered(edit)


@pytest.mark.parametrize("spec", ["llava", "hf:", "open_clip:ViT-B-32/none"])
def test_an_unknown_spec_says_what_to_write(spec):
    with pytest.raises(ValueError, match="write tiny, hf:NAME or hf:FOLDER"):
        load_llava(spec)


def test_a_missing_folder_or_file_is_named(folder_of, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no LLaVA in .*nowhere"):
        load_llava("hf:./nowhere")
    for files, sentence in {
        ("model.safetensors",): r"no model\.safetensors in .*LlavaForConditionalGeneration",
        ("processor_config.json",): r"no preprocessor_config\.json",
        ("tokenizer.json",): r"no tokenizer in",
    }.items():
        folder = shutil.copytree(folder_of(), tmp_path / files[0])
        for file in files:
            (folder / file).unlink()
        with pytest.raises(FileNotFoundError, match=sentence):
            load_llava(f"hf:{folder}", device="cpu")


def changed(folder, copy, **settings):
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    config = {key: value | settings.get(key, {}) if isinstance(value, dict) else value for key, value in config.items()}
    config |= {key: value for key, value in settings.items() if not isinstance(value, dict)}
    (copy / "config.json").write_text(json.dumps(config))
    return copy


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"model_type": "llava_next"}, "a 'llava_next' model, which cuts or pools its pictures otherwise"),
        ({"model_type": "llama"}, "a 'llama' model, and no LLaVA; take one of the model_type 'llava'"),
        ({"vision_feature_layer": [-2, -3]}, r"reads several layers at once"),
        ({"vision_feature_layer": -6}, "vision_feature_layer -6 is the output of none of its 5 blocks"),
        ({"vision_config": {"model_type": "pixtral"}}, "its image tower is a 'pixtral'"),
    ],
)
def test_what_cannot_be_steered_is_refused(folder_of, tmp_path, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        load_llava(f"hf:{changed(folder_of(), tmp_path / 'copy', **settings)}", device="cpu")


SETTINGS = {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "bad_words_ids": [[70]], "num_beams": 3}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_would_change_answers_are_told(folder_of, tmp_path, name):
    folder = shutil.copytree(folder_of(), tmp_path / "copy")
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: SETTINGS[name]}))
    with pytest.warns(UserWarning, match=f"generation_config of .* sets {name}, which this library does not apply"):
        load_llava(f"hf:{folder}", device="cpu")


def test_settings_that_change_nothing_or_are_of_sampling_go_unmentioned(folder_of, tmp_path, recwarn):
    folder = shutil.copytree(folder_of(), tmp_path / "copy")
    path, silent = folder / "generation_config.json", {"repetition_penalty": 1.0, "num_beams": 1, "temperature": 0.2}
    path.write_text(json.dumps(json.loads(path.read_text()) | silent | {"do_sample": True, "top_p": 0.7}))
    load_llava(f"hf:{folder}", device="cpu")
    assert not [warning for warning in recwarn if "does not apply" in str(warning.message)]


def test_a_clip_is_no_llava(tmp_path):
    with pytest.raises(ValueError, match="a 'clip' model, and no LLaVA"):
        load_llava(f"hf:{hugging_face_folder(tmp_path / 'clip', 'clip')}", device="cpu")


def test_weights_that_would_be_random_are_an_error(folder_of, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(folder_of(), tmp_path / "copy")
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "multi_modal_projector" in name)
    del weights[name]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="lacks 1 weights of a LlavaForConditionalGeneration"):
        load_llava(f"hf:{folder}", device="cpu")


def test_an_unreachable_hub_is_a_connection_error(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match=r"hf:nobody/llava is not in the cache, and HF_HUB_OFFLINE"):
        load_llava("hf:nobody/llava", device="cpu")


def test_a_device_map_without_accelerate_says_so(folder_of, monkeypatch):
    monkeypatch.setattr("steering.llava.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install accelerate"):
        load_llava(f"hf:{folder_of()}", device_map="auto")


def test_without_the_repository_the_embedded_llava_says_where_it_is(monkeypatch, tmp_path):
    monkeypatch.setattr("menagerie.shipped.TINY_LLAVA", tmp_path / "assets/tiny/llava")
    with pytest.raises(FileNotFoundError, match="clone the repository"):
        load_llava("tiny")
