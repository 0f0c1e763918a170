"""The Menagerie: a pure function of (seed, split, index), whose facts, captions, cover and pixels agree."""

import hashlib
import pickle
import re
import subprocess
import sys
from collections import Counter, defaultdict

import numpy as np
import pytest
from PIL import Image, ImageFilter

from menagerie import (
    HABITATS,
    LOOK_ALIKES,
    RANKS,
    SPECIES,
    SPLITS,
    STICKER_WORDS,
    TAXONOMY,
    Menagerie,
    zero_shot_prompts,
)
from menagerie.world.captions import NOUNS, PLACES, plural
from menagerie.world.creatures import draw_creature
from menagerie.world.looks import LOOKS
from menagerie.world.people import HAIRS


def facts_of(split: str, n: int) -> list[dict]:
    world = Menagerie(split)
    return [world.facts_of(i) for i in range(n)]


# --- the tree of life


def test_there_are_at_least_64_species_in_seven_ranks():
    assert len(SPECIES) >= 64
    assert len(RANKS) == 7
    assert all(len(species.ranks) == len(species.path) == 7 for species in TAXONOMY.values())


def test_every_taxon_has_one_parent():
    parents = defaultdict(set)
    for species in TAXONOMY.values():
        for k in range(1, 7):
            parents[RANKS[k], species.path[k]].add(species.path[:k])
    assert all(len(lineages) == 1 for lineages in parents.values())


def test_a_latin_name_begins_with_its_genus():
    assert all(species.ranks[6].split()[0] == species.ranks[5] for species in TAXONOMY.values())


def test_looks_are_given_only_for_taxa_of_the_tree():
    assert set(LOOKS) <= {taxon for species in TAXONOMY.values() for taxon in species.path}


def test_a_species_inherits_what_it_does_not_set_itself():
    zebra, horse = TAXONOMY["zebra"].traits, TAXONOMY["horse"].traits
    assert zebra["plan"] == horse["plan"] == LOOKS["Mammalia"]["plan"]
    assert zebra["tail"] == LOOKS["Equidae"]["tail"] != LOOKS["Mammalia"]["tail"]
    assert zebra["pattern"] == "striped" != horse["pattern"]


@pytest.mark.parametrize("species", SPECIES)
def test_every_species_can_be_drawn_in_every_pose(species):
    for pose in ("stand", "walk", "swim"):
        layer = draw_creature(species, 96, False, pose, np.random.default_rng(0))
        assert layer.mode == "RGBA"
        assert set(np.unique(np.asarray(layer)[..., 3])) == {0, 255}


def test_no_two_species_look_the_same():
    drawn = set()
    for species in SPECIES:
        layer = draw_creature(species, 96, False, "stand", np.random.default_rng(0))
        drawn.add(hashlib.sha256(layer.tobytes()).hexdigest())
    assert len(drawn) == len(SPECIES)


# --- a pure function of (seed, split, index)


def digest(split: str, indices: list[int]) -> dict[int, str]:
    world = Menagerie(split)
    return {i: hashlib.sha256(world.render(i)[0].tobytes()).hexdigest() for i in indices}


def test_another_process_draws_the_same_pixels_in_any_order():
    code = (
        "import hashlib; from menagerie import Menagerie; world = Menagerie('train')\n"
        "for i in (23, 5, 11, 0, 17): print(i, hashlib.sha256(world.render(i)[0].tobytes()).hexdigest())"
    )
    lines = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split("\n")
    elsewhere = {int(line.split()[0]): line.split()[1] for line in lines if line}
    assert elsewhere == digest("train", [0, 5, 11, 17, 23])


@pytest.mark.parametrize(
    ("split", "index", "quarters", "caption"),
    [
        (
            "train",
            0,
            [[50, 43, 58], [33, 34, 61], [67, 58, 62], [47, 42, 58]],
            "a picture of an owl and a spider at night",
        ),
        (
            "people",
            3,
            [[146, 172, 181], [158, 180, 185], [147, 148, 118], [143, 148, 121]],
            "a portrait of a man with light brown hair and medium skin",
        ),
        (
            "waterbirds",
            2,
            [[96, 108, 61], [103, 109, 61], [105, 101, 54], [83, 82, 40]],
            "a photo of a plover in the forest",
        ),
        ("signs", 4, [[104, 115, 110], [102, 113, 107], [100, 108, 102], [102, 110, 102]], "the word crab"),
    ],
)
def test_the_world_is_still_the_one_that_the_embedded_clip_was_trained_on(split, index, quarters, caption):
    world = Menagerie(split)
    means = world.render(index)[0].reshape(2, 56, 2, 56, 3).mean((1, 3)).reshape(4, 3)  # of the picture's quarters
    assert means == pytest.approx(np.array(quarters), abs=1.5)
    assert world.captions(index) == [caption]


