"""Damaged files of every kind end in the right numbers or in one sentence, never in other numbers that pass for right.

Our own artifacts carry digests: what is read from them is what was written. Files of others carry none: where such a
file gives other numbers, it has another identity (fingerprint), so that nothing which was made from it is used again.
Every seed damages one file in one way (tests/mutations.py). `make test-long` tries more than a thousand.
"""

import hashlib
import json
import os
import shutil
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.ensembles import Ensemble
from lib.activations.extraction import ActivationStore, extract
from lib.encoders.encoder import Encoder, load_encoder
from lib.features.table import FeatureTable
from lib.hub import load_sae
from lib.images.image_set import load_images
from lib.sae.model import SAE, SAEConfig
from lib.sae.training import train_sae
from steering.llava import load_llava
from tests.mutations import damage
from tests.small_hugging_face import hugging_face_folder
from tests.small_images import Pictures
from tests.small_llava import llava_folder
from tests.small_models import open_clip_folder
from tests.test_data_sets import MAKERS

FEW, MANY = 3, 60
PEERS = Path(__file__).parent / "fixtures" / "peers"
SITE = "2.resid_post"
LONGEST = 600


@dataclass(frozen=True)
class Read:
    """What a reader found: numbers, and the identity by which the project tells one source from another."""

    numbers: str
    identity: str = ""


