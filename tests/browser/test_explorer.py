"""The feature explorer in the rendered book, driven as a reader drives it: by clicks and keys, with no kernel."""

import re
from itertools import pairwise

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.manners import colours_of_themes, wait_until_drawn, without_a_name

PATH = "notebooks/05_features.html"
MAX_PAGE_BYTES = 5_000_000

pytestmark = pytest.mark.browser

# A second explorer on the page, from the same stored state, with a kernel that answers when `kernel` is given.
SECOND_EXPLORER = """async (kernel) => {
    const stored = JSON.parse(document.querySelector('script[type="application/vnd.jupyter.widget-state+json"]').text);
    const { state, buffers } = Object.values(stored.state).find(({ state }) => state.meta?.sheets);
    const module = URL.createObjectURL(new Blob([state._esm], { type: "text/javascript" }));
    const binary = Object.fromEntries(buffers.map(({ path, data }) =>
        [path[0], new DataView(Uint8Array.from(atob(data), (c) => c.charCodeAt(0)).buffer)]));
    const listeners = [];
    window.sent = [];
    const model = {
        get: (name) => binary[name] ?? state[name],
        on: (_, listener) => listeners.push(listener),
        off: () => {},
        send: (message) => {
            window.sent.push(message);
            const answer = () => listeners.forEach((hear) => hear({ kind: "pong" }, []));
            if (kernel && message.kind === "ping") setTimeout(answer);
        },
    };
    const el = document.createElement("div");
    document.querySelector("article").append(el);
    await (await import(module)).default.render({ model, el });
}"""


class Explorer:
    """What a reader sees of the explorer, by name."""

    def __init__(self, page: Page, number: int = 0):
        self.page = page
        self.root = page.locator(".fx:not(.fx-loading)").nth(number)
        self.list = self.root.get_by_role("listbox", name="Features")
        self.search = self.root.get_by_label("Search features")
        self.sort = self.root.get_by_label("Sort by")
        self.show = self.root.get_by_label("Show", exact=True)
        self.title = self.root.locator(".fx-title")
        self.examples = self.root.locator(".fx-examples .fx-figure")
        self.histogram = self.root.get_by_role("slider", name="Activation")
        expect(self.title).to_be_visible()

    @property
    def feature(self) -> int:
        """Number of the chosen feature, as its title gives it."""
        return int(re.search(r"#(\d+)", self.title.inner_text())[1])

    @property
    def selected(self) -> Locator:
        return self.list.locator('[role="option"][aria-selected="true"]')

    @property
    def rows(self) -> list[str]:
        """The texts of the rows that are drawn, from top to bottom."""
        rows = self.list.locator('[role="option"]').all()
        return [row.inner_text() for row in sorted(rows, key=lambda row: int(row.get_attribute("aria-posinset")))]

    def found(self) -> int:
        return int(self.root.locator(".fx-found").inner_text().split()[0].replace(",", ""))

    def measures(self) -> list[float]:
        """The numbers that the drawn rows show, dead features left out."""
        texts = self.list.locator(".fx-row:not(.fx-dead)").all()
        texts = sorted(texts, key=lambda row: int(row.get_attribute("aria-posinset")))
        return [float(row.locator(".fx-measure").inner_text().strip(" %")) for row in texts]


@pytest.fixture
def explorer(visit) -> Explorer:
    return Explorer(visit(PATH).page)


def focused(page: Page) -> str:
    return page.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.className")


class TestFirstView:
    def test_the_page_stays_within_five_megabytes(self, html):
        assert (html / PATH).stat().st_size <= MAX_PAGE_BYTES

    def test_the_best_feature_is_chosen_and_its_pictures_are_drawn(self, explorer):
        expect(explorer.selected).to_have_attribute("aria-posinset", "1")
        expect(explorer.selected).to_have_attribute("data-feature", str(explorer.feature))
        pictures = explorer.root.locator(".fx-top .fx-frame .fx-picture")
        assert pictures.count() > 0
        wait_until_drawn(pictures)

    def test_features_that_cannot_fill_the_grid_are_left_out_at_first(self, explorer):
        assert "12+ pictures" in explorer.show.locator("option:checked").inner_text()
        assert explorer.root.locator(".fx-top .fx-figure").count() == 12

    def test_it_says_that_no_kernel_is_attached(self, explorer):
        expect(explorer.root.locator(".fx-status")).to_contain_text("No kernel")

    def test_only_the_rows_in_view_are_built(self, explorer):
        expect(explorer.selected).to_have_attribute("aria-setsize", str(explorer.found()))
        assert explorer.list.locator('[role="option"]').count() < min(60, explorer.found())

    def test_scrolling_to_the_end_draws_the_last_rows(self, explorer):
        explorer.list.evaluate("(list) => list.scrollTo(0, list.scrollHeight)")
        expect(explorer.list.locator(f'[aria-posinset="{explorer.found()}"]')).to_be_visible()

    def test_nothing_is_wider_than_a_phone(self, explorer):
        explorer.page.set_viewport_size({"width": 360, "height": 780})
        assert explorer.page.evaluate("document.documentElement.scrollWidth") <= 360
        assert explorer.root.evaluate("(root) => root.scrollWidth <= root.clientWidth")

    def test_it_follows_the_dark_theme(self, explorer):
        light, dark = colours_of_themes(explorer.page, explorer.root)
        assert dark != light

    def test_everything_that_can_be_operated_has_a_name(self, explorer):
        assert without_a_name(explorer.root) == []


