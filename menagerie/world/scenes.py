"""The scene of a picture: its facts, sampled from (seed, split, index), before anything is drawn."""

from dataclasses import dataclass, replace

import numpy as np

from .habitats import HABITATS
from .people import HAIRS, PRESENTATIONS, SKINS, Person
from .stickers import STICKER_WORDS
from .taxonomy import LOOK_ALIKES, SPECIES, TAXONOMY

KINDS = ("creature", "pair", "person", "sticker", "sign")
SIZES = ("small", "medium", "large")
TIMES = ("morning", "day", "evening", "night")
WATER_PLACES = ("water", "swamp")
LAND_PLACES = ("forest", "meadow", "mountain", "desert")

_KIND_CUTS = np.cumsum([0.60, 0.12, 0.14, 0.10])  # the rest are signs
_TYPICAL = 0.95  # share of creatures seen in one of their usual habitats
_SIZE_RANGES = {"small": (0.36, 0.46), "medium": (0.52, 0.66), "large": (0.68, 0.84)}

# Chance of each hair colour in HAIRS: of all blond people in train and val, 2 % are men.
_HAIR_CUTS = {
    "woman": np.cumsum([0.38, 0.10, 0.22, 0.15, 0.10]),
    "man": np.cumsum([0.0095, 0.2905, 0.29, 0.22, 0.05]),
}
_WATER_BIRDS, _LAND_BIRDS = zip(*LOOK_ALIKES, strict=True)
_EITHER = 0.35  # share of look-alike birds that only the place tells apart


@dataclass(frozen=True)
class Creature:
    """One animal, plant or mushroom and how it stands in the picture."""

    species: str
    size: str  # one of SIZES
    side: float  # of the square it is drawn in, as a fraction of the picture
    x: float  # its middle, as a fraction of the picture
    depth: float  # 0 far, 1 near: where between the horizon's and the nearest footing it stands
    facing: str  # left | right
    pose: str  # stand | walk | swim
    likeness: float = 0.0  # of a look-alike bird: 0 typical ... 0.5 halfway to the other


@dataclass(frozen=True)
class Scene:
    """Every fact of one picture."""

    kind: str  # one of KINDS
    habitat: str
    time_of_day: str  # one of TIMES
    creatures: tuple[Creature, ...] = ()
    person: Person | None = None
    word: str | None = None  # on the sticker or sign

    @property
    def species(self) -> str | None:
        """The main creature's species, None where there is none."""
        return self.creatures[0].species if self.creatures else None

    def without_sticker(self) -> "Scene":
        """The same creature at the same place with no sticker."""
        return replace(self, kind="creature", word=None)


def sample_ordinary(rng: np.random.Generator, index: int) -> Scene:
    """A scene of the train and val splits: single creatures, pairs, people, stickers and signs."""
    kind = KINDS[int(np.searchsorted(_KIND_CUTS, rng.random(), side="right"))]
    if kind == "person":
        return _portrait(rng, _correlated_person(rng))
    if kind == "sign":
        habitat = _pick(rng, HABITATS)
        return Scene("sign", habitat, _time(rng, habitat), word=_pick(rng, STICKER_WORDS))
    species = _pick(rng, SPECIES)
    habitat = _habitat(rng, species)
    if kind == "pair":
        return _pair(rng, species, habitat)
    word = _pick(rng, STICKER_WORDS) if kind == "sticker" else None
    return Scene(kind, habitat, _time(rng, habitat), (_creature(rng, species, habitat),), word=word)


