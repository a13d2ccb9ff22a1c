"""Heads whose batch norms share their rows across processes, against one process with all rows."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from heads import feature_maps
from helpers import assert_close
from processes import together
from torch import Tensor, nn

import vpd
from vpd.nn import synchronize_batch_norm

CHANNELS = (4, 6, 5, 7)
SIZES = [(16, 8), (8, 4), (4, 2), (2, 1)]
SHARES = ((1, 2), (0, 3))  # rows of each process


def heads() -> dict[str, nn.Module]:
    """The same in every process."""
    torch.manual_seed(3)
    config = {"num_classes": 3, "channels": 8, "dropout": 0.0}
    depth = vpd.DepthHeadConfig(CHANNELS, embed_dim=2, num_filters=(6, 3), norm_groups=2)
    made = {
        "semantic_fpn": vpd.SemanticFPNHead(vpd.SemanticFPNHeadConfig(CHANNELS, **config)),
        "uper": vpd.UperNetHead(vpd.UperNetHeadConfig(CHANNELS, **config)),
        "fcn": vpd.FCNHead(vpd.FCNHeadConfig(CHANNELS[2], **config)),
        "depth": vpd.DepthHead(depth),
    }
    with torch.no_grad():
        for head in made.values():
            for parameter in head.double().parameters():
                parameter.normal_(0, 0.5)
    return made


def step(head: nn.Module, features: list[Tensor]) -> dict[str, Tensor]:
    out = head(features)
    out.sin().sum().backward()
    found = {"out": out.detach()}
    found |= {f"grad {name}": p.grad for name, p in head.named_parameters()}
    return found | {f"buffer {name}": b.clone() for name, b in head.named_buffers()}


def batch() -> list[Tensor]:
    torch.manual_seed(4)
    return feature_maps(CHANNELS, SIZES, rows=3)


def own_shares() -> dict[str, dict[str, Tensor]]:
    """Steps on this process's rows; weight gradients summed over processes."""
    found = {}
    for share in SHARES:
        start = sum(share[: dist.get_rank()])
        rows = slice(start, start + share[dist.get_rank()])
        for name, head in heads().items():
            synchronize_batch_norm(head, dist.group.WORLD)
            one = found[f"{name} {share}"] = step(head, [map[rows] for map in batch()])
            for key, value in one.items():
                if key.startswith("grad"):
                    dist.all_reduce(value)
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return together(own_shares, tmp_path_factory.mktemp("heads"))


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("name", ["semantic_fpn", "uper", "fcn", "depth"])
def test_shares_of_a_batch_are_the_whole_batch(found, name, share):
    for key, want in step(heads()[name], batch()).items():
        parts = [one[f"{name} {share}"][key] for one in found]
        if key == "out":
            assert_close(torch.cat(parts), want, 1e-8)
        else:
            for part in parts:
                torch.testing.assert_close(part, want, rtol=1e-7, atol=1e-8, msg=f"{name}: {key}")
