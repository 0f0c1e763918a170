"""Training of the embedded LLaVA: projector and language model learn to answer; the CLIP's image tower is frozen."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.devices import has_fast_bfloat16
from lib.encoders.encoder import Encoder
from menagerie import Menagerie
from menagerie.clip.architecture import to_pixels
from menagerie.clip.pool import PicturePool
from menagerie.clip.resumable_run import RunPlan, TrainingRun
from menagerie.llava.architecture import (
    FEATURE_LAYER,
    build_llava,
    clip_vision_state,
    learn_tokenizer,
    save_llava,
)
from menagerie.llava.lessons import LESSONS, OPEN, lessons

TOKENIZER_SCENES = 4000  # scenes whose lessons the tokenizer is trained on
PADDING, PREFIX = -1, 0  # values of a row's `branch` besides questions: padding, and the shared prefix
WRITTEN_OUT = "written_out"


@dataclass(frozen=True)
class LlavaPlan(RunPlan):
    """Settings of one run of the embedded LLaVA."""

    batch_size: int = 64
    """Pictures a step."""
    questions: int = 4
    """Questions about each picture of a step, each answered independently."""
    plain: float = 0.02
    """Share of pictures that are replaced by one plain colour, without content."""
    learning_rate: float = 2e-3
    """Rate of AdamW after `warmup` steps."""
    cls_weight: float = 0.0
    """No helper heads here."""
    patch_weight: float = 0.0
    """No helper heads here."""
    average: float = 0.995
    """Decay of the running average of the weights; the average is what gets saved."""


class TinyLlavaTrainer(TrainingRun):
    """One run of the embedded LLaVA in a folder, whose `llava` has the hub's layout; resumes from a checkpoint."""

    def __init__(self, pool: PicturePool, plan: LlavaPlan, folder: Path, clip: Encoder, device: str = "auto"):
        self.world = Menagerie(pool.split, pool.seed)
        self.tokenizer = learn_tokenizer(_lesson_texts(self.world, plan.seed))
        self.clip, self.ids = clip, lru_cache(maxsize=200_000)(self._ids)
        from transformers import AttentionInterface
        from transformers.masking_utils import AttentionMaskInterface, eager_mask

        torch.manual_seed(plan.seed)
        llava = build_llava(self.tokenizer)
        AttentionInterface.register(WRITTEN_OUT, written_out_attention)
        AttentionMaskInterface.register(WRITTEN_OUT, eager_mask)
        llava.set_attn_implementation(WRITTEN_OUT)
        llava.model.vision_tower.load_state_dict(clip_vision_state(clip.model.state_dict()))
        llava.model.vision_tower.requires_grad_(False)
        self.site = f"{clip.n_layers + FEATURE_LAYER}.resid_post"
        super().__init__(pool, plan, folder, llava, nn.Module(), device)

    def write_weights(self) -> None:
        save_llava(self.folder / "llava", self.model, self.average, self.tokenizer)

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def batch(self, step: int) -> dict[str, Tensor]:
        """Pictures, some of them plain, and a row of questions and answers for each."""
        index, rng = self.indices(step), self.rng(step, purpose=1)
        batch = super().batch(step)
        plain = rng.random(len(index)) < self.plan.plain
        batch["pixels"][torch.from_numpy(plain)] = torch.from_numpy(plain_pictures(int(plain.sum()), rng))
        scenes = [None if is_plain else self.world.scene(int(i)) for i, is_plain in zip(index, plain, strict=True)]
        rows = [self.row(lessons(scene, self.plan.questions, rng)) for scene in scenes]
        return {"pixels": batch["pixels"]} | stack_rows(rows, self.tokenizer.pad_token_id)

    def row(self, questions: list[tuple[str, str]]) -> "Row":
        """The tokens of a picture's questions and answers, which follow its patches."""
        row = Row([], [], [], [])
        for branch, (prompt, answer) in enumerate(questions, 1):
            asked, spoken = self.ids(f"\n{prompt} ASSISTANT:"), (*self.ids(f" {answer}"), self.tokenizer.eos_token_id)
            row.append(asked, branch, learned=False)
            row.append(spoken, branch, learned=True)
        return row

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Mean cross-entropy of the answers' tokens."""
        with torch.no_grad():
            seen = self.clip.run(to_pixels(batch["pixels"]), [self.site])[self.site][:, 1:]  # (B, PATCHES, d)
        hidden = packed_states(self.model, seen, batch, self.ids("USER: "))
        learned = batch["learned"].flatten()
        before = hidden[:, -batch["ids"].shape[1] - 1 : -1]  # each token is predicted from the state at the one before
        states = before.flatten(0, 1)[learned]
        return {"answers": F.cross_entropy(self.model.lm_head(states).float(), batch["ids"].flatten()[learned])}


