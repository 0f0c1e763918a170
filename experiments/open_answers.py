"""Insertion and suppression of concepts in open answers, judged by known facts (arXiv 2504.02821 v3, Table 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from experiments import steering_scores
from experiments.answer_judge import Concept, Judge, follows
from experiments.steering_scores import Rates
from experiments.tables import percent
from lib import metrics
from lib.images.image_set import ImageSet
from lib.steering.interventions import Intervention
from lib.steering.llava import Llava

Scene = tuple[Image.Image, frozenset[Concept], str]
"""A picture, what is true of it, and the name of the prompt that is asked about it."""
Push = Callable[[int], Intervention]
"""From a concept's number to the intervention that pushes it."""


@dataclass(frozen=True)
class Scenes:
    """Held-out pictures by what is true of them; a picture with something written on it shows no concept."""

    images: ImageSet
    truths: Sequence[frozenset[Concept]]

    def showing(self, concept: Concept) -> list[int]:
        """Positions of the pictures that show a concept, and nothing written."""
        written = {i for i, truth in enumerate(self.truths) if any(c.column == "sticker_word" for c in truth)}
        return [i for i, truth in enumerate(self.truths) if concept in truth and i not in written]

    def of(self, concept: Concept, prompts: Iterable[str]) -> list[Scene]:
        """The first picture that shows the concept, under every prompt; none where no picture does."""
        return [(self.images[i], self.truths[i], name) for i in self.showing(concept)[:1] for name in prompts]

    def check(self, *groups: Mapping[int, Concept]) -> None:
        """Raise ValueError unless of each group some concept is shown."""
        if not all(any(map(self.showing, concepts.values())) for concepts in groups):
            raise ValueError(
                f"{sum(map(len, groups))} concepts with a detector are too few to choose strengths on some and report "
                "others that pictures show: lower min_f1, give n_concepts and n_selection_concepts at least 1, or take "
                "more eval_images."
            )

    def plain(self, white: Image.Image, prompts: Sequence[str], first: int) -> list[Scene]:
        """Every prompt about the white picture, and about one picture each, from position `first` on."""
        rest = [(self.images[i], self.truths[i], name) for i, name in enumerate(prompts, start=first)]
        return [(white, frozenset(), name) for name in prompts] + rest


@dataclass(frozen=True)
class OpenQuestions:
    """A LLaVA that is asked open prompts, and the judge of its answers.

    prompts: by name; forms: the form that an answer to each should have; max_new_tokens: of an answer.
    """

    model: Llava
    judge: Judge
    prompts: Mapping[str, str]
    forms: Mapping[str, str]
    max_new_tokens: int

    def insertion(
        self, concepts: Mapping[int, Concept], pushes: Mapping, scenes: Sequence[Scene]
    ) -> dict[object, Tensor]:
        """(C, P, 2) by push: whether the concept is named, and the prompt followed; NaN where none can be inserted."""
        made = {c: [push(c) for push in pushes.values()] for c in concepts}
        each = {id(one): one for pushed in made.values() for one in pushed}  # one may serve all concepts
        place = {key: i for i, key in enumerate(each, start=1)}
        answers = self._asked(scenes, each.values())
        found = []
        for c, pushed in made.items():
            own = [[said[0], *(said[place[id(one)]] for one in pushed)] for said in answers]
            found.append(_outcomes(self._inserted, concepts[c], scenes, own))
        return dict(zip(pushes, torch.stack(found, dim=1), strict=True))

    def suppression(self, concepts: Mapping[int, Concept], pushes: Mapping, scenes: Scenes) -> dict[object, Tensor]:
        """(C, P, 2) by push: whether the concept is gone, and the rest kept; NaN where it was not named before."""
        shown = {c: scenes.of(concept, self.prompts) for c, concept in concepts.items()}
        said = {c: self._asked(some, [push(c) for push in pushes.values()]) for c, some in shown.items() if some}
        found = [_outcomes(self._suppressed, concepts[c], shown[c], answers) for c, answers in said.items()]
        return dict(zip(pushes, torch.stack(found, dim=1), strict=True))

    def _asked(self, scenes: Sequence[Scene], pushes: Iterable[Intervention]) -> list[list[str]]:
        """[P][1 + pushes], the first of which are unsteered."""
        pictures, _, names = zip(*scenes, strict=True)
        questions = [self.prompts[name] for name in names]
        return self.model.answers(list(pictures), questions, [None, *pushes], max_new_tokens=self.max_new_tokens)

    def _inserted(self, before: str, after: str, concept: Concept, scene: Scene) -> tuple[float, float]:
        if concept in scene[1] or self.judge.names(before, concept):
            return np.nan, np.nan
        return self.judge.names(after, concept), follows(after, self.forms[scene[2]])

    def _suppressed(self, before: str, after: str, concept: Concept, scene: Scene) -> tuple[float, float]:
        if not self.judge.names(before, concept):
            return np.nan, np.nan
        return not self.judge.names(after, concept), self.judge.keeps_the_rest(after, before, scene[1], concept)


