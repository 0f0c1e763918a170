"""widgets: what the feature explorer stores in a page, and what it answers a page that has a kernel behind it."""

import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lib.features.one_pass import top_images
from lib.features.table import FeatureTable
from widgets import FeatureExplorer
from widgets.feature_explorer import BINS, MAP_LEVELS, NONE, PICTURES, VALUE_LEVELS
from widgets.packing import pack, quantise, sprite_sheets, unpack

N, F, K, GRID = 60, 24, 16, (4, 5)
DEAD = 7
SAE = SimpleNamespace(n_features=F, W_dec=torch.eye(F, 9))


class Pictures:
    """N plain pictures; picture i has the grey level 4 i."""

    spec, class_names = "folder:plain", ["even", "odd"]
    labels = np.arange(N) % 2

    def __len__(self):
        return N

    def __getitem__(self, i):
        return Image.new("RGB", (48, 32), (4 * i,) * 3)


def made_of(codes):
    """The feature table of codes (N, F), with patch maps drawn at random."""
    images, values = top_images(codes.to_sparse_csr(), K)
    maps = torch.rand(F, K, *GRID, generator=torch.Generator().manual_seed(1)).half() * 3
    return FeatureTable("4.resid_post", "cls", Pictures.spec, codes.to_sparse_csr(), images, values, maps)


@pytest.fixture(scope="module")
def table():
    generator = torch.Generator().manual_seed(0)
    codes = torch.rand(N, F, generator=generator) * (torch.rand(N, F, generator=generator) < 0.4)
    codes[:, DEAD] = 0
    return made_of(codes)


def explorer(table, **options):
    return FeatureExplorer(table, Pictures(), SAE, **{"thumbnail": 16} | options)


def arrays(widget):
    return unpack(widget.meta["arrays"], widget.numbers)


def sprite(layout, sheets, position):
    sheet, place = divmod(position, layout["per_sheet"])
    start = sum(layout["lengths"][:sheet])
    image = Image.open(io.BytesIO(sheets[start : start + layout["lengths"][sheet]]))
    row, column = divmod(place, layout["columns"])
    size = layout["size"]
    return np.asarray(image.crop((column * size, row * size, (column + 1) * size, (row + 1) * size)))


class TestPacking:
    def test_arrays_come_back_as_they_were(self):
        given = {
            "bytes": np.arange(5, dtype=np.uint8),
            "floats": np.array([[1.5, np.nan], [-0.0, 2e9]], dtype=np.float32),
            "nothing": np.zeros((0, 3), dtype=np.uint16),
            "numbers": np.array([[[70_000]]], dtype=np.uint32),
        }
        for name, array in unpack(*pack(given)).items():
            assert array.dtype == given[name].dtype
            np.testing.assert_array_equal(array, given[name])

    def test_each_array_starts_where_a_typed_array_may_start(self):
        manifest, _ = pack({"a": np.zeros(3, np.uint8), "b": np.zeros(1, np.float32), "c": np.zeros(1, np.float64)})
        assert all(entry["offset"] % 8 == 0 for entry in manifest.values())

    @pytest.mark.parametrize("levels", [2, MAP_LEVELS, VALUE_LEVELS])
    def test_quantised_fractions_are_off_by_at_most_half_a_level(self, levels):
        fractions = np.linspace(0, 1, 1001)
        assert np.abs(quantise(fractions, levels) / (levels - 1) - fractions).max() <= 0.5 / (levels - 1) + 1e-12

    def test_values_outside_the_range_are_cut_and_nan_is_zero(self):
        assert quantise(np.array([-1, np.nan, 2.0]), 256).tolist() == [0, 0, 255]

    def test_every_picture_is_found_in_its_sheet(self):
        greys = np.linspace(0, 255, 300).astype(int)
        layout, sheets = sprite_sheets((Image.new("L", (40, 20), int(grey)) for grey in greys), 8, quality=90)
        assert len(layout["lengths"]) == 2
        assert sum(layout["lengths"]) == len(sheets)
        for position in (0, 23, 24, 287, 288, 299):
            assert abs(sprite(layout, sheets, position).mean() - greys[position]) < 6


