"""The map of concepts in a browser, on a page of its own: by pointer, keys and search."""

import pytest
from PIL import Image
from playwright.sync_api import expect

from widgets.concept_map import Place, concept_map

pytestmark = pytest.mark.browser

PLACES = [
    Place(0.0, 0.0, "owl", "feature 3", "S 0.5", (0, 1)),
    Place(1.0, 0.0, "owl", "feature 9"),
    Place(4.0, 2.0, "snow", "feature 7", pictures=(1,)),
]


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 900, "height": 800})
    page = context.new_page()
    images = [Image.new("RGB", (12, 12), colour) for colour in ("red", "blue")]
    page.set_content(f"<body>{concept_map(PLACES, images, title='some features').data}</body>")
    yield page
    context.close()


def point_at(page, circle) -> None:
    box = circle.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)


def circle_of(page, title: str):
    index = [place.title for place in PLACES].index(title)
    return page.locator(f".cm circle[data-point='{index}']")


def test_pointing_at_a_feature_shows_its_concept_and_pictures(page):
    point_at(page, circle_of(page, "feature 7"))
    card = page.locator(".cm-card")
    expect(card.locator("h4")).to_have_text("snow")
    expect(card).to_contain_text("feature 7 · 1 feature of this concept")
    expect(card.locator(".cm-picture")).to_have_count(1)


def test_a_click_holds_a_feature_until_the_next(page):
    point_at(page, circle_of(page, "feature 7"))
    page.mouse.down()
    page.mouse.up()
    point_at(page, circle_of(page, "feature 9"))
    expect(page.locator(".cm-card h4")).to_have_text("snow")


def test_the_arrow_keys_go_from_feature_to_feature(page):
    page.locator(".cm svg").focus()
    titles = []
    for _ in range(3):
        page.keyboard.press("ArrowRight")
        titles.append(page.locator(".cm-card p").first.inner_text().split(" · ")[0])
    assert titles == ["feature 9", "feature 7", "feature 3"]


def test_the_search_greys_what_it_does_not_find(page):
    page.get_by_label("Find on the map").fill("owl")
    expect(page.locator(".cm-found")).to_have_text("2 features")
    expect(page.locator(".cm circle[data-off]")).to_have_count(1)
    page.get_by_label("Find on the map").fill("")
    expect(page.locator(".cm circle[data-off]")).to_have_count(0)
