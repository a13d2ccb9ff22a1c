"""vpd.compile: which graph a call takes, what goes in and comes out. The graphs themselves need a
GPU; without one, a recording that runs the network again stands in for them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import pytest
import tiny
import torch
from torch import Tensor, nn

import vpd
from vpd import graphs


@dataclass(frozen=True)
class Output:
    sums: dict[str, Tensor]
    parts: tuple[Tensor, ...]
    note: str = "kept"


class Network(nn.Module):
    """Its calls while a graph is captured are what the graph repeats."""

    graph = None

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.calls = 0

    def forward(self, x, timesteps, *, pair=(), gain=1.0):
        self.calls += 1
        total = sum(pair, x) * self.weight * gain + timesteps
        found = Output({"total": total}, (total + 1, x * 1))
        if Network.graph is not None:
            Network.graph.repeat = lambda: self._again(x, timesteps, pair, gain, found)
        return found

    def _again(self, x, timesteps, pair, gain, into):
        Network.graph = None
        fresh = self(x, timesteps, pair=pair, gain=gain)
        into.sums["total"].copy_(fresh.sums["total"])
        for to, value in zip(into.parts, fresh.parts, strict=True):
            to.copy_(value)


class Graph:
    def replay(self):
        with torch.no_grad():
            self.repeat()


class Stream:
    def wait_stream(self, other): ...


@pytest.fixture
def recorded(monkeypatch):
    @contextlib.contextmanager
    def capture(graph):
        Network.graph = graph
        yield
        Network.graph = None

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    network = Network().eval()
    return network, graphs.Compiled(network, torch.device("cpu"))


def test_each_call_gives_what_the_network_gives(recorded):
    network, compiled = recorded
    found = []
    for step in range(3):
        x, other = torch.randn(2, 3), torch.randn(2, 3)
        call = {"timesteps": 5 * step, "pair": (other, other + 1)}
        expected = network(x, **call)
        found.append((compiled(x, **call), expected))
    for actual, expected in found:  # earlier ones too, after later calls
        torch.testing.assert_close(actual.sums["total"], expected.sums["total"])
        assert actual.note == "kept"
        for a, e in zip(actual.parts, expected.parts, strict=True):
            torch.testing.assert_close(a, e)
        assert not actual.parts[0].requires_grad


def test_one_graph_for_each_kind_of_call(recorded):
    _, compiled = recorded
    x = torch.randn(4, 3)
    kinds = [
        ((x, 1), {}), ((x, 1), {"gain": 2.0}), ((x[:2], 1), {}), ((x.double(), 1), {}),
        ((x.t().contiguous().t(), 1), {}), ((x, 1), {"pair": (x,)}),
    ]  # fmt: skip
    for count, (args, kwargs) in enumerate(kinds, start=1):
        compiled(*args, **kwargs)
        compiled(*args, **kwargs)
        assert len(compiled._graphs) == count
    compiled(x, 900)
    compiled(x, torch.tensor(3))
    compiled(x=torch.randn(4, 3), timesteps=7, gain=1.0)
    assert len(compiled._graphs) == len(kinds) + 1  # the last one says gain


def test_weights_changed_in_place_count(recorded):
    network, compiled = recorded
    x = torch.ones(2)
    before = compiled(x, 0).sums["total"]
    with torch.no_grad():
        network.weight.fill_(5)
    assert compiled(x, 0).sums["total"].tolist() == [5, 5]
    assert before.tolist() == [2, 2]


def test_what_is_refused(recorded):
    _, compiled = recorded
    with pytest.raises(ValueError, match="expected a network on a GPU, got one on cpu"):
        vpd.compile(Network().eval())
    with pytest.raises(ValueError, match="expected tensors on cpu, got one on meta"):
        compiled(torch.ones(2, device="meta"), 0)
    with pytest.raises(TypeError, match="missing a required argument"):
        compiled(torch.ones(2))


@pytest.mark.cuda
def test_unet_on_a_gpu():
    torch.manual_seed(0)
    net = vpd.UNet(tiny.PARTS["unet"]).cuda().eval()
    with pytest.raises(ValueError, match="in evaluation mode"):
        vpd.compile(vpd.UNet(tiny.PARTS["unet"]).cuda().train())
    compiled = vpd.compile(net)
    for step in (1, 300, 999):
        latents = torch.randn(1, 4, 16, 16, device="cuda")
        context = torch.randn(1, 7, tiny.PARTS["unet"].context_dim, device="cuda")
        taps = vpd.Taps(noise=True)
        with torch.no_grad():
            expected = net(latents, step, context, taps=taps)
        found = compiled(latents, step, context, taps=taps)
        torch.testing.assert_close(found.noise, expected.noise, rtol=1e-4, atol=1e-5)
        for a, e in zip(found.pyramid(), expected.pyramid(), strict=True):
            torch.testing.assert_close(a, e, rtol=1e-4, atol=1e-5)
    assert len(compiled._graphs) == 1
