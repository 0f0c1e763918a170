"""Probes of raw activations compared with probes of SAE codes: by pooling, sparsity, few pictures, and under shift."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from experiments.ground_truth import Facts
from experiments.markup import as_markdown
from experiments.probing import Pictures, Split, binarised, enough, fit_probe, probe_facts, scaled, varied_facts
from experiments.tables import MISSING
from lib import metrics
from lib.metrics.intervals import Interval

if TYPE_CHECKING:
    from experiments.probing import Vectors
    from experiments.transferred_probes import TransferredProbes

KINDS = ("raw", "codes", "binary")
MARKS = {"auc": "AUC", "f1": "macro F1"}


def chosen_facts(known: Facts, n: int, split: Split, *parts: np.ndarray) -> Facts:
    """n varied facts with enough pictures in every part to train, choose and test probes."""
    truth = known.truth.numpy()
    learnable = of_facts(known, np.flatnonzero(enough(truth, split.train, split.validation, *parts, least=4)))
    return of_facts(learnable, varied_facts(learnable, n))


def of_facts(facts: Facts, some: Sequence[int]) -> Facts:
    """Some of the facts."""
    return Facts([facts.names[i] for i in some], facts.truth[:, list(some)])


def vectors_of(pictures: Pictures, train: np.ndarray, kinds: Sequence[str] = KINDS) -> dict[str, Vectors]:
    """{"kind, pooling": (N, D)} of every kind and pooling.

    A feature active in the mean over tokens is active in the maximum, so binary codes need only one of the two.
    """
    of = {"raw": pictures.raw.get, "codes": pictures.codes.get}
    of["binary"] = lambda pooling: binarised(pictures.codes[pooling], train)
    duplicate = ("binary", "mean") if "max" in pictures.raw else None
    wanted = [(kind, pooling) for kind in kinds for pooling in pictures.raw if (kind, pooling) != duplicate]
    return {f"{kind}, {pooling}": of[kind](pooling) for kind, pooling in wanted}


def quiver(probes: pd.DataFrame, facts: Sequence[str]) -> pd.DataFrame:
    """Test AUC of each fact's probe of best validation AUC, among raw ones and among all (arXiv 2502.16681)."""
    baselines = probes[probes["vectors"].str.startswith("raw")]
    picked = (part.loc[part.groupby("fact")["validation"].idxmax()].set_index("fact") for part in (baselines, probes))
    return pd.concat([rows["auc"].reindex(facts) for rows in picked], axis=1, keys=["raw only", "all"])


