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
from steering.interventions import Intervention
from steering.llava import Llava

Scene = tuple[Image.Image, frozenset[Concept], str]
"""A picture, what is true of it, and the name of the prompt that is asked about it."""
Push = Callable[[int], Intervention]
"""From a concept's number to the intervention that pushes it."""


@dataclass(frozen=True)
class Scenes:
    """Held-out pictures and the concepts true of each; a picture with a written word counts as showing no concept."""

    images: ImageSet
    truths: Sequence[frozenset[Concept]]

    def showing(self, concept: Concept) -> list[int]:
        """Positions of the pictures that show a concept and no written word."""
        written = {i for i, truth in enumerate(self.truths) if any(c.column == "sticker_word" for c in truth)}
        return [i for i, truth in enumerate(self.truths) if concept in truth and i not in written]

    def of(self, concept: Concept, prompts: Iterable[str]) -> list[Scene]:
        """The first picture that shows the concept, under every prompt; none where no picture does."""
        return [(self.images[i], self.truths[i], name) for i in self.showing(concept)[:1] for name in prompts]

    def check(self, *groups: Mapping[int, Concept]) -> None:
        """Raise ValueError unless some concept of each group is shown by a picture."""
        if not all(any(map(self.showing, concepts.values())) for concepts in groups):
            raise ValueError(
                f"{sum(map(len, groups))} concepts with a detector are too few to choose strengths on some and report "
                "others that pictures show: lower min_f1, give n_concepts and n_selection_concepts at least 1, or take "
                "more eval_images."
            )

    def plain(self, white: Image.Image, prompts: Sequence[str], first: int) -> list[Scene]:
        """A scene for every prompt with the white picture, and one with another picture each, from position `first`."""
        rest = [(self.images[i], self.truths[i], name) for i, name in enumerate(prompts, start=first)]
        return [(white, frozenset(), name) for name in prompts] + rest


@dataclass(frozen=True)
class OpenQuestions:
    """A LLaVA, the open prompts it is asked, and the judge of its answers.

    prompts: by name; forms: regular expression of a good answer to each; max_new_tokens: of an answer.
    """

    model: Llava
    judge: Judge
    prompts: Mapping[str, str]
    forms: Mapping[str, str]
    max_new_tokens: int

    def insertion(
        self, concepts: Mapping[int, Concept], pushes: Mapping, scenes: Sequence[Scene]
    ) -> dict[object, Tensor]:
        """(C, P, 2) by push: is the concept named, is the prompt followed; NaN where the concept is there unsteered."""
        made = {c: [push(c) for push in pushes.values()] for c in concepts}
        each = {id(one): one for pushed in made.values() for one in pushed}  # one push may be that of all concepts
        place = {key: i for i, key in enumerate(each, start=1)}
        answers = self._asked(scenes, each.values())
        found = []
        for c, pushed in made.items():
            own = [[said[0], *(said[place[id(one)]] for one in pushed)] for said in answers]
            found.append(_outcomes(self._inserted, concepts[c], scenes, own))
        return dict(zip(pushes, torch.stack(found, dim=1), strict=True))

    def suppression(self, concepts: Mapping[int, Concept], pushes: Mapping, scenes: Scenes) -> dict[object, Tensor]:
        """(C, P, 2) by push: is the concept gone, is the rest kept; NaN where it is not named unsteered."""
        shown = {c: scenes.of(concept, self.prompts) for c, concept in concepts.items()}
        said = {c: self._asked(some, [push(c) for push in pushes.values()]) for c, some in shown.items() if some}
        found = [_outcomes(self._suppressed, concepts[c], shown[c], answers) for c, answers in said.items()]
        return dict(zip(pushes, torch.stack(found, dim=1), strict=True))

    def _asked(self, scenes: Sequence[Scene], pushes: Iterable[Intervention]) -> list[list[str]]:
        """Answers [P][1 + pushes], the first one unsteered."""
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
    """Outcomes (pushes, P, 2) of answers [P][1 + pushes], the first one unsteered."""
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
    """Insertion or suppression of concepts on its scenes; sign -1 negates every strength."""

    measure: Callable[..., dict[object, Tensor]]
    scenes: Sequence[Scene] | Scenes
    sign: int
    strengths: Sequence[float]

    def trials(
        self, concepts: Mapping[int, Concept], methods: Mapping[str, Callable], n: int
    ) -> dict[tuple[str, float], Rates]:
        """{(method, strength): rates} of each method, a function of concept and strength, at each strength."""
        pushes = {
            (name, s): partial(push, strength=self.sign * s) for name, push in methods.items() for s in self.strengths
        }
        return judged(self.measure(concepts, pushes, self.scenes), n)

    def outcomes(
        self,
        concepts: Mapping[int, Concept],
        methods: Mapping[str, Callable],
        strengths: Mapping[str, float],
        control: Intervention,
    ) -> dict[str, Tensor]:
        """(C, P, 2) by method at the strength of each, and by the control `reconstruction only`."""
        pushes = {name: partial(push, strength=self.sign * strengths[name]) for name, push in methods.items()}
        return self.measure(concepts, pushes | {"reconstruction only": lambda c: control}, self.scenes)


