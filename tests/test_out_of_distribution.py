"""OODSplit: who is learned, who is strange, and scores that notice them, on made-up pictures."""

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array

from experiments.out_of_distribution import OODSplit, named_by
from experiments.probing import Pictures, Split

TABLE = pd.DataFrame({
    "species": ["owl"] * 20 + ["cat"] * 20 + ["bat"] * 20 + [None] * 6,
    "kind": ["creature"] * 60 + ["person"] * 6,
})  # fmt: skip
SPLIT = Split(np.arange(0, 66, 2), np.arange(1, 66, 4), np.arange(3, 66, 4))


@pytest.fixture
def split():
    return OODSplit.of(TABLE, SPLIT, "species", named_by("kind is creature", TABLE), 3, ["kind is person", "x is y"])


def test_a_selection_names_values_of_a_column_and_everything_where_there_is_none():
    assert named_by("kind is person", TABLE).sum() == 6
    assert named_by("species is owl, cat", TABLE).sum() == 40
    assert named_by("", TABLE).all()
    assert named_by("weather is rain", TABLE).all()


def test_every_so_manieth_class_is_strange_and_so_are_others_that_the_table_knows(split):
    assert list(split.ood) == ["held-out species", "kind is person"]
    assert set(split.classes[split.ood["held-out species"]]) == {"bat"}  # the first of bat, cat, owl
    assert set(split.classes[split.train]) == {"cat", "owl"}
    assert not set(split.train) & set(split.test)
    assert bool(split)
    assert split.describe_ood == "20 of held-out species, 6 of kind is person"


def test_pictures_of_a_folder_have_classes_and_no_species():
    of_folder = TABLE.rename(columns={"species": "class"})
    some = OODSplit.of(of_folder, SPLIT, "species", named_by("kind is creature", of_folder), 3, [])
    assert list(some.ood) == ["held-out class"]


def test_without_classes_nothing_can_be_noticed():
    alone = OODSplit.of(TABLE[["kind"]], SPLIT, "species", np.ones(66, bool), 3, [])
    assert not alone
    assert alone.auroc_by_kind({}, 5) == {}
    assert alone.description.startswith("0 pictures of 0 classes")


def test_pictures_unlike_all_classes_are_noticed(split):
    rng = np.random.default_rng(0)
    centre = np.select([TABLE["species"] == "owl", TABLE["species"] == "cat"], [0, 3], 20)[:, None]
    raw = (centre * [1, -1] + 0.1 * rng.standard_normal((66, 2))).astype(np.float32)
    codes = csr_array(np.eye(4, dtype=np.float32)[np.select([centre[:, 0] == 0, centre[:, 0] == 3], [0, 1], 2)])
    scores, right = split.scores(Pictures({"cls": raw}, {"cls": codes}, raw[:, 0], raw[:, 1]), "cls")
    assert right == [1.0, 1.0]
    noticed = split.auroc_by_kind(scores, 5)
    assert noticed["held-out species"]["Mahalanobis, raw"].value == 1
    assert split.mean_auroc(scores["Mahalanobis, raw"]) == 1
    assert split.mean_auroc(-scores["Mahalanobis, raw"]) == 0
    assert split.gain(scores, "Mahalanobis, raw", "Mahalanobis, raw", 5).value == 0
    other = csr_array(np.eye(66, dtype=np.float32))
    found = split.profile_gain(other, scores, 5)
    replaced = scores | {"profile, codes": split.profile(other)}
    assert found == split.gain(replaced, "profile, codes", "Mahalanobis, raw", 5)
    assert found.value < split.profile_gain(codes, scores, 5).value, "codes of single pictures have no profile"
