"""The LLaVA that runs in the reader's browser against Python's, token for token; what it says when it cannot run."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser, Error, Page

from lib.images.image_set import load_images
from lib.sae.model import SAE, SAEConfig
from steering.interventions import Intervention
from steering.llava import Llava, load_llava
from tests.small_llava import llava_folder
from widgets.llava_scripts import client_source

pytestmark = pytest.mark.browser

PROMPT = "Describe this image."
N_PICTURES = 4
TOKENS = 20  # of an answer, at most

BEGIN = """async ({ llava, sae, plain }) => {
    const source = plain ? LLAVA_ENGINE_SOURCE.replace("WasmKernels.supported()", "false") : undefined;
    window.progress = [];
    window.engine?.terminate();
    window.engine = await startLlava({ llava, sae }, (fraction) => progress.push(fraction), source);
    return engine.info;
}"""
SEE = "(pixels) => engine.see(Uint8ClampedArray.from(pixels))"
ASK = """async ([picture, prompt, intervention, maxNewTokens]) => {
    const tokens = intervention?.tokens ? Uint8Array.from(intervention.tokens) : null;
    const pieces = [];
    const onToken = (_, text) => pieces.push(text);
    const edit = intervention && { ...intervention, tokens };
    const answer = await engine.generate(picture, prompt, edit, { maxNewTokens, onToken });
    return { ...answer, pieces };
}"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args) -> None:
        pass


def a_dictionary(d: int, kind: str = "matryoshka", threshold: str = "scalar") -> SAE:
    """An SAE of random directions, of which some exceed the threshold on any token."""
    sae = SAE(SAEConfig(kind=kind, expansion=2, k=8, threshold=threshold), d)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        sae.b_dec.copy_(0.1 * torch.randn(d, generator=generator))
        sae.b_enc.copy_(0.1 * torch.randn(sae.n_features, generator=generator))
        sae.threshold.copy_(0.5 + torch.rand(sae.threshold.shape, generator=generator))
    return sae


def edits(llava: Llava, sae: SAE, strength: float) -> list[Intervention]:
    """Fifteen ways of steering: every mode, kept and dropped errors, all and some tokens, one feature and several."""
    half = [i % 3 == 0 for i in range(llava.vision.n_tokens)]
    ways = [{"mode": "clamp"}, {"mode": "add", "tokens": half}, {"mode": "scale", "keep_error": False},
            {"mode": "suppress"}, {"mode": "clamp", "keep_error": False, "tokens": half}]  # fmt: skip
    return [
        Intervention(sae, llava.site, {2 * i: strength * i, 2 * i + 3: strength}, **ways[i % len(ways)])
        for i in range(1, 16)
    ]


def in_the_page(intervention: Intervention | None, llava: Llava) -> dict | None:
    if intervention is None:
        return None
    described = intervention.describe()
    mask = intervention.mask(llava.vision)
    return {
        "features": described["features"],
        "mode": described["mode"],
        "tokens": None if mask is None else mask.flatten().int().tolist(),
        "keepError": described["keep_error"],
    }


def tokens_of(llava: Llava, pictures: list[Image.Image], intervention: Intervention | None) -> list[list[int]]:
    """Greedy answers by transformers' own `generate`, a row for each picture, each up to its end."""
    text = f"USER: <image>\n{PROMPT} ASSISTANT:"
    inputs = llava.processor(images=pictures, text=[text] * len(pictures), return_tensors="pt")
    inputs["pixel_values"] = llava.vision.pixels(pictures)
    options = {"max_new_tokens": TOKENS, "do_sample": False}
    with llava.steered(*([intervention] if intervention else [])):
        rows = llava.model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :].tolist()
    ends = torch.tensor(llava.model.generation_config.eos_token_id).flatten().tolist()
    lengths = [next((i + 1 for i, token in enumerate(row) if token in ends), len(row)) for row in rows]
    return [row[:length] for row, length in zip(rows, lengths, strict=True)]


