"""Kinds beyond the papers': each loss and gradient against a slow definition, and that each finds what is there."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

import lib.sae.training
from lib.activations.extraction import ActivationStore
from lib.sae.model import SAE, SAEConfig
from lib.sae.objectives import objective_of
from lib.sae.training import evaluate, train_sae
from tests.killed_training import Killed, kill_at
from tests.sparse_world import sparse_world

D, F, B, K = 24, 96, 64, 5
SHORT = SAEConfig(width=64, k=4, steps=30, batch_size=128, dead_after=1000, log_every=10, checkpoint_every=10)
VARIANTS = {
    "jumprelu": {"l0": 0.003, "bandwidth": 0.05},
    "gated": {"l1": 0.05},
    "vsae": {"noise": 0.05, "kl": 1e-4},
    "archetypal": {"archetypes": 200},
    "monoloss": {"mono_weight": 0.1},
    "frozen_decoder": {},
    "frozen_encoder": {},
}


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def points(n):
    return drawn(n, D, seed=5) / D**0.5


def make(kind, **fields):
    """An objective whose weights are off where they begin, and a batch."""
    sae = SAE(SAEConfig(kind=kind, width=F, k=K, dead_after=1000, **VARIANTS[kind] | fields), D)
    objective = objective_of(kind)(sae, torch.float32)
    objective.start(points)
    with torch.no_grad():
        for i, (name, parameter) in enumerate(objective.parameters.items()):
            if name in ("threshold", "mixing"):
                parameter.add_(0.1 * drawn(*parameter.shape, seed=i).abs())
            else:
                parameter.add_(0.05 * drawn(*parameter.shape, seed=i))
    objective.constrain_parameters()
    return sae, objective, drawn(B, D, seed=9) / D**0.5


class Jump(torch.autograd.Function):
    """p where it exceeds t, or 1 there, with the paper's pseudo-derivatives (arXiv 2407.14435, equations 11 and 12)."""

    @staticmethod
    def forward(ctx, p, t, width, counts):
        ctx.save_for_backward(p, t)
        ctx.width, ctx.counts = width, counts
        return (p > t).float() if counts else p * (p > t)

    @staticmethod
    def backward(ctx, upstream):
        p, t = ctx.saved_tensors
        rectangle = (((p - t) / ctx.width).abs() < 0.5).float()
        height = torch.ones_like(t) if ctx.counts else t
        to_t = (-height / ctx.width * rectangle * upstream).sum(0)
        to_p = torch.zeros_like(p) if ctx.counts else (p > t) * upstream
        return to_p, to_t, None, None


def top(values, k):
    kept = values.topk(k, dim=1)
    return torch.zeros_like(values).scatter(1, kept.indices, kept.values.relu())


def squared_error(x, codes, W_dec, b_dec):
    return (codes @ W_dec + b_dec - x).square().sum(1).mean()


def jumprelu_loss(p, x, config):
    pre = (x - p["b_dec"]) @ p["W_enc"] + p["b_enc"]
    codes = Jump.apply(pre, p["threshold"], config.bandwidth, False)
    count = Jump.apply(pre, p["threshold"], config.bandwidth, True).sum(1).mean()
    return squared_error(x, codes, p["W_dec"], p["b_dec"]) + config.l0 * count


def gated_loss(p, x, config):
    centred = x - p["b_dec"]
    gate = centred @ p["W_enc"] + p["b_enc"]
    magnitude = centred @ (p["W_enc"] * p["r_mag"].exp()) + p["b_mag"]
    loss = squared_error(x, (gate > 0) * magnitude.relu(), p["W_dec"], p["b_dec"])
    loss = loss + config.l1 * gate.relu().sum(1).mean()
    return loss + squared_error(x, gate.relu(), p["W_dec"].detach(), p["b_dec"].detach())


def vsae_loss(p, x, config):
    mean = (x - p["b_dec"]) @ p["W_enc"] + p["b_enc"]
    codes = top(mean + config.noise * drawn(B, F, seed=77), config.k)
    prior = torch.distributions.Normal(0.0, config.noise)
    divergence = torch.distributions.kl_divergence(torch.distributions.Normal(mean, config.noise), prior)
    return squared_error(x, codes, p["W_dec"], p["b_dec"]) + config.kl * divergence.sum(1).mean()


def topk_loss(p, x, config):
    codes = top((x - p["b_dec"]) @ p["W_enc"] + p["b_enc"], config.k)
    return squared_error(x, codes, p["W_dec"], p["b_dec"])


def archetypal_loss(p, x, config):
    W_dec = normalize(p["mixing"] @ points(config.archetypes) + p["relaxation"], dim=1)
    return topk_loss(p | {"W_dec": W_dec}, x, config)


def monoloss_loss(p, x, config):
    pre = (x - p["b_dec"]) @ p["W_enc"] + p["b_enc"]
    codes = top(pre.view(1, -1), config.k * B).view_as(pre)
    scores = torch.stack([score_of_pairs(column, x) for column in codes.t() if (column > 0).sum() > 1])
    return squared_error(x, codes, p["W_dec"], p["b_dec"]) + config.mono_weight * (1 - scores.mean())


