"""Share of the accuracy lost by zeroing a site that each dictionary's reconstruction recovers."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from experiments.questions import Question
from experiments.splicing import reconstruction_at, spliced_embeddings, zero_at
from lib import SAE, metrics
from lib.encoders.encoder import Encoder


@dataclass(frozen=True)
class RecoveredAccuracy:
    """Accuracies without intervention, with zeros, and with each reconstruction; tokens: those replaced."""

    clean: float
    zero: float
    spliced: Mapping[Hashable, float]
    tokens: str
    asked: Question

    @classmethod
    def of(
        cls, model: Encoder, saes: Mapping[Hashable, SAE], site: str, tokens: str, asked: Question
    ) -> RecoveredAccuracy:
        """Of dictionaries that read these tokens at the site; reconstructions of a mean replace every token."""
        where = tokens if tokens in ("cls", "spatial") else "all"
        splices = {("spliced", name): (reconstruction_at(site, sae, where),) for name, sae in saes.items()}
        splices |= {"clean": (), "zero": (zero_at(site, model.width(site), where),)}
        embeddings = spliced_embeddings(model, asked.images, splices, progress=False)
        right = {
            name: float(metrics.zero_shot(e, asked.answers, asked.truth, asked.scale).correct.mean())
            for name, e in embeddings.items()
        }
        return cls(right["clean"], right["zero"], {name: right["spliced", name] for name in saes}, where, asked)

    @property
    def cost(self) -> float:
        """Accuracy lost by zeroing the tokens."""
        return self.clean - self.zero

    @property
    def back(self) -> dict[Hashable, float]:
        """Share of the lost accuracy that each dictionary recovers; NaN where zeroing costs nothing."""
        costs = self.cost > 0
        return {
            name: (right - self.zero) / self.cost if costs else float("nan") for name, right in self.spliced.items()
        }

    @property
    def description(self) -> str:
        """The accuracies without dictionaries, in a sentence."""
        pictures = f"{self.asked.name}, {len(self.asked.truth):,} pictures"
        rest = "" if self.cost > 0 else ": zeroing costs nothing, so there is nothing to recover"
        return f"{pictures}: {self.clean:.1%} right; with {self.tokens} tokens zeroed {self.zero:.1%}{rest}"
