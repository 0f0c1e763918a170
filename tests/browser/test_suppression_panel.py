"""The suppression panel as a reader uses it: from stored results, with a kernel, and in the book."""

import math

import pytest
from playwright.sync_api import Locator, Page, expect

from experiments.disentanglement.protocol import SubsetResults
from tests.browser.manners import colours_of_themes, without_a_name
from tests.browser.steering_pages import write_page
from tests.browser.voila_pages import open_served, served
from tests.small_suppression import COUNT, PEOPLE, STICKERS, outcome, outcomes, pictures
from widgets import SuppressionPanel

PATH = "notebooks/10_disentanglement.html"
MAX_PAGE_BYTES = 5_000_000
RESULTS = outcomes()
VOILA_NOTEBOOK = """
import numpy as np
from widgets import SuppressionPanel
from tests.small_suppression import outcomes, pictures
results = outcomes()
def live(result, strengths):  # at strengths of feature 0 above 1 all are taken for class 1, else for class 0
    return np.full(len(results[result].truth), int(strengths[0] > 1)), 0.25
SuppressionPanel(results, pictures(results), live=live)
"""

pytestmark = pytest.mark.browser


class SuppressionPage:
    """What a reader sees of a panel, by name."""

    def __init__(self, page: Page):
        self.page = page
        self.root = page.locator(".su:not(.su-loading)").first
        self.status = self.root.locator(".su-status")
        self.summary = self.root.locator(".su-summary")
        self.how = self.root.locator(".su-how")
        self.problem = self.root.locator(".su-problem")
        self.boxes = self.root.get_by_role("checkbox")
        self.examples = self.root.locator(".su-examples li")
        self.average = self.root.locator(".su-average")
        self.ordinary = self.root.locator(".su-ordinary")
        expect(self.summary).to_be_visible(timeout=60_000)  # a kernel behind Voila has a notebook to run first

    def choose(self, name: str) -> None:
        self.root.get_by_role("radio", name=name, exact=True).check()

    def chosen(self) -> list[str]:
        return [radio.input_value() for radio in self.root.locator("input[type=radio]:checked").all()]

    def tick(self, *features: int) -> None:
        """Ticks these features' numbers, and no others."""
        for item in self.root.locator("li[data-feature]").all():
            item.get_by_role("checkbox").set_checked(int(item.get_attribute("data-feature")) in features)

    def groups(self) -> list[Locator]:
        return self.root.locator(".su-bars:not(.su-others) .su-bar-row").all()

    def slider(self, feature: int) -> Locator:
        return self.root.locator(f'li[data-feature="{feature}"] input[type="range"]')

    def shown(self) -> list[dict]:
        """For each example, its picture, what it is taken for, the verdict in words, and whether it flips."""
        cards = self.examples.evaluate_all(
            """(cards) => cards.map((card) => ({
                picture: Number(card.dataset.picture),
                text: card.querySelector(".su-now").textContent,
                flip: card.dataset.flip,
            }))"""
        )
        return cards


@pytest.fixture
def alone(tmp_path, browser):
    """Opens a panel on a page of its own; `kernel`: whether one answers pings. No script may fail there."""
    context = browser.new_context(viewport={"width": 900, "height": 900})
    errors = []

    def open_alone(kernel: bool | None = None, address: str = "", results=RESULTS) -> SuppressionPage:
        live = None if kernel is None else (lambda result, strengths: [])
        widget = SuppressionPanel(results, pictures(results), live=live, pictures_of="120 made-up pictures")
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.clock.install()  # as the real one, unless a test turns it forward
        page.goto(write_page(widget, tmp_path / "panel.html", bool(kernel)).as_uri() + address)
        page.evaluate("window.ready")
        return SuppressionPage(page)

    yield open_alone
    context.close()
    assert errors == []


def slow_accuracy(result: SubsetResults, subset: int, group: int | None) -> tuple[int, int]:
    """How many of a group's (or of all) pictures a subset gets right, and how many there are, one by one."""
    right = count = 0
    for i in range(COUNT):
        if group is None or result.group[i] == group:
            count += 1
            right += int(result.predictions[subset, i] == result.truth[i])
    return right, count


def slow_wilson(right: int, n: int) -> tuple[float, float]:
    """The proportions p from which `right` of `n` lies within 1.96 standard errors of p, found by bisection."""
    observed = right / n

    def end(inside: float, outside: float) -> float:
        for _ in range(60):
            middle = (inside + outside) / 2
            if abs(observed - middle) <= 1.959964 * math.sqrt(middle * (1 - middle) / n):
                inside = middle
            else:
                outside = middle
        return inside

    return end(observed, 0.0), end(observed, 1.0)


