"""widgets.SteeringPanel: what the page holds of it, and how it answers a page that has a kernel behind it."""

import io
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from steering.interventions import Intervention
from tests.small_steering import GRID, PROMPTS, SAE, SITE, SpeakingLlava, described, pictures
from widgets import SteeringPanel
from widgets.packing import unpack
from widgets.steering_kernel import MOST_LETTERS, MOST_RUNS, MOST_SIDE, MOST_TOKENS, Answering
from widgets.steering_panel import steering_features, strength, write_page_files

ALPHAS = [-1, 0, 2]
CLAMP = {"features": [[1, 6.0]], "mode": "clamp", "tokens": "all", "keep_error": True}


def panel(llava=None, **options):
    options = {"alphas": ALPHAS, "stored": (2, 3, 1)} | options
    return SteeringPanel(llava or SpeakingLlava(), SAE, SITE, pictures(), described(), PROMPTS, **options)


class TestWhatThePageHolds:
    def test_every_pixel_of_the_pictures(self):
        widget = panel()
        layout = widget.meta["picture_sheets"]
        sheet = Image.open(io.BytesIO(widget.pictures)).convert("RGB")
        for place, picture in enumerate(pictures()):
            left = layout["size"] * place
            shown = sheet.crop((left, 0, left + layout["size"], layout["size"]))
            np.testing.assert_array_equal(np.asarray(shown), np.asarray(picture))

    def test_stored_answers_are_those_of_the_model(self):
        llava, widget = SpeakingLlava(), panel(stored=(2, 3, 2))
        edits = [(None, None), *((f["feature"], alpha) for f in described()[:3] for alpha in ALPHAS)]
        expected = []
        for prompt in PROMPTS:
            for i, picture in enumerate(pictures()[:2]):
                for feature, alpha in edits:
                    steered = alpha is not None and {feature: alpha * described()[feature]["max"]}
                    edit = Intervention(SAE, SITE, steered) if steered else None
                    text = llava.text(picture, prompt, edit)
                    expected.append({"prompt": prompt, "picture": i, "feature": feature, "alpha": alpha, "text": text})
        assert widget.stored_answers() == expected

    def test_a_text_that_is_said_often_is_stored_once(self):
        texts = panel().meta["texts"]
        assert len(texts) == len(set(texts))

    def test_without_a_grid_there_are_no_answers(self):
        widget = panel(stored=(0, 0, 0))
        assert widget.meta["stored"] == {"pictures": 0, "features": 0, "prompts": 0}
        assert widget.meta["texts"] == []

    def test_features_keep_what_is_known_of_them_and_their_pictures(self):
        shown = panel().meta["features"]
        assert [(f["feature"], f["name"], f["max"]) for f in shown[:2]] == [(0, "owl", 2.0), (1, "cat", 3.0)]
        assert [f["top"] for f in shown] == [[i] for i in range(6)]

    def test_the_largest_code_of_every_feature_where_it_is_given(self):
        widget = panel(peaks=np.arange(6))
        np.testing.assert_array_equal(unpack(widget.meta["arrays"], widget.numbers)["peaks"], np.arange(6))

    def test_state_size_is_what_a_saved_notebook_holds(self):
        widget = panel()
        binary = len(widget.pictures) + len(widget.numbers) + len(widget.sprites)
        assert 4 / 3 * binary < widget.state_size < 4 / 3 * binary + 400_000


class TestStrength:
    def test_is_in_units_of_the_maximum_and_keeps_four_digits(self):
        assert strength({"max": 1.23456}, 2, "clamp") == 2.469

    def test_of_a_scale_is_a_plain_factor(self):
        assert strength({"max": 7.0}, -1, "scale") == -1


class Line:
    """What a page hears of an `Answering`, in order, and how long it may take to."""

    def __init__(self, llava):
        self.heard, self.news = [], threading.Condition()
        self.answering = Answering(llava, SAE, SITE, pictures(), self.take)

    def take(self, message):
        with self.news:
            self.heard.append(message)
            self.news.notify_all()

    def say(self, *, buffers=(), **message):
        self.answering.receive(message, buffers)

    def ask(self, request=1, picture=0, prompt=PROMPTS[0], edits=(None,), buffers=(), tokens=9):
        asked = {"request": request, "picture": picture, "prompt": prompt, "edits": edits, "max_new_tokens": tokens}
        self.say(kind="answer", buffers=buffers, **asked)

    def until(self, kind, request=None):
        def there():
            return [m for m in self.heard if m["kind"] == kind and m.get("request") == request]

        with self.news:
            assert self.news.wait_for(there, timeout=20), self.heard
        return there()[0]

    def text(self, request=1, run=0):
        own = [m for m in self.heard if m["kind"] == "text" and (m["request"], m["run"]) == (request, run)]
        return "".join(m["text"] for m in own)


