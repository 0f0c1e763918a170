"""Every notebook's code cells run on CUDA as they do on the CPU: no chapter moves tensors by hand, or needs to.

Here those that steer LLaVA or train a model; the others are in `test_notebooks_on_cuda.py`.
"""

import pytest

from tests.cuda.smallest import OTHERS, run_on_cuda


@pytest.mark.parametrize("name", OTHERS)
def test_runs_on_cuda(name, profile_dir):
    run_on_cuda(name, profile_dir)
