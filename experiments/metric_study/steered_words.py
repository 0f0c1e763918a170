"""The steering score of LLaVA (arXiv 2504.02821, 4.4) as a metric of dictionaries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from experiments.steering_scores import feature_embeddings, steering_score
from experiments.word_scores import WordScorer
from lib import SAE, load_llava
from lib.encoders.encoder import Encoder, Site
from lib.features.one_pass import top_images
from lib.sae.origin import Origin
from steering.interventions import Intervention
from steering.llava import Llava

LEVEL, GAIN = "steering score", "steering gain"


@dataclass(frozen=True, eq=False)
class SteeredWords:
    """What LLaVA is asked: its scorer, whose pictures are those of the study; the pictures it sees; the push.

    features: of each dictionary that are pushed; strength: in units of the median of the live features' largest codes.
    """

    scorer: WordScorer
    images: Sequence[Image.Image]
    site: str
    features: int
    strength: float


def scorer_of(llava: str, encoder: Encoder, own: Tensor, prompt: str, site: str) -> WordScorer | None:
    """A scorer of LLaVA's first words by the encoder itself; own: (N, E) embeddings of the study's pictures by it.

    None without a LLaVA, for one that looks through another encoder, and for a site behind the one that it reads.
    """
    model = load_llava(llava) if llava else None
    if model is None or not looks_through(model, encoder) or Site.parse(site).layer > Site.parse(model.site).layer:
        return None
    return WordScorer(model, encoder, own, prompt, max_new_tokens=5)


def looks_through(llava: Llava, encoder: Encoder) -> bool:
    """Whether the image tower of a LLaVA has the weights of an encoder."""
    if not encoder.mlp_norms:
        return False
    try:
        Origin(encoder=encoder.spec, mlp_norms=encoder.mlp_norms).check(llava.vision, llava.site)
    except ValueError:
        return False
    return True


@torch.no_grad()
def word_scores(sae: SAE, codes: Tensor, how: SteeredWords) -> dict[str, float]:
    """Mean score of the answers with one live feature clamped, and how far it lies above that of unsteered answers.

    codes: (N, P, F) of the study's pictures, by which features are chosen, evenly spaced, and told by their top ones.
    As published, all patches have the feature at one strength, and the reconstruction takes their place.
    """
    peak = codes.flatten(0, 1).amax(0)
    chosen = evenly_spaced((peak > 0).nonzero().squeeze(1), how.features)
    if not len(chosen):
        return dict.fromkeys((LEVEL, GAIN), float("nan"))
    value = how.strength * float(peak[peak > 0].median())
    pushes = [
        Intervention(sae, how.site, {j: value}, mode="clamp", tokens="spatial", keep_error=False)
        for j in chosen.tolist()
    ]
    tops = top_images(codes.amax(1)[:, chosen])[0]
    meaning = feature_embeddings(tops, how.scorer.pictures)
    answers = how.scorer.answers(how.images, [None, *pushes])  # (n, 1 + features, E)
    level = steering_score(answers[:, 1:], meaning)
    return {LEVEL: float(level.mean()), GAIN: float((level - steering_score(answers[:, :1], meaning)).mean())}


def evenly_spaced(alive: Tensor, n: int) -> Tensor:
    """At most n of the live features, from the first to the last."""
    return alive[torch.linspace(0, len(alive) - 1, min(n, len(alive))).round().long()]
