"""Judges of similarity: the embeddings E under which the Monosemanticity Score calls two pictures alike."""

from collections.abc import Sequence
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from experiments.ground_truth import facts_table, oracle_embeddings
from experiments.markup import as_markdown
from lib.activations.extraction import activations_folder, extract
from lib.encoders.encoder import Encoder, load_encoder
from lib.images.image_set import ImageSet
from storage import folder_name

FACTS = "facts"
"""The judge whose embedding is the known facts of each picture."""


def choose_judges(asked: Sequence[str], encoder: Encoder, images: ImageSet) -> dict[str, str]:
    """The judges of an encoder's features on some pictures: {short name: spec}, the main one first.

    asked: specs as `judge_embeddings` takes them; empty for the default. On the Menagerie that is `tiny-eye`
    and the facts, both independent of the encoder; elsewhere the encoder's own `proj`, and facts or classes where any
    are known. Raises ValueError where there is no judge.
    """
    judges = [judge for judge in asked if judge] or _default_judges(encoder, images)
    names = [short_name(judge) + (" itself" if judge == encoder.spec else "") for judge in judges]
    return dict(zip(names if len(set(names)) == len(set(judges)) else judges, judges, strict=True))


def _default_judges(encoder: Encoder, images: ImageSet) -> list[str]:
    if images.spec.startswith("menagerie:"):
        return ["tiny-eye", FACTS]
    own = [encoder.spec] if "proj" in encoder.sites else []
    known = [FACTS] if oracle_embeddings(facts_table(images)).shape[1] else []
    if not own + known:
        raise ValueError(
            f"no judge of similarity for {images.spec}: {encoder.spec} has no site `proj` and nothing is known about "
            "the pictures; name another encoder as the judge."
        )
    return own + known


def short_name(spec: str) -> str:
    """Short name of an encoder or judge for axes and tables: the last part of its path or hub name."""
    family, _, rest = spec.partition(":")
    if family == "open_clip" and not Path(rest).expanduser().exists():
        return rest  # ARCHITECTURE/PRETRAINED
    return Path(rest or family).name


def describe_judges(judges: dict[str, str], encoder: Encoder) -> str:
    """The judges from `choose_judges` in a sentence, with a warning where the encoder judges itself."""
    main, *others = map(as_markdown, judges)
    text = f"E, the judge of similarity, is **{main}**"
    text += f", and with it {', '.join(others)}." if others else "."
    if next(iter(judges.values())) == encoder.spec:
        text += (
            " It is the encoder under study, by its own joint embedding: what it calls alike, its features are likely"
            " to call alike. For an independent score name another encoder as the judge."
        )
    return text


def judge_embeddings(judge: str, images: ImageSet, root: str | Path) -> Tensor:
    """The judge's embedding of every picture, (N, E) float32, of unit norm unless the judge is `facts`.

    judge: an encoder's spec, whose `proj` is extracted once and kept below `root/judges`; or `facts`, the centred
    one-hot vector of what is known about each picture: its facts, else its taxonomy and class. Raises ValueError where
    `facts` are asked for and nothing is known, or where a picture cannot be read.
    """
    if judge == FACTS:
        return _facts_of(images)
    place = activations_folder(Path(root, "judges", folder_name(judge)), images.spec, "proj")
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
