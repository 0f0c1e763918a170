"""Attention heads: what each adds to the CLS token, its attention to written words, and its ablation.

Dyslexify (Hufe et al., ICLR 2026) ranks heads by the share of the CLS token's attention that falls on written words,
and sets the output of the heads it keeps to zero at CLS alone. Its words stand at the bottom of every picture; ours
stand anywhere, so their patches are those in which a picture differs from the same picture without a word.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.disentanglement.feature_choice import by_attribution, greedy_ranking, ranked, wrong_class_margin
from experiments.disentanglement.protocol import Part
from experiments.disentanglement.suppression import NOTHING, Runner, Setting, by_count, embedded
from lib.devices import bring, to_cpu
from lib.encoders.encoder import Encoder
from lib.encoders.site_places import in_this_thread

HEADS, HEADS_BY_CHANCE = "attention heads", "heads by chance"
HEAD_RULES = ("attention", "attribution", "greedy")

LEAST_GAIN, MOST_LOST, PATIENCE = 0.001, 0.01, 10  # of `circuit`

Visit = Callable[[Tensor, Tensor], Tensor | None]
"""Function of CLS's attention (B, H, T) and of what each head adds to CLS (B, H, d); may return a change (B, d)."""


@dataclass(frozen=True, eq=False)
class BlockHeads:
    """The n attention heads of a block: its attention module, its query, key and value maps, and its last matrix."""

    module: nn.Module
    n: int
    maps: tuple[tuple[Tensor, Tensor | None], ...]
    out: nn.Linear

    @classmethod
    def of(cls, block: nn.Module) -> BlockHeads | None:
        """None for a block whose attention is neither torch's own nor made of q_proj, k_proj and v_proj."""
        for module in block.modules():
            if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None and module.batch_first:
                bias = module.in_proj_bias
                biases = (None,) * 3 if bias is None else bias.chunk(3)
                maps = tuple(zip(module.in_proj_weight.chunk(3), biases, strict=True))
                return cls(module, module.num_heads, maps, module.out_proj)
            parts = [getattr(module, name, None) for name in ("q_proj", "k_proj", "v_proj")]
            out = getattr(module, "out_proj", getattr(module, "o_proj", None))
            n = getattr(getattr(module, "config", None), "num_attention_heads", None)
            if n and out is not None and all(isinstance(part, nn.Linear) for part in parts):
                return cls(module, n, tuple((part.weight, part.bias) for part in parts), out)
        return None

    def read(self, query: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Attention (B, H, T) of the first query (B, ., d) to tokens (B, T, d); what each head adds there (B, H, d)."""
        inputs = (query[:, :1], tokens, tokens)
        q, k, v = (F.linear(x, *one).unflatten(-1, (self.n, -1)) for x, one in zip(inputs, self.maps, strict=True))
        scores = torch.einsum("bqhe,bthe->bht", q, k) / math.sqrt(q.shape[-1])
        attention = scores.softmax(-1)
        mixed = torch.einsum("bht,bthe->bhe", attention, v)
        return attention, torch.einsum("bhe,dhe->bhd", mixed, self.out.weight.unflatten(1, (self.n, -1)))

    def watch(self, visit: Visit):
        """Call `visit` in every pass of this thread until the returned handle is removed."""

        def hook(module: nn.Module, given: tuple, options: Mapping, output: Tensor | tuple) -> Tensor | tuple | None:
            query = given[0] if given else options["hidden_states"]
            tokens = given[1] if isinstance(module, nn.MultiheadAttention) else query
            change = visit(*self.read(query, tokens))
            if change is None:
                return None
            value = output[0] if isinstance(output, tuple) else output
            value = torch.cat([value[:, :1] + change[:, None].to(value.dtype), value[:, 1:]], dim=1)
            return (value, *output[1:]) if isinstance(output, tuple) else value

        return self.module.register_forward_hook(in_this_thread(hook), with_kwargs=True)


@torch.no_grad()
def heads_of(encoder: Encoder) -> list[BlockHeads]:
    """The heads of every block; none without CLS, or where heads do not sum to what the attention module gives."""
    found = [BlockHeads.of(block) for block in encoder.tower.blocks] if encoder.has_cls else []
    if not found or None in found:
        return []
    agree = []

    def compare(one: BlockHeads, module: nn.Module, given: tuple, options: Mapping, output: Tensor | tuple) -> None:
        query = given[0] if given else options["hidden_states"]
        value = (output[0] if isinstance(output, tuple) else output)[:, 0].float()
        total = one.read(query, query)[1].float().sum(1) + (0 if one.out.bias is None else one.out.bias)
        agree.append(torch.allclose(total, value, rtol=0.02, atol=0.02 * float(value.abs().max())))

    with ExitStack() as kept:
        for one in found:
            handle = one.module.register_forward_hook(in_this_thread(partial(compare, one)), with_kwargs=True)
            kept.callback(handle.remove)
        encoder.run(Image.new("RGB", (64, 64)), "proj")
    return found if len(agree) == len(found) and all(agree) else []


@contextmanager
def scaled_heads(encoder: Encoder, scales: Mapping[int, Tensor]) -> Iterator[None]:
    """Context in which what heads add to the CLS token is multiplied; scales: (H,) or (B, H), by layer."""

    def visit(scale: Tensor, attention: Tensor, added: Tensor) -> Tensor:
        return ((bring(scale, added) - 1)[..., None] * added).sum(1)

    with ExitStack() as kept:
        for layer, scale in scales.items():
            handle = BlockHeads.of(encoder.tower.blocks[layer]).watch(partial(visit, scale))
            kept.callback(handle.remove)
        yield


def ablated(encoder: Encoder, heads: Sequence[int]):
    """Context in which heads, numbered through all blocks, add nothing to the CLS token."""
    scales: dict[int, Tensor] = {}
    for number in heads:
        n = BlockHeads.of(encoder.tower.blocks[0]).n
        scales.setdefault(number // n, torch.ones(n))[number % n] = 0
    return scaled_heads(encoder, scales)


def head_settings(part: Part, runner: Runner, counts: Sequence[int]) -> list[Setting]:
    """Settings that ablate the first heads of each of `HEAD_RULES`; none where the encoder's heads cannot be read."""
    part.only_for("selection")
    heads = heads_of(runner.encoder)
    if not heads:
        return []
    attribution, margin = head_attributions(part, runner, heads)
    n, attention = attribution.shape[1], word_attention(part, runner, heads)
    rankings = {
        "attribution": ranked(by_attribution(attribution, runner.truth, runner.suggested), n),
        "greedy": greedy_ranking(attribution, margin, runner.group, n),
    }
    if attention is not None:
        rankings["attention"] = circuit(part, runner, ranked(attention, n))
    return [
        ablation(f"{HEADS}: {rule}", one.features)
        for rule, ranking in rankings.items()
        for one in by_count(rule, "heads", None, ranking, counts)
    ]


def ablation(method: str, heads: Sequence[int]) -> Setting:
    """The setting that ablates these heads."""
    return Setting(method, "heads", None, tuple(heads), exact=True, change=partial(ablated, heads=tuple(heads)))


def random_heads(encoder: Encoder, n: int, draws: int) -> list[Setting]:
    """Settings that ablate n heads drawn from those of all blocks: the null of n chosen ones. None for n = 0."""
    if n == 0:
        return []
    blocks = encoder.tower.blocks
    generator, total = torch.Generator().manual_seed(0), len(blocks) * BlockHeads.of(blocks[0]).n
    drawn = [torch.randperm(total, generator=generator)[:n].tolist() for _ in range(draws)]
    return [ablation(f"{HEADS_BY_CHANCE}: {draw}", heads) for draw, heads in enumerate(drawn)]


def head_attributions(part: Part, runner: Runner, heads: Sequence[BlockHeads]) -> tuple[Tensor, Tensor]:
    """Attribution (N, heads) of the logit difference `wrong_class_margin` (N,), and that difference.

    It is the derivative by the factor of what a head adds to CLS: about how far the margin falls when it is ablated.
    """
    part.only_for("selection")
    found, margins, start = [], [], 0
    for pixels in runner.pixels:
        rows = slice(start, start := start + len(pixels))
        scales = {layer: torch.ones(len(pixels), one.n, requires_grad=True) for layer, one in enumerate(heads)}
        with scaled_heads(runner.encoder, scales):
            values = runner.encoder.run(pixels.clone().requires_grad_(), "proj")["proj"]
        wrong = wrong_class_margin(runner.zero_shot.logits(values), runner.truth[rows], runner.suggested[rows])
        found.append(torch.cat(torch.autograd.grad(wrong.sum(), list(scales.values())), dim=1))
        margins.append(to_cpu(wrong.detach()))
    return to_cpu(torch.cat(found)), torch.cat(margins)


def word_patches(runner: Runner) -> Tensor:
    """Patches (N, h * w) in which a picture differs from the one of its scene without the attribute; else none.

    Two pictures that differ in half of the patches or more are two pictures, not one with a word and without.
    """
    pixels = torch.cat([to_cpu(one) for one in runner.pixels])
    found = torch.zeros(len(pixels), math.prod(runner.encoder.grid), dtype=torch.bool)
    scene, spurious = torch.from_numpy(runner.task.scene), runner.spurious
    for i in spurious.nonzero()[:, 0].tolist():
        twins = ((scene == scene[i]) & (spurious == 0)).nonzero()[:, 0]
        if len(twins):
            changed = (pixels[i] - pixels[twins[0]]).abs().amax(0, keepdim=True)
            patches = F.adaptive_max_pool2d(changed, runner.encoder.grid).flatten() > 0.05
            found[i] = patches & (patches.float().mean() < 0.5)
    return found


@torch.no_grad()
def word_attention(part: Part, runner: Runner, heads: Sequence[BlockHeads]) -> Tensor | None:
    """Typographic attention score (heads,): mean share of CLS's attention to patches that falls on those of a word.

    None where no picture has a twin without a word.
    """
    part.only_for("selection")
    patches, spatial = word_patches(runner), runner.encoder.positions("spatial")
    if not patches.any():
        return None
    shares: list[list[Tensor]] = [[] for _ in heads]
    start = 0
    for pixels in runner.pixels:
        rows = bring(patches[start : (start := start + len(pixels))], runner.encoder.device)
        with ExitStack() as kept:
            for one, place in zip(heads, shares, strict=True):
                kept.callback(one.watch(partial(_keep_shares, place, rows, spatial)).remove)
            runner.encoder.run(pixels, "proj")
    return torch.cat([torch.cat(place).mean(0) for place in shares])


def _keep_shares(place: list[Tensor], rows: Tensor, spatial: Tensor, attention: Tensor, added: Tensor) -> None:
    """Append shares (pictures with a word, H) of attention (B, H, T) on a word's patches; rows (B, h * w): which."""
    to_patches = attention[..., spatial].float()
    share = (to_patches * rows[:, None]).sum(-1) / to_patches.sum(-1)
    place.append(to_cpu(share[rows.any(1)]))


def circuit(part: Part, runner: Runner, ranking: Sequence[int]) -> list[int]:
    """Dyslexify's greedy circuit: heads in the order of a ranking whose ablation as well helps misled pictures.

    A head is kept where accuracy on pictures whose attribute suggests a wrong class rises by `LEAST_GAIN`. It ends
    before accuracy on the others falls by more than `MOST_LOST`, and after `PATIENCE` heads in a row were not kept.
    """
    part.only_for("selection")
    misled = (runner.suggested >= 0) & (runner.suggested != runner.truth)
    if not misled.any():
        return []

    def accuracies(setting: Setting) -> tuple[float, float]:
        right = (runner.zero_shot.predict(embedded([setting], runner)[0]) == runner.truth).double()
        return float(right[misled].mean()), float(right[~misled].mean()) if (~misled).any() else 1.0

    (best, clean), kept, missed = accuracies(NOTHING), [], 0
    for head in ranking:
        found, others = accuracies(ablation(HEADS, [*kept, head]))
        if found - best < LEAST_GAIN:
            missed += 1
            if missed == PATIENCE:
                break
            continue
        if clean - others > MOST_LOST:
            break
        best, missed = found, 0
        kept.append(head)
    return kept
