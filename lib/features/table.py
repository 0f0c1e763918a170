"""`FeatureTable`: sparse codes, top images, patch maps and names of an SAE's features on a set of images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

import storage
from lib.activations.reader import batches_of, read_batches, unreadable_images
from lib.arguments import check_count
from lib.devices import metric, to_cpu, to_numpy
from lib.encoders.encoder import Encoder
from lib.features.one_pass import OnePass
from lib.images.image_set import ImageSet, as_image_set
from lib.metrics.columns import csr, transposed_csr
from lib.sae.model import SAE
from lib.sae.origin import check_origin

TENSORS, MADE_BY = "features.safetensors", "FeatureTable"


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """The F features of one SAE on N images, with `top` images each and an (h, w) grid of patches.

    An image's code is that of its CLS token, or the largest over its selected tokens. A feature is active where its
    code is above zero. `patch_maps` hold the SAE's codes of every patch of the top images at the same site; they are
    (F, top, 0, 0) where the site has no patches (`proj`).
    """

    site: str
    tokens: str
    images_spec: str
    codes: Tensor  # (N, F) sparse CSR, one row an image
    top_images: Tensor  # (F, top) int64, most active first; -1 where fewer images are active
    top_values: Tensor  # (F, top)
    patch_maps: Tensor  # (F, top, h, w) float16

    @classmethod
    def compute(
        cls,
        encoder: Encoder,
        sae: SAE,
        images,
        site: str,
        tokens: str = "cls",
        top: int = 16,
        out: str | Path | None = None,
        batch_size: int = 64,
        workers: int | None = None,
        on_error: str = "raise",
        progress: bool = True,
        check: bool = True,
    ) -> FeatureTable:
        """Run all images through encoder and SAE once; memory grows only with active codes and F x top patch maps.

        `out`: folder to keep the table in; a complete one of the same encoder, SAE, images and code is loaded instead,
        one of another spec is kept beside it, with its hash in the name.
        images, tokens, workers, on_error: as in `extract`; an image that is skipped has an empty row of codes.
        Raises ValueError for bad arguments, an SAE of another width, an unreadable image and, unless `check` is False,
        an SAE that was trained on another encoder or site.
        """
        site, images = str(encoder.site(site)), as_image_set(images)
        if sae.d != encoder.width(site):
            raise ValueError(f"this SAE reads vectors of width {sae.d}, but {site} is {encoder.width(site)} wide.")
        if check:
            check_origin(sae, encoder, site)
        check_count("top", top, "images for each feature")
        if len(images) == 0:
            raise ValueError("a feature table needs at least one image, got none.")
        begin = partial(OnePass, encoder, sae, site, tokens, len(images), top)
        make = partial(_table, begin, images, batch_size, workers, on_error, progress)
        if out is None:
            return make()
        head = storage.meta_head(_spec(encoder, sae, images, site, tokens, top), MADE_BY)
        return storage.load_or_make(
            Path(out).expanduser(), head, cls.load, lambda place: make()._write(place, head), "make a feature table"
        )

    @property
    def n_features(self) -> int:
        """F."""
        return self.codes.shape[1]

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the patch maps."""
        return tuple(self.patch_maps.shape[2:])

    @cached_property
    def _columns(self) -> Tensor:
        return transposed_csr(self.codes)

    @cached_property
    def _active(self) -> Tensor:
        return self._columns.crow_indices().diff()  # (F,) images

    @property
    def frequency(self) -> Tensor:
        """(F,) share of the images on which each feature is active."""
        return self._active / self.codes.shape[0]

    @property
    def alive(self) -> Tensor:
        """(F,) bool: active on at least one image."""
        return self._active > 0

    @cached_property
    def mean_active(self) -> Tensor:
        """(F,) mean code over the images on which it is active; 0 for a dead feature."""
        sums = torch.zeros(self.n_features, dtype=torch.double)
        sums.index_add_(0, self.codes.col_indices(), self.codes.values().double())
        return (sums / self._active.clamp_min(1)).float()

    @property
    def max(self) -> Tensor:
        """(F,) largest code; 0 for a dead feature."""
        return self.top_values[:, 0]

    def activations(self, feature: int) -> tuple[Tensor, Tensor]:
        """Images (n,) on which a feature is active, and its codes (n,) there, weakest first."""
        start, stop = self._columns.crow_indices()[feature : feature + 2].tolist()
        values, order = self._columns.values()[start:stop].sort(stable=True)
        return self._columns.col_indices()[start:stop][order], values

    def histogram(self, feature: int, bins: int = 20) -> tuple[Tensor, Tensor]:
        """Counts (bins,) of a feature's codes above zero, and the bins' edges (bins + 1,)."""
        _, values = self.activations(feature)
        edges = torch.linspace(0, float(self.max[feature]) or 1.0, bins + 1)
        place = torch.bucketize(values, edges[1:-1], right=True)
        return place.bincount(minlength=bins), edges

    def neighbours(self, sae: SAE, k: int = 6) -> tuple[Tensor, Tensor]:
        """The k features with the most similar decoder directions: indices (F, k) and cosines (F, k), nearest first."""
        unit = F.normalize(to_cpu(sae.W_dec), dim=1)  # (F, d)
        found = []
        for start, rows in zip(range(0, len(unit), 4096), unit.split(4096), strict=True):
            cosine = rows @ unit.t()
            own = torch.arange(len(rows))
            cosine[own, own + start] = -torch.inf
            found.append(cosine.topk(min(k, len(unit) - 1), dim=1))
        return torch.cat([f.indices for f in found]), torch.cat([f.values for f in found])

    @metric()
    def names(
        self,
        vocabulary: Sequence[str],
        encoder: Encoder,
        image_embeddings: Tensor,
        k: int = 3,
        templates: Sequence[str] = ("a photo of a {}",),
    ) -> list[list[tuple[str, float]]]:
        """Each feature's k best words with their scores, best first; none for a dead feature.

        image_embeddings: (N, E) of the table's images by the same encoder. The score is the cosine between the word's
        text embedding (mean over the templates) and the feature's mean image embedding, weighted by its codes; images
        and words are each centred first, so that what all images, or all words, have in common has no effect. Raises
        ValueError where the embeddings are not one per image.
        """
        if isinstance(vocabulary, str):
            raise ValueError(f"vocabulary is a list of words: write [{vocabulary!r}]")
        if len(image_embeddings) != self.codes.shape[0]:
            raise ValueError(f"image_embeddings must have a row for each of the {self.codes.shape[0]} images.")
        unit = F.normalize(to_cpu(image_embeddings).float(), dim=1)
        pictures = F.normalize(self._columns @ (unit - unit.mean(0)), dim=1)  # (F, E)
        texts = sum(encoder.embed_texts([template.format(word) for word in vocabulary]) for template in templates)
        words = F.normalize(to_cpu(texts).float(), dim=1)  # (V, E)
        scores = pictures @ F.normalize(words - words.mean(0), dim=1).t()
        best = scores.topk(min(k, len(vocabulary)), dim=1)
        return [
            [(vocabulary[i], s) for i, s in zip(places, values, strict=True)] if alive else []
            for places, values, alive in zip(
                best.indices.tolist(), best.values.tolist(), self.alive.tolist(), strict=True
            )
        ]

    def save(self, folder: str | Path, spec: dict | None = None) -> None:
        """Write the table as a complete artifact, `features.safetensors` and `meta.json`."""
        folder = Path(folder).expanduser()
        spec = spec or {"site": self.site, "tokens": self.tokens, "images": self.images_spec}
        head = storage.meta_head(spec, MADE_BY)
        with storage.locked([folder], "save a feature table"):
            place = storage.claim(folder, head)
            self._write(place, head)
            storage.publish(place, folder)

    def _write(self, place: Path, head: dict) -> FeatureTable:
        """Write both files into a claimed folder, and return the table."""
        tensors = {
            "code_offsets": self.codes.crow_indices(),
            "code_features": self.codes.col_indices().int(),
            "code_values": self.codes.values(),
            "top_images": self.top_images,
            "top_values": self.top_values,
            "patch_maps": self.patch_maps,
        }
        about = {"site": self.site, "tokens": self.tokens, "images": self.images_spec, "n_features": self.n_features}
        with storage.replacing(place / TENSORS) as temporary:
            digests = {TENSORS: storage.save_tensors(tensors, temporary)}
        storage.write_meta(place, {**head, "complete": True, **about, "digests": digests})
        return self

    @classmethod
    def load(cls, folder: str | Path) -> FeatureTable:
        """Read what `save` wrote; raises FileNotFoundError where there is no complete table, ValueError for damage."""
        folder = Path(folder).expanduser()
        meta = storage.checked_meta(folder) or {}
        if not meta.get("complete") or "n_features" not in meta:
            raise FileNotFoundError(f"No feature table in {folder}: make it with FeatureTable.compute(..., out=...).")
        tensors, _ = storage.load_tensors(folder / TENSORS, meta.get("digests", {}).get(TENSORS))
        offsets, features = tensors["code_offsets"], tensors["code_features"].long()
        codes = csr(offsets, features, tensors["code_values"], (len(offsets) - 1, meta["n_features"]))
        rest = (tensors[name] for name in ("top_images", "top_values", "patch_maps"))
        return cls(meta["site"], meta["tokens"], meta["images"], codes, *rest)


