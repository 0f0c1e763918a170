"""Training of the embedded eye: supervised by facts about pictures, without captions."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from menagerie.clip.heads import HelperHeads
from menagerie.clip.pool import FACTS, PicturePool
from menagerie.clip.resumable_run import RunPlan, TrainingRun
from menagerie.eye.architecture import EYE, build_eye, save_eye, to_pixels


@dataclass(frozen=True)
class EyePlan(RunPlan):
    """Settings of one run of the embedded eye."""

    cls_weight: float = 1.0
    """Weight of the heads on the CLS token: its only supervision besides the patches."""
    seed: int = 1
    """Another seed than the embedded CLIP's, for weights and order."""


class TinyEyeTrainer(TrainingRun):
    """One run of the embedded eye in a folder of the hub's layout; resumes from a checkpoint there."""

    def __init__(self, pool: PicturePool, plan: EyePlan, folder: Path, device: str = "auto"):
        torch.manual_seed(plan.seed)
        eye = build_eye().train()
        eye.embeddings.mask_token.requires_grad_(False)  # of DINOv2's pre-training, without a use here
        super().__init__(pool, plan, folder, eye, HelperHeads(pool.fact_names, EYE["hidden_size"]), device)

    def write_weights(self) -> None:
        save_eye(self.folder, self.average)

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Cross-entropies of the facts at the CLS token, and of content, letter and word at the patches."""
        seen = self.model(to_pixels(batch["pixels"]))
        patches, word = seen.last_hidden_state[:, 1:], batch["facts"][:, FACTS.index("sticker_word")]
        content, letter = batch["content"].flatten(1), batch["letter"].flatten(1)
        return {
            "cls": self.plan.cls_weight * self.heads.cls_loss(seen.pooler_output, batch["facts"]),
            "patch": self.plan.patch_weight * self.heads.patch_loss(patches, content, letter, word),
        }
