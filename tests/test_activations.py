"""Extraction: what lands in a store, that it survives being killed, and what happens to bad input."""

import errno
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import lib.activations.extraction
from lib.activations.extraction import ActivationStore, ActivationStream, extract
from lib.encoders.encoder import Encoder, load_encoder
from storage import read_meta, save_tensors
from tests.small_images import Pictures
from tests.small_models import open_clip_folder

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return open_clip_folder(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def encoder(folder) -> Encoder:
    return load_encoder(f"open_clip:{folder}", device="cpu")


@pytest.fixture
def run(encoder, tmp_path):
    def run(images=None, sites=("1.resid_post",), out=tmp_path / "out", **options):
        options = {"batch_size": 4, "shard_images": 8, "workers": 0, "progress": False, **options}
        return extract(encoder, images or Pictures(), sites, out=out, **options)

    return run


def direct(encoder, site: str, indices) -> torch.Tensor:
    return encoder.run(encoder.pixels([Pictures()[i] for i in indices]), [site])[site]


def contents(folder: Path) -> dict[str, bytes]:
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


# what is extracted


def test_rows_are_the_encoders_values_in_the_order_of_the_images(run, encoder):
    stores = run(sites=["1.resid_post", "2.mlp_out", "0.attn_out", "proj"], dtype="float32")
    for site, store in stores.items():
        values = direct(encoder, site, range(23))
        assert torch.allclose(store[:], values if site == "proj" else values[:, 0], atol=1e-5)
        assert store.image_index.tolist() == list(range(23))
    assert stores["1.resid_post"].token_index.unique().tolist() == [0]
    assert stores["proj"].token_index.unique().tolist() == [-1]


def test_all_sites_come_from_one_forward_pass_that_ends_at_the_deepest(run, encoder, monkeypatch):
    calls = []
    blocks = encoder.model.visual.transformer.resblocks
    handles = [b.register_forward_pre_hook(lambda *_, i=i: calls.append(i)) for i, b in enumerate(blocks)]
    run(sites=["0.mlp_out", "2.attn_out", "1.resid_post"])
    for handle in handles:
        handle.remove()
    assert calls == [0, 1, 2] * 6  # 23 images in shards of 8 and batches of 4


@pytest.mark.parametrize(
    ("tokens", "positions"), [("cls", [0]), ("spatial", list(range(1, 17))), ("all", list(range(17)))]
)
def test_fixed_tokens(run, encoder, tokens, positions):
    store = run(tokens=tokens, dtype="float32")["1.resid_post"]
    values = direct(encoder, "1.resid_post", range(23))[:, positions]
    assert torch.allclose(store[:], values.flatten(0, 1), atol=1e-5)
    assert store.token_index.tolist() == positions * 23
    assert store.image_index.tolist() == [i for i in range(23) for _ in positions]


def test_mean_is_over_the_spatial_tokens(run, encoder):
    store = run(tokens="mean", dtype="float32")["1.resid_post"]
    assert torch.allclose(store[:], direct(encoder, "1.resid_post", range(23))[:, 1:].mean(dim=1), atol=1e-5)
    assert store.token_index.unique().tolist() == [-1]


def test_random_tokens_are_distinct_the_same_at_every_site_and_drawn_by_the_seed(run, encoder, tmp_path):
    stores = run(sites=["1.resid_post", "2.mlp_out"], tokens="random:5", dtype="float32")
    first, second = stores.values()
    tokens = first.token_index.view(23, 5)
    assert all(len(set(row)) == 5 for row in tokens.tolist())
    assert len({tuple(row) for row in tokens.tolist()}) > 15
    assert torch.equal(first.token_index, second.token_index)
    values = direct(encoder, "1.resid_post", range(23))
    expected = values[first.image_index.long(), first.token_index.long()]
    assert torch.allclose(first[:], expected, atol=1e-5)
    other = run(tokens="random:5", seed=1, out=tmp_path / "other")["1.resid_post"]
    assert not torch.equal(first.token_index, other.token_index)


@pytest.mark.parametrize("dtype", ["float16", torch.bfloat16, "float32"])
def test_the_store_keeps_the_precision_it_is_told(run, encoder, dtype):
    store = run(dtype=dtype)["1.resid_post"]
    stored = getattr(torch, str(dtype).removeprefix("torch."))
    expected = direct(encoder, "1.resid_post", range(23))[:, 0].to(stored).float()
    assert torch.allclose(store[:], expected, rtol=1e-2, atol=1e-5)
    assert store[:].dtype == torch.float32


@pytest.mark.parametrize("workers", [0, 2])
def test_worker_processes_change_nothing(run, tmp_path, workers):
    run(workers=workers, out=tmp_path / "a")
    run(workers=1, out=tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_the_meta_file_says_what_made_the_store(run, encoder):
    meta = run(tokens="random:2")["1.resid_post"].meta
    assert meta["complete"]
    assert meta["rows"] == 46
    assert meta["d"] == 24
    assert meta["spec"]["encoder"] == encoder.fingerprint
    assert {"images", "site", "tokens", "seed", "dtype", "code"} <= set(meta["spec"])
    assert [shard["rows"] for shard in meta["shards"]] == [16, 16, 14]


# going on


def test_a_complete_store_is_not_made_again(run, encoder, monkeypatch):
    run()
    monkeypatch.setattr(encoder, "run", lambda *_: pytest.fail("ran the encoder again"))
    assert run(batch_size=2)["1.resid_post"].shape == (23, 24)


def test_a_site_is_added_without_making_the_others_again(run, tmp_path):
    run(sites=["1.resid_post"])
    before = (tmp_path / "out/1.resid_post/shard-00000.safetensors").stat().st_mtime_ns
    assert set(run(sites=["1.resid_post", "2.mlp_out"])) == {"1.resid_post", "2.mlp_out"}
    assert (tmp_path / "out/1.resid_post/shard-00000.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("change", [{"tokens": "spatial"}, {"dtype": "float32"}, {"images": Pictures(9)}])
def test_a_store_of_another_spec_is_replaced(run, change):
    old = run()["1.resid_post"].meta
    new = run(**change)["1.resid_post"].meta
    assert old["hash"] != new["hash"]
    assert new["complete"]


def test_a_missing_shard_of_a_complete_store_is_made_again(run, tmp_path):
    run()
    whole = contents(tmp_path / "out")
    (tmp_path / "out/1.resid_post/shard-00001.safetensors").unlink()
    run()
    assert contents(tmp_path / "out") == whole


def test_the_store_of_another_spec_stays_until_the_new_one_is_complete_and_is_kept(run, tmp_path):
    rows, folder = run()["1.resid_post"][:], tmp_path / "out/1.resid_post"
    with pytest.raises(ValueError, match="picture-23"):
        run(Pictures(24, broken=(23,)))
    assert torch.equal(ActivationStore.open(folder)[:], rows)
    with pytest.warns(UserWarning, match=r"kept as 1\.resid_post\."):
        run(Pictures(24))
    assert len(ActivationStore.open(folder)) == 24
    kept = [path for path in folder.parent.glob("1.resid_post.*") if read_meta(path)["complete"]]
    assert [torch.equal(ActivationStore.open(path)[:], rows) for path in kept] == [True]


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("damage", ["empty", "cut short", "zeroed", "one bit"])
def test_a_damaged_shard_is_named_and_extracted_again_alone(run, tmp_path, damage, finished):
    if finished:
        run()
    else:
        with pytest.raises(ValueError, match="picture-17"):
            run(Pictures(broken=(17,)))
    first, second = (tmp_path / f"out/1.resid_post/shard-0000{i}.safetensors" for i in range(2))
    data = bytearray(second.read_bytes())
    data[-5] ^= 4
    contents_of = {"empty": b"", "cut short": data[:-9], "zeroed": bytes(len(data)), "one bit": data}
    second.write_bytes(contents_of[damage])
    written = first.stat().st_mtime_ns
    with pytest.warns(UserWarning, match=r"shard-00001.safetensors .*again"):
        store = run()["1.resid_post"]
    assert torch.equal(store[:], run(out=tmp_path / "other")["1.resid_post"][:])
    assert first.stat().st_mtime_ns == written


@pytest.mark.parametrize("change", [{"batch_size": 2}, {"shard_images": 5}, {"batch_size": 16, "shard_images": 16}])
@pytest.mark.parametrize("finished", [True, False])
def test_shards_stay_where_a_rerun_has_other_sizes_of_batches_and_shards(run, tmp_path, change, finished):
    if finished:
        run()
        (tmp_path / "out/1.resid_post/shard-00001.safetensors").unlink()
    else:
        with pytest.raises(ValueError, match="picture-17"):
            run(Pictures(broken=(17,)))
    written = {file: file.stat().st_mtime_ns for file in tmp_path.glob("out/*/shard-*")}
    store = run(**change)["1.resid_post"]
    assert written
    assert all(file.stat().st_mtime_ns == time for file, time in written.items())
    assert torch.allclose(store[:], run(out=tmp_path / "other")["1.resid_post"][:], atol=1e-3)
    assert store.image_index.tolist() == list(range(23))


def test_unfinished_sites_with_shards_of_other_sizes_are_finished_by_one_call(run, tmp_path):
    sizes = {"1.resid_post": 8, "proj": 4, "2.mlp_out": 8}
    for site, size in sizes.items():
        with pytest.raises(ValueError, match="picture-17"):
            run(Pictures(broken=(17,)), sites=[site], shard_images=size)
    written = {file: file.stat().st_mtime_ns for file in tmp_path.glob("out/*/shard-*")}
    stores = run(sites=list(sizes), shard_images=23)
    assert len(written) == 8
    assert all(file.stat().st_mtime_ns == time for file, time in written.items())
    for site, store in run(sites=list(sizes), out=tmp_path / "other").items():
        assert torch.allclose(stores[site][:], store[:], atol=1e-3)
        assert [shard["rows"] for shard in stores[site].meta["shards"]][:2] == [sizes[site]] * 2


def test_two_extractions_into_one_folder_do_the_work_once(run, encoder, monkeypatch):
    runs, run_encoder = [], encoder.run
    monkeypatch.setattr(encoder, "run", lambda *a: runs.append(1) or time.sleep(0.01) or run_encoder(*a))
    with ThreadPoolExecutor(2) as pool:
        orders = (["1.resid_post", "proj"], ["proj", "1.resid_post"])
        first, second = pool.map(lambda sites: run(sites=sites)["1.resid_post"], orders)
    assert torch.equal(first[:], second[:])
    assert len(runs) == 6


def killed_after(n_shards: int, folder: Path, out: Path) -> None:
    """Extract in another process and kill it, with no chance to clean up, once it has written n shards."""
    code = f"""
from lib.activations.extraction import extract
from lib.encoders.encoder import load_encoder
from tests.small_images import Pictures
encoder = load_encoder("open_clip:{folder}", device="cpu")
extract(encoder, Pictures(broken=(9,), seconds=0.03), ["1.resid_post", "proj"], "random:3", out="{out}",
        batch_size=4, shard_images=8, workers=1, on_error="skip", progress=False)
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, start_new_session=True)
    deadline = time.monotonic() + 600  # a crowded machine
    while len(list(out.glob("1.resid_post/shard-*"))) < n_shards:
        assert process.poll() is None, "the extraction ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("n_shards", [0, 1, 2])
def test_killed_at_any_moment_it_goes_on_and_ends_with_the_same_bits(run, folder, tmp_path, n_shards):
    options = {"sites": ["1.resid_post", "proj"], "tokens": "random:3", "on_error": "skip"}
    killed_after(n_shards, folder, tmp_path / "killed")
    with pytest.raises((ValueError, FileNotFoundError)):
        ActivationStore.open(tmp_path / "killed/1.resid_post")
    kept = {f: f.stat().st_mtime_ns for f in tmp_path.glob("killed/*/shard-*")}
    run(Pictures(broken=(9,)), out=tmp_path / "killed", **options)
    run(Pictures(broken=(9,)), out=tmp_path / "whole", **options)
    assert all(file.stat().st_mtime_ns == written for file, written in kept.items())
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_memory_does_not_grow_with_the_number_of_images(folder, tmp_path):
    code = """
import resource, sys
from lib.activations.extraction import extract
from lib.encoders.encoder import load_encoder
from tests.small_images import Pictures
encoder = load_encoder("open_clip:" + sys.argv[1], device="cpu")
peaks = []
for n in (60, 600):
    extract(encoder, Pictures(n), encoder.sites, "all", out=f"{sys.argv[2]}/{n}", dtype="float32",
            batch_size=20, shard_images=100, workers=0, progress=False)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(peaks[1] - peaks[0])
"""
    result = subprocess.run([sys.executable, "-c", code, folder, tmp_path], cwd=ROOT, capture_output=True, check=True)
    written = sum(file.stat().st_size for file in tmp_path.glob("600/**/*.safetensors"))
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss: bytes on macOS, KiB elsewhere
    assert int(result.stdout) * unit < written / 2


# bad input


def test_an_unreadable_image_is_named(run):
    with pytest.raises(ValueError, match=r"image 9 \(picture-9.png\): picture-9.png is no picture.*on_error='skip'"):
        run(Pictures(broken=(9, 11)))


def test_an_unreadable_image_costs_no_finished_shard(run, tmp_path):
    with pytest.raises(ValueError, match="picture-17"):
        run(Pictures(broken=(17,)))
    assert len(list(tmp_path.glob("out/1.resid_post/shard-*"))) == 2
    assert read_meta(tmp_path / "out/1.resid_post")["complete"] is False


def test_skipped_images_are_counted_and_named_in_the_meta_file(run):
    store = run(Pictures(broken=(0, 9, 10)), on_error="skip")["1.resid_post"]
    assert store.meta["n_skipped"] == 3
    assert [skipped["name"] for skipped in store.meta["skipped"]] == [
        "picture-0.png",
        "picture-9.png",
        "picture-10.png",
    ]
    assert store.meta["skipped"][1]["reason"] == "picture-9.png is no picture"
    assert store.image_index.tolist() == [i for i in range(23) if i not in (0, 9, 10)]


def test_whole_batches_and_shards_may_be_unreadable(run):
    store = run(Pictures(broken=tuple(range(4, 16))), on_error="skip", tokens="all")["1.resid_post"]
    assert store.image_index.unique().tolist() == [0, 1, 2, 3, *range(16, 23)]
    assert len(store[:]) == 11 * 17


def test_no_readable_image_at_all_is_an_error(run):
    with pytest.raises(ValueError, match="none of the 5 images"):
        run(Pictures(5, broken=tuple(range(5))), on_error="skip")


def test_nan_in_the_activations_is_named_with_its_site_and_image(run, folder, tmp_path):
    broken = load_encoder(f"open_clip:{folder}", device="cpu")
    with torch.no_grad():
        broken.model.visual.transformer.resblocks[2].mlp.c_proj.bias[3] = torch.nan
    with pytest.raises(ValueError, match=r"NaN or infinite values at 2.mlp_out for image 0"):
        extract(broken, Pictures(), ["1.resid_post", "2.mlp_out"], out=tmp_path, workers=0, progress=False)
    assert not list(tmp_path.rglob("shard-*"))


def test_values_beyond_float16_are_an_error_that_says_what_to_do(folder, tmp_path):
    large = load_encoder(f"open_clip:{folder}", device="cpu")
    with torch.no_grad():
        large.model.visual.transformer.resblocks[1].mlp.c_proj.bias[3] = 1e6
    with pytest.raises(ValueError, match=r"1\.resid_post reach 1e\+06.*dtype='float32'"):
        extract(large, Pictures(), ["1.resid_post"], out=tmp_path, workers=0, progress=False)


def test_a_wrong_width_is_an_error(run, encoder, monkeypatch):
    monkeypatch.setattr(encoder, "width", lambda site: 25)
    with pytest.raises(ValueError, match="should be 25 wide, the encoder gave 24"):
        run()


def test_a_full_disk_is_one_clear_error_and_leaves_nothing_half_written(run, tmp_path, monkeypatch):
    written = []

    def fill_up(tensors: dict, path: Path, metadata: dict) -> str:
        digest = save_tensors(tensors, path, metadata)
        if "shard-00001" in path.name:
            path.write_bytes(path.read_bytes()[:-100])
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        return digest

    monkeypatch.setattr("lib.activations.writer.save_tensors", fill_up)
    with pytest.raises(OSError, match="No space left on the disk while writing"):
        run()
    assert len(written) == 1
    assert sorted(f.name for f in tmp_path.glob("out/1.resid_post/*")) == ["meta.json", "shard-00000.safetensors"]
    monkeypatch.undo()
    assert run()["1.resid_post"].shape == (23, 24)


@pytest.mark.parametrize("tokens", [None, 5, "", "patches", "random", "random:0", "random:18", "random:x"])
def test_unknown_tokens_are_an_error(run, tokens):
    with pytest.raises(ValueError, match=r"unknown tokens.*random:K with K from 1 to 17"):
        run(tokens=tokens)


def test_the_cls_token_of_an_encoder_without_one_is_an_error(run, encoder, monkeypatch):
    monkeypatch.setattr(encoder, "positions", lambda kind: torch.empty(0, dtype=torch.long))
    with pytest.raises(ValueError, match="has no cls token: take spatial, all, mean or random:K"):
        run(tokens="cls")


@pytest.mark.parametrize(
    "options",
    [
        *({"dtype": "int8"}, {"on_error": "ignore"}, {"sites": ["9.resid_post"]}),
        *({"sites": sites} for sites in (None, 2, [2], b"proj")),
        *({"batch_size": size} for size in (0, -1, 2.5, "8")),
        {"shard_images": -3},
    ],
)
def test_wrong_arguments_are_errors_before_anything_is_written(run, tmp_path, options):
    with pytest.raises(ValueError, match=r"dtype|on_error|layers 0 to 3|unknown site|must be an integer"):
        run(**options)
    assert not (tmp_path / "out").exists()


def test_an_empty_image_set_is_an_error(encoder, tmp_path):
    with pytest.raises(ValueError, match="image set is empty"):
        extract(encoder, Pictures(0), ["proj"], out=tmp_path)


def test_the_folder_of_another_artifact_is_left_alone(run, tmp_path):
    (tmp_path / "out/1.resid_post").mkdir(parents=True)
    (tmp_path / "out/1.resid_post/meta.json").write_text('{"spec": {}, "complete": true}')
    with pytest.raises(ValueError, match="another kind of artifact"):
        run()


# streaming


def stream(encoder, **options) -> ActivationStream:
    options = {"batch_size": 4, "workers": 0, "buffer_rows": 60, **options}
    return ActivationStream(encoder, Pictures(), "1.resid_post", **options)


def test_a_stream_gives_the_rows_of_the_store(run, encoder):
    store = run(dtype="float32", tokens="all")["1.resid_post"]
    live = stream(encoder, tokens="all")
    assert (live.shape, live.site, live.tokens) == (store.shape, store.site, store.tokens)
    batches = live.batches(50, seed=0)
    nearest = torch.cdist(torch.cat([next(batches) for _ in range(8)]), store[:]).min(dim=1)
    assert nearest.values.max() < 1e-2
    assert len(nearest.indices.unique()) > 300


def test_a_stream_is_shuffled_and_repeats_by_its_seed(encoder):
    first, again, other = (next(stream(encoder).batches(16, seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_stream_can_be_entered_at_any_step(encoder):
    batches = stream(encoder).batches(7)
    expected = [next(batches) for _ in range(6)]
    later = stream(encoder).batches(7, start=3)
    assert all(torch.equal(next(later), batch) for batch in expected[3:])


def test_a_stream_visits_every_image_once_an_epoch(encoder):
    batches = stream(encoder, batch_size=23, buffer_rows=23).batches(23)
    for _ in range(2):
        assert len(next(batches).unique(dim=0)) == 23


def test_a_stream_of_one_row_an_image_knows_its_length_and_scale(encoder):
    live = ActivationStream(encoder, Pictures(), "proj", tokens="all", batch_size=23, workers=0)
    assert live.shape == (23, 12)
    rows = direct(encoder, "proj", range(23))
    assert live.rms() == pytest.approx(float(rows.square().mean().sqrt()), rel=1e-4)
    assert torch.allclose(live.mean(), rows.mean(dim=0), atol=1e-5)


def test_a_stream_with_workers_ends_when_it_is_left(encoder):
    batches = stream(encoder, workers=1).batches(8)
    next(batches)
    batches.close()
    assert not torch.multiprocessing.active_children()


def test_a_stream_names_unreadable_images(encoder):
    live = ActivationStream(encoder, Pictures(broken=(3,)), "proj", workers=0)
    with pytest.raises(ValueError, match="picture-3"):
        next(live.batches(4))


def test_a_stream_goes_on_without_unreadable_images(encoder):
    live = ActivationStream(encoder, Pictures(broken=range(1, 23)), "proj", batch_size=1, workers=0, on_error="skip")
    assert len(next(live.batches(4)).unique(dim=0)) == 1


def test_a_stream_of_which_no_image_can_be_read_is_an_error(encoder):
    live = ActivationStream(encoder, Pictures(broken=range(23)), "proj", workers=0, on_error="skip")
    with pytest.raises(ValueError, match="none of the 23 images could be read"):
        next(live.batches(4))


def test_a_stream_of_no_images_is_an_error(encoder):
    with pytest.raises(ValueError, match="image set is empty"):
        ActivationStream(encoder, Pictures(0), "proj")


def test_the_public_names_live_in_one_module():
    assert lib.activations.extraction.ActivationStore is lib.ActivationStore
