"""`photo` and `paper` from nothing to the rendered book, with a hub on loopback, broken off twice on the way.

The hub has random models of the real families and drawn pictures in the real formats; the profiles are the book's own
in small (stand_in_profiles.py). A build is killed while it downloads and while it extracts, a connection breaks in the
middle of a file, and the next build goes on.
"""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import psutil
import pytest
import yaml

from tests.long import stand_in_data as data
from tests.long.stand_in_models import full_size, model_repositories
from tests.long.stand_in_profiles import make_small
from tests.small_hub import Fault, SmallHub, serving

pytestmark = pytest.mark.long
PROFILES = ("photo", "paper", "paper-siglip")
PATIENCE = 3600  # seconds; a build of one profile takes minutes on idle cores


@dataclass
class Checkout:
    """A copy of the project beside the data sets, whose builds ask the stand-in hub."""

    folder: Path
    hub: SmallHub
    originals: dict[str, dict] = field(default_factory=dict)  # the profiles as the project has them
    started: list[subprocess.Popen] = field(default_factory=list)

    def start(self, profile: str) -> subprocess.Popen:
        """A build as `make book PROFILE=... CONFIRM=1` starts it."""
        options = ["--profile", profile, "--html", f"build/html-{profile}", "--confirm"]
        return self.run(profile, "book.tools.build", *options, "--cores", str(os.cpu_count() or 2))

    def run(self, profile: str, tool: str, *arguments: str) -> subprocess.Popen:
        """A tool of the book, whose output goes to the profile's log."""
        home = self.folder.parent / "home"
        path = os.pathsep.join([str(self.folder), os.environ.get("PYTHONPATH", "")])
        settings = {"PYTHONPATH": path, "HF_ENDPOINT": self.hub.address, "HF_HOME": str(home)}
        unset = {name: value for name, value in os.environ.items() if not name.startswith(("MV_", "HF_"))}
        log = (self.folder.parent / f"{profile}.log").open("a")
        command = [sys.executable, "-m", tool, *arguments]
        process = subprocess.Popen(command, cwd=self.folder, env=unset | settings, stdout=log, stderr=subprocess.STDOUT)
        self.started.append(process)
        return process

    def finish(self, profile: str) -> None:
        build = self.start(profile)
        assert build.wait(PATIENCE) == 0, (self.folder.parent / f"{profile}.log").read_text()[-4000:]

    def finished(self, profile: str) -> set[Path]:
        return set((self.folder / "build" / profile / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def checkout(root, tmp_path_factory):
    place = tmp_path_factory.mktemp("stand-in")
    folder, hub = place / "book", SmallHub()
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=root, capture_output=True, check=True
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name)
    if (root / "build" / "vendor").is_dir():
        shutil.copytree(root / "build" / "vendor", folder / "build" / "vendor")
    made = Checkout(folder, hub)
    for name in PROFILES:
        file = folder / "profiles" / f"{name}.yaml"
        made.originals[name] = yaml.safe_load(file.read_text())
        make_small(file)
    hub.repos = model_repositories(place / "models")
    hub.repos["datasets/Sijuade/ImageNette"] = data.imagenette(360, 480)
    sets = place / "data"  # where the profile `paper` says that they are
    data.imagenet(sets, {"train": 2, "val": 2})
    data.inat21(sets, {"train": 8, "val": 6})
    data.celeba(sets, 240)
    data.waterbirds(sets, 240)
    data.typographic(sets, 120)
    with serving(hub):
        yield made
        for process in made.started:
            _kill(process)


def _kill(build: subprocess.Popen) -> None:
    """End a build by force, and see that what it started ends by itself."""
    children = psutil.Process(build.pid).children(recursive=True) if build.poll() is None else []
    build.send_signal(signal.SIGKILL)
    build.wait()
    _, left = psutil.wait_procs(children, timeout=120)
    assert not left, f"still at work after the build was killed: {left}"


def _until(condition, what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"{what} never came"
        time.sleep(0.05)


def _break_off_a_download(checkout: Checkout, profile: str, file: str) -> None:
    """Kill the build in the middle of a file."""
    held = Fault(f"GET /content/.*{file}", breaks_after=100, times=1, hold=True)
    checkout.hub.faults.append(held)
    build = checkout.start(profile)
    _until(lambda: held.reached.is_set() or build.poll() is not None, f"the download of {file}")
    assert build.poll() is None, (checkout.folder.parent / f"{profile}.log").read_text()[-4000:]
    _kill(build)
    held.released.set()


def _break_off_an_extraction(checkout: Checkout, profile: str) -> None:
    """Kill the build once it has written the first file of some activations."""
    before = set((checkout.folder / "build" / profile).rglob("*.safetensors"))
    build = checkout.start(profile)
    _until(
        lambda: set((checkout.folder / "build" / profile).rglob("*.safetensors")) - before or build.poll() is not None,
        "the first shard",
    )
    assert build.poll() is None, (checkout.folder.parent / f"{profile}.log").read_text()[-4000:]
    _kill(build)


def _parts_asked_for(checkout: Checkout, file: str) -> int:
    return sum(bool(re.search(f"^GET /content/.*{file}", line)) for line in checkout.hub.log)


# by profile: the file in whose middle the build is killed, and the one whose connection breaks
BROKEN = {
    "photo": ("train-00001-of-00002.parquet", "clip-vit-base-patch32/model.safetensors"),
    "paper": ("llava-1.5-7b-hf/model-00002-of-00003.safetensors", "clip-vit-large-patch14-336.*/model.safetensors"),
}


@pytest.mark.parametrize("profile", BROKEN)
def test_a_profile_is_built_from_nothing_whatever_breaks_off(checkout, profile, record_property):
    killed_in, broken = BROKEN[profile]
    checkout.hub.faults.append(Fault(f"GET /content/.*{broken}", breaks_after=1000, times=1))
    _break_off_a_download(checkout, profile, killed_in)
    _break_off_an_extraction(checkout, profile)
    kept = {path: path.stat().st_mtime_ns for path in checkout.finished(profile)}
    began = time.monotonic()
    checkout.finish(profile)
    record_property(f"seconds of the build of {profile} after it was killed", round(time.monotonic() - began))
    record_property("builds killed and gone on with", 2)
    assert _parts_asked_for(checkout, broken) >= 2
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    for name in (profile, *checkout.originals[profile].get("also", [])):
        _check_chapters(checkout, name)
    _check_pages(checkout, profile)


TAGS = {
    "ViT-B-32/datacomp_xl_s13b_b90k": "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K",
    "ViT-B-32/openai": "timm/vit_base_patch32_clip_224.openai",
}


def test_the_tags_that_the_profiles_name_are_loaded_at_their_own_size(tmp_path):
    hub = SmallHub()
    weights = full_size("ViT-B-32")
    hub.repos = {repository: {"open_clip_model.safetensors": weights} for repository in TAGS.values()}
    code = "; ".join(
        [
            "from lib import load_encoder",
            f"encoders = [load_encoder('open_clip:' + tag, device='cpu') for tag in {list(TAGS)}]",
            "print([(e.n_layers, e.d_model, e.d_embed, e.n_tokens, e.fingerprint) for e in encoders])",
        ]
    )
    with serving(hub) as address:
        settings = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path)}
        ran = subprocess.run([sys.executable, "-c", code], env=os.environ | settings, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    sizes = ast.literal_eval(ran.stdout.splitlines()[-1])
    assert {size[:4] for size in sizes} == {(12, 768, 512, 50)}
    assert len({size[4] for size in sizes}) == 1  # the same weights, whoever serves them


def test_chapter_10_takes_the_other_set_of_words_on_objects(checkout):
    parameters = {"word_images": "rta100"}
    profile = {"extends": "paper", "notebooks": {"10_disentanglement": {"parameters": parameters}}}
    (checkout.folder / "profiles" / "rta100.yaml").write_text(yaml.safe_dump(profile))
    checkout.run("rta100", "book.tools.run_notebook", "10_disentanglement", "--profile", "rta100").wait(PATIENCE)
    assert {path.stem for path in checkout.finished("rta100")} == {"10_disentanglement"}


def _check_chapters(checkout: Checkout, profile: str) -> None:
    """Every chapter that the project's own profile names was run with every parameter that it names."""
    original = checkout.originals[profile]
    base = checkout.originals[original["extends"]] if "extends" in original else {"notebooks": {}}
    chapters = {*original["notebooks"], *base["notebooks"]} - set(original["leave_out"])
    assert {path.stem for path in checkout.finished(profile)} == chapters
    for path in checkout.finished(profile):
        notebook = nbformat.read(path, as_version=4)
        given = notebook.metadata.papermill.parameters
        wanted = (original["notebooks"].get(path.stem) or base["notebooks"].get(path.stem) or {}).get("parameters", {})
        assert set(wanted) <= set(given), path.stem
        code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
        assert all(cell.execution_count for cell in code), path.stem
        assert not any(output.output_type == "error" for cell in code for output in cell.outputs), path.stem
    reads = (original["notebooks"].get("90_scoreboard") or {}).get("reads", [])
    for name in reads:
        results = json.loads((checkout.folder / "build" / profile / "results" / f"{name}.json").read_text())
        assert results, name


def _check_pages(checkout: Checkout, profile: str) -> None:
    """The book has a page for every chapter, and says of those that were left out why."""
    pages = checkout.folder / "build" / f"html-{profile}"
    status = (pages / "book" / "status.html").read_text()
    for name in checkout.originals[profile]["notebooks"]:
        assert (pages / "notebooks" / f"{name}.html").is_file(), name
    for name in checkout.originals[profile]["leave_out"]:
        assert name in status
        assert "leaves this chapter out" in (pages / "notebooks" / f"{name}.html").read_text(), name