def score_of_pairs(activation, x):
    """The Monosemanticity Score's definition: pair by pair, activations (B,) scaled to [0, 1]."""
    scaled = (activation - activation.min()) / (activation.max() - activation.min())
    one, other = torch.triu_indices(len(x), len(x), offset=1)
    weight = scaled[one] * scaled[other]
    return (weight * torch.cosine_similarity(x[one], x[other])).sum() / weight.sum()


LOSSES = {"jumprelu": jumprelu_loss, "gated": gated_loss, "vsae": vsae_loss, "archetypal": archetypal_loss}
LOSSES |= {"monoloss": monoloss_loss}
LOSSES |= dict.fromkeys(["frozen_decoder", "frozen_encoder"], topk_loss)


@pytest.mark.parametrize("kind", VARIANTS)
def test_loss_and_gradients_equal_autograds_of_the_definition(kind, monkeypatch):
    sae, objective, x = make(kind)
    if kind == "vsae":
        monkeypatch.setattr(objective, "_draw", lambda like: drawn(*like.shape, seed=77))
    objective.backward(x)
    free = {name: p.detach().clone().requires_grad_() for name, p in objective.parameters.items()}
    loss = LOSSES[kind](sae.state_dict() | free, x, sae.config)
    loss.backward()
    assert objective.report()["loss"] == pytest.approx(loss.item(), rel=1e-5)
    for name, parameter in objective.parameters.items():
        assert parameter.grad.norm() > 0, name
        assert (parameter.grad - free[name].grad).norm() <= 1e-5 * free[name].grad.norm(), name


@pytest.mark.parametrize("kind", VARIANTS)
def test_dead_latents_learn_the_residual_in_every_kind(kind):
    sae, objective, x = make(kind, aux_k=4)
    objective.backward(x)
    before, b_dec = sae.W_enc.grad.clone(), sae.b_dec.grad.clone()
    fired = objective.since_fired == 0
    objective.memory.update(dict.fromkeys(objective.memory.keys() & {"batches"}, 0))
    dead = (~fired).nonzero().squeeze(1) if not fired.all() else torch.arange(3, F, 7)
    objective.since_fired[dead] = 1000
    objective.backward(x)
    added = sae.W_enc.grad - before
    assert objective.report()["aux_loss"] > 0
    assert added[:, dead].abs().sum() > 0
    others = [j for j in range(F) if j not in dead]
    assert added[:, others].abs().max() <= 1e-6 * before.abs().max(), "equal, but for the order of the sums"
    assert not torch.equal(sae.b_dec.grad, b_dec)


@pytest.mark.parametrize("kind", VARIANTS)
def test_what_is_dense_in_training_is_what_the_sae_encodes(kind):
    """But for vsae, which draws while it trains, and monoloss, which keeps the largest codes of the whole batch."""
    sae, objective, x = make(kind)
    objective.backward(x)
    codes = sae.encode(x)
    error = (sae.decode(codes) - x).square().sum(1).mean()
    if kind not in ("vsae", "monoloss"):
        assert objective.report()["mse"] == pytest.approx(error.item(), rel=1e-4)
        assert objective.report()["l0"] == pytest.approx(float((codes > 0).sum(1).float().mean()))


def train(store, config, **options):
    return train_sae(store, config, device="cpu", progress=False, **options)


def planted(rows=4000, d=32, concepts=48, seed=3):
    """Activations that are sums of a few known directions (concepts, d), and these."""
    generator = torch.Generator().manual_seed(seed)
    directions = normalize(torch.randn(concepts, d, generator=generator), dim=1)
    present = torch.rand(rows, concepts, generator=generator) < 3 / concepts
    strengths = present * (0.7 + 0.6 * torch.rand(rows, concepts, generator=generator))
    return ActivationStore.from_tensor(strengths @ directions), directions


LONG = {
    "jumprelu": {"l0": 0.01, "bandwidth": 0.2},
    "gated": {"l1": 0.4},
    "vsae": {"noise": 0.03, "kl": 1e-5},
    "archetypal": {"archetypes": 1000, "relaxation": 1.0},
    "monoloss": {"mono_weight": 0.01},
}


@pytest.mark.parametrize("kind", LONG)
def test_each_kind_finds_a_planted_dictionary(kind):
    store, directions = planted()
    config = replace(SHORT, kind=kind, width=64, k=4, steps=400, batch_size=256, lr=0.01, **LONG[kind])
    sae = train(store, config)
    found = (directions @ sae.W_dec.detach().t()).max(1).values
    assert (found > 0.9).float().mean() > 0.8, found
    assert evaluate(sae, store)["explained_variance"] > 0.75