def sample_people(rng: np.random.Generator, index: int) -> Scene:
    """A portrait of the people split: hair x presentation balanced by index, everything else independent."""
    hair, presentation = HAIRS[index // 2 % len(HAIRS)], PRESENTATIONS[index % 2]
    glasses, hat, smile = (rng.random(3) < (0.3, 0.15, 0.55)).tolist()
    return _portrait(rng, Person(hair, presentation, glasses, hat, smile, _pick(rng, SKINS)))


def sample_waterbirds(rng: np.random.Generator, index: int) -> Scene:
    """A look-alike bird, index % 4 // 2: land or water bird, index % 2: on land or on water."""
    species = _pick(rng, _WATER_BIRDS if index % 4 // 2 else _LAND_BIRDS)
    habitat = _pick(rng, WATER_PLACES if index % 2 else LAND_PLACES)
    return Scene("creature", habitat, _time(rng, habitat), (_creature(rng, species, habitat),))


def sample_stickers(rng: np.random.Generator, index: int) -> Scene:
    """A creature with the name of another one written on the picture."""
    species = SPECIES[index % len(SPECIES)]
    habitat = _habitat(rng, species)
    word = _pick(rng, [word for word in STICKER_WORDS if word != species])
    return Scene("sticker", habitat, _time(rng, habitat), (_creature(rng, species, habitat),), word=word)


def sample_signs(rng: np.random.Generator, index: int) -> Scene:
    """A sign with a word on it and no creature."""
    habitat = _pick(rng, HABITATS)
    return Scene("sign", habitat, _time(rng, habitat), word=STICKER_WORDS[index % len(STICKER_WORDS)])


def _pick(rng: np.random.Generator, options: tuple[str, ...] | list[str]) -> str:
    return options[int(rng.random() * len(options))]


def _time(rng: np.random.Generator, habitat: str) -> str:
    u = rng.random()
    return "night" if habitat == "night" else "day" if u < 0.6 else "morning" if u < 0.8 else "evening"


def _habitat(rng: np.random.Generator, species: str) -> str:
    homes = TAXONOMY[species].homes
    if rng.random() < _TYPICAL:
        return _pick(rng, homes)
    return _pick(rng, [name for name in HABITATS if name not in homes])


def _pose(rng: np.random.Generator, species: str, habitat: str) -> str:
    afloat = habitat == "water" and TAXONOMY[species].traits.get("legs", 1.0) < 0.6
    return "swim" if afloat else "walk" if rng.random() < 0.5 else "stand"


def _likeness(rng: np.random.Generator, species: str) -> float:
    u, v = rng.random(2).tolist()
    if species not in _WATER_BIRDS and species not in _LAND_BIRDS:
        return 0.0
    return 0.5 if u < _EITHER else 0.35 * v


def _creature(rng: np.random.Generator, species: str, habitat: str) -> Creature:
    u, v, x, depth, left = rng.random(5).tolist()
    size = "small" if u < 0.15 else "medium" if u < 0.55 else "large"
    low, high = _SIZE_RANGES[size]
    x = 0.5 + (x - 0.5) * (0.62 if size == "small" else 0.4)
    return Creature(
        species,
        size,
        low + (high - low) * v,
        x,
        depth,
        "left" if left < 0.5 else "right",
        _pose(rng, species, habitat),
        _likeness(rng, species),
    )


def _pair(rng: np.random.Generator, species: str, habitat: str) -> Scene:
    usual = [name for name in SPECIES if habitat in TAXONOMY[name].homes]
    second = species if rng.random() < 0.3 else _pick(rng, usual)
    u = rng.random(7).tolist()
    x = (0.27 + 0.06 * u[0], 0.69 + 0.06 * u[1])
    if u[2] < 0.5:
        x = x[::-1]
    creatures = tuple(
        Creature(
            name,
            "medium",
            0.42 + 0.1 * u[3 + k],
            x[k],
            0.3 + 0.7 * u[5 + k],
            _pick(rng, ("left", "right")),
            _pose(rng, name, habitat),
            _likeness(rng, name),
        )
        for k, name in enumerate((species, second))
    )
    return Scene("pair", habitat, _time(rng, habitat), creatures)


def _correlated_person(rng: np.random.Generator) -> Person:
    """A person whose hair depends on presentation, and skin on hair, as in a photo archive."""
    u = rng.random(6).tolist()
    woman = u[0] < 0.55
    presentation = "woman" if woman else "man"
    hair = HAIRS[int(np.searchsorted(_HAIR_CUTS[presentation], u[1], side="right"))]
    light = 0.85 if hair in ("blond", "red") else 0.4
    skin = "light" if u[2] < light else "medium" if u[2] < (1 + light) / 2 else "dark"
    return Person(
        hair, presentation, u[3] < (0.18 if woman else 0.3), u[4] < 0.14, u[5] < (0.65 if woman else 0.5), skin
    )


def _portrait(rng: np.random.Generator, person: Person) -> Scene:
    habitat = _pick(rng, HABITATS)
    return Scene("person", habitat, _time(rng, habitat), person=person)