class TestStoredResults:
    def test_it_says_that_results_are_stored_and_no_kernel_is_needed(self, alone):
        panel = alone()
        expect(panel.status).to_have_text(
            "Stored results: all subsets of the features are in this page. It needs no kernel."
        )
        expect(panel.root).to_have_attribute("data-engine", "stored")

    @pytest.mark.parametrize(
        ("place", "features"), [(0, ()), (0, (10,)), (0, (0, 20)), (1, (0, 10)), (2, (30, 50, 70))]
    )
    def test_accuracies_are_those_of_a_slow_count(self, alone, place, features):
        panel, result = alone(), RESULTS[place]
        panel.choose(result.task)
        panel.choose(result.site)
        panel.tick(*features)
        rows = [*enumerate(panel.groups()), (None, panel.average)]
        for group, row in rows:
            now, before = (slow_accuracy(result, subset, group) for subset in (result.subset(list(features)), 0))
            assert float(row.get_attribute("data-value")) == pytest.approx(now[0] / now[1])
            assert float(row.get_attribute("data-before")) == pytest.approx(before[0] / before[1])
            low, high = slow_wilson(*now)
            left, width = (self.percent(row.locator(".su-interval"), name) for name in ("left", "width"))
            assert left == pytest.approx(low, abs=1e-5)
            assert left + width == pytest.approx(high, abs=1e-5)
            assert self.percent(row.locator(".su-mark"), "left") == pytest.approx(before[0] / before[1], abs=1e-5)
        ordinary = float(panel.ordinary.get_attribute("data-value"))
        assert ordinary == pytest.approx(result.ordinary[result.subset(list(features))])

    def percent(self, part: Locator, name: str) -> float:
        return float(part.evaluate(f"(node) => node.style.{name}").rstrip("%")) / 100

    def test_the_worst_group_is_marked_and_the_summary_tells_it(self, alone):
        panel, result = alone(), RESULTS[0]
        panel.tick(0, 10, 20)
        values = [float(row.get_attribute("data-value")) for row in panel.groups()]
        worst = values.index(min(values))
        for group, row in enumerate(panel.groups()):
            expect(row.locator(".su-tag")).to_be_visible(visible=group == worst)
        expect(panel.summary).to_contain_text(f"now {100 * min(values):.1f} % ({result.groups[worst]})")

    def test_a_group_without_pictures_says_so_and_is_not_the_worst(self, alone):
        panel = alone(results=[outcome(group=[1] * COUNT)])
        first, second, *_ = panel.groups()
        expect(first.locator(".su-value b")).to_have_text("no pictures")
        expect(first.locator(".su-tag")).to_be_hidden()
        expect(second.locator(".su-tag")).to_be_visible()
        expect(panel.summary).to_contain_text("(dark, man)")

    def test_examples_tell_their_prediction_and_whether_it_is_right_in_words(self, alone):
        panel, result = alone(), RESULTS[0]
        panel.tick(0, 20)
        now, before = result.predictions[result.subset([0, 20])], result.predictions[0]
        for card in panel.shown():
            i = card["picture"]
            verdict = {True: "right", False: "wrong"}
            right, was_right = now[i] == result.truth[i], before[i] == result.truth[i]
            sign = "✓" if right else "✗"
            assert card["text"] == f"{sign} {result.classes[now[i]]}, {verdict[bool(right)]}"
            if now[i] == before[i]:
                assert card["flip"] == ""
            else:
                assert card["flip"] == ("now right" if right else "now wrong" if was_right else "still wrong")
        assert [card["picture"] for card in panel.shown()] == result.examples

    def test_it_counts_what_becomes_right_and_wrong(self, alone):
        panel, result = alone(), RESULTS[2]
        panel.choose(STICKERS)
        panel.tick(*(feature["id"] for feature in result.features))
        now, before, truth = result.predictions[255], result.predictions[0], result.truth
        right, wrong = sum((now == truth) & (before != truth)), sum((now != truth) & (before == truth))
        told = f"{sum(now != before)} predictions changed: {right} now right, {wrong} now wrong."
        expect(panel.summary).to_contain_text(told)

    def test_what_was_chosen_is_ticked_at_first_and_comes_back_by_its_button(self, alone):
        panel = alone()
        assert [box.is_checked() for box in panel.boxes.all()] == [True, False, False]
        panel.root.get_by_role("button", name="all", exact=True).click()
        assert all(box.is_checked() for box in panel.boxes.all())
        panel.root.get_by_role("button", name="none", exact=True).click()
        assert not any(box.is_checked() for box in panel.boxes.all())
        expect(panel.summary).to_contain_text("No prediction changes.")
        panel.root.get_by_role("button", name="chosen on validation").click()
        assert [box.is_checked() for box in panel.boxes.all()] == [True, False, False]

    def test_a_layer_remembers_what_was_ticked(self, alone):
        panel = alone()
        panel.tick(10, 20)
        panel.choose("6.resid_post")
        panel.tick()
        panel.choose("4.resid_post")
        assert [box.is_checked() for box in panel.boxes.all()] == [False, True, True]

    def test_a_link_leads_to_the_same_view(self, alone):
        panel = alone()
        panel.choose("6.resid_post")
        panel.tick(10)
        address = panel.page.evaluate("location.search")
        again = alone(address=address)
        assert again.chosen() == [PEOPLE, "6.resid_post"]
        assert [box.is_checked() for box in again.boxes.all()] == [False, True]


