"""The map of concepts: every feature with its concept and pictures, in one piece of HTML that asks for nothing."""

import json
import re

import pytest
from PIL import Image

from widgets.concept_map import Place, concept_map

IMAGES = [Image.new("RGB", (12, 12), (20 * i, 80, 120)) for i in range(10)]
PLACES = [
    Place(0.0, 0.0, "owl", "feature 3", "S 0.5", (4, 1)),
    Place(1.0, 0.0, "owl", "feature 9", pictures=(4,)),
    Place(4.0, 2.0, "snow <white>", "feature 7", pictures=(9, 1)),
]


def data_of(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', page, flags=re.S)[1])


def test_every_feature_is_a_point_with_its_concept_title_and_note():
    page = concept_map(PLACES, IMAGES, title="some features").data
    data = data_of(page)
    assert page.count("<circle") == 3
    assert [data["concepts"][point["concept"]] for point in data["points"]] == ["owl", "owl", "snow <white>"]
    first = data["points"][0]
    assert (first["title"], first["note"]) == ("feature 3", "S 0.5")
    assert "<b>some features</b>" in page


def test_pictures_are_stored_once_and_found_by_position():
    data = data_of(concept_map(PLACES, IMAGES).data)
    assert [point["pictures"] for point in data["points"]] == [[0, 2], [0], [1, 2]]  # 4, 9, 1: firsts before seconds


def test_more_pictures_than_fit_leave_out_the_last_ranks(monkeypatch):
    monkeypatch.setattr("widgets.concept_map.MAX_PICTURES", 2)
    assert [point["pictures"] for point in data_of(concept_map(PLACES, IMAGES).data)["points"]] == [[0], [0], [1]]


def test_distances_keep_their_proportions_and_y_points_upwards():
    first, second, third = (point["at"] for point in data_of(concept_map(PLACES, IMAGES).data)["points"])
    assert (third[0] - first[0]) == pytest.approx(4 * (second[0] - first[0]))
    assert (first[1] - third[1]) == pytest.approx(2 * (second[0] - first[0]))


def test_concepts_are_written_where_their_features_lie_and_never_on_each_other():
    near = [Place(0.0, 0.0, "owl", "a"), Place(0.01, 0.0, "fox", "b"), Place(1.0, 1.0, "bee", "c")]
    assert re.findall(r"<text [^>]*>(.*?)</text>", concept_map(near, IMAGES).data) == ["owl", "bee"]
    assert re.findall(r"<text [^>]*>(.*?)</text>", concept_map(PLACES, IMAGES, labels=1).data) == ["owl"]


def test_names_are_text_and_no_markup():
    page = concept_map(PLACES, IMAGES).data
    assert "<white>" not in page
    assert "&lt;white&gt;" in page


def test_it_names_no_address_and_is_the_same_in_every_run():
    page = concept_map(PLACES, IMAGES).data
    assert page == concept_map(PLACES, IMAGES).data
    assert re.findall(r"https?://|src=", page) == []


def test_no_feature_is_an_error_that_says_why():
    with pytest.raises(ValueError, match="nothing to map: no feature is steerable"):
        concept_map([], IMAGES)