class TestWhatThePageHolds:
    def test_numbers_of_all_features(self, table):
        held = arrays(explorer(table, scores=torch.linspace(0, 1, F)))
        np.testing.assert_array_equal(held["max"], table.max.numpy())
        np.testing.assert_array_equal(held["frequency"], table.frequency.numpy())
        np.testing.assert_allclose(held["score"], np.linspace(0, 1, F), rtol=1e-6)

    def test_dead_features_are_listed_but_have_no_details(self, table):
        held = arrays(explorer(table))
        assert held["alive"][DEAD] == 0
        assert held["alive"].sum() == F - 1
        assert DEAD not in held["features"]

    def test_the_best_features_have_details_when_not_all_may(self, table):
        scores = np.arange(F, dtype=float)
        scores[20] = np.nan
        assert arrays(explorer(table, scores=scores, max_features=4))["features"].tolist() == [23, 22, 21, 19]

    def test_without_scores_the_strongest_features_have_details(self, table):
        held = arrays(explorer(table, max_features=3))
        assert held["features"].tolist() == table.max.argsort(descending=True)[:3].tolist()

    def test_top_pictures_are_those_of_the_table(self, table):
        held = arrays(explorer(table))
        for i, feature in enumerate(held["features"]):
            stored = held["top"][i] != NONE
            expected = table.top_images[feature, :PICTURES].numpy()
            np.testing.assert_array_equal(held["pool"][held["top"][i][stored]], expected[expected >= 0])

    def test_activations_are_off_by_at_most_a_level(self, table):
        held = arrays(explorer(table))
        peak = table.max.numpy()[held["features"]][:, None]
        values = held["top_value"] / (VALUE_LEVELS - 1) * peak
        np.testing.assert_allclose(values, table.top_values.numpy()[held["features"], :PICTURES], atol=1e-4)

    def test_patch_maps_are_off_by_at_most_a_level_of_their_peak(self, table):
        held = arrays(explorer(table))
        maps = table.patch_maps.float().numpy()[held["features"], :PICTURES]
        np.testing.assert_allclose(held["map_peak"], maps.max((1, 2, 3)))
        error = np.abs(held["maps"] / (MAP_LEVELS - 1) * held["map_peak"][:, None, None, None] - maps)
        assert (error.max((1, 2, 3)) <= held["map_peak"] / (MAP_LEVELS - 1)).all()

    def test_histogram_counts_every_active_picture_once(self, table):
        held = arrays(explorer(table))
        active = (table.codes.to_dense() > 0).sum(0).numpy()
        np.testing.assert_array_equal(held["counts"].sum(1), active[held["features"]])

    def test_examples_lie_in_their_bar_and_show_the_right_picture(self, table):
        widget = explorer(table)
        held, codes = arrays(widget), table.codes.to_dense().numpy()
        for i, feature in enumerate(held["features"]):
            for bar, position in np.argwhere(held["examples"][i] != NONE):
                image = held["pool"][held["examples"][i, bar, position]]
                fraction = codes[image, feature] / codes[:, feature].max()
                assert min(int(fraction * BINS), BINS - 1) == bar
                assert abs(held["example_value"][i, bar, position] / (VALUE_LEVELS - 1) - fraction) < 1e-4

    def test_quantiles_are_over_the_active_pictures(self, table):
        held, codes = arrays(explorer(table)), table.codes.to_dense()
        for i, feature in enumerate(held["features"]):
            active = codes[codes[:, feature] > 0, feature].numpy()
            np.testing.assert_allclose(held["quantiles"][i], np.quantile(active, [0.25, 0.5, 0.75, 0.95]), rtol=1e-5)

    def test_a_picture_shown_by_many_features_is_stored_once(self, table):
        widget = explorer(table)
        held = arrays(widget)
        assert len(np.unique(held["pool"])) == len(held["pool"]) <= N
        for position in (0, len(held["pool"]) - 1):
            grey = sprite(widget.meta["sheets"], widget.sheets, position).mean()
            assert abs(grey - 4 * held["pool"][position]) < 6

    def test_with_few_pictures_every_feature_keeps_its_best(self, table):
        best = {int(image) for image in table.top_images[:, 0] if image >= 0}
        held = arrays(explorer(table, max_pictures=len(best)))
        assert set(held["pool"].tolist()) == best
        assert (held["top"][:, 0] != NONE).all()

    def test_pictures_keep_their_class(self, table):
        held = arrays(explorer(table))
        np.testing.assert_array_equal(held["pool_class"], held["pool"] % 2)

    def test_names_and_facts(self, table):
        names = [[("owl", 0.5), ("fox", 0.25)] if feature % 2 else [("fox", 0.75)] for feature in range(F)]
        widget = explorer(table, names=names, facts=[None] * (F - 1) + ["habitat is snow"])
        held, words = arrays(widget), widget.meta["vocabulary"]
        assert [words[i] for i in held["name"][1]] == ["owl", "fox"]
        assert words[held["name"][2, 0]] == "fox"
        assert held["name"][2, 1] == NONE
        assert held["name_score"][1].tolist() == [0.5, 0.25]
        assert widget.meta["facts"][-1] == "habitat is snow"

    def test_a_site_without_patches_has_pictures_without_maps(self, table):
        held = arrays(explorer(replace(table, patch_maps=torch.zeros(F, K, 0, 0).half())))
        assert held["maps"].shape == (F - 1, PICTURES, 0, 0)
        assert (held["top"][:, 0] != NONE).all()

    def test_an_sae_of_dead_features_only_can_be_looked_at(self):
        held = arrays(explorer(made_of(torch.zeros(N, F))))
        assert held["alive"].sum() == 0
        assert len(held["features"]) == len(held["pool"]) == 0

    def test_state_size_is_what_a_saved_notebook_holds(self, table):
        widget = explorer(table)
        saved = widget.meta["sheets"]["lengths"]
        assert widget.state_size > 4 / 3 * (len(widget.numbers) + sum(saved))
        assert widget.state_size < 4 / 3 * (len(widget.numbers) + sum(saved)) + 100_000

    def test_more_pictures_take_more_bytes(self, table):
        assert explorer(table, max_pictures=5).state_size < explorer(table, max_pictures=50).state_size


