"""A table of features: best fact, score, frequency and name of each."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pandas as pd
from torch import Tensor

from experiments.ground_truth import Facts, best_facts
from experiments.vocabulary import readable_name
from lib import FeatureTable
from lib.encoders.encoder import Encoder

Names = list[list[tuple[str, float]]]
"""For each feature its candidate words with similarities, best first."""


def names_of(table: FeatureTable, prompts: Mapping[str, str], encoder: Encoder, embeddings: Tensor) -> Names:
    """Names of every feature. prompts: text by word; embeddings: (N, E) of the pictures, by the same encoder."""
    words = {prompt: word for word, prompt in prompts.items()}
    found = table.names(list(words), encoder, embeddings, templates=("{}",))
    return [[(words[prompt], score) for prompt, score in pairs] for pairs in found]


def describe(table: FeatureTable, facts: Facts, scores: Tensor, names: Names) -> pd.DataFrame:
    """One row a feature: what `best_facts` finds, and columns about, score, frequency, name and known.

    about: the column of the facts table that the best fact is from; known: whether the feature is alive and has a best
    fact.
    """
    rows = best_facts(table.codes, table.top_images, facts)
    rows["known"] = rows["fact"].notna() & table.alive.numpy()
    rows["about"] = rows["fact"].where(rows["known"]).str.split("=").str[0].str.replace("_", " ")
    rows["score"], rows["frequency"] = scores.numpy(), table.frequency.numpy()
    rows["name"] = [found[0][0] if found else "" for found in names]
    return rows


def fact_lines(rows: pd.DataFrame) -> list[str | None]:
    """The best fact of each feature as text; None where none is known."""
    readable = rows["fact"].str.replace("_", " ").str.replace("=", " is ")
    return [
        f"Best known fact: {fact} (AUC {auc:.2f}, F1 {f1:.2f})" if known else None
        for fact, auc, f1, known in zip(readable, rows["auc"], rows["f1"], rows["known"], strict=True)
    ]


def names_agree(detectors: pd.DataFrame, names: Names, words: Collection[str]) -> pd.DataFrame:
    """Detectors whose fact's value is a word: is it their first name (`first`), or among their names (`among`)?

    detectors: rows of `describe`.
    """
    rows = detectors.assign(value=detectors["fact"].str.split("=").str[-1].map(readable_name))
    rows = rows[rows["value"].isin(words)]
    said = [[name for name, _ in names[feature]] for feature in rows.index]
    first = [value == found[0] for value, found in zip(rows["value"], said, strict=True)]
    return rows.assign(first=first, among=[value in found for value, found in zip(rows["value"], said, strict=True)])
