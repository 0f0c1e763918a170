"""Which features recur with another seed, and how far measures of a dictionary vary over seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from experiments.ground_truth import Facts, best_facts
from experiments.reseeded import CODES, DIRECTIONS, Key, Pair, Reseeded
from experiments.tables import number
from lib import metrics
from lib.features.one_pass import top_images
from lib.metrics.intervals import Interval

SHOWN = 8  # pictures of a feature


@dataclass(frozen=True, eq=False)
class Stability:
    """The live features of dictionaries from several seeds.

    judges: embeddings (N, E) by judge, the main one first; facts: what is known of the pictures; min_pictures: active
    pictures that a feature needs before its score and fact count; n: resamples behind an interval.
    """

    found: Reseeded
    judges: Mapping[str, Tensor]
    facts: Facts
    min_pictures: int
    n: int = 2000

    @property
    def main(self) -> str:
        """The column of the main judge's score."""
        return f"MS, E = {next(iter(self.judges))}"

    @cached_property
    def features(self) -> pd.DataFrame:
        """One row a live feature: similarity to its partners, frequency, scores, best fact."""
        return pd.concat([self._described(key) for key in self.found.codes], ignore_index=True)

    @cached_property
    def enough(self) -> pd.DataFrame:
        """Those that are active on enough pictures."""
        return self.features[self.features["pictures"] >= self.min_pictures]

    def _described(self, key: Key) -> pd.DataFrame:
        codes, frequency = self.found.codes[key], self.found.frequency[key]
        best = best_facts(codes, top_images(codes)[0], self.facts)
        columns = {"cosine": self.found.mean_to_partners(DIRECTIONS, key)}
        columns["correlation"] = self.found.mean_to_partners(CODES, key)
        columns |= {"frequency": frequency, "pictures": (frequency * codes.shape[0]).round()}
        columns |= {f"MS, E = {judge}": metrics.monosemanticity(codes, e) for judge, e in self.judges.items()}
        rows = pd.DataFrame({name: values.numpy() for name, values in columns.items()})
        rows = rows.assign(kind=key[0], seed=key[1], feature=rows.index, fact=best["fact"], F1=best["f1"])
        return rows[rows["frequency"] > 0]

    def goes_with(self) -> dict[str, dict[str, Interval]]:
        """Rank correlation of the cosine with other properties of a feature, by kind."""
        enough, main = self.enough, self.main
        quintile = np.ceil(5 * enough.groupby("kind")["frequency"].rank(pct=True))
        inside = enough.assign(**enough.groupby(["kind", quintile])[["cosine", main]].rank(pct=True))
        asked = {"frequency": ("frequency", self.features)}
        asked |= {f"MS, E = {judge}": (f"MS, E = {judge}", enough) for judge in self.judges}
        asked |= {f"{main}, within fifths of frequency": (main, inside), "F1 of the best fact": ("F1", enough)}
        return {kind: {name: self._correlated(kind, *of) for name, of in asked.items()} for kind in self.found.kinds}

    def _correlated(self, kind: str, by: str, rows: pd.DataFrame) -> Interval:
        table = torch.tensor(rows.loc[rows["kind"] == kind, ["cosine", by]].to_numpy(float))
        return metrics.bootstrap(metrics.rank_correlation, table, n=self.n)

    def describe_two_matchings(self) -> list[str]:
        """Agreement of the matchings by directions and by codes, a sentence a kind."""
        ranks = {kind: self._correlated(kind, "correlation", self.features).value for kind in self.found.kinds}
        return [
            f"{kind}: the same partner for **{number(self.found.same_partner(kind), '.0%')}**, rank correlation "
            f"{number(ranks[kind], '.2f')}"
            for kind in self.found.kinds
        ]

    @cached_property
    def named(self) -> pd.DataFrame:
        """Matched pairs of features that are both active on enough pictures, with both best facts."""
        groups = self.enough.groupby(["kind", "seed"])
        fact_of = {key: rows.set_index("feature")["fact"] for key, rows in groups}
        named = pd.concat([self._facts_of(pair, fact_of) for pair in self.found.pairs], ignore_index=True)
        return named.assign(same=(named["fact"] == named["partner's fact"]).astype(float))

    def _facts_of(self, pair: Pair, fact_of: Mapping[Key, pd.Series]) -> pd.DataFrame:
        kind, a, b = pair
        m = self.found.matched[DIRECTIONS][pair]
        rows = pd.DataFrame({"kind": kind, "left": m.left, "right": m.right, "cosine": m.similarity})
        rows["fact"] = rows["left"].map(fact_of.get((kind, a), {}))
        rows["partner's fact"] = rows["right"].map(fact_of.get((kind, b), {}))
        return rows.dropna()

    def same_fact(self) -> dict[str, float]:
        """Share of the pairs whose features have the same best fact, by kind."""
        named = self.named
        return {kind: float(named.loc[named["kind"] == kind, "same"].mean()) for kind in self.found.kinds}

    def same_fact_by_chance(self) -> dict[str, float]:
        """The same for two features drawn at random, by kind; only kinds that have pairs."""
        common = {kind: rows["fact"].value_counts(normalize=True) for kind, rows in self.named.groupby("kind")}
        return {kind: float((share * share).sum()) for kind, share in common.items()}

    def describe_facts(self) -> list[str]:
        """Share of pairs with the same best fact, a sentence a kind."""
        chance = self.same_fact_by_chance()
        return [
            f"{kind}: **{number(share, '.0%')}**, by chance {number(chance.get(kind), '.0%')}"
            for kind, share in self.same_fact().items()
        ]

    def most_and_least(self, kind: str) -> dict[str, list[int]]:
        """The features of the first seed that agree most and least with their partners: top pictures, a row a seed.

        Only features with a partner in every other seed.
        """
        first, *others = self.found.seeds
        partner = {seed: self.found.partners(DIRECTIONS, (kind, first, seed)) for seed in others}
        rows = self.enough[(self.enough["kind"] == kind) & (self.enough["seed"] == first)]
        ranked = rows.dropna(subset=["cosine"]).sort_values("cosine")["feature"].tolist()
        complete = [f for f in ranked if all(partner[seed][f] >= 0 for seed in others)]
        matches = {first: torch.arange(len(self.found.decoders[kind, first]))} | partner
        return {
            self._title((kind, first), f, (kind, seed), int(match[f])): self._top((kind, seed), int(match[f]))
            for f in ([complete[-1], complete[0]] if complete else [])
            for seed, match in matches.items()
        }

    def _title(self, first: Key, feature: int, key: Key, match: int) -> str:
        rows, W = self.features, self.found.decoders
        score = rows[(rows["kind"] == key[0]) & (rows["seed"] == key[1]) & (rows["feature"] == match)][self.main].iloc[
            0
        ]
        cosine = float(torch.cosine_similarity(W[first][feature], W[key][match], dim=0))
        return f"<b>seed {key[1]}</b> #{match}<br>cosine {cosine:.2f}<br>MS {score:.2f}, E = {next(iter(self.judges))}"

    def _top(self, key: Key, feature: int) -> list[int]:
        return top_images(self.found.codes[key], SHOWN)[0][feature].tolist()

    def headlines(self, explained: Mapping[Key, float]) -> dict[Key, dict[str, Interval]]:
        """Headline measures of each dictionary; explained: its explained variance."""
        return {
            key: self._headline(key) | {"explained variance": Interval(explained[key]), "dead": self._dead(key)}
            for key in self.found.codes
        }

    def _headline(self, key: Key) -> dict[str, Interval]:
        rows = self.features[(self.features["kind"] == key[0]) & (self.features["seed"] == key[1])]
        scores = {f"MS, E = {judge}": torch.tensor(rows[f"MS, E = {judge}"].to_numpy(float)) for judge in self.judges}
        means = {f"mean {name}": metrics.mean_interval(score, self.n) for name, score in scores.items()}
        return means | {f"best {self.main}": Interval(float(rows[self.main].max()))}

    def _dead(self, key: Key) -> Interval:
        return Interval(float((self.found.frequency[key] == 0).double().mean()))


