"""Steerability of SAE features, neurons, random directions and an untrained SAE compared (arXiv 2504.08729)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from experiments import steerability
from experiments.markup import as_markdown
from experiments.steerability import Steerability
from experiments.sweep import clamps, measure_steerability
from lib import SAE, metrics
from lib.devices import to_cpu
from lib.encoders.encoder import Encoder
from lib.metrics.intervals import Interval
from steering.interventions import Dictionary, Directions, Intervention, Neurons

KINDS = ("SAE features", "neurons", "random directions", "untrained SAE")


@dataclass(frozen=True)
class ComparisonSettings:
    """Settings of a comparison. threshold: a push with a higher score is steerable; n_last, n_elsewhere: most pushes of
    each kind at the last site and at the others; seed: of random draws; n: resamples of an interval."""

    threshold: float = 0.1
    n_last: int = 1000
    n_elsewhere: int = 1000
    seed: int = 0
    n: int = 2000


@dataclass(frozen=True, eq=False)
class PushComparison:
    """Pushes, interventions that clamp one feature each, by all `KINDS` on the same P pictures.

    saes: by site, the last one studied in detail; pixels: (P, 3, H, W); words: (C, E), embeddings of `vocab`.
    """

    model: Encoder
    saes: Mapping[str, SAE]
    pixels: Tensor
    vocab: Sequence[str]
    words: Tensor
    settings: ComparisonSettings
    _measured: dict[tuple, Steerability] = field(default_factory=dict)
    _alone: dict[tuple, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @property
    def last(self) -> str:
        return list(self.saes)[-1]

    def dictionary(self, site: str, what: str) -> Dictionary:
        """The dictionary of a kind at a site; all have unit vectors."""
        sae, width = self.saes[site], self.model.width(site)
        if what == "random directions":
            generator = torch.Generator().manual_seed(self.settings.seed)
            return Directions(torch.randn(sae.n_features, width, generator=generator))
        if what == "untrained SAE":
            return SAE(sae.config, width)
        return sae if what == "SAE features" else Neurons(width)

    def some(self, site: str, what: str) -> Tensor:
        """Features that are pushed: a sorted random subset where there are more than the settings allow."""
        n_features = {"neurons": self.model.width(site)}.get(what, self.saes[site].n_features)
        order = torch.randperm(n_features, generator=torch.Generator().manual_seed(self.settings.seed))
        return order[: self.settings.n_last if site == self.last else self.settings.n_elsewhere].sort().values

    def pushes(self, site: str, what: str, value: float, **settings) -> list[tuple[Intervention]]:
        """One clamp at the value for each of `some`."""
        features = self.some(site, what)
        return clamps(self.dictionary(site, what), site, features, [value] * len(features), **settings)

    def steer(self, pushes: Sequence, pixels: Tensor | None = None) -> Steerability:
        """Steerability of pushes on pictures (P, 3, H, W), by default all of them."""
        pixels = self.pixels if pixels is None else pixels
        return measure_steerability(self.model, pixels, pushes, self.words, progress=False)

    def measured(self, site: str, what: str, value: float) -> Steerability:
        """Steerability of a kind's pushes at a site and strength, computed once."""
        key = site, what, value
        if key not in self._measured:
            self._measured[key] = self.steer(self.pushes(*key))
        return self._measured[key]

    def covered(self, found: Steerability) -> set[str]:
        """Words of the vocabulary that some steerable push moves pictures to."""
        numbers = steerability.coverage(found.concept, found.score, self.settings.threshold)
        return {self.vocab[c] for c in numbers.tolist()}

    def coverage_of(self, found: Steerability, sizes: Sequence[int]) -> Tensor:
        """Expected coverage of random subsets of the pushes: (sizes,)."""
        return steerability.expected_coverage(found.concept, found.score, list(sizes), self.settings.threshold)

    def share(self, found: Steerability) -> float:
        """Share of the pushes that are steerable."""
        return float(found.steerable(self.settings.threshold).double().mean())

    def at(self, what: str, value: float) -> dict[str, float]:
        """A row of the sweep over strengths."""
        m = self.measured(self.last, what, value)
        by_picture = float((m.score_by_picture > self.settings.threshold).double().mean())
        row = {"steerable (S)": self.share(m), "steerable (S′)": by_picture, "coverage": len(self.covered(m))}
        return row | {"precision": float(m.precision.nanmean())}

    def own_scale(self, what: str, times: float, sample: Tensor) -> dict[str, float]:
        """Clamps at multiples of each feature's largest code on rows (n, d); dead features are left out."""
        features, dictionary = self.some(self.last, what), self.dictionary(self.last, what)
        with torch.no_grad():
            codes = [to_cpu(dictionary.encode(x))[:, features] for x in sample.split(2000)]
        live = (peaks := torch.cat(codes).amax(0)) > 0
        pushes = clamps(dictionary, self.last, features[live], times * peaks[live])
        m = self.steer(pushes)
        row = {"pushes": len(pushes), "median s": times * float(peaks[live].median())}
        return row | {"steerable": self.share(m), "coverage": len(self.covered(m))}

    @property
    def few(self) -> int:
        """The number of pushes that all kinds have, for coverage at equal numbers."""
        return min(self.model.d_model, *(len(self.some(self.last, what)) for what in KINDS))

    def table_row(self, what: str, value: float) -> dict:
        """A row of the table at one strength."""
        m = self.measured(self.last, what, value)
        steerable = m.steerable(self.settings.threshold).double()
        return {
            "pushes": len(m.score),
            "steerable": metrics.mean_interval(steerable, self.settings.n),
            "coverage": len(self.covered(m)),
            f"coverage of {self.few}": float(self.coverage_of(m, [self.few])[0]),
            "power": float(m.power.mean()),
            "S": float(m.score.mean()),
            "S'": float(m.score_by_picture.mean()),
            "ratio": float(m.ratio.nanmean()),
            "precision": float(m.precision.nanmean()),
        }

    def picture_by_picture(self, what: str, value: float) -> tuple[Tensor, Tensor]:
        """Concept probabilities of each picture before a push (P, C), and their change by each push (P, F, C)."""
        if (what, value) not in self._alone:
            pushes = self.pushes(self.last, what, value)
            alone = [self.steer(pushes, picture[None]).change for picture in self.pixels]
            with torch.no_grad():
                embeddings = self.model.embed_images(self.pixels)
                before = steerability.concept_probabilities(embeddings, self.words, self.model.logit_scale)
            self._alone[what, value] = before, torch.stack(alone)
        return self._alone[what, value]

    def count(self, what: str, value: float, pictures: Tensor, few: int | None = None) -> float:
        """Concepts covered on a subset of pictures, by all pushes or expected for `few` of them."""
        before, change = (values[pictures].mean(0) for values in self.picture_by_picture(what, value))
        concepts, scores = (before + change).argmax(1), change.square().sum(1)
        if few is None:
            return len(steerability.coverage(concepts, scores, self.settings.threshold))
        return float(steerability.expected_coverage(concepts, scores, [few], self.settings.threshold)[0])

    def times_as_many(self, value: float, few: int | None = None) -> Interval:
        """Number of concepts that features cover over the number that neurons cover."""
        return ratio_of_counts(
            lambda what, pictures: self.count(what, value, pictures, few), len(self.pixels), *KINDS[:2]
        )

    def count_gap(self, value: float, what: str = KINDS[0]) -> Interval:
        """Number of steerable features (or pushes of another kind) minus steerable neurons, for whole dictionaries."""
        both = [self.measured(self.last, pushed, value) for pushed in (what, KINDS[1])]
        able = [found.steerable(self.settings.threshold).double() for found in both]
        n_features, n_neurons = self.saes[self.last].n_features, self.model.d_model
        return metrics.bootstrap(lambda a, b: n_features * a.mean(1) - n_neurons * b.mean(1), *able, n=self.settings.n)

    def at_site(self, site: str, what: str, value: float, name: str) -> dict:
        """A row of the table of layers."""
        m = self.measured(site, what, value)
        few = min(self.settings.n_elsewhere, len(self.some(site, what)))
        row = {"site": site, "pushed": what, "strength": name, "steerable": self.share(m)}
        return row | {"coverage": float(self.coverage_of(m, [few])[0])}

    def only_by_features(self, value: float) -> tuple[set[str], int, str]:
        """Concepts covered by steerable features only, the number of these features, and the result as text."""
        m, n = (self.measured(self.last, what, value) for what in KINDS[:2])
        only, missing = self.covered(m) - self.covered(n), sorted(self.covered(n) - self.covered(m))
        steerable = m.steerable(self.settings.threshold)
        carriers = torch.tensor([self.vocab[c] in only for c in m.concept.tolist()]) & steerable
        best = {word: float(m.score[carriers & (m.concept == self.vocab.index(word))].max()) for word in only}
        shown, count = sorted(best, key=best.get, reverse=True), int(carriers.sum())
        return (
            only,
            count,
            (
                f"**{count}** steerable features steer to **{len(only)}** concepts that no steerable neuron steers to; "
                f"the strongest: {', '.join(map(as_markdown, shown[:12]))}. The other way round: "
                f"{', '.join(map(as_markdown, missing)) or 'none'}."
            ),
        )

    def patchwise(
        self, push: Intervention, concept: int, counts: Sequence[int]
    ) -> dict[str, Tensor | dict[str, float]]:
        """Rise of a concept when random sets of patches, single patches, and groups of tokens are pushed."""
        grid = self.model.grid
        order = torch.randperm(grid[0] * grid[1], generator=torch.Generator().manual_seed(self.settings.seed))
        masks = [torch.zeros(len(order)).index_fill(0, order[:count], 1).view(grid) for count in counts]
        singles = torch.eye(len(order)).view(-1, *grid)
        groups = {"all patches": "spatial", "CLS alone": "cls", "all tokens": "all"}
        groups = {name: kind for name, kind in groups.items() if kind == "all" or kind in self.model.token_kinds}
        variants = [(replace(push, tokens=chosen),) for chosen in (*masks, *singles, *groups.values())]
        parts = self.steer(variants).change[:, concept].split([len(masks), len(singles), len(groups)])
        return {"some": parts[0], "each": parts[1], "groups": dict(zip(groups, parts[2].tolist(), strict=True))}


