"""The bridge: a C++ network must behave as any other nn.Module."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

import vpd
from vpd.models.refer_decoder import ReferDecoderConfig
from vpd.nn import CoreModule


def adapter() -> vpd.TextAdapter:
    return vpd.TextAdapter(6)


def decoder() -> vpd.ReferDecoder:
    return vpd.ReferDecoder(ReferDecoderConfig(dims=(4, 5, 6, 7), hidden=8))


def pyramid(batch: int = 3) -> list[torch.Tensor]:
    return [torch.randn(batch, c, s, s) for c, s in zip((4, 5, 6, 7), (16, 8, 4, 2), strict=True)]


def unet() -> vpd.UNet:
    config = vpd.UNetConfig(
        model_channels=8, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(1, 2),
        num_heads=2, context_dim=6, norm_groups=4,
    )  # fmt: skip
    net = vpd.UNet(config)
    with torch.no_grad():
        for p in net.parameters():
            if not p.any():
                p.normal_(0, 0.1)
    return net


INPUTS = (
    torch.linspace(-1, 1, 4 * 16).view(1, 4, 4, 4),
    3,
    torch.linspace(-1, 1, 30).view(1, 5, 6),
)
TAPS = vpd.Taps(noise=True, attention=(1, 2))


def noise(net: vpd.UNet) -> torch.Tensor:
    return net(*INPUTS, taps=TAPS).noise


def test_an_optimiser_step_changes_what_the_core_computes():
    net = unet()
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    before = noise(net)
    (before**2).mean().backward()
    assert all(p.grad is not None for p in net.parameters())
    optimiser.step()
    assert (noise(net) ** 2).mean() < (before**2).mean()


def test_state_dict_round_trip_and_independence_of_copies():
    net, other = unet(), unet()
    assert not torch.equal(noise(net), noise(other))
    other.load_state_dict(net.state_dict())
    assert torch.equal(noise(net), noise(other))
    twin = copy.deepcopy(net)
    assert torch.equal(noise(net), noise(twin))
    with torch.no_grad():
        twin.get_parameter("out.2.bias").add_(1)
    assert not torch.equal(noise(net), noise(twin))
    again = pickle.loads(pickle.dumps(net))
    assert torch.equal(noise(net), noise(again))
    assert again.config == net.config


def test_initial_weights_follow_the_generator_and_the_originals_distributions():
    config = vpd.UNetConfig(
        model_channels=32,
        channel_mult=(1, 2),
        num_res_blocks=1,
        context_dim=16,
        norm_groups=8,
        num_heads=4,
    )
    a, b = (vpd.UNet(config, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    for (name, p), (_, q) in zip(a.named_parameters(), b.named_parameters(), strict=True):
        assert torch.equal(p, q), name
    # zero_module of the original
    for name in (
        "out.2.weight",
        "input_blocks.1.0.out_layers.3.weight",
        "middle_block.1.proj_out.weight",
    ):
        assert not a.get_parameter(name).any(), name
    # PyTorch's default elsewhere: U(-1/sqrt(fan_in), 1/sqrt(fan_in))
    twin = nn.Conv2d(32, 64, 3)
    mine = a.get_parameter("input_blocks.3.0.in_layers.2.weight")
    assert mine.shape == twin.weight.shape
    assert abs(mine.std() / twin.weight.std() - 1) < 0.05
    assert mine.abs().max() <= 1 / (32 * 9) ** 0.5


def test_functional_call_replaces_parameters():
    net = unet()
    changed = {"out.2.bias": torch.ones(4)}
    got = functional_call(net, changed, INPUTS, {"taps": TAPS}).noise
    assert torch.allclose(
        got, noise(net) - net.get_parameter("out.2.bias").view(1, 4, 1, 1) + 1, atol=1e-6
    )


class LowRank(nn.Module):
    """A LoRA parametrisation: W + B A."""

    def __init__(self, weight: torch.Tensor, rank: int = 2) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(rank, weight.shape[1]))
        self.b = nn.Parameter(torch.zeros(weight.shape[0], rank))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + self.b @ self.a


def test_parametrised_weights_reach_the_core():
    net = unet().requires_grad_(False)
    before = noise(net)
    linear = net.get_submodule("middle_block.1.transformer_blocks.0.attn2.to_k")
    low_rank = LowRank(linear.weight)
    parametrize.register_parametrization(linear, "weight", low_rank)
    torch.testing.assert_close(noise(net), before)
    noise(net).sum().backward()
    assert low_rank.b.grad.abs().sum() > 0
    with torch.no_grad():
        low_rank.b.normal_()
    after = noise(net)
    assert not torch.allclose(after, before)
    parametrize.remove_parametrizations(linear, "weight")
    torch.testing.assert_close(noise(net), after)


def test_autocast_and_bf16():
    net = unet()
    want = noise(net)
    with torch.autocast("cpu", torch.bfloat16):
        low = noise(net)
    assert low.dtype == torch.bfloat16
    half = copy.deepcopy(net).to(torch.bfloat16)
    for got in (low, noise(half)):
        assert (got.float() - want).norm() < 0.03 * want.norm()
    (half(*INPUTS, taps=TAPS).noise.float() ** 2).mean().backward()
    assert half.get_parameter("out.2.weight").grad.dtype == torch.bfloat16


def test_checkpoint_gives_the_same_gradients():
    net = unet()
    grads = []
    for run in (noise, lambda n: checkpoint(noise, n, use_reentrant=False)):
        net.zero_grad()
        run(net).square().sum().backward()
        grads.append([p.grad.clone() for p in net.parameters()])
    for a, b in zip(*grads, strict=True):
        assert torch.equal(a, b)


def test_batch_norm_statistics_move_in_training_only():
    head, features = decoder(), pyramid()
    statistics = head.get_buffer("bn1_4.running_mean")
    head.eval()
    head(features)
    assert not statistics.any()
    head.train()
    head(features)
    assert statistics.any()
    assert int(head.get_buffer("bn1_4.num_batches_tracked")) == 1
    assert "bn1_4.running_mean" in head.state_dict()
    assert "bn1_4.running_mean" not in dict(head.named_parameters())


def test_meta_device_and_moving():
    with torch.device("meta"):
        net = adapter()
    assert all(p.is_meta for p in net.parameters())
    net = net.to_empty(device="cpu")
    net.load_state_dict(adapter().state_dict())
    assert net(torch.zeros(1, 2, 6)).shape == (1, 2, 6)
    assert net.double()(torch.zeros(1, 2, 6, dtype=torch.double)).dtype == torch.double


def test_base_class_says_what_to_use():
    with pytest.raises(TypeError, match="use one of its subclasses"):
        CoreModule(None)


def _worker(rank: int, path: str, kind: str) -> None:
    """One of two gloo processes: trains on its half of the batch and compares with the whole batch
    in one process."""
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    torch.manual_seed(0)
    net = unet()
    single = copy.deepcopy(net)
    latents, context = torch.randn(4, 4, 4, 4), torch.randn(4, 5, 6)

    def loss(model: nn.Module, rows: slice) -> torch.Tensor:
        return model(latents[rows], 3, context[rows], taps=TAPS).noise.square().mean()

    if kind == "ddp":
        wrapped = nn.parallel.DistributedDataParallel(net, find_unused_parameters=False)
    else:
        from torch.distributed.fsdp import fully_shard

        wrapped = fully_shard(net)
    optimiser = torch.optim.SGD(wrapped.parameters(), lr=0.1)
    reference = torch.optim.SGD(single.parameters(), lr=0.1)
    for _ in range(2):
        for model, step, rows in (
            (wrapped, optimiser, slice(2 * rank, 2 * rank + 2)),
            (single, reference, slice(0, 4)),
        ):
            step.zero_grad()
            loss(model, rows).backward()
            step.step()
    for (name, p), q in zip(wrapped.named_parameters(), single.parameters(), strict=True):
        full = p.full_tensor() if hasattr(p, "full_tensor") else p
        torch.testing.assert_close(full, q, rtol=1e-4, atol=1e-6, msg=name)
    dist.destroy_process_group()


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_two_processes_train_like_one(kind, tmp_path):
    torch.multiprocessing.spawn(_worker, (str(tmp_path / "rendezvous"), kind), nprocs=2)
