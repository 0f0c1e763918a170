"""Claims of arXiv 2504.08729 about sparsity by layer and token, each as one number, and as text."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pandas as pd
import torch
from torch import Tensor

from experiments.spliced_suite import SplicedSuite
from experiments.token_suite import STREAM, Inside
from lib import metrics
from lib.metrics.intervals import Interval


@dataclass(frozen=True, eq=False)
class SparsityClaims:
    """The claims, measured. free: the kind whose L0 is not fixed; inside: of its maps of L0."""

    spliced: SplicedSuite
    free: str
    inside: Inside

    @property
    def layers(self) -> list[int]:
        """Blocks after which the residual stream is read."""
        return self.spliced.suite.layers()

    @property
    def late(self) -> list[int]:
        """The last five twelfths of the depth, as in the released table."""
        return [layer for layer in self.layers if layer >= 7 / 12 * self.spliced.suite.model.n_layers]

    @cached_property
    def found(self) -> dict[str, Interval]:
        """Measurements by claim id; only those that these dictionaries allow."""
        suite, claims = self.spliced.suite, {}
        read = set(suite.scopes) if self.layers else set()
        several = len(self.layers) > 1
        if "all" in read and suite.model.has_cls and several:
            claims |= self._patterns()
        if "all" in read and self.inside.by_layer:
            claims["patches-denser-inside"] = self.inside.over_layers
        if "cls" in read and several:
            first, last = (suite.alive[f"{self.layers[i]}.{STREAM}", "cls", self.free] for i in (0, -1))
            claims["alive-cls-rises"] = Interval(last - first)
        if "cls" in read and "topk" in suite.kinds and self.late:
            scaled = {name: answers.loss for name, answers in self.spliced.scaled.items()}
            claims["topk-lowers-ce"] = self.spliced.added_loss(self.late, self.spliced.unscaled)
            claims["topk-lowers-ce-scaled"] = self.spliced.added_loss(self.late, scaled)
        if "all" in read:
            claims["all-tokens-recover-ce"] = self.spliced.mean_back(self.free)
        return claims

    def _patterns(self) -> dict[str, Interval]:
        suite, keys = self.spliced.suite, [(f"{layer}.{STREAM}", "all", self.free) for layer in self.layers]
        cls, patches = ([suite.l0_of(key, tokens) for key in keys] for tokens in ("cls", "spatial"))
        table = torch.stack(cls + patches, dim=1)
        return {
            "cls-l0-rises": metrics.mean_interval(cls[-1] - cls[0], suite.n),
            "sparsity-patterns-differ": metrics.bootstrap(_widest, table, n=suite.n),
        }

    def describe(self) -> dict[str, str]:
        """The claims as text, by what was measured."""
        widest = "largest over smallest mean L0 of CLS and patches at all layers"
        added = "TopK reconstruction of CLS minus untouched"
        of_all = f"{self.free} SAEs of all tokens"
        quantities = {
            "sparsity-patterns-differ": f"{widest}, {self.free} SAEs",
            "cls-l0-rises": f"L0 of CLS, last layer minus first, {of_all}",
            "patches-denser-inside": "L0 of patches, inside minus border, as a share of their mean, over all layers",
            "alive-cls-rises": f"share of latents alive, last layer minus first, {self.free} SAEs of CLS",
            "topk-lowers-ce": f"cross-entropy without logit scale, {added}, late layers",
            "topk-lowers-ce-scaled": "the same with the logit scale",
            "all-tokens-recover-ce": f"cross-entropy recovered, {of_all}, residual stream, mean over layers",
        }
        return {text: str(self.found[name]) for name, text in quantities.items() if name in self.found}

    def summary(self, otherwise: str) -> str:
        """The chapter's result in a few lines; `otherwise` where nothing was found."""
        ends = f"From layer {self.layers[0]} to {self.layers[-1]}" if self.layers else ""
        kept = "On the residual stream the SAEs of all tokens keep this share of the cross-entropy, mean over layers"
        sentences = {
            "cls-l0-rises": f"{ends} CLS needs so many more active latents",
            "patches-denser-inside": "Patches inside the picture need that much more than its border",
            "all-tokens-recover-ce": kept,
        }
        lines = [f"- {text}: {self.found[name]}." for name, text in sentences.items() if name in self.found]
        lines += filter(None, map(self._worst_layer, self.spliced.suite.kinds))
        return "\n".join(lines) or otherwise

    def _worst_layer(self, kind: str) -> str:
        keys = {layer: (f"{layer}.{STREAM}", "all", kind) for layer in self.layers}
        back = self.spliced.back
        share = pd.Series({x: back[key]["loss"].value for x, key in keys.items() if key in back}, dtype=float).dropna()
        if share.empty:
            return ""
        worst = f"behind layer {share.idxmin()}: {share.min():.1%} recovered"
        return f"- With {kind} the residual stream suffers most {worst}."


def _widest(drawn: Tensor) -> Tensor:
    """Largest over smallest of the columns' means: (B, N, C) -> (B,)."""
    return drawn.mean(1).amax(1) / drawn.mean(1).amin(1)
