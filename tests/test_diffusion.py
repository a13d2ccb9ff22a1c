"""The noise schedule against recorded tables of diffusers and ldm, and closed forms."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from helpers import load_golden

from vpd.diffusion import NoiseSchedule


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


def test_sigmas_between_timesteps():
    schedule, case = NoiseSchedule(), load_golden("ip2p")
    bar = schedule.alphas_cumprod
    for t in (0, 3, 999):
        assert schedule.sigma(t) == pytest.approx(float(((1 - bar[t]) / bar[t]).sqrt()))
    # Interpolated in the logarithm: half way is the geometric mean.
    middle = (schedule.sigma(41) * schedule.sigma(42)) ** 0.5
    assert schedule.sigma(41.5) == pytest.approx(middle)
    for t in (0.0, 0.25, 17.0, 500.75, 999.0):
        assert schedule.timestep(schedule.sigma(t)) == pytest.approx(t, abs=1e-9)
    for sigma, t in zip(case.outputs["sigmas"], case.outputs["sigma_to_t"], strict=False):
        assert schedule.timestep(float(sigma)) == pytest.approx(float(t), abs=1e-3)
    assert schedule.timestep(1e-9) == 0
    assert schedule.timestep(1e9) == 999


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
        (lambda s, x: s.sigma(999.5), r"timestep in \[0, 999\], got 999.5"),
        (lambda s, x: s.sigma(float("nan")), "got nan"),
        (lambda s, x: s.timestep(0.0), "positive, got 0"),
    ],
)
def test_bad_input_is_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call(NoiseSchedule(), torch.zeros(2, 3, 4))


def test_ddim_between_any_two_timesteps():
    """Against diffusers' step, and each row its own way."""
    from diffusers import DDIMScheduler

    schedule = NoiseSchedule()
    x, epsilon = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    twin = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    twin.set_timesteps(20)
    close(schedule.ddim(x, epsilon, 501, 451), twin.step(epsilon, 501, x).prev_sample)
    rows = schedule.ddim(x, epsilon, torch.tensor([501, 7]), torch.tensor([451, 900]))
    close(rows[0], schedule.ddim(x, epsilon, 501, 451)[0])
    close(rows[1], schedule.ddim(x, epsilon, 7, 900)[1])
    # A sample of known noise stays one, there and back.
    clean = torch.randn(2, 4, 3, 3)
    noisy = schedule.add_noise(clean, epsilon, 300)
    close(schedule.ddim(noisy, epsilon, 300, 20), schedule.add_noise(clean, epsilon, 20), 1e-4)
    with pytest.raises(ValueError, match=r"timesteps must be in \[0, 1000\), got 1000"):
        schedule.ddim(x, epsilon, 5, 1000)
    with pytest.raises(ValueError, match="ddim: noise must be floating point"):
        schedule.ddim(x, epsilon[:1], 5, 4)
