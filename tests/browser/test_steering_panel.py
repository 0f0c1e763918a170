"""The steering panel as a reader uses it: with a kernel, with the model in the browser, with stored answers."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from steering.interventions import Intervention
from tests.browser.manners import colours_of_themes, without_a_name
from tests.browser.steering_pages import SteeringPage, write_page
from tests.browser.voila_pages import open_served, served
from tests.small_steering import PROMPTS, SAE, SITE, SpeakingLlava, described, pictures
from widgets import SteeringPanel

PATH = "notebooks/06a_steering_panel.html"
VOILA_NOTEBOOK = """
import torch
from lib import SAE, SAEConfig, load_images, load_llava
from widgets import SteeringPanel
llava, images = load_llava("tiny"), [load_images("menagerie:val")[i] for i in range(3)]
torch.manual_seed(0)
sae = SAE(SAEConfig(kind="relu", expansion=1), llava.vision.d_model)
features = [{"feature": j, "name": f"direction {j}", "max": 10.0} for j in range(4)]
SteeringPanel(llava, sae, llava.site, images, features, ["Describe this image."], stored=(0, 0, 0), alphas=[-5, 0, 5])
"""

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def widget() -> SteeringPanel:
    files = {"llava": "llava/", "sae": "page_files/steering/sae/", "bytes": 2_000_000}
    options = {"alphas": [-1, 0, 2], "stored": (2, 3, 1), "page_files": files}
    return SteeringPanel(SpeakingLlava(), SAE, SITE, pictures(), described(), PROMPTS, **options)


@pytest.fixture
def alone(widget, tmp_path, browser):
    """Opens the widget on a page of its own, from a file; `kernel`: whether one answers. No script may fail there."""
    context = browser.new_context(viewport={"width": 800, "height": 900})
    errors = []

    def open_alone(kernel: bool = False, address: str = "") -> SteeringPage:
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.clock.install()  # as the real one, unless a test turns it forward
        page.goto(write_page(widget, tmp_path / "panel.html", kernel).as_uri() + address)
        page.evaluate("window.ready")
        shown = SteeringPage(page)
        expect(shown.root).to_have_attribute("data-engine", "kernel" if kernel else "stored")
        if not kernel:
            expect(shown.status).to_contain_text("No kernel")
        return shown

    yield open_alone
    context.close()
    assert errors == []


def last_request(panel: SteeringPage) -> dict:
    panel.page.wait_for_timeout(250)
    return panel.page.evaluate("window.sent.filter((message) => message.kind === 'answer').at(-1)")


def say(panel: SteeringPage, **message) -> None:
    panel.page.evaluate("(message) => window.say(message)", message)


def reply(panel: SteeringPage, *texts: str) -> None:
    """Answers the newest request, one text a run."""
    request = last_request(panel)
    for run, text in enumerate(texts):
        say(panel, kind="text", request=request["request"], run=run, text=text)
        say(panel, kind="done", request=request["request"], run=run)


class TestStoredAnswers:
    def test_it_says_that_the_page_was_opened_from_a_file_and_that_answers_are_stored(self, alone):
        panel = alone()
        expect(panel.status).to_contain_text(
            "The answers shown are stored in this page. This page was opened from a file"
        )
        expect(panel.start).to_be_hidden()

    def test_both_answers_are_those_that_python_gave(self, alone):
        panel = alone()
        expect(panel.unsteered).to_have_text("red0 What is shown?")
        expect(panel.steered).to_have_text("red0 What is shown? owl=4")
        panel.tiles.nth(1).click()
        panel.feature(2).click()
        expect(panel.unsteered).to_have_text("red10 What is shown?")
        expect(panel.steered).to_have_text("red10 What is shown? snow=8")

    def test_a_slider_stops_where_answers_are_stored(self, alone):
        panel = alone()
        panel.set(0, -0.7)
        expect(panel.steered).to_have_text("red0 What is shown? owl=-2")
        expect(panel.slider(0)).to_have_value("-1")

    def test_what_is_not_stored_is_said_in_one_sentence(self, alone):
        panel = alone()
        panel.tiles.nth(2).click()
        expect(panel.problem).to_have_text("Answers are stored for the first 2 pictures only.")
        panel.tiles.nth(0).click()
        expect(panel.problem).to_be_hidden()
        panel.feature(5).click()
        expect(panel.problem).to_have_text("Answers are stored for the first 3 features of the list only.")


class TestWithAKernel:
    def test_the_caption_says_so_and_the_question_goes_to_it(self, alone):
        panel = alone(kernel=True)
        expect(panel.status).to_contain_text("Kernel attached")
        request = last_request(panel)
        assert (request["picture"], request["prompt"]) == (0, PROMPTS[0])
        assert request["edits"][1] == {"features": [[0, 4]], "mode": "clamp", "tokens": "all", "keep_error": False}

    def test_text_is_shown_as_it_comes_and_new_words_are_marked(self, alone):
        panel = alone(kernel=True)
        number = last_request(panel)["request"]
        say(panel, kind="text", request=number, run=0, text="A cat")
        expect(panel.unsteered).to_have_text("A cat")
        expect(panel.root.get_by_role("button", name="Stop", exact=True)).to_be_visible()
        reply(panel, " in snow.", "An owl in snow.")
        expect(panel.unsteered).to_have_text("A cat in snow.")
        expect(panel.steered).to_have_text("An owl in snow.")
        assert panel.steered.locator("mark").all_inner_texts() == ["owl"]
        expect(panel.root.get_by_role("button", name="Ask", exact=True)).to_be_visible()

    def test_several_features_and_chosen_patches_are_asked_for(self, alone):
        panel = alone(kernel=True)
        panel.feature(3).click()
        panel.set(0, -1)
        panel.grid.click(position={"x": 3, "y": 3})
        panel.grid.focus()
        panel.page.keyboard.press("ArrowRight")
        panel.page.keyboard.press("Space")
        edit = last_request(panel)["edits"][-1]
        assert edit["features"] == [[0, -2], [3, 10]]
        assert [sum(row) for row in edit["tokens"]] == [2, 0, 0, 0, 0, 0, 0]

    def test_the_unsteered_text_is_asked_for_once_a_picture_and_prompt(self, alone):
        panel = alone(kernel=True)
        reply(panel, "A cat.", "An owl.")
        panel.set(0, 1)
        assert len(last_request(panel)["edits"]) == 1
        panel.tiles.nth(1).click()
        assert len(last_request(panel)["edits"]) == 2

    def test_what_comes_late_for_an_older_question_is_not_shown(self, alone):
        panel = alone(kernel=True)
        older = last_request(panel)["request"]
        panel.set(0, 1)
        assert last_request(panel)["request"] > older
        say(panel, kind="text", request=older, run=1, text="too late")
        expect(panel.steered).to_have_text("")

    def test_escape_stops_and_tells_the_kernel(self, alone):
        panel = alone(kernel=True)
        say(panel, kind="text", request=last_request(panel)["request"], run=0, text="A long")
        panel.prompt.press("Escape")
        assert panel.page.evaluate("window.sent.at(-1).kind") == "cancel"
        expect(panel.unsteered).to_have_text("A long")
        expect(panel.root.locator(".sp-answer[data-state='stopped']")).to_have_count(2)

    def test_an_error_is_one_sentence_and_the_next_question_clears_it(self, alone):
        panel = alone(kernel=True)
        say(panel, kind="error", request=last_request(panel)["request"], text="The prompt is too long: shorten it.")
        expect(panel.problem).to_have_text("The prompt is too long: shorten it.")
        panel.tiles.nth(1).click()
        expect(panel.problem).to_be_hidden()

    def test_a_kernel_that_falls_silent_is_said_plainly_and_stored_answers_are_shown(self, alone):
        panel = alone(kernel=True)
        panel.page.evaluate("window.kernel = false")
        panel.page.clock.run_for(20_000)
        expect(panel.status).to_contain_text("The kernel does not answer")
        expect(panel.steered).to_have_text("red0 What is shown? owl=4")
        panel.page.evaluate("window.kernel = true")
        panel.page.clock.run_for(5_000)
        expect(panel.status).to_contain_text("Kernel attached")

    def test_own_pictures_are_drawn_or_uploaded_and_sent_whole(self, alone, tmp_path):
        panel = alone(kernel=True)
        panel.root.get_by_label("Draw in red").click()
        panel.grid.click(position={"x": 60, "y": 60})
        request = last_request(panel)
        assert (request["picture"], request["buffers"]) == (None, [112 * 112 * 4])
        pictures()[1].save(tmp_path / "mine.png")
        panel.root.get_by_label("Upload a picture").set_input_files(tmp_path / "mine.png")
        assert last_request(panel)["request"] > request["request"]
        (tmp_path / "mine.txt").write_text("no picture")
        panel.root.get_by_label("Upload a picture").set_input_files(tmp_path / "mine.txt")
        expect(panel.problem).to_contain_text("“mine.txt” is not a picture")

    def test_tries_are_listed_and_come_back_by_a_click(self, alone):
        panel = alone(kernel=True)
        reply(panel, "A cat.", "An owl.")
        panel.feature(1).click()
        reply(panel, "A dog.")
        panel.root.locator("summary", has_text="2 tries").click()
        expect(panel.tries).to_have_count(2)
        panel.tries.last.click()
        assert panel.steered_features() == [0]

    def test_the_code_is_the_very_intervention(self, alone):
        panel = alone(kernel=True)
        panel.feature(4).click()
        panel.grid.click(position={"x": 3, "y": 3})
        panel.root.get_by_label("What happens to the features").select_option("add")
        edit = last_request(panel)["edits"][-1]
        asked = Intervention(SAE, SITE, dict(edit["features"]), "add", edit["tokens"], keep_error=False)
        first, call = panel.code.text_content().splitlines()
        assert first == f"intervention = {asked.as_code()}"
        assert call == f'llava.generate([images[0]], "{PROMPTS[0]}", intervention, max_new_tokens=48)'


class TestControls:
    def test_features_are_found_by_name_and_any_by_its_number(self, alone):
        panel = alone()
        panel.search.fill("sno")
        expect(panel.root.locator(".sp-feature")).to_have_count(1)
        panel.search.fill("#5")
        panel.search.press("Enter")
        assert panel.steered_features() == [5]
        panel.search.fill("zebra")
        expect(panel.root.locator(".sp-features")).to_have_text("No feature has this name or number.")

    def test_the_address_leads_back_to_the_same_view(self, alone):
        panel = alone(kernel=True)
        panel.tiles.nth(2).click()
        panel.feature(3).click()
        panel.set(3, -0.5)
        panel.grid.click(position={"x": 3, "y": 3})
        address = panel.page.evaluate("location.search")
        again = alone(kernel=True, address=address)
        assert again.steered_features() == [0, 3]
        expect(again.slider(3)).to_have_value("-0.5")
        request = last_request(again)
        assert request["picture"] == 2
        assert request["edits"][1]["tokens"][0][0] is True

    def test_everything_that_can_be_operated_has_a_name(self, alone):
        assert without_a_name(alone().root) == []

    def test_nothing_is_wider_than_a_phone(self, alone):
        panel = alone()
        panel.page.set_viewport_size({"width": 360, "height": 780})
        assert panel.root.evaluate("(root) => root.scrollWidth <= root.clientWidth")

    def test_it_follows_the_dark_theme(self, alone):
        panel = alone()
        light, dark = colours_of_themes(panel.page, panel.root)
        assert dark != light


class TestInTheBook:
    def test_stored_answers_are_there_before_the_model_is_started(self, visit):
        panel = SteeringPage(visit(PATH).page)
        expect(panel.status).to_contain_text("No kernel. The answers shown are stored in this page.")
        expect(panel.steered).not_to_be_empty()
        expect(panel.start).to_contain_text("MB")

    def test_the_model_in_the_browser_answers_as_python_did(self, visit):
        panel = SteeringPage(visit(PATH).page)
        expect(panel.steered).not_to_be_empty()
        asked = [(picture, feature) for picture in (0, 1) for feature in (0, 1)]
        before = [self.answers(panel, *place) for place in asked]
        panel.start.click()
        expect(panel.status).to_contain_text("the model runs in this browser", timeout=60_000)
        assert [self.answers(panel, *place) for place in asked] == before

    def answers(self, panel: SteeringPage, picture: int, place: int) -> tuple[str, str]:
        """Both texts for a picture and the feature at a place of the list, alone at its usual strength."""
        feature = int(panel.root.locator(".sp-feature").nth(place).get_attribute("data-feature"))
        panel.tiles.nth(picture).click()
        for other in panel.steered_features():
            panel.feature(other).click()
        panel.feature(feature).click()
        panel.settled()
        return panel.unsteered.text_content(), panel.steered.text_content()

    def test_a_book_opened_from_a_file_shows_what_is_stored(self, html, open_page):
        panel = SteeringPage(open_page((html / PATH).as_uri()).page)
        expect(panel.status).to_contain_text("This page was opened from a file")
        expect(panel.steered).not_to_be_empty()


@pytest.fixture
def voila(tmp_path: Path) -> Iterator[str]:
    """The address of a panel with the embedded LLaVA, served by Voila with a kernel of its own."""
    with served(VOILA_NOTEBOOK, tmp_path) as address:
        yield address


def test_a_kernel_behind_voila_streams_what_the_steered_model_says(voila, browser):
    page = open_served(browser, voila)
    panel = SteeringPage(page)
    expect(panel.status).to_contain_text("Kernel attached", timeout=60_000)
    panel.settled()
    plain = panel.unsteered.text_content()
    assert plain
    panel.set(0, 0)
    panel.settled()
    at_zero = panel.steered.text_content()
    panel.set(0, 5)
    panel.settled()
    assert panel.unsteered.text_content() == plain
    assert json.dumps(at_zero) != json.dumps(panel.steered.text_content())
    page.close()
