"""The embedded CLIP with TopK MLPs: of a block's hidden neurons only the k largest are kept (ours).

Instead of sparse features of an autoencoder, the model itself has sparse neurons, as TopK language models have in some
layers (arXiv 2506.21468). It starts from the embedded CLIP's weights and is distilled from it block by block, without
captions and facts.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.encoders.encoder import Encoder, load_encoder
from menagerie.clip.architecture import to_pixels
from menagerie.clip.pool import PicturePool
from menagerie.clip.resumable_run import RunPlan, TrainingRun
from menagerie.clip.training import block_outputs
from menagerie.shipped import TINY_TOPK, embedded
from storage import replacing, save_tensors

WEIGHTS = ("config.json", "model.safetensors")


class TopKGELU(nn.Module):
    """GELU, of which each token keeps its k largest values; the others are zero, and so are negative ones."""

    def __init__(self, k: int):
        super().__init__()
        if k < 1:
            raise ValueError(f"TopK keeps at least one neuron, not k = {k}.")
        self.k = k

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., H) -> (..., H) with at most k positive values a token and no others."""
        values, index = F.gelu(hidden).topk(min(self.k, hidden.shape[-1]), dim=-1, sorted=False)
        return torch.zeros_like(hidden).scatter(-1, index, values.clamp_min(0).to(hidden.dtype))


def with_topk(encoder: Encoder, k: int) -> Encoder:
    """The same encoder, changed in place: a `TopKGELU` behind the first layer of every MLP.

    Raises ValueError for an encoder whose blocks are not open_clip's.
    """
    for mlp in _mlps(encoder):
        mlp.gelu = TopKGELU(k)
    encoder.spec = f"{encoder.spec}, top {k} of each MLP"
    return encoder


def load_topk_clip(folder: str | Path | None = None, device: str = "auto") -> Encoder:
    """The embedded CLIP fine-tuned with TopK MLPs: `assets/tiny/topk_clip`, or a folder of a run of one's own.

    Only its image tower is stored; the text tower is the embedded CLIP's. Raises FileNotFoundError where the folder or
    a file in it is missing.
    """
    from safetensors.torch import load_file

    folder = embedded(TINY_TOPK, "TopK CLIP") if folder is None else Path(folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"no TopK CLIP in {folder}: it needs a config.json and a model.safetensors")
    k = json.loads((folder / "config.json").read_text(encoding="utf-8"))["k"]
    encoder = with_topk(load_encoder("tiny", device=device), k)
    encoder.model.visual.load_state_dict(load_file(folder / "model.safetensors"))
    return encoder


@torch.no_grad()
def read_mlps(encoder: Encoder, pixels: Tensor, layers: list[int]) -> tuple[dict[int, Tensor], Tensor]:
    """Activations of the MLPs' hidden neurons in the given blocks, and the pictures' embeddings.

    (B, 3, H, W) -> {layer: (B, T, H)}, (B, E) of unit norm, from one pass. Raises ValueError for an encoder whose
    blocks are not open_clip's, and for a block that it lacks.
    """
    mlps, values = _mlps(encoder), {}
    if not all(0 <= layer < len(mlps) for layer in layers):
        raise ValueError(f"{encoder.spec} has blocks 0 to {len(mlps) - 1}; choose the layers of these, not {layers}.")

    def keep(layer: int):
        return lambda module, inputs, output: values.__setitem__(layer, output.float())

    handles = [mlps[layer].gelu.register_forward_hook(keep(layer)) for layer in layers]
    try:
        embeddings = encoder.embed_images(pixels)
    finally:
        for handle in handles:
            handle.remove()
    return {layer: values[layer] for layer in layers}, embeddings


@dataclass(frozen=True)
class PooledNeurons:
    """Hidden neurons of an encoder on N pictures, by layer: of the CLS token (`cls`) and the maximum over tokens
    (`largest`), (N, H) each; mean number `active` on a token (N,); and the pictures' `embeddings` (N, E)."""

    cls: dict[int, Tensor]
    largest: dict[int, Tensor]
    active: dict[int, Tensor]
    embeddings: Tensor


