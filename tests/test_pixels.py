"""Pixels on their way from workers: the same numbers by fewer bytes, in any shared memory, and never for ever."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lib.activations import reader as rows
from lib.activations.extraction import extract
from lib.activations.reader import LostWorkerError, read_batches
from lib.encoders.encoder import load_encoder
from lib.images.pixels import PixelTransfer
from tests.small_hugging_face import hugging_face_folder
from tests.small_images import Pictures
from tests.small_models import open_clip_folder

ROOT = Path(__file__).parent.parent
PHOTOS = [
    Image.fromarray(np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8)).resize(size[::-1])
    for i, size in enumerate([(40, 36), (300, 200), (113, 640), (1, 7), (224, 224)])
]


def same(wire: PixelTransfer, transform) -> bool:
    """Whether pictures arrive with the numbers of the transform, bit for bit, one by one and in a batch."""
    expected = torch.stack([transform(photo) for photo in PHOTOS])
    arrived = wire.unpack(torch.stack([wire.pack(photo) for photo in PHOTOS]))
    return arrived.dtype == expected.dtype and torch.equal(arrived, expected)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return load_encoder(f"open_clip:{open_clip_folder(tmp_path_factory.mktemp('clip'))}", device="cpu")


# --- the same numbers


@pytest.mark.parametrize("family", ["clip", "siglip", "dinov2", "vit", "deit"])
def test_hugging_face_pictures_travel_as_bytes(tmp_path, family):
    transform = load_encoder(f"hf:{hugging_face_folder(tmp_path, family)}", device="cpu").transform
    wire = PixelTransfer.of(transform)
    assert wire.pack(PHOTOS[0]).dtype == torch.uint8
    assert same(wire, transform)


@pytest.mark.parametrize("spec", ["tiny", "tiny-eye", "a folder of open_clip"])
def test_other_encoders_pictures_travel_as_bytes(encoder, spec):
    transform = encoder.transform if " " in spec else load_encoder(spec, device="cpu").transform
    wire = PixelTransfer.of(transform)
    assert wire.pack(PHOTOS[0]).dtype == torch.uint8
    assert same(wire, transform)


def composes() -> dict[str, tuple[object, bool]]:
    """Preprocessings that people write with torchvision, and whether they can travel as bytes."""
    from torchvision.transforms import v2

    crop, mean = [v2.Resize(40), v2.CenterCrop(32)], {"mean": [0.4, 0.5, 0.6], "std": [0.1, 0.2, 0.3]}
    number, scaled = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)], v2.ToDtype(torch.float32, scale=True)
    return {
        "pictures, then numbers": (v2.Compose([*crop, *number, v2.Normalize(**mean)]), True),
        "numbers of 0 to 1": (v2.Compose([*crop, *number]), True),
        "bytes, resized, then numbers": (v2.Compose([v2.ToImage(), *crop, scaled, v2.Normalize(**mean)]), True),
        "greys": (v2.Compose([*crop, v2.Grayscale(3), *number, v2.Normalize(**mean)]), True),
        "numbers, then resized": (v2.Compose([*number, *crop, v2.Normalize(**mean)]), False),
        "blurred numbers": (v2.Compose([*crop, *number, v2.GaussianBlur(3, sigma=1.0)]), False),
        "mixed channels": (v2.Compose([*crop, *number, v2.Grayscale(3)]), False),
        "a function": (lambda x: torch.from_numpy(np.array(x.resize((8, 8)))).permute(2, 0, 1) / 255, False),
    }


@pytest.mark.parametrize("name", list(composes()))
def test_what_people_write_arrives_with_its_own_numbers(name):
    transform, as_bytes = composes()[name]
    wire = PixelTransfer.of(transform)
    assert (wire.pack(PHOTOS[0]).dtype == torch.uint8) is as_bytes
    assert same(wire, transform)


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_have_the_numbers_of_the_preprocessing(encoder, workers):
    images = Pictures(7, broken=(2,))
    batches = list(read_batches(encoder, images, [range(3), range(3, 7)], workers))
    read = [i for i in range(7) if i != 2]
    assert torch.equal(torch.cat([batch.pixels for batch in batches]), encoder.pixels([images[i] for i in read]))
    assert torch.cat([batch.images for batch in batches]).tolist() == read
    assert [bad["index"] for batch in batches for bad in batch.unreadable] == [2]


# --- shared memory


@pytest.fixture
def sent(monkeypatch):
    """Which way each batch came: "memory" or "pipe"."""
    ways, as_tensor = [], rows._as_tensor
    monkeypatch.setattr(
        rows, "_as_tensor", lambda batch: ways.append(WAYS[isinstance(batch.pixels, Tensor)]) or as_tensor(batch)
    )
    return ways


WAYS = {True: "memory", False: "pipe"}


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="this system has no limit of shared memory to ask for")
@pytest.mark.parametrize(("free", "way"), [(0, "pipe"), (40_000, "pipe"), (1 << 20, "memory")])
def test_pixels_go_through_a_pipe_where_shared_memory_is_small(encoder, monkeypatch, sent, free, way):
    """4 batches of 4 pictures of 3 x 32 x 32 bytes may be on the way: 49,152 bytes."""
    fields = os.statvfs("/dev/shm")
    blocks = {"f_bavail": free // fields.f_frsize, "f_frsize": fields.f_frsize}
    monkeypatch.setattr(os, "statvfs", lambda path: type("Free", (), blocks))
    images = Pictures(10)
    batches = list(read_batches(encoder, images, [range(4), range(4, 8), range(8, 10)], 1))
    assert torch.equal(
        torch.cat([batch.pixels for batch in batches]), encoder.pixels(list(map(images.__getitem__, range(10))))
    )
    assert sent == [way] * 3


SMALL = """
from lib.activations.extraction import extract
from lib.encoders.encoder import load_encoder
from tests.small_images import Pictures
import sys
encoder = load_encoder("tiny", device="cpu")
store = extract(encoder, Pictures(400), ["proj"], out=sys.argv[1], workers=2, batch_size=64, progress=False)["proj"]
print(store.shape[0])
"""


def in_small_shared_memory(megabytes: int, code: str, *arguments) -> subprocess.CompletedProcess:
    mount = f'mount -t tmpfs -o size={megabytes}m tmpfs /dev/shm && exec "$@"'
    command = ["unshare", "-m", "bash", "-c", mount, "bash", sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def may_mount() -> bool:
    try:
        return in_small_shared_memory(1, "pass").returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /dev/shm")
def test_an_extraction_ends_where_there_is_next_to_no_shared_memory(tmp_path):
    if not may_mount():
        pytest.skip("a smaller /dev/shm can only be mounted by root")
    done = in_small_shared_memory(4, SMALL, tmp_path)
    assert done.stdout.strip() == "400", done.stderr[-2000:]


# --- lost workers


class Deadly(Pictures):
    """Reading picture 5 kills the process that does, or never ends."""

    def __init__(self, way: str):
        super().__init__(8)
        self.way, self.home = way, os.getpid()

    def __getitem__(self, i: int) -> Image.Image:
        if i == 5 and os.getpid() != self.home:
            if self.way == "waits":
                time.sleep(1000)
            os.kill(os.getpid(), getattr(signal, self.way))
        return super().__getitem__(i)


@pytest.mark.skipif(not hasattr(signal, "SIGBUS"), reason="these signals are for POSIX")
@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("SIGKILL", "was killed, most likely because memory or shared memory ran out. Pass fewer workers"),
        ("SIGBUS", "was killed(: shared memory is full|, most likely because memory or shared memory ran out)"),
        ("waits", r"has sent nothing for 2 s\. Pass workers=0 to read in this process"),
    ],
)
def test_a_lost_worker_is_one_sentence_that_says_what_is_likely(encoder, tmp_path, monkeypatch, way, message):
    monkeypatch.setattr(rows, "WAIT", 2)
    with pytest.raises(LostWorkerError, match=f"^a process that reads pictures {message}") as caught:
        extract(encoder, Deadly(way), ["proj"], out=tmp_path, batch_size=2, workers=1, progress=False)
    assert "\n" not in str(caught.value)
    assert not torch.multiprocessing.active_children() or way == "waits"


def test_another_error_of_a_worker_stays_what_it_is(encoder, monkeypatch):
    class Faulty(Pictures):
        def __getitem__(self, i: int):
            raise ZeroDivisionError("a fault of ours")

    with pytest.raises(ZeroDivisionError, match="a fault of ours"):
        list(read_batches(encoder, Faulty(3), [range(3)], 1))
