"""Flash attention against softmax(q k^T) v in double."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from ops_helpers import assert_close

import vpd
from vpd import _C

pytestmark = pytest.mark.skipif(
    _C.cpu_level() != "avx512_bf16", reason="needs AVX-512 with bfloat16 products"
)

# batch, heads, queries, keys, width
SHAPES = [
    (1, 1, 1, 1, 1),
    (2, 3, 5, 7, 3),
    (1, 2, 24, 16, 16),
    (1, 2, 25, 17, 40),
    (2, 2, 100, 255, 33),
    (1, 2, 64, 256, 64),
    (1, 2, 193, 257, 80),
    (1, 1, 50, 513, 160),
    (1, 1, 30, 300, 100),
    (1, 8, 1024, 1024, 40),
    (1, 1, 0, 5, 8),
    (0, 2, 3, 5, 8),
]


def make(shape: tuple[int, ...], dtype: torch.dtype, spread: float = 1.0) -> list[torch.Tensor]:
    batch, heads, queries, keys, width = shape
    rows = (queries, keys, keys)
    return [(torch.randn(batch, heads, n, width) * spread).to(dtype) for n in rows]


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
    return F.scaled_dot_product_attention(q.double(), k.double(), v.double(), scale=scale)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_like_the_formula(dtype, shape):
    q, k, v = make(shape, dtype)
    scale = 1.5 * shape[-1] ** -0.5
    out, logsumexp = torch.ops.vpd.flash_attention(q, k, v, scale)
    assert out.dtype == dtype
    assert out.shape == q.shape
    assert out.transpose(1, 2).is_contiguous()
    assert_close(out, attention(q, k, v, scale), "out")
    levels = (q.double() @ k.double().mT * scale).logsumexp(-1)
    assert logsumexp.dtype == torch.float32
    torch.testing.assert_close(logsumexp.double(), levels, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_gradients_like_the_formula(dtype, shape):
    inputs = make(shape, dtype)
    scale = 1.5 * shape[-1] ** -0.5
    grad = torch.randn(inputs[0].shape).to(dtype)
    found = gradients(lambda *x: torch.ops.vpd.flash_attention(*x, scale)[0], inputs, grad)
    wanted = gradients(lambda *x: attention(*x, scale), [x.double() for x in inputs], grad.double())
    for name, got, want in zip("qkv", found, wanted, strict=True):
        assert got.dtype == dtype
        assert_close(got, want, name)


def gradients(function, inputs, grad) -> tuple[torch.Tensor, ...]:
    leaves = [x.detach().requires_grad_() for x in inputs]
    return torch.autograd.grad(function(*leaves), leaves, grad)


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2)])
def test_gradients_that_are_wanted(wanted):
    inputs = make((2, 3, 30, 40, 20), torch.float32)
    whole = gradients(lambda *x: torch.ops.vpd.flash_attention(*x, 0.3)[0], inputs, inputs[0])
    for i in wanted:
        inputs[i].requires_grad_()
    out = torch.ops.vpd.flash_attention(*inputs, 0.3)[0]
    found = torch.autograd.grad(out, [inputs[i] for i in wanted], inputs[0].detach())
    for i, got in zip(wanted, found, strict=True):
        assert torch.equal(got, whole[i])


@pytest.mark.parametrize("offset", [-300.0, 300.0])
def test_gradients_of_scores_far_from_zero(offset):
    inputs = make((1, 1, 7, 21, 4), torch.float32)
    inputs[0][..., 0], inputs[1][..., 0] = 1.0, offset
    grad = torch.randn(1, 1, 7, 4)
    found = gradients(lambda *x: torch.ops.vpd.flash_attention(*x, 1.0)[0], inputs, grad)
    wanted = gradients(lambda *x: attention(*x, 1.0), [x.double() for x in inputs], grad.double())
    for name, got, want in zip("qkv", found, wanted, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-3, atol=1e-3, msg=name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_layouts(dtype):
    b, h, n, d = 2, 3, 40, 20
    joined = torch.randn(b, n, 3, h, d).to(dtype)
    heads_apart = [joined[:, :, i].transpose(1, 2) for i in range(3)]
    columns_apart = [torch.randn(b, h, n, 2 * d).to(dtype)[..., ::2] for _ in range(3)]
    for q, k, v in (heads_apart, columns_apart):
        out, _ = torch.ops.vpd.flash_attention(q, k, v, 0.3)
        assert_close(out, attention(q, k, v, 0.3), "out")


@pytest.mark.parametrize("offset", [-300.0, 300.0])
def test_scores_far_from_zero(offset):
    """A padded key's score of 0 would be the highest by far, or all weights would vanish."""
    q, k, v = make((1, 1, 7, 21, 4), torch.float32)
    q[..., 0], k[..., 0] = 1.0, offset
    out, _ = torch.ops.vpd.flash_attention(q, k, v, 1.0)
    assert_close(out, attention(q, k, v, 1.0), "out", 50)  # a score of 300 has no more digits


