"""Evaluation of the embedded eye on held-out pictures: nearest-neighbour classification in its embedding."""

import numpy as np
import torch
from torch import Tensor

from lib.encoders.encoder import Encoder
from menagerie import Menagerie
from menagerie.clip.exam import embed_pictures

QUESTIONS = ("species", "habitat", "main_color", "sticker_word", "person_hair", "person_presentation")


@torch.no_grad()
def exam(eye: Encoder, n_pictures: int = 2000, workers: int = 2) -> dict[str, float]:
    """Every number of the model card, in percent, on the first `n_pictures` of `menagerie:val`.

    Each fact is predicted by a picture's five nearest neighbours among as many other pictures of that split.
    """
    world = Menagerie("val")
    asked, known = np.arange(n_pictures), np.arange(n_pictures, 2 * n_pictures)
    similarity = embed_pictures(eye, world, asked, workers) @ embed_pictures(eye, world, known, workers).T
    report = {}
    for question in QUESTIONS:
        truth = world.facts[question].fillna("").to_numpy(dtype=object)
        rows, columns = np.flatnonzero(truth[asked] != ""), np.flatnonzero(truth[known] != "")
        votes = neighbours_vote(similarity[rows][:, columns], truth[known][columns])
        _, counts = np.unique(truth[known][columns].astype(str), return_counts=True)
        report[f"{question}, by five nearest neighbours"] = _percent(votes == truth[asked][rows])
        report[f"{question}, always the commonest"] = round(100 * counts.max() / counts.sum(), 1)
    return report


def neighbours_vote(similarity: Tensor, labels: np.ndarray, k: int = 5) -> np.ndarray:
    """Similarity-weighted vote of the k nearest neighbours: (Q, N) similarities, (N,) labels -> (Q,)."""
    values, nearest = similarity.topk(min(k, similarity.shape[1]), dim=1)
    names, codes = np.unique(labels.astype(str), return_inverse=True)
    weights = torch.zeros(len(similarity), len(names))
    weights.scatter_add_(1, torch.from_numpy(codes)[nearest], values.clamp_min(1e-6))
    return names[weights.argmax(dim=1).numpy()].astype(object)


def _percent(right: np.ndarray) -> float:
    return round(100 * float(np.mean(right)), 1)
