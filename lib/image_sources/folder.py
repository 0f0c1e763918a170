"""Your own pictures: `folder:PATH`."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lib.image_sources.files import ClassFolders

if TYPE_CHECKING:
    import pandas as pd

TABLES = ("facts.csv", "metadata.csv")
FILE_COLUMNS = ("file_name", "filename", "file", "path", "image")


class FolderSource(ClassFolders):
    """Picture files below a folder; its sub-folders, if any hold pictures, are the classes.

    A `facts.csv` (or `metadata.csv`, as `datasets` writes it) in the folder gives facts: one row a picture, with the
    picture's path below the folder in a column `file_name`; of a picture without a row only its class is known.
    """

    counts_mtime = True

    def __init__(self, path: str):
        root = Path(path).expanduser()
        if not root.is_dir():
            raise FileNotFoundError(f"There is no folder {path}; give the path of a folder with pictures in it.")
        super().__init__(root, [root / name for name in TABLES if (root / name).is_file()][:1])

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_table"}  # not sent to workers

    def facts(self, indices: np.ndarray) -> "pd.DataFrame | None":
        if not self.tables:
            return None
        table = self._table.reindex([self.files[i] for i in indices]).reset_index(drop=True)
        if self.class_names and "class" not in table:
            table.insert(0, "class", [(*self.class_names, "")[k] for k in self.classes[indices]])
        return table

    @cached_property
    def _table(self) -> "pd.DataFrame":
        """The facts by file; ValueError where the table does not fit the folder."""
        import pandas as pd

        (file,) = self.tables
        table = pd.read_csv(file)
        column = next((name for name in FILE_COLUMNS if name in table.columns), None)
        if column is None:
            raise ValueError(f"{file} does not say which picture a row is about; name the files in a column file_name.")
        names = table.pop(column).astype(str)
        if twice := names[names.duplicated()].tolist():
            raise ValueError(f"{file} has several rows for {twice[0]}; leave one row for each picture.")
        if not set(names).intersection(self.files):
            raise ValueError(
                f"{file} names no picture of the folder (its first is {names.iloc[0] if len(names) else 'missing'}); "
                f"write paths below the folder, such as {self.files[0]}."
            )
        return table.set_index(names)
