"""Scores of steered one-word answers: does LLaVA say what a feature stands for (arXiv 2504.02821, section 4.3)?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from experiments import steering_scores
from experiments.pushes import Method
from lib import metrics
from lib.encoders.encoder import Encoder
from lib.metrics.intervals import Interval
from steering.interventions import Intervention
from steering.llava import Llava

STEERED, UNSTEERED, RECONSTRUCTED = range(3)
CONDITIONS = ("steered", "not steered", "reconstruction")


@dataclass(frozen=True)
class WordScorer:
    """Asks LLaVA for one word and scores it by the cosine of its text embedding with a feature's top pictures.

    reader: the encoder of the words; pictures: (N, E) embeddings of the training pictures by the same encoder;
    max_new_tokens: of an answer, whose first word counts.
    """

    model: Llava
    reader: Encoder
    pictures: Tensor
    prompt: str
    max_new_tokens: int
    _words: dict[str, Tensor] = field(default_factory=dict)  # each word is embedded once

    def embedded(self, answers: Sequence) -> Tensor:
        """Text embeddings (..., E) of the first words of nested lists of answers."""
        first = np.vectorize(lambda answer: (answer.split() or [""])[0], otypes=[object])(np.array(answers, object))
        new = sorted(set(first.flat) - set(self._words))
        self._words.update(zip(new, self.reader.embed_texts(new), strict=True))
        return torch.stack([self._words[word] for word in first.flat]).view(*first.shape, -1)

    def answers(self, pictures: Sequence[Image.Image], pushes: Sequence[Intervention | None]) -> Tensor:
        """(P, pushes, E) embeddings of the answers."""
        return self.embedded(self.model.answers(pictures, self.prompt, pushes, max_new_tokens=self.max_new_tokens))

    def meaning(self, method: Method, features: Tensor) -> Tensor:
        """(F, E) embeddings of features: the mean of their top pictures."""
        return steering_scores.feature_embeddings(method.tops[features], self.pictures)

    def steered(self, method: Method, features: Tensor, pictures: Sequence[Image.Image], strength: float) -> Tensor:
        """(P, F) scores of pushing each feature by one strength."""
        answers = self.answers(pictures, [method.push(j, strength) for j in features])
        return steering_scores.steering_score(answers, self.meaning(method, features))

    def rise(self, method: Method, features: Tensor, pictures: Sequence[Image.Image], strength: float) -> Tensor:
        """(P, F) scores minus those of the unsteered answers."""
        unsteered = steering_scores.steering_score(self.answers(pictures, [None]), self.meaning(method, features))
        return self.steered(method, features, pictures, strength) - unsteered

    def curves(
        self,
        methods: Mapping[str, Method],
        features: Mapping[str, Tensor],
        strengths: Mapping[str, Sequence[float]],
        pictures: Sequence[Image.Image],
        n: int,
    ) -> dict[str, dict[float, Interval]]:
        """The mean score of each method at each of its strengths; features: by the dictionary's name."""
        return {
            name: {
                s: steering_scores.crossed_mean(self.steered(method, features[method.dictionary], pictures, s).t(), n=n)
                for s in strengths[name]
            }
            for name, method in methods.items()
        }

    def compared(
        self,
        methods: Mapping[str, tuple[Method, Tensor, float]],
        pictures: Sequence[Image.Image],
        reconstruction: Intervention,
    ) -> dict[str, Tensor]:
        """(3, P, F) scores in the order of `CONDITIONS`, by method; methods: with features and strength."""
        plain = self.answers(pictures, [None, reconstruction])  # (P, 2, E)
        found = {}
        for name, (method, features, strength) in methods.items():
            meaning = self.meaning(method, features)
            controls = [steering_scores.steering_score(plain[:, i, None], meaning) for i in (0, 1)]
            found[name] = torch.stack([self.steered(method, features, pictures, strength), *controls])
        return found


def mean_score(scores: Tensor, n: int = 2000) -> Interval:
    """The mean of scores (P, F) with its interval, over features, and over pictures where there are several."""
    return metrics.mean_interval(scores[0], n) if len(scores) == 1 else steering_scores.crossed_mean(scores.t(), n=n)


def gain(scores: Tensor) -> Tensor:
    """Steered less unsteered scores (P, F) of a method's (3, P, F)."""
    return scores[STEERED] - scores[UNSTEERED]


def score_table(compared: Mapping[str, Tensor], n: int = 2000) -> dict[str, dict[str, Interval]]:
    """Mean scores of each method under `CONDITIONS`, and steered minus not steered."""
    return {
        name: {condition: mean_score(scores[i], n) for i, condition in enumerate(CONDITIONS)}
        | {"steered − not": mean_score(gain(scores), n)}
        for name, scores in compared.items()
    }


def shown(table: Mapping[str, Mapping[str, Interval]], what: str) -> pd.DataFrame:
    """A score table as text; what: name of its rows."""
    return pd.DataFrame(table).T.map(str).rename_axis(what)


def recorded(table: Mapping[str, Mapping[str, Interval]]) -> dict[str, dict[str, Interval]]:
    """A score table with the keys of results and scoreboard."""
    keys = dict(zip(("steered", "unsteered", "reconstruction"), CONDITIONS, strict=True))
    return {name: {key: row[condition] for key, condition in keys.items()} for name, row in table.items()}


def describe(compared: Mapping[str, Tensor]) -> str:
    """The methods with their change of the mean score, largest first, as text."""
    moved = {name: float(gain(scores).mean()) for name, scores in compared.items()}
    return ", ".join(f"{name} {change:+.3f}" for name, change in sorted(moved.items(), key=lambda pair: -pair[1]))
