"""MonoLoss: the score of a batch and its gradient against the definition, and what training with it does."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize, one_hot

from experiments.monoloss import batch_scores
from lib import metrics, train_sae
from lib.activations.extraction import ActivationStore
from lib.sae.config import SAEConfig
from lib.sae.selection import Codes
from tests.test_objectives_variants import score_of_pairs

B, F, E = 30, 10, 6
EVERYWHERE, DEAD, ONCE, EQUAL = 3, 4, 5, 6


def drawn(seed=0):
    """Codes (B, F), of which one latent is active on all rows, one on none, one on one, one on all alike; and rows."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.rand(B, F, generator=generator) * (torch.rand(B, F, generator=generator) < 0.3)
    codes[:, EVERYWHERE] = 0.5 + torch.rand(B, generator=generator)
    codes[:, [DEAD, ONCE]], codes[:, EQUAL] = 0, 0.7
    codes[7, ONCE] = 2
    return codes.double(), normalize(torch.randn(B, E, generator=generator).double(), dim=1)


def sparse(codes):
    flat = codes.detach().reshape(-1).nonzero().squeeze(1)
    return Codes.from_flat(flat, codes.detach().reshape(-1)[flat], *codes.shape)


def test_the_score_is_that_of_the_metric_and_of_its_definition_pair_by_pair():
    codes, unit = drawn()
    scores, _ = batch_scores(sparse(codes), unit, F)
    torch.testing.assert_close(
        scores, metrics.monosemanticity(codes, unit).double(), equal_nan=True, rtol=1e-6, atol=1e-7
    )
    without = torch.tensor([DEAD, ONCE, EQUAL])
    assert torch.equal(scores.isnan().nonzero().squeeze(1), without)
    slow = [score_of_pairs(column, unit) for column in codes[:, ~scores.isnan()].t()]
    torch.testing.assert_close(scores[~scores.isnan()], torch.stack(slow))


class Scores(torch.autograd.Function):
    @staticmethod
    def forward(ctx, codes, unit):
        scores, slope = batch_scores(sparse(codes), unit, codes.shape[1])
        ctx.save_for_backward(codes, slope)
        return scores.nan_to_num()

    @staticmethod
    def backward(ctx, upstream):
        codes, slope = ctx.saved_tensors
        kept = sparse(codes)
        dense = torch.zeros_like(codes).index_put_((kept.rows, kept.features), slope * upstream[kept.features])
        return dense, None


def test_its_gradient_is_the_difference_quotient():
    codes, unit = drawn()
    active = (codes > 0).requires_grad_(False)
    strengths = codes.clone().requires_grad_()
    some = [j for j in range(F) if j != EQUAL]  # with equal activations, the smallest step makes a score of it
    assert torch.autograd.gradcheck(lambda x: Scores.apply(x * active, unit)[some], strengths, eps=1e-7, atol=1e-5)


def test_no_array_of_pairs_is_made():
    generator = torch.Generator().manual_seed(0)
    rows, features = 200_000, torch.randint(50, (400_000,), generator=generator)
    codes = Codes(torch.arange(rows).repeat_interleave(2), features, torch.rand(400_000), torch.arange(rows + 1) * 2)
    scores, slope = batch_scores(codes, normalize(torch.randn(rows, 4, generator=generator), dim=1), 50)
    assert scores.isfinite().all()
    assert slope.isfinite().all()


CLASSES, D = 12, 32
PLAIN = SAEConfig(kind="batchtopk", width=48, k=4, steps=300, batch_size=256, dead_after=20_000, lr=0.003, log_every=50)


def pictures(rows, seed):
    """Activations (rows, D) of pictures of one class and several attributes each, and the class, one-hot."""
    world, generator = torch.Generator().manual_seed(1), torch.Generator().manual_seed(seed)
    classes = normalize(torch.randn(CLASSES, D, generator=world), dim=1)
    attributes = normalize(torch.randn(36, D, generator=world), dim=1)
    label = torch.randint(CLASSES, (rows,), generator=generator)
    present = (torch.rand(rows, 36, generator=generator) < 0.1) * torch.rand(rows, 36, generator=generator)
    noise = 0.05 * torch.randn(rows, D, generator=generator)
    return classes[label] + present @ attributes + noise, one_hot(label, CLASSES).float()


@pytest.fixture(scope="module")
def trained():
    """By kind, an SAE, what it explains of 2,000 held-out pictures, its codes of them, and their density."""
    store, x = ActivationStore.from_tensor(pictures(6000, 2)[0]), pictures(2000, 3)[0]
    configs = [PLAIN, replace(PLAIN, kind="monoloss", mono_weight=0.3)]
    saes = train_sae(store, configs, device="cpu", progress=False)
    codes = [sae.encode_sparse(x) for sae in saes]
    explained = [metrics.reconstruction(x, s.decode(c))["explained_variance"] for s, c in zip(saes, codes, strict=True)]
    return {sae.config.kind: found for sae, *found in zip(saes, saes, explained, codes, strict=True)}


def mean_score(codes, judge):
    """Of the latents that are active on 10 pictures."""
    often = metrics.sparsity(codes)["density"] * len(judge) >= 10
    return float(metrics.monosemanticity(codes, judge)[often].nanmean())


def test_it_raises_the_score_by_planted_classes_that_it_never_saw_at_the_same_l0(trained):
    (_, explained, codes), (sae, explained_with, codes_with) = trained["batchtopk"], trained["monoloss"]
    judge = pictures(2000, 3)[1]
    assert metrics.sparsity(codes_with)["l0"] == pytest.approx(metrics.sparsity(codes)["l0"], rel=0.05)
    assert mean_score(codes_with, judge) > mean_score(codes, judge) + 0.05
    assert explained_with > explained - 0.05
    losses = [row["mono_loss"] for row in sae.history]
    assert losses[-1] < losses[0]


def test_by_classes_that_say_nothing_about_the_pictures_it_gains_nothing(trained):
    """The null: the same codes, the classes of other pictures."""
    judge = pictures(2000, 3)[1][torch.randperm(2000, generator=torch.Generator().manual_seed(0))]
    plain, with_loss = (mean_score(codes, judge) for _, _, codes in trained.values())
    assert with_loss == pytest.approx(plain, abs=0.02)
    assert plain == pytest.approx(1 / CLASSES, abs=0.02)


def test_a_weight_of_zero_is_batchtopk():
    store, short = ActivationStore.from_tensor(pictures(600, 2)[0]), replace(PLAIN, steps=20)
    configs = [short, replace(short, kind="monoloss", mono_weight=0)]
    plain, other = train_sae(store, configs, device="cpu", progress=False)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
