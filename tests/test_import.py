"""Importing lib is light; heavy libraries load when something first needs them."""

import importlib
import os
import re
import shutil
import subprocess
import sys
from operator import attrgetter
from pathlib import Path

import pytest

import lib

ROOT = Path(__file__).parent.parent
HEAVY = ("open_clip", "timm", "transformers", "torchvision", "sklearn", "scipy", "plotly", "pandas", "matplotlib")


def python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize("statement", ["import lib", "from lib import load_encoder, extract, Site, ActivationStore"])
def test_importing_lib_loads_no_heavy_library(statement):
    assert python(f"import sys; {statement}; print([m for m in {HEAVY} if m in sys.modules])") == "[]"


def test_after_lib_open_clip_and_torchvision_can_be_imported():
    assert python("import lib, torchvision, open_clip; print('ok')") == "ok"


def test_public_names_are_those_of_their_modules():
    from lib.activations.extraction import extract
    from lib.encoders.encoder import load_encoder

    assert lib.load_encoder is load_encoder
    assert lib.extract is extract
    assert {"load_images", "SAE", "metrics", "load_encoder", "load_llava"} <= set(dir(lib))


def test_every_public_name_can_be_had():
    for name in lib._HOME:
        assert getattr(lib, name).__name__ == name
    for name in lib._PACKAGES:
        assert getattr(lib, name).__name__.split(".")[-1] == name


def test_a_star_gives_the_public_names_and_no_others():
    given: dict = {}
    exec("from lib import *", given)
    assert set(lib.__all__) == set(given) - {"__builtins__"}
    assert {
        "load_encoder",
        "from_module",
        "extract",
        "SAE",
        "Intervention",
        "Neurons",
        "Llava",
        "load_llava",
        "metrics",
    } <= set(given)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'lib' has no attribute 'nothing'"):
        _ = lib.nothing


def test_without_entry_points_the_names_of_packages_above_are_said_to_be_unregistered(monkeypatch):
    monkeypatch.setattr(lib, "registered", lambda what: {})
    monkeypatch.delitem(vars(lib), "Intervention", raising=False)
    with pytest.raises(AttributeError, match="has no attribute 'Intervention'; is monosemantic-vision installed"):
        _ = lib.Intervention


@pytest.mark.parametrize(
    ("module", "where"),
    [("lib.data", "from lib import load_images"), ("lib.steering", "import steering"),
     ("lib.metrics.hierarchy", "from experiments import hierarchy")],
)  # fmt: skip
def test_a_module_that_has_moved_says_where_it_is_and_an_unknown_one_does_not(module, where):
    with pytest.raises(ModuleNotFoundError, match=f"{module} has moved: write `{where}"):
        importlib.import_module(module)
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'lib\.nothing'"):
        importlib.import_module("lib.nothing")


@pytest.mark.parametrize("name", lib._MOVED)
def test_a_name_that_has_moved_says_where_it_is(name):
    with pytest.raises(AttributeError, match=rf"lib\.{re.escape(name)} has moved: write") as caught:
        attrgetter(name)(lib)
    exec(str(caught.value).split("`")[1], {})


def test_an_installed_copy_has_all_packages_and_their_scripts(tmp_path):
    """What `pip install .` puts into an environment works without the repository, but for the embedded models."""
    source, site = tmp_path / "source", tmp_path / "site"
    for name in ("storage", "lib", "steering", "peers", "menagerie", "experiments", "widgets"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*install, "--target", site, source], check=True, capture_output=True)
    peer = str(ROOT / "tests/fixtures/peers/saelens/topk")
    code = f"""
import lib, menagerie, experiments.claims, widgets
print(lib.__file__, len(lib.load_images("menagerie:val[:3]")), widgets.FeatureExplorer.__name__)
print(lib.load_sae({peer!r}).config.kind, lib.Intervention.__module__)
try:
    lib.load_encoder("tiny")
except FileNotFoundError as error:
    print(error)
"""
    said = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.startswith(f"{site}/lib/__init__.py 3 FeatureExplorer\ntopk steering.interventions\n")
    assert "clone the repository" in said