def best_strengths(trials: Mapping[tuple[str, float], Rates]) -> dict[str, float]:
    """The strength of each method with the highest rate of both, the first of equals."""
    best = {}
    for (method, strength), rates in trials.items():
        if method not in best or rates.both.value > trials[method, best[method]].both.value:
            best[method] = strength
    return best


def rates_table(rates: Mapping[str, Mapping[str, Rates]], published: pd.DataFrame) -> pd.DataFrame:
    """Concept, rest and both of each task, a column a method, in percent with intervals, with the published rates."""
    methods = next(iter(rates.values()))
    table = {method: [rate for of_task in rates.values() for rate in of_task[method]] for method in methods}
    return pd.DataFrame(table, index=published.index).map(percent).join(published.map("{:.1f}".format))


def wins(
    measured: Mapping[str, Mapping[str, Tensor]], handles: Sequence[str], others: Sequence[str], n: int = 2000
) -> dict[tuple[str, str], dict[str, metrics.Interval]]:
    """Rate of both of each of `handles` minus that of each of `others`, by (task, "minus other") and handle."""
    joint = {
        task: {method: found.prod(-1) for method, found in of.items()} for task, of in measured.items()
    }  # NaN: unjudged
    return {
        (task, f"minus {other}"): {one: steering_scores.mean_difference(of[one], of[other], n=n) for one in handles}
        for task, of in joint.items()
        for other in others
    }


def by_column(outcomes: Mapping[str, Tensor], concepts: Iterable[Concept]) -> pd.DataFrame:
    """Rate of both of insertions (C, P, 2), by method and by the column of the C concepts."""
    kinds = np.array([concept.column for concept in concepts])
    return pd.DataFrame(
        {
            ("insertion", method): {kind: float(found.prod(-1)[kinds == kind].nanmean()) for kind in sorted(set(kinds))}
            for method, found in outcomes.items()
        }
    )


def how_often(interval: metrics.Interval) -> str:
    """The sign of a difference as text: clearly more, clearly less, or neither."""
    if interval.low is None:
        return "undecided, for so few concepts"
    clear = "more" if interval.low > 0 else "less" if interval.high < 0 else "neither clearly more nor less"
    return f"{clear} often"


def describe(won: Mapping[tuple[str, str], Mapping[str, metrics.Interval]], handle: str) -> list[str]:
    """A sentence for each task of `wins`: one handle against each other method."""
    sentences = {}
    for (task, other), by_handle in won.items():
        method, interval = other.removeprefix("minus "), by_handle[handle]
        sentences.setdefault(task, []).append(f"against {method} {how_often(interval)} ({interval})")
    return [f"- {task.capitalize()}, the feature gets both right: {'; '.join(s)}." for task, s in sentences.items()]
