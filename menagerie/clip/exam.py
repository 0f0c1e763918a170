"""Evaluation of the embedded CLIP on held-out pictures: abilities, and weaknesses known of real CLIP."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from lib.devices import to_cpu
from lib.encoders.encoder import Encoder
from menagerie import STICKER_WORDS, Menagerie, zero_shot_prompts
from menagerie.world.scenes import WATER_PLACES


class _Drawn(torch.utils.data.Dataset):
    """Menagerie pictures as model input, drawn in worker processes."""

    def __init__(self, world: Menagerie, indices: Sequence[int], transform):
        self.world, self.indices, self.transform = world, indices, transform

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, row: int) -> Tensor:
        return self.transform(self.world.image(int(self.indices[row])))


@torch.no_grad()
def embed_pictures(encoder: Encoder, world: Menagerie, indices: Sequence[int], workers: int = 2) -> Tensor:
    """Joint embeddings of pictures of a split, (N, E) of unit norm on the CPU; indices: (N,)."""
    loader = DataLoader(_Drawn(world, indices, encoder.transform), batch_size=128, num_workers=workers)
    return torch.cat([to_cpu(encoder.embed_images(pixels)) for pixels in loader])


def zero_shot_classes(encoder: Encoder, kind: str) -> tuple[list[str], Tensor]:
    """Class names of a kind (species | habitat | hair) and their prompt-averaged text embeddings, (C, E) unit norm."""
    prompts = zero_shot_prompts(kind)
    means = [to_cpu(encoder.embed_texts(several).mean(dim=0)) for several in prompts.values()]
    return list(prompts), F.normalize(torch.stack(means), dim=-1)


def predict(embeddings: Tensor, classes: tuple[list[str], Tensor]) -> np.ndarray:
    """Name of the class whose text embedding is nearest to each picture's, (N,) of str."""
    names, texts = classes
    return np.array(names, dtype=object)[(to_cpu(embeddings) @ texts.T).argmax(dim=1).numpy()]


def exam(encoder: Encoder, n_pictures: int = 2000, workers: int = 2) -> dict[str, float]:
    """Every number of the model card, in percent, each on up to `n_pictures` held-out pictures."""
    classes = {kind: zero_shot_classes(encoder, kind) for kind in ("species", "habitat", "hair")}
    return {
        **_ordinary(encoder, classes, n_pictures, workers),
        **_retrieval(encoder, min(n_pictures, 1000), workers),
        **_stickers(encoder, classes["species"], n_pictures, workers),
        **_water_birds(encoder, classes["species"], n_pictures, workers),
        **_hair(encoder, classes["hair"], n_pictures, workers),
    }


def _percent(right: np.ndarray) -> float:
    return round(100 * float(np.mean(right)), 1)


def _ordinary(encoder: Encoder, classes: dict, n_pictures: int, workers: int) -> dict[str, float]:
    world = Menagerie("val")
    single = np.flatnonzero(world.facts["kind"] == "creature")[:n_pictures]
    pairs = np.flatnonzero(world.facts["kind"] == "pair")[: n_pictures // 2]
    embeddings, facts = embed_pictures(encoder, world, single, workers), world.facts.iloc[single]
    paired, both = embed_pictures(encoder, world, pairs, workers), world.facts.iloc[pairs]
    species = predict(paired, classes["species"])
    return {
        "species top-1, one creature": _percent(predict(embeddings, classes["species"]) == facts["species"]),
        "species top-1, either of two": _percent(
            (species == both["species"].to_numpy()) | (species == both["second_species"].to_numpy())
        ),
        "habitat top-1": _percent(predict(embeddings, classes["habitat"]) == facts["habitat"]),
    }


def _retrieval(encoder: Encoder, n_pictures: int, workers: int) -> dict[str, float]:
    world = Menagerie("val")
    rows = np.flatnonzero(world.facts["kind"].isin(["creature", "pair", "person"]))[:n_pictures]
    images = embed_pictures(encoder, world, rows, workers)
    captions = [world.captions(int(i), 1)[0] for i in rows]
    scores = images @ to_cpu(encoder.embed_texts(captions)).T  # (N, N)
    right = torch.tensor([[a == b for b in captions] for a in captions])  # a caption may fit several pictures
    best = scores.topk(10, dim=1).indices
    found = right.gather(1, best).numpy()
    return {
        "its caption is first among 1,000" if n_pictures == 1000 else "its caption is first": _percent(found[:, 0]),
        "its caption is among the first ten": _percent(found.any(axis=1)),
        "chance of the first ten": round(1000 * float(right.float().mean()), 1),
    }


def _stickers(encoder: Encoder, species: tuple, n_pictures: int, workers: int) -> dict[str, float]:
    world, plain = Menagerie("stickers"), Menagerie("stickers-off")
    rows = np.arange(min(n_pictures, len(world)))
    facts = world.facts.iloc[rows]
    without = predict(embed_pictures(encoder, plain, rows, workers), species)
    stuck = predict(embed_pictures(encoder, world, rows, workers), species)
    right = without == facts["species"].to_numpy()
    signs = Menagerie("signs")
    shown = np.arange(min(n_pictures, len(signs)))
    words = list(STICKER_WORDS)
    texts = to_cpu(encoder.embed_texts([f"the word {word}" for word in words]))
    read = predict(embed_pictures(encoder, signs, shown, workers), (words, texts))
    return {
        "species top-1 without the sticker": _percent(right),
        "species top-1 beside a wrong word": _percent(stuck == facts["species"].to_numpy()),
        "flipped by a wrong word, of those right without": _percent(stuck[right] != without[right]),
        "flipped to the written word, of those right without": _percent(
            stuck[right] == facts["sticker_word"].to_numpy()[right]
        ),
        "word on a sign read, of 20": _percent(read == signs.facts["sticker_word"].iloc[shown].to_numpy()),
    }


def _water_birds(encoder: Encoder, species: tuple, n_pictures: int, workers: int) -> dict[str, float]:
    world = Menagerie("waterbirds")
    rows = np.arange(min(n_pictures, len(world)))
    facts = world.facts.iloc[rows]
    right = predict(embed_pictures(encoder, world, rows, workers), species) == facts["species"].to_numpy()
    bird, place = facts["water_bird"].to_numpy(dtype=bool), facts["habitat"].isin(WATER_PLACES).to_numpy()
    return {
        "water birds on water": _percent(right[bird & place]),
        "water birds on land": _percent(right[bird & ~place]),
        "land birds on land": _percent(right[~bird & ~place]),
        "land birds on water": _percent(right[~bird & place]),
    }


def _hair(encoder: Encoder, hair: tuple, n_pictures: int, workers: int) -> dict[str, float]:
    world = Menagerie("people")
    blond = np.flatnonzero(world.facts["person_hair"] == "blond")[:n_pictures]
    facts = world.facts.iloc[blond]
    right = predict(embed_pictures(encoder, world, blond, workers), hair) == "blond"
    return {
        "blond women's hair": _percent(right[facts["person_presentation"] == "woman"]),
        "blond men's hair": _percent(right[facts["person_presentation"] == "man"]),
    }
