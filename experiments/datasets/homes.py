"""Where public data sets are on this machine, and what to do when they are not."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lib.files import quoted

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Home:
    """A public data set: its kind in a spec, its name, the page that offers it, and how its folder must look.

    The folder is what the environment variable MV_<KIND> names, else the sub-folder <kind> of what MV_DATA names (a
    profile can set it with `data:`).
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
        """The data set's folder; FileNotFoundError with what to do if none is known."""
        if own := os.environ.get(self.variable):
            return Path(own).expanduser()
        if everything := os.environ.get("MV_DATA"):
            return Path(everything).expanduser() / self.kind
        raise FileNotFoundError(
            f"{self.title} is not set up: get it from {self.page}, lay it out as {self.layout}, and set the "
            f"environment variable {self.variable} to that folder, or MV_DATA to the folder that has it as {self.kind}."
        )

    def find(self, *places: str) -> Path:
        """The first of these places in the folder that is there; FileNotFoundError with what to do if none is."""
        folder = self.folder()
        for place in places:
            if (folder / place).exists():
                return folder / place
        raise self.missing(folder / places[0])

    def missing(self, path: Path) -> FileNotFoundError:
        """The error that says what is not there, where to get it and how to lay it out."""
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
