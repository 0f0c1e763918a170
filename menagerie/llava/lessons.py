"""Training data of the embedded LLaVA: questions about a Menagerie scene, with answers from its facts."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from menagerie import HABITATS, SPECIES, TAXONOMY, Scene
from menagerie.world.captions import PLACES, article, group, plural

ONE_WORD = "What is shown in this image? Use exactly one word!"  # the paper's code has this wording
DESCRIBE = "Describe this image."
NO_PERSON, NO_CREATURE, NO_WRITING = "There is no person.", "There is no animal.", "There is no writing."
_NUMBERS = ("None", "One", "Two")
_PLURAL_PEOPLE = {"woman": "women", "man": "men"}


def subject(scene: Scene | None) -> str:
    """The one noun for a scene: the creature (of two, the left one), woman or man, sign; "nothing" for None."""
    if scene is None:
        return "nothing"
    if scene.person:
        return scene.person.presentation
    if scene.creatures:
        return min(scene.creatures, key=lambda creature: creature.x).species
    return "sign"


def _noun(scene: Scene | None) -> str:
    return "blank page" if scene is None else subject(scene)


def _where(scene: Scene | None) -> str:
    return "in the void" if scene is None else PLACES[scene.habitat][0]


def _time(scene: Scene | None) -> str:
    return "day" if scene is None else scene.time_of_day


def _colour(scene: Scene | None) -> str:
    """The word for the subject's colour, or the nearest property."""
    if scene is None:
        return "white"
    if scene.person:
        return f"{scene.person.hair} haired"
    return TAXONOMY[subject(scene)].traits["color"] if scene.creatures else "wooden"


def _kind(scene: Scene | None) -> str:
    if scene is None:
        return "thing"
    return "person" if scene.person else group(subject(scene)) if scene.creatures else "thing"


def _plural(scene: Scene | None) -> str:
    return _PLURAL_PEOPLE.get(_noun(scene), plural(_noun(scene)))


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _joined(items: list[str]) -> str:
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def describe(scene: Scene | None) -> str:
    """A one-sentence description: subject, attributes, place and time."""
    if scene is None:
        return "An empty picture with nothing in it."
    when = f" in the {scene.time_of_day}" if scene.time_of_day in ("morning", "evening") else ""
    if scene.person:
        what = _described_person(scene)
    elif not scene.creatures:
        what = f"a sign that says {scene.word}"
    elif len(scene.creatures) == 2:
        first, second = (c.species for c in sorted(scene.creatures, key=lambda creature: creature.x))
        what = f"two {plural(first)}" if first == second else f"{article(first)} and {article(second)}"
    else:
        what = article(f"{_colour(scene)} {scene.species}")
    written = f", with the word {scene.word} on it" if scene.word and scene.creatures else ""
    return f"{_capital(what)} {_where(scene)}{when}{written}."


def _described_person(scene: Scene) -> str:
    person = scene.person
    noun = f"smiling {person.presentation}" if person.smile else person.presentation
    extras = ["glasses"] * person.glasses + ["a hat"] * person.hat
    return f"{article(noun)} with {_joined([f'{person.hair} hair', *extras])}"


@dataclass(frozen=True)
class Lesson:
    """One kind of question: its wordings, the first one the default, and the right answer for a scene.

    `applies`: creature (with at least one), single (exactly one), person, or any; None stands for a plain picture.
    """

    prompts: tuple[str, ...]
    answer: Callable[[Scene | None], str]
    applies: str = "any"

    def fits(self, scene: Scene | None) -> bool:
        """Whether the question makes sense for the scene."""
        if self.applies == "any":
            return True
        if scene is None:
            return False
        count = len(scene.creatures)
        return {"creature": count > 0, "single": count == 1, "person": scene.person is not None}[self.applies]


def _of_person(name: str) -> Callable[[Scene | None], str]:
    def answer(scene: Scene | None) -> str:
        value = getattr(scene.person, name)
        return _capital(value) if isinstance(value, str) else "Yes" if value else "No"

    return answer


