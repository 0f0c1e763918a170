"""The hierarchy tree: what it stores in a page."""

import base64
import json

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.hierarchy import parents
from lib.features.one_pass import top_images
from widgets import HierarchyTree
from widgets.hierarchy_tree import PICTURES
from widgets.packing import NONE, unpack

N, F, ENDS = 50, 12, (2, 5, 12)
DEAD = 7


class Pictures:
    """N plain pictures."""

    spec, class_names = "folder:plain", ["even", "odd"]
    labels = np.arange(N) % 2

    def __len__(self):
        return N

    def __getitem__(self, i):
        return Image.new("RGB", (40, 30), (5 * i,) * 3)


@pytest.fixture(scope="module")
def codes():
    generator = torch.Generator().manual_seed(0)
    codes = torch.rand(N, F, generator=generator) * (torch.rand(N, F, generator=generator) < 0.4)
    codes[:, DEAD] = 0
    return codes


def tree(codes, **options):
    top, _ = top_images(codes, 16)
    found = parents(codes, ENDS)
    depth = torch.arange(F).double().masked_fill(top[:, -1] < 0, torch.nan)
    settings = {"measures": {"LCA depth": depth, "active on": (codes > 0).double().mean(0)}, "names": ["owl", ""] * 6}
    return HierarchyTree(top, found, ENDS, Pictures(), **settings | {"thumbnail": 16} | options)


def arrays(widget):
    return unpack(widget.meta["arrays"], widget.numbers)


def test_every_feature_has_its_parent_as_the_metric_found_it(codes):
    found, stored = parents(codes, ENDS), arrays(tree(codes))
    assert (stored["parent"].astype(int) - 1).tolist() == found.feature.tolist()
    np.testing.assert_allclose(stored["conditional"], found.conditional)
    np.testing.assert_allclose(stored["lift"], found.lift)


def test_dead_features_are_marked_and_have_no_pictures(codes):
    stored = arrays(tree(codes))
    assert stored["alive"].tolist() == [int(feature != DEAD) for feature in range(F)]
    assert (stored["top"][DEAD] == NONE).all()


def test_pictures_are_those_of_the_features_in_their_order(codes):
    stored, (top, _) = arrays(tree(codes)), top_images(codes, PICTURES)
    for positions, expected in zip(stored["top"], top.tolist(), strict=True):
        shown = [int(stored["pool"][position]) for position in positions if position != NONE]
        assert shown == [image for image in expected if image >= 0]


def test_a_limit_on_pictures_keeps_everyones_first(codes):
    top, _ = top_images(codes, 16)
    firsts = {int(row[0]) for row in top if row[0] >= 0}
    stored = arrays(tree(codes, max_pictures=len(firsts)))
    assert set(stored["pool"].tolist()) == firsts
    assert (stored["top"][stored["alive"] == 1, 0] != NONE).all()


def test_levels_measures_and_names_are_told(codes):
    widget = tree(codes)
    stored = arrays(widget)
    assert widget.meta["levels"] == [{"start": 0, "end": 2}, {"start": 2, "end": 5}, {"start": 5, "end": 12}]
    assert widget.meta["measures"] == ["LCA depth", "active on"]
    assert stored["measures"].shape == (F, 2)
    assert [widget.meta["vocabulary"][i] for i in stored["name"]] == ["owl", ""] * 6


def test_classes_are_those_of_the_pictures(codes):
    stored = arrays(tree(codes))
    assert stored["pool_class"].tolist() == (stored["pool"] % 2).tolist()


def test_its_size_is_what_a_page_stores_of_it(codes):
    widget = tree(codes)
    binary = sum(len(base64.b64encode(getattr(widget, name))) for name in ("numbers", "sheets"))
    assert binary < widget.state_size
    assert widget.state_size < binary + len(json.dumps(widget.meta)) + len(widget._esm) * 1.1 + 20_000


def test_its_state_asks_for_nothing_outside(codes):
    text = json.dumps({name: value for name, value in tree(codes).get_state().items() if not isinstance(value, bytes)})
    addresses = text.replace("http://www.w3.org/2000/svg", "")  # a name space, which nobody fetches
    assert "http" not in addresses


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ["owl"]}, "names has 1 entries for 12 features"),
        ({"measures": {"depth": [1.0]}}, "depth has 1 entries for 12 features"),
        ({"measures": {}}, "at least one measure"),
        ({"max_pictures": 0}, "choose 1 to 65535"),
    ],
)
def test_parts_that_do_not_belong_together_are_an_error(codes, options, message):
    with pytest.raises(ValueError, match=message):
        tree(codes, **options)


def test_levels_must_rise_to_the_number_of_features(codes):
    top, _ = top_images(codes, 16)
    with pytest.raises(ValueError, match="rising widths up to F = 12"):
        HierarchyTree(top, parents(codes, ENDS), (2, 5), Pictures(), {"x": np.zeros(F)}, [""] * F)
