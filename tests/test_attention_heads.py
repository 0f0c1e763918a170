"""Attention heads: against torch's own attention and blocks run by hand, on planted data and where nothing is."""

from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from experiments.disentanglement import attention_heads as heads
from experiments.disentanglement.attention_heads import (
    ablated,
    ablation,
    circuit,
    head_attributions,
    head_settings,
    heads_of,
    random_heads,
    scaled_heads,
    word_attention,
    word_patches,
)
from experiments.disentanglement.protocol import Part, Protocol, ProtocolError
from experiments.disentanglement.suppression import NOTHING, embedded, runners_of, suppress
from experiments.disentanglement.tasks import written_word_task
from lib import load_encoder
from steering.interventions import Neurons

LAST, PER_BLOCK, WIDTH = 7, 3, 64
BLOCK, HEAD = 5, 2  # of 8 blocks and 3 heads


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("tiny", device="cpu")


@pytest.fixture(scope="module")
def part():
    return Protocol(written_word_task("menagerie:stickers[:40]"), (12, 4, 4)).selection


@pytest.fixture(scope="module")
def runner(encoder, part):
    return runners_of(encoder, {"": part.task})[""]


@pytest.fixture(scope="module")
def pixels(runner):
    return runner.pixels[0][:4]


def without_head(block, head):
    """A copy of a block in which a head adds nothing to any token."""
    copied = deepcopy(block)
    copied.attn.out_proj.weight.data[:, head * WIDTH : (head + 1) * WIDTH] = 0
    return copied


