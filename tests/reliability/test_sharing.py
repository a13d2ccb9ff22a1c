"""Two processes that fill the cache of rendered scenes at the same time (for cached outputs:
tests/train/caching/test_row_store.py)."""

from __future__ import annotations

import multiprocessing as mp

import numpy as np
import pytest

from vpd.data import tabletop


def _render(folder, started) -> None:
    started.wait(timeout=120)
    tabletop.load_split("val", folder, 1, 3, progress=False)


@pytest.mark.slow
def test_two_processes_render_one_split(tmp_path):
    context = mp.get_context("fork")
    started = context.Barrier(2)
    processes = [
        context.Process(target=_render, args=(tmp_path / "both", started)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    both = tabletop.load_split("val", tmp_path / "both", 1, 3, progress=False)
    alone = tabletop.load_split("val", tmp_path / "alone", 1, 3, progress=False)
    for i in range(3):
        np.testing.assert_array_equal(both.images[i], alone.images[i])
        assert both.scene(i).spec == alone.scene(i).spec
