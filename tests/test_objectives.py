import pytest
import torch

from lib.sae.model import SAE, SAEConfig
from lib.sae.objectives import OBJECTIVES

D, F, B, K = 24, 160, 96, 6
KINDS = ("relu", "topk", "batchtopk", "matryoshka")


def make(kind, **fields):
    sae = SAE(SAEConfig(kind=kind, width=F, k=K, dead_after=1000, **fields), D)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in (sae.W_enc, sae.b_enc, sae.b_dec):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    x = torch.randn(B, D, generator=generator) / D**0.5
    return sae, x


def dense_codes(sae, x):
    codes = ((x - sae.b_dec) @ sae.W_enc + sae.b_enc).relu()
    if sae.config.kind == "relu":
        return codes
    rows = codes if sae.config.kind == "topk" else codes.view(1, -1)
    top = rows.topk(K * B // len(rows), dim=1)
    return torch.zeros_like(rows).scatter(1, top.indices, top.values).view_as(codes)


def slow_loss(sae, x, dead=None):
    """The definition: every prefix decoded anew, plus the auxiliary loss of the dead latents."""
    codes, config = dense_codes(sae, x), sae.config
    ends = config.group_ends(F)
    errors = [codes[:, :end] @ sae.W_dec[:end] + sae.b_dec - x for end in ends]
    loss = sum(error.square().sum(1).mean() for error in errors)
    if config.kind == "matryoshka":
        loss = loss / {"paper": 1, "mean": len(ends), "code": len(ends) ** 2}[config.matryoshka_loss]
    if config.kind == "relu":
        loss = loss + config.l1 * codes.sum(1).mean()
    if dead is not None:
        residual = -errors[-1].detach()
        pre = ((x - sae.b_dec) @ sae.W_enc + sae.b_enc).relu()[:, dead]
        top = pre.topk(min(config.aux_k, len(dead)), dim=1)
        guess = torch.zeros_like(pre).scatter(1, top.indices, top.values) @ sae.W_dec[dead]
        variance = (residual - residual.mean(0)).square().sum(1).mean()
        loss = loss + config.aux_alpha * (guess - residual).square().sum(1).mean() / variance
    return loss


def gradients(sae):
    return {name: parameter.grad.clone() for name, parameter in sae.named_parameters()}


def assert_gradients_equal(ours, sae, loss):
    sae.zero_grad()
    loss.backward()
    for name, parameter in sae.named_parameters():
        difference = (ours[name] - parameter.grad).norm() / parameter.grad.norm()
        assert difference <= 1e-5, f"{name}: {difference:.1e}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_dense_autograds(kind, dtype):
    sae, x = make(kind)
    objective = OBJECTIVES[kind](sae, dtype)
    for scale in (1.0, 1.1):  # the second batch selects from a trailing level
        objective.backward(scale * x)
        loss = slow_loss(sae, scale * x)
        assert objective.report()["loss"] == pytest.approx(loss.item(), rel=1e-5)
        assert_gradients_equal(gradients(sae), sae, loss)


@pytest.mark.parametrize("aux_k", [4, 50])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_with_dead_latents_equal_dense_autograds(kind, aux_k):
    sae, x = make(kind, aux_k=aux_k)
    dead = torch.arange(3, F, 7)
    objective = OBJECTIVES[kind](sae, torch.float32)
    objective.since_fired[dead] = 1000
    objective.backward(x)
    loss = slow_loss(sae, x, dead)
    assert objective.report()["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert_gradients_equal(gradients(sae), sae, loss)


@pytest.mark.parametrize(("which", "divisor"), [("paper", 1), ("mean", 4), ("code", 16)])
def test_matryoshka_loss_is_the_sum_of_the_prefixes_their_mean_or_the_codes_sum_over_groups_squared(which, divisor):
    sae, x = make("matryoshka", matryoshka_loss=which)
    objective = OBJECTIVES["matryoshka"](sae, torch.float32)
    objective.backward(x)
    report, loss = objective.report(), slow_loss(sae, x)
    prefixes = sum(value for name, value in report.items() if name.startswith("mse_"))
    assert report["loss"] == pytest.approx(prefixes / divisor, rel=1e-6)
    assert_gradients_equal(gradients(sae), sae, loss)


@pytest.mark.parametrize("kind", KINDS)
def test_a_latent_counts_as_fired_when_it_has_a_code_in_the_batch(kind):
    sae, x = make(kind)
    objective = OBJECTIVES[kind](sae, torch.float32)
    for _ in range(2):
        objective.backward(x)
    fired = (dense_codes(sae, x) > 0).any(0)
    assert torch.equal(objective.since_fired, torch.where(fired, 0, 2 * B))


@pytest.mark.parametrize("kind", ["batchtopk", "matryoshka"])
def test_the_threshold_follows_the_smallest_kept_code(kind):
    sae, x = make(kind)
    objective = OBJECTIVES[kind](sae, torch.float32)
    smallest = []
    for scale in (1.0, 2.0):
        objective.backward(scale * x)
        objective.follow_threshold(0.9)
        codes = dense_codes(sae, scale * x)
        smallest.append(codes[codes > 0].min())
    torch.testing.assert_close(sae.threshold, 0.9 * smallest[0] + 0.1 * smallest[1])


def test_a_threshold_per_feature_follows_each_features_smallest_kept_code():
    sae, x = make("batchtopk", threshold="per_feature")
    objective = OBJECTIVES["batchtopk"](sae, torch.float32)
    objective.backward(x)
    objective.follow_threshold(0.9)
    codes = dense_codes(sae, x)
    smallest = torch.where(codes > 0, codes, torch.inf).amin(0)
    torch.testing.assert_close(sae.threshold, torch.where(smallest.isfinite(), smallest, -1))


@pytest.mark.parametrize("kind", KINDS)
def test_the_report_has_the_batchs_l0_and_centred_explained_variance(kind):
    sae, x = make(kind)
    objective = OBJECTIVES[kind](sae, torch.float32)
    objective.backward(x)
    codes = dense_codes(sae, x)
    error = (codes @ sae.W_dec + sae.b_dec - x).detach()
    report = objective.report()
    assert report["l0"] == pytest.approx(float((codes > 0).sum(1).float().mean()))
    assert report["mse"] == pytest.approx(float(error.square().sum(1).mean()), rel=1e-5)
    expected = 1 - float(error.square().sum() / (x - x.mean(0)).square().sum())
    assert report["explained_variance"] == pytest.approx(expected, rel=1e-4)


def test_dead_latents_that_no_picture_excites_get_no_gradient():
    sae, x = make("batchtopk", aux_k=4)
    dead = torch.arange(3, F, 7)
    with torch.no_grad():
        sae.b_enc[dead] = -100.0
    objective = OBJECTIVES["batchtopk"](sae, torch.float32)
    objective.since_fired[dead] = 1000
    objective.backward(x)
    assert not sae.W_enc.grad[:, dead].any()
    assert not sae.W_dec.grad[dead].any()
    assert_gradients_equal(gradients(sae), sae, slow_loss(sae, x, dead))
