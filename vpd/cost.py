"""Cost of a computation: its operators with their FLOP and bytes, counted while it runs on tensors
without values.

A multiply-add is two FLOP. Counted are those of matrix products, convolutions, attention and
sampling; what works on single elements has none and costs the bytes that it moves. Bytes are those
that an operator must read and write, each tensor once; caches are not thought of.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, shape_wrapper

from vpd import _load  # noqa: F401  registers the operators
from vpd.nn import CoreModule

__all__ = [
    "FORMULAS",
    "Kind",
    "Operation",
    "Operations",
    "Phase",
    "flop",
    "moved",
    "scaled",
    "summed",
]

Kind = Literal["convolution", "matrix", "attention", "other"]
Phase = Literal["forward", "backward", "optimizer"]
Shape = Sequence[int]


def _product(q: Shape, k: Shape) -> int:
    """Of queries [..., M, D] and tokens [..., N, D], or of what weights those with as many values:
    heads make no difference."""
    return 2 * math.prod(q) * k[-2]


def _attention(q: Shape, k: Shape, *_: Any, **__: Any) -> int:
    """Scores, and what they weight."""
    return 2 * _product(q, k)


def _sdpa_backward(grad: Shape, q: Shape, k: Shape, *_: Any, **__: Any) -> int:
    """Scores again; the gradients of probabilities, of v, q and k."""
    return 5 * _product(q, k)


def _cross_attention_backward(
    grad_out: Shape | None, grad_map: Any, q: Shape, k: Shape, v: Shape, mask: Any,
    heads: int, scale: float, per_head: bool, wanted: Sequence[bool], **_: Any,
) -> int:  # fmt: skip
    """The same, as far as they are wanted."""
    products = 1 + wanted[0] + wanted[1] + (grad_out is not None) * (1 + wanted[2])
    return products * _product(q, k)


def _flash_backward(grad: Shape, q: Shape, k: Shape, *_: Any, **__: Any) -> int:
    """Scores and gradients of probabilities twice, once by queries and once by keys; dq, dk, dv.
    It needs less where some are not wanted."""
    return 7 * _product(q, k)


_OF_A_SAMPLE = 10  # a channel at a point: four neighbours and the weight, multiplied and added


def _deformable(value: Shape, shapes: Any, at: Shape, weights: Shape, **_: Any) -> int:
    return _OF_A_SAMPLE * math.prod(weights) * value[3]


def _deformable_backward(
    grad: Shape, value: Shape, shapes: Any, at: Shape, weights: Shape, **_: Any
) -> int:
    """The samples again, and as much for the values, and for the places and weights."""
    return 3 * _deformable(value, shapes, at, weights)


def _packed_linear(x: Shape, *_: Any, out_shape: Shape, **__: Any) -> int:
    return 2 * math.prod(x) * out_shape[-1]


def _packed_convolution(x: Shape, kernel: Shape, *_: Any, out_shape: Shape, **__: Any) -> int:
    return 2 * math.prod(out_shape) * math.prod(kernel[1:])


FORMULAS: dict[Any, Callable[..., int]] = {
    torch.ops.vpd.cross_attention: _attention,
    torch.ops.vpd.cross_attention_backward: _cross_attention_backward,
    torch.ops.vpd.flash_attention: _attention,
    torch.ops.vpd.flash_attention_backward: _flash_backward,
    torch.ops.vpd.deformable_attention: _deformable,
    torch.ops.vpd.deformable_attention_backward: _deformable_backward,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _sdpa_backward,
}
"""From operators that PyTorch does not count to their FLOP by shapes, as
``FlopCounterMode(custom_mapping=FORMULAS)`` takes them."""
if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]  # frozen networks
    FORMULAS[torch.ops.mkldnn._linear_pointwise] = _packed_linear
    FORMULAS[torch.ops.mkldnn._convolution_pointwise] = _packed_convolution
_ALL = dict(flop_registry)
for _op, _formula in FORMULAS.items():
    _ALL[_op] = shape_wrapper(_formula)  # type: ignore[no-untyped-call]
_MATRIX = ("mm", "addmm", "bmm", "baddbmm", "_linear_pointwise")
_NOTHING = frozenset(  # neither reads nor writes
    (
        "aten::_reshape_alias", "aten::_unsafe_view", "aten::empty", "aten::empty_like",
        "aten::empty_strided", "aten::lift_fresh", "aten::new_empty", "aten::new_empty_strided",
        "prim::device",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Operation:
    """One call of an operator."""

    name: str
    part: str
    """The network that it belongs to: the last one called before it."""
    phase: Phase
    kind: Kind
    dtype: torch.dtype
    """Of the first floating tensor that it takes."""
    flop: float
    bytes: float


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the operators that run inside of a ``with`` block, best on tensors without values
    (``FakeTensorMode``, entered before): then a computation of any size takes seconds.

    Args:
        model: Its networks are the parts that operators are told apart by. What is computed between
            two networks counts for the first; a backward for the part whose forward it belongs to.

    Attributes:
        found: The operators in the order they ran, without views and the like.
        phase: What those that run outside of a backward are noted as.

    Example:
        >>> a = torch.zeros(8, 32)
        >>> with Operations() as operations:
        ...     _ = a @ a.T
        >>> [(one.name, one.flop, one.bytes) for one in operations.found]
        [('aten.mm', 4096, 2304)]
    """

    def __init__(self, model: nn.Module | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[Operation] = []
        self.phase: Phase = "forward"
        self._model = model
        self._part = ""
        # Autograd numbers its nodes as they are made. Where a part began, to find it again.
        self._starts: list[int] = []
        self._began: list[str] = []
        self._end: int | None = None
        self._watch: Any = None

    def __enter__(self) -> Operations:
        self._watch = _watched(self._model, self._begin)
        self._watch.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._watch.__exit__(*error)

    def _begin(self, part: str) -> None:
        self._part = part
        self._starts.append(torch.autograd._get_sequence_nr())  # type: ignore[attr-defined]
        self._began.append(part)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return self.note(func, func, args, kwargs or {})

    def note(
        self, func: Any, run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Runs an operator, as ``run`` does, and notes it."""
        made = run(*args, **kwargs)
        name = func._schema.name
        if name in _NOTHING or func.is_view:
            return made
        node = torch._C._current_autograd_node()
        self._enter(node)
        self.found.append(
            Operation(
                name=name.replace("::", "."),
                part="" if self.phase == "optimizer" else self._part,
                phase=self.phase if node is None else "backward",
                kind=_kind(name),
                dtype=_dtype(args),
                flop=flop(func, args, kwargs, made),
                bytes=moved(func, args, kwargs, made),
            )
        )
        return made

    def _enter(self, node: Any) -> None:
        """Turns to the part that made a node of a backward. Nodes that sum up gradients, and those
        made within the backward (by activation recomputation), follow on one of a part."""
        if node is None:
            self._end = None
            return
        if self._end is None:
            self._end = torch.autograd._get_sequence_nr()  # type: ignore[attr-defined]
        number = node._sequence_nr()
        if number < self._end and self._starts:
            place = bisect_right(self._starts, number) - 1
            self._part = self._began[place] if place >= 0 else ""


@contextmanager
def _watched(model: nn.Module | None, begin: Callable[[str], None]) -> Iterator[None]:
    """Says which part of ``model`` begins, whenever the core asks for the tensors of a network."""
    watched: list[nn.Module] = []

    def watch(name: str, module: CoreModule[Any]) -> None:
        tensors = module.core_tensors

        def core_tensors() -> list[Tensor]:
            begin(name)
            return tensors()

        module.core_tensors = core_tensors  # type: ignore[method-assign]
        watched.append(module)

    for name, part in () if model is None else model.named_children():
        for module in part.modules():
            if isinstance(module, CoreModule):
                watch(name, module)
    try:
        yield
    finally:
        for module in watched:
            del module.core_tensors


def flop(func: Any, args: Sequence[Any], kwargs: dict[str, Any], made: Any) -> int:
    """FLOP of one call of an operator; 0 of one that works on single elements."""
    formula = _ALL.get(func._overloadpacket)
    return 0 if formula is None else int(formula(*args, **kwargs, out_val=made))


def moved(func: Any, args: Sequence[Any], kwargs: dict[str, Any], made: Any) -> int:
    """Bytes that one call of an operator reads and writes."""
    given = _tensors((args, kwargs))
    own = {id(_memory(tensor)) for tensor in given}
    fresh = [tensor for tensor in _tensors(made) if id(_memory(tensor)) not in own]
    changed: list[Any] = []
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            changed.append(args[place] if place < len(args) else kwargs.get(argument.name))
    return sum(map(_bytes, [*given, *fresh, *_tensors(changed)]))


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def _memory(tensor: Tensor) -> Any:
    """What tensors of one memory have in common; packed weights share theirs with none."""
    return tensor.untyped_storage() if torch._C._has_storage(tensor) else tensor


def _bytes(tensor: Tensor) -> int:
    """Of a tensor's elements, or of its memory where they share it."""
    size, memory = tensor.numel() * tensor.element_size(), _memory(tensor)
    return size if memory is tensor else min(size, memory.nbytes())


def _dtype(args: Iterable[Any]) -> torch.dtype:
    return next((t.dtype for t in _tensors(args) if t.is_floating_point()), torch.float32)


def _kind(name: str) -> Kind:
    if "convolution" in name:
        return "convolution"
    if any(word in name for word in ("cross_attention", "flash_attention", "scaled_dot_product")):
        return "attention"
    return "matrix" if name.split("::")[1] in _MATRIX else "other"


def scaled(
    one: Sequence[Operation], two: Sequence[Operation], times: float
) -> Iterator[tuple[Operation, float]]:
    """The operators of ``times`` as many rows, from those of some and of twice as many.

    FLOP and bytes of an operator grow with its rows from what its weights alone take. Where the
    code runs an operator for each row, there are more calls instead.

    Returns:
        Operators, and how often each is called.
    """
    places: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for place, own in enumerate(one):
        places[_key(own)].append(place)
    seen: Counter[tuple[Any, ...]] = Counter()
    for own in two:
        key = _key(own)
        number, seen[key] = seen[key], seen[key] + 1
        if number >= len(places[key]):
            yield own, times - 1
            continue
        first = one[places[key][number]]
        yield (
            replace(
                own,
                flop=first.flop + (times - 1) * (own.flop - first.flop),
                bytes=first.bytes + (times - 1) * (own.bytes - first.bytes),
            ),
            1.0,
        )


def _key(own: Operation) -> tuple[Any, ...]:
    return own.name, own.part, own.phase, own.dtype


def summed(
    calls: Iterable[tuple[Operation, float]],
) -> dict[tuple[str, Phase], tuple[float, float]]:
    """FLOP and bytes by part and phase, in the order of their first operators."""
    sums: dict[tuple[str, Phase], tuple[float, float]] = {}
    for own, times in calls:
        flop, moved = sums.get((own.part, own.phase), (0.0, 0.0))
        sums[own.part, own.phase] = flop + times * own.flop, moved + times * own.bytes
    return sums
