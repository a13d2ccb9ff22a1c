"""How the tests of the ops compare with the references."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch._dynamo.testing
from torch import Tensor

# Largest difference allowed, as a fraction of the largest value of the reference, which is computed
# in double from the same (rounded) inputs: a few roundings of the type itself. Gradients are sums.
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 2e-6,
    torch.float16: 2e-3,
    torch.bfloat16: 1.2e-2,
}


def assert_close(actual: Tensor, expected: Tensor, what: str, factor: float = 1.0) -> None:
    """Element by element, and as a vector: relative length of the difference, and bias."""
    assert actual.shape == expected.shape, what
    if expected.numel() == 0:
        return
    limit = TOLERANCE[actual.dtype] * factor
    actual, expected = actual.double().cpu(), expected.double().cpu()
    assert torch.isfinite(actual).all(), what
    difference = actual - expected
    worst = (difference.abs().max() / expected.abs().max().clamp_min(1e-30)).item()
    assert worst <= limit, f"{what}: largest difference {worst:.2e}, allowed {limit:.2e}"
    length = (difference.norm() / expected.norm().clamp_min(1e-30)).item()
    assert length <= limit, f"{what}: relative length {length:.2e}, allowed {limit:.2e}"


def check_against(
    function: Callable,
    reference: Callable,
    tensors: Sequence[Tensor | None],
    used: Sequence[int] | None = None,
    factor: float = 1.0,
) -> None:
    """Outputs and all gradients of ``function`` against ``reference`` in double.

    ``used`` picks the outputs that the gradient comes from.
    """
    leaves = [_leaf(t) for t in tensors]
    doubles = [_leaf(t, torch.float64) for t in tensors]
    actual, expected = _tuple(function(*leaves)), _tuple(reference(*doubles))
    for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
        assert_close(a.detach(), e.detach(), f"output {i}", factor)
    picked = range(len(actual)) if used is None else used
    grads = [torch.randn_like(actual[i]) for i in picked]
    actual_grads = _gradients([actual[i] for i in picked], leaves, grads)
    expected_grads = _gradients([expected[i] for i in picked], doubles, [g.double() for g in grads])
    for i, (a, e) in enumerate(zip(actual_grads, expected_grads, strict=True)):
        assert (a is None) == (e is None), f"gradient {i}"
        if a is not None:
            assert_close(a, e, f"gradient {i}", 2 * factor)


def _leaf(t: Tensor | None, dtype: torch.dtype | None = None) -> Tensor | None:
    if t is None or not t.is_floating_point():
        return t
    # detach keeps the strides, which are part of what is tested
    leaf = t.detach() if dtype is None else t.detach().to(dtype)
    return leaf.requires_grad_()


def _tuple(value: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


def _gradients(outputs: list[Tensor], inputs: list[Tensor | None], grads: list[Tensor]) -> tuple:
    wanted = [t for t in inputs if t is not None and t.requires_grad]
    return torch.autograd.grad(outputs, wanted, grads, allow_unused=True)


def count_graphs(function: Callable, calls: Sequence[tuple]) -> int:
    """Graphs that torch.compile makes for calls of different sizes, forward and backward."""
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(function, backend=counter, dynamic=True, fullgraph=True)
    for call in calls:
        output = _tuple(compiled(*call))
        sum(o.sum() for o in output).backward()
    # Dynamo also hands over an empty graph for the frame around the call.
    return sum(any(n.op == "call_function" for n in g.graph.nodes) for g in counter.graphs)
