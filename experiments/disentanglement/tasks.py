"""The three tasks of arXiv 2504.08729, on the Menagerie and on photographs, as `Task`s; groups and texts are ours.

`people_task`, `birds_task` and `written_word_task` take a spec of `load_images`; `ordinary_tasks` measures zero-shot
accuracy on pictures without a spurious attribute, and `reading_task` whether words are still read.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from experiments.disentanglement.protocol import Task
from lib.images.image_set import ImageSet, class_words, load_images
from menagerie import LOOK_ALIKES, SPECIES, STICKER_WORDS, zero_shot_prompts
from menagerie.world.captions import TEMPLATES, article
from menagerie.world.scenes import WATER_PLACES


def people_task(spec: str, on_error: str = "raise") -> Task:
    """Blond or not, where hair correlates with gender presentation: `menagerie:people`, or `celeba:test`.

    Every picture counts as a scene of its own. In CelebA, whose list of identities is not read, a person may then be
    in several parts.
    """
    images = load_images(spec, on_error)
    _need(images, {"person_hair"}, {"blond_hair", "male"}, "people: menagerie:people or celeba:SPLIT")
    images = _where(images, "person_hair")
    if "male" in images.facts:
        blond, man = (images.facts[name].to_numpy(dtype=bool) for name in ("blond_hair", "male"))
        hairs = {"dark hair": ("dark",), "blond hair": ("blond",)}
    else:
        blond = (images.facts["person_hair"] == "blond").to_numpy()
        man = (images.facts["person_presentation"] == "man").to_numpy()
        others = tuple(hair for hair in zero_shot_prompts("hair") if hair != "blond")
        hairs = {"other hair": others, "blond hair": ("blond",)}
    classes = tuple(hairs)
    return Task(
        name="People: hair, not gender",
        images=images,
        classes=classes,
        prompts=tuple(tuple(_hair_texts(hair) for hair in some) for some in hairs.values()),
        truth=blond.astype(np.int64),
        groups=tuple(f"{hair}, {who}" for hair in classes for who in ("woman", "man")),
        group=2 * blond + man,
        spurious=man,
        suggested=np.where(man, 0, 1),  # of men one expects no blond hair
        spurious_texts=("a photo of a woman", "a photo of a man"),
        attribute_prompts=tuple(
            tuple(_hair_texts(hair, (who,)) for hair in some for who in ("woman", "man")) for some in hairs.values()
        ),
    )


def _hair_texts(hair: str, who: Sequence[str] = ("person", "woman", "man")) -> tuple[str, ...]:
    return tuple(template.format(f"a {noun} with {hair} hair") for template in TEMPLATES for noun in who)


def birds_task(spec: str, on_error: str = "raise") -> Task:
    """Water bird or land bird, where it correlates with the background: `menagerie:waterbirds`, or `waterbirds:test`.

    In the Menagerie a class is the nearest of its eight species, each beside the other class' look-alike. Every
    picture is a scene of its own: no bird is shown twice.
    """
    images = load_images(spec, on_error)
    _need(
        images,
        {"water_bird", "habitat"},
        {"water_bird", "water_background"},
        "birds: menagerie:waterbirds or waterbirds:SPLIT",
    )
    images = _where(images, "water_bird")
    water_bird = images.facts["water_bird"].to_numpy(dtype=bool)
    if "water_background" in images.facts:
        on_water = images.facts["water_background"].to_numpy(dtype=bool)
        names, places = [("land bird",), ("water bird",)], (("the forest", "a meadow"), ("the water", "the sea"))
    else:
        on_water = images.facts["habitat"].isin(WATER_PLACES).to_numpy()
        names = [tuple(land for _, land in LOOK_ALIKES), tuple(water for water, _ in LOOK_ALIKES)]
        places = (("the forest", "a meadow", "the desert", "the mountains"), ("the water", "a swamp"))
    return Task(
        name="Birds: the bird, not its place",
        images=images,
        classes=("land bird", "water bird"),
        prompts=tuple(tuple(_named(name) for name in some) for some in names),
        truth=water_bird.astype(np.int64),
        groups=tuple(f"{bird} bird on {place}" for bird in ("land", "water") for place in ("land", "water")),
        group=2 * water_bird + on_water,
        spurious=on_water,
        suggested=on_water.astype(np.int64),
        spurious_texts=tuple(f"a photo of {place}" for some in places for place in some),
        attribute_prompts=tuple(tuple(_placed(name, some) for name in bird for some in places) for bird in names),
    )


def _placed(name: str, places: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{article(name)} in {place}" for place in places)


def _named(name: str) -> tuple[str, ...]:
    return tuple(template.format(article(name)) for template in TEMPLATES)


def written_word_task(spec: str, on_error: str = "raise", plain: str | None = None) -> Task:
    """The object shown, where another word is written on it: `menagerie:stickers`, `rta100`, `disentangling`, `paint`.

    plain: a spec of pictures without a word, added to them; for `menagerie:stickers` it is `menagerie:stickers-off`.
    Pictures of no known class are left out. RTA-100 and PAINT have words on all pictures, and so a single group. A
    scene is a drawing, with its sticker and without; of photographs all of one kind of object are one scene, for these
    sets show the same thing with several words and do not say which.
    """
    drawn = spec.startswith("menagerie:stickers")
    plain = spec.replace("stickers", "stickers-off") if plain is None and drawn else plain
    sets = [load_images(one, on_error) for one in (spec, plain) if one]
    _need(
        sets[0], {"sticker_word", "species"}, {"sticker_word", "object"}, "words: menagerie:stickers, rta100, paint or"
    )
    names = tuple(SPECIES if drawn else sets[0].class_names)
    written = STICKER_WORDS if drawn else names
    shown = [names[i] if i >= 0 else "" for images in sets for i in _classes(images, names)]
    words = [word for images in sets for word in _words(images)]
    scene = _drawings(sets) if drawn else shown
    kept = [i for i, name in enumerate(shown) if name and (not words[i] or words[i] in names)]
    has_word = np.array([bool(words[i]) for i in kept])
    return Task(
        name="Stickers: the picture, not the word",
        images=Joined(sets, np.array(kept)),
        classes=names,
        prompts=tuple((_named(word),) for word in class_words(names)),
        truth=_numbers([shown[i] for i in kept], names),
        groups=("wrong word",) if has_word.all() else ("no word", "wrong word"),
        group=has_word & ~has_word.all(),
        spurious=has_word,
        suggested=np.array([names.index(words[i]) if words[i] else -1 for i in kept]),
        spurious_texts=tuple(f"the word {word}" for word in written),
        attribute_prompts=tuple((_labelled(name, written),) for name in names),
        scene=np.unique([scene[i] for i in kept], return_inverse=True)[1],
    )


def _drawings(sets: Sequence[ImageSet]) -> list[str]:
    """What all pictures are called, those without a sticker as those with it."""
    return [images.name(i).replace("stickers-off/", "stickers/") for images in sets for i in range(len(images))]


def _classes(images: ImageSet, names: Sequence[str]) -> np.ndarray:
    """(N,) positions in names of what the pictures show, -1 for something else."""
    number = {name: i for i, name in enumerate(names)}
    return np.array([number.get(images.class_names[i], -1) if i >= 0 else -1 for i in images.labels])


def _words(images: ImageSet) -> list[str]:
    facts = images.facts
    return [""] * len(images) if facts is None or "sticker_word" not in facts else list(facts["sticker_word"])


def _labelled(name: str, words: Sequence[str], most: int = 20) -> tuple[str, ...]:
    others = [word for word in words if word != name][:most]
    return tuple(f"a photo of {article(name)} with a label that says {word}" for word in others)


def ordinary_tasks(spec: str, on_error: str = "raise") -> dict[str, Task]:
    """Zero-shot tasks on ordinary pictures: species and habitat of single creatures, or a set's own classes."""
    images = load_images(spec, on_error)
    if spec.startswith("menagerie"):
        images = images.subset(np.flatnonzero(images.facts["kind"] == "creature"))
        asked = {
            kind: (tuple(zero_shot_prompts(kind)), tuple((tuple(texts),) for texts in zero_shot_prompts(kind).values()))
            for kind in ("species", "habitat")
        }
        return {
            kind: Task(kind, images, names, prompts, _numbers(images.facts[kind], names))
            for kind, (names, prompts) in asked.items()
        }
    if images.class_names is None:
        raise ValueError(f"ordinary pictures need classes to ask for, and {spec} has none: give a labelled set")
    names = images.class_names
    prompts = tuple((_named(word),) for word in class_words(names))
    return {"classes": Task("classes", images, names, prompts, images.labels)}


