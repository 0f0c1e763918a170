"""The hierarchy tree in the rendered book, driven as a reader drives it: by clicks and keys, with no kernel."""

import re

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.manners import colours_of_themes, wait_until_drawn, without_a_name

PATH = "notebooks/04b_hierarchy.html"
MAX_PAGE_BYTES = 5_000_000

pytestmark = pytest.mark.browser


class Tree:
    """What a reader sees of the tree, by name."""

    def __init__(self, page):
        self.page = page
        self.root = page.locator(".ht:not(.ht-loading)")
        self.stage = self.root.get_by_role("tree", name="Features by level")
        self.search = self.root.get_by_label("Find features")
        self.colour = self.root.get_by_label("Colour by")
        self.whole = self.root.get_by_role("button", name="Whole tree")
        self.title = self.root.locator(".ht-title")
        expect(self.title).to_be_visible()

    @property
    def feature(self) -> int:
        """Number of the chosen feature, as its title gives it."""
        return int(re.search(r"#(\d+)", self.title.inner_text())[1])

    @property
    def selected(self) -> Locator:
        return self.stage.locator('[aria-selected="true"]')

    def strips(self, level: int) -> Locator:
        return self.stage.locator(f'[aria-level="{level + 1}"]')

    def parent_in_view(self) -> Locator:
        """A strip that has others below it, on the coarsest level."""
        return self.strips(0).and_(self.stage.locator('[aria-expanded="true"]')).first

    def press(self, *keys: str) -> None:
        self.stage.focus()
        for key in keys:
            self.page.keyboard.press(key)


@pytest.fixture
def tree(visit) -> Tree:
    return Tree(visit(PATH).page)


class TestFirstView:
    def test_the_page_stays_within_five_megabytes(self, html):
        assert (html / PATH).stat().st_size <= MAX_PAGE_BYTES

    def test_a_feature_of_the_coarsest_level_is_chosen_and_its_pictures_are_drawn(self, tree):
        expect(tree.selected).to_have_attribute("aria-level", "1")
        expect(tree.selected).to_have_attribute("data-feature", str(tree.feature))
        pictures = tree.root.locator(".ht-pictures canvas")
        assert pictures.count() > 0
        wait_until_drawn(pictures)

    def test_every_level_has_a_column(self, tree):
        heads = tree.root.locator(".ht-heads b")
        assert heads.all_inner_texts() == [f"Level {level}" for level in range(heads.count())]
        assert all(tree.strips(level).count() for level in range(heads.count()))

    def test_a_feature_stands_beside_its_parent(self, tree):
        tree.parent_in_view().click()
        tree.whole.click()
        tree.page.wait_for_timeout(400)
        below = tree.root.locator(".ht-chip").first.get_attribute("data-feature")
        strips = (tree.stage.locator(f'[data-feature="{feature}"]') for feature in (tree.feature, below))
        box, inner = (strip.bounding_box() for strip in strips)
        assert inner["x"] > box["x"]
        assert box["y"] - 1 <= inner["y"]
        assert inner["y"] + inner["height"] <= box["y"] + box["height"] + 1

    def test_nothing_is_wider_than_a_phone(self, tree):
        tree.page.set_viewport_size({"width": 360, "height": 780})
        assert tree.page.evaluate("document.documentElement.scrollWidth") <= 360
        assert tree.root.evaluate("(root) => root.scrollWidth <= root.clientWidth")

    def test_it_follows_the_dark_theme(self, tree):
        light, dark = colours_of_themes(tree.page, tree.root)
        assert dark != light

    def test_everything_that_can_be_operated_has_a_name(self, tree):
        assert without_a_name(tree.root) == []