def _table(
    begin: Callable[[], OnePass], images: ImageSet, batch_size: int, workers: int | None, on_error: str, progress: bool
) -> FeatureTable:
    """The table of all images, read in one pass."""
    one_pass = begin()
    batches = batches_of(len(images), batch_size)
    reader = read_batches(one_pass.encoder, images, batches, workers)
    for batch in tqdm(reader, "features", len(batches), disable=not progress):
        unreadable_images(batch, images, on_error)
        if batch.pixels is not None:
            one_pass.add(batch.pixels, batch.images)
    found = one_pass.codes(), one_pass.top_images, one_pass.top_values, one_pass.patch_maps
    return FeatureTable(one_pass.site, one_pass.tokens, images.spec, *found)


def _spec(encoder: Encoder, sae: SAE, images, site: str, tokens: str, top: int) -> dict:
    """Everything a table depends on: the images, the weights of encoder and SAE, and the code."""
    weights = hashlib.sha256(json.dumps(sae.config.to_dict()).encode())
    for name, tensor in sorted(sae.state_dict().items()):
        weights.update(name.encode() + to_numpy(tensor.contiguous()).tobytes())
    sae_code = [f"lib.sae.{module}" for module in ("model", "config", "selection")]
    code = ["lib.features", "lib.activations.reader", "lib.encoders", "lib.images.pixels", *sae_code]
    code += getattr(getattr(images, "source", None), "CODE", ())
    return {
        "encoder": encoder.fingerprint,
        "sae": weights.hexdigest()[:16],
        "images": images.fingerprint,
        "site": site,
        "tokens": tokens,
        "top": top,
        "code": storage.code_fingerprint(*code),
    }
