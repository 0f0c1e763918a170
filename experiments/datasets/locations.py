"""Folders of public data sets on this machine, and errors that say how to get one."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from storage.files import quoted

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class DataSet:
    """A public data set: its kind in a spec, its name, its download page, and the layout of its folder.

    The folder is that of the environment variable MV_<KIND>, else the sub-folder <kind> of MV_DATA (a profile can set
    that with `data:`).
    """

    kind: str
    title: str
    page: str
    layout: str

    @property
    def variable(self) -> str:
        """The environment variable that names this data set's own folder."""
        return f"MV_{self.kind.upper()}"

    def folder(self) -> Path:
        """The data set's folder. Raises FileNotFoundError, with what to do, if neither variable is set."""
        if own := os.environ.get(self.variable):
            return Path(own).expanduser()
        if everything := os.environ.get("MV_DATA"):
            return Path(everything).expanduser() / self.kind
        raise FileNotFoundError(
            f"{self.title} is not set up: get it from {self.page}, lay it out as {self.layout}, and set the "
            f"environment variable {self.variable} to that folder, or MV_DATA to the folder that has it as {self.kind}."
        )

    def find(self, *places: str) -> Path:
        """The first of these paths that exists in the folder. Raises FileNotFoundError, with what to do, if none."""
        folder = self.folder()
        for place in places:
            if (folder / place).exists():
                return folder / place
        raise self.missing(folder / places[0])

    def missing(self, path: Path) -> FileNotFoundError:
        """An error that says what is missing, where to get it and how to lay it out."""
        return FileNotFoundError(
            f"{self.title} has no {path}: get it from {self.page} and lay out {self.folder()} as {self.layout} "
            f"(another folder: set {self.variable}, or MV_DATA to the folder that has it as {self.kind})."
        )


def check_values(table: "pd.DataFrame", allowed: Sequence[int], file: Path, page: str) -> None:
    """Raise ValueError where a column holds another value than the allowed; `page` is where the data set comes from."""
    import pandas as pd

    wrong = ~table.apply(pd.to_numeric, errors="coerce").isin(allowed)
    if wrong.any(axis=None):
        name = wrong.any().idxmax()
        value = table.loc[wrong[name].to_numpy(), name].iloc[0]
        choices = ", ".join(map(str, allowed))
        raise ValueError(
            f"{file} has {quoted(str(value))} in column {quoted(str(name))}, not {choices}; get it anew from {page}."
        )


def check_split(kind: str, split: str, choices: Sequence[str]) -> str:
    """The split itself. Raises ValueError for an unknown one."""
    if split not in choices:
        raise ValueError(f"Unknown split {split!r} of {kind}; choose one of {', '.join(choices)}.")
    return split