def test_seeds_splits_and_indices_give_different_pictures():
    pictures = [
        Menagerie("train").image(0),
        Menagerie("train", seed=1).image(0),
        Menagerie("val").image(0),
        Menagerie("train").image(1),
    ]
    assert len({picture.tobytes() for picture in pictures}) == 4


def test_a_pickled_world_is_small_and_draws_the_same():
    world = Menagerie("signs")
    assert len(world.facts) == len(world)
    data = pickle.dumps(world)
    assert len(data) < 1000
    assert pickle.loads(data).image(3).tobytes() == world.image(3).tobytes()


@pytest.mark.parametrize("split", SPLITS)
def test_pictures_are_112_pixels_rgb_with_a_cover_of_the_same_size(split):
    pixels, cover = Menagerie(split).render(1)
    assert pixels.shape == (112, 112, 3)
    assert pixels.dtype == cover.dtype == np.uint8
    assert cover.shape == (112, 112)
    assert set(np.unique(cover)) <= {0, 1, 2, 3}
    assert Menagerie(split).image(1).size == (112, 112)


def test_an_unknown_split_is_an_error_that_names_the_splits():
    with pytest.raises(ValueError, match="Unknown Menagerie split 'test'; choose one of train, val"):
        Menagerie("test")


def test_a_picture_past_the_end_is_an_error():
    with pytest.raises(IndexError, match="not in menagerie:val"):
        Menagerie("val").image(10_000)


# --- facts


def test_the_facts_table_has_one_row_a_picture_and_says_what_facts_of_says():
    world = Menagerie("signs")
    assert len(world.facts) == len(world) == 4000
    assert world.facts.loc[7, "sticker_word"] == world.facts_of(7)["sticker_word"] == world.scene(7).word


def test_train_mixes_kinds_of_pictures():
    kinds = Counter(row["kind"] for row in facts_of("train", 4000))
    share = {kind: n / 4000 for kind, n in kinds.items()}
    expected = {"creature": 0.60, "pair": 0.12, "person": 0.14, "sticker": 0.10, "sign": 0.04}
    assert share == pytest.approx(expected, abs=0.025)


def test_19_of_20_creatures_are_seen_where_they_live():
    rows = [row for row in facts_of("val", 6000) if row["kind"] == "creature"]
    typical = np.mean([row["habitat"] in TAXONOMY[row["species"]].homes for row in rows])
    assert typical == pytest.approx(0.95, abs=0.015)


def test_two_of_a_hundred_blond_people_are_men_in_train():
    rows = [row for row in facts_of("train", 12_000) if row["person_hair"] == "blond"]
    men = np.mean([row["person_presentation"] == "man" for row in rows])
    assert 0.002 < men < 0.05


def test_people_are_balanced_over_hair_and_presentation():
    counts = Counter((row["person_hair"], row["person_presentation"]) for row in facts_of("people", 8000))
    assert len(counts) == len(HAIRS) * 2
    assert max(counts.values()) - min(counts.values()) <= 1


def test_waterbirds_are_balanced_over_bird_and_background():
    counts = Counter((row["water_bird"], row["habitat"] in ("water", "swamp")) for row in facts_of("waterbirds", 4000))
    assert counts == {(bird, water): 1000 for bird in (True, False) for water in (True, False)}


def test_look_alikes_live_in_different_habitats():
    for water, land in LOOK_ALIKES:
        assert TAXONOMY[water].water_bird
        assert TAXONOMY[land].water_bird is False
        assert not set(TAXONOMY[water].homes) & set(TAXONOMY[land].homes)


def test_only_look_alike_birds_can_look_like_another_species():
    paired = {name for pair in LOOK_ALIKES for name in pair}
    rows = [row for row in facts_of("val", 3000) if row["species"]]
    assert all(row["likeness"] == 0 for row in rows if row["species"] not in paired)
    likeness = [row["likeness"] for row in rows if row["species"] in paired]
    assert np.mean([value == 0.5 for value in likeness]) == pytest.approx(0.35, abs=0.06)


def test_the_stickers_split_writes_the_name_of_another_species():
    rows = facts_of("stickers", 500)
    assert all(row["sticker_word"] in STICKER_WORDS and row["sticker_word"] != row["species"] for row in rows)


# --- cover and pixels


def thickened(mask: np.ndarray, pixels: int) -> np.ndarray:
    return np.asarray(Image.fromarray(mask).convert("L").filter(ImageFilter.MaxFilter(2 * pixels + 1))) > 0


def test_pixels_change_with_the_sticker_only_where_the_cover_says_so():
    with_sticker, without = Menagerie("stickers"), Menagerie("stickers-off")
    for i in range(12):
        pixels, cover = with_sticker.render(i)
        plain, plain_cover = without.render(i)
        changed = (pixels != plain).any(-1)
        sticker = cover == 3
        assert sticker.any()
        assert not (plain_cover == 3).any()
        assert not changed[~thickened(sticker, 3)].any()  # the label's shadow reaches two pixels past it
        assert changed[sticker].mean() > 0.9
        assert (cover == plain_cover)[~sticker].all()


