"""Captions: many templates, each naming some of a scene's facts and nothing that is not there but a sticker's word."""

import numpy as np

from .habitats import HABITATS
from .people import HAIRS
from .scenes import Creature, Scene
from .taxonomy import SPECIES, TAXONOMY

PLACES: dict[str, tuple[str, ...]] = {  # where
    "water": ("on the water", "in the water"),
    "forest": ("in the forest", "in a forest"),
    "snow": ("in the snow",),
    "desert": ("in the desert",),
    "meadow": ("in a meadow", "in the meadow"),
    "city": ("in the city", "in a city"),
    "night": ("at night", "in the night"),
    "mountain": ("in the mountains", "on a mountain"),
    "beach": ("on the beach", "on a beach"),
    "swamp": ("in a swamp", "in the swamp"),
}
NOUNS: dict[str, str] = {  # what
    "water": "the water",
    "forest": "a forest",
    "snow": "the snow",
    "desert": "a desert",
    "meadow": "a meadow",
    "city": "a city",
    "night": "the night",
    "mountain": "a mountain",
    "beach": "a beach",
    "swamp": "a swamp",
}
GROUPS: dict[str, str] = {
    "Mammalia": "mammal",
    "Reptilia": "reptile",
    "Amphibia": "amphibian",
    "Actinopterygii": "fish",
    "Chondrichthyes": "fish",
    "Insecta": "insect",
    "Arachnida": "arachnid",
    "Malacostraca": "crustacean",
    "Gastropoda": "mollusc",
    "Cephalopoda": "mollusc",
    "Scyphozoa": "sea animal",
    "Asteroidea": "sea animal",
    "Magnoliopsida": "flower",
    "Liliopsida": "flower",
    "Agaricomycetes": "fungus",
}
_PLURALS = {
    "wolf": "wolves",
    "goose": "geese",
    "fox": "foxes",
    "dragonfly": "dragonflies",
    "octopus": "octopuses",
} | {
    name: name
    for name in ("deer", "sheep", "trout", "goldfish", "clownfish", "starfish", "jellyfish", "grouse", "quail")
}

_PHOTO = (
    "a photo of {}",
    "a picture of {}",
    "an image of {}",
    "{}",
    "{}",
    "a photo of {}",
    "this is {}",
    "here is {}",
    "a drawing of {}",
)
_IN_PLACE = (
    "{what} {where}",
    "{what} {where}",
    "{what} {where}",
    "a photo of {what} {where}",
    "a photo of {what} {where}",
    "a picture of {what} {where}",
)
_WITH_PLACE = ("a photo of {place} with {what}", "{place} with {what}", "{what}, {place} behind", "{place} and {what}")
_PORTRAIT = ("a photo of {}", "a picture of {}", "a portrait of {}", "{}", "{}")
_WRITTEN = ("the word {}", "a sign that says {}", "the word {} on a sign", "a sign with the word {}", "it says {}")
_BOTH = (
    "{what} with the word {word} on it",
    "{what} with the word {word}",
    "{what} and the word {word}",
    "a photo of {what} with a label that says {word}",
)
TEMPLATES = ("a photo of {}", "a picture of {}", "an image of {}", "{}")


def article(noun: str) -> str:
    """The noun with "a" or "an"."""
    return f"an {noun}" if noun[0] in "aeio" else f"a {noun}"


def plural(name: str) -> str:
    """More than one of a species."""
    return _PLURALS.get(name, name + "s")


def group(species: str) -> str:
    """The everyday word for a species' class; birds are water birds or land birds."""
    leaf = TAXONOMY[species]
    if leaf.water_bird is not None:
        return "water bird" if leaf.water_bird else "land bird"
    return GROUPS[leaf.ranks[2]]


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """One caption, lower case."""
    if scene.kind == "person":
        return _person_caption(scene, rng)
    if scene.kind == "sign":
        return (
            _pick(rng, _PHOTO).format(article(scene.word))
            if rng.random() < 0.5
            else _pick(rng, _WRITTEN).format(scene.word)
        )
    if scene.kind == "sticker":
        u = rng.random()
        if u < 0.55:
            return _set(rng, article(scene.word), scene)
        if u >= 0.75:
            return _pick(rng, _BOTH).format(what=article(scene.species), word=scene.word)
    return _creature_caption(scene, rng)


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.random() * len(options))]


