import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import lib.sae.selection
from lib.activations.extraction import ActivationStore
from lib.sae.model import SAEConfig
from lib.sae.selection import (
    BatchTopK,
    Codes,
    PreActivations,
    TopK,
    dot_products,
    flat_indices,
    float32_sums,
    order_by_feature,
    weighted_sums,
)
from lib.sae.training import Run, Setup

D, F, B, K = 24, 200, 64, 6


def encoder_and_input(dtype=None, seed=0, f=F):
    generator = torch.Generator().manual_seed(seed)
    weight, bias = torch.randn(f, D, generator=generator), torch.randn(f, generator=generator)
    return PreActivations(weight, bias, dtype), torch.randn(B, D, generator=generator)


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
    encoder = PreActivations(torch.ones(F, 1), torch.zeros(F))
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


def rounded_against(d, seed, value):
    """x and w (d,) whose product is about `value` |x||w| and falls in bfloat16 as far below it as it can, 2^-7 |x||w|.

    Components of 1 + 2^-8 are ties that round down to 1; a little more rounds up to 1 + 2^-7. Where the product of two
    counts up, both round down; where it counts down, both round up.
    """
    down, up = 1 + 2.0**-8, 1 + 2.0**-8 + 2.0**-20
    counts_up = torch.randperm(d, generator=torch.Generator().manual_seed(seed)) < d * (1 + value) / 2
    return torch.where(counts_up, down, up), torch.where(counts_up, down, -up)


@pytest.mark.parametrize("scale", [2.0**-60, 2.0**-10, 1.0, 2.0**30])
@pytest.mark.parametrize("value", [0.002, 0.03, 0.3, 0.487])
@pytest.mark.parametrize("d", [64, 768])
def test_screening_keeps_a_latent_that_rounding_moves_as_far_down_as_it_can(d, value, scale):
    pairs = [rounded_against(d, seed, value) for seed in range(8)]
    x, weight = (torch.stack(side) for side in zip(*pairs, strict=True))
    x, weight, bias = scale * x, weight / 32, torch.zeros(8)
    pre = PreActivations(weight, bias).dense(x)
    for i in range(8):
        level = float(pre[i, i]) - 1e-5 * abs(float(pre[i, i]))
        flat, _ = PreActivations(weight, bias, torch.bfloat16).above(x[i : i + 1], level)
        assert i in flat.tolist()
        hat = float(x[i].bfloat16().double() @ weight[i].bfloat16().double())
        assert level - hat > 0.99 * 2.0**-7 * float(x[i].norm() * weight[i].norm())  # it was close to the worst


def cut_off_sum(left, right, out):
    """A product whose sums are cut off after each addition, and whose result is: the worst of faithful rounding."""

    def cut(x, bits):
        scale = torch.exp2(x.abs().clamp(min=1e-300).log2().floor() - bits)
        return torch.trunc(x / scale) * scale

    total = torch.zeros(left.shape[0], right.shape[1], dtype=torch.double)
    for i in range(left.shape[1]):
        total = cut(total + left[:, i : i + 1].double() * right[i : i + 1].double(), 23)
    return out.copy_(cut(total, 7))


