"""lib.features.table: the table of what features do on a set of images, against the slow way of asking the model."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import lib.features.one_pass
from lib.encoders.encoder import Encoder, load_encoder
from lib.features.one_pass import top_images
from lib.features.table import FeatureTable
from lib.sae.model import SAE, SAEConfig
from storage import read_meta
from tests.small_images import Pictures
from tests.small_models import open_clip_folder

N, K, D, E, GRID = 23, 5, 24, 12, (4, 4)
SITE = "2.resid_post"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Encoder:
    return load_encoder(f"open_clip:{open_clip_folder(tmp_path_factory.mktemp('clip'))}", device="cpu")


def small_sae(d=D, threshold=0.4):
    sae = SAE(SAEConfig(kind="batchtopk", expansion=2, k=4), d)
    sae.b_enc.data = torch.linspace(-3, 0.3, sae.n_features)  # from almost never active to often
    sae.b_enc.data[7] = -1e6
    sae.threshold.fill_(threshold)
    return sae.requires_grad_(False)


@pytest.fixture(scope="module")
def sae() -> SAE:
    return small_sae()


def table_of(encoder, sae, images=None, site=SITE, **options):
    options = {"top": K, "batch_size": 4, "workers": 0, "progress": False, **options}
    return FeatureTable.compute(encoder, sae, images or Pictures(N), site, **options)


@pytest.fixture(scope="module")
def table(encoder, sae) -> FeatureTable:
    return table_of(encoder, sae)


@pytest.fixture(scope="module")
def token_codes(encoder, sae) -> torch.Tensor:
    """(N, T, F), all at once."""
    images = Pictures(N)
    return sae.encode(encoder.run(encoder.pixels([images[i] for i in range(N)]), [SITE])[SITE])


def assert_same(left: FeatureTable, right: FeatureTable):
    for name in ("top_images", "top_values", "patch_maps"):
        torch.testing.assert_close(getattr(left, name), getattr(right, name))
    torch.testing.assert_close(left.codes.to_dense(), right.codes.to_dense())


def test_codes_are_those_of_the_cls_token(table, token_codes):
    assert table.codes.layout == torch.sparse_csr
    torch.testing.assert_close(table.codes.to_dense(), token_codes[:, 0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("tokens", "first"), [("spatial", 1), ("all", 0)])
def test_other_tokens_count_by_their_largest_code(encoder, sae, token_codes, tokens, first):
    codes = table_of(encoder, sae, tokens=tokens).codes.to_dense()
    torch.testing.assert_close(codes, token_codes[:, first:].amax(1), atol=1e-4, rtol=1e-4)


def test_figures_of_each_feature(table):
    codes = table.codes.to_dense()
    torch.testing.assert_close(table.frequency, (codes > 0).float().mean(0))
    torch.testing.assert_close(table.max, codes.amax(0))
    torch.testing.assert_close(table.mean_active, codes.sum(0) / (codes > 0).sum(0).clamp_min(1))
    assert table.alive.tolist() == (codes > 0).any(0).tolist()
    assert not table.alive[7]


def test_top_images_are_the_most_active_ones(table):
    values, images = table.codes.to_dense().t().sort(dim=1, descending=True, stable=True)
    images[values == 0] = -1
    torch.testing.assert_close(table.top_values, values[:, :K])
    assert table.top_images.tolist() == images[:, :K].tolist()


def test_patch_maps_are_the_codes_of_the_patches(table, token_codes):
    assert table.grid == GRID
    for feature in range(table.n_features):
        for image, patch_map in zip(table.top_images[feature], table.patch_maps[feature], strict=True):
            expected = token_codes[image, 1:, feature].view(GRID) if image >= 0 else torch.zeros(GRID)
            torch.testing.assert_close(patch_map.float(), expected, atol=1e-2, rtol=1e-2)


def test_batches_and_parts_do_not_change_the_table(encoder, sae, table, monkeypatch):
    monkeypatch.setattr(lib.features.one_pass, "MAX_CODES", 1)
    assert_same(table_of(encoder, sae, batch_size=7), table)


def test_the_joint_embedding_has_no_patch_maps(encoder):
    table = table_of(encoder, small_sae(E, threshold=0.01), site="proj")
    assert table.codes.shape == (N, 2 * E)
    assert table.patch_maps.shape == (2 * E, K, 0, 0)


def test_a_table_comes_back_from_its_folder(table, tmp_path):
    table.save(tmp_path / "table")
    loaded = FeatureTable.load(tmp_path / "table")
    assert_same(loaded, table)
    assert (loaded.site, loaded.tokens, loaded.images_spec) == (SITE, "cls", f"pictures:{N}")


def test_a_complete_table_is_loaded_and_not_computed_again(encoder, sae, table, tmp_path, monkeypatch):
    table_of(encoder, sae, out=tmp_path / "table")
    monkeypatch.setattr(Encoder, "run", None)
    assert_same(table_of(encoder, sae, out=tmp_path / "table"), table)


def test_a_table_that_lost_its_file_is_made_anew(encoder, sae, table, tmp_path):
    table_of(encoder, sae, out=tmp_path / "table")
    (tmp_path / "table" / "features.safetensors").unlink()
    assert_same(table_of(encoder, sae, out=tmp_path / "table"), table)


def test_a_table_of_another_sae_is_made_anew(encoder, sae, tmp_path):
    table_of(encoder, sae, out=tmp_path / "table")
    before = read_meta(tmp_path / "table")["hash"]
    other = table_of(encoder, small_sae(threshold=1.0), out=tmp_path / "table")
    assert read_meta(tmp_path / "table")["hash"] != before
    assert_same(FeatureTable.load(tmp_path / "table"), other)


def test_a_table_of_another_spec_stays_until_the_new_one_is_complete_and_is_kept(encoder, sae, table, tmp_path):
    out = tmp_path / "table"
    table_of(encoder, sae, out=out)
    with pytest.raises(ValueError, match="cannot read image 0"):
        table_of(encoder, sae, Pictures(N + 1, broken=(0,)), out=out)
    assert_same(FeatureTable.load(out), table)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".table.lock", "table"]
    with pytest.warns(UserWarning, match=r"kept as table\."):
        table_of(encoder, small_sae(threshold=1.0), out=out)
    (kept,) = tmp_path.glob("table.*")
    assert_same(FeatureTable.load(kept), table)


@pytest.mark.parametrize("content", [b"", bytes(5000), b"cut short"])
def test_a_damaged_table_is_refused_in_one_sentence_and_made_again(encoder, sae, table, tmp_path, content):
    table_of(encoder, sae, out=tmp_path / "table")
    (tmp_path / "table" / "features.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"features.safetensors is missing or damaged"):
        FeatureTable.load(tmp_path / "table")
    with pytest.warns(UserWarning, match=r"features.safetensors is missing or damaged.*made again"):
        assert_same(table_of(encoder, sae, out=tmp_path / "table"), table)
    assert_same(FeatureTable.load(tmp_path / "table"), table)


def test_a_complete_table_needs_no_lock(encoder, sae, table, tmp_path, monkeypatch):
    table_of(encoder, sae, out=tmp_path / "table")
    monkeypatch.setattr("storage.places.FileLock.acquire", lambda *_, **__: pytest.fail("a lock was taken"))
    assert_same(table_of(encoder, sae, out=tmp_path / "table"), table)


def test_a_table_of_an_earlier_version_without_digests_is_loaded(table, tmp_path):
    table.save(tmp_path)
    tensors, meta = load_file(tmp_path / "features.safetensors"), read_meta(tmp_path)
    save_file(tensors, tmp_path / "features.safetensors")
    (tmp_path / "meta.json").write_text(json.dumps({name: meta[name] for name in meta if name != "digests"}))
    assert_same(FeatureTable.load(tmp_path), table)


def test_an_unreadable_image_is_an_error_or_an_empty_row(encoder, sae, tmp_path):
    broken = Pictures(N, broken=(0, 6))
    with pytest.raises(ValueError, match="cannot read image 0"):
        table_of(encoder, sae, broken, out=tmp_path / "table")
    assert not (tmp_path / "table").exists()
    codes = table_of(encoder, sae, broken, on_error="skip").codes.to_dense()
    assert (codes[[0, 6]] == 0).all()
    assert (codes[1] > 0).any()


def test_an_sae_of_another_width_is_an_error(encoder):
    with pytest.raises(ValueError, match=r"width 12, but 2\.resid_post is 24 wide"):
        table_of(encoder, small_sae(E))


def test_a_folder_without_a_table_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="No feature table"):
        FeatureTable.load(tmp_path)


def test_the_histogram_counts_every_active_image(table):
    for feature in range(table.n_features):
        counts, edges = table.histogram(feature, bins=6)
        values = table.activations(feature)[1].numpy()
        assert counts.sum() == len(values)
        assert (counts.shape, edges.shape) == ((6,), (7,))
        if len(values):
            inside = (values[:, None] >= edges[:-1].numpy()) & (values[:, None] < edges[1:].numpy())
            assert counts[:-1].tolist() == inside.sum(0)[:-1].tolist()


def test_neighbours_are_the_most_similar_decoder_directions(table, sae):
    indices, cosines = table.neighbours(sae, k=3)
    unit = F.normalize(sae.W_dec, dim=1)
    expected = (unit @ unit.t()).fill_diagonal_(-2).topk(3, dim=1)
    assert indices.tolist() == expected.indices.tolist()
    torch.testing.assert_close(cosines, expected.values)


class Words:
    """A text tower that knows one direction for each word."""

    words = ("owl", "fox", "crab")

    def embed_texts(self, texts):
        return torch.eye(3)[[self.words.index(text.removeprefix("a ")) for text in texts]]


def test_names_are_the_words_of_the_images_that_activate_a_feature():
    codes = torch.tensor([[2.0, 0, 0], [1, 0, 0], [0, 3, 0], [0, 1, 0]]).to_sparse_csr()
    images, values = top_images(codes, 2)
    table = FeatureTable(SITE, "cls", "pictures:4", codes, images, values, torch.zeros(3, 2, 1, 1))
    embeddings = torch.eye(3)[[0, 0, 1, 1]] + 5  # far from the origin, as CLIP's are
    names = table.names(["owl", "fox", "crab"], Words(), embeddings, k=2, templates=["a {}"])
    assert [candidates[0][0] for candidates in names[:2]] == ["owl", "fox"]
    assert names[2] == []


def test_names_need_an_embedding_for_each_image(table, encoder):
    with pytest.raises(ValueError, match="each of the 23 images"):
        table.names(["fox"], encoder, torch.zeros(4, E))


def test_names_are_not_made_of_nan_or_of_the_letters_of_a_word(table, encoder):
    with pytest.raises(ValueError, match="image_embeddings holds NaN"):
        table.names(["fox"], encoder, torch.full((23, E), torch.nan))
    with pytest.raises(ValueError, match=r"list of words: write \['fox'\]"):
        table.names("fox", encoder, torch.ones(23, E))


@pytest.mark.parametrize("layout", [torch.strided, torch.sparse_csr])
def test_top_images_of_given_codes(layout):
    codes = torch.tensor([[0.0, 1, -1], [2, 1, -2], [3, 0, 0], [2, 5, 0]])
    codes = codes if layout == torch.strided else codes.to_sparse_csr()
    images, values = top_images(codes, 3)
    assert images.tolist() == [[2, 1, 3], [3, 0, 1], [-1, -1, -1]]
    assert values.tolist() == [[3, 2, 2], [5, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ({"batch_size": 0}, "batch_size must be an integer of at least 1 \\(pictures\\), not 0"),
        ({"batch_size": -4}, "batch_size must be an integer of at least 1 \\(pictures\\), not -4"),
        ({"workers": -1}, "workers must be an integer of at least 0 \\(processes\\), not -1"),
        ({"workers": 2.5}, "workers must be an integer of at least 0 \\(processes\\), not 2.5"),
    ],
)
def test_a_number_of_pictures_or_processes_that_is_none_is_refused(encoder, sae, option, sentence):
    with pytest.raises(ValueError, match=sentence):
        table_of(encoder, sae, **option)
