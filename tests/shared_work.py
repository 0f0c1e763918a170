"""What several processes do together in tests, by `accelerate launch -m tests.shared_work CLIP OUT` or `launch`."""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch

from lib.activations.extraction import extract
from lib.distributed import rank, world_size
from lib.encoders.encoder import load_encoder
from lib.sae.model import SAEConfig
from lib.sae.training import train_sae
from tests.small_images import Pictures
from tests.sparse_world import sparse_world

CONFIG = SAEConfig(kind="batchtopk", width=32, k=4, steps=8, batch_size=64)


def extract_pictures(clip: str, out: Path, pictures: Pictures) -> None:
    """Six shards of two sites."""
    encoder = load_encoder(f"open_clip:{clip}", device="cpu")
    options = {"batch_size": 2, "shard_images": 4, "workers": 0, "on_error": "raise", "progress": False}
    extract(encoder, pictures, ["1.resid_post", "proj"], "random:3", out=out / "store", **options)


def share(clip: str, out: str | Path) -> None:
    """Extract a store and train three SAEs, as a user's script does."""
    out = Path(out)
    extract_pictures(clip, out, Pictures())
    configs = [CONFIG, replace(CONFIG, seed=1, width=64), replace(CONFIG, kind="matryoshka")]
    saes = train_sae(sparse_world(), configs, out=[out / f"sae-{i}" for i in range(3)], device="cpu", progress=False)
    assert [sae.n_features for sae in saes] == [32, 64, 32]


def die_on_the_second_rank(clip: str, out: str | Path) -> None:
    """Extract; rank 1 is killed when it has written a shard."""

    class Deadly(Pictures):
        __module__ = Pictures.__module__  # pictures of other code would be another store

        def __getitem__(self, i: int):
            if rank() == 1 and i == 17:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__getitem__(i)

    extract_pictures(clip, Path(out), Deadly())


def fail_on_the_second_rank(clip: str, out: str | Path) -> None:
    """Extract pictures of which one in the second rank's part cannot be read."""
    extract_pictures(clip, Path(out), Pictures(broken=(17,)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(f"process {rank()} of {world_size()}")
    share(*sys.argv[1:])
