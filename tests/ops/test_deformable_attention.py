from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_helpers import assert_close, check_against, count_graphs
from torch import Tensor

from vpd import ops, reference

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
PYRAMID = ((2, 3), (5, 4), (9, 11))
NAMES = ("value", "locations", "weights")


def make(
    levels=PYRAMID,
    batch=2,
    queries=7,
    heads=3,
    width=8,
    points=4,
    dtype=torch.float32,
    device="cpu",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Locations lie inside, across the border and far outside."""
    shapes = torch.tensor(levels, device=device)
    pixels = sum(h * w for h, w in levels)
    value = torch.randn(batch, pixels, heads, width, device=device).to(dtype)
    samples = (batch, queries, heads, len(levels), points)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    locations = torch.rand(*samples, 2, dtype=wide, device=device) * 1.6 - 0.3
    weights = torch.rand(samples, dtype=wide, device=device)
    return value, shapes, locations, weights


def by_hand(value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """The definition, pixel by pixel: each gives its value times how near it is along x and y."""
    batch, _, heads, width = value.shape
    out = torch.zeros(batch, locations.shape[1], heads, width, dtype=torch.float64)
    first = 0
    for level, (h, w) in enumerate(shapes.tolist()):
        at = locations[:, :, :, level].double() * torch.tensor([w, h]) - 0.5  # [B, Q, heads, P, 2]
        near_x = (1 - (at[..., 0, None] - torch.arange(w)).abs()).clamp(min=0)
        near_y = (1 - (at[..., 1, None] - torch.arange(h)).abs()).clamp(min=0)
        plane = value[:, first : first + h * w].double().unflatten(1, (h, w))
        factors = weights[:, :, :, level].double()
        out += torch.einsum("bqnp,bqnpy,bqnpx,byxnd->bqnd", factors, near_y, near_x, plane)
        first += h * w
    return out.flatten(2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_definition(dtype):
    inputs = make(dtype=dtype)
    assert_close(ops.deformable_attention(*inputs), by_hand(*inputs), "out")
    if dtype == torch.float64:
        assert_close(reference.deformable_attention(*inputs), by_hand(*inputs), "reference")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 8, 16, 20, 32, 72])
def test_like_reference(dtype, width):
    value, shapes, locations, weights = make(width=width, dtype=dtype)

    def run(attention):
        return lambda v, x, w: attention(v, shapes, x, w)

    tensors = (value, locations, weights)
    factor = 4 if dtype == torch.float32 else 2
    check_against(
        run(ops.deformable_attention), run(reference.deformable_attention), tensors, factor=factor
    )
    assert ops.deformable_attention(value, shapes, locations, weights).dtype == dtype


@settings(max_examples=30, deadline=None)
@given(
    levels=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4),
    batch=st.integers(0, 3),
    queries=st.integers(0, 40),
    heads=st.integers(1, 5),
    width=st.integers(1, 40),
    points=st.integers(1, 5),
)
def test_any_size(levels, batch, queries, heads, width, points):
    value, shapes, locations, weights = make(levels, batch, queries, heads, width, points)
    leaves = [t.requires_grad_() for t in (value, locations, weights)]
    doubles = [t.detach().double().requires_grad_() for t in leaves]
    out = ops.deformable_attention(value, shapes, locations, weights)
    want = reference.deformable_attention(doubles[0], shapes, doubles[1], doubles[2])
    assert_close(out.detach(), want.detach(), "out", 4)
    grad = torch.randn_like(out)
    got = torch.autograd.grad(out, leaves, grad)
    expected = torch.autograd.grad(want, doubles, grad.double())
    # float32 tells positions near a pixel's centre apart to 1e-6 of a pixel at these sizes, where
    # the slope along x changes: such points may differ in it.
    scaled = doubles[1].detach() * shapes.flip(1).view(len(levels), 1, 2) - 0.5
    clear = ((scaled - scaled.round()).abs() > 1e-4).all(-1, keepdim=True)
    for name, a, e in zip(NAMES, got, expected, strict=True):
        keep = clear if name == "locations" else torch.ones_like(a, dtype=torch.bool)
        assert_close(a * keep, e * keep, name, 16)


def test_like_transformers():
    """The layer that Mask2Former runs in transformers, values and gradients."""
    pytest.importorskip("transformers")
    from transformers.models.mask2former.modeling_mask2former import (
        multi_scale_deformable_attention,
    )

    value, shapes, locations, weights = make(dtype=torch.float64)
    leaves = [t.requires_grad_() for t in (value, locations, weights)]
    sizes = [tuple(size) for size in shapes.tolist()]
    want = multi_scale_deformable_attention(value, sizes, locations, weights)
    out = ops.deformable_attention(value, shapes, locations, weights)
    assert_close(out.detach(), want.detach(), "out")
    grad = torch.randn_like(out)
    for name, a, e in zip(
        NAMES,
        torch.autograd.grad(out, leaves, grad),
        torch.autograd.grad(want, leaves, grad),
        strict=True,
    ):
        assert_close(a, e, name)


def test_centres_borders_and_beyond():
    """One map of 1 x 2 pixels, 3 and 5, along a horizontal line."""
    value = torch.tensor([3.0, 5.0]).view(1, 2, 1, 1)
    x = torch.tensor([0.25, 0.75, 0.5, 0.0, 1.0, -0.25, 1.25, 9.0, -torch.inf, torch.nan])
    locations = torch.stack([x, torch.full_like(x, 0.5)], -1).view(1, -1, 1, 1, 1, 2)
    out = ops.deformable_attention(
        value, torch.tensor([[1, 2]]), locations, torch.ones(1, len(x), 1, 1, 1)
    )
    want = torch.tensor([3, 5, 4, 1.5, 2.5, 0, 0, 0, 0, 0])
    assert torch.equal(out.flatten(), want)


def test_a_pixel_that_is_no_number_stays_where_it_is():
    value, shapes, locations, weights = make(dtype=torch.float64)
    value[:, 3] = torch.nan
    bad = by_hand(value.isnan().double(), shapes, locations, weights).ne(0)
    out = ops.deformable_attention(value, shapes, locations, weights)
    assert torch.equal(out.isnan(), bad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_strides_and_threads_change_nothing(dtype):
    inputs = make(queries=50, dtype=dtype)
    value, shapes, locations, weights = inputs
    strange = (
        value.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0),
        shapes.t().contiguous().t(),
        torch.stack([locations, locations], -1)[..., 0],
        weights.transpose(1, 4).contiguous().transpose(1, 4),
    )
    before, found = torch.get_num_threads(), []
    try:
        for threads, tensors in ((1, inputs), (3, inputs), (2, strange)):
            torch.set_num_threads(threads)
            leaves = [tensors[i].detach().requires_grad_() for i in (0, 2, 3)]
            out = ops.deformable_attention(leaves[0], tensors[1], leaves[1], leaves[2])
            found.append((out, *torch.autograd.grad(out.square().sum(), leaves)))
    finally:
        torch.set_num_threads(before)
    assert all(
        torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True)
    )


def test_gradcheck():
    value, shapes, locations, weights = make(((2, 3), (3, 2)), 1, 3, 2, 3, 2, dtype=torch.float64)
    # Away from pixel centres, where the slope along x and y jumps.
    size = shapes.flip(1).view(2, 1, 2)
    locations = ((locations * size).floor() + 0.6 + 0.3 * torch.rand_like(locations)) / size
    leaves = [t.requires_grad_() for t in (value, locations, weights)]
    assert torch.autograd.gradcheck(
        lambda v, x, w: ops.deformable_attention(v, shapes, x, w), leaves
    )


def test_opcheck():
    value, shapes, locations, weights = make()
    grad = torch.randn(2, 7, 24)
    args = (value, shapes, locations, weights)
    torch.library.opcheck(torch.ops.vpd.deformable_attention_backward, (grad, *args))
    leaves = [t.requires_grad_() for t in (value, locations, weights)]
    torch.library.opcheck(
        torch.ops.vpd.deformable_attention, (leaves[0], shapes, leaves[1], leaves[2])
    )


def test_one_graph_for_all_sizes():
    calls = []
    # Sizes that are equal in the first call would be taken for one and the same.
    for batch, queries, levels in ((5, 7, PYRAMID), (6, 9, ((4, 3), (5, 4), (3, 3)))):
        value, shapes, locations, weights = make(levels, batch, queries)
        calls.append((value.requires_grad_(), shapes, locations.requires_grad_(), weights))
    assert count_graphs(ops.deformable_attention, calls) == 1


def test_autocast_keeps_the_type_of_value():
    value, shapes, locations, weights = make()
    with torch.autocast("cpu", torch.bfloat16):
        projected = torch.nn.functional.linear(value, torch.eye(8))
        out = ops.deformable_attention(projected, shapes, locations, weights)
    assert out.dtype == projected.dtype == torch.bfloat16
    assert_close(out, by_hand(projected, shapes, locations, weights), "out")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_composite(dtype):
    """What devices without a kernel run, called on the CPU."""
    value, shapes, locations, weights = make(dtype=dtype)
    grad = torch.randn(2, 7, 24).to(dtype)
    doubles = [t.double().requires_grad_() for t in (value, locations, weights)]
    want = reference.deformable_attention(doubles[0], shapes, doubles[1], doubles[2])
    key = torch._C.DispatchKey.CompositeExplicitAutograd
    with torch.no_grad():
        forward = torch.ops.vpd.deformable_attention.default
        out = forward._op_dk(key, value, shapes, locations, weights)
        backward = torch.ops.vpd.deformable_attention_backward.default
        grads = backward._op_dk(key, grad, value, shapes, locations, weights)
    assert_close(out, want.detach(), "out", 4)
    expected = torch.autograd.grad(want, doubles, grad.double())
    for name, a, e in zip(NAMES, grads, expected, strict=True):
        assert_close(a, e, name, 8)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_messages(device):
    inputs = dict(zip(("value", "shapes", "locations", "weights"), make(), strict=True))

    def run(**changed):
        return ops.deformable_attention(*(t.to(device) for t in (inputs | changed).values()))

    assert run().shape == (2, 7, 24)
    with pytest.raises(ValueError, match=r"value must be floating point \[B, S, heads, D\], got"):
        run(value=inputs["value"][0])
    with pytest.raises(ValueError, match="value must be floating point"):
        run(value=inputs["value"].long())
    with pytest.raises(ValueError, match=r"shapes must be int64 \[L, 2\], got int \[3, 2\]"):
        run(shapes=inputs["shapes"].int())
    with pytest.raises(ValueError, match=r"locations must .* \[2, Q, 3, 3, P, 2\], got float \[2,"):
        run(locations=inputs["locations"][:, :, :2])
    with pytest.raises(ValueError, match=r"weights must .* \[2, 7, 3, 3, 4\], got"):
        run(weights=inputs["weights"][..., :1])
    with pytest.raises(ValueError, match=r"grad must be \[2, 7, 24\], got \[2, 7, 8\]"):
        torch.ops.vpd.deformable_attention_backward(
            torch.zeros(2, 7, 8, device=device), *(t.to(device) for t in inputs.values())
        )


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 3), (5, 4), (9, 10)), "must have the 116 pixels of the levels in shapes, got 125"),
        (((2, 3), (5, 4), (-9, -11)), "must be positive, got -9 x -11"),
        (((2, 3), (5, 4), (9, 2**62)), "too few for a level of 9 x 4611686018427387904"),
    ],
)
def test_shapes_that_do_not_fit(shapes, message):
    value, _, locations, weights = make()
    with pytest.raises(ValueError, match=message):
        ops.deformable_attention(value, torch.tensor(shapes), locations, weights)


def test_second_derivative_names_itself():
    value, shapes, locations, weights = make()
    out = ops.deformable_attention(value.requires_grad_(), shapes, locations, weights)
    (grad,) = torch.autograd.grad(out.sum(), value, create_graph=True)
    with pytest.raises(RuntimeError, match="deformable_attention_backward is not implemented"):
        grad.sum().backward()


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 20, 32, 72])
def test_cuda(dtype, width):
    value, shapes, locations, weights = make(width=width, dtype=dtype, device="cuda")
    leaves = [t.requires_grad_() for t in (value, locations, weights)]
    doubles = [t.detach().double().requires_grad_() for t in leaves]
    out = ops.deformable_attention(value, shapes, locations, weights)
    want = reference.deformable_attention(doubles[0], shapes, doubles[1], doubles[2])
    assert_close(out.detach(), want.detach(), "out", 4)
    assert torch.equal(ops.deformable_attention(value, shapes.cpu(), locations, weights), out)
    grad = torch.randn_like(out)
    expected = torch.autograd.grad(want, doubles, grad.double())
    for name, a, e in zip(NAMES, torch.autograd.grad(out, leaves, grad), expected, strict=True):
        assert_close(a, e, name, 8)


@pytest.mark.cuda
def test_cuda_shapes_beyond_value_read_nothing_else():
    value, _, locations, weights = make(device="cuda")
    shapes = torch.tensor(((2, 3), (50, 40), (90, 110)), device="cuda")
    out = ops.deformable_attention(value, shapes, locations, weights)
    only = ops.deformable_attention(
        value[:, :6], shapes[:1], locations[:, :, :, :1], weights[:, :, :, :1]
    )
    assert_close(out, only, "out")