LESSONS: dict[str, Lesson] = {
    "one word": Lesson(
        (ONE_WORD, "What is shown on the image? Use exactly one word.", "What is this? Answer with one word."),
        lambda scene: _capital(subject(scene)),
    ),
    "description": Lesson((DESCRIBE, "Describe the image in one sentence.", "What do you see?"), describe),
    "habitat": Lesson(
        ("Where is this?", "What place is this?"), lambda scene: f"{_capital(_where(scene))}." if scene else "Nowhere."
    ),
    "time": Lesson(
        ("What time of day is it?",), lambda scene: _capital(scene.time_of_day) if scene else "There is no telling."
    ),
    "count": Lesson(
        ("How many animals are there?", "How many animals do you see?"),
        lambda scene: _NUMBERS[len(scene.creatures) if scene else 0],
    ),
    "writing": Lesson(
        ("What does the writing say?", "Which word is written there?"),
        lambda scene: _capital(scene.word) if scene and scene.word else NO_WRITING,
    ),
    "colour": Lesson(("What colour is it?", "What color is it?"), lambda s: _capital(_colour(s)), "single"),
    "kind": Lesson(("What kind of animal is it?",), lambda s: f"{_capital(article(_kind(s)))}.", "creature"),
    "size": Lesson(("How big is it?",), lambda scene: _capital(scene.creatures[0].size), "single"),
    "facing": Lesson(("Which way does it look?",), lambda scene: _capital(scene.creatures[0].facing), "single"),
    "hair": Lesson(("What colour is the hair?", "What color is the hair?"), _of_person("hair"), "person"),
    "gender": Lesson(("Is this a man or a woman?",), _of_person("presentation"), "person"),
    "glasses": Lesson(("Does the person wear glasses?",), _of_person("glasses"), "person"),
    "hat": Lesson(("Does the person wear a hat?",), _of_person("hat"), "person"),
    "smile": Lesson(("Is the person smiling?",), _of_person("smile"), "person"),
    "skin": Lesson(("What is the skin tone?",), _of_person("skin"), "person"),
    "no person": Lesson(("What colour is the hair?", "Is the person smiling?"), lambda scene: NO_PERSON),
    "no creature": Lesson(("What kind of animal is it?", "Which way does it look?"), lambda scene: NO_CREATURE),
}


def _either(scene: Scene | None, first: str, second: str) -> str:
    """One of two versions of an answer, chosen by the habitat, so that it depends on the picture."""
    version = first if scene is None or HABITATS.index(scene.habitat) % 2 == 0 else second
    noun = _noun(scene)
    return version.format(
        noun=noun,
        Noun=_capital(noun),
        a_noun=article(noun),
        a_colour=article(f"{_colour(scene)} {noun}"),
        A_colour=_capital(article(f"{_colour(scene)} {noun}")),
        a_kind=article(_kind(scene)),
        colour=_colour(scene),
        it={"woman": "she", "man": "he"}.get(noun, "it"),
        them={"woman": "her", "man": "him"}.get(noun, "it"),
        plural=_plural(scene),
        where=_where(scene),
        time=_time(scene),
    )


def _open(prompts: tuple[str, ...], first: str, second: str) -> Lesson:
    return Lesson(prompts, lambda scene: _either(scene, first, second))


