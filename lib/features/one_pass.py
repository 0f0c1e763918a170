"""Features of an SAE collected in one pass over the images: active codes, top images, patch maps."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.activations.reader import Tokens
from lib.devices import bring, metric, to_cpu
from lib.encoders.encoder import Encoder
from lib.metrics.columns import csr, sorted_columns
from lib.sae.model import SAE

MAX_CODES = 1 << 25  # dense codes in memory at a time


@metric()
def top_images(codes: Tensor, k: int = 16) -> tuple[Tensor, Tensor]:
    """Each feature's k most active images: indices (F, k), most active first and -1 for none, and values (F, k).

    codes: (N, F) dense or CSR; only values above zero count, and ties keep the order of the images.
    """
    indices = torch.full((codes.shape[1], k), -1, device=codes.device)
    values = torch.zeros(codes.shape[1], k, dtype=codes.dtype, device=codes.device)
    for block in sorted_columns(codes):
        place = torch.arange(len(block.value), device=codes.device)
        place -= (block.counts.cumsum(0) - block.counts)[block.feature]
        kept = (place < k) & (block.value > 0)
        slot = block.feature[kept] + block.start, place[kept]
        indices[slot], values[slot] = block.image[kept], block.value[kept]
    return indices, values


class OnePass:
    """Collects all active codes, and the `top` most active images of each feature with patch maps, batch by batch."""

    def __init__(self, encoder: Encoder, sae: SAE, site: str, tokens: str, n_images: int, top: int) -> None:
        self.encoder, self.sae, self.site, self.tokens = encoder, sae, site, tokens
        self._tokens = Tokens(tokens, encoder)
        self._patches = encoder.positions("spatial")
        self._counts = torch.zeros(n_images, dtype=torch.long)
        self._features, self._values = [torch.empty(0, dtype=torch.long)], [torch.empty(0)]
        grid = (0, 0) if site == "proj" else encoder.grid
        self.top_images = torch.full((sae.n_features, top), -1)
        self.top_values = torch.zeros(sae.n_features, top)
        self.patch_maps = torch.zeros(sae.n_features, top, *grid, dtype=torch.float16)

    @torch.no_grad()
    def add(self, pixels: Tensor, images: Tensor) -> None:
        """Add a batch of images (B, 3, H, W) and their ascending indices (B,)."""
        values = bring(self.encoder.run(pixels, [self.site])[self.site], self.sae)  # (B, T, d) or (B, E)
        rows, _ = self._tokens(values, images)
        rows = rows.view(len(images), -1, self.sae.d)
        codes = to_cpu(torch.cat([self.sae.encode(part).amax(1) for part in self._parts(rows)]))  # (B, F)
        if not codes.isfinite().all():
            raise ValueError(f"codes at {self.site} are not finite: load the encoder with dtype='float32'.")
        row, feature = (codes > 0).nonzero().unbind(1)
        self._counts[images] = row.bincount(minlength=len(images))
        self._features.append(feature)
        self._values.append(codes[row, feature])
        self._merge(codes, images, values[:, self._patches] if values.ndim == 3 else None)

    def codes(self) -> Tensor:
        """(N, F) CSR of all images so far."""
        offsets = torch.cat([torch.zeros(1, dtype=torch.long), self._counts.cumsum(0)])
        size = (len(self._counts), self.sae.n_features)
        return csr(offsets, torch.cat(self._features), torch.cat(self._values), size)

    def _parts(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """Tokens (B, t, d) split along B, so that the codes of a part fit into `MAX_CODES`."""
        return tokens.split(max(1, MAX_CODES // (tokens.shape[1] * self.sae.n_features)))

    def _merge(self, codes: Tensor, images: Tensor, patches: Tensor | None) -> None:
        """Merge the batch's images into the top lists of the features that they activate more than the last entry."""
        top = self.top_values.shape[1]
        moved = (codes.amax(0) > self.top_values[:, -1]).nonzero().squeeze(1)
        merged = torch.cat([self.top_values[moved], codes[:, moved].t()], dim=1)  # (m, top + B)
        values, order = (part[:, :top] for part in merged.sort(dim=1, descending=True, stable=True))
        entering = order >= top
        stays = order.clamp_max(top - 1)
        self.top_values[moved] = values
        self.top_images[moved] = torch.where(
            entering, images[(order - top).clamp_min(0)], self.top_images[moved].gather(1, stays)
        )
        if patches is None:
            return
        maps = self.patch_maps[moved].take_along_dim(stays[:, :, None, None], dim=1)
        feature, slot = entering.nonzero().unbind(1)
        maps[feature, slot] = self._maps(patches, order[feature, slot] - top, moved[feature]).view(-1, *maps.shape[2:])
        self.patch_maps[moved] = maps

    def _maps(self, patches: Tensor, image: Tensor, feature: Tensor) -> Tensor:
        """Codes (n, h * w) float16 of the patches (B, h * w, d) of each of n pairs of image and feature."""
        maps = torch.zeros(len(image), patches.shape[1], dtype=torch.float16)
        start = 0
        for part in self._parts(patches):
            pairs = ((image >= start) & (image < start + len(part))).nonzero().squeeze(1)
            if len(pairs):
                codes = self.sae.encode(part)  # (b, h * w, F)
                where = bring(image[pairs] - start, codes), bring(feature[pairs], codes)
                maps[pairs] = to_cpu(codes.transpose(1, 2)[where].clamp_max(torch.finfo(torch.float16).max).half())
            start += len(part)
        return maps
