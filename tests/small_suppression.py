"""Made-up outcomes for the suppression panel: two tasks, one of them at two layers, every prediction different."""

import numpy as np
from PIL import Image

from experiments.disentanglement.protocol import SubsetResults

PEOPLE, STICKERS = "hair, not gender", "picture, not word"
COUNT = 120  # pictures of a task


def outcome(
    task: str = PEOPLE, site: str = "4.resid_post", n_features: int = 3, seed: int = 0, **changed
) -> SubsetResults:
    """Feature 10 i is called "f<i>"; the more of them are suppressed, the more often a prediction is the truth."""
    generator = np.random.default_rng(seed)
    classes, groups = ["dark", "blond"], ["dark, woman", "dark, man", "blond, woman", "blond, man"]
    if task == STICKERS:
        classes, groups = ["owl", "cat", "frog", "newt", "bee"], ["no word", "another's name"]
    truth = generator.integers(len(classes), size=COUNT)
    guess = generator.integers(len(classes), size=(2**n_features, COUNT))
    suppressed = np.array([subset.bit_count() for subset in range(2**n_features)])
    knows = generator.random((2**n_features, COUNT)) < (0.3 + 0.6 * suppressed / n_features)[:, None]
    parts = {
        "task": task,
        "site": site,
        "features": [{"id": 10 * i, "name": f"f{i}", "chosen": i == 0} for i in range(n_features)],
        "classes": classes,
        "groups": groups,
        "truth": truth,
        "group": generator.integers(len(groups), size=COUNT),
        "predictions": np.where(knows, truth, guess),
        "ordinary": 0.9 - 0.01 * suppressed,
        "examples": [3, 1, 4, 15, 9, 2],
        "ordinary_count": 500,
    }
    return SubsetResults(**parts | changed)


def outcomes() -> list[SubsetResults]:
    return [
        outcome(),
        outcome(site="6.resid_post", n_features=2, seed=1),
        outcome(STICKERS, n_features=8, seed=2),
    ]


def pictures(results: list[SubsetResults]) -> list[list[Image.Image]]:
    """One picture of one colour for each example; the same at all layers of a task."""
    colours = {task: 60 * place for place, task in enumerate(sorted({result.task for result in results}))}
    return [
        [Image.new("RGB", (40, 40), (2 * i, colours[result.task], 160)) for i in result.examples] for result in results
    ]
