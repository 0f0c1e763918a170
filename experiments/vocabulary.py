"""Vocabularies of concepts for zero-shot probabilities: words without a template (arXiv 2504.08729)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from experiments.ground_truth import Facts, facts_table, known_facts
from lib.images.image_set import ImageSet
from menagerie import HABITATS, SPECIES, STICKER_WORDS, zero_shot_prompts
from menagerie.world.captions import GROUPS
from menagerie.world.people import HAIRS, PRESENTATIONS

if TYPE_CHECKING:
    import pandas as pd

SPECS = "menagerie, imagenet, wordfreq:5000, or the path of a text file with one word a line"


def load_vocabulary(spec: str, images: ImageSet | None = None) -> list[str]:
    """The words of a vocabulary, each once, in its order.

    "": the Menagerie's words for its pictures, else the pictures' classes, else ImageNet's; `menagerie`:
    what captions of the Menagerie name; `imagenet`: open_clip's names of ImageNet's 1,000 classes; `wordfreq:5000`: the
    5,000 most frequent words of English, by the package wordfreq; else a text file, one word a line. Raises ValueError
    for an empty vocabulary or a number that is none, FileNotFoundError for a missing file, ImportError where wordfreq
    is not installed.
    """
    family, _, size = spec.partition(":")
    if not spec and images is not None:
        return _default_vocabulary(images)
    if spec == "menagerie":
        words = list(menagerie_words())
    elif spec == "imagenet":
        words = _imagenet()
    elif family == "wordfreq":
        words = _most_frequent(size)
    else:
        words = _lines(spec)
    words = list(dict.fromkeys(words))
    if not words:
        raise ValueError(f"the vocabulary {spec!r} has no word: give {SPECS}")
    return words


def _default_vocabulary(images: ImageSet) -> list[str]:
    if images.spec.startswith("menagerie:"):
        return load_vocabulary("menagerie")
    return list(dict.fromkeys(map(readable_name, images.class_names or ()))) or load_vocabulary("imagenet")


def prompts_of(spec: str, images: ImageSet) -> dict[str, str]:
    """Prompts by word of a vocabulary, "a photo of a …".

    On the Menagerie's pictures: names of species, habitats and hair, with prompts in the words of its captions.
    """
    if spec not in ("", "menagerie") or not images.spec.startswith("menagerie:"):
        return {word: f"a photo of a {word}" for word in load_vocabulary(spec, images)}
    named = zero_shot_prompts("species") | zero_shot_prompts("habitat")
    named |= {f"{hair} hair": texts for hair, texts in zero_shot_prompts("hair").items()}
    return {name: texts[0] for name, texts in named.items()}


def readable_name(class_name: str) -> str:
    """A class name for texts: the first of its synonyms, with spaces for underscores."""
    return class_name.split(",")[0].replace("_", " ").strip()


def menagerie_words() -> dict[str, list[tuple[str, str | bool]]]:
    """{word: (column, value) pairs} of the Menagerie's facts; a word is true of a picture where any pair is.

    Words that occur on stickers are true of pictures that show the thing or the written word.
    """
    words: dict[str, list] = {name: [("species", name), ("second_species", name)] for name in SPECIES}
    for name in STICKER_WORDS:
        words.setdefault(name, []).append(("sticker_word", name))
    words |= {name: [("habitat", name)] for name in HABITATS}
    for rank_class, name in GROUPS.items():
        words.setdefault(name, []).append(("class", rank_class))
    words |= {"water bird": [("water_bird", True)], "land bird": [("water_bird", False)]}
    words |= {"person": [("kind", "person")]}
    words |= {name: [("person_presentation", name)] for name in PRESENTATIONS}
    words |= {f"{name} hair": [("person_hair", name)] for name in HAIRS}
    return words | {name: [(f"person_{name}", True)] for name in ("glasses", "hat", "smile")}


def word_facts(table: "pd.DataFrame") -> Facts:
    """The Menagerie's words as facts of its pictures, in the vocabulary's order; table: its facts."""
    words = menagerie_words()
    truth = [
        np.any([(table[column] == value).fillna(False).to_numpy(bool) for column, value in pairs], axis=0)
        for pairs in words.values()
    ]
    return Facts(list(words), torch.from_numpy(np.stack(truth, axis=1)))


def _imagenet() -> list[str]:
    import open_clip

    return list(open_clip.IMAGENET_CLASSNAMES)


def _most_frequent(size: str) -> list[str]:
    if not size.isdecimal() or int(size) == 0:
        raise ValueError(f"wordfreq:{size} has no number of words: write wordfreq:5000")
    try:
        from wordfreq import top_n_list
    except ModuleNotFoundError as error:
        raise ImportError(
            "the most frequent words come from the package wordfreq, which is not installed: "
            "pip install 'monosemantic-vision[vocabulary]', or give a text file"
        ) from error
    return top_n_list("en", int(size))


def _lines(spec: str) -> list[str]:
    path = Path(spec).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no vocabulary {spec!r}: give {SPECS}")
    return [word for line in path.read_text(encoding="utf-8").splitlines() if (word := line.strip())]


def facts_in_vocabulary(images: ImageSet, vocabulary: Sequence[str], min_support: int) -> Facts:
    """Yes-or-no facts whose names are words of the vocabulary, true and false of `min_support` pictures each."""
    if images.spec.startswith("menagerie:"):
        facts = word_facts(images.facts)
    else:
        facts = known_facts(facts_table(images), 1)
        facts = Facts([readable_name(name.split("=")[-1]) for name in facts.names], facts.truth)
    support = facts.truth.sum(0)
    enough = (support >= min_support) & (support <= len(images) - min_support)
    kept = [i for i, name in enumerate(facts.names) if name in vocabulary and enough[i]]
    return Facts([facts.names[i] for i in kept], facts.truth[:, kept])
