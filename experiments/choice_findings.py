"""The choices of arXiv 2504.02821 that need no other recipe: the score's denominator, the sweep, rounding, tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from experiments import hierarchy
from experiments.published import UNIQUENESS
from experiments.recipe_effects import change, describe
from lib import SAE, metrics
from lib.activations.store import ActivationStore
from lib.encoders.encoder import Encoder
from lib.features.one_pass import top_images
from lib.metrics.intervals import rank_correlation

WITHOUT_REPLACEMENT, WITH_REPLACEMENT, PATCHES = "choice-random", "choice-with-replacement", "choice-spatial"


def as_sentence(finding: str) -> str:
    """The finding with a capital and a full stop."""
    return f"{finding[0].upper()}{finding[1:]}."


@dataclass(frozen=True, eq=False)
class PrintedScore:
    """The score as the paper's code computes it, the score as its equation is printed, and the frequency: (F,) each."""

    score: Tensor
    printed: Tensor
    frequency: Tensor

    @classmethod
    def of(cls, codes: Sequence[Tensor], judge: Tensor) -> PrintedScore:
        """Of all live features of dictionaries; codes: (N, F) of each, judge: (N, E)."""
        score = torch.cat([metrics.monosemanticity(active, judge) for active in codes])
        frequency = torch.cat([metrics.sparsity(active)["density"] for active in codes])
        printed = score * torch.cat([mean_weight(active) for active in codes])
        live = ~score.isnan()
        return cls(score[live], printed[live], frequency[live])

    @property
    def ranks(self) -> dict[str, float]:
        """Rank correlations of the printed form."""
        others = {"the code's score": self.score, "frequency": self.frequency}
        pairs = {name: torch.stack([values.double(), self.printed], dim=1) for name, values in others.items()}
        return {name: float(rank_correlation(both[None])[0]) for name, both in pairs.items()}

    @property
    def finding(self) -> str:
        best = f"best value {float(self.printed.max()):.4f} where the ratio has {float(self.score.max()):.2f}"
        ranks = " and with ".join(f"{name} {value:.2f}" for name, value in self.ranks.items())
        return f"{best}; rank correlation of the printed form with {ranks}"


def mean_weight(codes: Tensor) -> Tensor:
    """Mean of ã_n ã_m over all N (N - 1) pairs, with codes (N, F) scaled to [0, 1]: (F,).

    The printed equation divides by the number of pairs, the code by their weights: the printed score is the code's
    times this.
    """
    a = codes.to_dense().double()
    a = (a - a.amin(0)) / (a.amax(0) - a.amin(0))
    return (a.sum(0).square() - a.square().sum(0)) / (len(a) * (len(a) - 1))


def finding_of_sweep(swept: pd.DataFrame, noise: float, judge: str) -> str:
    """Effect of K, as text. swept: mean score by K and expansion; noise: its standard deviation over seeds."""
    fall = swept.iloc[0] - swept.iloc[-1]  # from the least K to the largest
    falls = " and ".join(f"{value:+.3f} at ×{size:g}" for size, value in fall.items())
    levels = " and ".join(f"{value:.3f} at ×{size:g}" for size, value in swept.mean().items())
    ends = f"mean MS, E = {judge}, at K = {swept.index.min()} minus that at K = {swept.index.max()}"
    return f"{ends}: {falls} (s.d. of one mean score over seeds: {noise:.3f}); mean level {levels}"


def depths_by_level(sae: SAE, codes: Tensor, taxonomy: Sequence) -> pd.DataFrame:
    """Mean LCA depth of each level, with features' depths unrounded and rounded; codes: (N, F)."""
    depth = hierarchy.lca_depth(top_images(codes, 16)[0], taxonomy)
    ends, alive = sae.config.group_ends(sae.n_features), metrics.sparsity(codes)["density"] > 0
    forms = {"unrounded": depth, "rounded": depth.round()}
    rows = {form: [level["mean"] for level in hierarchy.by_level(v, ends, alive)] for form, v in forms.items()}
    return pd.DataFrame(rows).rename_axis("level")


