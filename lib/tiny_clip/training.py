"""Training of the embedded CLIP: contrastive, helped by heads that are told the facts and are dropped afterwards."""

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from lib.artifacts import replacing
from lib.menagerie import SPECIES, STICKER_WORDS, zero_shot_prompts
from lib.tiny_clip.architecture import (
    VISION,
    build_clip,
    learn_vocabulary,
    load_tokenizer,
    save_clip,
    to_pixels,
    write_vocabulary,
)
from lib.tiny_clip.pool import CAPTIONS_A_PICTURE, FACTS, LETTERS, STICKER, PicturePool


@dataclass(frozen=True)
class TrainingPlan:
    """What one run does; a checkpoint may be resumed by a plan that differs in `steps` only."""

    steps: int = 4000
    """Optimisation steps in all."""
    batch_size: int = 256
    """Pictures a step."""
    learning_rate: float = 1e-3
    """Rate of AdamW after `warmup` steps; constant, then falling linearly to 0."""
    warmup: int = 200
    """Steps of linear warm-up."""
    decay: float = 0.25
    """Share of the steps, at the end, over which the rate falls to 0."""
    weight_decay: float = 0.05
    """AdamW's decay of matrices; biases, norms and the logit scale have none."""
    cls_weight: float = 0.5
    """Weight of the helper heads on the CLS token."""
    patch_weight: float = 1.0
    """Weight of the helper heads on the patch tokens."""
    prompt_weight: float = 0.5
    """Weight of classifying the picture among prompts of all species, by the one that its caption names."""
    average: float = 0.998
    """Decay of the running average of the weights; the average is what gets saved."""
    shift: int = 6
    """Pictures are moved by up to this many pixels in each direction."""
    seed: int = 0
    """Seed of the initial weights and of the order of pictures."""

    def rate(self, step: int) -> float:
        """Learning rate at a step."""
        left = (self.steps - step) / max(self.decay * self.steps, 1)
        return self.learning_rate * min(1.0, (step + 1) / max(self.warmup, 1), left)


class HelperHeads(nn.Module):
    """Linear read-outs of known facts from the CLS token and from the patch tokens."""

    def __init__(self, fact_names: dict[str, list], width: int = VISION["width"]):
        super().__init__()
        self.facts = nn.ModuleDict({fact: nn.Linear(width, max(len(values), 1)) for fact, values in fact_names.items()})
        self.content = nn.Linear(width, STICKER + 1)
        self.letter = nn.Linear(width, len(LETTERS) + 1)
        self.word = nn.Linear(width, len(STICKER_WORDS))

    def cls_loss(self, cls: Tensor, facts: Tensor) -> Tensor:
        """cls (B, d), facts (B, n_facts), -1 = does not apply -> mean cross-entropy over the facts that apply."""
        losses = [
            F.cross_entropy(head(cls).float(), facts[:, i], ignore_index=-1)
            for i, head in enumerate(self.facts.values())
            if (facts[:, i] >= 0).any()
        ]
        return torch.stack(losses).mean()

    def patch_loss(self, patches: Tensor, content: Tensor, letter: Tensor, word: Tensor) -> Tensor:
        """patches (B, T, d), content and letter (B, T), word (B,) -> sum of the three heads' cross-entropies.

        Letters are rare, so the patches with one weigh as much as all those without.
        """
        loss = F.cross_entropy(self.content(patches).flatten(0, 1).float(), content.flatten(), ignore_index=-1)
        has_letter = (letter > 0).flatten()
        if has_letter.any():
            each = F.cross_entropy(self.letter(patches).flatten(0, 1).float(), letter.flatten(), reduction="none")
            loss = loss + (each[has_letter].mean() + each[~has_letter].mean()) / 2
        says_word = (content == STICKER) & (word[:, None] >= 0)
        if says_word.any():
            target = word[:, None].expand_as(content)[says_word]
            loss = loss + F.cross_entropy(self.word(patches[says_word]).float(), target)
        return loss


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