@pytest.mark.parametrize(("kind", "frozen", "learned"), [
    ("frozen_decoder", "W_dec", "W_enc"), ("frozen_encoder", "W_enc", "W_dec"),
])  # fmt: skip
def test_a_frozen_half_stays_as_the_seed_drew_it_and_finds_nothing_that_the_other_half_can_find(kind, frozen, learned):
    store, directions = planted()
    config = replace(SHORT, kind=kind, steps=200, batch_size=256, lr=0.01, seed=7)
    sae, drawn_weights = train(store, config), SAE(config, 32).state_dict()
    assert torch.equal(sae.state_dict()[frozen], drawn_weights[frozen])
    for name in (learned, "b_enc", "b_dec"):
        assert not torch.equal(sae.state_dict()[name], drawn_weights[name]), name
    rows = {"W_dec": sae.W_dec, "W_enc": normalize(sae.W_enc.t(), dim=1)}[frozen]
    assert ((directions @ rows.t()).amax(1) > 0.9).sum() == 0
    plain = evaluate(train(store, replace(config, kind="topk")), store)["explained_variance"]
    assert evaluate(sae, store)["explained_variance"] < plain - 0.05


def test_every_archetype_lies_in_the_points_hull_but_for_the_relaxation():
    store = sparse_world()
    config = replace(SHORT, kind="archetypal", archetypes=200, relaxation=0.05)
    run = lib.sae.training.Run(config, lib.sae.training.Setup(store, config, "cpu"), None, None)
    for x in lib.sae.training.islice(lib.sae.training.batches(store, config, 0), 20):
        run.advance(x)
    objective = run.objective
    assert objective.mixing.min() >= 0
    torch.testing.assert_close(objective.mixing.sum(1), torch.ones(64))
    assert objective.relaxation.norm(dim=1).max() <= 0.05 + 1e-6
    atoms = objective.mixing @ objective.points + objective.relaxation
    torch.testing.assert_close(run.sae.W_dec.data, normalize(atoms, dim=1))


@pytest.mark.parametrize("kind", ["topk", "gated", "archetypal"])
def test_from_data_all_seeds_begin_alike_and_at_random_they_do_not(kind):
    store = sparse_world()
    setup = lib.sae.training.Setup(store, SHORT, "cpu")

    def first(init, seed):
        config = replace(SHORT, kind=kind, init=init, seed=seed, **VARIANTS.get(kind, {}))
        return lib.sae.training.Run(config, setup, None, None).sae

    assert torch.equal(first("data", 0).W_dec, first("data", 1).W_dec)
    assert not torch.equal(first("random", 0).W_dec, first("random", 1).W_dec)
    torch.testing.assert_close(first("data", 0).W_dec.data, normalize(setup.points(64), dim=1))
    assert torch.equal(first("data", 0).W_enc, first("data", 0).W_dec.t())


def test_archetypes_are_four_points_a_latent_or_all_that_a_small_store_has():
    whole, config = sparse_world()[:], replace(SHORT, kind="archetypal", steps=2)
    for rows, expected in ((300, 256), (100, 100)):
        setup = lib.sae.training.Setup(ActivationStore.from_tensor(whole[:rows]), config, "cpu")
        assert len(lib.sae.training.Run(config, setup, None, None).objective.points) == expected
    with pytest.raises(ValueError, match="begin from 64 rows of the data, and the store has 63"):
        train(ActivationStore.from_tensor(whole[:63]), config)


@pytest.mark.parametrize("kind", VARIANTS)
def test_a_killed_run_resumes_bit_for_bit(kind, tmp_path, monkeypatch):
    store, config = sparse_world(), replace(SHORT, kind=kind, **VARIANTS[kind])
    whole = train(store, config)

    with monkeypatch.context() as patch:
        kill_at(patch, 25)
        with pytest.raises(Killed):
            train(store, config, out=tmp_path)
    resumed = train(store, config, out=tmp_path)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_a_penalty_decides_how_many_latents_are_active():
    store = sparse_world()

    def active(kind, **penalty):
        config = replace(SHORT, kind=kind, steps=60, **VARIANTS[kind] | penalty)
        return evaluate(train(store, config), store)["l0"]

    assert active("jumprelu", l0=0.03) < 0.8 * active("jumprelu", l0=0.0003)
    assert active("gated", l1=0.3) < 0.8 * active("gated", l1=0.01)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "jumprelu", "bandwidth": 0.0}, "bandwidth must be above 0"),
        ({"kind": "vsae", "noise": 0.0}, "noise must be above 0"),
        ({"kind": "monoloss", "mono_weight": -1.0}, "mono_weight must be 0 or more"),
        ({"kind": "topk", "mono_weight": 1.0}, "mono_weight is a setting of monoloss, and topk has no use for it"),
        ({"kind": "archetypal", "relaxation": -1.0}, "relaxation must be 0 or more"),
        ({"init": "zeros"}, "init='zeros' is unknown; choose one of random, data"),
        ({"kind": "archetypal", "archetypes": 10}, "archetypes = 10 are fewer than the F = 64 latents"),
        ({"kind": "archetypal", "archetypes": 10**6}, "the store has 6000: extract more pictures"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_one_sentence(fields, message):
    with pytest.raises(ValueError, match=message):
        train(sparse_world(), replace(SHORT, **fields))
