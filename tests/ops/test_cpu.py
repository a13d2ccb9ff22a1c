"""Loops of the core run on PyTorch's threads, and instruction sets are chosen at run time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vpd import _C


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_loops_run_on_as_many_threads_as_pytorch_says(threads):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert _C.loop_threads() == threads
    finally:
        torch.set_num_threads(before)


def run(level: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"VPD_CPU": level},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )


QUICK = """
import sys
import torch
from vpd import _C, ops, reference

torch.manual_seed(0)
x, weight, bias = torch.randn(2, 32, 9, 9), torch.randn(32), torch.randn(32)
q, k, v = torch.randn(2, 81, 24), torch.randn(2, 7, 24), torch.randn(2, 7, 24)
tags = torch.rand(2, 99) < 0.2
print(_C.cpu_level())
for name, args in (
    ("group_norm_silu", (x, weight, bias, 8, 1e-5, True)),
    ("geglu", (x[..., :8],)),
    ("cross_attention", (q, k, v, None, 3, 0.3)),
    ("attention", (q, k, v, None, 3, 0.3)),
    ("asymmetric_loss", (x.flatten(1)[:, :99], tags)),
):
    got, want = getattr(ops, name)(*args), getattr(reference, name)(*args)
    pairs = zip(got, want) if isinstance(got, tuple) else [(got, want)]
    for g, w in pairs:
        torch.testing.assert_close(g, w, rtol=1e-5, atol=1e-5)
"""


@pytest.mark.parametrize("level", ["baseline", "avx2", "avx512"])
def test_lower_instruction_sets(level):
    found = run(level, "-c", QUICK)
    assert found.returncode == 0, found.stderr
    levels = ["baseline", "avx2", "avx512", "avx512_bf16"]
    assert found.stdout.strip() == levels[min(levels.index(level), levels.index(_C.cpu_level()))]


@pytest.mark.slow
@pytest.mark.parametrize("level", ["baseline", "avx2", "avx512"])
def test_all_operators_on_lower_instruction_sets(level):
    folder = Path(__file__).parent
    found = run(level, "-m", "pytest", "-q", "-m", "not slow", f"--ignore={__file__}", str(folder))
    assert found.returncode == 0, found.stdout[-3000:]


def test_an_unknown_instruction_set_is_refused():
    found = run("avx3", "-c", "import torch; from vpd import _C; _C.cpu_level()")
    assert found.returncode != 0
    assert 'VPD_CPU: expected baseline, avx2, avx512 or avx512_bf16, got "avx3"' in found.stderr