def reading_task(spec: str = "menagerie:signs", on_error: str = "raise") -> Task:
    """Which word is written on a sign: an ability that suppression for stickers should keep."""
    images = load_images(spec, on_error)
    prompts = tuple(((f"the word {word}", f"a sign that says {word}"),) for word in STICKER_WORDS)
    return Task("reading", images, STICKER_WORDS, prompts, _numbers(images.facts["sticker_word"], STICKER_WORDS))


def _numbers(values: Sequence[str], names: Sequence[str]) -> np.ndarray:
    number = {name: i for i, name in enumerate(names)}
    return np.array([number[value] for value in values], np.int64)


def _need(images: ImageSet, drawn: set[str], photographs: set[str], what: str) -> None:
    found = set() if images.facts is None else set(images.facts.columns)
    if not (drawn <= found or photographs <= found):
        raise ValueError(f"{images.spec} does not tell what this task asks for: give pictures of {what}")


def _where(images: ImageSet, column: str) -> ImageSet:
    """The pictures of which a fact is known; all of them where there is no such column."""
    if column not in images.facts:
        return images
    known = np.flatnonzero(images.facts[column].notna() & (images.facts[column] != ""))
    return images if len(known) == len(images) else images.subset(known)


class Joined(Sequence):
    """The chosen pictures of several sets, one set after the other, read when they are indexed."""

    def __init__(self, sets: Sequence[Sequence[Image.Image]], chosen: np.ndarray):
        self.sets, self.chosen = list(sets), chosen
        self.starts = np.cumsum([0, *map(len, sets)])

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, i: int) -> Image.Image:
        place = int(self.chosen[i])
        k = int(np.searchsorted(self.starts, place, side="right")) - 1
        return self.sets[k][place - int(self.starts[k])]
