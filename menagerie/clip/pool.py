"""Pictures, captions and patch labels of a Menagerie split, drawn once into chunk files for training."""

import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from menagerie import HABITATS, SPECIES, Menagerie
from menagerie.clip.architecture import VISION
from menagerie.world.stickers import LetterBox
from storage import code_fingerprint, replacing

GRID = VISION["image_size"] // VISION["patch_size"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
# What a patch can show: a species, a habitat, a person, a sticker.
PERSON, STICKER = len(SPECIES) + len(HABITATS), len(SPECIES) + len(HABITATS) + 1
FACTS = (
    "kind",
    "species",
    "second_species",
    "habitat",
    "time_of_day",
    "main_color",
    "pattern",
    "pose",
    "count",
    "sticker_word",
    "person_hair",
    "person_presentation",
    "person_glasses",
    "person_hat",
    "person_smile",
    "person_skin",
)
CAPTIONS_A_PICTURE = 6
_RECORD = np.dtype(
    [
        ("pixels", np.uint8, (VISION["image_size"], VISION["image_size"], 3)),
        ("content", np.int16, (GRID, GRID)),
        ("letter", np.int16, (GRID, GRID)),
    ]
)


class PicturePool:
    """The first `n_pictures` of a split in files of `chunk`; existing files in `folder` are reused.

    File names carry the fingerprint of the code that draws, so that pictures of older code are never mixed in. Raises
    ValueError for a size outside one chunk and the split.
    """

    def __init__(
        self, folder: Path, n_pictures: int, split: str = "train", seed: int = 0, workers: int = 2, chunk: int = 1000
    ):
        self.folder, self.split, self.seed, self.chunk = Path(folder), split, seed, chunk
        self.world = code_fingerprint("menagerie.world", "menagerie.clip.pool")
        world = Menagerie(split, seed)
        if not chunk <= n_pictures <= len(world):
            raise ValueError(f"A pool of {split!r} holds {chunk} to {len(world)} pictures, not {n_pictures}.")
        starts = range(0, n_pictures - n_pictures % chunk, chunk)
        self._draw([start for start in starts if not self._path(start).is_file()], workers)
        self.records = [np.load(self._path(start), mmap_mode="r", allow_pickle=False) for start in starts]
        self.captions = [
            captions
            for start in starts
            for captions in json.loads(self._path(start).with_suffix(".json").read_text(encoding="utf-8"))
        ]
        self.fact_names, self.facts = encode_facts([world.facts_of(i) for i in range(len(self))])

    def _path(self, start: int) -> Path:
        return self.folder / f"{self.split}-{self.seed}-{self.world}-{self.chunk}-{start:07d}.npy"

    def _draw(self, starts: list[int], workers: int) -> None:
        jobs = [(str(self._path(start)), self.split, self.seed, range(start, start + self.chunk)) for start in starts]
        with ProcessPoolExecutor(workers) as executor:
            for _ in tqdm(executor.map(_draw_chunk, jobs), total=len(jobs), desc="drawing", disable=not jobs):
                pass

    def __len__(self) -> int:
        return len(self.captions)

    def gather(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """pixels (B, H, W, 3) uint8; content, letter (B, grid, grid) int64; facts (B, n_facts) int64."""
        records = np.stack([self.records[i // self.chunk][i % self.chunk] for i in index])
        return {
            "pixels": np.ascontiguousarray(records["pixels"]),
            "content": records["content"].astype(np.int64),
            "letter": records["letter"].astype(np.int64),
            "facts": self.facts[index],
        }


def _draw_chunk(job: tuple[str, str, int, range]) -> None:
    path, split, seed, indices = job
    world = Menagerie(split, seed)
    records, captions = np.empty(len(indices), dtype=_RECORD), []
    for row, i in enumerate(indices):
        pixels, cover, letters = world.draw(i)
        records[row] = (pixels, patch_content(cover, world.facts_of(i)), patch_letters(letters))
        captions.append(world.captions(i, CAPTIONS_A_PICTURE))
    with replacing(Path(path).with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(captions), encoding="utf-8")
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.save(file, records)


def patch_content(cover: np.ndarray, facts: dict) -> np.ndarray:
    """Content label of each patch, (grid, grid): a species, a habitat, PERSON or STICKER; -1 where nothing is known.

    cover (H, W) as `Menagerie.render` gives it. A creature or person must cover 30 % of a patch, a sticker 50 %;
    other patches are habitat.
    """
    side = cover.shape[0] // GRID
    patches = cover.reshape(GRID, side, GRID, side)
    share = np.stack([(patches == value).mean(axis=(1, 3)) for value in range(4)])  # (4, grid, grid)
    habitat = position_in(HABITATS, facts["habitat"])
    content = np.full((GRID, GRID), len(SPECIES) + habitat if habitat >= 0 else -1)
    content[share[1] > 0.3] = PERSON if facts["kind"] == "person" else position_in(SPECIES, facts["species"])
    content[(share[2] > 0.3) & (share[2] > share[1])] = position_in(SPECIES, facts["second_species"])
    content[share[3] > 0.5] = STICKER
    return content


def patch_letters(letters: list[LetterBox]) -> np.ndarray:
    """Letter label of each patch, (grid, grid): 0 none, 1 a, 2 b …; a letter must cover 20 % of a patch."""
    edges = np.arange(GRID + 1) / GRID
    most, letter_at = np.full((GRID, GRID), 0.2), np.zeros((GRID, GRID), dtype=np.int64)
    for letter, x0, y0, x1, y1 in letters:
        wide = np.clip(np.minimum(x1, edges[1:]) - np.maximum(x0, edges[:-1]), 0, None)
        high = np.clip(np.minimum(y1, edges[1:]) - np.maximum(y0, edges[:-1]), 0, None)
        overlap = np.outer(high, wide) * GRID**2
        letter_at[overlap > most] = LETTERS.index(letter.lower()) + 1
        most = np.maximum(most, overlap)
    return letter_at


def position_in(names: tuple[str, ...] | list[str], value: object) -> int:
    """Index of a name; -1 where there is none."""
    return names.index(value) if value in names else -1


def encode_facts(rows: list[dict]) -> tuple[dict[str, list], np.ndarray]:
    """Facts of pictures -> ({fact: its values}, codes (N, n_facts) int64); -1 where a fact does not apply."""
    names, columns = {}, []
    for fact in FACTS:
        column = [row[fact] for row in rows]
        names[fact] = sorted({value for value in column if value not in (None, "")}, key=str)
        code = {value: i for i, value in enumerate(names[fact])}
        columns.append([code.get(value, -1) for value in column])
    return names, np.array(columns, dtype=np.int64).T
