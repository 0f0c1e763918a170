"""Encoder projection, label-free steering and the resampled probe: against slow definitions, and where nothing is."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from experiments.disentanglement import baselines, rivals
from experiments.disentanglement.baselines import resampled_probe
from experiments.disentanglement.protocol import Part, ProtocolError
from experiments.disentanglement.rivals import (
    EncoderProjection,
    TrustedReconstruction,
    label_free_settings,
    projections,
    reconstruction_loss,
)
from experiments.disentanglement.suppression import suppress
from lib import SAEConfig, load_encoder
from lib.sae.model import SAE

SITE, D = "6.resid_post", 192
SELECTION = Part("selection", SimpleNamespace(name="t"))


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("tiny", device="cpu")


def dictionary(**config) -> SAE:
    """An SAE whose encoder is not its decoder, and whose biases are not zero."""
    torch.manual_seed(0)
    sae = SAE(SAEConfig(kind="topk", width=64, k=8, **config), D).requires_grad_(False)
    sae.W_enc += 0.1 * torch.randn(D, 64)
    sae.b_enc += 0.1 * torch.randn(64)
    sae.b_dec += torch.randn(D)
    return sae


@pytest.fixture
def x():
    return 3 * torch.randn(2, 50, D, generator=torch.Generator().manual_seed(1))


def edited(setting, x, encoder):
    (intervention,) = setting.variant
    return intervention.edit(x, encoder)


class TestEncoderProjection:
    def test_it_takes_out_what_least_squares_finds_and_the_features_read_their_bias(self, encoder, x):
        sae, features = dictionary(), [3, 17, 40]
        (setting,) = projections("greedy", SITE, sae, features, [3])
        found = edited(setting, x, encoder)
        directions = sae.W_enc[:, features]
        shift = (x - sae.b_dec).reshape(-1, D).T
        expected = x - (directions @ torch.linalg.lstsq(directions, shift).solution).T.reshape(x.shape)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        read = sae.pre_activations(found)[..., features]
        torch.testing.assert_close(read, sae.b_enc[features].expand_as(read), rtol=1e-3, atol=1e-3)

    def test_it_is_not_what_suppression_does(self, encoder, x):
        sae = dictionary()
        (setting,) = projections("greedy", SITE, sae, [3, 17], [2])
        (suppression,) = suppress(sae, SITE, [3, 17])
        assert not torch.allclose(edited(setting, x, encoder), suppression.edit(x, encoder), atol=1e-2)

    def test_of_a_normalised_input_the_normalised_is_projected(self, encoder, x):
        sae = dictionary(input_norm="layer_norm")
        (setting,) = projections("greedy", SITE, sae, [3, 17], [2])
        mean, spread = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
        basis = torch.linalg.qr(sae.W_enc[:, [3, 17]]).Q
        inner = (x - mean) / spread - sae.b_dec
        expected = x - spread * (inner @ basis @ basis.T)
        torch.testing.assert_close(edited(setting, x, encoder), expected, rtol=1e-4, atol=1e-4)

    def test_where_the_encoder_reads_nothing_nothing_changes(self, encoder):
        sae = dictionary()
        (setting,) = projections("greedy", SITE, sae, [3, 17], [2])
        at_rest = sae.b_dec.expand(1, 50, D)
        torch.testing.assert_close(edited(setting, at_rest, encoder), at_rest)

    def test_equal_directions_are_one(self):
        sae = dictionary()
        sae.W_enc[:, 5] = 2 * sae.W_enc[:, 3]
        assert EncoderProjection(sae, [3, 5]).n_features == 1

    def test_counts_end_at_the_ranking_and_the_plan_names_features(self):
        found = projections("greedy", SITE, dictionary(), [9, 4, 1], [2, 8, 40])
        assert [setting.features for setting in found] == [(9, 4), (9, 4, 1)]
        assert found[0].plan()["features"] == [9, 4]
        assert projections("greedy", SITE, dictionary(), [], [2]) == []


class TestLabelFreeSteering:
    def test_active_features_are_amplified_token_by_token_where_the_loss_is_small(self, encoder, x):
        sae, gain = dictionary(), 0.5
        most = float(reconstruction_loss(sae, x, sae.encode(x)).median())
        (intervention,) = suppress(TrustedReconstruction(sae, most), SITE, range(D), -gain)
        found = intervention.edit(x, encoder)
        moved = 0
        for p in range(2):
            for t in range(50):
                codes = sae.encode(x[p, t])
                written = sum(codes[j] * sae.W_dec[j] for j in codes.nonzero()[:, 0].tolist())
                trusted = float(((written + sae.b_dec - x[p, t]) ** 2).mean()) <= most
                expected = x[p, t] + gain * written if trusted else x[p, t]
                torch.testing.assert_close(found[p, t], expected, rtol=1e-4, atol=1e-4)
                moved += trusted
        assert moved == 50

    def test_where_no_reconstruction_is_trusted_nothing_changes(self, encoder, x):
        (intervention,) = suppress(TrustedReconstruction(dictionary(), -1.0), SITE, range(D), -2.0)
        assert torch.equal(intervention.edit(x, encoder), x)

    def test_where_no_feature_is_active_nothing_changes(self, encoder, x):
        sae = dictionary()
        sae.b_enc -= 1e4
        (intervention,) = suppress(TrustedReconstruction(sae, 1e9), SITE, range(D), -2.0)
        assert torch.equal(intervention.edit(x, encoder), x)

    def test_nine_tenths_of_the_selection_s_tokens_are_trusted_and_labels_take_no_part(self, encoder, x, monkeypatch):
        sae, rows = dictionary(), x.flatten(0, 1)
        monkeypatch.setattr(rivals, "token_rows", lambda part, runner, sites: {SITE: (rows, None)})
        found = label_free_settings(SELECTION, None, {SITE: sae}, [0.5, 1.0])
        assert [setting.strength for setting in found] == [-0.5, -1.0]
        assert found[0].plan()["features"] == "all"
        changed = (edited(found[0], x, encoder) != x).any(-1).double().mean()
        assert float(changed) == pytest.approx(0.9, abs=0.011)
        assert found[0].exact, "no other strength is tried"

    def test_test_pictures_are_refused(self):
        with pytest.raises(ProtocolError, match="was given the test part"):
            label_free_settings(Part("test", SimpleNamespace(name="t")), None, {SITE: dictionary()}, [1.0])


class TestResampledProbe:
    @staticmethod
    def runner(group, seed=0):
        """Three classes in 12 dimensions; a class is told by one dimension, the group by another."""
        generator = torch.Generator().manual_seed(seed)
        group = torch.as_tensor(group)
        truth = torch.arange(len(group)) % 3
        embeddings = torch.randn(len(group), 12, generator=generator)
        embeddings[torch.arange(len(group)), truth] += 1.5
        embeddings[:, 5] += 2.0 * group
        return SimpleNamespace(
            group=group, truth=truth, embeddings=lambda variants: embeddings[None],
            encoder=SimpleNamespace(d_embed=12), zero_shot=SimpleNamespace(n_classes=3),
        )  # fmt: skip

    def test_of_groups_of_one_size_it_is_logistic_regression(self):
        runner, penalty = self.runner(np.arange(60) % 2), 0.1
        found = resampled_probe(SELECTION, runner, penalty, steps=500)
        x = F.normalize(runner.embeddings(None)[0], dim=-1).numpy()
        strength = 3 * 12 / (2 * penalty * len(x))  # of sklearn's sum over pictures and half of the squares
        slow = LogisticRegression(C=strength, fit_intercept=False, tol=1e-8, max_iter=5000).fit(x, runner.truth)
        np.testing.assert_allclose(found.numpy(), slow.coef_, atol=0.02)

    def test_every_group_counts_as_much_as_the_smallest(self, monkeypatch):
        shares = []
        monkeypatch.setattr(
            baselines, "_fitted", lambda runner, share, *rest: shares.append(share) or torch.zeros(3, 12)
        )
        runner = self.runner([0] * 50 + [1] * 7)
        resampled_probe(SELECTION, runner, 0.1, draws=4)
        assert all(int((share[runner.group == g] > 0).sum()) == 7 for share in shares for g in (0, 1))
        assert all(float(share.sum()) == pytest.approx(1) for share in shares)
        assert len({tuple((share > 0).tolist()) for share in shares}) == 4, "each draw draws others"

    def test_held_tightly_to_zero_it_prefers_no_class(self):
        found = resampled_probe(SELECTION, self.runner(np.arange(30) % 2), 1e6)
        assert float(found.abs().max()) < 1e-4

    def test_test_pictures_are_refused(self):
        with pytest.raises(ProtocolError, match="was given the test part"):
            resampled_probe(Part("test", SimpleNamespace(name="t")), None, 1.0)