class TestAnswersOfTheKernel:
    def ask(self, widget, monkeypatch, message):
        sent = []
        monkeypatch.setattr(type(widget), "send", lambda self, content, buffers=None: sent.append((content, buffers)))
        widget._handle_custom_msg(message, [])
        return sent

    def test_a_ping_is_answered(self, table, monkeypatch):
        assert self.ask(explorer(table), monkeypatch, {"kind": "ping"}) == [({"kind": "pong"}, None)]

    def test_a_feature_outside_of_the_page_comes_with_all_its_pictures(self, table, monkeypatch):
        widget = explorer(table, max_features=1, max_pictures=1)
        missing = int(table.max.argmin() + 1)
        assert missing not in arrays(widget)["features"]
        [(answer, (numbers, sheets))] = self.ask(widget, monkeypatch, {"kind": "feature", "feature": missing})
        held = unpack(answer["arrays"], numbers)
        assert answer["feature"] == missing
        assert held["features"].tolist() == [missing]
        stored = held["top"][0] != NONE
        expected = table.top_images[missing, :PICTURES].numpy()
        np.testing.assert_array_equal(held["pool"][held["top"][0][stored]], expected[expected >= 0])
        assert answer["sheets"]["size"] == 32
        assert sum(answer["sheets"]["lengths"]) == len(sheets)


class TestWhatDoesNotFit:
    def test_other_images(self, table):
        images = Pictures()
        images.spec = "folder:other"
        with pytest.raises(ValueError, match="made from images 'folder:plain', not from 'folder:other'"):
            FeatureExplorer(table, images, SimpleNamespace(n_features=F))

    def test_fewer_images(self, table):
        with pytest.raises(ValueError, match="covers 60 images, but 3 were given"):
            FeatureExplorer(table, [0, 1, 2], SAE)

    def test_another_sae(self, table):
        with pytest.raises(ValueError, match="24 features, the SAE 9"):
            FeatureExplorer(table, Pictures(), SimpleNamespace(n_features=9))

    @pytest.mark.parametrize("column", ["scores", "names", "facts"])
    def test_a_column_of_another_length(self, table, column):
        with pytest.raises(ValueError, match=f"{column} has 2 entries for 24 features"):
            explorer(table, **{column: [[], []]})

    @pytest.mark.parametrize("count", [0, 70_000])
    def test_a_number_of_pictures_that_cannot_be_stored(self, table, count):
        with pytest.raises(ValueError, match="max_pictures"):
            explorer(table, max_pictures=count)
