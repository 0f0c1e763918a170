"""Waterbirds (Sagawa et al., 2020): `waterbirds:train|val|test`, from its metadata.csv."""

from typing import TYPE_CHECKING

import numpy as np

from experiments.datasets.locations import DataSet, check_split, check_values
from lib.images.image_files import FileList, FileSource
from storage.fact_tables import read_csv

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("train", "val", "test")  # by their number in metadata.csv
COLUMNS = ("img_filename", "y", "split", "place", "place_filename")
DATA_SET = DataSet(
    "waterbirds",
    "Waterbirds",
    "https://github.com/kohpangwei/group_DRO (or the WILDS package)",
    "metadata.csv beside folders such as 001.Black_footed_Albatross/*.jpg",
)


class WaterbirdsSource(FileSource):
    """One split, labelled land bird or water bird as in the Menagerie.

    Facts: water_bird and water_background (booleans), species, and place (the kind of scene in the background).
    """

    FORM = "waterbirds:train|val|test"

    def __init__(self, split: str):
        chosen = SPLITS.index(check_split(DATA_SET.kind, split, SPLITS))
        archives = ("waterbird_complete95_forest2water2", "waterbirds_v1.0")  # group_DRO's folder, WILDS' folder
        table = DATA_SET.find("metadata.csv", *(f"{archive}/metadata.csv" for archive in archives))
        rows = read_csv(table)
        if lacking := [name for name in COLUMNS if name not in rows]:
            raise ValueError(f"{table} has no column {lacking[0]}; get it anew from {DATA_SET.page}.")
        check_values(rows[["y", "place"]], (0, 1), table, DATA_SET.page)
        check_values(rows[["split"]], range(3), table, DATA_SET.page)
        self.rows = rows[rows["split"] == chosen].reset_index(drop=True)[list(COLUMNS)]
        if self.rows.empty:
            raise ValueError(f"{table} puts no picture into {split}; get it anew from {DATA_SET.page}.")
        files = FileList.of_paths(self.rows["img_filename"], table)
        super().__init__(table.parent, files, self.rows["y"], ("land bird", "water bird"), [table])

    def facts(self, indices: np.ndarray) -> "pd.DataFrame":
        import pandas as pd

        rows = self.rows.iloc[indices].reset_index(drop=True)
        # "001.Black_footed_Albatross/….jpg", and Places' "/b/bamboo_forest/….jpg" or "/l/lake/natural/….jpg"
        species = rows["img_filename"].str.partition("/")[0].str.partition(".")[2]
        place = rows["place_filename"].str.replace(r"^/\w/|/[^/]*$", "", regex=True)
        return pd.DataFrame(
            {
                "water_bird": rows["y"] == 1,
                "water_background": rows["place"] == 1,
                "species": species.str.replace("_", " "),
                "place": place.str.replace("[_/]", " ", regex=True),
            }
        )
