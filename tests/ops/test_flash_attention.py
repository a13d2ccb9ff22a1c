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
    out = torch.ops.vpd.flash_attention(q, k, v, scale)
    assert out.dtype == dtype
    assert out.shape == q.shape
    assert out.transpose(1, 2).is_contiguous()
    assert_close(out, attention(q, k, v, scale), "out")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_layouts(dtype):
    b, h, n, d = 2, 3, 40, 20
    joined = torch.randn(b, n, 3, h, d).to(dtype)
    heads_apart = [joined[:, :, i].transpose(1, 2) for i in range(3)]
    columns_apart = [torch.randn(b, h, n, 2 * d).to(dtype)[..., ::2] for _ in range(3)]
    for q, k, v in (heads_apart, columns_apart):
        out = torch.ops.vpd.flash_attention(q, k, v, 0.3)
        assert_close(out, attention(q, k, v, 0.3), "out")


@pytest.mark.parametrize("offset", [-300.0, 300.0])
def test_scores_far_from_zero(offset):
    """A padded key's score of 0 would be the highest by far, or all weights would vanish."""
    q, k, v = make((1, 1, 7, 21, 4), torch.float32)
    q[..., 0], k[..., 0] = 1.0, offset
    out = torch.ops.vpd.flash_attention(q, k, v, 1.0)
    assert_close(out, attention(q, k, v, 1.0), "out", 50)  # a score of 300 has no more digits


def test_the_highest_score_last():
    """Weights of all keys before are then too large by far, block after block."""
    q, k, v = make((1, 1, 9, 1000, 8), torch.float32, 0.1)
    k += torch.linspace(0, 30, 1000)[:, None] * q.mean((0, 1, 2)).sign()
    out = torch.ops.vpd.flash_attention(q, k, v, 1.0)
    assert_close(out, attention(q, k, v, 1.0), "out", 5)


def test_not_a_number_stays_in_its_rows():
    q, k, v = make((1, 2, 30, 300, 8), torch.float32)
    q[0, 0, 5, 3] = torch.nan
    k[0, 1, 299, 0] = torch.nan
    out = torch.ops.vpd.flash_attention(q, k, v, 1.0)
    want = attention(q, k, v, 1.0)
    assert torch.equal(out.isnan(), want.isnan())


def test_the_same_by_any_number_of_threads():
    q, k, v = make((2, 3, 300, 300, 40), torch.bfloat16)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(torch.ops.vpd.flash_attention(q, k, v, 0.2))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_opcheck():
    q, k, v = make((2, 3, 10, 11, 12), torch.float32)
    torch.library.opcheck(torch.ops.vpd.flash_attention, (q, k, v, 0.2))


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


def test_attention_takes_it():
    """Without gradient, mask and order of tokens; and only then."""
    q = torch.randn(1, 50, 16)
    with torch.profiler.profile() as profile, torch.no_grad():
        vpd.ops.attention(q, q, q, None, 2, 0.3)
    assert "vpd::flash_attention" in {e.key for e in profile.key_averages()}
    with torch.profiler.profile() as profile:
        vpd.ops.attention(q.requires_grad_(), q, q, None, 2, 0.3).sum().backward()
    assert "vpd::flash_attention" not in {e.key for e in profile.key_averages()}
