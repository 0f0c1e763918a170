"""iNaturalist 2021: `inat21:train`, `inat21:mini` and `inat21:val`, the taxonomy read from the names of the folders."""

from typing import TYPE_CHECKING

import numpy as np

from experiments.datasets.locations import DataSet, check_split
from lib.images.image_files import ClassFolders

if TYPE_CHECKING:
    import pandas as pd

RANKS = ("kingdom", "phylum", "class", "order", "family", "genus", "species")
FOLDERS = {  # as the archives unpack, and as torchvision renames them
    "train": ("train", "2021_train"),
    "mini": ("train_mini", "2021_train_mini"),
    "val": ("val", "2021_valid"),
}
DATA_SET = DataSet(
    "inat21",
    "iNaturalist 2021",
    "https://github.com/visipedia/inat_comp/tree/master/2021",
    "train/, train_mini/ or val/ with folders such as "
    "00000_Animalia_Annelida_Clitellata_Haplotaxida_Lumbricidae_Lumbricus_terrestris/*.jpg",
)


class INaturalistSource(ClassFolders):
    """One split; classes are species, called "Genus epithet", and the facts are a picture's seven ranks."""

    FORM = "inat21:train|mini|val"

    def __init__(self, split: str):
        check_split(DATA_SET.kind, split, tuple(FOLDERS))
        super().__init__(DATA_SET.find(*FOLDERS[split]))
        self.of_class = [self._ranks(folder) for folder in self.class_names or ("",)]  # by class
        self.class_names = tuple(path[-1] for path in self.of_class)

    def _ranks(self, folder: str) -> tuple[str, ...]:
        parts = folder.split("_")
        if len(parts) != 1 + len(RANKS):
            raise ValueError(f"{self.root / folder} is no folder of {DATA_SET.title}; lay it out as {DATA_SET.layout}.")
        *upper, genus, epithet = parts[1:]
        return (*upper, genus, f"{genus} {epithet}")

    def facts(self, indices: np.ndarray) -> "pd.DataFrame":
        import pandas as pd

        classes = self.classes[indices]
        return pd.DataFrame(
            {name: np.array([path[rank] for path in self.of_class], object)[classes] for rank, name in enumerate(RANKS)}
        )

    def taxa(self, indices: np.ndarray) -> list[tuple[str, ...]]:
        return [self.of_class[k] for k in self.classes[indices]]