def digest(*parts: object) -> str:
    """Of tensors, arrays and whatever prints."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part.detach().cpu().contiguous().numpy().tobytes() if isinstance(part, torch.Tensor) else b"")
        sha.update(repr(part).encode() if not isinstance(part, torch.Tensor) else str(tuple(part.shape)).encode())
    return sha.hexdigest()


def sae_digest(sae: SAE) -> str:
    return digest(asdict(sae.config), *(tensor for _, tensor in sorted(sae.state_dict().items())))


def small_encoder(folder: Path) -> Encoder:
    return load_encoder(f"open_clip:{open_clip_folder(folder)}", device="cpu")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Encoder:
    return small_encoder(tmp_path_factory.mktemp("clip"))


def small_config(**changes) -> SAEConfig:
    settings = {"kind": "topk", "expansion": 2, "k": 4, "steps": 12, "batch_size": 32, "checkpoint_every": 4}
    return SAEConfig(**settings | changes)


# Makers: each writes a folder and gives the function that reads it again


def a_store(folder: Path, encoder: Encoder) -> Callable[[Path], Read]:
    options = {"batch_size": 4, "workers": 0, "progress": False, "shard_images": 4}
    extract(encoder, Pictures(12), [SITE], "all", folder, **options)

    def read(folder: Path) -> Read:
        (path,) = {meta.parent for meta in folder.rglob("meta.json")} or {folder}
        store = ActivationStore.open(path)
        return Read(digest(store[:], torch.as_tensor(store.image_index[:])))

    return read


def an_extraction_again(folder: Path, encoder: Encoder) -> Callable[[Path], Read]:
    a_store(folder, encoder)

    def read(folder: Path) -> Read:
        options = {"batch_size": 4, "workers": 0, "progress": False, "shard_images": 4}
        store = extract(encoder, Pictures(12), [SITE], "all", folder, **options)[SITE]
        return Read(digest(store[:], torch.as_tensor(store.image_index[:])))

    return read


def an_sae(folder: Path, encoder: Encoder) -> Callable[[Path], Read]:
    train_sae(memory_store(), small_config(), out=folder, progress=False)
    return lambda folder: Read(sae_digest(SAE.load(folder)))


def a_training_again(folder: Path, encoder: Encoder) -> Callable[[Path], Read]:
    train_sae(memory_store(), small_config(), out=folder, progress=False)
    return lambda folder: Read(sae_digest(train_sae(memory_store(), small_config(), out=folder, progress=False)))


class Interrupted(Exception):
    """Raised in the middle of a training."""


def a_checkpoint(folder: Path, encoder: Encoder) -> Callable[[Path], Read]:
    with pytest.raises(Interrupted):
        train_sae(InterruptedStore(memory_store(), 9), small_config(), out=folder, progress=False)
    return lambda folder: Read(sae_digest(train_sae(memory_store(), small_config(), out=folder, progress=False)))


class InterruptedStore:
    """A store whose batches end with an error after so many."""

    def __init__(self, store: ActivationStore, after: int) -> None:
        self.store, self.after, self.d, self.meta = store, after, store.d, store.meta

    def __len__(self) -> int:
        return len(self.store)

    def batches(self, batch_size: int, seed: int = 0, start: int = 0):
        for i, batch in enumerate(self.store.batches(batch_size, seed, start)):
            if i + start == self.after:
                raise Interrupted
            yield batch


def memory_store() -> ActivationStore:
    return ActivationStore.from_tensor(torch.randn(256, 12, generator=torch.Generator().manual_seed(1)))


def table_sae(encoder: Encoder) -> SAE:
    sae = SAE(small_config(), encoder.width(SITE))
    return sae.requires_grad_(False)


def a_feature_table(folder: Path, encoder: Encoder) -> Callable[[Path], Read]:
    FeatureTable.compute(encoder, table_sae(encoder), Pictures(8), SITE, top=3, out=folder, workers=0, progress=False)
    return lambda folder: Read(table_digest(FeatureTable.load(folder)))


def a_table_again(folder: Path, encoder: Encoder) -> Callable[[Path], Read]:
    a_feature_table(folder, encoder)

    def read(folder: Path) -> Read:
        options = {"top": 3, "out": folder, "workers": 0, "progress": False}
        return Read(table_digest(FeatureTable.compute(encoder, table_sae(encoder), Pictures(8), SITE, **options)))

    return read


def table_digest(table: FeatureTable) -> str:
    return digest(table.site, table.tokens, table.codes.to_dense(), table.top_images, table.top_values)


def an_ensemble(folder: Path, encoder: Encoder) -> Callable[[Path], Read]:
    members = [SAE(small_config(seed=seed), 12) for seed in (0, 1)]
    from experiments.ensembles import ENSEMBLES

    ENSEMBLES["bagging"](members).save(folder)

    def read(folder: Path) -> Read:
        ensemble = Ensemble.load(folder)
        return Read(digest(type(ensemble).__name__, *map(sae_digest, ensemble.members)))

    return read


def pictures(folder: Path, encoder: Encoder) -> Callable[[Path], Read]:
    random = np.random.default_rng(0)
    for i, suffix in enumerate(("png", "jpg", "webp", "tif", "bmp", "gif", "ppm")):
        (folder / f"class {i % 2}").mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (24, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"class {i % 2}" / f"picture {i}.{suffix}")
    (folder / "facts.csv").write_text(
        "file,colour,legs\n" + "".join(f"class {i % 2}/picture {i}.{s},red,{i}\n" for i, s in enumerate(("png", "jpg")))
    )

    def read(folder: Path) -> Read:
        images = load_images(f"folder:{folder}")
        seen = [torch.from_numpy(np.asarray(images[i]).copy()) for i in range(len(images))]
        return Read(digest(*seen, [images.name(i) for i in range(len(images))]), images.fingerprint)

    return read


def of_a_data_set(spec: str) -> Callable:
    """A public data set in its true layout. Labels and facts are read anew each time; pictures have an identity."""
    name = spec.partition(":")[0]

    def make(folder: Path, encoder: Encoder) -> Callable[[Path], Read]:
        MAKERS[spec](folder / name)

        def read(folder: Path) -> Read:
            with mock.patch.dict(os.environ, MV_DATA=str(folder)):
                images = load_images(spec)
                seen = [torch.from_numpy(np.asarray(images[i]).copy()) for i in range(len(images))]
                return Read(digest(*seen, [images.name(i) for i in range(len(images))]), images.fingerprint)

        return read

    make.__name__ = spec
    return make


def model_reader(spec: str) -> Callable[[Path], Read]:
    """Reads an encoder of a folder: its embeddings of two pictures and of a text, and its fingerprint."""

    def read(folder: Path) -> Read:
        encoder = load_encoder(f"{spec}:{folder}", device="cpu")
        pixels = encoder.pixels([Pictures(2)[i] for i in range(2)])
        found = [*encoder.run(pixels, encoder.sites[:2]).values()]
        return Read(digest(*found), encoder.fingerprint)

    return read


def an_open_clip_folder(folder: Path, encoder: Encoder) -> Callable[[Path], Read]:
    open_clip_folder(folder)
    return model_reader("open_clip")


def a_hugging_face_clip(folder: Path, encoder: Encoder) -> Callable[[Path], Read]:
    hugging_face_folder(folder, "clip")
    return model_reader("hf")


def a_dinov2(folder: Path, encoder: Encoder) -> Callable[[Path], Read]:
    hugging_face_folder(folder, "dinov2")
    return model_reader("hf")


def a_llava(folder: Path, encoder: Encoder) -> Callable[[Path], Read]:
    llava_folder(folder)

    def read(folder: Path) -> Read:
        llava = load_llava(f"hf:{folder}", device="cpu")
        answer = llava.generate([Pictures(1)[0]], "What is it?", max_new_tokens=2)
        pixels = llava.vision.pixels([Pictures(1)[0]])
        weights = digest(*(tensor for _, tensor in sorted(llava.model.state_dict().items())))
        return Read(digest(answer, *llava.vision.run(pixels, [llava.site]).values()), weights)

    return read


def of_a_peer(case: str) -> Callable:
    """A dictionary in the files of another library. Its identity is its content: FeatureTable hashes it."""

    def make(folder: Path, encoder: Encoder) -> Callable[[Path], Read]:
        shutil.copytree(PEERS / case, folder, ignore=shutil.ignore_patterns("expected.safetensors"))
        name = Path(case).name

        def read(folder: Path) -> Read:
            sae = load_sae(folder)
            assert all(tensor.isfinite().all() for tensor in sae.state_dict().values()), name
            return Read(sae_digest(sae), sae_digest(sae))

        return read

    make.__name__ = case
    return make


OWN = (
    a_store,
    an_extraction_again,
    an_sae,
    a_training_again,
    a_checkpoint,
    a_feature_table,
    a_table_again,
    an_ensemble,
)
PEER_CASES = ("saelens/standard", "sparsify/topk", "overcomplete/topk", "saev/topk", "prisma/topk")
DATA_SETS = tuple(map(of_a_data_set, ("celeba:all", "waterbirds:test", "disentangling")))
MODELS = (an_open_clip_folder, a_hugging_face_clip, a_dinov2, a_llava, *map(of_a_peer, PEER_CASES))
FOREIGN = (pictures, *DATA_SETS, *MODELS)


def outcome(read: Callable[[Path], Read], folder: Path, right: Read, own: bool) -> str:
    """right, changed (another identity), sentence; anything else is told as it is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = read(folder)
    except Exception as error:
        text = str(error)
        ours = isinstance(error, ValueError | OSError | ImportError) and not isinstance(error, json.JSONDecodeError)
        one_sentence = "\n" not in text.strip() and len(text) <= LONGEST
        if ours and one_sentence and str(folder) in text:
            return "sentence"
        return f"foreign: {type(error).__name__}: {text[:300]}"
    if found.numbers == right.numbers:
        return "right"
    return "changed" if not own and found.identity != right.identity else "SILENT: other numbers"


