"""Rank the features of a dictionary by how far they carry a spurious attribute: statistics, and four rules.

The rules are ours: arXiv 2504.08729 says only that spurious latents are identified and ablated, layer by layer
(papers.md 2.6). Whatever ranks features takes the selection part of a `Protocol` and raises ProtocolError for others.
`Neurons` and `Directions` are ranked as an SAE is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from experiments.disentanglement.protocol import Part
from experiments.disentanglement.suppression import Runner
from lib.devices import bring, to_cpu
from steering.cached_forward import CachedForward
from steering.interventions import Dictionary, Intervention


@dataclass(frozen=True, eq=False)
class FeatureStats:
    """Statistics of a dictionary at one site on the N selection pictures.

    codes, attribution: (N, F), mean over the tokens and sum over the tokens; largest: (F,) the code of largest
    magnitude on any token, with its sign; margin: (N,) the logit difference that is attributed.
    """

    codes: Tensor
    attribution: Tensor
    largest: Tensor
    margin: Tensor


def feature_stats(
    part: Part, runner: Runner, dictionaries: dict[str, Sequence[Dictionary]]
) -> dict[str, list[FeatureStats]]:
    """Codes and attributions of all dictionaries at all sites, from one pass forward and one backward a picture.

    The attribution of a feature is gradient times activation of the logit difference `wrong_class_margin`: about
    how far it falls when the feature is zeroed (ours). Raises ProtocolError for other than selection pictures.
    """
    part.only_for("selection")
    found = {site: [[] for _ in some] for site, some in dictionaries.items()}
    start = 0
    for pixels in runner.pixels:
        rows = slice(start, start := start + len(pixels))
        values = runner.encoder.run(pixels.clone().requires_grad_(), [*dictionaries, "proj"])
        wrong = wrong_class_margin(runner.zero_shot.logits(values["proj"]), runner.truth[rows], runner.suggested[rows])
        gradients = torch.autograd.grad(wrong.sum(), [values[site] for site in dictionaries])
        for (site, some), gradient in zip(dictionaries.items(), gradients, strict=True):
            for place, dictionary in zip(found[site], some, strict=True):
                place.append((*_of_batch(dictionary, values[site].detach(), gradient), to_cpu(wrong)))
    return {site: [_together(parts) for parts in several] for site, several in found.items()}


def wrong_class_margin(logits: Tensor, truth: Tensor, suggested: Tensor) -> Tensor:
    """Logit of the likeliest wrong class less that of the true one: (N, C), (N,), (N,) -> (N,).

    The wrong class is the one that the spurious attribute suggests, where that is wrong; else the one of largest logit.
    """
    truth, suggested = bring(truth, logits)[:, None], bring(suggested, logits)[:, None]
    others = logits.scatter(1, truth, -torch.inf).amax(1, keepdim=True)
    wrong = torch.where((suggested >= 0) & (suggested != truth), logits.gather(1, suggested.clamp_min(0)), others)
    return (wrong - logits.gather(1, truth))[:, 0]


@torch.no_grad()
def _of_batch(dictionary: Dictionary, values: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean codes (B, F), attributions (B, F) and the codes of largest magnitude (F,) of values (B, T, d)."""
    decoder = bring(dictionary.W_dec.detach(), values, values.dtype)
    codes = bring(dictionary.encode(values), values)  # (B, T, F)
    attribution = (codes * (gradient @ decoder.T)).sum(1)
    most, least = codes.amax((0, 1)), codes.amin((0, 1))
    return to_cpu(codes.mean(1)), to_cpu(attribution), to_cpu(torch.where(most >= -least, most, least))


def _together(parts: list[tuple[Tensor, ...]]) -> FeatureStats:
    codes, attribution, extremes, margin = (list(column) for column in zip(*parts, strict=True))
    largest = torch.stack(extremes)
    most = largest.abs().argmax(0, keepdim=True)
    return FeatureStats(torch.cat(codes), torch.cat(attribution), largest.gather(0, most)[0], torch.cat(margin))


def by_difference(codes: Tensor, spurious: Tensor, truth: Tensor) -> Tensor:
    """How far mean codes (N, F) differ between the attribute's two values, within classes: (F,) magnitudes.

    Each class that shows both values counts the same. Raises ValueError where none does.
    """
    gaps = []
    for c in truth.unique():
        with_it, without = (codes[(truth == c) & (spurious == value)] for value in (1, 0))
        if len(with_it) and len(without):
            gaps.append(with_it.mean(0) - without.mean(0))
    if not gaps:
        raise ValueError("no class has pictures with and without the spurious attribute: give some of both")
    return torch.stack(gaps).mean(0).abs()


