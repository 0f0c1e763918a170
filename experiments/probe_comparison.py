"""Probes of raw activations beside probes of SAE codes: by pooling, number of columns, few pictures, elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from experiments.ground_truth import Facts
from experiments.markup import as_markdown
from experiments.probing import (
    Pictures,
    Split,
    binarised,
    enough,
    fit_probe,
    probe_facts,
    scaled,
    varied_facts,
)
from experiments.tables import MISSING
from lib import metrics
from lib.metrics.intervals import Interval

if TYPE_CHECKING:
    from experiments.probing import Vectors

KINDS = ("raw", "codes", "binary")
MARKS = {"auc": "AUC", "f1": "macro F1"}


def chosen_facts(known: Facts, n: int, split: Split, *parts: np.ndarray) -> Facts:
    """n varied facts that can be learned, chosen by, and marked in every part."""
    truth = known.truth.numpy()
    learnable = of_facts(known, np.flatnonzero(enough(truth, split.train, split.validation, *parts, least=4)))
    return of_facts(learnable, varied_facts(learnable, n))


def of_facts(facts: Facts, some: Sequence[int]) -> Facts:
    """Some of the facts."""
    return Facts([facts.names[i] for i in some], facts.truth[:, list(some)])


def vectors_of(pictures: Pictures, train: np.ndarray, kinds: Sequence[str] = KINDS) -> dict[str, Vectors]:
    """{"kind, pooling": (N, D)} of every kind and pooling.

    A feature that is active in the mean of the tokens is active in the largest, so binary codes need one of the two.
    """
    of = {"raw": pictures.raw.get, "codes": pictures.codes.get}
    of["binary"] = lambda pooling: binarised(pictures.codes[pooling], train)
    twin = ("binary", "mean") if "max" in pictures.raw else None
    wanted = [(kind, pooling) for kind in kinds for pooling in pictures.raw if (kind, pooling) != twin]
    return {f"{kind}, {pooling}": of[kind](pooling) for kind, pooling in wanted}


def quiver(probes: pd.DataFrame, facts: Sequence[str]) -> pd.DataFrame:
    """Test AUC of each fact's probe that validation prefers: among raw ones, and among all."""
    baselines = probes[probes["vectors"].str.startswith("raw")]
    picked = (part.loc[part.groupby("fact")["validation"].idxmax()].set_index("fact") for part in (baselines, probes))
    return pd.concat([rows["auc"].reindex(facts) for rows in picked], axis=1, keys=["raw only", "all"])


