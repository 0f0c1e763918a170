"""Judges of similarity: the embeddings E under which the Monosemanticity Score calls two pictures alike."""

import re
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from lib.activations import activations_folder, extract
from lib.data import ImageSet
from lib.metrics.ground_truth import facts_table, oracle_embeddings
from lib.models import load_encoder

FACTS = "facts"
"""The judge that sees no pixel and knows what is true of every picture."""


def judge_embeddings(judge: str, images: ImageSet, root: str | Path) -> Tensor:
    """The judge's embedding of every picture, (N, E) float32, of unit norm unless the judge is `facts`.

    judge: an encoder's spec, whose `proj` is extracted once and kept below `root/judges`; or `facts`, the centred
    one-hot vector of what is known about each picture: its facts, else its taxonomy and class. Raises ValueError where
    `facts` are asked for and nothing is known, or where a picture cannot be read.
    """
    if judge == FACTS:
        return _facts_of(images)
    place = activations_folder(Path(root, "judges", re.sub(r"\W+", "-", judge).strip("-")), images.spec, "proj")
    # `proj` is one row a picture whatever the tokens; `mean` is a choice that every encoder has
    store = extract(load_encoder(judge), images, ["proj"], "mean", place, dtype="float32")["proj"]
    return F.normalize(store[:], dim=1)


def _facts_of(images: ImageSet) -> Tensor:
    embeddings = oracle_embeddings(facts_table(images))
    if not embeddings.shape[1]:
        raise ValueError(
            f"nothing is known about {images.spec} that tells two pictures apart: take an encoder as the judge, "
            "or give each class of pictures a sub-folder of its own."
        )
    return embeddings
