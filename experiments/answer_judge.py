"""Judge of answers by known facts: the concepts an answer names, whether they are true, and its form.

The paper lets GPT-4.1-mini judge whether an answer names the steered concept, follows its prompt and keeps the rest
(arXiv 2504.02821 v3, Table 2; its prompts are not published). Where every fact about every picture is known,
matching words is enough.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from experiments.ground_truth import Facts, facts_table
from lib.images.image_set import ImageSet
from menagerie import HABITATS, SPECIES, STICKER_WORDS, TAXONOMY
from menagerie.world.captions import GROUPS, group, plural
from menagerie.world.people import HAIRS, PRESENTATIONS, SKINS

YES = "yes"  # value of a yes-or-no fact such as `person_hat`
_SUBJECT = ("species", "group", "main_color", "kind", "person_presentation")  # columns that say what is shown
_FLAGS = {
    "person_glasses": ("glasses", "spectacles"),
    "person_hat": ("hat", "hats", "cap"),
    "person_smile": ("smile", "smiling", "smiles"),
}
_IRREGULAR = {"fungus": "fungi", "man": "men", "woman": "women", "fish": "fish"}


@dataclass(frozen=True, order=True)
class Concept:
    """A fact that a text can name: a column of the facts table and one of its values, `Concept("species", "owl")`."""

    column: str
    value: str = YES

    @classmethod
    def parse(cls, fact: str) -> "Concept":
        """From a fact's name as `experiments.ground_truth` writes it: `species=owl`, `person_hat`."""
        return cls(*fact.split("=", 1))

    @property
    def about(self) -> str:
        """What the concept describes: "subject" for species, group, colour and kind; else its column."""
        return "subject" if self.column in _SUBJECT else self.column

    def __str__(self) -> str:
        return self.column if self.value == YES else f"{self.column}={self.value}"


class Judge:
    """Finds the concepts that a text names; words: concepts by word or phrase.

    Of overlapping matches the first counts, then the longest: "a water bird" does not name water.
    """

    def __init__(self, words: Mapping[str, Iterable[Concept]]) -> None:
        self._concepts = {word.lower(): frozenset(concepts) for word, concepts in words.items()}
        longest_first = sorted(self._concepts, key=len, reverse=True)
        self._pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, longest_first))})\b")
        self.concepts = frozenset().union(*self._concepts.values())

    def named(self, text: str) -> frozenset[Concept]:
        """All concepts that the text names."""
        text = text.replace(" Day:", ":").lower()  # the name of a holiday is no time of day
        return frozenset().union(*(self._concepts[word] for word in self._pattern.findall(text)))

    def names(self, text: str, concept: Concept) -> bool:
        """Whether the text names the concept. Raises ValueError for a concept outside the vocabulary."""
        if concept not in self.concepts:
            raise ValueError(f"this judge has no word for {concept}: choose a concept from its vocabulary.")
        return concept in self.named(text)

    def keeps_the_rest(self, text: str, before: str, truth: frozenset[Concept], concept: Concept) -> bool:
        """Whether a text with a concept suppressed keeps all other true concepts and adds no false one.

        before: the text without suppression; truth: concepts true of the picture. Concepts about the same thing as the
        suppressed one (`Concept.about`) are ignored.
        """
        rest, was = ({c for c in self.named(t) if c.about != concept.about} for t in (text, before))
        return rest <= truth and was & truth <= rest


def menagerie_judge() -> Judge:
    """A judge of texts about Menagerie pictures: all that captions and answers there can name."""
    words: dict[str, list[Concept]] = {}

    def add(column: str, value: str, *names: str) -> None:
        for name in names:
            words.setdefault(name, []).append(Concept(column, value))

    for name in SPECIES:
        add("species", name, name, plural(name))
    for name in HABITATS:
        add("habitat", name, name, _plural(name))
    for name in {*GROUPS.values(), "land bird", "water bird"}:
        add("group", name, name, _plural(name))
    for name in {leaf.traits["color"] for leaf in TAXONOMY.values()}:
        add("main_color", name, *_spellings(name))
    for name in HAIRS:
        add(
            "person_hair",
            name,
            *(f"{colour}{h}" for colour in _spellings(name) for h in (" hair", " haired", "-haired")),
        )
    add("kind", "sign", "sign", "signs")
    for name in PRESENTATIONS:
        add("person_presentation", name, name, _plural(name))
    for name in SKINS:
        add("person_skin", name, f"{name} skin")
    for name in ("morning", "evening", "day"):  # "night" is a habitat
        add("time_of_day", name, name)
    for name in STICKER_WORDS:
        add("sticker_word", name, f"the word {name}", f"says {name}")
    for column, names in _FLAGS.items():
        add(column, YES, *names)
    return Judge(words)