class TestSearch:
    def test_by_name(self, explorer):
        everything = explorer.found()
        explorer.search.fill(explorer.title.inner_text().split("#")[0].strip())
        assert 0 < explorer.found() < everything

    def test_by_number(self, explorer):
        explorer.sort.select_option("index")
        explorer.search.fill("#12")
        assert explorer.rows
        assert all(re.search(r"#12\d*", row) for row in explorer.rows)

    def test_without_a_match_it_says_so(self, explorer):
        explorer.search.fill("no such thing at all")
        expect(explorer.list).to_contain_text("No feature matches “no such thing at all”")

    def test_enter_leads_to_the_first_match(self, explorer):
        explorer.search.fill("#1")
        explorer.search.press("Enter")
        expect(explorer.list).to_be_focused()
        assert str(explorer.feature).startswith("1")

    def test_slash_leads_into_it_and_escape_empties_and_leaves_it(self, explorer):
        explorer.list.focus()
        explorer.page.keyboard.press("/")
        expect(explorer.search).to_be_focused()
        explorer.search.fill("3")
        explorer.page.keyboard.press("Escape")
        expect(explorer.search).to_have_value("")
        explorer.page.keyboard.press("Escape")
        expect(explorer.list).to_be_focused()


class TestSort:
    @pytest.mark.parametrize("column", ["score", "frequency", "max"])
    def test_by_number_from_large_to_small_and_turned_round(self, explorer, column):
        explorer.show.select_option("alive")
        explorer.sort.select_option(column)
        falling = explorer.measures()
        assert falling == sorted(falling, reverse=True)
        explorer.root.get_by_label("Largest first").click()
        rising = explorer.measures()
        assert rising == sorted(rising)
        assert rising[0] <= falling[-1]

    def test_by_name(self, explorer):
        explorer.show.select_option("alive")
        explorer.sort.select_option("name")
        names = [row.split("\n")[0].split("#")[0].strip() for row in explorer.rows]
        assert names == sorted(names)


class TestChoosing:
    def test_by_a_click(self, explorer):
        row = explorer.list.locator('[aria-posinset="4"]')
        row.click()
        assert explorer.feature == int(row.get_attribute("data-feature"))
        expect(explorer.selected).to_have_attribute("aria-posinset", "4")

    def test_by_keys(self, explorer):
        explorer.list.focus()
        for key, place in (
            ("ArrowDown", 2),
            ("j", 3),
            ("k", 2),
            ("ArrowUp", 1),
            ("End", explorer.found()),
            ("Home", 1),
        ):
            explorer.page.keyboard.press(key)
            expect(explorer.selected).to_have_attribute("aria-posinset", str(place))
            expect(explorer.list).to_have_attribute("aria-activedescendant", explorer.selected.get_attribute("id"))
            expect(explorer.selected).to_be_in_viewport()

    def test_enter_leads_to_the_feature_and_escape_back_to_the_list(self, explorer):
        explorer.list.focus()
        explorer.page.keyboard.press("Enter")
        assert "fx-title" in focused(explorer.page)
        explorer.page.keyboard.press("Escape")
        expect(explorer.list).to_be_focused()

    def test_a_neighbour_is_one_click_away_and_so_is_the_way_back_and_forward(self, explorer):
        first = explorer.feature
        chip = explorer.root.locator(".fx-chip").first
        neighbour = int(chip.get_attribute("data-feature"))
        chip.click()
        assert explorer.feature == neighbour != first
        explorer.root.get_by_role("button", name="Back").click()
        assert explorer.feature == first
        explorer.root.get_by_role("button", name="Forward").click()
        assert explorer.feature == neighbour
        explorer.page.keyboard.press("[")
        assert explorer.feature == first

    def test_dead_features_are_shown_as_such(self, explorer):
        expected = int(re.search(r"dead: ([\d,]+)", explorer.show.inner_text())[1].replace(",", ""))
        explorer.show.select_option("dead")
        assert explorer.found() == expected > 0
        assert all("never active" in row for row in explorer.rows)
        explorer.list.locator('[role="option"]').first.click()
        expect(explorer.title).to_contain_text("dead feature")
        expect(explorer.root.locator(".fx-notice")).to_contain_text("active on none of the")
        expect(explorer.root.locator(".fx-top")).to_be_hidden()


