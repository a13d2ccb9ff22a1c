"""A network's whole forward as one CUDA graph: at batch 1, launching hundreds of small kernels
takes longer than running them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Compiled", "compile"]

_WARM_UP = 3  # calls before the capture: libraries choose algorithms and allocate in the first ones


def compile(network: nn.Module) -> Compiled:
    """A network on a GPU, called as it is, each kind of call replayed as one CUDA graph.

    The first call with new shapes, types or choices runs the network a few times and captures it;
    every further one copies its tensors in and replays. What comes back are copies: they stay as
    they are when the next call is made.

    Args:
        network: Of this package, in evaluation mode or ``frozen()``; it runs without gradient.
            Weights may change in place (``load_state_dict``), not be moved or converted.

    Raises:
        ValueError: A network that is not on a GPU, or in training mode.

    Example:
        >>> net = vpd.compile(vpd.UNet().cuda().half().frozen())  # doctest: +SKIP
        >>> net(latents, 1, context).features[0].shape  # doctest: +SKIP
        torch.Size([1, 320, 64, 64])
    """
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    if device.type != "cuda":
        raise ValueError(f"vpd.compile: expected a network on a GPU, got one on {device}")
    if network.training:
        raise ValueError("vpd.compile: expected a network in evaluation mode, got one in training")
    return Compiled(network, device)


class Compiled:
    """What :func:`compile` returns; holds a graph, and its inputs and outputs, for each kind of
    call."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self.network, self.device = network, device
        self._signature = inspect.signature(network.forward)
        self._graphs: dict[Hashable, _Graph] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        bound = self._signature.bind(*args, **kwargs)
        timesteps = bound.arguments.get("timesteps")
        if isinstance(timesteps, int):  # of one graph for all timesteps
            bound.arguments["timesteps"] = torch.tensor(timesteps, device=self.device)
        given: list[Tensor] = []
        key = _key(bound.arguments, given)
        strange = [t for t in given if t.device != self.device]
        if strange:
            raise ValueError(
                f"vpd.compile: expected tensors on {self.device}, got one on {strange[0].device}"
            )
        if key not in self._graphs:
            self._graphs[key] = _Graph.of(self.network, bound, given)
        return self._graphs[key].replay(given)


@dataclass
class _Graph:
    graph: Any
    inputs: list[Tensor]
    output: Any

    @classmethod
    def of(cls, network: nn.Module, bound: inspect.BoundArguments, given: list[Tensor]) -> _Graph:
        inputs = [t.clone() for t in given]
        places = iter(inputs)
        bound.arguments.update(mapped(bound.arguments, lambda _: next(places)))

        def run() -> Any:
            with torch.no_grad():
                return network(*bound.args, **bound.kwargs)

        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = run()
        return cls(graph, inputs, output)

    def replay(self, given: list[Tensor]) -> Any:
        for place, tensor in zip(self.inputs, given, strict=True):
            place.copy_(tensor)
        self.graph.replay()
        return mapped(self.output, Tensor.clone)


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A value of tensors in tuples, lists, mappings and dataclasses, with each tensor changed, in
    their order."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, (tuple, list)):
        return type(value)(mapped(one, change) for one in value)
    if isinstance(value, Mapping):
        return {name: mapped(one, change) for name, one in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        changes = {f.name: mapped(getattr(value, f.name), change) for f in fields(value) if f.init}
        return replace(value, **changes)
    return value


def _key(value: Any, tensors: list[Tensor]) -> Hashable:
    """What a graph depends on: types, shapes and strides of tensors, everything else by value."""

    def taken(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return torch.empty(0)

    rest = repr(mapped(value, taken))
    return rest, tuple((t.shape, t.stride(), t.dtype) for t in tensors)
