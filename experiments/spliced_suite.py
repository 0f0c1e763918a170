"""Fidelity of a model when reconstructions of a suite of dictionaries replace the tokens that they read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from experiments.markup import as_html
from experiments.published_fidelity import published_recovered
from experiments.questions import Question
from experiments.splicing import reconstruction_at, spliced_embeddings, zero_at
from experiments.tables import written
from experiments.token_suite import STREAM, Key, Suite
from lib import metrics
from lib.metrics.fidelity import ZeroShot
from lib.metrics.intervals import Interval

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

CLEAN, ZERO = "clean", "zero"


@dataclass(frozen=True, eq=False)
class SplicedSuite:
    """Embeddings of P pictures, unchanged and with each dictionary of a suite spliced in; answers to a question.

    embeddings: (P, E) of unit norm by key; `clean`: unchanged, (site, scope, "zero"): with zeros there.
    """

    suite: Suite
    asked: Question
    embeddings: Mapping[object, Tensor]

    @classmethod
    def of(cls, suite: Suite, asked: Question) -> SplicedSuite:
        """Run the model once for each dictionary, for zeros at its tokens, and for zeros at all tokens."""
        splices: dict[object, tuple] = {CLEAN: ()}
        for site, scope, _ in suite.saes:
            width = suite.model.width(site)
            for tokens in (scope, "all"):
                splices.setdefault((site, tokens, ZERO), (zero_at(site, width, tokens),))
        splices |= {(site, scope, kind): (reconstruction_at(site, sae, scope),)
                    for (site, scope, kind), sae in suite.saes.items()}  # fmt: skip
        return cls(suite, asked, spliced_embeddings(suite.model, asked.images, splices))

    @cached_property
    def scaled(self) -> dict[object, ZeroShot]:
        """With the encoder's own logit scale."""
        asked = self.asked
        return {
            name: metrics.zero_shot(e, asked.answers, asked.truth, asked.scale) for name, e in self.embeddings.items()
        }

    @cached_property
    def unscaled(self) -> dict[object, Tensor]:
        """Losses (P,) of the published form: logit scale 1, answers in their shortest form."""
        asked = self.asked
        return {name: metrics.zero_shot(e, asked.bare, asked.truth, 1.0).loss for name, e in self.embeddings.items()}

    @cached_property
    def back(self) -> dict[Key, dict[str, Interval]]:
        """Shares of the `loss` and of the `correct` answers recovered, against zeroing the dictionary's own tokens."""
        return {key: {what: self._back(key, what) for what in ("loss", "correct")} for key in self.suite.saes}

    def _back(self, key: Key, what: str) -> Interval:
        clean, spliced, zero = (getattr(self.scaled[name], what) for name in (CLEAN, key, (*key[:2], ZERO)))
        return metrics.recovered(clean, spliced, zero, n=self.suite.n)

    @property
    def untouched(self) -> str:
        """Accuracy and cross-entropy of the unchanged model, as text."""
        nats, hits = (float(values.mean()) for values in self.scaled[CLEAN])
        pictures = f"{len(self.asked.truth):,} pictures ({self.asked.name})"
        return f"Untouched: **{hits:.1%}** right of {pictures}, cross-entropy **{nats:.3f}**."

    def reconstruction(self, keys: Sequence[Key]) -> pd.DataFrame:
        """Explained variance, sparsity and cosines, a row a dictionary."""
        return pd.DataFrame([self._reconstruction_row(key) for key in keys])

    def _reconstruction_row(self, key: Key) -> dict:
        fit, sae, model = self.suite.fits[key], self.suite.saes[key], self.suite.model
        reads_cls = key[1] != "spatial" and model.has_cls
        cls = self.suite.l0_of(key, "cls").mean() if reads_cls else torch.tensor(torch.nan)
        kept = (self.embeddings[key] * self.embeddings[CLEAN]).sum(1).mean()
        head = _head(key) | {"L1": sae.config.l1 if key[2] == "relu" else np.nan}
        variance = {"EV": fit.ours["explained_variance"], "EV publ.": fit.published["explained_variance"]}
        count = {"L0": float(fit.l0.mean()), "CLS L0": float(cls)}
        cosine = {"cos": fit.ours["cosine"], "cos publ.": fit.published["cosine"], "emb. cos": float(kept)}
        return head | variance | count | cosine | {"alive": self.suite.alive[key]}

    def zero_shot(self, keys: Sequence[Key]) -> pd.DataFrame:
        """Cross-entropy and accuracy in both forms, a row a dictionary."""
        return pd.DataFrame([self._zero_shot_row(key) for key in keys])

    def _zero_shot_row(self, key: Key) -> dict:
        runs = {"": CLEAN, " SAE": key, " zero": (*key[:2], ZERO)}
        loss = {f"CE{suffix}": float(self.scaled[name].loss.mean()) for suffix, name in runs.items()}
        hits = {f"hits{suffix}": float(self.scaled[name].correct.mean()) for suffix, name in runs.items()}
        theirs = [self.unscaled[name] for name in (CLEAN, key, (key[0], "all", ZERO))]
        published = {f"publ. CE{suffix}": float(x.mean()) for suffix, x in zip(runs, theirs, strict=True)}
        ce, correct = self.back[key].values()
        shares = {"publ. back": published_recovered(*theirs) / 100}
        return _head(key) | loss | {"CE back": ce.value} | hits | {"hits back": correct.value} | published | shares

    def mean_back(self, kind: str) -> Interval:
        """Mean share of cross-entropy recovered by SAEs of all tokens of the residual stream; pictures resampled."""
        sites = [f"{layer}.{STREAM}" for layer in self.suite.layers()]
        names = [name for site in sites for name in (CLEAN, (site, "all", kind), (site, "all", ZERO))]
        losses = torch.stack([self.scaled[name].loss for name in names], dim=1)
        return metrics.bootstrap(_mean_recovered, losses, n=self.suite.n)

    def added_loss(self, layers: Sequence[int], losses: Mapping[object, Tensor]) -> Interval:
        """Loss with TopK's reconstruction of CLS minus the loss without, mean over layers of the residual stream."""
        rises = [losses[f"{layer}.{STREAM}", "cls", "topk"] - losses[CLEAN] for layer in layers]
        return metrics.mean_interval(torch.stack(rises).mean(0), self.suite.n)


def _head(key: Key) -> dict:
    layer, sublayer = key[0].split(".")
    return {"layer": int(layer), "sublayer": sublayer, "kind": key[2]}


def _mean_recovered(drawn: Tensor) -> Tensor:
    """Mean over S sites of the share recovered, of losses untouched, spliced and zeroed: (B, N, 3 S) -> (B,)."""
    clean, spliced, zero = drawn.mean(1).unflatten(1, (-1, 3)).unbind(2)
    return ((zero - spliced) / (zero - clean)).mean(1)


def tidy(table: pd.DataFrame, caption: str) -> Styler:
    """A table of dictionaries in small type, sorted by layer, sublayer and kind."""
    table = table.sort_values(["layer", "sublayer", "kind"], kind="stable")
    shares = [name for name in table if name.startswith(("EV", "alive", "CE back", "hits", "publ. back"))]
    formats = dict.fromkeys(shares, "{:.1%}") | {"L1": "{:.2g}", "L0": "{:.1f}", "CLS L0": "{:.1f}"}
    small = [{"selector": "td, th", "props": "font-size: 0.8em; padding: 0.15em 0.45em"}]
    return written(table, formats).hide(axis="index").set_table_styles(small).set_caption(as_html(caption))