class TestAnswersOfTheKernel:
    def test_a_ping_is_answered(self):
        line = Line(SpeakingLlava())
        line.say(kind="ping")
        assert line.heard == [{"kind": "pong"}]

    def test_a_text_comes_in_pieces_and_ends_with_done(self):
        line = Line(SpeakingLlava())
        line.ask(edits=[CLAMP])
        line.until("done", 1)
        assert [m["text"] for m in line.heard if m["kind"] == "text"] == ["red0", " What", " is", " shown?", " cat=6"]

    def test_unsteered_and_steered_are_two_runs_of_one_request(self):
        line = Line(SpeakingLlava())
        line.ask(picture=2, edits=[None, CLAMP])
        while sum(m["kind"] == "done" for m in line.heard) < 2:
            time.sleep(0.01)
        assert line.text(run=0) == "red20 What is shown?"
        assert line.text(run=1) == "red20 What is shown? cat=6"

    def test_a_ping_is_answered_while_a_text_is_made(self):
        line = Line(SpeakingLlava(wait=0.1))
        line.ask()
        line.until("text", 1)
        line.say(kind="ping")
        assert line.heard[-1] == {"kind": "pong"}

    def test_the_readers_own_picture_comes_pixel_by_pixel(self):
        line = Line(SpeakingLlava())
        own = np.full((8, 8, 4), 255, dtype=np.uint8)
        own[0, 0, 0] = 77
        line.ask(picture=None, buffers=[own.tobytes()])
        line.until("done", 1)
        assert line.text().startswith("red77 ")

    def test_a_mask_of_patches_reaches_the_intervention(self):
        edits = []
        llava = SpeakingLlava()
        llava.stream = lambda image, prompt, intervention, **options: edits.append(intervention) or iter(())
        line = Line(llava)
        mask = [[(row, column) == (2, 3) for column in range(GRID[1])] for row in range(GRID[0])]
        line.ask(edits=[CLAMP | {"tokens": mask}])
        line.until("done", 1)
        assert edits[0] == Intervention(SAE, SITE, {1: 6.0}, tokens=torch.tensor(mask), keep_error=True)


class TestStopping:
    def test_a_cancelled_text_ends_early_and_says_so(self):
        line = Line(SpeakingLlava(wait=0.05))
        line.ask(prompt="a very long prompt " * 100)
        line.until("text", 1)
        line.say(kind="cancel")
        line.until("stopped", 1)
        assert len(line.text().split()) < 100

    def test_a_newer_request_takes_the_place_of_the_older(self):
        line = Line(SpeakingLlava(wait=0.02))
        line.ask(request=1, prompt="a very long prompt " * 100)
        line.until("text", 1)
        line.ask(request=2)
        line.until("done", 2)
        kinds = [(m["kind"], m["request"]) for m in line.heard]
        assert ("stopped", 1) in kinds
        assert kinds.index(("stopped", 1)) < kinds.index(("text", 2))
        assert ("done", 1) not in kinds

    def test_of_many_quick_requests_only_the_last_is_answered_to_the_end(self):
        llava = SpeakingLlava(wait=0.02)
        line = Line(llava)
        for request in range(1, 9):
            line.ask(request=request)
        line.until("done", 8)
        assert [m["request"] for m in line.heard if m["kind"] == "done"] == [8]


