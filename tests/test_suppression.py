"""What suppression does, against edits by hand; what chooses features, against slow definitions."""

import pytest
import torch
from torch.nn import functional as F

from experiments.disentanglement.baselines import balanced_probe, leace_eraser, mean_difference_eraser, token_rows
from experiments.disentanglement.feature_choice import (
    by_attribution,
    by_difference,
    by_steerability,
    feature_stats,
    greedy_ranking,
    ranked,
    rankings,
    wrong_class_margin,
)
from experiments.disentanglement.protocol import Protocol
from experiments.disentanglement.suppression import (
    Setting,
    every_subset,
    outcomes,
    runners_of,
    subset_results,
    suppress,
    worst_group,
)
from experiments.disentanglement.tasks import birds_task, ordinary_tasks
from lib import SAEConfig, load_encoder
from lib.sae.model import SAE
from steering.interventions import Neurons

SITE = "6.resid_post"


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("tiny", device="cpu")


@pytest.fixture(scope="module")
def sae(encoder):
    torch.manual_seed(0)
    return SAE(SAEConfig(kind="topk", width=64, k=8), encoder.d_model).requires_grad_(False)


@pytest.fixture(scope="module")
def part():
    return Protocol(birds_task("menagerie:waterbirds[:60]"), (16, 4, 4)).selection


@pytest.fixture(scope="module")
def runner(encoder, part):
    return runners_of(encoder, {"": part.task})[""]


@pytest.fixture(scope="module")
def seen(part, runner, sae):
    return feature_stats(part, runner, {SITE: [sae]})[SITE][0]


class TestSuppress:
    @pytest.mark.parametrize("strength", [1.0, 1.5])
    def test_it_takes_a_share_of_each_code_out_and_keeps_the_rest(self, encoder, sae, strength):
        x = torch.randn(2, encoder.n_tokens, encoder.d_model, generator=torch.Generator().manual_seed(0))
        (intervention,) = suppress(sae, SITE, [3, 5], strength)
        codes = sae.encode(x)
        expected = x - strength * (codes[..., 3:4] * sae.W_dec[3] + codes[..., 5:6] * sae.W_dec[5])
        torch.testing.assert_close(intervention.edit(x, encoder), expected)

    def test_no_feature_is_the_model_as_it_is(self, sae, runner):
        assert suppress(sae, SITE, []) == ()
        plain = torch.cat([runner.encoder.run(pixels, ["proj"])["proj"] for pixels in runner.pixels])
        torch.testing.assert_close(runner.embeddings([()])[0], plain)

    def test_many_variants_are_what_the_steered_encoder_gives_and_leave_no_trace(self, encoder, sae, runner):
        variants = [suppress(sae, SITE, [1, 2]), suppress(Neurons(encoder.d_model), SITE, [7], 1.5), ()]
        found = runner.embeddings(variants)
        for variant, values in zip(variants, found, strict=True):
            with encoder.steered(*variant):
                expected = torch.cat([encoder.run(pixels, ["proj"])["proj"] for pixels in runner.pixels])
            torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-4)
        assert not any(block._forward_hooks for block in encoder.tower.blocks)


