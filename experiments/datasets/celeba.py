"""CelebA: `celeba:train`, `celeba:val`, `celeba:test` and `celeba:all`, aligned faces with 40 attributes."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from experiments.datasets.locations import DataSet, check_split, check_values
from lib.images.image_files import FileList, FileSource
from storage.fact_tables import read_csv

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("train", "val", "test", "all")  # by their number in list_eval_partition, then all three
DATA_SET = DataSet(
    "celeba",
    "CelebA",
    "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
    "img_align_celeba/000001.jpg … beside list_attr_celeba.txt and list_eval_partition.txt (or both as .csv)",
)


class CelebASource(FileSource):
    """One split, labelled blond or not: the class that goes with gender in paper 2, as in the group-robustness papers.

    The facts are the 40 attributes as booleans under their names in lower case, such as blond_hair and male.
    """

    FORM = "celeba:train|val|test|all"

    def __init__(self, split: str):
        chosen = SPLITS.index(check_split(DATA_SET.kind, split, SPLITS))
        tables = [DATA_SET.find(f"{name}.txt", f"{name}.csv") for name in ("list_attr_celeba", "list_eval_partition")]
        root = DATA_SET.find("img_align_celeba/img_align_celeba", "img_align_celeba")  # one deeper in Kaggle's archive
        attributes, partition = (self._read(table) for table in tables)
        if not attributes.index.equals(partition.index):
            raise ValueError(
                f"{tables[0]} and {tables[1]} are not about the same pictures; get both from {DATA_SET.page}."
            )
        check_values(attributes, (-1, 1), tables[0], DATA_SET.page)
        check_values(partition, (0, 1, 2), tables[1], DATA_SET.page)
        if not {"Blond_Hair", "Male"} <= set(attributes.columns):
            raise ValueError(f"{tables[0]} lacks the attribute Blond_Hair or Male; get it anew from {DATA_SET.page}.")
        if chosen < 3:
            attributes = attributes[partition.iloc[:, 0].to_numpy() == chosen]
        if not len(attributes):
            raise ValueError(f"{tables[1]} puts no picture into {split}; get it anew from {DATA_SET.page}.")
        self.attributes = tuple(name.lower() for name in attributes.columns)
        self.truth = attributes.to_numpy() > 0  # (N, 40) bool
        blond = self.truth[:, self.attributes.index("blond_hair")]
        super().__init__(root, FileList.of_paths(attributes.index, tables[0]), blond, ("not blond", "blond"), tables)

    @staticmethod
    def _read(table: Path) -> "pd.DataFrame":
        """One row a picture by its file name; the original lists have columns of spaces, Kaggle's have commas."""
        if table.suffix == ".csv":
            return read_csv(table, index_col=0)
        if table.stem == "list_eval_partition":
            return read_csv(table, sep=r"\s+", header=None, index_col=0)
        return read_csv(table, sep=r"\s+", skiprows=1)  # the first line is the number of rows

    def facts(self, indices: np.ndarray) -> "pd.DataFrame":
        import pandas as pd

        return pd.DataFrame(self.truth[indices], columns=list(self.attributes))