def _set(rng: np.random.Generator, what: str, scene: Scene) -> str:
    """A caption of `what`, with its habitat in three of five."""
    u = rng.random()
    if u < 0.4:
        text = _pick(rng, _PHOTO).format(what)
    elif u < 0.85:
        text = _pick(rng, _IN_PLACE).format(what=what, where=_pick(rng, PLACES[scene.habitat]))
    else:
        text = _pick(rng, _WITH_PLACE).format(what=what, place=NOUNS[scene.habitat])
    if scene.time_of_day in ("morning", "evening") and rng.random() < 0.1:
        text += f" in the {scene.time_of_day}"
    return text


def _creature_caption(scene: Scene, rng: np.random.Generator) -> str:
    if rng.random() < 0.03:
        return _pick(rng, _PHOTO).format(NOUNS[scene.habitat])
    if len(scene.creatures) == 1:
        return _set(rng, _described(scene.creatures[0], rng), scene)
    first, second = (creature.species for creature in scene.creatures)
    if first == second:
        return _set(rng, f"two {plural(first)}", scene)
    if rng.random() < 0.12:
        return _set(rng, article(first), scene)
    if rng.random() < 0.5:
        first, second = second, first
    return _set(rng, f"{article(first)} {_pick(rng, ('and', 'and', 'with', 'next to'))} {article(second)}", scene)


def _described(creature: Creature, rng: np.random.Generator) -> str:
    """The species, now and then with its colour, size, pattern, kind or where it looks."""
    name, traits = creature.species, TAXONOMY[creature.species].traits
    u = rng.random()
    if u < 0.60:
        return article(name)
    if u < 0.74:
        return article(f"{traits['color']} {name}")
    if u < 0.80 and creature.size != "medium":
        return article(f"{'big' if creature.size == 'large' else 'small'} {name}")
    if u < 0.84 and traits["pattern"] in ("striped", "spotted"):
        return article(f"{traits['pattern']} {name}")
    if u < 0.91:
        return f"{article(name)}, {article(group(name))}"
    if u < 0.94:
        return f"{article(name)} facing {creature.facing}"
    if u < 0.96:
        return f"one {name}"
    return article(name)


def _person_caption(scene: Scene, rng: np.random.Generator) -> str:
    person = scene.person
    noun = person.presentation if rng.random() < 0.8 else "person"
    hair, smiling = rng.random() < 0.7, person.smile and rng.random() < 0.4
    details = [f"{person.hair} hair"] if hair else []
    for present, text, chance in (
        (person.glasses, "glasses", 0.6),
        (person.hat, "a hat", 0.6),
        (person.smile and not smiling, "a smile", 0.25),
        (True, f"{person.skin} skin", 0.2),
    ):
        if present and rng.random() < chance:
            details.append(text)
    if hair and rng.random() < 0.25:
        noun, details = f"{person.hair} haired {noun}", details[1:]
    what = article(f"smiling {noun}" if smiling else noun)
    if details:
        what += " with " + " and ".join(details[:3])
    if rng.random() < 0.3:
        return _pick(rng, _IN_PLACE).format(what=what, where=_pick(rng, PLACES[scene.habitat]))
    return _pick(rng, _PORTRAIT).format(what)


def zero_shot_prompts(kind: str) -> dict[str, list[str]]:
    """Class name -> prompts, for kind "species", "habitat", "hair" or "waterbirds"."""
    prompts = {
        "species": {name: [t.format(article(name)) for t in TEMPLATES] for name in SPECIES},
        "habitat": {name: [*(t.format(NOUNS[name]) for t in TEMPLATES), *PLACES[name]] for name in HABITATS},
        "hair": {
            hair: [t.format(f"a {noun} with {hair} hair") for t in TEMPLATES for noun in ("person", "woman", "man")]
            for hair in HAIRS
        },
        "waterbirds": {name: [t.format(article(name)) for t in TEMPLATES] for name in ("land bird", "water bird")},
    }
    if kind not in prompts:
        raise ValueError(f"Unknown kind of prompts {kind!r}; choose one of {', '.join(prompts)}.")
    return prompts[kind]
