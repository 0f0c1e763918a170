"""Data of the suppression panel: results of every subset of a task's first features, and of any strengths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from PIL import Image

from experiments.disentanglement.choice import Choice
from experiments.disentanglement.protocol import SubsetResults, with_informative_examples
from experiments.disentanglement.suppression import Runner, Setting, subset_results
from lib.features.table import FeatureTable
from steering.interventions import Dictionary, Intervention

TaskSite = tuple[str, str]
"""A task and a site."""


@dataclass(frozen=True)
class PanelData:
    """The panel's data. choices, tried, runners: by task; saes: by site; usual: runners on ordinary pictures."""

    choices: Mapping[str, Choice]
    tried: Mapping[str, Sequence[Setting]]
    saes: Mapping[str, Dictionary]
    runners: Mapping[str, Runner]
    usual: Mapping[str, Runner]

    def rule_at(self, name: str, site: str) -> str:
        """The rule whose SAE features validation chose at a site; the greedy one where none helped."""
        setting = self.choices[name].by_layer["SAE", site]
        return setting.method if setting.features else "SAE: greedy"

    def subsets(self, place: TaskSite, title: Callable[[str, int], str], n_features: int) -> SubsetResults:
        """Results of every subset of a site's first features; title: a name from site and feature."""
        name, site = place
        key = self.rule_at(name, site), site
        ranking = {setting.key: setting.features for setting in self.tried[name]}  # the longest of each rule and site
        features, own = ranking[key][:n_features], self.choices[name].selected[key].setting.features
        named = [{"id": j, "name": title(site, j), "chosen": j in own} for j in features]
        return subset_results(Setting(*key, self.saes[site], features), self.runners[name], self.usual, named, [])

    def results(
        self, places: Sequence[TaskSite], title: Callable[[str, int], str], n_features: int, n_examples: int = 16
    ) -> tuple[list[SubsetResults], list[list[Image.Image]]]:
        """The results of each place, and the pictures of their examples."""
        found = with_informative_examples([self.subsets(place, title, n_features) for place in places], n_examples)
        pictures = [
            [self.runners[name].task.images[i] for i in result.examples]
            for (name, _), result in zip(places, found, strict=True)
        ]
        return found, pictures

    def live(self, place: TaskSite, strengths: Mapping[int, float]) -> tuple[list[int], float]:
        """Predictions and ordinary accuracy with any strength of each feature."""
        name, site = place
        scale = {j: 1 - strength for j, strength in strengths.items()}
        variant = (Intervention(self.saes[site], site, scale, mode="scale"),) if scale else ()
        runner = self.runners[name]
        predicted = runner.zero_shot.predict(runner.embeddings([variant])[0])
        right = torch.stack([one.correct([variant])[0].double() for one in self.usual.values()])
        return predicted.tolist(), float(right.mean())


def fact_title(best_facts: Mapping[str, pd.Series], site: str, feature: int) -> str:
    """A short name of a feature: its best fact. best_facts: the facts of all features, by site."""
    fact = best_facts[site][feature]
    plain = str(fact).replace("person_", "").replace("_", " ").replace("=", " ")
    return plain if fact is not None else f"feature {feature}"


def top_rows(
    settings: Sequence[Setting], tables: Mapping[str, FeatureTable], title: Callable[[str, int], str]
) -> dict[str, list[int]]:
    """The eight top pictures of the first three features of each setting, by title; rarer features are left out."""
    rows = {}
    for setting in settings:
        for feature in setting.features[:3]:
            top = [i for i in tables[setting.site].top_images[feature].tolist() if i >= 0][:8]
            if len(top) == 8:
                rows[f"{setting.site} #{feature}<br>{title(setting.site, feature)}"] = top
    return rows
