"""Guidance and whole samplings: InstructPix2Pix' recorded ones, exact cases, any batch size."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from helpers import assert_close, load_golden, strip
from tiny import foundation as tiny_foundation

import vpd
from vpd.diffusion import (
    START,
    GuidedRows,
    GuidedUNet,
    SampleNoise,
    Sampler,
    generator_noise,
    sample,
)


@pytest.fixture(scope="module")
def ip2p():
    """The recorded case and its U-Net of 8 input channels."""
    case = load_golden("ip2p")
    net = vpd.UNet(
        vpd.UNetConfig(
            in_channels=8, model_channels=32, channel_mult=(1, 2, 2, 2), num_heads=8,
            context_dim=64, norm_groups=32,
        )
    )  # fmt: skip
    net.load_state_dict(strip(case.weights, "model.diffusion_model."))
    return case, net


class Recorder:
    """A stand-in for a U-Net: keeps what it is shown, answers what it is told to."""

    def __init__(self, answer=None):
        self.answer = answer

    def __call__(self, latents, timesteps, context, *, image_index, control, taps):
        assert taps.noise
        assert control is None
        assert not taps.features
        index = torch.arange(len(context)) if image_index is None else image_index
        self.seen, self.context, self.timestep = latents[index], context, timesteps
        noise = self.seen[:, :4] if self.answer is None else self.answer
        return SimpleNamespace(noise=noise)


def test_eight_channels_match_original(ip2p):
    case, net = ip2p
    given = case.inputs
    with torch.no_grad():
        out = net(
            torch.cat([given["z"], given["c_concat"]], 1), given["timesteps"], given["context"],
            taps=vpd.Taps(noise=True, features=False, attention=()),
        )  # fmt: skip
    assert_close(out.noise, case.outputs["eps"])


def test_two_conditions_match_original(ip2p):
    case, _ = ip2p
    text, empty = case.inputs["context"].split(1)
    net = Recorder(case.inputs["preds"])
    guided = GuidedUNet(
        net, text, empty, image=case.inputs["c_concat"][:1], text_guidance=7.5, image_guidance=1.5
    )
    got = guided(case.inputs["z_T"], 749.25)
    assert_close(got, case.outputs["guided"])
    assert net.timestep == 749.25
    assert torch.equal(net.context, case.outputs["cfg_batch_context"])
    assert torch.equal(net.seen[:, 4:], case.outputs["cfg_batch_concat"])
    assert torch.equal(net.seen[:, :4], case.inputs["z_T"].expand(3, -1, -1, -1))


def test_whole_sampling_matches_original(ip2p):
    case, net = ip2p
    sampler, states = Sampler("euler_ancestral", 5), [case.inputs["z_T"]]
    assert sampler.timesteps == pytest.approx(case.outputs["sigma_to_t"].tolist(), abs=1e-3)
    sigmas = [step.spread for step in sampler.table]
    assert sigmas == pytest.approx(case.outputs["sigmas"][:-1].tolist(), rel=1e-4)
    text, empty = case.inputs["context"].split(1)
    guided = GuidedUNet(
        net, text, empty, image=case.inputs["c_concat"][:1], text_guidance=7.5, image_guidance=1.5
    )
    got = sample(
        guided, sampler, case.inputs["z_T"], lambda i, like: case.inputs["noise"][i],
        on_step=lambda i, x, clean: states.append(x),
    )  # fmt: skip
    assert_close(got, case.outputs["sample"], 1e-3)
    for x, want in zip(states[:-1], case.outputs["step_x"], strict=True):  # before every step
        assert_close(x, want, 1e-3)


def conditions(samples=2):
    return torch.randn(samples, 3, 6), torch.randn(1, 3, 6), torch.randn(samples, 4, 4, 4)


@pytest.mark.parametrize(
    ("text_guidance", "image_guidance", "parts"),
    [
        (7.5, 1.5, "full image none"), (1.0, 1.0, "full"), (0.0, 0.0, "none"),
        (0.0, 1.0, "image"), (2.0, 2.0, "full none"), (3.0, 1.0, "full image"),
    ],
)  # fmt: skip
def test_two_conditions_follow_the_equation(text_guidance, image_guidance, parts):
    """Only what counts is computed; 1 is the conditional prediction, 0 the other, to the bit."""
    text, empty, image = conditions()
    x, zeros = torch.randn(2, 4, 4, 4), torch.zeros_like(image)
    rows = {"full": (text, image), "image": (empty.expand_as(text), image)}
    rows["none"] = (empty.expand_as(text), zeros)
    predictions = {name: torch.randn(2, 4, 4, 4) for name in rows}
    net = Recorder(torch.cat([predictions[name] for name in parts.split()]))
    got = GuidedUNet(
        net, text, empty, image=image, text_guidance=text_guidance, image_guidance=image_guidance
    )(x, 7)
    assert torch.equal(net.context, torch.cat([rows[name][0] for name in parts.split()]))
    assert torch.equal(
        net.seen, torch.cat([torch.cat([x, rows[name][1]], 1) for name in parts.split()])
    )
    none, with_image, full = predictions["none"], predictions["image"], predictions["full"]
    want = (
        none + image_guidance * (with_image - none) + text_guidance * (full - with_image)
    )  # fmt: skip
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    if len(parts.split()) == 1:
        assert torch.equal(got, predictions[parts])


@pytest.mark.parametrize(("guidance", "rows"), [(7.5, 4), (1.0, 2), (0.0, 2)])
def test_one_condition_follows_the_equation(guidance, rows):
    text, empty, _ = conditions()
    x, predictions = torch.randn(2, 4, 4, 4), torch.randn(rows, 4, 4, 4)
    net = Recorder(predictions)
    got = GuidedUNet(net, text, empty, text_guidance=guidance)(x, 500)
    assert type(net.timestep) is int
    assert torch.equal(net.seen, x.repeat(rows // 2, 1, 1, 1))
    if rows == 2:
        assert torch.equal(got, predictions)
        assert torch.equal(net.context, text if guidance else empty.expand_as(text))
        return
    conditional, unconditional = predictions.chunk(2)
    want = unconditional + guidance * (conditional - unconditional)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_guidance_of_each_sample():
    """A block that counts for one sample is computed for all."""
    text, empty, image = conditions(3)
    x, scales = torch.randn(3, 4, 4, 4), (1.0, 0.0, 6.5)
    predictions = torch.randn(6, 4, 4, 4)
    net = Recorder(predictions)
    got = GuidedUNet(net, text, empty, text_guidance=scales)(x, 500)
    told, rest = predictions.chunk(2)
    for i, scale in enumerate(scales):
        torch.testing.assert_close(got[i], rest[i] + scale * (told[i] - rest[i]))
    net.answer = torch.cat([predictions, torch.randn(3, 4, 4, 4)])
    how = {"image": image, "image_guidance": 1.5}
    got = GuidedUNet(net, text, empty, text_guidance=scales, **how)(x, 500)
    told, pictured, none = net.answer.chunk(3)
    for i, scale in enumerate(scales):
        want = none[i] + 1.5 * (pictured[i] - none[i]) + scale * (told[i] - pictured[i])
        torch.testing.assert_close(got[i], want)
    net.answer = predictions
    one = GuidedUNet(net, text, empty, text_guidance=[2.5] * 3)(x, 500)
    assert torch.equal(one, GuidedUNet(net, text, empty, text_guidance=2.5)(x, 500))
    assert GuidedUNet(net, text, empty, text_guidance=scales).rows == GuidedRows(3, 2, True)
    assert GuidedUNet(net, text, text_guidance=1.0).rows == GuidedRows(3, 1, True)
    assert GuidedUNet(net, text, empty, text_guidance=0.0).rows == GuidedRows(3, 1, False)


def test_half_precision_is_summed_in_float32():
    text, empty, _ = conditions()
    predictions = torch.randn(4, 4, 4, 4).bfloat16()
    net = Recorder(predictions)
    guided = GuidedUNet(net, text.bfloat16(), empty, text_guidance=3.0)
    got = guided(torch.randn(2, 4, 4, 4), 3)
    assert net.seen.dtype == net.context.dtype == torch.bfloat16
    conditional, unconditional = predictions.float().chunk(2)
    torch.testing.assert_close(got, 3 * conditional - 2 * unconditional)


@pytest.fixture(scope="module")
def tiny():
    """U-Nets of 4 and 8 input channels."""
    nets = {}
    for channels in (4, 8):
        net = vpd.UNet(
            vpd.UNetConfig(
                in_channels=channels, model_channels=8, channel_mult=(1, 2), num_res_blocks=1,
                attention_resolutions=(2,), num_heads=2, context_dim=6, norm_groups=4,
            )
        )  # fmt: skip
        with torch.no_grad():  # some start at zero and would hide the text
            for parameter in net.parameters():
                parameter.normal_(0, 0.2, generator=torch.Generator().manual_seed(channels))
        nets[channels] = net
    return nets


@pytest.mark.parametrize(
    ("method", "channels"),
    [("ddpm", 4), ("ddim", 4), ("dpm++", 4), ("euler", 8), ("euler_ancestral", 8)],
)
def test_a_sample_does_not_depend_on_its_batch(tiny, method, channels):
    text, empty, image = conditions(8)
    sampler = Sampler(method, 6)

    def draw(rows):
        own = {"image": image[rows], "image_guidance": 1.5} if channels == 8 else {}
        guided = GuidedUNet(tiny[channels], text[rows], empty, text_guidance=4.0, **own)
        noise = SampleNoise(11, list(rows))
        start = sampler.initial_scale * noise(START, image[rows])
        return sample(guided, sampler, start, noise)

    together = draw(range(8))
    alone = torch.cat([draw(range(i, i + 1)) for i in range(8)])
    pairs = torch.cat([draw(range(i, i + 2)) for i in range(0, 8, 2)])
    assert torch.isfinite(together).all()
    assert not together.requires_grad
    scale = together.abs().max()
    assert (alone - together).abs().max() <= 1e-5 * scale
    assert (pairs - together).abs().max() <= 1e-5 * scale
    assert not torch.allclose(together[0], together[1], atol=0.1)


def test_generator_draws_what_comes_next(tiny):
    text, empty, image = conditions()
    sampler = Sampler("ddim", 3, eta=0.5)

    def draw(seed, guidance=5.0):
        noise = generator_noise(torch.Generator().manual_seed(seed))
        guided = GuidedUNet(tiny[4], text, empty, text_guidance=guidance)
        return sample(guided, sampler, noise(START, image), noise)

    first = draw(0)
    assert torch.equal(first, draw(0))
    assert not torch.equal(first, draw(1))
    assert not torch.equal(first, draw(0, 2.0))
    generator = torch.Generator().manual_seed(0)
    noise, again = generator_noise(generator), torch.Generator().manual_seed(0)
    for step in range(2):
        assert torch.equal(noise(step, image), torch.randn(image.shape, generator=again))


def test_foundation_draws_as_plain_ddim_does():
    """A twin written out: leading timesteps, each from alpha_bar to that of a stride below."""
    model = tiny_foundation()
    texts, guidance, steps = ["a red cube", "a ball"], 4.0, 5
    got = model.sample(
        texts, steps=steps, guidance=guidance, generator=torch.Generator().manual_seed(2)
    )
    size = model.config.image_size // 2 ** (len(model.config.vae.ch_mult) - 1)
    shape = (2, model.config.unet.in_channels, size, size)
    bar = vpd.diffusion.NoiseSchedule().alphas_cumprod
    taps = vpd.Taps(noise=True, features=False, attention=())
    with torch.no_grad():
        text, empty = model.encode_text(texts), model.encode_text([""]).expand(2, -1, -1)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(2)).double()
        for t in (801, 601, 401, 201, 1):
            without, conditional = (
                model.unet(x.float(), t, states, taps=taps).noise.double()
                for states in (empty, text)
            )
            epsilon = without + guidance * (conditional - without)
            clean = (x - (1 - bar[t]).sqrt() * epsilon) / bar[t].sqrt()
            below = bar[max(t - 200, 0)]
            x = below.sqrt() * clean + (1 - below).sqrt() * epsilon
        want = model.vae.decode(x.float() / model.config.scale_factor).clamp(-1, 1)
    assert_close(got, want, 1e-4)
    alone = model.sample(texts[1:], steps=steps, noise=SampleNoise(0, [1]))
    together = model.sample(texts, steps=steps, noise=SampleNoise(0))
    assert (alone - together[1:]).abs().max() < 1e-4
    with pytest.raises(ValueError, match="got both"):
        model.sample(texts, generator=torch.Generator(), noise=SampleNoise(0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": torch.zeros(3, 6)}, r"text states must be \[B, N, C\], got \[3, 6\]"),
        ({"empty": None}, "need the states of the empty sentence"),
        ({"empty": torch.zeros(3, 3, 6)}, r"must be \[2 or 1, 3, 6\], got \[3, 3, 6\]"),
        ({"image": torch.zeros(3, 4, 4, 4)}, r"image latents must be \[2, C, h, w\]"),
        ({"image": None}, "image_guidance needs image latents, got 1.5"),
        ({"text_guidance": float("nan")}, "must be finite, got nan"),
        ({"text_guidance": [1.0, 2.0, 3.0]}, "must be one number or 2, one for each sample, got 3"),
        ({"x": torch.zeros(1, 4, 4, 4)}, "expected 2 samples, got"),
        ({"x": torch.zeros(2, 4, 4, 8)}, r"size, got \[2, 4, 4, 8\] beside \[4, 4, 4, 4\]"),
        ({"answer": torch.zeros(5, 4, 4, 4)}, "must have 6 rows, got"),
    ],
)
def test_bad_input_is_explained(change, message):
    text, empty, image = conditions()
    given = {"text": text, "empty": empty, "image": image, "x": torch.zeros(2, 4, 4, 4)}
    given |= {"text_guidance": 7.5, "answer": None} | change
    net, x = Recorder(given.pop("answer")), given.pop("x")
    with pytest.raises(ValueError, match=message):
        GuidedUNet(net, image_guidance=1.5, **given)(x, 1)