class TinyClipTrainer:
    """One run in a folder; resumes what it finds there.

    The folder gets `bpe.txt.gz`, `checkpoint.pt`, `metrics.jsonl` and, at every checkpoint, the averaged weights in the
    layout of `save_clip`. Which pictures a step sees depends only on the plan's seed and the step.
    """

    def __init__(self, pool: PicturePool, plan: TrainingPlan, folder: Path, device: str = "cpu"):
        self.pool, self.plan, self.folder, self.device = pool, plan, Path(folder), torch.device(device)
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "bpe.txt.gz").is_file():
            write_vocabulary(self.folder, learn_vocabulary(caption for several in pool.captions for caption in several))
        self.tokenizer = load_tokenizer(self.folder)
        self.prompts = list(zero_shot_prompts("species").values())  # one list of prompts a species
        torch.manual_seed(plan.seed)
        self.clip = build_clip(self.tokenizer.vocab_size).to(self.device)
        self.heads = HelperHeads(pool.fact_names).to(self.device)
        self.optimizer = self._optimizer()
        self.average = {name: value.detach().clone() for name, value in self.clip.state_dict().items()}
        self.step = 0
        self._resume()

    def _optimizer(self) -> torch.optim.Optimizer:
        parameters = [*self.clip.parameters(), *self.heads.parameters()]
        groups = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": self.plan.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.plan.learning_rate, betas=(0.9, 0.98), fused=True)

    def _resume(self) -> None:
        path = self.folder / "checkpoint.pt"
        if not path.is_file():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        if {**state["plan"], "steps": self.plan.steps} != asdict(self.plan):
            raise ValueError(f"{path} was made by another plan, {state['plan']}: use that one or another folder.")
        self.clip.load_state_dict(state["clip"])
        self.heads.load_state_dict(state["heads"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average, self.step = state["average"], state["step"]
        self._cut_log()

    def _cut_log(self) -> None:
        """Drop what was logged after the checkpoint: those steps are done again."""
        log = self.folder / "metrics.jsonl"
        if not log.is_file():
            return
        kept = [row for row in log.read_text(encoding="utf-8").splitlines() if json.loads(row)["step"] <= self.step]
        with replacing(log) as temporary:
            temporary.write_text("".join(f"{row}\n" for row in kept), encoding="utf-8")

    def save(self) -> None:
        """Write the checkpoint and the averaged weights."""
        state = {
            "plan": asdict(self.plan),
            "step": self.step,
            "clip": self.clip.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
        }
        with replacing(self.folder / "checkpoint.pt") as temporary:
            torch.save(state, temporary)
        save_clip(self.folder, self.average, self.tokenizer.vocab_size)

    def run(self, save_every: int = 200, log_every: int = 20) -> Path:
        """Train up to `plan.steps`; returns the folder."""
        started, first = time.time(), self.step
        bar = tqdm(total=self.plan.steps, initial=self.step, desc="training", mininterval=5)
        with open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as log:
            for batch in self._batches():
                losses = self._train_step(batch)
                self.step += 1
                bar.update()
                if self.step % log_every == 0 or self.step == self.plan.steps:
                    speed = (self.step - first) * self.plan.batch_size / (time.time() - started)
                    log.write(json.dumps({"step": self.step, **losses, "pictures_per_second": round(speed, 1)}) + "\n")
                    log.flush()
                if self.step % save_every == 0 or self.step == self.plan.steps:
                    self.save()
        bar.close()
        return self.folder

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        with ThreadPoolExecutor(1) as reader:  # the next batch is read while this one is learned
            coming = None
            for step in range(self.step, self.plan.steps):
                batch = coming or reader.submit(self._batch, step)
                coming = reader.submit(self._batch, step + 1)
                yield batch.result()

    def _batch(self, step: int) -> dict[str, Tensor]:
        size = self.plan.batch_size
        epoch, position = divmod(step, len(self.pool) // size)
        order = np.random.default_rng([self.plan.seed, epoch]).permutation(len(self.pool))
        index = order[position * size : (position + 1) * size]
        rng = np.random.default_rng([self.plan.seed, epoch, step])
        arrays = self.pool.gather(index)
        arrays["pixels"] = shifted(arrays["pixels"], self.plan.shift, rng)
        which = rng.integers(CAPTIONS_A_PICTURE, size=size)
        captions = [self.pool.captions[i][k] for i, k in zip(index, which, strict=True)]
        prompts = [several[rng.integers(len(several))] for several in self.prompts]
        _, caption_id = np.unique(captions, return_inverse=True)
        return {
            **{name: torch.from_numpy(array) for name, array in arrays.items()},
            "tokens": self.tokenizer(captions + prompts),
            "caption_id": torch.from_numpy(caption_id),
            "named": torch.tensor([named_species(caption) for caption in captions]),
        }

    def _train_step(self, batch: dict[str, Tensor]) -> dict[str, float]:
        batch = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate(self.step)
        with torch.autocast(self.device.type, torch.bfloat16):
            losses = self._losses(batch)
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_([*self.clip.parameters(), *self.heads.parameters()], 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            self.clip.logit_scale.clamp_(0, np.log(100))
            decay = min(self.plan.average, (1 + self.step) / (10 + self.step))
            for name, value in self.clip.state_dict().items():
                self.average[name].lerp_(value, 1 - decay)
        return {name: loss.item() for name, loss in losses.items()}

    def _losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        visual, size = self.clip.visual, len(batch["pixels"])
        tokens = run_blocks(visual.transformer, visual._embeds(to_pixels(batch["pixels"])))
        cls, patches = visual._pool(tokens)  # after ln_post: (B, d), (B, T - 1, d)
        image = F.normalize((cls @ visual.proj).float(), dim=-1)
        text = self.clip.encode_text(batch["tokens"], normalize=True).float()
        scale = self.clip.logit_scale.exp()
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
    """open_clip's transformer without a mask, (B, T, d) -> (B, T, d), attention written out.

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
    return x


def shifted(pixels: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """Move each picture (B, H, W, 3) by up to `most` pixels, its border repeated."""
    height, width = pixels.shape[1:3]
    dx, dy = rng.integers(-most, most + 1, size=(2, len(pixels)))
    rows = np.clip(np.arange(height) + dy[:, None], 0, height - 1)
    columns = np.clip(np.arange(width) + dx[:, None], 0, width - 1)
    return pixels[np.arange(len(pixels))[:, None, None], rows[:, :, None], columns[:, None, :]]