def pool_neurons(encoder: Encoder, pixels: Tensor, layers: list[int], batch_size: int = 50) -> PooledNeurons:
    """`read_mlps` of many pictures (N, 3, H, W), pooled. Errors as there."""
    parts = [read_mlps(encoder, batch, layers) for batch in pixels.split(batch_size)]
    pooled = {
        "cls": lambda hidden: hidden[:, 0],
        "largest": lambda hidden: hidden.amax(1),
        "active": lambda hidden: (hidden > 0).float().sum(2).mean(1),
    }
    by_layer = {
        name: {layer: torch.cat([reduce(hidden[layer]) for hidden, _ in parts]) for layer in layers}
        for name, reduce in pooled.items()
    }
    return PooledNeurons(**by_layer, embeddings=torch.cat([embedding for _, embedding in parts]))


def _mlps(encoder: Encoder) -> list[nn.Sequential]:
    mlps = [getattr(block, "mlp", None) for block in encoder.tower.blocks]
    if not all(hasattr(mlp, "c_fc") and hasattr(mlp, "gelu") for mlp in mlps):
        raise ValueError(f"{encoder.spec} has no open_clip MLPs; choose an open_clip encoder such as tiny.")
    return mlps


@dataclass(frozen=True)
class TopKPlan(RunPlan):
    """Settings of one run of the TopK CLIP."""

    steps: int = 600
    """Optimisation steps in all."""
    learning_rate: float = 5e-4
    """Rate of AdamW after `warmup` steps; constant, then falling linearly to 0."""
    k: int = 16
    """Hidden neurons of an MLP that a token keeps."""
    batch_size: int = 64
    """Pictures a step."""
    embedding_weight: float = 1.0
    """Weight of one less the cosine of the joint embeddings."""
    stream_weight: float = 1.0
    """Weight of the residual streams' distance, averaged over blocks."""
    average: float = 0.99
    """Decay of the running average of the weights; short, as the run is."""
    warmup: int = 50
    """Steps of linear warm-up."""
    decay: float = 0.5
    """Share of the steps, at the end, over which the rate falls to 0."""


class TopKTrainer(TrainingRun):
    """One run in a folder, which gets the image tower's weights; resumes from a checkpoint there.

    The teacher is the embedded CLIP, the student the same with TopK MLPs.
    """

    def __init__(self, pool: PicturePool, plan: TopKPlan, folder: Path, device: str = "auto"):
        self.teacher = load_encoder("tiny", device=device).model.visual
        student = with_topk(load_encoder("tiny", device=device), plan.k).model.visual
        super().__init__(pool, plan, folder, student.train().requires_grad_(True), nn.Identity(), device)

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        pixels = to_pixels(batch["pixels"])
        with torch.no_grad():
            *taught, goal = seen(self.teacher, pixels)
        *streams, embedding = seen(self.model, pixels)
        apart = torch.stack([distance(mine, its) for mine, its in zip(streams, taught, strict=True)]).mean()
        return {
            "stream": self.plan.stream_weight * apart,
            "embedding": self.plan.embedding_weight * (1 - F.cosine_similarity(embedding, goal)).mean(),
        }

    def write_weights(self) -> None:
        with replacing(self.folder / "config.json") as temporary:
            temporary.write_text(json.dumps({"k": self.plan.k}) + "\n", encoding="utf-8")
        with replacing(self.folder / "model.safetensors") as temporary:
            save_tensors({name: value.half() for name, value in self.average.items()}, temporary)


def seen(visual: nn.Module, pixels: Tensor) -> Iterator[Tensor]:
    """The residual stream after each block (B, T, d), then the joint embedding (B, E), not normalised."""
    streams = list(block_outputs(visual.transformer, visual._embeds(pixels)))
    yield from (stream.float() for stream in streams)
    yield (visual._pool(streams[-1])[0] @ visual.proj).float()


def distance(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared distance of x from y as a share of y's variance around its mean vector: 0 equal, 1 the mean."""
    spread = (y - y.mean(dim=(0, 1))).square().mean()
    return (x - y).square().mean() / spread