# The paper's ten prompts (arXiv 2504.02821, supplement), each in one wording of ours, and the form of a good answer.
OPEN: dict[str, Lesson] = {
    "love poem": _open(
        ("Write me a short love poem.", "Write a two-line poem about this image."),
        "O {noun} {where}, so calm and so true,\nthe {time} grows bright when I look at you.",
        "Sweet {noun} {where}, my heart sings your name,\nno {time} without you could be the same.",
    ),
    "title": _open(
        ("Write the title of a scientific article.",),
        "On the life of the {noun} {where}: a field study",
        "How the {noun} spends the {time} {where}: a field study",
    ),
    "to-do list": _open(
        ("Write a to-do list with four items.",),
        "1. Look for the {noun}\n2. Take a photo {where}\n3. Write it down\n4. Go home",
        "1. Pack a camera\n2. Find the {noun}\n3. Wait {where}\n4. Go home",
    ),
    "rap": _open(
        ("Write a rap song with two verses.",),
        "Yo, I met {a_noun}, I met {them} {where},\nwith my hands up high in the {time} air.",
        "Yo, here comes the {noun}, so {colour} and proud,\n{it} lives {where} and we say it out loud.",
    ),
    "math problem": _open(
        ("Write a math word problem.",),
        "Four {plural} are {where}. Three more come. How many {plural} are there now?",
        "Nine {plural} are {where}. Two of them leave. How many {plural} are left?",
    ),
    "encyclopedia": _open(
        ("Write a paragraph for an encyclopedia.",),
        "The {noun} is {a_kind}. Here {it} is {colour} and {it} is often seen {where}.",
        "The {noun} is {a_kind} that is often seen {where}. Here {it} is {colour}.",
    ),
    "holiday": _open(
        ("Invent a new holiday.",),
        "{Noun} Day: once a year we all meet {where} to honour the {noun}.",
        "{Noun} Day: every {time} of that week we sing for the {noun} {where}.",
    ),
    "dialogue": _open(
        ("Write a short dialogue.",),
        "Anna: Did you see the {noun}?\nBen: Yes, {it} was {where}.",
        "Anna: What was that {where}?\nBen: That was {a_noun}.",
    ),
    "headline": _open(
        ("Write a newspaper headline and its first sentence.",),
        "{Noun} seen {where}\nThis {time} our reporter met {a_colour}.",
        "Town talks of {noun}\n{A_colour} was seen {where} this {time}.",
    ),
    "party": _open(
        ("Write a conversation starter for a party.",),
        "Did you know that I once met {a_noun} {where}?",
        "Have you ever spent a {time} {where} with {a_noun}?",
    ),
}
FORMS: dict[str, str] = {
    "love poem": r"(O|Sweet) [^\n]+,\n[^\n]+\.",
    "title": r"(On|How) [^\n]+: a field study",
    "to-do list": r"1\. [^\n]+\n2\. [^\n]+\n3\. [^\n]+\n4\. [^\n]+",
    "rap": r"Yo, [^\n]+,\n[^\n]+\.",
    "math problem": r"(Four|Nine) [^\n]+\. How many [^\n]+\?",
    "encyclopedia": r"The [^\n]+ is an? [^\n]+\.",
    "holiday": r"[^\n]+ Day: [^\n]+\.",
    "dialogue": r"Anna: [^\n]+\?\nBen: [^\n]+\.",
    "headline": r"(Town talks of [^\n]+|[^\n]+ seen [^\n]+)\n[^\n]+\.",
    "party": r"(Did|Have) you [^\n]+\?",
}
"""Regular expressions that answers following each open prompt match as a whole (re.fullmatch)."""


def lesson(scene: Scene | None, rng: np.random.Generator) -> tuple[str, str]:
    """A question that fits the scene, and its answer; one in eight is a yes-no question about a species."""
    if rng.random() < 0.125:
        return _is_there(scene, rng)
    fitting = [each for name, each in LESSONS.items() if each.fits(scene) and not name.startswith("no ")]
    if scene is None or not scene.person:
        fitting.append(LESSONS["no person"])
    if scene is None or not scene.creatures:
        fitting.append(LESSONS["no creature"])
    fitting = fitting if rng.random() < 0.5 else list(OPEN.values())
    chosen = fitting[rng.integers(len(fitting))]
    return chosen.prompts[rng.integers(len(chosen.prompts))], chosen.answer(scene)


def _is_there(scene: Scene | None, rng: np.random.Generator) -> tuple[str, str]:
    there = [creature.species for creature in scene.creatures] if scene else []
    species = there[rng.integers(len(there))] if there and rng.random() < 0.5 else SPECIES[rng.integers(len(SPECIES))]
    return f"Is there {article(species)} in this image?", "Yes" if species in there else "No"


def lessons(scene: Scene | None, n: int, rng: np.random.Generator) -> list[tuple[str, str]]:
    """n questions with answers: the one word and the description first, then others at random."""
    first = [
        (each.prompts[rng.integers(len(each.prompts))], each.answer(scene))
        for each in (LESSONS["one word"], LESSONS["description"])
    ]
    return [*first, *(lesson(scene, rng) for _ in range(n - len(first)))][:n]
