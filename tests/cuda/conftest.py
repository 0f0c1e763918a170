"""These tests run on a CUDA device: a real one where there is one, else the emulated one of `tests/emulated_cuda.py`.

The emulated device changes torch for the whole process, so they have a pytest call of their own in `make test`.
"""

import pytest

from tests.cuda.both import cuda_device, without_float64


@pytest.fixture
def cuda():
    """Within the test there is a CUDA device, and "auto" means it."""
    with cuda_device():
        yield


@pytest.fixture(scope="module")
def profile_dir(tmp_path_factory):
    """One for all: a chapter finds what those before it extracted and trained."""
    return tmp_path_factory.mktemp("profile")


@pytest.fixture(scope="module")
def no_float64():
    """In this module the device has no float64, as Apple's GPUs have none."""
    with without_float64():
        yield