def _outcomes(judged: Callable, concept: Concept, scenes: Sequence[Scene], answers: Sequence[Sequence[str]]) -> Tensor:
    """(pushes, P, 2) of the answers [P][1 + pushes], the first of which are unsteered."""
    rows = [
        [judged(said[0], after, concept, scene) for after in said[1:]]
        for scene, said in zip(scenes, answers, strict=True)
    ]
    return torch.tensor(rows, dtype=torch.double).transpose(0, 1)


def judged(outcomes: Mapping[object, Tensor], n: int = 2000) -> dict[object, Rates]:
    """The rates of the outcomes (C, P, 2) of each push."""
    return {push: steering_scores.rates(*outcome.unbind(-1), n=n) for push, outcome in outcomes.items()}


@dataclass(frozen=True)
class Task:
    """Insertion or suppression of concepts among its scenes; sign -1 turns every push round."""

    measure: Callable[..., dict[object, Tensor]]
    scenes: Sequence[Scene] | Scenes
    sign: int
    strengths: Sequence[float]

    def trials(
        self, concepts: Mapping[int, Concept], rivals: Mapping[str, Callable], n: int
    ) -> dict[tuple[str, float], Rates]:
        """{(rival, strength): rates} of each rival, a function of concept and strength, at each strength."""
        pushes = {
            (name, s): partial(push, strength=self.sign * s) for name, push in rivals.items() for s in self.strengths
        }
        return judged(self.measure(concepts, pushes, self.scenes), n)

    def outcomes(
        self,
        concepts: Mapping[int, Concept],
        rivals: Mapping[str, Callable],
        strengths: Mapping[str, float],
        control: Intervention,
    ) -> dict[str, Tensor]:
        """(C, P, 2) by rival at the strength of each, and by the control `reconstruction only`."""
        pushes = {name: partial(push, strength=self.sign * strengths[name]) for name, push in rivals.items()}
        return self.measure(concepts, pushes | {"reconstruction only": lambda c: control}, self.scenes)


def best_strengths(trials: Mapping[tuple[str, float], Rates]) -> dict[str, float]:
    """The strength of each rival at which both are right most often, the first of equals."""
    best = {}
    for (rival, strength), rates in trials.items():
        if rival not in best or rates.both.value > trials[rival, best[rival]].both.value:
            best[rival] = strength
    return best


def rates_table(rates: Mapping[str, Mapping[str, Rates]], published: pd.DataFrame) -> pd.DataFrame:
    """Concept, rest and both of each task, a column a rival, in per cent with intervals, beside the published ones."""
    rivals = next(iter(rates.values()))
    table = {rival: [rate for of_task in rates.values() for rate in of_task[rival]] for rival in rivals}
    return pd.DataFrame(table, index=published.index).map(percent).join(published.map("{:.1f}".format))


def wins(
    measured: Mapping[str, Mapping[str, Tensor]], handles: Sequence[str], others: Sequence[str], n: int = 2000
) -> dict[tuple[str, str], dict[str, metrics.Interval]]:
    """How much more often each handle gets both right than each other, for (task, "minus other")."""
    joint = {
        task: {rival: found.prod(-1) for rival, found in of.items()} for task, of in measured.items()
    }  # NaN: unjudged
    return {
        (task, f"minus {other}"): {one: steering_scores.mean_difference(of[one], of[other], n=n) for one in handles}
        for task, of in joint.items()
        for other in others
    }


def by_column(outcomes: Mapping[str, Tensor], concepts: Iterable[Concept]) -> pd.DataFrame:
    """How often both are right of insertions (C, P, 2), by rival and by the column of the C concepts."""
    kinds = np.array([concept.column for concept in concepts])
    return pd.DataFrame(
        {
            ("insertion", rival): {kind: float(found.prod(-1)[kinds == kind].nanmean()) for kind in sorted(set(kinds))}
            for rival, found in outcomes.items()
        }
    )


def how_often(interval: metrics.Interval) -> str:
    """What a difference says where all that is asked is whether it lies above zero."""
    if interval.low is None:
        return "undecided, for so few concepts"
    clear = "more" if interval.low > 0 else "less" if interval.high < 0 else "neither clearly more nor less"
    return f"{clear} often"


def told(won: Mapping[tuple[str, str], Mapping[str, metrics.Interval]], handle: str) -> list[str]:
    """A sentence for each task of `wins`: how one handle does against each other."""
    sentences = {}
    for (task, other), by_handle in won.items():
        rival, interval = other.removeprefix("minus "), by_handle[handle]
        sentences.setdefault(task, []).append(f"against {rival} {how_often(interval)} ({interval})")
    return [f"- {task.capitalize()}, the feature gets both right: {'; '.join(s)}." for task, s in sentences.items()]