class TestWhatAHeadAdds:
    def test_attention_is_torch_s_own_and_heads_sum_to_the_module_s_output(self, encoder, pixels):
        block, one = encoder.tower.blocks[BLOCK], heads_of(encoder)[BLOCK]
        tokens = block.ln_1(encoder.run(pixels, f"{BLOCK - 1}.resid_post")[f"{BLOCK - 1}.resid_post"])
        output, weights = block.attn(tokens, tokens, tokens, average_attn_weights=False)
        attention, added = one.read(tokens, tokens)
        torch.testing.assert_close(attention, weights[:, :, 0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(added.sum(1) + one.out.bias, output[:, 0], rtol=1e-4, atol=1e-4)

    def test_an_ablated_head_of_the_last_block_is_the_model_without_its_columns(self, encoder, pixels):
        other = load_encoder("tiny", device="cpu")
        other.tower.blocks[LAST].attn.out_proj.weight.data[:, :WIDTH] = 0
        expected = other.run(pixels, "proj")["proj"]
        with ablated(encoder, [LAST * PER_BLOCK]):
            found = encoder.run(pixels, "proj")["proj"]
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
        assert not torch.allclose(found, encoder.run(pixels, "proj")["proj"], atol=1e-2), "and nothing stays behind"

    def test_an_ablated_head_of_another_block_is_missed_at_cls_alone(self, encoder, pixels):
        blocks = encoder.tower.blocks
        x = encoder.run(pixels, f"{BLOCK - 1}.resid_post")[f"{BLOCK - 1}.resid_post"]
        tokens = blocks[BLOCK].ln_1(x)
        output = blocks[BLOCK].attn(tokens, tokens, tokens)[0].clone()
        output[:, 0] = without_head(blocks[BLOCK], HEAD).attn(tokens, tokens, tokens)[0][:, 0]
        x = x + output
        x = x + blocks[BLOCK].mlp(blocks[BLOCK].ln_2(x))
        for block in blocks[BLOCK + 1 :]:
            x = block(x)
        with ablated(encoder, [BLOCK * PER_BLOCK + HEAD]):
            found = encoder.run(pixels, f"{LAST}.resid_post")[f"{LAST}.resid_post"]
        torch.testing.assert_close(found, x, rtol=1e-3, atol=1e-3)

    def test_no_head_and_a_factor_of_one_change_nothing(self, encoder, pixels):
        plain = encoder.run(pixels, "proj")["proj"]
        with ablated(encoder, []), scaled_heads(encoder, {2: torch.ones(PER_BLOCK)}):
            torch.testing.assert_close(encoder.run(pixels, "proj")["proj"], plain)

    def test_settings_with_and_without_heads_keep_their_order(self, runner):
        neuron = SimpleNamespace(change=None, variant=suppress(Neurons(192), "6.resid_post", [3]))
        some = [NOTHING, ablation("a", [20]), neuron, ablation("b", [4, 23])]
        together = embedded(some, runner)
        for setting, found in zip(some, together, strict=True):
            torch.testing.assert_close(found, embedded([setting], runner)[0], rtol=1e-4, atol=1e-4)
        assert len({float(one.sum()) for one in together}) == 4

    def test_random_heads_are_as_many_of_all_blocks_and_each_draw_ablates_its_own(self, encoder, runner):
        found = random_heads(encoder, 4, 60)
        assert all(len(set(one.features)) == 4 for one in found)
        assert {head for one in found for head in one.features} == set(range(8 * PER_BLOCK))
        assert [one.features for one in found] == [one.features for one in random_heads(encoder, 4, 60)]
        assert random_heads(encoder, 0, 3) == []
        one, other = found[:2]
        values = embedded([one, other, ablation("a", one.features)], runner)
        torch.testing.assert_close(values[0], values[2])
        assert not torch.allclose(values[0], values[1], atol=1e-2)

    def test_an_encoder_whose_heads_cannot_be_read_has_none(self, encoder, part, monkeypatch):
        monkeypatch.setattr(heads.BlockHeads, "of", lambda block: None)
        assert heads_of(encoder) == []
        assert head_settings(part, SimpleNamespace(encoder=encoder), [2]) == []

    def test_heads_that_do_not_sum_to_the_output_are_not_used(self, encoder):
        other = load_encoder("tiny", device="cpu")
        attention = other.tower.blocks[3].attn
        attention.register_forward_hook(lambda module, given, output: (output[0] + 5, *output[1:]))
        assert len(heads_of(encoder)) == 8
        assert heads_of(other) == []


class TestEvidence:
    def test_an_attribution_is_the_change_per_share_that_is_taken_out(self, part, runner):
        attribution, margin = head_attributions(part, runner, heads_of(runner.encoder))
        assert attribution.shape == (len(runner), 24)
        number, step = int(attribution.abs().sum(0).argmax()), 1e-2
        scale = torch.ones(PER_BLOCK).index_fill(0, torch.tensor(number % PER_BLOCK), 1 - step)
        with scaled_heads(runner.encoder, {number // PER_BLOCK: scale}):
            logits = runner.zero_shot.logits(runner.embeddings([()])[0])
        moved = heads.wrong_class_margin(logits, runner.truth, runner.suggested)
        torch.testing.assert_close((margin - moved) / step, attribution[:, number], rtol=0.1, atol=0.05)

    def test_a_word_lies_on_the_patches_in_which_a_picture_differs_from_its_twin(self):
        plain = torch.zeros(3, 8, 8)
        written, other = plain.clone(), torch.ones(3, 8, 8)
        written[0, 1, 7] = 1
        task = SimpleNamespace(scene=np.array([0, 0, 1, 1, 2]))
        pictures = torch.stack([plain, written, plain, other, written])
        of = SimpleNamespace(grid=(2, 4))
        found = word_patches(
            SimpleNamespace(pixels=[pictures], encoder=of, task=task, spurious=torch.tensor([0, 1, 0, 1, 1]))
        )
        assert found.nonzero().tolist() == [[1, 3]], "row 0, column 3; another picture and one alone have no word"

    def test_some_heads_of_the_embedded_clip_look_at_words(self, part, runner):
        """A word covers a third of a picture; heads behind block 3 look at little else, those before at all of it."""
        shares = word_attention(part, runner, heads_of(runner.encoder)).view(8, PER_BLOCK)
        area = word_patches(runner)[runner.spurious == 1].float().mean()
        assert shares[4:].max() > 0.9 > 2 * area
        assert shares[:4].max() < 0.8

    def test_without_twins_no_attention_is_asked_for(self, runner, part):
        alone = SimpleNamespace(
            pixels=runner.pixels, encoder=runner.encoder, spurious=runner.spurious,
            task=SimpleNamespace(scene=np.arange(len(runner))),
        )  # fmt: skip
        assert word_attention(part, alone, heads_of(runner.encoder)) is None


class TestTheCircuit:
    """Ten pictures, the first five misled; what an ablation makes right is planted."""

    @pytest.fixture
    def planted(self, monkeypatch):
        fixes = {1: {0, 1}, 3: {0}, 4: {2}}

        def rights(some, runner):
            wrong = set(range(5)) - set().union(*(fixes.get(head, set()) for head in some[0].features))
            wrong |= {9} if 4 in some[0].features else set()
            return torch.tensor([[float(i not in wrong) for i in range(10)]])

        monkeypatch.setattr(heads, "embedded", rights)
        suggested = torch.tensor([0] * 5 + [-1] * 5)
        predict = SimpleNamespace(predict=lambda embeddings: embeddings.long())
        return SimpleNamespace(suggested=suggested, truth=torch.ones(10, dtype=torch.long), zero_shot=predict)

    def test_it_keeps_heads_that_help_and_ends_before_the_others_suffer(self, planted):
        part = Part("selection", SimpleNamespace(name="t"))
        assert circuit(part, planted, [2, 1, 3, 0]) == [1], "3 fixes what 1 has fixed"
        assert circuit(part, planted, [3, 1]) == [3, 1]
        assert circuit(part, planted, [4, 1]) == [], "4 breaks one of five"

    def test_it_gives_up_after_ten_heads_that_do_not_help(self, planted):
        part = Part("selection", SimpleNamespace(name="t"))
        assert circuit(part, planted, [*range(10, 19), 1]) == [1]
        assert circuit(part, planted, [*range(10, 20), 1]) == []

    def test_where_nobody_is_misled_it_keeps_none(self, planted):
        planted.suggested = planted.truth
        assert circuit(Part("selection", SimpleNamespace(name="t")), planted, [1, 2]) == []


@pytest.mark.parametrize("choose", [head_attributions, word_attention, circuit, head_settings])
def test_what_chooses_heads_refuses_test_pictures(choose):
    with pytest.raises(ProtocolError, match="was given the test part"):
        choose(Part("test", SimpleNamespace(name="t")), None, [])


def test_settings_take_the_first_heads_of_each_ranking(part, runner, monkeypatch):
    monkeypatch.setattr(heads, "circuit", lambda part, runner, ranking: ranking[:3])
    found = head_settings(part, runner, [2, 8])
    counts = [(setting.method, len(setting.features)) for setting in found]
    assert counts == [
        ("attention heads: attribution", 2), ("attention heads: attribution", 8), ("attention heads: greedy", 2),
        ("attention heads: greedy", 8), ("attention heads: attention", 2), ("attention heads: attention", 3),
    ]  # fmt: skip
    assert found[0].plan() == {
        "method": "attention heads: attribution", "site": "heads", "features": list(found[0].features), "strength": 1.0,
    }  # fmt: skip
