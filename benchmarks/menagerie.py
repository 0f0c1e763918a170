"""How fast the Menagerie draws: `python benchmarks/menagerie.py`.

Pictures a second of the training split, drawn in one process and by worker processes as the extraction uses them, and
both as ratios to two yardsticks: the 200 pictures a second that the project asks of two cores, and a physical one from
the same run, Pillow's bare `reduce(3)` of a picture of 336 pixels a side, which every drawing ends with. Each round
draws other pictures than the one before; the ways take turns, and the median of their rounds counts.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from menagerie import Menagerie

WANTED = 200  # pictures a second


class Drawn(Dataset):
    """Some pictures of a split, as arrays."""

    def __init__(self, world: Menagerie, indices: Sequence[int]):
        self.world, self.indices = world, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, row: int) -> torch.Tensor:
        return torch.from_numpy(np.array(self.world.image(self.indices[row])))


def reduce_only(indices: Sequence[int], large: Image.Image) -> None:
    for _ in indices:
        large.reduce(3)


def draw_here(indices: Sequence[int], world: Menagerie) -> None:
    for i in indices:
        world.image(i)


def draw_in_workers(indices: Sequence[int], world: Menagerie, workers: int) -> None:
    """Starting the processes counts too."""
    for _ in DataLoader(Drawn(world, indices), batch_size=64, num_workers=workers):
        pass


def pictures_a_second(draw: Callable[[Sequence[int]], None], indices: Sequence[int]) -> float:
    start = time.perf_counter()
    draw(indices)
    return len(indices) / (time.perf_counter() - start)


def main(n: int, workers: int, rounds: int) -> None:
    world = Menagerie("train")
    large = Image.fromarray(np.random.default_rng(0).integers(0, 256, (336, 336, 3), dtype=np.uint8))
    ways = {
        "Pillow's reduce(3) alone": lambda indices: reduce_only(indices, large),
        "one process": lambda indices: draw_here(indices, world),
        f"{workers} worker processes": lambda indices: draw_in_workers(indices, world, workers),
    }
    draw_here(range(20), world)  # fonts and caches
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name, draw in ways.items():
            rates[name].append(pictures_a_second(draw, range(turn * n, (turn + 1) * n)))
    yardstick = statistics.median(rates["Pillow's reduce(3) alone"])
    print(f"menagerie:train, {n} pictures a round, median of {rounds} rounds")
    print(f"{'':28} {'pictures/s':>11} {f'of {WANTED}/s':>10} {'of reduce(3)':>13}   rounds")
    for name, values in rates.items():
        rate = statistics.median(values)
        spread = f"{min(values):,.0f} to {max(values):,.0f}"
        print(f"{name:28} {rate:11,.0f} {rate / WANTED:9.2f}x {rate / yardstick:13.4f}   {spread}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1000, help="drawn in each round")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    main(arguments.pictures, arguments.workers, arguments.rounds)
