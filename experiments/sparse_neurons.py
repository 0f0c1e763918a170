"""Neurons of the embedded CLIP and of its TopK sibling, and SAE features, compared on the same pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from experiments import ground_truth
from experiments.ground_truth import Facts
from experiments.nulls import sparse_directions
from experiments.probing import Pictures
from lib import load_encoder, metrics
from lib.encoders.encoder import Encoder
from lib.images.image_set import ImageSet
from lib.metrics.intervals import Interval
from menagerie.clip.exam import predict, zero_shot_classes
from menagerie.topk_clip.topk_mlp import PooledNeurons, load_topk_clip, pool_neurons, with_topk

SAE_NAME = "SAE of the MLP"
NULLS = {"TopK": "directions as sparse as TopK", SAE_NAME: "directions as sparse as the SAE"}
"""Random directions among the dense neurons, by the units that they are as sparse as."""
Unit = tuple[int, str, str]
"""Block, pooling of the tokens, and name of the model or SAE."""


def neurons_of_siblings(
    model: Encoder, images: ImageSet, layers: Sequence[int]
) -> tuple[dict[str, PooledNeurons], int]:
    """Pooled neurons of the embedded CLIP, of its TopK sibling, and of itself with TopK but not fine-tuned; and k."""
    sparse = load_topk_clip()
    k = sparse.tower.blocks[0].mlp.gelu.k
    siblings = {
        "dense": load_encoder("tiny"),
        "TopK": sparse,
        "TopK, not fine-tuned": with_topk(load_encoder("tiny"), k),
    }
    pixels = model.pixels(images)
    return {name: pool_neurons(sibling, pixels, list(layers)) for name, sibling in siblings.items()}, k


def species_named(model: Encoder, images: ImageSet, siblings: Mapping[str, PooledNeurons]) -> dict[str, np.ndarray]:
    """Which pictures of a single creature are classified correctly: (N,) bool by sibling."""
    single = np.flatnonzero(images.facts["kind"] == "creature")
    truth, species = images.facts["species"].to_numpy()[single], zero_shot_classes(model, "species")
    return {name: predict(found.embeddings, species)[single] == truth for name, found in siblings.items()}


def right_gain(one: np.ndarray, other: np.ndarray, n: int) -> Interval:
    """Accuracy of one minus that of the other, on the same pictures (N,); n: resamples."""
    pairs = torch.from_numpy(np.stack([one, other], axis=1)).double()
    return metrics.bootstrap(lambda x: (x[..., 0] - x[..., 1]).mean(1), pairs, n=n)


def units_of(siblings: Mapping[str, PooledNeurons], features: Mapping[int, Pictures], n: int) -> dict[Unit, Tensor]:
    """Activations (n, H) of all units and `NULLS`; features: those of an SAE by block, of n pictures or more."""
    units = {}
    for layer, pictures in features.items():
        codes = {pooling: torch.from_numpy(x[:n].toarray()) for pooling, x in pictures.codes.items()}
        for pooling, source in ("cls", "cls"), ("max", "largest"):
            units |= {(layer, pooling, name): getattr(found, source)[layer] for name, found in siblings.items()}
            units[layer, pooling, SAE_NAME] = codes[pooling]
            for name, null in NULLS.items():
                like, dense = (units[layer, pooling, of] for of in (name, "dense"))
                units[layer, pooling, null] = sparse_directions(like.relu().to_sparse_csr(), dense).to_dense()
    return units


def unit_scores(x: Tensor, judge: Tensor, facts: Facts) -> tuple[dict[str, float], Tensor, Tensor]:
    """Number of units (N, H) and share alive; scores of live units by the judge (N, E); F1 of their best facts."""
    alive = x.amax(0) > x.amin(0)
    score = metrics.monosemanticity(x[:, alive], judge)
    f1 = ground_truth.of_best_fact(ground_truth.best_f1(x[:, alive], facts, above_chance=True))
    return {"units": x.shape[1], "alive": float(alive.float().mean())}, score, f1


def score_gain(one: Tensor, other: Tensor, n: int) -> Interval:
    """Mean score of some units minus that of others, by an unpaired bootstrap."""
    return metrics.bootstrap(lambda x, y: x.mean(1) - y.mean(1), one, other, n=n)


def interpretability_gains(units: Mapping[str, tuple], n: int) -> tuple[Interval, Interval]:
    """Mean score of TopK neurons minus that of SAE features, and the same of directions as sparse as TopK."""
    scores = {name: found[1] for name, found in units.items()}
    return tuple(score_gain(scores[name], scores[SAE_NAME], n) for name in ("TopK", NULLS["TopK"]))


def unit_row(found: tuple[dict[str, float], Tensor, Tensor], judge: str, n: int) -> dict:
    """A row of the table of units."""
    about, score, f1 = found
    means = {f"MS, E = {judge}": score[~score.isnan()], "F1 with the best fact": f1}
    return about | {name: str(metrics.mean_interval(values, n)) for name, values in means.items()}


def describe_units(units: Mapping[str, tuple], judge: str, n: int) -> list[str]:
    """Whether dense neurons or features are ahead by F1 and by the score, and the F1 of all units, a sentence each."""
    if not units:
        return []
    score, f1 = ({name: found[place] for name, found in units.items()} for place in (1, 2))
    gaps = {mark: score_gain(of["dense"], of[SAE_NAME], n) for mark, of in (("F1", f1), (f"MS, E = {judge}", score))}
    said = [
        f"{'ahead of' if gap.value > 0 else 'behind'} the SAE's features by {mark} ({gap})"
        for mark, gap in gaps.items()
        if math.isfinite(gap.value)
    ]
    lines = [f"Dense neurons are {' and '.join(said)}."] if said else []
    if math.isfinite(gaps["F1"].value):
        told = "; ".join(f"{name} {metrics.mean_interval(values, n)}" for name, values in f1.items())
        left = score_gain(f1[SAE_NAME], f1[NULLS[SAE_NAME]], n)
        lines += [
            f"F1 with the best fact, mean over live units: {told}.",
            f"In F1 features are above random directions as sparse by {left}.",
        ]
    return lines
