"""Suppression: which features, neurons or directions carry a spurious attribute, and what zero-shot loses with them.

Zero-ablation at all tokens, with what the dictionary cannot say kept. The rules that choose are ours: arXiv 2504.08729
says only that spurious latents are identified and ablated, layer by layer (papers.md 2.6). A choice is made on the
selection part of a `Protocol` and refuses any other; its number and strength are settled on the validation part.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from lib.disentanglement import NearestText, Part, SubsetResults, Task
from lib.models import Encoder
from lib.rerun import Looks, Variant
from lib.rows import read_batches
from lib.steering import Dictionary, Intervention

BATCH = 64  # pictures that go through the tower together


def suppress(dictionary: Dictionary, site: str, features: Iterable[int], strength: float = 1.0) -> Variant:
    """Take features out at all tokens: f_j becomes (1 - strength) f_j. 1 is zero-ablation, more turns the sign."""
    features = {int(j): 1.0 - strength for j in features}
    return (Intervention(dictionary, site, features, mode="scale"),) if features else ()


class Trials:
    """A task's pictures before one encoder, drawn or read once: what becomes of them under many interventions.

    pixels: those of other trials with the same pictures, where another task asks something else of them.
    """

    def __init__(self, encoder: Encoder, task: Task, pixels: list[Tensor] | None = None, workers: int | None = None):
        self.encoder, self.task, self.zero_shot = encoder, task, NearestText(encoder, task)
        self.pixels = _read(encoder, task, workers) if pixels is None else pixels
        self.truth, self.group = torch.from_numpy(task.truth), torch.from_numpy(task.group)
        self.spurious, self.lure = torch.from_numpy(task.spurious), torch.from_numpy(task.lure)

    def __len__(self) -> int:
        return len(self.task)

    def embeddings(self, variants: Sequence[Variant]) -> Tensor:
        """(variants, N, E), not normalised, on the CPU; the pictures pass once, then what lies behind each edit."""
        parts = []
        for pixels in self.pixels:
            parts.append(Looks(self.encoder, "proj", pixels, variants).values(variants).cpu())
        return torch.cat(parts, dim=1)

    def correct(self, variants: Sequence[Variant]) -> Tensor:
        """(variants, N) bool: which pictures zero-shot classification gets right."""
        return self.zero_shot.predict(self.embeddings(variants)) == self.truth


def trials_of(encoder: Encoder, tasks: dict[str, Task], workers: int | None = None) -> dict[str, Trials]:
    """Trials of several tasks; those that ask about the same pictures read them once."""
    found: dict[str, Trials] = {}
    for name, task in tasks.items():
        same = next((one for one in found.values() if _same_pictures(one.task.images, task.images)), None)
        found[name] = Trials(encoder, task, same and same.pixels, workers)
    return found


def _same_pictures(a: Sequence, b: Sequence) -> bool:
    return a is b or (
        getattr(a, "images", None) is getattr(b, "images", 0) and a.indices.tolist() == b.indices.tolist()
    )


def _read(encoder: Encoder, task: Task, workers: int | None) -> list[Tensor]:
    """The pictures in batches. Raises ValueError for one that cannot be read."""
    batches = [range(i, min(i + BATCH, len(task))) for i in range(0, len(task), BATCH)]
    found = []
    for batch in read_batches(encoder, task.images, batches, workers):
        if batch.unreadable:
            first = batch.unreadable[0]
            raise ValueError(f"{task.name}: picture {first['index']} cannot be read: {first['reason']}")
        found.append(batch.pixels)
    return found


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a dictionary at a site says of the selection pictures.

    codes, attribution: (N, F), mean over the tokens and sum over the tokens; largest: (F,) the code of largest
    magnitude on any token, with its sign; mistaken: (N,) the logit difference that is attributed.
    """

    codes: Tensor
    attribution: Tensor
    largest: Tensor
    mistaken: Tensor


def evidence(part: Part, trials: Trials, dictionaries: dict[str, Sequence[Dictionary]]) -> dict[str, list[Evidence]]:
    """Codes and attributions of all dictionaries at all sites, from one pass forward and one backward a picture.

    The attribution of a feature is gradient times activation of the logit difference by which a picture is mistaken
    (`mistake`): about how far that difference falls when the feature is taken out (ours). Raises ProtocolError for
    other than selection pictures.
    """
    part.only_for("selection")
    found = {site: [[] for _ in some] for site, some in dictionaries.items()}
    start = 0
    for pixels in trials.pixels:
        rows = slice(start, start := start + len(pixels))
        values = trials.encoder.run(pixels.clone().requires_grad_(), [*dictionaries, "proj"])
        wrong = mistake(trials.zero_shot.logits(values["proj"]), trials.truth[rows], trials.lure[rows])
        gradients = torch.autograd.grad(wrong.sum(), [values[site] for site in dictionaries])
        for (site, some), gradient in zip(dictionaries.items(), gradients, strict=True):
            for place, dictionary in zip(found[site], some, strict=True):
                place.append((*_of_batch(dictionary, values[site].detach(), gradient), wrong.detach().cpu()))
    return {site: [_together(parts) for parts in several] for site, several in found.items()}


