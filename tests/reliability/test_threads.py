"""Predictions at the same time, and one after another for long."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest

import vpd

TEXTS = ("the red cube", "the ball behind the cone", "the leftmost thing", "the small blue ring")
THREADS = 8


@pytest.fixture(scope="module")
def model():
    return vpd.load("vpd-mini-refer")


def pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (60 + 8 * i, 90, 3), np.uint8) for i in range(count)]


@pytest.fixture(scope="module")
def work():
    return [(image, TEXTS[i % len(TEXTS)]) for i, image in enumerate(pictures(THREADS))]


@pytest.fixture(scope="module")
def alone(model, work):
    return [model(*one) for one in work]


def test_eight_threads_equal_one(model, work, alone):
    together = Barrier(THREADS)

    def predict(one):
        together.wait(timeout=60)
        return model(*one)

    with ThreadPoolExecutor(THREADS) as pool:
        for found, want in zip(pool.map(predict, work), alone, strict=True):
            np.testing.assert_array_equal(found.probability, want.probability)
            np.testing.assert_array_equal(found.mask, want.mask)
            assert found.attention.strides.keys() == want.attention.strides.keys()
            for stride, maps in want.attention.strides.items():
                np.testing.assert_array_equal(found.attention.strides[stride], maps)


def test_same_input_same_bits(work, alone):
    again = vpd.load("vpd-mini-refer")(*work[0])
    np.testing.assert_array_equal(again.probability, alone[0].probability)


def memory_bytes() -> int:
    """What the process has written to, in memory or swapped out; mapped files come and go."""
    gc.collect()
    rows = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return sum(int(rows[name].split()[0]) * 1024 for name in ("RssAnon", "VmSwap"))


@pytest.mark.slow
def test_a_thousand_predictions_take_no_more_memory(model):
    """After a warm-up in which allocators and caches reach their sizes, memory is flat."""
    images = pictures(4)
    after = {}
    for i in range(1, 1001):
        model(images[i % 4], [TEXTS[i % 4], TEXTS[(i + 1) % 4]])
        if i in (200, 600, 1000):
            after[i] = memory_bytes()
    print({count: f"{size / 2**20:.1f} MiB" for count, size in after.items()})
    # A leak of one map of 128 x 128 floats a prediction would be 50 MiB.
    assert after[1000] - after[200] < 8 * 2**20, after
