"""Habitats, portraits and written words: what the Menagerie's scenes are put together from."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image, ImageFilter

from menagerie.world.habitats import HABITATS, draw_habitat
from menagerie.world.paint import jitter, mix
from menagerie.world.people import HAIRS, PRESENTATIONS, SKINS, Person, draw_person
from menagerie.world.stickers import STICKER_WORDS, draw_sign, draw_sticker
from menagerie.world.taxonomy import SPECIES

SIZE = 168  # half the size that scenes draw at: the tests need shapes, not beauty


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=float)


def on_white(layer: Image.Image) -> np.ndarray:
    return pixels(Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB"))


# Habitats


@pytest.mark.parametrize("name", HABITATS)
def test_a_habitat_is_an_rgb_square_and_a_pure_function_of_its_generator(name: str) -> None:
    first, ground = draw_habitat(name, rng(3), SIZE)
    again, _ = draw_habitat(name, rng(3), SIZE)
    other, _ = draw_habitat(name, rng(4), SIZE)
    assert first.mode == "RGB"
    assert first.size == (SIZE, SIZE)
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()
    assert 0.3 < ground[0] < ground[1] - 0.1 < 0.9


@pytest.mark.parametrize("name", HABITATS)
def test_feet_always_find_ground_in_the_lower_part(name: str) -> None:
    grounds = [draw_habitat(name, rng(seed), 64)[1] for seed in range(40)]
    assert all(0.35 < low < 0.86 and 0.9 <= high <= 0.96 for low, high in grounds)


def test_habitats_can_be_told_apart_by_colour_and_layout_with_the_middle_covered() -> None:
    """A nearest-centroid rule on an 8 x 8 thumbnail without its middle recognises fresh pictures."""

    def look(name: str, seed: int) -> np.ndarray:
        small = pixels(draw_habitat(name, rng(seed), 112)[0].resize((8, 8), Image.Resampling.BOX))
        small[2:7, 2:6] = 0  # where a creature stands
        return small.ravel()

    centroids = np.stack([np.mean([look(name, seed) for seed in range(24)], axis=0) for name in HABITATS])
    right = [
        np.linalg.norm(centroids - look(name, seed), axis=1).argmin() == k
        for k, name in enumerate(HABITATS)
        for seed in range(100, 112)
    ]
    assert np.mean(right) > 0.85


@pytest.mark.parametrize("name", HABITATS)
def test_a_habitat_varies(name: str) -> None:
    pictures = np.stack([pixels(draw_habitat(name, rng(seed), 56)[0]) for seed in range(12)])
    assert pictures.std(axis=0).mean() > 6


def test_an_unknown_habitat_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"Unknown habitat 'moon'; choose one of water, .*swamp"):
        draw_habitat("moon", rng(0), SIZE)


# People


def test_a_portrait_is_transparent_around_an_opaque_person_and_pure() -> None:
    person = Person("red", "woman", glasses=True, hat=True)
    layer = draw_person(person, rng(5), SIZE)
    alpha = np.asarray(layer)[..., 3]
    assert layer.mode == "RGBA"
    assert layer.size == (SIZE, SIZE)
    assert set(np.unique(alpha)) == {0, 255}
    assert 0.2 < (alpha > 0).mean() < 0.8
    assert layer.tobytes() == draw_person(person, rng(5), SIZE).tobytes()
    assert layer.tobytes() != draw_person(person, rng(6), SIZE).tobytes()


@pytest.mark.parametrize(("hair", "presentation", "skin"), list(itertools.product(HAIRS, PRESENTATIONS, SKINS)))
def test_every_person_can_be_drawn_with_any_accessories(hair: str, presentation: str, skin: str) -> None:
    layers = {
        draw_person(Person(hair, presentation, glasses, hat, smile, skin), rng(1), 84).tobytes()
        for glasses, hat, smile in itertools.product((False, True), repeat=3)
    }
    assert len(layers) == 8  # each attribute shows


@pytest.mark.parametrize("presentation", PRESENTATIONS)
def test_hair_colours_change_the_picture_and_blond_is_nearest_to_light_brown(presentation: str) -> None:
    def mean(hair: str) -> np.ndarray:
        return np.mean([on_white(draw_person(Person(hair, presentation), rng(s), 84)) for s in range(12)], axis=0)

    distance = {hair: np.abs(mean(hair) - mean("blond")).mean() for hair in HAIRS if hair != "blond"}
    assert min(distance, key=distance.__getitem__) == "light brown"
    assert distance["light brown"] > 0.2


def test_women_mostly_show_more_hair_than_men() -> None:
    def hair_pixels(presentation: str, seed: int) -> int:
        black, red = (on_white(draw_person(Person(hair, presentation), rng(seed), 84)) for hair in ("black", "red"))
        return int((np.abs(black - red).sum(axis=2) > 120).sum())

    women, men = ([hair_pixels(p, seed) for seed in range(40)] for p in PRESENTATIONS)
    assert np.median(women) > 1.3 * np.median(men)
    assert max(men) > min(women)  # no single cue decides


def test_an_unknown_attribute_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Unknown hair 'green'; choose one of blond"):
        Person("green", "woman")


# Written words


def test_sticker_words_are_twenty_short_species() -> None:
    assert len(set(STICKER_WORDS)) == 20
    assert all(3 <= len(word) <= 5 for word in STICKER_WORDS)
    assert set(STICKER_WORDS) <= set(SPECIES)


@pytest.mark.parametrize("draw", [draw_sticker, draw_sign])
@pytest.mark.parametrize("word", STICKER_WORDS)
def test_words_are_pure_spelled_right_and_inside_the_picture(draw, word: str) -> None:
    for seed in range(6):
        layer, boxes = draw(word, rng(seed), SIZE)
        again, same = draw(word, rng(seed), SIZE)
        assert (layer.mode, layer.size) == ("RGBA", (SIZE, SIZE))
        assert layer.tobytes() == again.tobytes()
        assert boxes == same
        assert "".join(letter for letter, *_ in boxes).lower() == word
        assert all(0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1 for _, x0, y0, x1, y1 in boxes)
        lefts = [box[1] for box in boxes]
        assert lefts == sorted(lefts)  # read from left to right


@pytest.mark.parametrize("seed", range(12))
def test_each_letter_box_is_tight_around_ink_and_no_letter_lies_outside(seed: int) -> None:
    layer, boxes = draw_sticker("owl", rng(seed), 336)
    picture = pixels(layer)
    paper = np.median(picture[picture[..., 3] == 255], axis=0)
    ink = (np.abs(picture - paper).sum(axis=2) > 250) & (picture[..., 3] == 255)
    for _, *edges in boxes:
        left, top, right, bottom = (round(336 * edge) for edge in edges)
        inside = ink[top:bottom, left:right]
        for margin in (inside[:3], inside[-3:], inside[:, :3], inside[:, -3:]):
            assert margin.any()
    for _, *edges in boxes:
        left, top, right, bottom = (round(336 * edge) for edge in edges)
        ink[top:bottom, left:right] = False
    thick = Image.fromarray(ink.astype(np.uint8)).filter(ImageFilter.MinFilter(5))
    assert not np.asarray(thick).any()  # at most the label's thin edge is left


@pytest.mark.parametrize("word", ["owl", "swan", "panda"])
def test_letters_stay_large_enough_to_read(word: str) -> None:
    heights = []
    for seed in range(30):
        _, boxes = draw_sticker(word, rng(seed), 336)
        heights.append(112 * max(y1 - y0 for _, _, y0, _, y1 in boxes))
    assert min(heights) > 11
    assert np.median(heights) > 15


def test_labels_are_put_all_over_the_picture() -> None:
    middles = np.array([np.mean([box[1:] for box in draw_sticker("bee", rng(s), SIZE)[1]], axis=0) for s in range(60)])
    assert np.ptp((middles[:, 0] + middles[:, 2]) / 2) > 0.3
    assert np.ptp((middles[:, 1] + middles[:, 3]) / 2) > 0.5


def test_signs_fill_more_of_the_picture_than_stickers() -> None:
    cover = {
        draw: np.mean([(np.asarray(draw("wolf", rng(seed), SIZE)[0])[..., 3] == 255).mean() for seed in range(20)])
        for draw in (draw_sticker, draw_sign)
    }
    assert cover[draw_sign] > 1.5 * cover[draw_sticker]
    assert cover[draw_sign] > 0.4


# Colours


def test_mixing_ends_at_its_two_colours() -> None:
    a, b = (10, 200, 30), (250, 0, 90)
    assert mix(a, b, 0) == a
    assert mix(a, b, 1) == b


def test_jitter_stays_within_the_byte_range() -> None:
    colors = [jitter(rng(seed), (2, 128, 254), 40) for seed in range(50)]
    assert all(0 <= channel <= 255 for color in colors for channel in color)
    assert len(set(colors)) > 40
