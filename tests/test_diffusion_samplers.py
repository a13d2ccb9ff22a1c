"""Samplers against recorded sequences, diffusers' schedulers, and closed forms."""

from __future__ import annotations

import inspect
import itertools

import pytest
import torch
from helpers import assert_close, load_golden

from vpd.diffusion import START, NoiseSchedule, SampleNoise, Sampler, sample

METHODS = ("ddpm", "ddim", "ddim_inverse", "euler", "euler_ancestral", "dpm++")
SPACINGS = ("leading", "linspace", "trailing")
# All that diffusers has a scheduler for.
PEERED = sorted(
    set(itertools.product((*METHODS, "ddim eta"), SPACINGS)) - {("ddim_inverse", "linspace")}
)


def close(got, want, tolerance=1e-5):
    torch.testing.assert_close(got.to(want.dtype), want, rtol=tolerance, atol=tolerance)


def recorded(sampler, case, start):
    """The states and clean samples after every step, with the case's outputs of a network."""
    states, cleans = [], []

    def denoise(seen, t):
        return 0.7 * case.inputs["model_outputs"][len(states)] + 0.3 * seen

    def watch(index, x, clean):
        assert index == len(states)
        states.append(x)
        cleans.append(clean)

    noise = case.inputs["step_noise"]
    last = sample(denoise, sampler, start, lambda i, like: noise[i], on_step=watch)
    assert torch.equal(last, states[-1])
    return torch.stack(states), torch.stack(cleans)


def test_ddim_matches_recorded_sequences():
    case = load_golden("schedulers")
    sampler, start = Sampler("ddim", 10), case.inputs["ddim.start"]
    assert sampler.timesteps == case.outputs["ddim.timesteps"].tolist()
    assert sampler.timesteps[::-1] == case.outputs["ldm.ddim_timesteps"].tolist()
    assert sampler.initial_scale == 1
    states, cleans = recorded(sampler, case, start)
    close(states, case.outputs["ddim.sequence"])
    close(cleans, case.outputs["ddim.pred_x0"])
    states, _ = recorded(Sampler("ddim", 10, eta=1.0), case, start)
    close(states, case.outputs["ddim_eta1.sequence"])


def test_ddpm_matches_recorded_sequence():
    case = load_golden("schedulers")
    sampler = Sampler("ddpm", 10, offset=0)
    assert sampler.timesteps == case.outputs["ddpm.timesteps"].tolist()
    states, _ = recorded(sampler, case, case.inputs["ddim.start"])
    close(states, case.outputs["ddpm.sequence"])


def test_euler_ancestral_matches_recorded_sequence():
    case = load_golden("schedulers")
    sampler = Sampler("euler_ancestral", 10, spacing="leading")
    assert sampler.timesteps == case.outputs["euler_a.timesteps"].tolist()
    assert [step.spread for step in sampler.table] == pytest.approx(
        case.outputs["euler_a.sigmas"][:-1].tolist(), rel=1e-5
    )
    scale = sampler.initial_scale
    assert scale == pytest.approx(float(case.outputs["euler_a.init_noise_sigma"]), rel=1e-5)
    states, _ = recorded(sampler, case, scale * case.inputs["ddim.start"])
    close(states, case.outputs["euler_a.sequence"])


def peer(method, spacing, prediction):
    import diffusers

    name, own = {
        "ddpm": ("DDPMScheduler", {"clip_sample": False}),
        "ddim": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}),
        "ddim_inverse": ("DDIMInverseScheduler", {"clip_sample": False, "set_alpha_to_one": False}),
        "euler": ("EulerDiscreteScheduler", {}),
        "euler_ancestral": ("EulerAncestralDiscreteScheduler", {}),
        "dpm++": ("DPMSolverMultistepScheduler", {}),
    }[method]
    return getattr(diffusers, name)(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
        timestep_spacing=spacing, prediction_type={"v": "v_prediction"}.get(prediction, prediction),
        **own,
    )  # fmt: skip


def network(seen, t):
    """Any function will do, as long as both samplers ask the same one."""
    return 0.6 * torch.sin(1.3 * seen + t / 300) + 0.2 * seen