@dataclass(frozen=True)
class Comparison:
    """Probes of each fact for each site, kind of vector and pooling.

    seen: the pictures by site, `site` the last one; facts, split: what is probed, on which pictures; probes: a row a
    probe, with its scores on test pictures; n: resamples of an interval.
    """

    seen: Mapping[str, Pictures]
    facts: Facts
    split: Split
    probes: pd.DataFrame
    n: int = 2000
    _raw: dict[Hashable, pd.DataFrame] = field(default_factory=dict)

    @classmethod
    def of(cls, seen: Mapping[str, Pictures], facts: Facts, split: Split, n: int = 2000) -> Comparison:
        """Train all probes."""
        probes = [_probed(pictures, facts, split, KINDS).assign(site=site) for site, pictures in seen.items()]
        return cls(seen, facts, split, pd.concat(probes, ignore_index=True), n)

    def of_null(self, pictures: Pictures) -> Comparison:
        """The same with other codes at the last site; probes of raw activations are not trained again."""
        probes = _probed(pictures, self.facts, self.split, KINDS[1:]).assign(site=self.site)
        both = pd.concat([self._of("raw", None), probes], ignore_index=True)
        return Comparison({self.site: pictures}, self.facts, self.split, both, self.n, self._raw)

    def _with_raw(
        self, key: Hashable, probed: Callable[[Sequence[str]], pd.DataFrame], kinds: Sequence[str]
    ) -> pd.DataFrame:
        """Probes of some kinds; those of raw activations are trained once for a comparison and its nulls."""
        if key not in self._raw:
            self._raw[key] = probed(["raw"])
        return pd.concat([self._raw[key], probed([kind for kind in kinds if kind != "raw"])], ignore_index=True)

    @property
    def site(self) -> str:
        return list(self.seen)[-1]

    @property
    def settings(self) -> dict[str, str]:
        """The pooling of best mean validation AUC, by kind."""
        return {kind: self.poolings(kind)[0] for kind in KINDS}

    def table(self) -> pd.DataFrame:
        """Scores averaged over the facts: (site, kind) by (score, pooling)."""
        wide = self.probes.pivot_table(index=["site", "kind"], columns="pooling", values=list(MARKS))[list(MARKS)]
        return wide.rename(columns=MARKS)

    def poolings(self, kind: str, site: str | None = None) -> tuple[str, str]:
        """The pooling with the highest mean AUC on validation pictures, and the lowest."""
        means = self._of(kind, site).groupby("pooling")["validation"].mean()
        return means.idxmax(), means.idxmin()

    def marked(self, kind: str, mark: str, pooling: str | None = None, site: str | None = None) -> Tensor:
        """Each fact's score on the test pictures, (C,), with the pooling of best validation AUC unless one is given."""
        rows = self._of(kind, site).set_index(["pooling", "fact"])[mark]
        return torch.tensor(rows[pooling or self.poolings(kind, site)[0]].reindex(self.facts.names).to_numpy())

    def ahead(self, one: str, other: str, mark: str, site: str | None = None) -> Interval:
        """Mean over the facts of one kind's score minus another's."""
        return self.mean(self.marked(one, mark, site=site) - self.marked(other, mark, site=site))

    def best_less_worst(self, kind: str, mark: str) -> Interval:
        """Mean score with the best pooling minus that with the worst, both by validation."""
        best, worst = self.poolings(kind)
        return self.mean(self.marked(kind, mark, best) - self.marked(kind, mark, worst))

    def claims(self) -> dict[str, Interval]:
        """The chapter's claims, at the last site."""
        return {
            "probing-beats-hidden": self.ahead("codes", "raw", "f1"),
            "binarised-as-good": self.ahead("binary", "codes", "f1"),
            "pooling-matters": self.best_less_worst("codes", "f1"),
            "raw-better-at-home": self.ahead("raw", "codes", "auc"),
        }

    def shown_claims(self) -> dict[str, str]:
        """`claims` as text, by what was measured."""
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
        """Vectors of each kind with its best pooling, at the last site."""
        found = vectors_of(self.seen[self.site], self.split.train)
        return {kind: found[f"{kind}, {self.settings[kind]}"] for kind in kinds}

    def sparse(self, sizes: Sequence[int]) -> SparseProbes:
        """Probes of few columns, and those of all."""

        def probed(size: int, kinds: Sequence[str]) -> pd.DataFrame:
            return probe_facts(self.vectors(*kinds), self.facts, self.split, k=size).assign(size=str(size))

        found = [self._with_raw(("columns", size), partial(probed, size), KINDS) for size in sizes]
        found = pd.concat(found, ignore_index=True).rename(columns={"vectors": "kind"})
        chosen = [f"{kind}, {pooling}" for kind, pooling in self.settings.items()]
        every = self._of(None, None)
        every = every[every["vectors"].isin(chosen)].assign(size="all")
        return SparseProbes(pd.concat([found, every], ignore_index=True), [*map(str, sizes), "all"], self.n)

    def single_features(self, facts: Sequence[str]) -> dict[int, str]:
        """{feature: fact} of single-feature probes, the first fact for each feature.

        Features that are less active with the fact are left out, unless there are no others.
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
        """The `quiver` of probes trained on n pictures and validated on n / 2, for each size, and on all pictures."""
        found, split = {}, self.split
        for n in sizes:
            part = Split(split.train[:n], split.validation[: max(1, n // 2)], split.test)
            some = of_facts(
                self.facts, np.flatnonzero(enough(self.facts.truth.numpy(), part.train, part.validation, least=3))
            )
            if some.names:
                probed = partial(_probed, self.seen[self.site], some, part)
                found[n] = quiver(self._with_raw(("few", n), probed, KINDS), self.facts.names).dropna()
        return found | {len(split.train): quiver(self._of(None, None), self.facts.names)}

    def elsewhere(self, facts: Facts, home: Split, away: np.ndarray, sizes: Sequence[int | None]) -> pd.DataFrame:
        """Raw and code probes trained at home, scored on test pictures of home and on `away`; sizes: None is all."""
        parts, key = {"home": home.test, "away": away}, (tuple(facts.names), away.tobytes())

        def probed(size: int | None, kinds: Sequence[str]) -> pd.DataFrame:
            vectors = {kind: getattr(self.seen[self.site], kind)[self.settings[kind]] for kind in kinds}
            return probe_facts(vectors, facts, home, parts, k=size).assign(size="all" if size is None else str(size))

        found = [self._with_raw((*key, size), partial(probed, size), ("raw", "codes")) for size in sizes]
        return pd.concat(found, ignore_index=True)

    def gained(self, smaller: Mapping[int, pd.DataFrame]) -> Interval:
        """Test AUC gained by a choice that has SAE probes too, mean over sizes and facts; smaller: of `with_few`."""
        gains = pd.concat([pair["all"] - pair["raw only"] for pair in smaller.values()])
        return self.mean(gains.groupby("fact").mean())

    def _of(self, kind: str | None, site: str | None) -> pd.DataFrame:
        rows = self.probes[self.probes["site"] == (site or self.site)]
        return rows if kind is None else rows[rows["kind"] == kind]


def _probed(pictures: Pictures, facts: Facts, split: Split, kinds: Sequence[str]) -> pd.DataFrame:
    """Probes of some kinds under every pooling."""
    probes = probe_facts(vectors_of(pictures, split.train, kinds), facts, split)
    probes[["kind", "pooling"]] = probes["vectors"].str.split(", ", expand=True).to_numpy()
    return probes


@dataclass(frozen=True)
class SparseProbes:
    """Probes by size, the number of columns that they may use; `order` are the sizes as text, the last `all`."""

    probes: pd.DataFrame
    order: Sequence[str]
    n: int = 2000

    def table(self) -> pd.DataFrame:
        """Scores averaged over the facts: kind by (score, size)."""
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
    def description(self) -> str:
        """Advantage of codes with the fewest columns, as text."""
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


def describe_facts(facts: Facts) -> str:
    """The probed facts with their shares of the pictures, as text."""
    named = zip(map(as_markdown, facts.names), facts.share.tolist(), strict=True)
    shares = ", ".join(f"{name} ({share:.0%})" for name, share in named)
    return f"Probed are {len(facts.names)} facts, each with its share of the pictures: {shares}."


def column(codes, feature: int) -> np.ndarray:
    """One column of a sparse matrix, (N,)."""
    return codes[:, [feature]].toarray().ravel()


def describe_comparison(
    compared: Comparison,
    with_fewest: Interval,
    fewest: str,
    claims: Mapping[str, Interval],
    carried: TransferredProbes | None,
) -> dict[str, Interval | str]:
    """The chapter's results by quantity; those not measured are left out."""
    quantities = {
        "codes less raw activations, AUC": compared.ahead("codes", "raw", "auc"),
        "the same in macro F1": claims["probing-beats-hidden"],
        f"codes less raw activations with {fewest} column, macro F1": with_fewest,
        "binarised codes less codes, macro F1": claims["binarised-as-good"],
        "gained by a choice that has SAE probes too, AUC": claims["sae-probes-add-little"],
        "codes less raw activations elsewhere, AUC": carried and carried.means()["away"],
        "out-of-distribution detection: profiles less Mahalanobis, AUROC": claims.get("sae-profiles-find-ood", MISSING),
        "species named right: TopK sibling less embedded CLIP": claims.get("topk-keeps-abilities"),
        "score by the judge: TopK neurons less SAE features": claims.get("topk-as-interpretable"),
    }
    return {what: value for what, value in quantities.items() if value is not None}