def mistake(logits: Tensor, truth: Tensor, lure: Tensor) -> Tensor:
    """Logit of the class that a picture is taken for by mistake less that of the true one: (N, C), (N,), (N,) -> (N,).

    That class is the one that the spurious attribute suggests, where it suggests a wrong one, else the nearest other.
    """
    truth, lure = truth.to(logits.device)[:, None], lure.to(logits.device)[:, None]
    others = logits.scatter(1, truth, -torch.inf).amax(1, keepdim=True)
    rival = torch.where((lure >= 0) & (lure != truth), logits.gather(1, lure.clamp_min(0)), others)
    return (rival - logits.gather(1, truth))[:, 0]


@torch.no_grad()
def _of_batch(dictionary: Dictionary, values: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean codes (B, F), attributions (B, F) and the codes of largest magnitude (F,) of values (B, T, d)."""
    decoder = dictionary.W_dec.detach().to(values)
    codes = dictionary.encode(values)  # (B, T, F)
    attribution = (codes * (gradient @ decoder.T)).sum(1)
    most, least = codes.amax((0, 1)), codes.amin((0, 1))
    return codes.mean(1).cpu(), attribution.cpu(), torch.where(most >= -least, most, least).cpu()


def _together(parts: list[tuple[Tensor, ...]]) -> Evidence:
    codes, attribution, extremes, mistaken = (list(column) for column in zip(*parts, strict=True))
    largest = torch.stack(extremes)
    most = largest.abs().argmax(0, keepdim=True)
    return Evidence(torch.cat(codes), torch.cat(attribution), largest.gather(0, most)[0], torch.cat(mistaken))


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


def by_attribution(attribution: Tensor, truth: Tensor, lure: Tensor) -> Tensor:
    """Mean attribution (N, F) over the pictures whose attribute suggests a wrong class: (F,)."""
    misled = (lure >= 0) & (lure != truth)
    return attribution[misled].mean(0)


def greedily(
    attribution: Tensor, mistaken: Tensor, group: Tensor, n_features: int, n_candidates: int = 256
) -> list[int]:
    """Features that raise the worst group's soft accuracy most, one after the other, as attributions foretell it.

    attribution (N, F), mistaken (N,) the logit differences, group (N,). Soft accuracy is sigmoid(-mistaken), and taking
    feature j out lowers `mistaken` by its attribution: first-order, so that no picture passes again. Only the features
    of the largest attributions are tried.
    """
    candidates = attribution.abs().mean(0).topk(min(n_candidates, attribution.shape[1])).indices
    gains = attribution[:, candidates]
    members = [group == g for g in group.unique()]
    chosen: list[int] = []
    for _ in range(min(n_features, len(candidates))):
        right = torch.sigmoid(gains - mistaken[:, None])  # (N, candidates)
        by_group = torch.stack([right[rows].mean(0) for rows in members])
        score = by_group.amin(0) + 0.1 * by_group.mean(0)
        score[chosen] = -torch.inf
        chosen.append(int(score.argmax()))
        mistaken = mistaken - gains[:, chosen[-1]]
    return candidates[chosen].tolist()


def by_steerability(
    part: Part,
    trials: Trials,
    dictionary: Dictionary,
    site: str,
    seen: Evidence,
    n_candidates: int,
    n_pictures: int,
) -> Tensor:
    """How far a feature, clamped at its largest code on all tokens, moves the texts that name the attribute: (F,).

    The score is arXiv 2504.08729's (papers.md 2.5), the squared mean change of probability, summed over those texts
    alone; the vocabulary is the task's classes and these texts. Only the features with the largest mean codes are
    tried; the others have -inf. Raises ProtocolError for other than selection pictures.
    """
    part.only_for("selection")
    texts = F.normalize(trials.encoder.embed_texts(list(trials.task.spurious_texts)), dim=-1)
    vocabulary = torch.cat([trials.zero_shot.prototypes, texts])
    candidates = seen.codes.abs().mean(0).topk(min(n_candidates, seen.codes.shape[1])).indices.tolist()
    variants = [(Intervention(dictionary, site, {j: float(seen.largest[j])}),) for j in candidates]
    spread = torch.linspace(0, len(trials) - 1, n_pictures).long().tolist()
    pixels = torch.cat(trials.pixels)[spread] if n_pictures < len(trials) else torch.cat(trials.pixels)
    steered = Looks(trials.encoder, "proj", pixels, variants).values([(), *variants])
    said = (trials.encoder.logit_scale * F.normalize(steered, dim=-1) @ vocabulary.T).softmax(-1).mean(1)  # (1 + n, C)
    moved = (said[1:] - said[0])[:, -len(texts) :].square().sum(-1)
    scores = torch.full((dictionary.n_features,), -torch.inf)
    scores[candidates] = moved.cpu()
    return scores


RULES = ("difference", "steerability", "attribution", "greedy")


def rankings(
    part: Part,
    trials: Trials,
    dictionary: Dictionary,
    site: str,
    seen: Evidence,
    most: int,
    n_candidates: int = 96,
    n_pictures: int = 4,
) -> dict[str, list[int]]:
    """The features of a dictionary by each of `RULES`, best first; for the last two arguments see `by_steerability`.

    Where all pictures have the spurious attribute, nothing differs by it, and that rule is left out.
    """
    part.only_for("selection")
    varies = len(trials.spurious.unique()) > 1
    scores = {"difference": by_difference(seen.codes, trials.spurious, trials.truth)} if varies else {}
    scores |= {
        "steerability": by_steerability(part, trials, dictionary, site, seen, n_candidates, n_pictures),
        "attribution": by_attribution(seen.attribution, trials.truth, trials.lure),
    }
    greedy = greedily(seen.attribution, seen.mistaken, trials.group, most)
    return {rule: ranked(score, most) for rule, score in scores.items()} | {"greedy": greedy}


def ranked(scores: Tensor, most: int) -> list[int]:
    """The features with the highest scores (F,), best first, at most so many, and none that was not scored."""
    best = scores.topk(min(most, len(scores)))
    return [int(j) for j, value in zip(best.indices, best.values, strict=True) if value > -torch.inf]


@dataclass(frozen=True, eq=False)
class Setting:
    """One way to intervene: some features of a dictionary at a site, at a strength; none: the model as it is."""

    method: str
    site: str
    dictionary: Dictionary
    features: tuple[int, ...]
    strength: float = 1.0

    @property
    def variant(self) -> Variant:
        return suppress(self.dictionary, self.site, self.features, self.strength)

    @property
    def key(self) -> tuple[str, str]:
        """Method and site."""
        return self.method, self.site

    def plan(self) -> dict:
        """What is laid down before the test, as JSON can hold it."""
        return {"method": self.method, "site": self.site, "features": list(self.features), "strength": self.strength}


def numbered(
    method: str, site: str, dictionary: Dictionary, ranking: Sequence[int], counts: Sequence[int]
) -> list[Setting]:
    """The first so many features of a ranking at zero."""
    some = sorted({min(count, len(ranking)) for count in counts if count > 0})
    return [Setting(method, site, dictionary, tuple(ranking[:n])) for n in some]


@dataclass(frozen=True)
class Outcome:
    """What one setting does to a part's pictures: (N,) bool of the task, and (M,) of each task beside it."""

    setting: Setting
    correct: Tensor
    beside: dict[str, Tensor]

    def mean_beside(self, names: Iterable[str]) -> Tensor:
        """Share of the named tasks, on the same pictures, that are right on each of them: (M,) float64."""
        return torch.stack([self.beside[name].double() for name in names]).mean(0)


def outcomes(some: Sequence[Setting], trials: Trials, beside: dict[str, Trials] | None = None) -> list[Outcome]:
    """Zero-shot classification under every setting. Tasks beside that share their pictures share the pass, too."""
    variants = [setting.variant for setting in some]
    own, found, seen = trials.correct(variants), {}, {}
    for name, other in (beside or {}).items():
        pictures = id(other.pixels)
        seen[pictures] = other.embeddings(variants) if pictures not in seen else seen[pictures]
        found[name] = other.zero_shot.predict(seen[pictures]) == other.truth
    return [
        Outcome(setting, own[i], {name: right[i] for name, right in found.items()}) for i, setting in enumerate(some)
    ]


def worst_group(correct: Tensor, group: Tensor) -> float:
    """Least accuracy of a group: (N,), (N,)."""
    return min(float(correct[group == g].double().mean()) for g in group.unique())


def settle(
    part: Part,
    some: Sequence[Setting],
    trials: Trials,
    ordinary: dict[str, Trials],
    most_lost: float,
    strengths: Sequence[float] = (),
) -> tuple[dict[tuple[str, str], Outcome], list[Outcome]]:
    """Number and strength for each method at each site, on validation pictures; and all outcomes that were compared.

    First the number of features, at zero; then, for that number, the strength. What wins has the highest worst-group
    accuracy of all that cost ordinary pictures no more than `most_lost` of their mean accuracy, with the model as it is
    among them; of equals, the one with fewest features. Raises ProtocolError for other than validation pictures.
    """
    part.only_for("validation")
    nothing, *found = outcomes([Setting("nothing", some[0].site, some[0].dictionary, ()), *some], trials, ordinary)

    def winner(candidates: Sequence[Outcome]) -> Outcome:
        least = nothing.mean_beside(ordinary).mean() - most_lost - 1e-9
        allowed = [one for one in candidates if one.mean_beside(ordinary).mean() >= least]
        return max(
            [nothing, *allowed], key=lambda one: (worst_group(one.correct, trials.group), -len(one.setting.features))
        )

    keys = list(dict.fromkeys(one.setting.key for one in found))
    settled = {key: winner([one for one in found if one.setting.key == key]) for key in keys}
    chosen = [one.setting for one in settled.values() if one.setting.features]
    stronger = [replace(setting, strength=strength) for setting in chosen for strength in strengths]
    more = outcomes(stronger, trials, ordinary) if stronger else []
    for key, one in settled.items():
        settled[key] = winner([one, *(other for other in more if other.setting.key == key)])
    return settled, [nothing, *found, *more]


@torch.no_grad()
def every_subset(setting: Setting, trials: Trials) -> Tensor:
    """Embeddings (2**m, N, E) with every subset of a setting's m features at zero; bit i is features[i].

    A feature that is silent on all tokens of a picture changes nothing there, so only subsets of those that speak are
    computed.
    """
    features = setting.features
    found = []
    for pixels in trials.pixels:
        values = trials.encoder.run(pixels, [setting.site])[setting.site]
        spoken = (setting.dictionary.encode(values)[..., list(features)] != 0).any(1).cpu()  # (B, m)
        here = torch.zeros(2 ** len(features), len(pixels), trials.encoder.d_embed)
        for pattern in spoken.unique(dim=0):
            members = (spoken == pattern).all(1).nonzero()[:, 0]
            here[:, members] = _subsets_of(setting, trials, pixels[members], features, pattern)
        found.append(here)
    return torch.cat(found, dim=1)


def _subsets_of(setting: Setting, trials: Trials, pixels: Tensor, features: Sequence[int], pattern: Tensor) -> Tensor:
    """(2**m, n, E) of pictures on which the same features speak."""
    speaking = [i for i, speaks in enumerate(pattern.tolist()) if speaks]
    subsets = [[speaking[k] for k in range(len(speaking)) if number >> k & 1] for number in range(2 ** len(speaking))]
    variants = [suppress(setting.dictionary, setting.site, [features[i] for i in some]) for some in subsets]
    values = Looks(trials.encoder, "proj", pixels, variants).values(variants).cpu()
    place = {sum(1 << i for i in some): k for k, some in enumerate(subsets)}
    mask = sum(1 << i for i in speaking)
    return values[[place[number & mask] for number in range(2 ** len(features))]]


def subset_results(
    setting: Setting, trials: Trials, ordinary: dict[str, Trials], features: Sequence[dict], examples: Sequence[int]
) -> SubsetResults:
    """What a setting's features do in every combination, as `SuppressionPanel` stores it.

    features: `id`, `name` and what else the panel shows of each of the setting's features, 8 at most. ordinary: tasks
    that ask about the same pictures. examples: which of the trials' pictures are shown.
    """
    task, some = trials.task, list(ordinary.values())
    predictions = trials.zero_shot.predict(every_subset(setting, trials))
    usual = every_subset(setting, some[0])
    right = torch.stack([one.zero_shot.predict(usual) == one.truth for one in some]).double().mean((0, 2))
    return SubsetResults(
        task=task.name,
        site=setting.site,
        features=list(features),
        classes=list(task.classes),
        groups=list(task.groups),
        truth=task.truth,
        group=task.group,
        predictions=predictions.numpy(),
        ordinary=right.numpy(),
        examples=list(examples),
        ordinary_count=len(some[0]),
    )
