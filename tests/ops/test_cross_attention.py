from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from ops_helpers import assert_close, check_against, count_graphs

from vpd import ops, reference

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# batch, queries, tokens, heads, width of a head
SHAPES = [
    (2, 7, 5, 3, 4),
    (1, 1, 1, 1, 1),
    (3, 64, 24, 4, 16),
    (2, 77, 77, 2, 40),
    (1, 33, 130, 2, 17),
    (1, 256, 77, 8, 80),
    (1, 40, 77, 1, 160),
    (0, 7, 5, 2, 4),
    (2, 0, 5, 2, 4),
]


def make(shape, dtype=torch.float32, layout="contiguous", device="cpu"):
    batch, queries, tokens, heads, width = shape

    def tensor(rows):
        columns = heads * width
        if layout == "sliced":  # as from one linear layer for keys and values
            return torch.randn(batch, rows, 2 * columns, device=device).to(dtype)[..., :columns]
        if layout == "transposed":
            return torch.randn(batch, columns, rows, device=device).to(dtype).transpose(1, 2)
        return torch.randn(batch, rows, columns, device=device).to(dtype)

    return tensor(queries), tensor(tokens), tensor(tokens)


def make_mask(shape, device="cpu"):
    mask = torch.rand(shape[0], shape[2], device=device) < 0.6
    mask[:, 0] = True
    return mask


