"""The image source `folder:PATH`: picture files below a folder, with facts from a table."""

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lib.images.image_files import ClassFolders, readable
from storage.fact_tables import read_facts
from storage.files import quoted

if TYPE_CHECKING:
    import pandas as pd

TABLES = ("facts.csv", "metadata.csv")


class FolderSource(ClassFolders):
    """Picture files below a folder; its sub-folders, if any hold pictures, are the classes.

    A `facts.csv` (or `metadata.csv`, as `datasets` writes it) in the folder gives facts: one row a picture, with the
    picture's path below the folder in a column `file_name` (see `read_facts`); a picture without a row has only
    its class.
    """

    FORM = "folder:PATH"
    counts_times = True

    def __init__(self, path: str):
        root = Path(os.path.expanduser(path))
        if not os.path.isdir(root):  # Path.is_dir raises OSError for too long a name
            folder = quoted(readable(path), 300)[1:-1]
            raise FileNotFoundError(f"There is no folder {folder}; give the path of a folder with pictures in it.")
        super().__init__(root, TABLES)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_table"}  # not sent to workers

    def facts(self, indices: np.ndarray) -> "pd.DataFrame | None":
        if not self.tables:
            return None
        table = self._table.reindex(indices).reset_index(drop=True)
        if self.class_names and "class" not in table:
            table.insert(0, "class", [(*self.class_names, "")[k] for k in self.classes[indices]])
        return table

    @cached_property
    def _table(self) -> "pd.DataFrame":
        """The facts by position; ValueError where the table does not fit the folder."""
        return read_facts(self.tables[0], [self.name(i) for i in range(len(self))])