class TestWhatGoesWrong:
    @pytest.mark.parametrize(
        ("asked", "sentence"),
        [
            ({"prompt": "  "}, "The prompt is empty: type a question about the picture."),
            ({"edits": [CLAMP | {"features": [[9, 1.0]]}]}, "no feature 9: the dictionary has features 0 to 5"),
            ({"edits": [CLAMP | {"mode": "melt"}]}, "The panel cannot 'melt' a feature"),
            ({"picture": None, "buffers": [b"12345"]}, "is not a square: choose or draw it again."),
            ({"picture": None}, "is not a square: choose or draw it again."),
            (
                {"picture": None, "buffers": [bytes(4 * (MOST_SIDE + 1) ** 2)]},
                "2,049 pixels wide: choose one of at most",
            ),
            ({"picture": -1}, "and no -1."),
            ({"picture": 99}, "and no 99."),
            ({"prompt": "?" * (MOST_LETTERS + 1)}, "requests of 1 to 4,000 letters, not 4,001."),
            ({"tokens": MOST_TOKENS + 1}, "requests of 1 to 1,024 tokens, not 1,025."),
            ({"tokens": 0}, "requests of 1 to 1,024 tokens, not 0."),
            ({"edits": [None] * (MOST_RUNS + 1)}, "requests of 1 to 64 runs, not 65."),
            ({"edits": []}, "requests of 1 to 64 runs, not 0."),
        ],
    )
    def test_is_told_in_one_sentence(self, asked, sentence):
        line = Line(SpeakingLlava())
        line.ask(**asked)
        told = line.until("error", 1)["text"]
        assert sentence in told
        assert "\n" not in told

    def test_an_error_of_another_kind_keeps_its_name_and_the_next_request_is_answered(self):
        llava = SpeakingLlava()
        stream, llava.stream = llava.stream, lambda *args, **options: 1 / 0
        line = Line(llava)
        line.ask(request=1)
        assert line.until("error", 1)["text"] == "ZeroDivisionError: division by zero"
        llava.stream = stream
        line.ask(request=2)
        line.until("done", 2)


def test_features_are_described_by_their_names_peaks_and_most_active_pictures():
    top = np.array([[2, 0], [1, -1], [-1, -1]])
    found = steering_features({1: "cat", 0: "owl"}, top, ["a", "b", "c"], [4.0, 9.0, 0.0], {1: "F1 0.9"})
    assert [(f["feature"], f["name"], f["max"], f["note"]) for f in found] == [
        (1, "cat", 9.0, "F1 0.9"),
        (0, "owl", 4.0, ""),
    ]
    assert [f["pictures"] for f in found] == [["b"], ["c", "a"]]


def test_page_files_hold_the_sae_and_count_what_a_reader_loads(tmp_path):
    llava = tmp_path / "llava"
    llava.mkdir()
    (llava / "model.safetensors").write_bytes(bytes(100))

    def save(folder):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(bytes(23))

    told = write_page_files(tmp_path / "page_files" / "steering", SimpleNamespace(save=save), llava)
    assert told == {"llava": "llava/", "sae": "page_files/steering/sae/", "bytes": 123}
    assert (tmp_path / "page_files" / "steering" / "sae" / "model.safetensors").is_file()


class TestWhatDoesNotFit:
    @pytest.mark.parametrize("name", ["images", "features", "prompts"])
    def test_nothing_to_choose_from(self, name):
        parts = {"images": pictures(), "features": described(), "prompts": PROMPTS} | {name: []}
        with pytest.raises(ValueError, match=f"{name} is empty"):
            SteeringPanel(SpeakingLlava(), SAE, SITE, **parts)

    def test_a_feature_that_the_sae_does_not_have(self):
        with pytest.raises(ValueError, match="there is no feature 77: this SAE has 6"):
            SteeringPanel(SpeakingLlava(), SAE, SITE, pictures(), [described()[0] | {"feature": 77}], PROMPTS)

    def test_a_feature_without_its_maximum(self):
        with pytest.raises(ValueError, match="a feature lacks max"):
            SteeringPanel(SpeakingLlava(), SAE, SITE, pictures(), [{"feature": 1, "name": "owl"}], PROMPTS)

    def test_labels_of_another_number(self):
        with pytest.raises(ValueError, match="labels has 1 entries for 3 pictures"):
            panel(labels=["owl"])

    def test_a_start_that_no_answer_is_stored_at(self):
        with pytest.raises(ValueError, match=r"start is 3: choose one of the strengths"):
            panel(start=3)

    def test_files_for_a_browser_where_the_language_model_reads_another_layer(self):
        llava = SpeakingLlava()
        llava.site = "5.resid_post"
        with pytest.raises(ValueError, match=r"a browser steers 5.resid_post, .* not 6.resid_post: leave page_files"):
            panel(llava, page_files={"llava": "llava/", "sae": "sae/", "bytes": 1})

    def test_an_unknown_mode(self):
        with pytest.raises(ValueError, match="mode is 'melt'"):
            panel(mode="melt")
