from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "tools")]

from helpers import Golden, load_golden  # noqa: E402


def pytest_configure():
    """Test processes side by side (pytest -n) share the cores, with what they start."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    threads = max(1, torch.get_num_threads() // processes)
    torch.set_num_threads(threads)
    if processes > 1:
        os.environ["OMP_NUM_THREADS"] = str(threads)


@pytest.fixture(autouse=True)
def _fixed_seed():
    """Each test starts from the same random state and leaves none behind."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture
def golden(request) -> Golden:
    """``@pytest.mark.parametrize("golden", ["ldm_unet"], indirect=True)``, or call
    ``load_golden``."""
    return load_golden(request.param)


def pytest_collection_modifyitems(items):
    """GPU tests are skipped without a GPU, unless VPD_REQUIRE_CUDA turns that into a failure."""
    if torch.cuda.is_available() or os.environ.get("VPD_REQUIRE_CUDA"):
        return
    for item in items:
        if "cuda" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="module")
def few_scenes():
    """Splits of Tabletop are a few rendered scenes: :func:`dense_toys.few_scenes`."""
    import dense_toys

    with dense_toys.few_scenes():
        yield
