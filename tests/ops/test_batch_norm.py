"""Batch norms synchronised across processes: a decoder on shares of a batch against a twin of
PyTorch's own layers on all of it."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from helpers import assert_close, error
from processes import together

from vpd.nn import synchronize_batch_norm

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from test_refer_decoder import SIZES, pair

DIMS = (4, 7, 6, 5)
SHARES = ((2, 2), (3, 1), (0, 4))
ROWS = 4


def setting(dtype=torch.double, mean=0.0):
    """Our decoder, its twin, a batch, the cotangent of its logits; the same in every process."""
    torch.manual_seed(3)
    ours, twin = pair(DIMS)
    features = [
        mean + torch.randn(ROWS, c, *s, dtype=torch.double)
        for c, s in zip(DIMS, SIZES, strict=True)
    ]
    cotangent = torch.randn(ROWS, 2, *SIZES[0], dtype=torch.double)
    return ours.to(dtype).train(), twin.train(), [f.to(dtype) for f in features], cotangent


def step(net, features, cotangent) -> dict[str, torch.Tensor]:
    inputs = [f.clone().requires_grad_() for f in features]
    out = net(inputs)
    out.backward(cotangent.to(out.dtype))
    found = {"out": out.detach()}
    found |= {f"input {i}": x.grad for i, x in enumerate(inputs)}
    found |= {f"grad {name}": p.grad for name, p in net.named_parameters()}
    return found | {f"buffer {name}": b.clone() for name, b in net.named_buffers()}


def own_share(share, dtype=torch.double, mean=0.0) -> dict[str, torch.Tensor]:
    """A step on this process's rows; weight gradients summed over processes."""
    ours, _, features, cotangent = setting(dtype, mean)
    synchronize_batch_norm(ours, dist.group.WORLD)
    start = sum(share[: dist.get_rank()])
    rows = slice(start, start + share[dist.get_rank()])
    found = step(copy.deepcopy(ours), [f[rows] for f in features], cotangent[rows])
    for name, value in found.items():
        if name.startswith("grad"):
            dist.all_reduce(value)
    return found


def autocast_and_evaluation() -> dict[str, object]:
    ours, _, features, cotangent = setting(torch.float32)
    rank = dist.get_rank()
    rows = slice(2 * rank, 2 * rank + 2)
    synchronize_batch_norm(ours, dist.group.WORLD)
    with torch.autocast("cpu", torch.bfloat16):
        found: dict[str, object] = {
            "autocast": step(ours, [f[rows] for f in features], cotangent[rows])
        }
    out = ours([f[rows] for f in features])
    try:
        torch.autograd.grad(out.sum(), ours.get_parameter("bn2_2.weight"), create_graph=True)
    except RuntimeError as refusal:
        found["refusal"] = str(refusal)
    if rank == 0:  # alone: in evaluation mode nothing is exchanged
        found["evaluated"] = ours.eval()(features)
        found["plain"] = synchronize_batch_norm(ours, None)(features)
        ours.train()(features)  # nor without a group
    return found


def everything() -> dict[str, object]:
    found: dict[str, object] = {str(share): own_share(share) for share in SHARES}
    found["large mean"] = own_share((1, 3), torch.float32, mean=300.0)
    return found | autocast_and_evaluation()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return together(everything, tmp_path_factory.mktemp("batch_norm"))


@pytest.mark.parametrize("share", SHARES)
def test_shares_of_a_batch_are_the_whole_batch(found, share):
    _, twin, features, cotangent = setting()
    want = step(twin, features, cotangent)
    for name, value in want.items():
        parts = [one[str(share)][name] for one in found]
        if name.startswith(("out", "input")):
            assert_close(torch.cat(parts), value, 1e-9)
        else:  # sums and statistics are known everywhere
            for part in parts:
                torch.testing.assert_close(part, value, rtol=1e-8, atol=1e-8, msg=name)


def test_a_large_mean_costs_no_more_digits_than_in_one_process(found):
    ours, twin, features, cotangent = setting(torch.float32, mean=300.0)
    exact = step(twin, [f.double() for f in features], cotangent)
    one = step(ours, features, cotangent)
    for name, want in exact.items():
        if want.is_floating_point():
            got = [part["large mean"][name] for part in found]
            got = torch.cat(got) if name.startswith(("out", "input")) else got[0]
            assert error(got, want) < 2 * error(one[name], want) + 1e-5, name


def test_autocast(found):
    ours, _, features, cotangent = setting(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        want = step(ours, features, cotangent)
    out = torch.cat([one["autocast"]["out"] for one in found])
    assert out.dtype == want["out"].dtype == torch.bfloat16
    assert error(out, want["out"]) < 0.1
    for name in ("buffer bn1_4.running_var", "buffer bn2_2.running_mean"):
        assert error(found[0]["autocast"][name], want[name]) < 0.02
    gradient = "grad bn2_2.weight"
    assert (
        error(found[0]["autocast"][gradient] + found[1]["autocast"][gradient], want[gradient]) < 0.1
    )


def test_evaluation_exchanges_nothing(found):
    assert torch.equal(found[0]["evaluated"], found[0]["plain"])


def test_second_derivatives_are_refused(found):
    assert all("second derivatives" in one["refusal"] for one in found)
