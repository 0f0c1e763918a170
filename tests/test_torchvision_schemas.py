"""`import lib` declares torchvision's operators only where torchvision's own library was tried and found missing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

HEALTHY = """
import torch
library = torch.library.Library("torchvision", "DEF")  # as its library of operators does: a second one would end here
library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
library.impl("nms", lambda dets, scores, iou_threshold: torch.arange(len(dets)), "CPU")
loaded = True
"""


def torchvision(folder: Path, version: str, torch_version: str, package: str = HEALTHY) -> Path:
    """A package that calls itself torchvision of that version, for that torch."""
    (folder / "torchvision").mkdir(parents=True)
    (folder / "torchvision" / "__init__.py").write_text(package)
    (folder / "torchvision" / "version.py").write_text(f"__version__ = '{version}'\n")
    about = folder / f"torchvision-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: torchvision\nVersion: {version}\nRequires-Dist: torch=={torch_version}\n"
    )
    return folder


def python(code: str, *path: Path) -> subprocess.CompletedProcess:
    """Run it as in an environment whose installation had nothing to mend (book/tools/torchvision_first.py)."""
    code = f"import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'LibFirst' not in repr(f)]\n{code}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT)))}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def torch_version() -> str:
    import torch

    return torch.__version__.partition("+")[0]


@pytest.mark.parametrize(
    ("order", "label"),
    [("lib, torchvision", ""), ("torchvision, lib", ""), ("lib, torchvision", "+cu130"), ("lib, torchvision", "+cpu")],
)
def test_a_healthy_torchvision_is_left_alone(tmp_path, torch_version, order, label):
    """Of every kind of wheel; what a second declaration would end is imported before lib and after it."""
    folder = torchvision(tmp_path, f"0.28.0{label}", torch_version)
    cuda = "13.0" if label == "+cu130" else None
    result = python(
        f"import torch; torch.version.cuda = {cuda!r}\n"
        f"import {order}\n"
        "assert torchvision.loaded\n"
        "from lib import torchvision_schemas\n"
        "assert torchvision_schemas._library is None\n"
        "assert len(torch.ops.torchvision.nms(torch.zeros(3, 4), torch.zeros(3), 0.5)) == 3",
        folder,
    )
    assert result.returncode == 0, result.stderr


def test_import_lib_loads_nothing_of_a_torchvision_that_fits(tmp_path, torch_version):
    folder = torchvision(tmp_path, "0.28.0", torch_version)
    (folder / "torchvision" / "_C.so").write_bytes(b"no library")
    code = (
        "import torch; load = torch.ops.load_library; torch.ops.load_library = None; import lib, sys\n"
        "assert 'torchvision' not in sys.modules\n"
        "try: torch.ops.torchvision.nms\n"
        "except AttributeError: print('unknown')"
    )
    result = python(code, folder)
    assert result.stdout.strip() == "unknown", result.stderr


@pytest.mark.parametrize(("version", "for_torch"), [("0.28.0+cu130", None), ("0.20.0", "2.5.0")])
def test_operators_are_declared_where_the_library_of_another_torch_does_not_load(
    tmp_path, torch_version, version, for_torch
):
    package = "import torch\ntorch.library.register_fake('torchvision::nms')(lambda *given: given[0])\n"
    folder = torchvision(tmp_path, version, for_torch or torch_version, package)
    (folder / "torchvision" / "_C.so").write_bytes(b"no library")
    result = python("import torch; torch.version.cuda = None\nimport lib, torchvision", folder)
    assert result.returncode == 0, result.stderr
    assert "does not exist" in python("import torch; torch.version.cuda = None\nimport torchvision", folder).stderr


def test_a_library_of_another_torch_that_loads_is_enough(tmp_path, torch_version):
    folder = torchvision(tmp_path, "0.28.0+cu999", torch_version)
    (folder / "torchvision" / "_C.so").write_bytes(b"")
    code = (
        "import torch; tried = []; torch.ops.load_library = lambda path: tried.append(path)\n"
        "import lib; assert len(tried) == 1; import torchvision"
    )
    assert python(code, folder).returncode == 0


def test_without_torchvision_lib_can_be_imported():
    code = "import sys; sys.modules['torchvision'] = None\nimport lib; print(lib.torchvision_schemas._library)"
    assert python(code).stdout.strip() == "None"


def test_an_environment_that_was_mended_imports_open_clip_before_lib():
    """What the installation writes where no torchvision can be had that matches."""
    code = (
        "import sys; from book.tools import torchvision_first; sys.meta_path.insert(0, torchvision_first.LibFirst)\n"
        "import open_clip, lib; print(torchvision_first.LibFirst in sys.meta_path)"
    )
    result = python(code)
    assert result.stdout.strip() == "False", result.stderr
