"""What an encoder is asked about pictures so that an answer can be right or wrong, with a text tower or without."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from experiments.splicing import spliced_embeddings
from experiments.vocabulary import spoken
from lib.devices import to_cpu
from lib.encoders.encoder import Encoder
from lib.images.image_set import ImageSet, class_words

PER_CLASS = 20  # training pictures behind a class's mean
CLIP_SCALE = 100.0  # the largest that CLIP's own logit scale may become (arXiv 2103.00020, section 2.5)


@dataclass(frozen=True)
class Question:
    """N pictures, the right one of C answers to each, and the answers as embeddings (C, E) of unit norm.

    bare: the answers in their shortest form; scale: what cosines are multiplied with before the softmax; name: what
    the answers are, for titles; told: the same in a sentence.
    """

    images: ImageSet
    truth: np.ndarray  # (N,) int64
    answers: Tensor
    bare: Tensor
    scale: float
    name: str
    told: str


def class_question(
    encoder: Encoder, images: ImageSet, train: ImageSet, template: str, n: int | None = None, seed: int = 0
) -> Question:
    """Which class does a picture show? By texts where the encoder reads any, else by the means of training pictures.

    Asked about all pictures that have a class, or n of them drawn by the seed. Without classes that both sets share, a
    picture is asked which of the pictures it is: its answer is its own embedding. Raises ValueError without pictures,
    and for two classes of one name.
    """
    names, labels = images.class_names, images.labels
    known = np.flatnonzero(labels >= 0) if labels is not None else np.arange(len(images))
    if not len(known):
        raise ValueError(f"no picture of {images.spec} has a class, so there is nothing to ask about any of them.")
    chosen = images.subset(known) if n is None else images.subset(known).sample(n, seed)
    if names is None:
        return _which_picture(encoder, chosen)
    names = [spoken(word) for word in class_words(names)]
    if not encoder.has_texts:
        return _nearest_mean(encoder, chosen, train) or _which_picture(encoder, chosen)
    texts, bare = (to_cpu(encoder.embed_texts([form.format(name) for name in names])) for form in (template, "{}"))
    told = f"Zero-shot: which of {len(names)} classes, each said as a text?"
    return Question(chosen, chosen.labels, texts, bare, encoder.logit_scale, "zero-shot class", told)


def _nearest_mean(encoder: Encoder, images: ImageSet, train: ImageSet) -> Question | None:
    """None where some class has no training picture."""
    names, shared = images.class_names, train.class_names or ()
    if train.labels is None or not set(names) <= {
        shared[label] for label in np.unique(train.labels[train.labels >= 0])
    }:
        return None
    drawn = train.subset(np.flatnonzero(np.isin(train.labels, [shared.index(name) for name in names])))
    drawn = drawn.sample(PER_CLASS * len(names))
    embeddings = spliced_embeddings(encoder, drawn, {"clean": ()}, progress=False)["clean"]
    means = torch.stack([embeddings[torch.from_numpy(drawn.labels == shared.index(name))].mean(0) for name in names])
    told = (
        f"This encoder reads no texts, so a class is the mean embedding of up to {PER_CLASS} training pictures: which "
        f"of {len(names)} means lies nearest? The logit scale is CLIP's largest, {CLIP_SCALE:g}."
    )
    means = normalize(means, dim=1)
    return Question(images, images.labels, means, means, CLIP_SCALE, "nearest class mean", told)


def _which_picture(encoder: Encoder, images: ImageSet) -> Question:
    own = spliced_embeddings(encoder, images, {"clean": ()}, progress=False)["clean"]
    told = (
        f"No classes are known of these pictures, so the question is which of the {len(images):,} a picture is: its "
        f"own embedding, untouched, is the answer. The logit scale is CLIP's largest, {CLIP_SCALE:g}."
    )
    return Question(images, np.arange(len(images)), own, own, CLIP_SCALE, "the picture itself", told)
