import pytest
import torch

from lib.sparse_codes import (
    BatchTopK,
    Codes,
    Encoder,
    TopK,
    dot_products,
    flat_indices,
    order_by_feature,
    weighted_sums,
)

D, F, B, K = 24, 200, 64, 6


def encoder_and_input(dtype=None, seed=0, f=F):
    generator = torch.Generator().manual_seed(seed)
    weight, bias = torch.randn(f, D, generator=generator), torch.randn(f, generator=generator)
    return Encoder(weight, bias, dtype), torch.randn(B, D, generator=generator)


def flat_top_k(pre, k):
    """The definition: the k * B largest of all B * F values, negative ones at zero."""
    pre = pre.relu()
    top = pre.flatten().topk(k * len(pre))
    return torch.zeros_like(pre).flatten().scatter(0, top.indices, top.values).view_as(pre)


def dense(codes, f=F):
    return codes.to_csr(f).to_dense()


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("f", [F, 203])
def test_batch_top_k_keeps_what_a_flat_top_k_keeps(dtype, f):
    encoder, x = encoder_and_input(dtype, f=f)
    torch.testing.assert_close(dense(BatchTopK(K)(x, encoder), f), flat_top_k(encoder.dense(x), K))


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("jump", [1e-3, 0.5, 0.9, 1.1, 2.0, 1e3])
def test_batch_top_k_stays_exact_when_the_scale_of_the_input_jumps(dtype, jump):
    encoder, x = encoder_and_input(dtype)
    encoder.bias.zero_()
    select = BatchTopK(K)
    for scale in (1.0, 1.0, jump, 1.0):
        expected = flat_top_k(encoder.dense(x * scale), K)
        torch.testing.assert_close(dense(select(x * scale, encoder)), expected)


def test_batch_top_k_breaks_ties_by_row_order_and_keeps_exactly_k_per_row_on_average():
    encoder = Encoder(torch.ones(F, 1), torch.zeros(F))
    codes = BatchTopK(K)(torch.ones(B, 1), encoder)
    assert len(codes.values) == K * B
    assert torch.equal(codes.rows * F + codes.features, torch.arange(K * B))


@pytest.mark.parametrize("select", [BatchTopK(K), TopK(K)])
def test_selection_keeps_only_positive_values_when_fewer_than_k_are_positive(select):
    encoder, x = encoder_and_input()
    encoder.bias.sub_(16)
    for _ in range(2):
        codes = select(x, encoder)
        torch.testing.assert_close(dense(codes), encoder.dense(x).relu())


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("f", [F, 5000])
def test_top_k_keeps_the_k_largest_of_each_row(dtype, f):
    encoder, x = encoder_and_input(dtype, f=f)
    select = TopK(K)
    for scale in (1.0, 1.0, 0.3, 2.0):
        rows = x * scale * torch.linspace(0.2, 2, B)[:, None]
        pre = encoder.dense(rows).relu()
        top = pre.topk(K, dim=1)
        expected = torch.zeros_like(pre).scatter(1, top.indices, top.values)
        torch.testing.assert_close(dense(select(rows, encoder), f), expected)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_screening_in_bfloat16_finds_all_and_only_values_above_the_level(scale):
    encoder, x = encoder_and_input(torch.bfloat16)
    encoder.bias.mul_(scale)
    x[0] *= 50  # one outlier row must not cost the others
    pre = encoder.dense(x * scale).double()
    level = float(pre.flatten().topk(500).values.min())
    flat, values = encoder.above(x * scale, level * (1 - 1e-6))
    assert torch.equal(flat, (pre > level * (1 - 1e-6)).view(-1).nonzero().squeeze(1))
    torch.testing.assert_close(values.double(), pre.view(-1)[flat], rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize("dtype", [torch.bool, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(5, 7), (8, 64)])
def test_flat_indices_are_those_of_the_non_zero_entries(dtype, shape):
    hits = (torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.2).to(dtype)
    assert torch.equal(flat_indices(hits), hits.flatten().nonzero().squeeze(1))


def test_weighted_sums_and_dot_products_equal_their_dense_definitions():
    encoder, x = encoder_and_input()
    codes = BatchTopK(K)(x, encoder)
    table = encoder.weight
    torch.testing.assert_close(weighted_sums(table, codes.features, codes.offsets, codes.values), dense(codes) @ table)
    dots = dot_products(x, codes.rows, codes.offsets, table, codes.features)
    torch.testing.assert_close(dots, (x @ table.t())[codes.rows, codes.features], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n_features", [F, 40_000])
def test_order_by_feature_groups_the_entries_and_keeps_their_row_order(n_features):
    features = torch.randint(n_features, (500,), generator=torch.Generator().manual_seed(0))
    order = order_by_feature(features, n_features)
    assert torch.equal(order.entries, features.argsort(stable=True))
    assert torch.equal(order.offsets.diff(), torch.bincount(features, minlength=n_features))


def test_codes_from_flat_indices_have_the_rows_offsets():
    codes = Codes.from_flat(torch.tensor([1, 3, 9]), torch.ones(3), n_rows=4, n_features=4)
    assert codes.rows.tolist() == [0, 0, 2]
    assert codes.features.tolist() == [1, 3, 1]
    assert codes.offsets.tolist() == [0, 2, 2, 3, 3]
