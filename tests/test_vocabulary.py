"""Vocabularies: words from the Menagerie, from open_clip, from wordfreq and from files."""

import sys
from types import SimpleNamespace

import pytest

from experiments.vocabulary import facts_in_vocabulary, load_vocabulary, word_facts
from lib.images.image_set import load_images


def test_the_menageries_words_are_what_its_captions_name():
    words = load_vocabulary("menagerie")
    assert {"owl", "water", "mammal", "water bird", "woman", "blond hair", "glasses"} <= set(words)
    assert len(words) == len(set(words)) > 100


def test_each_word_is_true_of_the_pictures_that_show_or_say_it():
    table = load_images("menagerie:train[:300]").facts
    facts = word_facts(table)
    assert facts.names == load_vocabulary("menagerie")
    truth = {name: facts.truth[:, i].numpy() for i, name in enumerate(facts.names)}
    for i, row in enumerate(table.itertuples()):
        assert truth["owl"][i] == ("owl" in (row.species, row.second_species, row.sticker_word))
        assert truth["water"][i] == (row.habitat == "water")
        assert truth["water bird"][i] == (row.water_bird is True)
        assert truth["land bird"][i] == (row.water_bird is False)
        assert truth["mammal"][i] == (table["class"][i] == "Mammalia")
        assert truth["blond hair"][i] == (row.person_hair == "blond")
        assert truth["hat"][i] == (row.person_hat is True)
    assert facts.truth.any(1).all()


def test_imagenet_has_the_names_of_its_classes():
    words = load_vocabulary("imagenet")
    assert words[0] == "tench"
    assert 990 < len(words) <= 1000  # a few names are shared by two classes


def test_the_most_frequent_words_come_from_wordfreq(monkeypatch):
    package = SimpleNamespace(top_n_list=lambda language, n: [f"{language}{i}" for i in range(n)])
    monkeypatch.setitem(sys.modules, "wordfreq", package)
    assert load_vocabulary("wordfreq:3") == ["en0", "en1", "en2"]


def test_without_wordfreq_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "wordfreq", None)
    with pytest.raises(ImportError, match=r"pip install 'monosemantic-vision\[vocabulary\]', or give a text file"):
        load_vocabulary("wordfreq:5000")


def test_a_file_gives_each_of_its_lines_once(tmp_path):
    (tmp_path / "words.txt").write_text("owl\n\n polar bear \nowl\n", encoding="utf-8")
    assert load_vocabulary(str(tmp_path / "words.txt")) == ["owl", "polar bear"]


@pytest.mark.parametrize("spec", ["wordfreq:", "wordfreq:many", "wordfreq:0"])
def test_wordfreq_needs_a_number(spec):
    with pytest.raises(ValueError, match="write wordfreq:5000"):
        load_vocabulary(spec)


def test_a_missing_or_empty_file_is_an_error_that_names_the_choices(tmp_path):
    with pytest.raises(FileNotFoundError, match="give menagerie, imagenet, wordfreq:5000, or the path"):
        load_vocabulary(str(tmp_path / "none.txt"))
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ValueError, match="has no word"):
        load_vocabulary(str(tmp_path / "empty.txt"))


def test_no_vocabulary_is_the_one_that_suits_the_pictures():
    def pictures(spec, *classes):
        return SimpleNamespace(spec=spec, class_names=classes or None)

    assert load_vocabulary("", load_images("menagerie:val[:3]")) == load_vocabulary("menagerie")
    birds = pictures("folder:birds", "Blue_Jay", "crane, bird", "crane, machine")
    assert load_vocabulary("", birds) == ["Blue Jay", "crane"]
    assert load_vocabulary("", pictures("folder:unsorted")) == load_vocabulary("imagenet")
    assert load_vocabulary("imagenet", birds) == load_vocabulary("imagenet")


def test_facts_that_a_vocabulary_names_need_pictures_with_and_without_them():
    images = load_images("menagerie:val[:40]")
    facts = facts_in_vocabulary(images, ["owl", "forest", "no such word"], 3)
    support = facts.truth.sum(0)
    assert set(facts.names) <= {"owl", "forest"}
    assert ((support >= 3) & (support <= 37)).all()
    assert facts_in_vocabulary(images, [], 3).names == []
    assert facts_in_vocabulary(images, ["owl", "forest"], 21).names == []
