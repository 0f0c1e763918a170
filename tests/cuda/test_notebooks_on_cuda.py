"""Every notebook's code cells run on CUDA as they do on the CPU: no chapter moves tensors by hand, or needs to.

Those that steer LLaVA or train a model are in `test_llava_notebooks_on_cuda.py`, for another process of the tests.
"""

import pytest

from tests.cuda.smallest import OTHERS, SMALLEST, run_on_cuda
from tests.notebook_cells import NOTEBOOKS


def test_every_notebook_is_here():
    assert sorted(SMALLEST) == sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("name", [name for name in SMALLEST if name not in OTHERS])
def test_runs_on_cuda(name, profile_dir):
    run_on_cuda(name, profile_dir)