class TestEvidence:
    def test_an_attribution_foretells_a_small_change(self, sae, runner, seen):
        """The mistake falls by strength times attribution, to first order."""
        active = seen.attribution.abs().sum(0).topk(3).indices.tolist()
        step = 1e-3
        moved = runner.embeddings([(), *(suppress(sae, SITE, [j], step) for j in active)])
        wrong = torch.stack(
            [wrong_class_margin(runner.zero_shot.logits(e), runner.truth, runner.suggested) for e in moved]
        )
        for i, j in enumerate(active, start=1):
            torch.testing.assert_close((wrong[0] - wrong[i]) / step, seen.attribution[:, j], rtol=0.1, atol=0.02)

    def test_codes_are_means_over_tokens_and_the_largest_is_on_any(self, encoder, sae, runner, seen):
        codes = sae.encode(encoder.run(runner.pixels[0], [SITE])[SITE])
        torch.testing.assert_close(seen.codes, codes.mean(1), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(seen.largest, codes.amax((0, 1)), rtol=1e-4, atol=1e-4)

    def test_of_signed_codes_the_largest_keeps_its_sign(self, encoder, part, runner):
        (found,) = feature_stats(part, runner, {SITE: [Neurons(encoder.d_model)]})[SITE]
        values = encoder.run(runner.pixels[0], [SITE])[SITE].flatten(0, 1)
        for j in range(5):
            column = values[:, j]
            assert float(found.largest[j]) == pytest.approx(float(column[column.abs().argmax()]), rel=1e-4)

    def test_a_mistake_is_the_lure_where_it_is_wrong_and_else_the_nearest_other(self):
        logits = torch.tensor([[3.0, 1.0, 2.0]] * 3)
        found = wrong_class_margin(logits, torch.tensor([0, 0, 1]), torch.tensor([1, 0, -1]))
        assert found.tolist() == [1 - 3, 2 - 3, 3 - 1]


class TestRules:
    def test_difference_is_that_of_means_within_classes(self):
        generator = torch.Generator().manual_seed(0)
        codes = torch.rand(40, 6, generator=generator)
        truth, spurious = torch.arange(40) % 3, torch.arange(40) % 2
        expected = []
        for j in range(6):
            gaps = []
            for c in range(3):
                of = {0: [], 1: []}
                for n in range(40):
                    if truth[n] == c:
                        of[int(spurious[n])].append(float(codes[n, j]))
                gaps.append(sum(of[1]) / len(of[1]) - sum(of[0]) / len(of[0]))
            expected.append(abs(sum(gaps) / 3))
        assert by_difference(codes, spurious, truth).tolist() == pytest.approx(expected, abs=1e-6)

    def test_a_difference_needs_pictures_with_and_without(self):
        with pytest.raises(ValueError, match="give some of both"):
            by_difference(torch.rand(4, 2), torch.zeros(4), torch.zeros(4))

    def test_attribution_counts_only_pictures_that_are_misled(self):
        attribution = torch.tensor([[1.0], [10.0], [100.0], [3.0]])
        found = by_attribution(attribution, torch.tensor([0, 0, 1, 1]), torch.tensor([1, 0, -1, 0]))
        assert found.tolist() == [2.0]

    def test_greedy_takes_what_helps_the_worst_group_and_never_the_same_twice(self):
        attribution = torch.zeros(4, 3)
        attribution[2:, 1] = 2.0  # helps the bad group
        attribution[:2, 1] = -0.5  # at a small price
        attribution[:2, 2] = 3.0  # helps the group that is well already
        mistaken = torch.tensor([-3.0, -3.0, 1.0, 1.0])
        assert greedy_ranking(attribution, mistaken, torch.tensor([0, 0, 1, 1]), 3)[0] == 1
        assert sorted(greedy_ranking(attribution, mistaken, torch.tensor([0, 0, 1, 1]), 9)) == [0, 1, 2]

    def test_greedy_is_the_slow_search_on_linear_mistakes(self):
        generator = torch.Generator().manual_seed(3)
        attribution, mistaken = torch.randn(30, 5, generator=generator), torch.randn(30, generator=generator)
        group, chosen = torch.arange(30) % 3, []
        for _ in range(3):
            scores = {}
            for j in set(range(5)) - set(chosen):
                left = mistaken - attribution[:, [*chosen, j]].sum(1)
                right = torch.sigmoid(-left)
                means = [float(right[group == g].mean()) for g in range(3)]
                scores[j] = min(means) + 0.1 * sum(means) / 3
            chosen.append(max(scores, key=scores.get))
        assert greedy_ranking(attribution, mistaken, group, 3) == chosen

    def test_steerability_is_the_squared_mean_change_on_the_texts_that_name_the_attribute(
        self, encoder, sae, part, runner, seen
    ):
        scores = by_steerability(part, runner, sae, SITE, seen, n_candidates=3, n_pictures=len(runner))
        tried = ranked(scores, 64)
        assert sorted(tried) == sorted(seen.codes.mean(0).topk(3).indices.tolist())
        texts = F.normalize(encoder.embed_texts(list(part.task.spurious_texts)), dim=-1)
        vocabulary = torch.cat([runner.zero_shot.prototypes, texts])

        def said(strength, j):
            total = 0
            for pixels in runner.pixels:
                values = encoder.run(pixels, [SITE])[SITE]
                wanted = torch.full_like(sae.encode(values)[..., j], strength) - sae.encode(values)[..., j]
                with encoder.steered():
                    edited = encoder.tower.blocks[7](values + wanted[..., None] * sae.W_dec[j])
                    pooled = encoder.model.visual.ln_post(edited[:, 0]) @ encoder.model.visual.proj
                total = total + (encoder.logit_scale * F.normalize(pooled, dim=-1) @ vocabulary.T).softmax(-1).sum(0)
            return total / len(runner)

        plain = runner.embeddings([()])[0]
        base = (encoder.logit_scale * F.normalize(plain, dim=-1) @ vocabulary.T).softmax(-1).mean(0)
        j = tried[0]
        moved = (said(float(seen.largest[j]), j) - base)[-len(texts) :]
        assert float(scores[j]) == pytest.approx(float(moved.square().sum()), rel=1e-2, abs=1e-6)


def test_where_all_pictures_have_the_attribute_nothing_differs_by_it(part, runner, sae, seen, monkeypatch):
    monkeypatch.setattr(runner, "spurious", torch.ones_like(runner.spurious))
    found = rankings(part, runner, sae, SITE, seen, 2, n_candidates=2, n_pictures=1)
    assert list(found) == ["steerability", "attribution", "greedy"]


def test_outcomes_are_what_zero_shot_says_of_every_setting_and_of_the_tasks_beside(encoder, sae, runner):
    usual = runners_of(encoder, {n: t.subset(range(6)) for n, t in ordinary_tasks("menagerie:val[:20]").items()})
    settings = [Setting("a", SITE, sae, (0, 1, 2)), Setting("a", SITE, sae, ())]
    found = outcomes(settings, runner, usual)
    for setting, outcome in zip(settings, found, strict=True):
        assert outcome.correct.tolist() == runner.correct([setting.variant])[0].tolist()
        for name, other in usual.items():
            assert outcome.beside[name].tolist() == other.correct([setting.variant])[0].tolist()
        both = [(a + b) / 2 for a, b in zip(*(outcome.beside[n].int().tolist() for n in usual), strict=True)]
        assert outcome.mean_beside(usual).tolist() == both
    assert worst_group(torch.tensor([True, False, True]), torch.tensor([0, 0, 1])) == 0.5


def test_tasks_about_the_same_pictures_read_them_once(encoder):
    tasks = {name: task.subset(range(4)) for name, task in ordinary_tasks("menagerie:val[:20]").items()}
    found = runners_of(encoder, tasks | {"others": tasks["species"].subset([1, 0])})
    assert found["species"].pixels is found["habitat"].pixels
    assert found["others"].pixels is not found["species"].pixels


def test_every_subset_is_what_suppressing_it_gives(sae, runner, seen):
    features = tuple(seen.codes.mean(0).topk(3).indices.tolist())
    found = every_subset(Setting("", SITE, sae, features), runner)
    for number in range(8):
        some = [j for i, j in enumerate(features) if number >> i & 1]
        expected = runner.embeddings([suppress(sae, SITE, some)])[0]
        torch.testing.assert_close(found[number], expected, rtol=1e-4, atol=1e-4)


def test_subset_results_hold_them_for_the_panel(encoder, sae, runner, seen):
    features = tuple(seen.codes.mean(0).topk(2).indices.tolist())
    usual = runners_of(encoder, {n: t.subset(range(4)) for n, t in ordinary_tasks("menagerie:val[:20]").items()})
    named = [{"id": j, "name": f"f{j}"} for j in features]
    found = subset_results(Setting("", SITE, sae, features), runner, usual, named, [0, 2])
    assert found.predictions.shape == (4, len(runner))
    assert found.predictions[0].tolist() == runner.zero_shot.predict(runner.embeddings([()])[0]).tolist()
    assert found.ordinary_count == 4


class TestErasure:
    @pytest.fixture
    def rows(self):
        """Rows whose first two coordinates tell the concept, one of them with much noise along the others."""
        generator = torch.Generator().manual_seed(0)
        concept = torch.arange(600) % 2
        x = torch.randn(600, 6, generator=generator) @ torch.randn(6, 6, generator=generator)
        x[:, 0] += 3 * concept
        return x, concept

    @pytest.mark.parametrize("make", [mean_difference_eraser, leace_eraser])
    def test_afterwards_the_means_are_the_same(self, rows, make):
        x, concept = rows
        eraser = make(x, concept)
        left = x - eraser.encode(x) @ eraser.W_dec
        gap = left[concept == 1].mean(0) - left[concept == 0].mean(0)
        assert float(gap.abs().max()) < 0.02 * float((x[concept == 1].mean(0) - x[concept == 0].mean(0)).norm())

    def test_leace_changes_less_than_the_mean_difference(self, rows):
        """In the metric that it minimises: that of the data's own covariance."""
        x, concept = rows
        inverse = torch.linalg.inv(torch.cov(x.T))
        change = {}
        for make in (mean_difference_eraser, leace_eraser):
            delta = make(x, concept).encode(x) @ make(x, concept).W_dec
            change[make] = float(((delta @ inverse) * delta).sum(1).mean())
        assert change[leace_eraser] < change[mean_difference_eraser]

    def test_an_eraser_is_suppressed_like_a_feature(self, encoder, part, runner):
        rows, concept = token_rows(part, runner, [SITE])[SITE]
        assert len(rows) == len(concept) == len(runner) * encoder.n_tokens
        eraser = mean_difference_eraser(rows, concept)
        (intervention,) = suppress(eraser, SITE, [0])
        edited = intervention.edit(rows[:50][None], encoder)[0]
        torch.testing.assert_close(eraser.encode(edited), torch.zeros(50, 1), atol=1e-3, rtol=0)


class TestTheProbe:
    def test_held_tightly_it_is_zero_shot(self, part, runner):
        weights = balanced_probe(part, runner, anchor_weight=1e6)
        texts = runner.zero_shot
        for c in range(texts.n_classes):
            mean = F.normalize(texts.prototypes[texts.class_of == c].sum(0), dim=0) * texts.scale
            torch.testing.assert_close(weights[c], mean, rtol=1e-2, atol=1e-2)

    def test_left_free_it_learns_its_pictures(self, part, runner):
        weights = balanced_probe(part, runner, anchor_weight=1e-6)
        embeddings = F.normalize(runner.embeddings([()])[0], dim=-1)
        assert ((embeddings @ weights.T).argmax(1) == runner.truth).double().mean() >= 0.9