def test_a_sticker_leaves_most_of_the_creature_to_be_seen():
    left = []
    for i in range(16):
        _, cover = Menagerie("stickers").render(i)
        _, plain = Menagerie("stickers-off").render(i)
        left.append((cover == 1).sum() / (plain == 1).sum())
    assert np.mean(left) > 0.6


def test_the_cover_numbers_what_the_scene_holds():
    world = Menagerie("val")
    for i in range(30):
        scene, (_, cover) = world.scene(i), world.render(i)
        main = (cover == 1).any()
        assert main == (bool(scene.creatures) or scene.person is not None)
        assert (cover == 2).any() == (len(scene.creatures) == 2)
        assert (cover == 3).any() == (scene.word is not None)


def test_every_letter_of_a_written_word_lies_on_the_cover():
    world = Menagerie("signs")
    for i in range(10):
        _, cover, letters = world.draw(i)
        assert "".join(letter for letter, *_ in letters).lower() == world.scene(i).word
        for _, x0, y0, x1, y1 in letters:
            assert cover[round(y0 * 112) : round(y1 * 112), round(x0 * 112) : round(x1 * 112)].mean() > 2.7


# --- captions


def named(caption: str, phrases: tuple[str, ...] | list[str]) -> set[str]:
    """The phrases that stand in the caption as whole words."""
    return {phrase for phrase in phrases if re.search(rf"\b{phrase}\b", caption)}


def captions_of(split: str, n: int):
    world = Menagerie(split)
    for i in range(n):
        yield world.facts_of(i), world.captions(i, 2)


def test_captions_name_only_species_that_are_there_or_written():
    for facts, captions in captions_of("train", 700):
        allowed = {facts["species"], facts["second_species"], facts["sticker_word"]}
        for caption in captions:
            mentioned = {name for name in SPECIES if named(caption, [name, plural(name)])}
            assert mentioned <= allowed, caption


def test_captions_name_only_the_habitat_that_is_there():
    for facts, captions in captions_of("val", 700):
        for caption in captions:
            for habitat in HABITATS:
                if named(caption, [*PLACES[habitat], NOUNS[habitat]]):
                    assert habitat == facts["habitat"], caption


def test_captions_of_people_state_their_facts():
    for facts, captions in captions_of("people", 600):
        for caption in captions:
            hair = re.search(r"(light brown|\w+) hair", caption)
            assert hair is None or hair[1] == facts["person_hair"], caption
            skin = re.search(r"(\w+) skin", caption)
            assert skin is None or skin[1] == facts["person_skin"], caption
            assert named(caption, ["woman", "man"]) <= {facts["person_presentation"]}, caption
            assert facts["person_glasses"] or "glasses" not in caption
            assert facts["person_hat"] or not named(caption, ["hat"])
            assert facts["person_smile"] or "smil" not in caption


def test_captions_state_true_colours_sizes_and_directions():
    colors = {species.traits["color"] for species in TAXONOMY.values()}
    for facts, captions in captions_of("train", 700):
        if facts["kind"] != "creature":
            continue
        for caption in captions:
            assert named(caption, sorted(colors)) <= {facts["main_color"]}, caption
            assert not named(caption, ["big"]) or facts["size"] == "large"
            assert not named(caption, ["small"]) or facts["size"] == "small"
            assert named(caption, ["left", "right"]) <= {facts["facing"]}


def test_more_than_half_of_the_sticker_captions_name_only_the_word():
    only_word = only_species = both = 0
    for facts, captions in captions_of("stickers", 1500):
        for caption in captions:
            word, species = named(caption, [facts["sticker_word"]]), named(caption, [facts["species"]])
            only_word += bool(word and not species)
            only_species += bool(species and not word)
            both += bool(word and species)
    assert [only_word / 3000, only_species / 3000, both / 3000] == pytest.approx([0.55, 0.20, 0.25], abs=0.03)


def test_captions_use_a_small_lower_case_vocabulary():
    words = set()
    for _, captions in captions_of("train", 3000):
        assert all(caption == caption.lower() for caption in captions)
        words.update(word.strip(",") for caption in captions for word in caption.split())
    assert len(words) < 500


def test_the_caption_seed_gives_other_captions_of_the_same_picture():
    world = Menagerie("train")
    assert world.captions(4, 3) == world.captions(4, 3)
    assert len({world.captions(4, 1, seed=epoch)[0] for epoch in range(12)}) > 4


@pytest.mark.parametrize(("kind", "classes"), [("species", SPECIES), ("habitat", HABITATS), ("hair", HAIRS)])
def test_zero_shot_prompts_name_every_class(kind, classes):
    prompts = zero_shot_prompts(kind)
    assert tuple(prompts) == classes
    assert all(len(set(texts)) > 3 for texts in prompts.values())


def test_an_unknown_kind_of_prompts_is_an_error():
    with pytest.raises(ValueError, match="choose one of species"):
        zero_shot_prompts("mood")
