"""The CUDA kernels, run on the CPU by an emulation of threads, shuffles and tensor cores: the same
sources but for how a kernel is launched. Compared with the references in double."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from ops_helpers import assert_close
from torch import Tensor

from vpd import ops, reference

HERE = Path(__file__).parent / "cuda_on_host"
CUDA = Path(__file__).parents[2] / "csrc" / "ops" / "cuda"
LAUNCH = re.compile(r"(\w+(?:<[\w\s,():]*?>)?)\s*<<<(.*?)>>>\((.*?)\);", re.DOTALL)
TYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
SMALL = [torch.float16, torch.bfloat16]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    """name -> its launchers as a library of C functions."""
    folder = tmp_path_factory.mktemp("cuda")
    for source in CUDA.glob("*.h"):
        shutil.copy(source, folder)
    shutil.copy(CUDA / "common.cuh", folder)
    for source in HERE.iterdir():
        shutil.copy(source, folder)

    def library(name: str) -> ctypes.CDLL:
        built = folder / f"{name}.so"
        if not built.exists():
            text, count = LAUNCH.subn(
                r"emulation::launch(\2, [=] { \1(\3); });", (CUDA / f"{name}.cu").read_text()
            )
            assert count, f"no launch found in {name}.cu"
            (folder / f"{name}.cu").write_text(text)
            command = [
                "g++", "-std=c++20", "-O1", "-fPIC", "-shared", "-w", "-x", "c++", f"-I{folder}",
                f'-DKERNEL="{name}.cu"', f"-D{name.upper()}", str(folder / "calls.cpp"),
                "-o", str(built),
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        return ctypes.CDLL(str(built))

    return library


def at(*tensors: Tensor | None):
    """Addresses of dense tensors."""
    assert all(t is None or t.is_contiguous() for t in tensors)
    return (ctypes.c_void_p * len(tensors))(*(t if t is None else t.data_ptr() for t in tensors))


def one(tensor: Tensor | None):
    return None if tensor is None else ctypes.c_void_p(tensor.data_ptr())


def sizes(*values: int):
    return (ctypes.c_int64 * len(values))(*values)


def kind(dtype: torch.dtype) -> int:
    return [torch.float32, torch.float64, torch.float16, torch.bfloat16].index(dtype)


def wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


# batch, queries, tokens, heads, width of a head
SHAPES = [
    (1, 1, 1, 1, 8),
    (2, 70, 77, 3, 40),
    (1, 64, 80, 2, 32),
    (1, 33, 81, 2, 48),
    (2, 17, 170, 2, 80),
    (1, 20, 77, 1, 160),
]


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", SMALL)
@pytest.mark.parametrize("shape", SHAPES)
def test_cross_attention(kernels, shape, dtype, masked, per_head):
    torch.manual_seed(0)
    batch, queries, tokens, heads, width = shape
    q, k, v = (torch.randn(batch, n, heads * width).to(dtype) for n in (queries, tokens, tokens))
    mask = torch.rand(batch, tokens) < 0.6 if masked else None
    if mask is not None:
        mask[:, 0] = True
    plane = (batch, heads, tokens, queries) if per_head else (batch, tokens, queries)
    out, maps = torch.full_like(q, torch.nan), torch.full(plane, torch.nan, dtype=dtype)
    sums = torch.full(plane, torch.nan) if tokens > 80 and not per_head else None
    scale = 0.7 / width**0.5
    library = kernels("cross_attention")
    done = library.cross_attention(
        kind(dtype), sizes(*shape), at(q, k, v), one(mask), ctypes.c_float(scale), per_head,
        at(out, maps), one(sums),
    )  # fmt: skip
    assert done == 0
    exact = (t.double() for t in (q, k, v))
    expected = reference.cross_attention(*exact, mask, heads, scale, per_head)
    assert_close(out, expected[0], "out", 2.0)
    assert_close(maps, expected[1], "map", 2.0)


def test_cross_attention_of_no_token_and_no_number(kernels):
    q, k, v = (torch.randn(1, n, 8).half() for n in (3, 100, 100))
    mask = torch.zeros(1, 100, dtype=torch.bool)
    call = kernels("cross_attention").cross_attention
    shape, scale = sizes(1, 3, 100, 1, 8), ctypes.c_float(1)
    out, maps, sums = torch.zeros_like(q), torch.zeros(1, 100, 3).half(), torch.zeros(1, 100, 3)
    parts = (kind(q.dtype), shape, at(q, k, v))
    assert call(*parts, one(mask), scale, False, at(out, maps), one(sums)) == 0
    assert out.isnan().all()  # as softmax says of nothing
    mask[0, 90:] = True  # the first stretch of tokens counts for nothing
    assert call(*parts, one(mask), scale, False, at(out, maps), one(sums)) == 0
    expected = reference.cross_attention(q.double(), k.double(), v.double(), mask, 1, 1.0)
    assert_close(out, expected[0], "out", 2.0)
    assert not maps[:, :90].any()
    q[0, 1, 3] = torch.nan
    assert call(*parts, one(mask), scale, False, at(out, maps), one(sums)) == 0
    assert out[0, 1].isnan().all()
    assert torch.isfinite(out[0, ::2]).all()


def test_what_cross_attention_takes(kernels):
    library = kernels("cross_attention")
    words, out, maps = torch.zeros(3, 4096, dtype=torch.float16)
    cases = [
        (80, torch.float16, 16, 0), (80, torch.bfloat16, 160, 0), (75, torch.float16, 8, 0),
        (75, torch.bfloat16, 8, -1), (70, torch.float16, 8, -1), (80, torch.float32, 8, -1),
        (80, torch.float16, 12, -1), (80, torch.float16, 168, -1),
    ]  # fmt: skip
    for gpu, dtype, width, expected in cases:
        library.on_gpu(gpu)
        found = library.cross_attention(
            kind(dtype), sizes(1, 2, 3, 1, width), at(words, words, words), None,
            ctypes.c_float(1), False, at(out, maps), None,
        )  # fmt: skip
        assert found == expected, (gpu, dtype, width)
    library.on_gpu(80)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("width", [5, 64])
def test_geglu(kernels, dtype, width):
    torch.manual_seed(0)
    x, grad = torch.randn(37, 2 * width).to(dtype), torch.randn(37, width).to(dtype)
    y, grad_x = torch.full_like(grad, torch.nan), torch.full_like(x, torch.nan)
    library, size = kernels("geglu"), (ctypes.c_int64(37), ctypes.c_int64(width))
    assert library.geglu(kind(dtype), one(x), one(y), *size) == 0
    assert library.geglu_backward(kind(dtype), one(grad), one(x), one(grad_x), *size) == 0
    leaf = x.double().requires_grad_()
    expected = reference.geglu(leaf)
    assert_close(y, expected.detach(), "y")
    assert_close(grad_x, torch.autograd.grad(expected, leaf, grad.double())[0], "gradient", 2.0)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(2, 6, 3, 5, 2), (1, 32, 4, 8, 4)])
def test_group_norm_silu(kernels, shape, dtype, silu, last):
    torch.manual_seed(0)
    batch, channels, height, width, groups = shape
    format_ = torch.channels_last if last else torch.contiguous_format
    image = (torch.randn(*shape[:4]) + 2).to(dtype).contiguous(memory_format=format_)
    grad = torch.randn(*shape[:4]).to(dtype).contiguous(memory_format=format_)

    def flat(t: Tensor) -> Tensor:  # as it lies in memory
        return t.permute(0, 2, 3, 1) if last else t

    real = wide(dtype)
    weight, bias = torch.randn(2, channels, dtype=real)
    y, grad_x = torch.empty_like(image), torch.empty_like(image)
    mean, rstd = torch.zeros(2, batch, groups, dtype=real)
    grad_weight, grad_bias = torch.full((2, channels), torch.nan, dtype=real)
    library = kernels("group_norm_silu")
    library.group_norm_silu_bytes.restype = ctypes.c_int64
    size = sizes(batch, channels, height * width, groups, int(last))
    count = library.group_norm_silu_bytes(kind(dtype), size)
    scratch = torch.full((count,), 255, dtype=torch.uint8)
    done = library.group_norm_silu(
        kind(dtype), size, at(flat(image), weight, bias), ctypes.c_double(1e-5), silu,
        at(flat(y), mean, rstd), one(scratch),
    )  # fmt: skip
    assert done == 0
    done = library.group_norm_silu_backward(
        kind(dtype), size, at(flat(grad), flat(image), weight, bias, mean, rstd), silu,
        at(flat(grad_x), grad_weight, grad_bias), one(scratch),
    )  # fmt: skip
    assert done == 0
    leaves = [t.double().requires_grad_() for t in (image, weight, bias)]
    expected = torch.nn.functional.group_norm(leaves[0], groups, *leaves[1:], 1e-5)
    expected = torch.nn.functional.silu(expected) if silu else expected
    assert_close(y, expected.detach(), "y", 2.0)
    exact = torch.autograd.grad(expected, leaves, grad.double())
    found = (grad_x, grad_weight, grad_bias)
    for name, a, e in zip(("x", "weight", "bias"), found, exact, strict=True):
        assert_close(a, e, f"gradient of {name}", 8.0)


@pytest.mark.parametrize("full_grad", [False, True])
@pytest.mark.parametrize("dtype", TYPES)
def test_asymmetric_loss(kernels, dtype, full_grad):
    torch.manual_seed(0)
    count, setting = 700, (4.0, 1.0, 0.05, 1e-8)
    logits, target = torch.randn(1, count).to(dtype), torch.rand(1, count) < 0.3
    real, library = wide(dtype), kernels("asymmetric_loss")
    values, grad_logits = torch.full((1, count), torch.nan, dtype=real), torch.empty_like(logits)
    library.blocks.restype = ctypes.c_int64
    partial = torch.full((library.blocks(ctypes.c_int64(count)),), torch.nan, dtype=real)
    grad = torch.randn(1, count, dtype=real)
    loss = (ctypes.c_double * 4)(*setting)
    head = (kind(dtype), one(logits), one(target), ctypes.c_int64(count), loss)
    assert library.asymmetric_loss(*head, one(values), None) == 0
    assert library.asymmetric_loss(*head, None, one(partial)) == 0
    for which, single in ((grad, False), (grad[:, :1].contiguous(), True)):
        done = library.asymmetric_loss_backward(
            *head, full_grad, one(which), single, one(grad_logits)
        )
        assert done == 0
        leaf = logits.double().requires_grad_()
        expected = ops.asymmetric_loss(leaf, target, *setting, full_grad, False)
        (exact,) = torch.autograd.grad(expected, leaf, which.double().expand(1, count))
        assert_close(grad_logits, exact, "gradient", 4.0)
    assert_close(values, expected.detach(), "values", 4.0)
    assert_close(partial.sum(), expected.detach().sum(), "sum", 4.0)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("width", [3, 32])
def test_deformable_attention(kernels, dtype, width):
    torch.manual_seed(0)
    levels = torch.tensor([[5, 7], [3, 4]])
    pixels, heads, queries, points = int(levels.prod(1).sum()), 2, 9, 3
    real = wide(dtype)
    value = torch.randn(2, pixels, heads, width).to(dtype)
    locations = torch.rand(2, queries, heads, 2, points, 2, dtype=real) * 1.3 - 0.15
    weights = torch.rand(2, queries, heads, 2, points, dtype=real)
    out = torch.full((2, queries, heads * width), torch.nan).to(dtype)
    grad = torch.randn(out.shape).to(dtype)
    size = sizes(2, pixels, heads, width, queries, 2, points)
    library = kernels("deformable_attention")
    done = library.deformable_attention(
        kind(dtype), size, one(value), one(levels), one(locations), one(weights), one(out)
    )
    assert done == 0
    grads = [torch.zeros(value.shape, dtype=real), locations * torch.nan, weights * torch.nan]
    done = library.deformable_attention_backward(
        kind(dtype), size, at(grad, value, locations, weights), one(levels), at(*grads)
    )
    assert done == 0
    leaves = [t.double().requires_grad_() for t in (value, locations, weights)]
    expected = reference.deformable_attention(leaves[0], levels, *leaves[1:])
    assert_close(out, expected.detach(), "out", 2.0)
    exact = torch.autograd.grad(expected, leaves, grad.double())
    for name, a, e in zip(("value", "locations", "weights"), grads, exact, strict=True):
        assert_close(a, e, f"gradient of {name}", 4.0)