def test_the_highest_score_last():
    """Weights of all keys before are then too large by far, block after block."""
    q, k, v = make((1, 1, 9, 1000, 8), torch.float32, 0.1)
    k += torch.linspace(0, 30, 1000)[:, None] * q.mean((0, 1, 2)).sign()
    out, _ = torch.ops.vpd.flash_attention(q, k, v, 1.0)
    assert_close(out, attention(q, k, v, 1.0), "out", 5)


def test_not_a_number_stays_in_its_rows():
    q, k, v = make((1, 2, 30, 300, 8), torch.float32)
    q[0, 0, 5, 3] = torch.nan
    k[0, 1, 299, 0] = torch.nan
    out, _ = torch.ops.vpd.flash_attention(q, k, v, 1.0)
    want = attention(q, k, v, 1.0)
    assert torch.equal(out.isnan(), want.isnan())


def test_the_same_by_any_number_of_threads():
    q, k, v = make((2, 3, 300, 300, 40), torch.bfloat16)
    run = torch.ops.vpd.flash_attention

    def first(*x: torch.Tensor) -> torch.Tensor:
        return run(*x, 0.2)[0]

    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append([*run(q, k, v, 0.2), *gradients(first, (q, k, v), q)])
    finally:
        torch.set_num_threads(threads)
    for one, two, three in zip(*results, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)


def test_opcheck():
    q, k, v = make((2, 3, 10, 11, 12), torch.float32)
    torch.library.opcheck(torch.ops.vpd.flash_attention, (q, k, v, 0.2))
    leaves = [x.requires_grad_() for x in (q, k, v)]
    torch.library.opcheck(torch.ops.vpd.flash_attention, (*leaves, 0.2))
    out, level = torch.ops.vpd.flash_attention(q, k, v, 0.2)
    for wanted in ([True, True, True], [False, True, False]):
        saved = [x.detach() for x in (q, q, k, v, out, level)]
        torch.library.opcheck(torch.ops.vpd.flash_attention_backward, (*saved, 0.2, wanted))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_messages(device):
    q = torch.zeros(1, 2, 3, 4, device=device)

    def refused(message, *args):
        with pytest.raises(ValueError, match=message):
            torch.ops.vpd.flash_attention(*args)

    refused(r"q must be \[B, heads, M, D\], got \[2, 3, 4\]", q[0], q, q, 1.0)
    refused("q must be BFloat16 or Float, got Double", q.double(), q, q, 1.0)
    refused(r"k must be \[1, 2, N, 4\] with N >= 1, got \[1, 1, 3, 4\]", q, q[:, :1], q, 1.0)
    refused("v must be Float on .* like q, got BFloat16", q, q, q.bfloat16(), 1.0)
    refused("v must have the 3 tokens of k, got 2", q, q, q[:, :, :2], 1.0)
    refused("scale must be positive, got 0", q, q, q, 0.0)


def test_messages_of_the_backward_pass():
    q = torch.zeros(1, 2, 3, 4)
    level = torch.zeros(1, 2, 3)
    run = torch.ops.vpd.flash_attention_backward
    with pytest.raises(
        ValueError, match=r"grad must be Float \[1, 2, 3, 4\] like q, got Float \[2"
    ):
        run(q[0], q, q, q, q, level, 1.0, [True] * 3)
    with pytest.raises(ValueError, match=r"logsumexp must be Float \[1, 2, 3\], got Double"):
        run(q, q, q, q, q, level.double(), 1.0, [True] * 3)


def test_attention_takes_it():
    """Without mask and order of tokens; with gradients where it is faster."""

    def operators(tokens, dtype, *, mask=None, grad=False) -> set[str]:
        q = torch.randn(1, tokens, 16).to(dtype).requires_grad_(grad)
        with torch.profiler.profile() as profile:
            out = vpd.ops.attention(q, q, q, mask, 2, 0.3)
            if grad:
                out.sum().backward()
        return {e.key for e in profile.key_averages()}

    both = {"vpd::flash_attention", "vpd::flash_attention_backward"}
    assert both <= operators(50, torch.bfloat16, grad=True)
    assert both <= operators(600, torch.float32, grad=True)
    assert not both & operators(50, torch.float32, grad=True)
    assert "vpd::flash_attention" in operators(50, torch.float32)
    mask = torch.ones(1, 50, dtype=torch.bool)
    assert "vpd::flash_attention" not in operators(50, torch.float32, mask=mask)


@pytest.mark.parametrize("grad", [False, True])
def test_attention_under_autocast(grad):
    """Inputs of two types, and of float32 alone: as PyTorch's attention takes them."""
    q = torch.randn(1, 30, 16).requires_grad_(grad)
    for k in (q, q.bfloat16()):
        with torch.autocast("cpu", torch.bfloat16):
            out = vpd.ops.attention(q, k.to(q.dtype), k.to(q.dtype), None, 2, 0.3)
        assert out.dtype == torch.bfloat16