def by_attribution(attribution: Tensor, truth: Tensor, suggested: Tensor) -> Tensor:
    """Mean attribution (N, F) over the pictures whose attribute suggests a wrong class: (F,)."""
    misled = (suggested >= 0) & (suggested != truth)
    return attribution[misled].mean(0)


def greedy_ranking(
    attribution: Tensor, margin: Tensor, group: Tensor, n_features: int, n_candidates: int = 256
) -> list[int]:
    """Features that raise the worst group's soft accuracy most, added one at a time, as attributions predict it.

    attribution (N, F), margin (N,) the logit differences, group (N,). Soft accuracy is sigmoid(-margin), and taking
    feature j out lowers `margin` by its attribution: a first-order estimate without another forward pass. Only the
    `n_candidates` features of the largest mean magnitude are tried.
    """
    candidates = attribution.abs().mean(0).topk(min(n_candidates, attribution.shape[1])).indices
    gains = attribution[:, candidates]
    members = [group == g for g in group.unique()]
    chosen: list[int] = []
    for _ in range(min(n_features, len(candidates))):
        right = torch.sigmoid(gains - margin[:, None])  # (N, candidates)
        by_group = torch.stack([right[rows].mean(0) for rows in members])
        score = by_group.amin(0) + 0.1 * by_group.mean(0)
        score[chosen] = -torch.inf
        chosen.append(int(score.argmax()))
        margin = margin - gains[:, chosen[-1]]
    return candidates[chosen].tolist()


def by_steerability(
    part: Part,
    runner: Runner,
    dictionary: Dictionary,
    site: str,
    seen: FeatureStats,
    n_candidates: int,
    n_pictures: int,
) -> Tensor:
    """How far a feature, clamped at its largest code on all tokens, moves the texts that name the attribute: (F,).

    The score is arXiv 2504.08729's (papers.md 2.5), the squared mean change of probability, summed over those texts
    alone; the vocabulary is the task's classes and these texts. Only the features with the largest mean codes are
    tried; the others have -inf. Raises ProtocolError for other than selection pictures.
    """
    part.only_for("selection")
    texts = F.normalize(runner.encoder.embed_texts(list(runner.task.spurious_texts)), dim=-1)
    vocabulary = torch.cat([runner.zero_shot.prototypes, texts])
    candidates = seen.codes.abs().mean(0).topk(min(n_candidates, seen.codes.shape[1])).indices.tolist()
    variants = [(Intervention(dictionary, site, {j: float(seen.largest[j])}),) for j in candidates]
    spread = torch.linspace(0, len(runner) - 1, n_pictures).long().tolist()
    pixels = torch.cat(runner.pixels)[spread] if n_pictures < len(runner) else torch.cat(runner.pixels)
    steered = CachedForward(runner.encoder, "proj", pixels, variants).values([(), *variants])
    said = (runner.encoder.logit_scale * F.normalize(steered, dim=-1) @ vocabulary.T).softmax(-1).mean(1)  # (1 + n, C)
    moved = (said[1:] - said[0])[:, -len(texts) :].square().sum(-1)
    scores = torch.full((dictionary.n_features,), -torch.inf)
    scores[candidates] = to_cpu(moved)
    return scores


RULES = ("difference", "steerability", "attribution", "greedy")


def rankings(
    part: Part,
    runner: Runner,
    dictionary: Dictionary,
    site: str,
    seen: FeatureStats,
    most: int,
    n_candidates: int = 96,
    n_pictures: int = 4,
) -> dict[str, list[int]]:
    """The features of a dictionary by each of `RULES`, best first; for the last two arguments see `by_steerability`.

    Where all pictures have the spurious attribute, nothing differs by it, and that rule is left out.
    """
    part.only_for("selection")
    varies = len(runner.spurious.unique()) > 1
    scores = {"difference": by_difference(seen.codes, runner.spurious, runner.truth)} if varies else {}
    scores |= {
        "steerability": by_steerability(part, runner, dictionary, site, seen, n_candidates, n_pictures),
        "attribution": by_attribution(seen.attribution, runner.truth, runner.suggested),
    }
    greedy = greedy_ranking(seen.attribution, seen.margin, runner.group, most)
    return {rule: ranked(score, most) for rule, score in scores.items()} | {"greedy": greedy}


def at_random(seen: FeatureStats, most: int, seed: int) -> list[int]:
    """Random features, of those active on selection pictures: the null of every rule."""
    active = (seen.codes != 0).any(0).nonzero().squeeze(1)
    drawn = torch.randperm(len(active), generator=torch.Generator().manual_seed(seed))
    return active[drawn[:most]].tolist()


def ranked(scores: Tensor, most: int) -> list[int]:
    """The features with the highest scores (F,), best first, at most so many, and none that was not scored."""
    best = scores.topk(min(most, len(scores)))
    return [int(j) for j, value in zip(best.indices, best.values, strict=True) if value > -torch.inf]