@pytest.mark.parametrize("layout", ["contiguous", "sliced", "transposed"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("per_head", [False, True])
def test_like_reference(shape, dtype, layout, masked, per_head):
    mask = make_mask(shape) if masked else None
    check_against(
        lambda q, k, v: ops.cross_attention(q, k, v, mask, shape[3], None, per_head),
        lambda q, k, v: reference.cross_attention(q, k, v, mask, shape[3], None, per_head),
        make(shape, dtype, layout),
        factor=2.0,  # a product of sums
    )


@pytest.mark.parametrize("used", [[0], [1]])
@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_of_one_output(used, per_head, dtype):
    shape = (2, 50, 9, 2, 8)
    mask = make_mask(shape)

    def value_counts(function):  # keeps v in the graph when only the map is used
        def call(q, k, v):
            out, maps = function(q, k, v, mask, 2, 0.3, per_head)
            return out, maps + 0 * v.sum()

        return call

    check_against(
        value_counts(ops.cross_attention),
        value_counts(reference.cross_attention),
        make(shape, dtype),
        used=used,
        factor=2.0,
    )


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_share_the_work(batch, threads):
    shape = (batch, 100, 11, 2, 8)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        check_against(
            lambda q, k, v: ops.cross_attention(q, k, v, None, 2),
            lambda q, k, v: reference.cross_attention(q, k, v, None, 2),
            make(shape),
            factor=2.0,
        )
    finally:
        torch.set_num_threads(before)


def test_like_torch():
    shape = (2, 64, 77, 8, 40)
    q, k, v = make(shape)
    mask = make_mask(shape)
    split = [t.unflatten(2, (8, 40)).transpose(1, 2) for t in (q, k, v)]
    expected = F.scaled_dot_product_attention(*split, attn_mask=mask[:, None, None])
    expected = expected.transpose(1, 2).flatten(2)
    assert_close(ops.cross_attention(q, k, v, mask, 8)[0], expected, "cross_attention")
    assert_close(ops.attention(q, k, v, mask, 8), expected, "attention")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", SHAPES[:6])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_like_reference(shape, dtype, masked):
    mask = make_mask(shape) if masked else None
    check_against(
        lambda q, k, v: ops.attention(q, k, v, mask, shape[3]),
        lambda q, k, v: reference.attention(q, k, v, mask, shape[3]),
        make(shape, dtype),
        factor=3.0,
    )


def test_map_is_a_distribution_over_the_attended_tokens():
    shape = (3, 40, 30, 4, 8)
    q, k, v = make(shape)
    mask = make_mask(shape)
    _, maps = ops.cross_attention(q * 30, k, v, mask, 4)  # sharp: scores differ by hundreds
    assert ((maps >= 0) & (maps <= 1 + 1e-6)).all()
    torch.testing.assert_close(maps.sum(1), torch.ones(3, 40), rtol=0, atol=1e-5)
    assert (maps[~mask] == 0).all()
    _, by_head = ops.cross_attention(q * 30, k, v, mask, 4, None, True)
    torch.testing.assert_close(by_head.mean(1), maps)


def test_one_attended_token_and_far_scores():
    q, k, v = make((1, 5, 6, 1, 4))
    mask = torch.zeros(1, 6, dtype=torch.bool)
    mask[0, 3] = True
    out, maps = ops.cross_attention(q * 1e4, k * 1e4, v, mask, 1)
    torch.testing.assert_close(out, v[:, 3:4].expand(1, 5, 4))
    assert (maps[0, 3] == 1).all()


def test_not_a_number_stays():
    q, k, v = make((1, 5, 6, 2, 4))
    q[0, 1, 0] = float("nan")
    out, maps = ops.cross_attention(q, k, v, None, 2)
    assert out[0, 1, :4].isnan().all()
    assert maps[0, :, 1].isnan().all()
    assert not out[0, [0, 2, 3, 4]].isnan().any()


def test_autocast_brings_types_together():
    q, k, v = make((2, 9, 5, 2, 4))
    with torch.autocast("cpu", torch.bfloat16):
        out, maps = ops.cross_attention(q.bfloat16(), k, v, None, 2)
    assert out.dtype == maps.dtype == torch.bfloat16
    rounded = [t.bfloat16().double() for t in (q, k, v)]
    expected = reference.cross_attention(*rounded, None, 2)
    assert_close(out, expected[0], "out")
    assert_close(maps, expected[1], "map")


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_gradcheck(per_head, masked):
    shape = (2, 5, 4, 2, 3)
    mask = make_mask(shape) if masked else None
    tensors = [t.requires_grad_() for t in make(shape, torch.float64)]
    assert torch.autograd.gradcheck(
        lambda q, k, v: ops.cross_attention(q, k, v, mask, 2, 0.7, per_head), tensors
    )


@pytest.mark.parametrize("per_head", [False, True])
def test_opcheck(per_head):
    shape = (2, 5, 4, 2, 3)
    mask = make_mask(shape)
    q, k, v = make(shape)
    out, maps = ops.cross_attention(q, k, v, mask, 2, 0.7, per_head)
    torch.library.opcheck(
        torch.ops.vpd.cross_attention_backward,
        (out, maps, q, k, v, mask, 2, 0.7, per_head, [True, True, True]),
    )
    leaves = [t.requires_grad_() for t in (q, k, v)]
    torch.library.opcheck(torch.ops.vpd.cross_attention, (*leaves, mask, 2, 0.7, per_head))


def test_one_graph_for_all_sizes():
    calls = [
        tuple(t.requires_grad_() for t in make((b, m, n, 2, 4)))
        for b, m, n in ((2, 6, 5), (3, 8, 7), (4, 10, 9))
    ]
    assert count_graphs(lambda q, k, v: ops.cross_attention(q, k, v, None, 2, 0.5), calls) == 1


def test_second_derivative_names_itself():
    q, k, v = (t.requires_grad_() for t in make((1, 3, 4, 1, 2)))
    out, _ = ops.cross_attention(q, k, v, None, 1)
    (grad,) = torch.autograd.grad(out.sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="cross_attention_backward is not implemented"):
        grad.sum().backward()


def _peak_cpu_bytes(call):
    """Largest sum of living allocations during the call, from the profiler's memory record."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as record:
        result = call()
    living = peak = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            living += event.nbytes()
            peak = max(peak, living)
    del result
    return peak


def test_probabilities_of_all_heads_are_never_held():
    batch, queries, tokens, heads, _ = shape = (1, 4096, 77, 8, 40)
    q, k, v = make(shape)
    all_heads = batch * heads * queries * tokens * 4  # bytes
    results = 4 * (q.numel() + batch * tokens * queries)
    peak = _peak_cpu_bytes(lambda: ops.cross_attention(q, k, v, None, heads))
    assert results <= peak < results + all_heads / 20

    leaves = [t.requires_grad_() for t in (q, k, v)]
    out, maps = ops.cross_attention(*leaves, None, heads)
    grads = torch.ones_like(out), torch.ones_like(maps)
    gradients = 4 * (q.numel() + k.numel() + v.numel())
    peak = _peak_cpu_bytes(lambda: torch.autograd.grad((out, maps), leaves, grads))
    assert gradients <= peak < gradients + all_heads / 20


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(2, 77)}, r"q must be \[B, M, heads \* D\], got \[2, 77\]"),
        ({"q": torch.zeros(2, 5, 8, dtype=torch.int64)}, "q must be floating point, got Long"),
        ({"heads": 3}, "heads must divide the 8 columns of q, got 3"),
        ({"heads": 0}, "heads must divide the 8 columns of q, got 0"),
        ({"k": torch.zeros(2, 0, 8)}, r"k must be \[2, N, 8\] with N >= 1, got \[2, 0, 8\]"),
        ({"k": torch.zeros(1, 4, 8)}, r"k must be \[2, N, 8\] with N >= 1, got \[1, 4, 8\]"),
        ({"v": torch.zeros(2, 4, 6)}, r"v must be \[2, N, 8\] with N >= 1, got \[2, 4, 6\]"),
        ({"v": torch.zeros(2, 3, 8)}, "v must have the 4 tokens of k, got 3"),
        ({"v": torch.zeros(2, 4, 8).double()}, "v must be Float like q, got Double"),
        ({"mask": torch.ones(2, 3).bool()}, r"mask must be Bool \[2, 4\], got Bool \[2, 3\]"),
        ({"mask": torch.ones(2, 4)}, r"mask must be Bool \[2, 4\], got Float \[2, 4\]"),
    ],
)
@pytest.mark.parametrize("op", ["cross_attention", "attention"])
def test_messages(change, message, device, op):
    call = {
        "q": torch.zeros(2, 5, 8),
        "k": torch.zeros(2, 4, 8),
        "v": torch.zeros(2, 4, 8),
        "mask": None,
        "heads": 2,
    } | change
    call = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in call.items()}
    with pytest.raises(ValueError, match=f"{op}: {message}"):
        getattr(ops, op)(**call)


def test_device_and_backward_messages():
    q, k, v = make((2, 5, 4, 2, 4))
    with pytest.raises(ValueError, match="k must be on meta like q, got cpu"):
        ops.cross_attention(q.to("meta"), k, v, None, 2)
    backward = torch.ops.vpd.cross_attention_backward
    rest = (q, k, v, None, 2, 1.0, True, [True] * 3)
    with pytest.raises(ValueError, match=r"grad_out must be like q, expected \[2, 5, 8\]"):
        backward(q[:, :4], None, *rest)
    with pytest.raises(ValueError, match=r"grad_map .* expected \[2, 2, 4, 5\], got \[2, 4, 5\]"):
        backward(None, torch.zeros(2, 4, 5), *rest)


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("per_head", [False, True])
def test_cuda(shape, dtype, masked, per_head):
    mask = make_mask(shape, "cuda") if masked else None
    check_against(
        lambda q, k, v: ops.cross_attention(q, k, v, mask, shape[3], None, per_head),
        lambda q, k, v: reference.cross_attention(q, k, v, mask, shape[3], None, per_head),
        make(shape, dtype, device="cuda"),
        factor=4.0,
    )