@dataclass
class Row:
    """Tokens of the questions about one picture: ids, the branch each is in, its place there, whether it is learned."""

    ids: list[int]
    branch: list[int]
    place: list[int]
    learned: list[bool]

    def append(self, ids: tuple[int, ...], branch: int, learned: bool) -> None:
        """Add tokens at the end of a branch."""
        start = self.branch.count(branch)
        self.ids += ids
        self.branch += [branch] * len(ids)
        self.place += range(start, start + len(ids))
        self.learned += [learned] * len(ids)


def stack_rows(rows: list[Row], pad: int) -> dict[str, Tensor]:
    """Rows of several lengths -> ids, branch, place (B, S) int64 and learned (B, S) bool."""
    length = max(len(row.ids) for row in rows)

    def padded(name: str, filler: int | bool) -> Tensor:
        return torch.tensor([getattr(row, name) + [filler] * (length - len(row.ids)) for row in rows])

    return {
        "ids": padded("ids", pad),
        "branch": padded("branch", PADDING),
        "place": padded("place", 0),
        "learned": padded("learned", False),
    }


def packed_states(llava: nn.Module, seen: Tensor, batch: dict[str, Tensor], opening: tuple[int, ...]) -> Tensor:
    """Last hidden states of all rows, (B, P + S, d): P tokens of prefix, then S of questions and answers.

    seen: (B, PATCHES, d_vision). The prefix, `<s>`, `opening` and the patches, is run once for all questions about a
    picture; each question sees the prefix and itself, at the positions that it would have alone.
    """
    patches = llava.model.multi_modal_projector(seen)
    embed = llava.get_input_embeddings()
    begin = torch.tensor([llava.config.text_config.bos_token_id, *opening], device=seen.device)
    prefix = torch.cat([embed(begin).expand(len(seen), -1, -1).to(patches.dtype), patches], dim=1)
    embeds = torch.cat([prefix, embed(batch["ids"]).to(patches.dtype)], dim=1)
    n_prefix = prefix.shape[1]
    branch = F.pad(batch["branch"], (n_prefix, 0), value=PREFIX)  # (B, L)
    order = torch.arange(branch.shape[1], device=seen.device)
    position = torch.cat([order[:n_prefix].expand(len(seen), -1), n_prefix + batch["place"]], dim=1)
    visible = (branch[:, None] == PREFIX) | (branch[:, None] == branch[:, :, None])  # (B, query, key)
    visible &= order[:, None] >= order
    mask = torch.zeros(visible.shape, device=seen.device).masked_fill_(~visible, torch.finfo(torch.float32).min)
    output = llava.model.language_model(
        inputs_embeds=embeds, attention_mask=mask[:, None], position_ids=position, use_cache=False
    )
    return output.last_hidden_state


def written_out_attention(module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float, **_):
    """Attention as two products: the fused one's backward takes 40 % of a step on a CPU, this in bfloat16 a fifth.

    query, key, value (B, heads, L, d_head), mask (B, 1, L, L) to add -> (B, L, heads, d_head), None.
    """
    with torch.autocast(query.device.type, enabled=False):
        dtype = torch.bfloat16 if has_fast_bfloat16(query.device) else torch.float32
        query, key, value, mask = (part.to(dtype) for part in (query, key, value, mask))
        weights = ((query * scaling) @ key.transpose(-1, -2) + mask).softmax(dim=-1)
        return (weights @ value).transpose(1, 2).contiguous(), None


def plain_pictures(n: int, rng: np.random.Generator) -> np.ndarray:
    """Pictures of one colour, white in half of the cases: (n, 112, 112, 3) uint8."""
    colours = np.where(rng.random((n, 1)) < 0.5, 255, rng.integers(256, size=(n, 3)))
    return np.broadcast_to(colours[:, None, None], (n, 112, 112, 3)).astype(np.uint8)


def _lesson_texts(world: Menagerie, seed: int) -> Iterator[str]:
    """Training texts of the tokenizer: questions and answers about some scenes."""
    rng = np.random.default_rng([seed, TOKENIZER_SCENES])
    every = [*LESSONS.values(), *OPEN.values()]
    for index in range(min(TOKENIZER_SCENES, len(world))):
        scene = world.scene(index)
        for prompt, answer in lessons(scene, 8, rng):
            yield f"USER: \n{prompt} ASSISTANT: {answer}"
        for lesson in every:
            if lesson.fits(scene):
                yield f" {lesson.answer(scene)}"
