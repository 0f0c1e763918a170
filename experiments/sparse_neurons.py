"""Neurons of the embedded CLIP and of its sibling with sparse neurons, and features of an SAE, on the same pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from experiments import ground_truth
from experiments.ground_truth import Facts
from experiments.probing import Pictures
from lib import load_encoder, metrics
from lib.encoders.encoder import Encoder
from lib.images.image_set import ImageSet
from lib.metrics.intervals import Interval
from menagerie.clip.exam import predict, zero_shot_classes
from menagerie.topk_clip.topk_mlp import Survey, load_topk_clip, survey, with_topk

SAE_NAME = "SAE of the MLP"
Unit = tuple[int, str, str]
"""A block, a pooling of the tokens, and whose units they are."""


def surveys_of_siblings(model: Encoder, images: ImageSet, layers: Sequence[int]) -> tuple[dict[str, Survey], int]:
    """The embedded CLIP, its sibling with TopK neurons, and itself with TopK but not fine-tuned; and the k of TopK."""
    sparse = load_topk_clip()
    k = sparse.tower.blocks[0].mlp.gelu.k
    siblings = {
        "dense": load_encoder("tiny"),
        "TopK": sparse,
        "TopK, not fine-tuned": with_topk(load_encoder("tiny"), k),
    }
    pixels = model.pixels(images)
    return {name: survey(sibling, pixels, list(layers)) for name, sibling in siblings.items()}, k


def species_named(model: Encoder, images: ImageSet, surveys: Mapping[str, Survey]) -> dict[str, np.ndarray]:
    """By sibling, which pictures of a single creature are named right: (N,) bool."""
    single = np.flatnonzero(images.facts["kind"] == "creature")
    truth, species = images.facts["species"].to_numpy()[single], zero_shot_classes(model, "species")
    return {name: predict(found.embeddings, species)[single] == truth for name, found in surveys.items()}


def right_gain(one: np.ndarray, other: np.ndarray, n: int) -> Interval:
    """How much more often one is right than another, on the same pictures (N,)."""
    pairs = torch.from_numpy(np.stack([one, other], axis=1)).double()
    return metrics.bootstrap(lambda x: (x[..., 0] - x[..., 1]).mean(1), pairs, n=n)


def units_of(surveys: Mapping[str, Survey], features: Mapping[int, Pictures], n: int) -> dict[Unit, Tensor]:
    """Activations (n, H) of all units; features: those of an SAE by block, of n pictures or more."""
    units = {}
    for layer, pictures in features.items():
        codes = {pooling: torch.from_numpy(x[:n].toarray()) for pooling, x in pictures.codes.items()}
        for pooling, source in ("cls", "cls"), ("max", "largest"):
            units |= {(layer, pooling, name): getattr(found, source)[layer] for name, found in surveys.items()}
            units[layer, pooling, SAE_NAME] = codes[pooling]
    return units


def worth(x: Tensor, judge: Tensor, facts: Facts) -> tuple[dict[str, float], Tensor, Tensor]:
    """Of units (N, H): how many, what share is alive; of the living, scores under the judge and best facts' F1."""
    alive = x.amax(0) > x.amin(0)
    score = metrics.monosemanticity(x[:, alive], judge)
    f1 = ground_truth.of_best_fact(ground_truth.best_f1(x[:, alive], facts, above_chance=True))
    return {"units": x.shape[1], "alive": float(alive.float().mean())}, score, f1


def score_gain(one: Tensor, other: Tensor, n: int) -> Interval:
    """Mean score of some units less that of others, drawn independently."""
    return metrics.bootstrap(lambda x, y: x.mean(1) - y.mean(1), one, other, n=n)


def worth_row(found: tuple[dict[str, float], Tensor, Tensor], judge: str, n: int) -> dict:
    """A row of the table of units."""
    about, score, f1 = found
    means = {f"MS, E = {judge}": score[~score.isnan()], "F1 with the best fact": f1}
    return about | {name: str(metrics.mean_interval(values, n)) for name, values in means.items()}