class TestZoom:
    def test_a_click_fills_the_height_with_the_feature_and_what_is_below(self, tree):
        parent = tree.parent_in_view()
        feature = parent.get_attribute("data-feature")
        parent.click()
        assert tree.feature == int(feature)
        assert parent.evaluate("(strip) => strip.style.height") == "100%"
        expect(tree.whole).to_be_enabled()

    def test_the_whole_tree_comes_back_by_its_button_and_by_escape(self, tree):
        strips = tree.stage.locator(".ht-strip").count()
        for leave in (tree.whole.click, lambda: tree.press("Escape")):
            tree.parent_in_view().click()
            leave()
            expect(tree.whole).to_be_disabled()
            assert tree.stage.locator(".ht-strip").count() == strips

    def test_enter_zooms_to_the_chosen_feature(self, tree):
        tree.parent_in_view().click()
        tree.whole.click()
        tree.press("Enter")
        assert tree.selected.evaluate("(strip) => strip.style.height") == "100%"


class TestKeys:
    def test_right_leads_to_a_finer_feature_and_left_back(self, tree):
        tree.parent_in_view().click()
        start = tree.feature
        tree.press("ArrowRight")
        expect(tree.selected).to_have_attribute("aria-level", "2")
        assert tree.feature != start
        tree.press("ArrowLeft")
        assert tree.feature == start

    def test_down_and_up_walk_through_siblings(self, tree):
        tree.parent_in_view().click()
        family = [int(chip.get_attribute("data-feature")) for chip in tree.root.locator(".ht-chip").all()]
        tree.press("ArrowRight")
        visited = [tree.feature]
        for _ in family[1:]:
            tree.press("ArrowDown")
            visited.append(tree.feature)
        assert visited == family
        if len(family) > 1:
            tree.press("ArrowUp")
            assert tree.feature == family[-2]

    def test_the_chosen_strip_can_always_be_seen(self, tree):
        tree.press(*["ArrowRight"] * 4, *["ArrowDown"] * 3)
        tree.page.wait_for_timeout(400)
        assert tree.selected.bounding_box()["height"] >= 3
        expect(tree.stage).to_have_attribute("aria-activedescendant", tree.selected.get_attribute("id"))

    def test_slash_leads_into_the_search_and_escape_out_of_it(self, tree):
        tree.press("/")
        expect(tree.search).to_be_focused()
        tree.search.fill("1")
        tree.page.keyboard.press("Escape")
        expect(tree.search).to_have_value("")
        expect(tree.stage).to_be_focused()


class TestSearch:
    def test_by_number_finds_one_and_enter_chooses_it(self, tree):
        number = tree.strips(1).first.get_attribute("data-feature")
        tree.search.fill(f"#{number}")
        expect(tree.root.locator(".ht-result")).to_have_text("1 found")
        tree.search.press("Enter")
        assert tree.feature == int(number)

    def test_by_name_marks_what_it_finds_and_dims_the_rest(self, tree):
        tree.search.fill("animalia")
        found = int(tree.root.locator(".ht-result").inner_text().split()[0].replace(",", ""))
        assert tree.stage.locator(".ht-found").count() <= found
        assert tree.stage.locator(".ht-strip").count() == tree.stage.locator(".ht-found, .ht-lost").count()


class TestColour:
    def test_another_measure_changes_the_shades_and_the_legend(self, tree):
        shades = "(stage) => [...stage.children].map((strip) => strip.style.getPropertyValue('--ht-shade'))"
        first, legend = tree.stage.evaluate(shades), tree.root.locator(".ht-legend").inner_text()
        tree.colour.select_option(index=1)
        assert tree.stage.evaluate(shades) != first
        assert tree.root.locator(".ht-legend").inner_text() != legend

    def test_the_card_tells_every_measure(self, tree):
        names = tree.colour.locator("option").all_inner_texts()
        assert tree.root.locator(".ht-numbers span").all_inner_texts() == names


class TestCard:
    def test_a_chip_leads_to_the_feature_below_and_the_line_back(self, tree):
        tree.parent_in_view().click()
        start = tree.feature
        chip = tree.root.locator(".ht-chip").first
        below = int(chip.get_attribute("data-feature"))
        chip.click()
        assert tree.feature == below
        expect(tree.root.locator(".ht-parentage")).to_contain_text(f"#{start}")
        tree.root.locator(".ht-step").last.click()
        assert tree.feature == start