class TestOperation:
    def test_everything_goes_by_keys(self, alone):
        panel = alone()
        for _ in range(3):
            panel.page.keyboard.press("Tab")
            if panel.page.evaluate("document.activeElement.type") == "radio":
                break
        panel.page.keyboard.press("ArrowRight")
        assert panel.chosen()[0] == STICKERS
        panel.page.keyboard.press("Tab")
        panel.page.keyboard.press("Tab")
        before = panel.summary.text_content()
        panel.page.keyboard.press("Space")
        expect(panel.summary).not_to_have_text(before)

    def test_everything_that_can_be_operated_has_a_name(self, alone):
        assert without_a_name(alone(kernel=True).root) == []

    def test_keys_stay_with_what_has_the_focus_and_do_not_reach_jupyterlabs_commands(self, alone):
        unguarded = alone(kernel=True).root.locator(":is(button, input):not([data-lm-suppress-shortcuts])")
        expect(unguarded).to_have_count(0)

    def test_a_bar_is_told_in_one_sentence(self, alone):
        panel, result = alone(), RESULTS[0]
        panel.tick(10)
        now, before = (slow_accuracy(result, subset, 0) for subset in (2, 0))
        told = panel.groups()[0].get_attribute("aria-label")
        assert told.startswith(result.groups[0])
        assert f": {100 * now[0] / now[1]:.1f} %, interval " in told
        assert told.endswith(f"with nothing suppressed {100 * before[0] / before[1]:.1f} %")

    def test_nothing_is_wider_than_a_phone(self, alone):
        panel = alone(kernel=True)
        panel.page.set_viewport_size({"width": 360, "height": 780})
        assert panel.page.evaluate("document.documentElement.scrollWidth") <= 360
        assert panel.root.evaluate("(root) => root.scrollWidth <= root.clientWidth")

    def test_it_follows_the_dark_theme(self, alone):
        panel = alone()
        light, dark = colours_of_themes(panel.page, panel.root)
        assert dark != light


