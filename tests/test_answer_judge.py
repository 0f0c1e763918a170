"""The judge of steered answers: on right answers, and on texts made wrong by hand."""

import pandas as pd
import pytest

from experiments.answer_judge import (
    LOOSE_FORMS,
    Concept,
    class_judge,
    follows,
    judge_for,
    menagerie_judge,
    nameable_facts,
    truth_of,
    truths_of,
)
from lib.images.image_set import load_images
from menagerie import SPECIES, Menagerie
from menagerie.llava.lessons import FORMS, LESSONS, OPEN
from menagerie.world.captions import plural

JUDGE = menagerie_judge()
SCENES = 300
HERON, SWAMP, SNOW = Concept("species", "heron"), Concept("habitat", "swamp"), Concept("habitat", "snow")
OF_A_HERON = truth_of(
    {"kind": "creature", "species": "heron", "second_species": "", "habitat": "swamp", "time_of_day": "evening"}
)


@pytest.fixture(scope="module")
def world():
    """Scenes of the held-out split, each with what is true of it."""
    menagerie = Menagerie("val")
    return [(menagerie.scene(i), truth_of(menagerie.facts_of(i))) for i in range(SCENES)]


def wrong_readings(world, lessons):
    """What the judge reads in right answers although it is not true of the scene."""
    return {
        (name, lesson.answer(scene)): JUDGE.named(lesson.answer(scene)) - truth
        for scene, truth in world
        for name, lesson in lessons.items()
        if not JUDGE.named(lesson.answer(scene)) <= truth
    }


def test_reads_nothing_untrue_in_right_answers(world):
    assert wrong_readings(world, OPEN) == {}
    assert wrong_readings(world, {name: LESSONS[name] for name in ("one word", "description", "habitat")}) == {}


def test_reads_species_and_habitat_in_every_open_answer(world):
    for scene, truth in world:
        wanted = {c for c in truth if c.column == "habitat"}
        wanted |= {Concept("species", scene.species)} if len(scene.creatures) == 1 else set()
        for lesson in OPEN.values():
            assert wanted <= JUDGE.named(lesson.answer(scene))


def test_reads_captions_as_their_facts_have_them():
    menagerie = Menagerie("val")
    shown = [i for i in range(SCENES) if menagerie.scene(i).kind in ("creature", "pair", "person")]
    read = {text: JUDGE.named(text) - truth_of(menagerie.facts_of(i)) for i in shown for text in menagerie.captions(i)}
    assert {text: extra for text, extra in read.items() if extra} == {}


@pytest.mark.parametrize("species", SPECIES)
def test_knows_every_species_by_its_name_and_its_plural(species):
    assert JUDGE.names(f"Look: {plural(species)}!", Concept("species", species))
    assert JUDGE.names(species.capitalize(), Concept("species", species))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a water bird", {"group=water bird"}),
        ("a woman with light brown hair", {"person_presentation=woman", "person_hair=light brown"}),
        ("a red haired man in the mountains", {"person_hair=red", "person_presentation=man", "habitat=mountain"}),
        ("a gray wolf with the word owl on it", {"main_color=gray", "species=wolf", "sticker_word=owl"}),
        ("Fox Day: once a year we all meet at night", {"species=fox", "habitat=night"}),
        ("the grey geese and a foxglove", {"main_color=gray", "species=goose"}),
        ("", set()),
    ],
)
def test_reads_whole_words_and_longer_phrases_first(text, named):
    assert {str(concept) for concept in JUDGE.named(text)} == named


def test_a_concept_is_written_as_the_facts_table_writes_it():
    assert Concept.parse("person_hair=light brown") == Concept("person_hair", "light brown")
    assert [str(Concept.parse(fact)) for fact in ("species=owl", "person_hat")] == ["species=owl", "person_hat"]


def test_a_concept_without_a_word_is_refused():
    with pytest.raises(ValueError, match="no word for family=Ardeidae"):
        JUDGE.names("a heron", Concept("family", "Ardeidae"))


BEFORE = "A gray heron in a swamp in the evening."


@pytest.mark.parametrize(
    ("text", "concept", "kept"),
    [
        ("A gray heron in a swamp in the evening.", HERON, True),
        ("A white duck in a swamp in the evening.", HERON, True),  # another animal, for it may not be a heron
        ("A gray heron in the snow in the evening.", HERON, False),  # another place, which nobody asked for
        ("A white duck in a swamp.", HERON, False),  # no longer says when
        ("A gray heron on the beach in the evening.", SWAMP, True),
        ("A gray crane in the evening.", SWAMP, False),
        ("A gray heron with a hat in the evening.", SWAMP, False),
        ("in in in the", HERON, False),
    ],
)
def test_the_rest_is_kept_where_it_is_still_said_and_nothing_false_is_added(text, concept, kept):
    assert JUDGE.keeps_the_rest(text, BEFORE, OF_A_HERON, concept) is kept