@dataclass
class Case:
    """A LLaVA with a dictionary and pictures, and its folder below `_static`."""

    llava: Llava
    sae: SAE
    pictures: list[Image.Image]
    name: str

    def rgba(self, picture: int) -> list[int]:
        size = self.llava.model.config.vision_config.image_size
        return list(self.pictures[picture].convert("RGBA").resize((size, size)).tobytes())

    @property
    def places(self) -> dict:
        return {"llava": f"../_static/{self.name}/llava/", "sae": f"../_static/{self.name}/sae/"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A site with the engine on a page, laid out as the book is."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "_static").mkdir()
    (folder / "_static" / "here.js").write_text("")
    (folder / "notebooks").mkdir()
    (folder / "notebooks" / "page.html").write_text(
        "<!doctype html><meta charset=utf-8><script src='../_static/here.js'></script>"
        f"<script>{client_source().replace('</', '<' + chr(92) + '/')}</script>"
    )
    return folder


@pytest.fixture(scope="module")
def tiny(folder, root) -> Case:
    """The embedded LLaVA."""
    shutil.copytree(root / "assets/tiny/llava", folder / "_static/tiny/llava")
    llava = load_llava("tiny", device="cpu")
    sae = a_dictionary(llava.vision.d_model)
    sae.save(folder / "_static/tiny/sae")
    images = load_images("menagerie:val")
    return Case(llava, sae, [images[37 * i] for i in range(N_PICTURES)], "tiny")


@pytest.fixture(scope="module")
def random(folder) -> Case:
    """A LLaVA of random weights: odd sizes, shared keys, many end tokens, thresholds of each feature's own."""
    place = llava_folder(folder / "_static/random/llava", "many ends")
    llava = load_llava(f"hf:{place}", device="cpu")
    sae = a_dictionary(llava.vision.d_model, kind="batchtopk", threshold="per_feature")
    sae.save(folder / "_static/random/sae")
    images = load_images("menagerie:val")
    pictures = [images[i].resize((32, 32)) for i in range(N_PICTURES)]
    return Case(llava, sae, pictures, "random")


@pytest.fixture(scope="module")
def address(folder) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def page(browser: Browser, address: str) -> Iterator[Page]:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{address}/notebooks/page.html")
    yield page
    context.close()


@pytest.fixture
def begin(page) -> Callable[..., dict]:
    """Starts the engine on a case; returns its info."""
    return lambda case, **options: page.evaluate(BEGIN, case.places | options)


def compare(page: Page, case: Case, interventions: list[Intervention | None]) -> int:
    """Asks for every picture and intervention in the browser and in Python; returns how many different answers."""
    numbers = [page.evaluate(SEE, case.rgba(picture)) for picture in range(len(case.pictures))]
    different = set()
    for intervention in interventions:
        expected = tokens_of(case.llava, case.pictures, intervention)
        for number, ids in zip(numbers, expected, strict=True):
            answer = page.evaluate(ASK, [number, PROMPT, in_the_page(intervention, case.llava), TOKENS])
            assert answer["ids"] == ids, (intervention, answer["text"])
            different.add(tuple(ids))
    return len(different)


class TestTheSameAnswersAsPython:
    def test_sixty_four_pictures_features_and_strengths_give_the_same_tokens(self, page, begin, tiny):
        begin(tiny)
        assert compare(page, tiny, [None, *edits(tiny.llava, tiny.sae, strength=15.0)]) > 20

    def test_so_do_random_weights_of_odd_sizes(self, page, begin, random):
        begin(random)
        assert compare(page, random, [None, *edits(random.llava, random.sae, strength=0.4)[:6]]) > 8

    def test_so_does_plain_javascript_where_there_is_no_webassembly(self, page, begin, random):
        assert begin(random, plain=True)["kernel"] == "JavaScript"
        assert compare(page, random, [None, *edits(random.llava, random.sae, strength=0.4)[:2]]) > 2

    def test_the_text_is_what_generate_returns_and_the_pieces_add_up_to_it(self, page, begin, tiny):
        begin(tiny)
        steer = edits(tiny.llava, tiny.sae, strength=15.0)[0]
        answer = page.evaluate(ASK, [page.evaluate(SEE, tiny.rgba(0)), PROMPT, in_the_page(steer, tiny.llava), TOKENS])
        assert [answer["text"]] == tiny.llava.generate(tiny.pictures[:1], PROMPT, steer, max_new_tokens=TOKENS)
        assert "".join(answer["pieces"]).strip() == answer["text"]

    def test_the_codes_are_the_dictionary_s(self, page, begin, tiny):
        info = begin(tiny)
        number = page.evaluate(SEE, tiny.rgba(1))
        codes = page.evaluate("async (number) => Array.from(await engine.codes(number))", number)
        with torch.no_grad():
            x = tiny.llava.vision.run(tiny.llava.vision.pixels(tiny.pictures[1:2]), [tiny.llava.site])[tiny.llava.site]
            expected = tiny.sae.encode(x)[0]
        assert (info["tokens"], info["features"]) == tuple(expected.shape)
        torch.testing.assert_close(torch.tensor(codes).view(expected.shape), expected, atol=1e-4, rtol=1e-4)


class TestLoading:
    def test_the_progress_rises_to_one(self, page, begin, tiny):
        begin(tiny)
        progress = page.evaluate("progress")
        assert len(progress) > 2
        assert progress[-1] == 1
        assert progress == sorted(progress)

    def test_the_book_s_static_folder_is_found_from_a_page_of_it(self, page, address):
        assert page.evaluate("bookStatic('llava/')") == f"{address}/_static/llava/"

    def test_nothing_is_loaded_from_a_file_and_the_reason_is_said(self, browser, folder):
        context = browser.new_context()
        page = context.new_page()
        page.goto((folder / "notebooks/page.html").as_uri())
        with pytest.raises(Error, match="opened from a file"):
            page.evaluate(BEGIN, {"llava": "llava/", "sae": "sae/"})
        context.close()

    @pytest.mark.parametrize(
        ("spoil", "reason"),
        [
            (lambda llava: (llava / "tokenizer.json").unlink(), "tokenizer.json could not be loaded.*404"),
            (lambda llava: (llava / "config.json").write_text("{"), "config.json is not JSON"),
            (lambda llava: cut_short(llava / "model.safetensors"), "not a complete safetensors file"),
            (lambda llava: change(llava / "config.json", model_type="llava_next"), "runs LLaVA models, not llava_next"),
            (lambda llava: change(llava.parent / "sae/config.json", d=5), "reads activations of width 5"),
            (lambda llava: change(llava.parent / "sae/config.json", width=5), "calls for"),
        ],
    )
    def test_files_that_are_missing_damaged_or_of_another_model_are_named(
        self, page, begin, random, folder, tmp_path_factory, spoil, reason
    ):
        place = folder / "_static" / tmp_path_factory.mktemp("spoilt").name
        shutil.copytree(folder / "_static/random", place)
        spoil(place / "llava")
        with pytest.raises(Error, match=reason):
            begin(Case(random.llava, random.sae, [], place.name))


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def change(file: Path, **values) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


class TestAnswering:
    @pytest.mark.parametrize(
        ("prompt", "intervention", "reason"),
        [
            ("Where is <image>?", None, "picture stands before it"),
            (" ", None, "The prompt is empty"),
            ("a " * 300, None, "The prompt is too long"),
            ("Hello", {"features": {"100000": 1}}, "There is no feature 100000"),
            ("Hello", {"features": {"1": 1}, "mode": "invert"}, "The mode is clamp, add, scale, suppress, not invert"),
        ],
    )
    def test_a_question_that_cannot_be_answered_is_refused_in_a_sentence(
        self, page, begin, random, prompt, intervention, reason
    ):
        begin(random)
        picture = page.evaluate(SEE, random.rgba(0))
        with pytest.raises(Error, match=reason):
            page.evaluate(ASK, [picture, prompt, intervention, 4])

    def test_a_picture_of_another_size_is_refused(self, page, begin, random):
        begin(random)
        with pytest.raises(Error, match="A picture has 32 x 32 pixels"):
            page.evaluate(SEE, [0] * 16)

    def test_a_cancelled_answer_rejects_and_the_next_one_is_whole(self, page, begin, tiny):
        begin(tiny)
        picture = page.evaluate(SEE, tiny.rgba(0))
        whole = page.evaluate(ASK, [picture, PROMPT, None, 20])
        seen, name, after = page.evaluate(
            """async ([picture, prompt]) => {
                const stop = new AbortController();
                const tokens = [];
                const onToken = (id) => tokens.push(id) === 2 && stop.abort();
                const options = { maxNewTokens: 20, onToken, signal: stop.signal };
                const cancelled = engine.generate(picture, prompt, null, options);
                const next = engine.generate(picture, prompt, null, { maxNewTokens: 20 });
                const name = await cancelled.catch((error) => error.name);
                return [tokens, name, await next];
            }""",
            [picture, PROMPT],
        )
        assert name == "AbortError"
        assert seen == whole["ids"][:2]
        assert after["ids"] == whole["ids"]

    def test_an_engine_that_was_stopped_rejects_what_is_under_way(self, page, begin, random):
        begin(random)
        picture = page.evaluate(SEE, random.rgba(0))
        reasons = page.evaluate(
            """async ([picture, prompt]) => {
                const running = engine.generate(picture, prompt, null, {});
                engine.terminate();
                const asked = [running, engine.codes(picture)];
                return Promise.all(asked.map((answer) => answer.catch((error) => error.message)));
            }""",
            [picture, PROMPT],
        )
        assert reasons == ["The model was stopped."] * 2


class TestTheTokenizer:
    TEXTS = (
        "Describe this image.", "  two  spaces\n\n and lines\t", "it's WE'LL they've", "naïve café Übergröße",
        "12345 a1b2", "猫と犬 🦉🏳️‍🌈", "a\u0085b\u00a0c\ufeffd\u2003e", "<s> inside </s> <unk><pad>", "…—“quotes”",
        "", "x" * 50,
    )  # fmt: skip

    def test_any_text_becomes_the_ids_that_transformers_gives(self, page, begin, tiny):
        begin(tiny)
        tokenizer = tiny.llava.processor.tokenizer
        script = f"""async (texts) => {{
            {client_source().splitlines()[0]}
            const make = new Function(`${{LLAVA_ENGINE_SOURCE.replace(/const worker =[^]*$/, "")}}; return Tokenizer;`);
            const tokenizer = new (make())(await (await fetch("../_static/tiny/llava/tokenizer.json")).json());
            return texts.map((text) => [tokenizer.encode(text), tokenizer.decode(tokenizer.encode(text))]);
        }}"""
        for text, (ids, back) in zip(self.TEXTS, page.evaluate(script, list(self.TEXTS)), strict=True):
            assert ids == tokenizer(text)["input_ids"], text
            assert back == tokenizer.decode(ids, skip_special_tokens=True), text