def step_noise(step, like):
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(step))


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
@pytest.mark.parametrize(("method", "spacing"), PEERED)
def test_twenty_steps_match_diffusers(method, spacing, prediction):
    method, *random = method.split()
    scheduler = peer(method, spacing, prediction)
    eta = {"eta": 0.7} if random else {}
    sampler = Sampler(
        method, 20, spacing=spacing, prediction=prediction, interpolation="linear", **eta
    )
    noise = torch.randn(2, 4, 5, 5)
    scheduler.set_timesteps(20)
    assert sampler.timesteps == pytest.approx(scheduler.timesteps.tolist(), abs=1e-3)
    assert sampler.initial_scale == pytest.approx(float(scheduler.init_noise_sigma), rel=1e-5)
    want = noise * scheduler.init_noise_sigma
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    for i, t in enumerate(scheduler.timesteps):
        output = network(scheduler.scale_model_input(want, t), float(t))
        own = {"generator": torch.Generator().manual_seed(i)} if takes_generator else {}
        want = scheduler.step(output, t, want, **own, **eta).prev_sample
    got = sample(network, sampler, noise * sampler.initial_scale, step_noise)
    assert got.dtype == torch.float32
    assert_close(got, want, 1e-4)


@pytest.mark.parametrize("steps", [1, 7, 30, 50, 900])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("method", ["ddim", "euler", "dpm++"])
def test_timesteps_match_diffusers(method, spacing, steps):
    if steps == 1 and spacing == "linspace" and method != "dpm++":
        # The one timestep is the noisiest here, as in k-diffusion, and 0 in diffusers.
        assert Sampler(method, 1, spacing="linspace").timesteps == [999]
        return
    scheduler = peer(method, spacing, "epsilon")
    scheduler.set_timesteps(steps)
    got = Sampler(method, steps, spacing=spacing).timesteps
    assert got == pytest.approx(scheduler.timesteps.tolist(), abs=1e-3)


def test_all_timesteps_can_be_steps():
    sampler = Sampler("ddim", 10, schedule=NoiseSchedule(10))
    assert sampler.timesteps == list(range(9, -1, -1))


def exact(clean, sampler, first=0):
    """The network that knows the clean sample."""
    table = iter(sampler.table[first:])

    def denoise(seen, t):
        step = next(table)
        assert t == step.timestep
        signal, spread = step.signal * step.input_scale, step.spread * step.input_scale
        assert signal**2 + spread**2 == pytest.approx(1)
        return (seen - signal * clean) / spread

    return denoise


@pytest.mark.parametrize("first", [0, 6])
@pytest.mark.parametrize("method", [m for m in METHODS if m != "ddim_inverse"])
def test_exact_network_leads_to_the_clean_sample(method, first):
    sampler, noise, clean = Sampler(method, 20), SampleNoise(3), torch.randn(2, 3, 4, 5)
    start = sampler.diffuse(clean, noise(START, clean), first)
    got = sample(exact(clean, sampler, first), sampler, start, noise, first=first)
    left = NoiseSchedule().sigma(0) if method == "ddim" else 1e-5  # DDIM ends at timestep 0
    assert (got - clean).abs().max() < 5 * left


