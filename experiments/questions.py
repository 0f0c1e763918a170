"""Classification questions about pictures for encoders with and without a text tower."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from experiments.splicing import spliced_embeddings
from experiments.vocabulary import readable_name
from lib.devices import to_cpu
from lib.encoders.encoder import Encoder
from lib.images.image_set import ImageSet, class_words

PER_CLASS = 20  # training pictures of a class mean
CLIP_SCALE = 100.0  # the largest that CLIP's own logit scale may become (arXiv 2103.00020, section 2.5)


@dataclass(frozen=True)
class Question:
    """N pictures, the right one of C answers for each, and unit-norm embeddings of the answers (C, E).

    bare: embeddings (C, E) without template; scale: of cosines in the softmax; name: of the question, for titles;
    description: the question in a sentence.
    """

    images: ImageSet
    truth: np.ndarray  # (N,) int64
    answers: Tensor
    bare: Tensor
    scale: float
    name: str
    description: str


def class_question(
    encoder: Encoder, images: ImageSet, train: ImageSet, template: str, n: int | None = None, seed: int = 0
) -> Question:
    """Which class does a picture show? By texts where the encoder has a text tower, else by means of training pictures.

    About all pictures with a class, or n of them drawn by the seed. Without classes common to both sets, the question
    is which of the pictures it is, and the answer its own embedding. Raises ValueError without pictures,
    and for two classes of one name.
    """
    names, labels = images.class_names, images.labels
    known = np.flatnonzero(labels >= 0) if labels is not None else np.arange(len(images))
    if not len(known):
        raise ValueError(f"no picture of {images.spec} has a class, so there is nothing to ask about any of them.")
    chosen = images.subset(known) if n is None else images.subset(known).sample(n, seed)
    if names is None:
        return _which_picture(encoder, chosen)
    names = [readable_name(word) for word in class_words(names)]
    if not encoder.has_texts:
        return _nearest_mean(encoder, chosen, train) or _which_picture(encoder, chosen)
    texts, bare = (to_cpu(encoder.embed_texts([form.format(name) for name in names])) for form in (template, "{}"))
    description = f"Zero-shot: which of {len(names)} classes, each said as a text?"
    return Question(chosen, chosen.labels, texts, bare, encoder.logit_scale, "zero-shot class", description)


def _nearest_mean(encoder: Encoder, images: ImageSet, train: ImageSet) -> Question | None:
    """The question by class means; None where some class has no training picture."""
    names, shared = images.class_names, train.class_names or ()
    if train.labels is None or not set(names) <= {
        shared[label] for label in np.unique(train.labels[train.labels >= 0])
    }:
        return None
    drawn = train.subset(np.flatnonzero(np.isin(train.labels, [shared.index(name) for name in names])))
    drawn = drawn.sample(PER_CLASS * len(names))
    embeddings = spliced_embeddings(encoder, drawn, {"clean": ()}, progress=False)["clean"]
    means = torch.stack([embeddings[torch.from_numpy(drawn.labels == shared.index(name))].mean(0) for name in names])
    description = (
        f"This encoder reads no texts, so a class is the mean embedding of up to {PER_CLASS} training pictures: which "
        f"of {len(names)} means lies nearest? The logit scale is CLIP's largest, {CLIP_SCALE:g}."
    )
    means = normalize(means, dim=1)
    return Question(images, images.labels, means, means, CLIP_SCALE, "nearest class mean", description)


def _which_picture(encoder: Encoder, images: ImageSet) -> Question:
    own = spliced_embeddings(encoder, images, {"clean": ()}, progress=False)["clean"]
    description = (
        f"No classes are known of these pictures, so the question is which of the {len(images):,} a picture is: its "
        f"own embedding, untouched, is the answer. The logit scale is CLIP's largest, {CLIP_SCALE:g}."
    )
    return Question(images, np.arange(len(images)), own, own, CLIP_SCALE, "the picture itself", description)