def spread_over_seeds(headlines: Mapping[Key, Mapping[str, Interval]]) -> pd.DataFrame:
    """Spread of each measure over seeds, and the mean half-width of its intervals: a row a kind and measure."""
    kinds = dict.fromkeys(kind for kind, _ in headlines)
    names = next(iter(headlines.values()))
    found = {
        (kind, name): [headlines[key][name] for key in headlines if key[0] == kind] for kind in kinds for name in names
    }
    return pd.DataFrame([{"kind": kind, "figure": name} | _spread(of) for (kind, name), of in found.items()])


def _spread(intervals: list[Interval]) -> dict[str, float]:
    values = [interval.value for interval in intervals]
    halves = [(interval.high - interval.low) / 2 for interval in intervals if interval.low is not None]
    spread = {"mean over seeds": np.mean(values), "lowest": min(values), "highest": max(values)}
    return spread | {"s.d. over seeds": np.std(values, ddof=1), "± bootstrap": np.mean(halves) if halves else np.nan}


def describe_seeds(
    stability: Stability, goes_with: Mapping[str, Mapping[str, Interval]], moves: pd.DataFrame
) -> list[str]:
    """Stability of features and spread of the mean score, a sentence a kind; moves: of `spread_over_seeds`."""
    table, same, main = stability.found.table().set_index(["kind", "by"]), stability.same_fact(), stability.main
    spread = moves.set_index(["kind", "figure"])["s.d. over seeds"]
    lines = []
    for kind in stability.found.kinds:
        rows = table.loc[kind, DIRECTIONS]
        cosine, by_chance = (number(rows[column], ".2f") for column in ("mean", "mean by chance"))
        lines.append(
            f"{kind}: matched directions have a mean cosine of **{cosine}** (by chance {by_chance}), "
            f"{number(rows['above 0.7'], '.0%')} of them above 0.7; {number(same[kind], '.0%')} of the pairs name the "
            f"same fact. Rank correlation of stability with the score among equally frequent features: "
            f"{goes_with[kind][f'{main}, within fifths of frequency']}. The mean score moves by "
            f"{number(spread[kind, f'mean {main}'])} (s.d.) from seed to seed."
        )
    return lines