@pytest.mark.parametrize("seed", range(3))
def test_screening_is_exact_also_where_the_machine_cuts_off_instead_of_rounding(seed, monkeypatch):
    generator = torch.Generator().manual_seed(seed)
    weight, bias = torch.randn(300, 96, generator=generator), 0.1 * torch.randn(300, generator=generator)
    x = torch.randn(20, 96, generator=generator)
    pre = PreActivations(weight, bias).dense(x)
    monkeypatch.setattr(lib.sae.selection.torch, "mm", cut_off_sum)
    for level in pre.flatten()[:: 6000 // 40].tolist():  # each just above a value that is there
        level *= 1 - 1e-5 if level > 0 else 1 + 1e-5
        flat, _ = PreActivations(weight, bias, torch.bfloat16).above(x, level)
        certain = (pre > level + 1e-5).view(-1).nonzero().squeeze(1)
        assert set(certain.tolist()) <= set(flat.tolist())


CUT_OFF = {
    "from 1 + 2^-7 - 2^-14, as the product is rounded": [1.0, 2.0**-7, -(2.0**-14)],
    "at each addition, and then as the product is rounded": [1.0, 2.0**-7 - 2.0**-15, *[2.0**-23 - 2.0**-31] * 1022],
}


@pytest.mark.parametrize("lost", CUT_OFF)
def test_screening_keeps_a_product_of_exact_operands_whatever_its_sums_lose(lost, monkeypatch):
    """bfloat16 holds the operands exactly: what is lost, to 1, is lost by cutting off; the level stays just below."""
    weight = torch.tensor([CUT_OFF[lost]])
    assert torch.equal(weight.bfloat16().float(), weight)
    monkeypatch.setattr(lib.sae.selection.torch, "mm", cut_off_sum)
    level = float(weight.double().sum()) * (1 - 1e-5)
    screened = PreActivations(weight, torch.zeros(1), torch.bfloat16)
    assert screened.above(torch.ones_like(weight), level)[0].tolist() == [0]


@pytest.mark.parametrize(("rows", "latents"), [(1e-30, 1.0), (1e-20, 1e-20), (1.0, 1e-42), (1e15, 1e15), (1e30, 1e-30)])
def test_screening_is_exact_for_very_small_and_very_large_numbers(rows, latents):
    encoder, x = encoder_and_input(torch.bfloat16)
    encoder.weight.mul_(latents)
    encoder.bias.zero_()
    x = x * rows
    pre = torch.mm(x.double(), encoder.weight.double().t())
    level = float(pre.flatten().topk(500).values.min()) * (1 - 1e-3)
    flat, _ = encoder.above(x, level)
    assert set((pre > level * (1 + 1e-3)).view(-1).nonzero().squeeze(1).tolist()) <= set(flat.tolist())


@pytest.mark.parametrize("large", [3.4e38, -3.4e38, 1e25])
def test_screening_is_exact_where_a_norm_overflows(large):
    """A number that becomes infinity in bfloat16 times a weight of zero is no number, and above nothing."""
    weight, x = torch.tensor([[0.0, 1.0], [0.0, -1.0]]), torch.tensor([[large, 5.0], [1.0, 2.0]])
    found = [PreActivations(weight, torch.zeros(2), dtype).above(x, 1.0) for dtype in (None, torch.bfloat16)]
    for flat, values in found:
        assert flat.tolist() == [0, 2]
        assert values.tolist() == [5, 2]


def test_a_large_bias_does_not_hide_what_rounding_brings_above_the_level():
    """The level less the bias is nearly 0, and the rounding of both is not."""
    for dtype in (None, torch.bfloat16):
        encoder, x = encoder_and_input(dtype)
        encoder.bias.fill_(1000.0)
        pre = torch.mm(x, encoder.weight.t()) + encoder.bias
        level = float(pre.flatten().median())
        flat, _ = encoder.above(x, level)
        assert torch.equal(flat, (pre > level).view(-1).nonzero().squeeze(1))


def test_products_on_cuda_are_summed_in_float32_and_the_setting_comes_back():
    settings = torch.backends.cuda.matmul
    before = settings.allow_bf16_reduced_precision_reduction
    with float32_sums(torch.device("cuda")):
        assert not settings.allow_bf16_reduced_precision_reduction
    assert settings.allow_bf16_reduced_precision_reduction == before


class Waits(TorchDispatchMode):
    """Counts the operators whose result a CPU has to wait for, were their tensors on a GPU."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        by_mask = func is torch.ops.aten.index.Tensor and any(i is not None and i.dtype == torch.bool for i in args[1])
        self.count += by_mask or func.overloadpacket.__name__ in ("nonzero", "_local_scalar_dense", "masked_select")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["batchtopk", "topk"])
def test_a_step_of_a_wide_sae_seldom_waits_for_a_gpu(kind, monkeypatch):
    """F = 65,536 with the chunks of a GPU: one product, and few numbers that the CPU must know."""
    monkeypatch.setitem(lib.sae.selection.MAX_ELEMENTS, "cpu", lib.sae.selection.MAX_ELEMENTS["cuda"])
    monkeypatch.setattr(lib.sae.selection, "flat_indices", lambda hits: hits.view(-1).nonzero().squeeze(1))
    config = SAEConfig(kind=kind, width=65_536, k=4, batch_size=256, normalize=False, encoder_dtype="float32")
    store = ActivationStore.from_tensor(torch.randn(512, 8, generator=torch.Generator().manual_seed(0)))
    run = Run(config, Setup(store, config, "cpu"), None, None)
    x = store[:256]
    for _ in range(3):
        run.advance(x)
    with Waits() as waits:
        run.advance(x)
    assert waits.count <= 10


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
    order, offsets = order_by_feature(features, n_features)
    assert torch.equal(order, features.argsort(stable=True))
    assert torch.equal(offsets.diff(), torch.bincount(features, minlength=n_features))


def test_codes_from_flat_indices_have_the_rows_offsets():
    codes = Codes.from_flat(torch.tensor([1, 3, 9]), torch.ones(3), n_rows=4, n_features=4)
    assert codes.rows.tolist() == [0, 0, 2]
    assert codes.features.tolist() == [1, 3, 1]
    assert codes.offsets.tolist() == [0, 2, 2, 3, 3]
