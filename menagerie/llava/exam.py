"""Evaluation of the embedded LLaVA on held-out pictures: accuracy of its answers."""

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from PIL import Image

from menagerie import Menagerie, Scene
from menagerie.llava.lessons import DESCRIBE, FORMS, LESSONS, ONE_WORD, OPEN
from menagerie.world.captions import plural
from steering.llava import Llava

Right = Callable[[Scene, str], bool]


def draw(world: Menagerie, indices: Sequence[int], workers: int = 2) -> list[Image.Image]:
    """Pictures of a split, drawn in worker processes, or in this one with 0 workers."""
    if workers < 1:
        return [world.image(index) for index in indices]
    with ProcessPoolExecutor(workers) as executor:
        return list(executor.map(world.image, indices, chunksize=32))


def names_subject(scene: Scene, answer: str) -> bool:
    """Whether an answer is one word that names a creature of the scene, the person as woman or man, or the sign."""
    return answer.lower() in {creature.species for creature in scene.creatures} | _others(scene)


def mentions_all(scene: Scene, text: str) -> bool:
    """Whether a text mentions every creature of the scene, or woman, man or sign, in the singular or plural."""
    names = {creature.species for creature in scene.creatures} or _others(scene)
    return all(re.search(rf"\b({name}|{plural(name)})\b", text.lower()) for name in names)


def _others(scene: Scene) -> set[str]:
    if scene.creatures:
        return set()
    return {scene.person.presentation} if scene.person else {"sign"}


def exam(llava: Llava, n_pictures: int = 1000, workers: int = 2) -> dict[str, float]:
    """Every number of the model card, in percent of the first `n_pictures` of `menagerie:val` that a question fits."""
    world = Menagerie("val")
    scenes = [world.scene(index) for index in range(n_pictures)]
    pictures = draw(world, range(n_pictures), workers)

    def percent(prompt: str, right: Right, fits: Callable[[Scene], bool] = lambda scene: True) -> float:
        asked = [i for i, scene in enumerate(scenes) if fits(scene)]
        answers = llava.generate([pictures[i] for i in asked], prompt, max_new_tokens=64)
        marks = [right(scenes[i], answer) for i, answer in zip(asked, answers, strict=True)]
        return round(100 * float(np.mean(marks)), 1)

    report = {
        "names what is shown, in one word": percent(ONE_WORD, names_subject),
        "names what is shown, in one word, of single creatures": percent(
            ONE_WORD, names_subject, lambda scene: scene.kind == "creature"
        ),
        "description mentions every species, person or sign": percent(DESCRIBE, mentions_all),
        "description mentions the species, of single creatures": percent(
            DESCRIBE, mentions_all, lambda scene: scene.kind == "creature"
        ),
    }
    for name, each in LESSONS.items():
        if name not in ("one word", "description", "no person", "no creature"):
            right = _exactly(each.answer)
            report[f"{name}: {each.prompts[0]}"] = percent(each.prompts[0], right, each.fits)
    for name, each in OPEN.items():
        report[f"{name}: has the form that was asked for"] = percent(each.prompts[0], _has_form(FORMS[name]))
    return report


def _single(scene: Scene) -> bool:
    return scene.kind == "creature"


def _exactly(answer: Callable[[Scene], str]) -> Right:
    return lambda scene, answered: answered == answer(scene)


def _has_form(form: str) -> Right:
    return lambda scene, answered: re.fullmatch(form, answered) is not None