def beside_nulls(measured: Mapping[str, Stability]) -> pd.DataFrame:
    """How far the seeds of features and of nulls agree: a row a name and kind."""
    return pd.DataFrame([{"codes": name} | row for name, of in measured.items() for row in _agreements(of)])


def _agreements(of: Stability) -> list[dict]:
    same, chance = of.same_fact(), of.same_fact_by_chance()
    means = {
        kind: {by: float(np.mean([m.mean for m in of.found.of_kind(by, kind)])) for by in (DIRECTIONS, CODES)}
        for kind in of.found.kinds
    }
    return [
        {"kind": kind, "cosine": means[kind][DIRECTIONS], "correlation": means[kind][CODES], "same fact": same[kind]}
        | {"same fact by chance": chance.get(kind, np.nan)}
        for kind in of.found.kinds
    ]


def describe_beside(beside: pd.DataFrame, kind: str) -> list[str]:
    """The agreement of a kind's seeds and of its nulls, a sentence a measure; beside: of `beside_nulls`."""
    own = beside[(beside["codes"] == "features") & (beside["kind"] == kind)].iloc[0]
    nulls = beside[beside["codes"] != "features"].set_index("codes")
    lines = []
    for measure, form in (("cosine", ".2f"), ("correlation", ".2f"), ("same fact", ".0%")):
        others = ", ".join(f"{name} {number(value, form)}" for name, value in nulls[measure].items())
        reached = [name for name, value in nulls[measure].items() if value >= own[measure]]
        lines.append(
            f"Two seeds of {kind} agree by {measure} to **{number(own[measure], form)}**, nulls: {others}. "
            f"Nulls that reach it: {', '.join(reached) or 'none'}."
        )
    return lines
