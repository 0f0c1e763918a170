"""Training of the embedded CLIP: a contrastive loss with auxiliary heads that predict known facts."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from menagerie import SPECIES, zero_shot_prompts
from menagerie.clip.architecture import (
    VISION,
    build_clip,
    learn_vocabulary,
    load_tokenizer,
    save_clip,
    to_pixels,
    write_vocabulary,
)
from menagerie.clip.heads import HelperHeads
from menagerie.clip.pool import CAPTIONS_A_PICTURE, FACTS, PicturePool
from menagerie.clip.resumable_run import RunPlan, TrainingRun


@dataclass(frozen=True)
class TrainingPlan(RunPlan):
    """Settings of one run of the embedded CLIP."""

    prompt_weight: float = 0.5
    """Weight of classifying the picture among prompts of all species, by the one that its caption names."""


def contrastive_loss(image: Tensor, text: Tensor, same: Tensor, scale: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy; pictures with equal captions share the target.

    image, text (B, E) unit norm; same (B, B) bool, symmetric, True on the diagonal.
    """
    logits = scale * image @ text.T
    target = same / same.sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


@lru_cache(maxsize=100_000)
def named_species(caption: str) -> int:
    """Index of the one species that a caption names; -1 where it names none or several."""
    found = {name for name in SPECIES if re.search(rf"\b{re.escape(name)}s?\b", caption)}
    found = {name for name in found if not any(name != other and name in other for other in found)}
    return SPECIES.index(found.pop()) if len(found) == 1 else -1


class TinyClipTrainer(TrainingRun):
    """One run of the embedded CLIP in a folder, which also gets `bpe.txt.gz`; resumes from a checkpoint there."""

    def __init__(self, pool: PicturePool, plan: TrainingPlan, folder: Path, device: str = "auto"):
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "bpe.txt.gz").is_file():
            write_vocabulary(folder, learn_vocabulary(caption for several in pool.captions for caption in several))
        self.tokenizer = load_tokenizer(folder)
        self.prompts = list(zero_shot_prompts("species").values())  # one list of prompts a species
        torch.manual_seed(plan.seed)
        clip = build_clip(self.tokenizer.vocab_size)
        super().__init__(pool, plan, folder, clip, HelperHeads(pool.fact_names, VISION["width"]), device)

    def write_weights(self) -> None:
        save_clip(self.folder, self.average, self.tokenizer.vocab_size)

    def batch(self, step: int) -> dict[str, Tensor]:
        """Pictures with one of their captions each, followed by a prompt for every species."""
        index, rng = self.indices(step), self.rng(step, purpose=1)
        which = rng.integers(CAPTIONS_A_PICTURE, size=len(index))
        captions = [self.pool.captions[i][k] for i, k in zip(index, which, strict=True)]
        prompts = [several[rng.integers(len(several))] for several in self.prompts]
        _, caption_id = np.unique(captions, return_inverse=True)
        return super().batch(step) | {
            "tokens": self.tokenizer(captions + prompts),
            "caption_id": torch.from_numpy(caption_id),
            "named": torch.tensor([named_species(caption) for caption in captions]),
        }

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        visual, size = self.model.visual, len(batch["pixels"])
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, np.log(100))  # as CLIP does
        tokens = run_blocks(visual.transformer, visual._embeds(to_pixels(batch["pixels"])))
        cls, patches = visual._pool(tokens)  # after ln_post: (B, d), (B, T - 1, d)
        image = F.normalize((cls @ visual.proj).float(), dim=-1)
        text = self.model.encode_text(batch["tokens"], normalize=True).float()
        scale = self.model.logit_scale.exp()
        same = batch["caption_id"][:, None] == batch["caption_id"]
        word = batch["facts"][:, FACTS.index("sticker_word")]
        losses = {
            "contrastive": contrastive_loss(image, text[:size], same, scale),
            "cls": self.plan.cls_weight * self.heads.cls_loss(cls, batch["facts"]),
            "patch": self.plan.patch_weight
            * self.heads.patch_loss(patches, batch["content"].flatten(1), batch["letter"].flatten(1), word),
        }
        if (batch["named"] >= 0).any():
            logits = scale * image @ text[size:].T
            losses["prompt"] = self.plan.prompt_weight * F.cross_entropy(logits, batch["named"], ignore_index=-1)
        return losses


def run_blocks(transformer: nn.Module, x: Tensor) -> Tensor:
    """open_clip's transformer without a mask, (B, T, d) -> (B, T, d): the last of `block_outputs`."""
    *_, last = block_outputs(transformer, x)
    return last


def block_outputs(transformer: nn.Module, x: Tensor) -> Iterator[Tensor]:
    """The residual stream (B, T, d) after each block of open_clip's transformer without a mask, attention written out.

    The fused attention's backward takes 40 % of a step on a CPU; at 50 tokens two plain products cost a fifth of it.
    """
    for block in transformer.resblocks:
        attention, normed = block.attn, block.ln_1(x)
        qkv = F.linear(normed, attention.in_proj_weight, attention.in_proj_bias)
        q, k, v = qkv.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, T, d_head) each
        weights = (q * attention.head_dim**-0.5 @ k.transpose(-2, -1)).softmax(dim=-1)
        mixed = (weights.to(v.dtype) @ v).transpose(1, 2).flatten(2)
        x = x + attention.out_proj(mixed)
        x = x + block.mlp(block.ln_2(x))
        yield x