def try_mutations(make, tmp_path: Path, encoder: Encoder, n: int, record_property) -> None:
    whole = tmp_path / "whole"
    read = make(whole, encoder)
    right = read(whole)
    assert read(whole) == right, "reading twice gives two results, so that nothing can be compared"
    bad, counts = [], Counter()
    for seed in range(n):
        folder = tmp_path / f"damaged {seed}"
        shutil.copytree(whole, folder)
        told = damage(folder, seed)
        found = outcome(read, folder, right, make in OWN)
        if found not in ("right", "changed", "sentence"):
            bad.append(f"seed {seed}, {told} -> {found}")
        counts[f"damaged files: {found.split(':')[0]}"] += 1
        shutil.rmtree(folder)
    for told, count in counts.items():
        record_property(told, count)
    assert not bad, f"{len(bad)} of {n}:\n" + "\n".join(bad)


@pytest.mark.parametrize("make", [*OWN, *FOREIGN], ids=lambda make: make.__name__)
def test_a_few_damaged_files(make, tmp_path, encoder, record_property):
    try_mutations(make, tmp_path, encoder, FEW, record_property)


@pytest.mark.long
@pytest.mark.parametrize("make", [*OWN, *FOREIGN], ids=lambda make: make.__name__)
def test_many_damaged_files(make, tmp_path, encoder, record_property):
    try_mutations(make, tmp_path, encoder, MANY, record_property)