class TestWithAKernel:
    def asked(self, panel: SuppressionPage) -> dict:
        """The newest request, once nothing has changed for a moment."""
        panel.page.wait_for_timeout(300)
        return panel.page.evaluate("window.sent.filter((message) => message.kind === 'answer').at(-1)")

    def reply(self, panel: SuppressionPage, **message) -> None:
        told = {"kind": "done", "request": self.asked(panel)["request"], "predictions": [1] * COUNT, "ordinary": None}
        panel.page.evaluate("(message) => window.say(message)", told | message)

    def test_it_says_that_the_model_computes(self, alone):
        panel = alone(kernel=True)
        expect(panel.status).to_contain_text("Live: a kernel is attached")
        expect(panel.root).to_have_attribute("data-engine", "kernel")

    def test_without_an_answer_to_its_ping_it_says_that_there_is_no_kernel(self, alone):
        panel = alone(kernel=False)
        expect(panel.status).to_contain_text("Stored results")
        expect(panel.status).to_contain_text("No kernel is attached.")
        expect(panel.slider(0)).to_be_hidden()

    def test_ticked_features_are_asked_for_at_their_strengths(self, alone):
        panel = alone(kernel=True)
        expect(panel.slider(0)).to_be_visible()
        panel.tick(0, 20)
        panel.slider(20).fill("1.5")
        asked = self.asked(panel)
        assert (asked["result"], asked["strengths"]) == (0, [[0, 1], [20, 1.5]])

    def test_what_the_kernel_says_is_shown(self, alone):
        panel = alone(kernel=True)
        self.reply(panel, ordinary=0.5)
        expect(panel.how).to_contain_text("computed live in")
        truth = RESULTS[0].truth
        assert float(panel.average.get_attribute("data-value")) == pytest.approx(sum(truth == 1) / COUNT)
        assert panel.ordinary.get_attribute("data-value") == "0.5"

    def test_ordinary_pictures_are_not_made_up_at_strengths_where_nobody_computed_them(self, alone):
        panel = alone(kernel=True)
        self.reply(panel)
        assert float(panel.ordinary.get_attribute("data-value")) == pytest.approx(RESULTS[0].ordinary[1])
        panel.slider(0).fill("-1")
        self.reply(panel)
        expect(panel.ordinary.locator("b")).to_have_text("not computed")

    def test_an_answer_to_what_is_no_longer_asked_is_not_shown(self, alone):
        panel = alone(kernel=True)
        older = self.asked(panel)["request"]
        panel.tick(10)
        self.asked(panel)
        late = {"kind": "done", "request": older, "predictions": [1] * COUNT, "ordinary": 0.25}
        panel.page.evaluate("(message) => window.say(message)", late)
        expect(panel.how).to_have_text("computing …")

    def test_what_goes_wrong_in_the_kernel_is_told_and_stored_results_are_shown(self, alone):
        panel = alone(kernel=True)
        self.reply(panel, kind="error", text="ZeroDivisionError: division by zero")
        expect(panel.problem).to_have_text("ZeroDivisionError: division by zero")
        right, count = slow_accuracy(RESULTS[0], 1, None)
        assert float(panel.average.get_attribute("data-value")) == pytest.approx(right / count)

    def test_a_kernel_that_dies_is_said_to_and_stored_results_are_shown(self, alone):
        panel = alone(kernel=True)
        expect(panel.status).to_contain_text("Live")
        panel.page.evaluate("window.kernel = false")
        panel.page.clock.run_for(20_000)
        expect(panel.status).to_contain_text("The kernel does not answer: it is busy, or it has ended")
        expect(panel.slider(0)).to_be_hidden()
        right, count = slow_accuracy(RESULTS[0], 1, None)
        assert float(panel.average.get_attribute("data-value")) == pytest.approx(right / count)
        panel.page.evaluate("window.kernel = true")
        panel.page.clock.run_for(9_000)
        expect(panel.status).to_contain_text("Live")


class TestInTheBook:
    def test_the_page_stays_within_five_megabytes(self, html):
        assert (html / PATH).stat().st_size <= MAX_PAGE_BYTES

    def test_every_task_and_layer_shows_its_groups_and_examples(self, visit):
        panel = SuppressionPage(visit(PATH).page)
        expect(panel.status).to_contain_text("Stored results: all")
        expect(panel.status).to_contain_text("No kernel is attached.")
        tasks = [radio.input_value() for radio in panel.root.locator("fieldset").first.get_by_role("radio").all()]
        assert len(tasks) == 3
        for task in tasks:
            panel.choose(task)
            for layer in panel.root.locator("fieldset").last.get_by_role("radio").all():
                layer.check()
                assert len(panel.groups()) >= 2
                assert 1 <= panel.boxes.count() <= 8
                assert panel.examples.count() > 0

    def test_some_prediction_changes_with_all_suppressed_and_none_with_none(self, visit):
        panel = SuppressionPage(visit(PATH).page)
        told = []
        for task in panel.root.locator("fieldset").first.get_by_role("radio").all():
            task.check()
            for layer in panel.root.locator("fieldset").last.get_by_role("radio").all():
                layer.check()
                panel.root.get_by_role("button", name="all", exact=True).click()
                told.append(panel.summary.text_content())
                panel.root.get_by_role("button", name="none", exact=True).click()
                expect(panel.summary).to_contain_text("No prediction changes.")
                for row in panel.groups():
                    assert row.get_attribute("data-value") == row.get_attribute("data-before")
        assert any("now right" in one for one in told)


def test_a_kernel_behind_voila_computes_what_is_asked_and_its_end_is_told(tmp_path, browser):
    with served(VOILA_NOTEBOOK, tmp_path) as address:
        page = open_served(browser, address)
        panel = SuppressionPage(page)
        expect(panel.status).to_contain_text("Live: a kernel is attached", timeout=60_000)
        for strength, taken_for in (("-1", 0), ("1.5", 1)):
            panel.slider(0).fill(strength)
            right = sum(RESULTS[0].truth == taken_for)
            expect(panel.average.locator("b")).to_have_text(f"{100 * right / COUNT:.1f} %", timeout=30_000)
            expect(panel.how).to_contain_text("computed live")
        assert panel.ordinary.get_attribute("data-value") == "0.25"
    expect(panel.status).to_contain_text("The kernel does not answer", timeout=60_000)
    expect(panel.slider(0)).to_be_hidden()
    page.close()