def test_what_was_wrong_before_need_not_be_kept():
    assert JUDGE.keeps_the_rest("A duck in a swamp.", "A heron in a swamp in the morning.", OF_A_HERON, HERON)


def test_right_answers_have_the_form_that_is_asked_for(world):
    for scene, _ in world[:100]:
        for name, lesson in OPEN.items():
            assert follows(lesson.answer(scene), FORMS[name])
            assert follows(lesson.answer(scene), LOOSE_FORMS[name])


def test_an_answer_to_one_prompt_follows_no_other_one(world):
    for scene, _ in world[:100]:
        for name, form in FORMS.items():
            assert not any(follows(OPEN[other].answer(scene), form) for other in OPEN if other != name)


@pytest.mark.parametrize("name", OPEN)
def test_a_single_word_follows_no_open_prompt_but_a_title(name):
    assert follows("Heron", LOOSE_FORMS[name]) is (name == "title")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("love poem", "My pencil, so slender,\n\nyou write words so tender,\nand never surrender."),
        ("to-do list", "Here is your list:\n\n1. Buy pencils\n2. Sharpen them\n\n3. Write\n4. Rest\n\nHave fun!"),
        ("math problem", "Tom has 12 pencils and loses 5. How many are left?"),
        ("holiday", "National Pencil Day is celebrated on March 30."),
        ("dialogue", 'Person A: "Is this your pencil?"\nPerson B: "It is."'),
        ("headline", "Pencils Sell Out\n\nShops in town have none left."),
    ],
)
def test_loose_forms_fit_what_other_models_write(name, text):
    assert follows(text, LOOSE_FORMS[name])


def test_loose_forms_refuse_the_wrong_form():
    assert not follows("1. Buy pencils\n2. Sharpen them\n3. Write", LOOSE_FORMS["to-do list"])
    assert not follows("A pencil is a pencil", LOOSE_FORMS["party"])


def test_labelled_pictures_are_judged_by_any_name_of_their_class():
    judge = class_judge(["tench, Tinca tinca", "crane", "sea lion"])
    assert judge.named("Two tenches? No, Tinca tinca.") == {Concept("class", "tench, Tinca tinca")}
    assert judge.named("SEA LIONS and cranes") == {Concept("class", "sea lion"), Concept("class", "crane")}
    assert judge.named("a craned neck") == set()


def test_the_judge_fits_the_pictures(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Menagerie("val").image(0).save(tmp_path / name / "0.png")
    assert Concept("species", "owl") in judge_for(load_images("menagerie:val[:3]")).concepts
    assert judge_for(load_images(f"folder:{tmp_path}")).concepts == {Concept("class", "cat"), Concept("class", "dog")}
    assert truth_of({"class": "cat"}) == {Concept("class", "cat")}


def test_pictures_of_which_nothing_is_known_have_no_judge(tmp_path):
    Menagerie("val").image(0).save(tmp_path / "0.png")
    with pytest.raises(ValueError, match="nothing is known"):
        judge_for(load_images(f"folder:{tmp_path}"))


def test_truth_is_read_from_a_table_of_facts_too():
    rows = pd.DataFrame([Menagerie("people").facts_of(i) for i in range(12)]).to_dict("records")
    for i, row in enumerate(rows):
        assert truth_of(row) == truth_of(Menagerie("people").facts_of(i))


def test_nameable_facts_are_those_of_the_columns_with_enough_pictures_on_both_sides():
    truths = truths_of(load_images("menagerie:val[:200]"))
    facts = nameable_facts(truths, ["species", "habitat"], min_support=5)
    concepts = [Concept.parse(name) for name in facts.names]
    assert {concept.column for concept in concepts} == {"species", "habitat"}
    assert facts.truth.tolist() == [[concept in truth for concept in concepts] for truth in truths]
    assert 5 <= facts.truth.sum(0).min() <= facts.truth.sum(0).max() <= 195


def test_too_few_pictures_have_no_nameable_facts():
    with pytest.raises(ValueError, match="nothing about species is true of 20 of these 10 pictures"):
        nameable_facts(truths_of(load_images("menagerie:val[:10]")), ["species"])