def finding_of_rounding(by_level: pd.DataFrame) -> str:
    """Effect of rounding, as text. by_level: `depths_by_level` with a column seed; empty without a taxonomy."""
    if by_level.empty:
        return "the pictures have no taxonomy, so there is no depth to measure"
    shift = (by_level["rounded"] - by_level["unrounded"]).groupby("level").mean().abs().max()
    ends = by_level.groupby("seed")[["rounded", "unrounded"]].agg(lambda depth: depth.iloc[-1] - depth.iloc[0])
    noise = by_level.groupby("level")["unrounded"].std().mean()
    gaps = ", ".join(f"{ends[form].mean():+.2f} {form}" for form in ends)
    moved = f"rounding moves a level's depth by up to {shift:.2f} ranks in the mean over seeds"
    return f"{moved} (s.d. over seeds: {noise:.2f}); last level minus first: {gaps}"


def two_tokens(model: Encoder, n: int, seed: int = 0) -> dict[str, Tensor]:
    """Positions (n, 2) of two tokens of each of n pictures, by choice: how they are drawn."""
    draw, T = torch.Generator().manual_seed(seed), model.n_tokens
    spatial = model.positions("spatial")
    orders = torch.rand(n, T, generator=draw).argsort(1)
    patches = torch.rand(n, len(spatial), generator=draw).argsort(1)
    replaced = torch.randint(T, (n, 2), generator=draw)
    return {WITHOUT_REPLACEMENT: orders[:, :2], WITH_REPLACEMENT: replaced, PATCHES: spatial[patches[:, :2]]}


def of_tokens(pictures: Tensor, positions: Tensor) -> ActivationStore:
    """The tokens of pictures (N, T, d) at positions (N, n), as activations (N n, d) to train on."""
    return ActivationStore.from_tensor(pictures[torch.arange(len(pictures))[:, None], positions].flatten(0, 1))


@torch.no_grad()
def explained(sae: SAE, held: Tensor, model: Encoder) -> dict[str, float]:
    """Explained variance of all tokens of held-out pictures (N, T, d), and of CLS where the encoder has one."""
    sides = {"all tokens": held.flatten(0, 1)}
    sides |= {"CLS": held[:, model.positions("cls")].flatten(0, 1)} if model.has_cls else {}
    return {f"EV of {who}": metrics.reconstruction(v, sae(v))["explained_variance"] for who, v in sides.items()}


def finding_of_tokens(table: pd.DataFrame, model: Encoder) -> str:
    """Effect of how tokens are drawn, as text. table: `explained` by choice and seed."""

    def against_ours(name: str, figure: str) -> str:
        return describe(change(table.loc[name][figure] - table.loc[WITHOUT_REPLACEMENT][figure]), figure)

    alone = "without CLS" if model.has_cls else "patches alone"
    others = {"with replacement": WITH_REPLACEMENT, alone: PATCHES}
    finding = "; ".join(f"{label}: {against_ours(name, 'EV of all tokens')}" for label, name in others.items())
    finding += f"; CLS itself without CLS: {against_ours(PATCHES, 'EV of CLS')}" if model.has_cls else ""
    T = model.n_tokens
    return f"{finding} (of {T} tokens a picture, {1 / T:.1%} of the pairs drawn with replacement are one token twice)"


def untrained_findings() -> dict[int, tuple[str, str]]:
    """Choices that need no dictionary, from the paper's own numbers: choice and finding, by number."""
    pairs = math.comb(UNIQUENESS["latents"] - UNIQUENESS["excluded"], 2)
    overlapping = UNIQUENESS["J > 0"]
    return {
        4: ("LLaVA's prompt", "not measured here: only a multimodal model reads it"),
        11: ("share of overlapping pairs", f"{overlapping:,} of {pairs:,} pairs are {overlapping / pairs:.4%}"),
        12: ("prompts followed", "a number in the text, with nothing to compute; the table's 85.8 is quoted"),
    }


def all_findings(findings: Mapping[int, tuple[str, str]]) -> pd.DataFrame:
    """A table of findings, a row a choice."""
    rows = [{"#": i, "what": what, "the other choice gives": text} for i, (what, text) in sorted(findings.items())]
    return pd.DataFrame(rows)