def class_judge(class_names: Iterable[str]) -> Judge:
    """A judge of texts about labelled pictures: a class's comma-separated names and their plurals."""
    words: dict[str, list[Concept]] = {}
    for label in class_names:
        for name in {part.strip().lower() for part in label.split(",")} - {""}:
            for form in {name, _plural(name)}:
                words.setdefault(form, []).append(Concept("class", label))
    return Judge(words)


def judge_for(images: ImageSet) -> Judge:
    """The judge for a set of pictures. Raises ValueError where nothing is known about them."""
    if images.facts is not None:
        return menagerie_judge()
    if images.labels is None:
        raise ValueError(f"nothing is known about {images.spec}: give each class of pictures a sub-folder of its own.")
    return class_judge(images.class_names)


def truth_of(facts: Mapping[str, Any]) -> frozenset[Concept]:
    """Concepts true of a picture, from its row of facts; of both creatures where there are two."""
    species = [facts[column] for column in ("species", "second_species") if facts.get(column)]
    found = {Concept("species", name) for name in species}
    found |= {Concept("group", group(name)) for name in species}
    found |= {Concept("main_color", TAXONOMY[name].traits["color"]) for name in species}
    plain = ("class", "habitat", "time_of_day", "person_hair", "person_presentation", "person_skin", "sticker_word")
    found |= {Concept(column, facts[column]) for column in plain if facts.get(column)}
    found |= {Concept(column) for column in _FLAGS if facts.get(column)}
    return frozenset(found | {Concept("kind", "sign")} if facts.get("kind") == "sign" else found)


def truths_of(images: ImageSet) -> list[frozenset[Concept]]:
    """Concepts true of each picture of a set, in order."""
    return [truth_of(row) for row in facts_table(images).to_dict("records")]


def nameable_facts(truths: Sequence[frozenset[Concept]], columns: Sequence[str], min_support: int = 20) -> Facts:
    """The facts of these columns that a text can name, sorted, each true and false of at least `min_support` pictures.

    `Concept.parse` reads their names. Raises ValueError where no fact is left.
    """
    counts = Counter(concept for truth in truths for concept in truth if concept.column in columns)
    concepts = sorted(c for c, n in counts.items() if min_support <= n <= len(truths) - min_support)
    if not concepts:
        raise ValueError(
            f"nothing about {', '.join(columns)} is true of {min_support} of these {len(truths)} pictures: take more "
            "pictures, or columns of their facts."
        )
    place = {concept: i for i, concept in enumerate(concepts)}
    found = [(n, place[concept]) for n, truth in enumerate(truths) for concept in truth if concept in place]
    table = torch.zeros(len(truths), len(concepts), dtype=torch.bool)
    table[tuple(torch.tensor(found).t())] = True
    return Facts([str(concept) for concept in concepts], table)


def follows(text: str, form: str) -> bool:
    """Whether an answer has the form that its prompt asks for, a regular expression for the whole text."""
    return re.fullmatch(form, text.strip()) is not None


_LINE = r"[^\n]*\S[^\n]*"
_ANY_LINES = r"(?:[^\n]*\n)*"
_ITEM = r"[ \t]*(?:\d+[.)]|[-*•])[^\n]+"
_SPEECH = r"[^\n:]{1,40}:[^\n]+"
LOOSE_FORMS: dict[str, str] = {
    "love poem": rf"{_LINE}(\n+{_LINE})+",
    "title": _LINE,
    "to-do list": rf"{_ANY_LINES}{_ITEM}(\n{_ANY_LINES}{_ITEM}){{3}}(?s:\n.*)?",
    "rap": rf"{_LINE}(\n+{_LINE})+",
    "math problem": r"(?si).*(\d|two|three|four|five|six|seven|eight|nine|ten).*\?.*",
    "encyclopedia": r"(?s)[^.]+\.[^.]+\..*",
    "holiday": r"(?si).*\b(day|holiday|festival|eve)\b.*",
    "dialogue": rf"{_ANY_LINES}{_SPEECH}\n{_ANY_LINES}{_SPEECH}(?s:\n.*)?",
    "headline": rf"{_LINE}\n+{_LINE}(?s:\n.*)?",
    "party": r"(?s).*\?.*",
}
"""The forms that answers of any LLaVA to the ten open prompts have; `menagerie.llava.lessons.FORMS` is stricter."""


def _plural(name: str) -> str:
    head, _, last = name.rpartition(" ")
    if head:
        return f"{head} {_plural(last)}"
    regular = re.sub(r"(?<=[^aeiou])ys$", "ies", re.sub(r"(s|x|z|ch|sh)s$", r"\1es", f"{name}s"))
    return _IRREGULAR.get(name, regular)


def _spellings(colour: str) -> set[str]:
    return {colour, colour.replace("grey", "gray"), colour.replace("gray", "grey")}