def ratio_of_counts(count: Callable[[str, Tensor], float], n_pictures: int, one: str, other: str) -> Interval:
    """Ratio of two counts, with a jackknife interval over pictures on the logarithm; NaN where a count is zero."""

    def log_ratio(pictures: Tensor) -> float:
        ours, theirs = (count(what, pictures) for what in (one, other))
        return np.log(ours / theirs) if ours and theirs else float("nan")

    each = torch.arange(n_pictures)
    without = torch.tensor([log_ratio(each[each != left]) for left in each], dtype=torch.double)
    if not without.isfinite().all():  # one of them covers nothing
        return Interval(*3 * [float("nan")])
    return Interval(*np.exp(metrics.jackknife_interval(log_ratio(each), without)).tolist())


def describe_patches(found: Mapping, counts: Sequence[int]) -> str:
    """The number of patches needed, as text; found: of `PushComparison.patchwise`."""
    most_of_all, each = max(found["groups"].values()), found["each"]
    half = [count for count, value in zip(counts, found["some"], strict=True) if value > most_of_all / 2]
    reached = f"reached with {half[0]} patches" if half else "not reached with any number of patches that was tried"
    mean, most = float(each.mean()), float(each.max())
    return f"Half of the largest is {reached}; one patch brings {mean:+.3f} on average, {most:+.3f} at most."
