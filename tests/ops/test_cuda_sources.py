"""The .cu files include nothing of PyTorch: nvcc compiles them on any machine, GPU or not."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[2] / "csrc"
KERNELS = sorted((CSRC / "ops" / "cuda").glob("*.cu"))


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="SKIPPED: nvcc not found")
@pytest.mark.parametrize("source", KERNELS, ids=lambda path: path.name)
def test_compiles(source, tmp_path):
    command = ["nvcc", "-std=c++20", "-arch=sm_80", "-O1", f"-I{CSRC}", "-c", str(source)]
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "kernel.o")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "kernel.o").stat().st_size > 0


def test_there_are_kernels_and_none_includes_torch():
    assert {path.stem for path in KERNELS} >= {"geglu", "group_norm_silu"}
    headers = list((CSRC / "ops" / "cuda").glob("*.cuh"))
    for source in [*KERNELS, *headers]:
        includes = [line for line in source.read_text().splitlines() if "#include" in line]
        assert not any(word in line for line in includes for word in ("ATen", "torch", "c10"))