@dataclass(frozen=True)
class Comparison:
    """Probes of each fact for each site, kind of vector and pooling.

    seen: the pictures by site, the last of which is `site`; facts, split: what is probed, and on which pictures;
    probes: a row a probe, with its marks on test pictures; n: resamples behind an interval.
    """

    seen: Mapping[str, Pictures]
    facts: Facts
    split: Split
    probes: pd.DataFrame
    n: int = 2000

    @classmethod
    def of(cls, seen: Mapping[str, Pictures], facts: Facts, split: Split, n: int = 2000) -> Comparison:
        """Trains all the probes."""
        probes = [
            probe_facts(vectors_of(pictures, split.train), facts, split).assign(site=site)
            for site, pictures in seen.items()
        ]
        probes = pd.concat(probes, ignore_index=True)
        probes[["kind", "pooling"]] = probes["vectors"].str.split(", ", expand=True).to_numpy()
        return cls(seen, facts, split, probes, n)

    @property
    def site(self) -> str:
        return list(self.seen)[-1]

    @property
    def settings(self) -> dict[str, str]:
        """The pooling that validation prefers on average, by kind."""
        return {kind: self.poolings(kind)[0] for kind in KINDS}

    def table(self) -> pd.DataFrame:
        """Marks averaged over the facts: (site, kind) by (mark, pooling)."""
        wide = self.probes.pivot_table(index=["site", "kind"], columns="pooling", values=list(MARKS))[list(MARKS)]
        return wide.rename(columns=MARKS)

    def poolings(self, kind: str, site: str | None = None) -> tuple[str, str]:
        """The pooling with the highest mean AUC on validation pictures, and the lowest."""
        means = self._of(kind, site).groupby("pooling")["validation"].mean()
        return means.idxmax(), means.idxmin()

    def marked(self, kind: str, mark: str, pooling: str | None = None, site: str | None = None) -> Tensor:
        """Each fact's mark on the test pictures, (C,), with the pooling that validation prefers unless one is given."""
        rows = self._of(kind, site).set_index(["pooling", "fact"])[mark]
        return torch.tensor(rows[pooling or self.poolings(kind, site)[0]].reindex(self.facts.names).to_numpy())

    def ahead(self, one: str, other: str, mark: str, site: str | None = None) -> Interval:
        """How far one kind is ahead of another, over the facts."""
        return self.mean(self.marked(one, mark, site=site) - self.marked(other, mark, site=site))

    def best_less_worst(self, kind: str, mark: str) -> Interval:
        """What the choice of a pooling is worth."""
        best, worst = self.poolings(kind)
        return self.mean(self.marked(kind, mark, best) - self.marked(kind, mark, worst))

    def claims(self) -> dict[str, Interval]:
        """What the chapter claims of the last site."""
        return {
            "probing-beats-hidden": self.ahead("codes", "raw", "f1"),
            "binarised-as-good": self.ahead("binary", "codes", "f1"),
            "pooling-matters": self.best_less_worst("codes", "f1"),
            "raw-better-at-home": self.ahead("raw", "codes", "auc"),
        }

    def shown_claims(self) -> dict[str, str]:
        """`claims` as text, each under what it says."""
        best, worst = self.poolings("codes")
        names = ["codes less raw, macro F1", "binarised less codes, macro F1"]
        names += [f"codes pooled by {best} less by {worst}, macro F1", "raw less codes, AUC"]
        return dict(zip(names, map(str, self.claims().values()), strict=True))

    def ahead_of_raw(self) -> dict[str, dict[str, list[Interval]]]:
        """By mark and kind, one interval for each site."""
        return {
            mark: {kind: [self.ahead(kind, "raw", mark, site) for site in self.seen] for kind in KINDS[1:]}
            for mark in MARKS
        }

    def mean(self, values: Iterable[float]) -> Interval:
        return _mean(values, self.n)

    def vectors(self, *kinds: str) -> dict[str, Vectors]:
        """Of each kind those of the pooling that validation prefers, at the last site."""
        found = vectors_of(self.seen[self.site], self.split.train)
        return {kind: found[f"{kind}, {self.settings[kind]}"] for kind in kinds}

    def sparse(self, sizes: Sequence[int]) -> SparseProbes:
        """Probes of few columns, beside those of all."""
        vectors = self.vectors(*KINDS)
        found = [probe_facts(vectors, self.facts, self.split, k=size).assign(size=str(size)) for size in sizes]
        found = pd.concat(found, ignore_index=True).rename(columns={"vectors": "kind"})
        chosen = [f"{kind}, {pooling}" for kind, pooling in self.settings.items()]
        every = self._of(None, None)
        every = every[every["vectors"].isin(chosen)].assign(size="all")
        return SparseProbes(pd.concat([found, every], ignore_index=True), [*map(str, sizes), "all"], self.n)

    def single_features(self, facts: Sequence[str]) -> dict[int, str]:
        """{feature: the fact that it does alone}, for the first of some facts that chose it.

        Features that tell a fact by being inactive are left out, unless there are no others.
        """
        codes, found = self.seen[self.site].codes[self.settings["codes"]], {}
        for name in facts:
            fact = self.facts.truth[:, self.facts.names.index(name)].numpy()
            feature = int(fit_probe(scaled(codes, self.split.train), fact, self.split, k=1).columns[0])
            values, fact = (x[self.split.train] for x in (column(codes, feature), fact))
            active = values[fact].mean() > values[~fact].mean()
            if feature not in found or active > found[feature][1]:
                found[feature] = name, active
        telling = {feature: name for feature, (name, active) in found.items() if active}
        return telling or {feature: name for feature, (name, _) in found.items()}

    def top_test_pictures(self, feature: int, n: int = 10) -> list[int]:
        """Positions of the test pictures on which a feature is most active."""
        values = column(self.seen[self.site].codes[self.settings["codes"]], feature)[self.split.test]
        return self.split.test[np.argsort(-values, kind="stable")[:n]].tolist()

    def with_few(self, sizes: Sequence[int]) -> dict[int, pd.DataFrame]:
        """The `quiver` of probes that learn from so many pictures and choose by half as many; and of all at the end."""
        found, split = {}, self.split
        for n in sizes:
            part = Split(split.train[:n], split.validation[: max(1, n // 2)], split.test)
            some = of_facts(
                self.facts, np.flatnonzero(enough(self.facts.truth.numpy(), part.train, part.validation, least=3))
            )
            if some.names:
                probes = probe_facts(vectors_of(self.seen[self.site], part.train), some, part)
                found[n] = quiver(probes, self.facts.names).dropna()
        return found | {len(split.train): quiver(self._of(None, None), self.facts.names)}

    def elsewhere(self, facts: Facts, home: Split, away: np.ndarray, sizes: Sequence[int | None]) -> pd.DataFrame:
        """Raw and code probes that learn at home, marked at home and away, with so many columns (None: all)."""
        vectors = {kind: getattr(self.seen[self.site], kind)[self.settings[kind]] for kind in ("raw", "codes")}
        parts = {"home": home.test, "away": away}
        found = [
            probe_facts(vectors, facts, home, parts, k=size).assign(size="all" if size is None else str(size))
            for size in sizes
        ]
        return pd.concat(found, ignore_index=True)

    def _of(self, kind: str | None, site: str | None) -> pd.DataFrame:
        rows = self.probes[self.probes["site"] == (site or self.site)]
        return rows if kind is None else rows[rows["kind"] == kind]


@dataclass(frozen=True)
class SparseProbes:
    """Probes by size, the number of columns that they may use; `order` are the sizes as text, the last `all`."""

    probes: pd.DataFrame
    order: Sequence[str]
    n: int = 2000

    def table(self) -> pd.DataFrame:
        """Marks averaged over the facts: kind by (mark, size)."""
        means = self.probes.pivot_table(index="kind", columns="size", values=list(MARKS))
        columns = [(mark, size) for mark in MARKS for size in self.order]
        return means.reindex(columns=columns).loc[list(KINDS)].rename(columns=MARKS)

    def ahead_of_raw(self) -> dict[str, dict[str, list[Interval]]]:
        """By mark and kind, one interval for each size."""
        at = {(*key,): part.set_index("fact") for key, part in self.probes.groupby(["kind", "size"])}

        def gain(kind: str, mark: str, size: str) -> Interval:
            return metrics.mean_interval(
                torch.tensor((at[kind, size][mark] - at["raw", size][mark]).to_numpy()), self.n
            )

        return {mark: {kind: [gain(kind, mark, size) for size in self.order] for kind in KINDS[1:]} for mark in MARKS}

    @property
    def told(self) -> str:
        """How far codes are ahead with the fewest columns."""
        by_f1, by_auc = (self.ahead_of_raw()[mark]["codes"][0] for mark in ("f1", "auc"))
        return (
            f"With {self.order[0]} column, codes are ahead of raw activations by **{by_f1}** in macro\nF1 and by "
            f"**{by_auc}** in AUC (negative: behind)."
        )

    def by_single_column(self) -> list[str]:
        """The facts, by the macro F1 of codes with the fewest columns, best first."""
        rows = self.probes[(self.probes["kind"] == "codes") & (self.probes["size"] == self.order[0])]
        return rows.set_index("fact").sort_values("f1", ascending=False).index.tolist()


def _mean(values: Iterable[float], n: int) -> Interval:
    return metrics.mean_interval(torch.tensor([float(value) for value in values]), n)


def facts_told(facts: Facts) -> str:
    """What is probed, each fact with its share of the pictures."""
    named = zip(map(as_markdown, facts.names), facts.share.tolist(), strict=True)
    shares = ", ".join(f"{name} ({share:.0%})" for name, share in named)
    return f"Probed are {len(facts.names)} facts, each with its share of the pictures: {shares}."


def column(codes, feature: int) -> np.ndarray:
    """One column of a sparse matrix, (N,)."""
    return codes[:, [feature]].toarray().ravel()


@dataclass(frozen=True)
class CarriedOver:
    """What became of probes elsewhere: `grid` is AUC, (shift, size, fact) by (part, kind)."""

    grid: pd.DataFrame
    n: int = 2000

    @classmethod
    def of(cls, moved: pd.DataFrame, n: int = 2000) -> CarriedOver:
        """moved: rows of `Comparison.elsewhere` with a column `shift`."""
        index = ["shift", "size", "fact"]
        return cls(moved.pivot_table(index=index, columns=["part", "vectors"], values="auc"), n)

    @property
    def all_columns(self) -> pd.DataFrame:
        """Of the probes that use all columns: (shift, fact) by (part, kind)."""
        return self.grid.xs("all", level="size")

    @property
    def ahead(self) -> pd.DataFrame:
        """AUC of codes less that of raw activations: (shift, fact) by part."""
        full = self.all_columns
        return pd.DataFrame({part: full[part]["codes"] - full[part]["raw"] for part in ("home", "away")})

    def table(self) -> pd.DataFrame:
        """Means over the facts, and how many there are."""
        groups = self.grid.groupby(["shift", "size"])
        show = groups.mean()
        show.insert(0, ("", "facts"), groups.size())
        show = show[[("", "facts"), *((part, name) for part in ("home", "away") for name in ("raw", "codes"))]]
        return show.rename_axis(["elsewhere is", "columns"]).rename(columns={"away": "elsewhere"})

    def spread(self) -> Interval:
        """Standard deviation over the facts of `ahead`, elsewhere less at home."""
        both = torch.tensor(self.ahead.to_numpy())
        return metrics.bootstrap(lambda x: x[..., 1].std(1) - x[..., 0].std(1), both, n=self.n)

    def means(self) -> dict[str, Interval]:
        """Mean of `ahead` by part, over the facts."""
        by_fact = self.ahead.groupby("fact").mean()
        return {part: _mean(by_fact[part], self.n) for part in by_fact}

    @property
    def told(self) -> str:
        """Where codes do best against raw activations, and where worst."""
        ahead, ((worst, least), (best, most)) = self.ahead["away"], self.extremes()
        return (
            f"Against raw activations, codes do best where elsewhere is *{as_markdown(best)}* ({most:+.3f} AUC) and "
            f"worst where\nit is *{as_markdown(worst)}* ({least:+.3f}); fact by fact from {ahead.min():+.2f} to "
            f"{ahead.max():+.2f}."
        )

    def extremes(self) -> tuple[tuple[str, float], tuple[str, float]]:
        """Where codes do worst against raw activations and where best, and by how much on average."""
        by_shift = self.ahead["away"].groupby("shift").mean().sort_values()
        return tuple((by_shift.index[i], float(by_shift.iloc[i])) for i in (0, -1))


def comparison_told(
    compared: Comparison,
    with_fewest: Interval,
    fewest: str,
    claims: Mapping[str, Interval],
    carried: CarriedOver | None,
) -> dict[str, Interval | str]:
    """The chapter's results in a few words each; what was not measured is left out."""
    told = {
        "codes less raw activations, AUC": compared.ahead("codes", "raw", "auc"),
        "the same in macro F1": claims["probing-beats-hidden"],
        f"codes less raw activations with {fewest} column, macro F1": with_fewest,
        "binarised codes less codes, macro F1": claims["binarised-as-good"],
        "gained by a choice that has SAE probes too, AUC": claims["sae-probes-add-little"],
        "codes less raw activations elsewhere, AUC": carried and carried.means()["away"],
        "finding strangers: profiles less Mahalanobis, AUROC": claims.get("sae-profiles-find-strangers", MISSING),
        "species named right: TopK sibling less embedded CLIP": claims.get("topk-keeps-abilities"),
        "score by the judge: TopK neurons less SAE features": claims.get("topk-as-interpretable"),
    }
    return {what: value for what, value in told.items() if value is not None}