def gaussian(width):
    """The exact network where clean samples are normal with a standard deviation ``width``."""
    schedule = NoiseSchedule()

    def denoise(seen, t):
        sigma = schedule.sigma(t)
        x = seen * (sigma**2 + 1) ** 0.5  # x_0 + sigma epsilon
        return x * sigma / (width**2 + sigma**2)

    return denoise


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("dpm++", 2)])
def test_order_of_convergence(method, order):
    """The probability flow keeps x / sqrt(width^2 + sigma^2), so the end is known."""
    width, errors = 0.5, []
    start = torch.ones(1, 1, dtype=torch.float64)
    for steps in (50, 100, 200):
        sampler, states = Sampler(method, steps, spacing="trailing"), []
        sample(
            gaussian(width), sampler, sampler.initial_scale * start,
            on_step=lambda i, x, clean, states=states: states.append(x),
        )  # fmt: skip
        first, middle = sampler.table[0], sampler.table[steps // 2]
        assert middle.timestep == 499
        sigmas = [step.spread / step.signal for step in (first, middle)]
        shrunk = ((width**2 + sigmas[1] ** 2) / (width**2 + sigmas[0] ** 2)) ** 0.5
        got = float(states[steps // 2 - 1]) / middle.signal
        errors.append(abs(got - sampler.initial_scale / first.signal * shrunk))
    for coarse, fine in itertools.pairwise(errors):
        assert coarse / fine == pytest.approx(2**order, rel=0.35)


def test_inversion_leads_back():
    """DDIM from what inversion found gives the picture again, the better the more steps."""
    clean, errors = torch.randn(2, 3, 4, 4).double(), []
    for steps in (25, 100):
        denoise = gaussian(0.8)
        inverted = sample(denoise, Sampler("ddim_inverse", steps), clean)
        back = sample(denoise, Sampler("ddim", steps), inverted)
        assert inverted.dtype == torch.float64
        errors.append(float((back - clean).abs().max() / clean.std()))
    assert errors[1] < errors[0] / 2
    assert errors[1] < 0.02


def test_velocity_and_epsilon_say_the_same():
    clean, noise = torch.randn(2, 2, 3), SampleNoise(0)
    for method in ("ddim", "euler", "dpm++"):
        found = []
        for prediction in ("epsilon", "v"):
            sampler = Sampler(method, 8, prediction=prediction)
            epsilon = exact(clean, sampler)
            table = iter(sampler.table)

            def denoise(seen, t, epsilon=epsilon, table=table, prediction=prediction):
                e, step = epsilon(seen, t), next(table)
                signal, spread = step.signal * step.input_scale, step.spread * step.input_scale
                return e if prediction == "epsilon" else signal * e - spread * clean

            start = sampler.initial_scale * noise(START, clean)
            found.append(sample(denoise, sampler, start))
        close(found[0], found[1], 1e-4)


def test_a_watcher_can_change_the_samples():
    sampler, seen = Sampler("euler", 4), []

    def denoise(x, t):
        seen.append(x)
        return torch.zeros_like(x)

    def watch(index, x, clean):
        return torch.full_like(x, 5.0) if index == 1 else None

    got = sample(denoise, sampler, torch.zeros(1, 2), on_step=watch)
    assert [float(x.max()) for x in seen[:2]] == [0, 0]
    assert float(seen[2].max()) == pytest.approx(5 * sampler.table[2].input_scale)
    assert torch.equal(got, torch.full((1, 2), 5.0))  # nothing is noise, so nothing is taken away
    with pytest.raises(RuntimeError, match="stop"):  # what a callback raises arrives
        sample(denoise, sampler, torch.zeros(1, 2), on_step=stop)


def stop(index, x, clean):
    raise RuntimeError("stop")


def test_sample_noise_is_named():
    noise, like = SampleNoise(1), torch.zeros(8, 3, 2)
    eight = noise(4, like)
    assert torch.equal(noise(4, like), eight)
    assert torch.equal(SampleNoise(1, [5])(4, like[:1]), eight[5:6])
    assert torch.equal(SampleNoise(1, [5, 5])(4, like[:2]), eight[[5, 5]])
    for other in (noise(5, like), SampleNoise(2)(4, like), eight.roll(1, 0)):
        assert not torch.equal(other, eight)
    many = noise(0, torch.zeros(4000, 5))
    assert abs(float(many.mean())) < 0.03
    assert abs(float(many.std()) - 1) < 0.03
    with pytest.raises(ValueError, match=r"expected 2 rows, .* got 3"):
        SampleNoise(1, [0, 1])(0, torch.zeros(3, 1))


X = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Sampler("heun"), "method must be one of ddpm, .*, got 'heun'"),
        (lambda: Sampler(spacing="even"), "spacing must be one of leading, .*, got 'even'"),
        (lambda: Sampler(prediction="x0"), "prediction must be one of epsilon, v, got 'x0'"),
        (lambda: Sampler(interpolation="cubic"), "interpolation must be one of log, linear"),
        (lambda: Sampler(steps=0), r"steps must be in \[1, 1000\], got 0"),
        (lambda: Sampler(steps=1001), r"\[1, 1000\], got 1001"),
        (lambda: Sampler("dpm++", 1000), r"\[1, 999\], got 1000"),
        (lambda: Sampler(eta=2.0), r"eta must be in \[0, 1\], got 2"),
        (lambda: Sampler("euler", eta=0.5), "eta is for ddim alone"),
        (lambda: Sampler(offset=-1), "offset must not be negative"),
        (lambda: Sampler().step(50, X, X), r"step must be in \[0, 50\), got 50"),
        (lambda: Sampler().step(0, X, X[:1]), r"output must be floating point \[2, 3\]"),
        (lambda: Sampler().step(0, X.half(), X), "float32 or float64"),
        (lambda: Sampler("ddpm").step(0, X, X), "step 0 needs noise"),
        (lambda: Sampler("dpm++").step(1, X, X, None, X[:1]), "x_0 of the step before"),
        (lambda: Sampler().diffuse(X, X[:1], 0), "of one shape"),
        (lambda: sample(network, Sampler(), X, first=50), r"first step must be in \[0, 50\)"),
        (lambda: sample(network, Sampler("ddpm"), X), "step 0 needs noise"),
        (lambda: sample(network, Sampler(), X, on_step=lambda i, x, c: x[:1]), "what replaces"),
    ],
)
def test_bad_input_is_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call()