class TestHeatMaps:
    def test_the_switch_and_the_key_hide_and_show_them(self, explorer):
        overlay = explorer.root.locator(".fx-top .fx-map").first
        expect(overlay).to_be_visible()
        explorer.root.get_by_label("heat map", exact=True).uncheck()
        expect(overlay).to_be_hidden()
        explorer.list.focus()
        explorer.page.keyboard.press("m")
        expect(overlay).to_be_visible()

    def test_their_strength_can_be_set(self, explorer):
        overlay = explorer.root.locator(".fx-top .fx-map").first
        slider = explorer.root.get_by_label("Strength of the heat map")
        slider.focus()
        slider.press("Home")
        assert float(overlay.evaluate("(map) => getComputedStyle(map).opacity")) == pytest.approx(0.1)

    def test_the_pointer_reads_the_value_of_a_patch(self, explorer):
        frame = explorer.root.locator(".fx-top .fx-frame").first
        frame.scroll_into_view_if_needed()
        frame.hover(position={"x": 20, "y": 20})
        expect(frame.locator(".fx-cell")).to_be_visible()
        expect(frame.locator(".fx-readout")).to_have_text(re.compile(r"^\d+\.\d+$"))


class TestHistogram:
    def test_a_bar_shows_its_pictures(self, explorer):
        bar = explorer.root.locator(".fx-count").last
        last = int(bar.get_attribute("data-bin"))
        box = explorer.histogram.bounding_box()
        explorer.histogram.click(position={"x": box["width"] * (last + 0.5) / (last + 1), "y": box["height"] / 2})
        expect(bar).to_have_class(re.compile("fx-chosen"))
        largest = float(explorer.root.locator(".fx-axis span").last.inner_text())
        values = [float(text) for text in explorer.examples.locator("b").all_inner_texts()]
        assert values
        assert all(value >= largest * last / (last + 1) - 0.01 for value in values)

    def test_arrow_keys_walk_over_the_bars(self, explorer):
        explorer.histogram.focus()
        explorer.page.keyboard.press("End")
        last = explorer.histogram.get_attribute("aria-valuetext")
        explorer.page.keyboard.press("ArrowLeft")
        assert explorer.histogram.get_attribute("aria-valuetext") != last
        assert re.match(r"[\d.]+ to [\d.]+: \d+ pictures?", last)

    def test_a_quantile_shows_pictures_near_it(self, explorer):
        button = explorer.root.get_by_role("group", name="Quantiles").get_by_role("button").nth(1)
        button.click()
        expect(button).to_have_attribute("aria-pressed", "true")
        quantile = float(button.locator("b").inner_text())
        distances = [abs(float(text) - quantile) for text in explorer.examples.locator("b").all_inner_texts()]
        assert distances
        rounding = 0.011 + 0.02 * quantile  # the page shows three digits of each value
        assert all(later >= earlier - rounding for earlier, later in pairwise(distances))


class TestAddress:
    def test_a_view_is_restored_in_a_fresh_page(self, explorer, visit):
        explorer.sort.select_option("frequency")
        explorer.root.get_by_label("Largest first").click()
        explorer.show.select_option("alive")
        explorer.search.fill("a")
        explorer.list.locator('[aria-posinset="3"]').click()
        explorer.root.get_by_label("Strength of the heat map").fill("30")
        explorer.list.focus()
        explorer.page.keyboard.press("m")
        query = explorer.page.url.split("?")[1]

        fresh = Explorer(visit(f"{PATH}?{query}").page)
        assert fresh.feature == explorer.feature
        assert (fresh.sort.input_value(), fresh.show.input_value()) == ("frequency", "alive")
        assert fresh.search.input_value() == "a"
        assert fresh.rows[:3] == explorer.rows[:3]
        expect(fresh.root.locator(".fx-map").first).to_be_hidden()
        expect(fresh.root.get_by_label("Strength of the heat map")).to_have_value("30")

    def test_nonsense_in_the_address_is_ignored(self, visit):
        explorer = Explorer(visit(f"{PATH}?feature=minus&sort=beauty&show=nobody").page)
        expect(explorer.selected).to_have_attribute("aria-posinset", "1")

    def test_the_rest_of_the_address_stays(self, visit):
        page = visit(f"{PATH}?other=1").page
        Explorer(page).list.locator('[aria-posinset="2"]').click()
        assert "other=1" in page.url
        assert "feature=" in page.url

    def test_two_explorers_keep_to_their_own_part_of_it(self, explorer):
        explorer.page.evaluate(SECOND_EXPLORER, False)
        second = Explorer(explorer.page, 1)
        second.list.locator('[aria-posinset="3"]').click()
        explorer.list.locator('[aria-posinset="2"]').click()
        assert f"feature={explorer.feature}" in explorer.page.url
        assert f"2.feature={second.feature}" in explorer.page.url
        assert explorer.feature != second.feature


class TestWithAKernel:
    def test_it_says_so_and_asks_for_the_chosen_feature_once(self, explorer):
        explorer.page.evaluate(SECOND_EXPLORER, True)
        second = Explorer(explorer.page, 1)
        expect(second.root.locator(".fx-status")).to_contain_text("Kernel attached")
        for place in (1, 2, 1):
            second.list.locator(f'[aria-posinset="{place}"]').click()
        chosen = [second.list.locator(f'[aria-posinset="{place}"]').get_attribute("data-feature") for place in (1, 2)]
        asked = [{"kind": "feature", "feature": int(feature)} for feature in chosen]
        assert explorer.page.evaluate("window.sent") == [{"kind": "ping"}, *asked]
