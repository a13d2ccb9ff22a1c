"""Noise schedule and DDIM against recorded sequences of diffusers and ldm, and diffusers itself."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from helpers import load_golden

import vpd
from vpd.diffusion import NoiseSchedule, ddim_sample


def close(got, want, tolerance=1e-5):
    torch.testing.assert_close(got.to(want.dtype), want, rtol=tolerance, atol=tolerance)


def test_tables_match_originals():
    case, schedule = load_golden("schedulers"), NoiseSchedule()
    close(schedule.betas, case.outputs["betas"])
    close(schedule.alphas_cumprod, case.outputs["alphas_cumprod"])
    close(schedule.alphas_cumprod, case.outputs["ldm.alphas_cumprod_f64"], 1e-12)
    t = torch.tensor([0, 500, 999])
    bar = schedule.alphas_cumprod[t]
    assert torch.equal(schedule.alpha_bar(t), bar)
    close(schedule.snr(t), bar / (1 - bar), 1e-12)


def test_forward_process_matches_diffusers():
    case, schedule = load_golden("schedulers"), NoiseSchedule()
    x0, noise, t = (case.inputs[k] for k in ("x0", "noise", "timesteps"))
    close(schedule.add_noise(x0, noise, t), case.outputs["add_noise"])
    close(schedule.velocity(x0, noise, t), case.outputs["velocity"])
    assert torch.equal(
        schedule.add_noise(x0, noise, 7), schedule.add_noise(x0, noise, torch.full((4,), 7))
    )
    assert schedule.add_noise(x0.bfloat16(), noise.bfloat16(), t).dtype == torch.bfloat16


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ddim_sequence_matches_diffusers(eta):
    case, schedule = load_golden("schedulers"), NoiseSchedule()
    timesteps = schedule.ddim_timesteps(10)
    assert timesteps == case.outputs["ddim.timesteps"].tolist()
    assert timesteps[::-1] == case.outputs["ldm.ddim_timesteps"].tolist()
    x = case.inputs["ddim.start"]
    for i, t in enumerate(timesteps):
        epsilon = 0.7 * case.inputs["model_outputs"][i] + 0.3 * x
        noise = case.inputs["step_noise"][i] if eta else None
        x, clean = schedule.ddim_step(x, epsilon, t, t - 100, eta, noise)
        close(x, case.outputs["ddim_eta1.sequence" if eta else "ddim.sequence"][i])
        if not eta:
            close(clean, case.outputs["ddim.pred_x0"][i])


@pytest.mark.parametrize("steps", [1, 7, 30, 50])
def test_ddim_timesteps_match_diffusers(steps):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(steps_offset=1)
    scheduler.set_timesteps(steps)
    assert NoiseSchedule().ddim_timesteps(steps) == scheduler.timesteps.tolist()


def test_all_timesteps_can_be_steps():
    assert NoiseSchedule(10).ddim_timesteps(10) == list(range(9, -1, -1))


class Denoiser:
    """Knows the clean sample: its prediction is exact, moved by a number taken from the context."""

    def __init__(self, clean: torch.Tensor) -> None:
        self.clean, self.rows, self.schedule = clean, [], NoiseSchedule()

    def __call__(self, x, t, context, *, image_index, taps):
        assert taps.noise
        assert not taps.features
        self.rows.append(len(context))
        index = torch.arange(len(context)) if image_index is None else image_index
        bar = self.schedule.alphas_cumprod[t].float()
        epsilon = (x - bar.sqrt() * self.clean)[index] / (1 - bar).sqrt()
        return SimpleNamespace(noise=epsilon + context[:, :1, :1, None])


def test_sampler_finds_what_an_exact_denoiser_knows():
    clean, context = torch.randn(3, 4, 5, 6), torch.zeros(3, 2, 8)
    for steps, eta in ((4, 0.0), (25, 1.0)):
        net = Denoiser(clean)
        x = ddim_sample(net, context, None, (3, 4, 5, 6), steps, eta=eta)
        bar = net.schedule.alphas_cumprod[0].float()
        assert net.rows == [3] * steps
        # What is left is the noise of timestep 0.
        assert (x - bar.sqrt() * clean).abs().max() < 5 * (1 - bar).sqrt()


def test_guidance_extrapolates():
    """With eps_u off by a and eps_c by b the guided one is off by a + g (b - a), here nothing."""
    clean = torch.randn(2, 1, 3, 3)
    shape, guidance = (2, 1, 3, 3), 4.0
    context, uncond = torch.full((2, 1, 1), 0.75), torch.full((1, 1, 1), 1.0)
    net = Denoiser(clean)
    got = ddim_sample(net, context, uncond, shape, 5, guidance, torch.Generator().manual_seed(1))
    assert net.rows == [4] * 5
    want = ddim_sample(
        Denoiser(clean), 0 * context, None, shape, 5, generator=torch.Generator().manual_seed(1)
    )
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    unguided = Denoiser(clean)
    ddim_sample(unguided, context, uncond, shape, 2, guidance=1.0)
    assert unguided.rows == [2, 2]


def test_sampler_runs_a_real_network():
    net = vpd.UNet(
        vpd.UNetConfig(
            model_channels=8, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(2,),
            num_heads=2, context_dim=6, norm_groups=4,
        )
    )  # fmt: skip
    with torch.no_grad():
        for parameter in net.parameters():  # some start at zero and would hide the text
            parameter.normal_(0, 0.2)
    context, uncond = torch.randn(2, 3, 6), torch.randn(2, 3, 6)

    def draw(seed, guidance):
        generator = torch.Generator().manual_seed(seed)
        return ddim_sample(net, context, uncond, (2, 4, 4, 6), 3, guidance, generator)

    first = draw(0, 5.0)
    assert first.shape == (2, 4, 4, 6)
    assert torch.isfinite(first).all()
    assert not first.requires_grad
    assert torch.equal(first, draw(0, 5.0))
    assert not torch.equal(first, draw(0, 2.0))
    assert not torch.equal(first, draw(1, 5.0))


def test_schedule_copies():
    schedule = NoiseSchedule(100, 1e-4, 0.02)
    for twin in (copy.deepcopy(schedule), pickle.loads(pickle.dumps(schedule))):
        assert torch.equal(twin.alphas_cumprod, schedule.alphas_cumprod)
        assert twin.num_train_timesteps == 100


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, x: NoiseSchedule(beta_start=0.1, beta_end=0.01), "beta_start <= beta_end"),
        (lambda s, x: NoiseSchedule(1), "at least 2, got 1"),
        (lambda s, x: s.add_noise(x, x, 1000), r"\[0, 1000\), got 1000"),
        (lambda s, x: s.add_noise(x, x, -1), "got -1"),
        (lambda s, x: s.add_noise(x, x[:1], 3), "noise must be"),
        (lambda s, x: s.add_noise(x, x, torch.tensor([1])), r"t must be int64 \[2\]"),
        (lambda s, x: s.alpha_bar(torch.tensor([1.0])), r"int64 \[B\], got float"),
        (lambda s, x: s.ddim_timesteps(0), r"\[1, 1000\], got 0"),
        (lambda s, x: s.ddim_step(x, x, 5, 5), "previous < t"),
        (lambda s, x: s.ddim_step(x, x[:1], 5, 4), "of one shape"),
        (lambda s, x: s.ddim_step(x, x, 5, 4, 1.0), "needs noise"),
        (lambda s, x: s.ddim_step(x, x, 5, 4, 2.0), r"eta must be in \[0, 1\]"),
        (lambda s, x: ddim_sample(None, x, None, (2, 4, 4)), r"shape \(B, C, h, w\)"),
    ],
)
def test_bad_input_is_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call(NoiseSchedule(), torch.zeros(2, 3, 4))
