"""Auxiliary linear heads that predict known facts during training of an embedded model, and are then dropped."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from menagerie import STICKER_WORDS
from menagerie.clip.pool import LETTERS, STICKER


class HelperHeads(nn.Module):
    """Auxiliary linear heads for known facts on the CLS token and on the patch tokens."""

    def __init__(self, fact_names: dict[str, list], width: int):
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
