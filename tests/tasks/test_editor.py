"""Editing by instruction: from a foundation, one picture or many, the rule of sizes, results."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from edit_toys import SIZE, editor
from helpers import load_golden, strip
from PIL import Image, ImageOps

import vpd
from vpd.diffusion import SampleNoise, Sampler
from vpd.models.unet import Taps
from vpd.tasks import store
from vpd.tasks.editor import with_zero_channels
from vpd.tasks.editor_size import edit_size, fitted
from vpd.tasks.sources import build_editor

NOISE = Taps(noise=True, features=False, attention=())
QUICK = {"steps": 2, "seed": 3}


@pytest.fixture(scope="module")
def model():
    return editor()


def picture(seed: int = 0, height: int = SIZE, width: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_untrained_it_draws_what_its_foundation_does():
    base = tiny.foundation()
    model = vpd.Editor.from_foundation(base)
    assert model.config.unet.in_channels == 8
    z, image, text = torch.randn(2, 4, 16, 16), torch.randn(2, 4, 16, 16), torch.randn(2, 16, 32)
    with torch.no_grad():
        own = model.unet(torch.cat([z, image], 1), 500, text, taps=NOISE).noise
        expected = base.unet(z, 500, text, taps=NOISE).noise
    torch.testing.assert_close(own, expected, atol=1e-5, rtol=1e-5)
    weight = model.unet.get_parameter("input_blocks.0.0.weight")
    assert torch.equal(weight[:, :4], base.unet.get_parameter("input_blocks.0.0.weight"))
    assert not weight[:, 4:].any()
    with pytest.raises(ValueError, match="at most 3 input channels, got 4"):
        with_zero_channels(torch.zeros(2, 4, 3, 3), 3)


def test_config_must_leave_room_for_the_picture():
    with pytest.raises(ValueError, match="in_channels must be 8, got 4"):
        vpd.EditorConfig(unet=vpd.UNetConfig())


def original_size(width: int, height: int, resolution: int) -> tuple[int, int]:
    """As edit_cli.py has it, in floats."""
    factor = resolution / max(width, height)
    factor = math.ceil(min(width, height) * factor / 64) * 64 / min(width, height)
    return int((height * factor) // 64) * 64, int((width * factor) // 64) * 64


@pytest.mark.parametrize("resolution", [256, 512, 768])
def test_sizes_are_the_original_rule(resolution):
    sizes = [(512, 512), (640, 480), (480, 640), (1024, 768), (100, 1000), (333, 500), (64, 64)]
    for height, width in sizes:
        assert edit_size((height, width), resolution) == original_size(width, height, resolution)


def test_sizes_in_whole_numbers():
    # 49 * (64 / 49) is less than 64 in floats.
    assert edit_size((49, 49), 49, 64) == (64, 64)
    assert edit_size((60, 128), 128, 32) == (64, 128)
    with pytest.raises(ValueError, match="resolution of at least 1 pixel"):
        edit_size((10, 10), 0)


def test_pictures_are_fitted_as_pillow_does():
    image = picture(0, 100, 150)
    size = edit_size((100, 150), 128, 32)
    expected = ImageOps.fit(Image.fromarray(image), size[::-1], Image.Resampling.LANCZOS)
    assert np.array_equal(fitted(image, 128, 32), np.asarray(expected))
    same = picture(0, 64, 128)
    assert fitted(same, 128, 32) is same


def test_whole_edit_by_hand(model):
    """The original's rows and scaling, without guidance's class or the core's loop."""
    image, words, text_guidance, image_guidance = picture(), "make it red", 3.0, 1.2
    own = model.edit(
        image, words, text_guidance=text_guidance, image_guidance=image_guidance, **QUICK
    )
    noise, sampler = SampleNoise(0, [3]), Sampler("euler_ancestral", 2)
    with torch.no_grad():
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
        seen = model.vae.encode(pixels).mode()
        text, empty = model.encode_text([words]), model.encode_text([""])
        x = sampler.initial_scale * noise(-1, torch.empty(1, 4, SIZE // 4, SIZE // 4))
        for i, step in enumerate(sampler.table):
            rows = torch.cat([x * step.input_scale] * 3)
            rows = torch.cat([rows, torch.cat([seen, seen, torch.zeros_like(seen)])], 1)
            t = torch.tensor(step.timestep).expand(3)
            both, only, none = model.unet(
                rows, t, torch.cat([text, empty, empty]), taps=NOISE
            ).noise
            e = none + text_guidance * (both - only) + image_guidance * (only - none)
            x, _ = sampler.step(i, x, e[None], noise(i, x))
        drawn = model.vae.decode(x / model.config.scale_factor).clamp(-1, 1)
    expected = ((drawn[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    assert np.abs(own.image.astype(int) - expected).max() <= 1
    assert own.image.std() > 0
    assert np.array_equal(own.before, image)
    assert (own.seed, own.text_guidance, own.image_guidance) == (3, 3.0, 1.2)


def test_one_comes_out_as_beside_others(model):
    images = [picture(0), picture(1, 50, 100), picture(2), picture(3)]
    words = ["make it red", "remove the cube", "turn it blue", ""]
    found = model.edit(images, words, seed=[5, 6, 7, 8], steps=2, batch=2)
    for image, text, seed, result in zip(images, words, [5, 6, 7, 8], found, strict=True):
        alone = model.edit(image, text, seed=seed, steps=2)
        assert np.abs(alone.image.astype(int) - result.image).max() <= 1
        assert result.instruction == text
    assert found[1].image.shape == found[1].before.shape != images[1].shape
    assert np.array_equal(found[3].image, images[3])  # nothing was asked for
    assert not np.array_equal(found[0].image, images[0])


def test_words_picture_and_seed_matter(model):
    base = model.edit(picture(), "make it red", **QUICK).image
    for image, text, seed in [
        (picture(), "make it blue", 3),
        (picture(1), "make it red", 3),
        (picture(), "make it red", 4),
    ]:
        assert not np.array_equal(model.edit(image, text, seed=seed, steps=2).image, base)
    several = model.edit(picture(), ["make it red", "make it blue"], **QUICK)
    assert np.abs(several[0].image.astype(int) - base).max() <= 1
    assert len(model.edit([picture(), picture()], "make it red", **QUICK)) == 2
    one, other = model.edit([picture()] * 2, "make it red", steps=2)
    assert one.seed != other.seed  # drawn for each


def test_other_samplers_and_noise(model):
    shown = []
    for sampler in ("ddim", "euler", Sampler("dpm++", 3)):
        model.edit(
            picture(), "make it red", sampler=sampler, **QUICK,
            on_step=lambda i, samples, clean: shown.append(i),
        )  # fmt: skip
    assert shown == [0, 1, 0, 1, 0, 1, 2]
    given = model.edit(picture(), "make it red", steps=2, noise=SampleNoise(0, [3]))
    assert np.array_equal(given.image, model.edit(picture(), "make it red", **QUICK).image)
    assert given.seed is None


def test_what_cannot_be(model):
    with pytest.raises(ValueError, match="seed or a source of noise, got both"):
        model.edit(picture(), "red", seed=1, noise=SampleNoise(0))
    with pytest.raises(ValueError, match="for each of 3 instructions, got 2"):
        model.edit([picture(), picture()], ["a", "b", "c"])
    with pytest.raises(ValueError, match="one for each of 1 edits, got 2"):
        model.edit(picture(), "red", seed=[1, 2])
    with pytest.raises(ValueError, match="batch must be at least 1"):
        model.edit(picture(), "red", batch=0)
    with pytest.raises(ValueError, match="resolution of at least 1"):
        model.edit(picture(), "red", resolution=0)


def test_files_of_a_result(model, tmp_path):
    result = model.edit(picture(), "make it red " * 20, **QUICK)
    assert result.truncated
    assert "seed 3" in repr(result)
    assert np.array_equal(np.asarray(Image.open(result.save(tmp_path / "a.png"))), result.image)
    with np.load(result.save(tmp_path / "a.npz")) as arrays:
        assert np.array_equal(arrays["before"], result.before)
        assert str(arrays["instruction"]) == result.instruction
    assert result.save(tmp_path / "a.figure.png").stat().st_size > 0
    assert result._repr_png_()[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match="expected a name ending in"):
        result.save(tmp_path / "a.gif")


def test_on_disk(model, tmp_path):
    folder = store.save(model, tmp_path / "model", dtype=torch.float32)
    assert store.task_of(folder) == "edit"
    again = vpd.load(folder)
    assert again.config == model.config
    one, other = (m.edit(picture(), "make it red", **QUICK).image for m in (model, again))
    assert np.array_equal(one, other)


def original_file(model: vpd.Editor, average: float | None = None) -> dict[str, torch.Tensor]:
    """Its weights by the names of InstructPix2Pix' checkpoint, with an average of the U-Net's that
    is so much larger."""
    prefixes = {
        "unet.": "model.diffusion_model.", "vae.": "first_stage_model.",
        "text.": "cond_stage_model.transformer.text_model.",
    }  # fmt: skip
    tensors = {"betas": torch.zeros(1000)}
    for name, tensor in model.state_dict().items():
        part = name.split(".")[0] + "."
        own = name.removeprefix(part)
        tensors[prefixes[part] + own.removeprefix("text_model.")] = tensor
        if part == "unet." and average is not None:
            tensors["model_ema.diffusion_model" + own.replace(".", "")] = tensor + average
    return tensors


def test_original_checkpoints(model, tmp_path):
    config = model.config
    vpd.save_weights(original_file(model), tmp_path / "plain.safetensors")
    vpd.save_weights(original_file(model, 0.25), tmp_path / "both.safetensors")

    def first(name, **options):
        return build_editor([tmp_path / name], config=config, **options).state_dict()

    own = model.state_dict()
    assert all(torch.equal(own[k], v) for k, v in first("plain.safetensors").items())
    assert all(torch.equal(own[k], v) for k, v in first("both.safetensors", average=False).items())
    for options in ({}, {"average": True}):  # what the published code samples with
        for name, tensor in first("both.safetensors", **options).items():
            assert torch.equal(tensor, own[name] + 0.25 * name.startswith("unet.")), name
    with pytest.raises(
        ValueError, match=r"average \(model_ema\.\*\) of each of \d+ weights .*, found 0"
    ):
        first("plain.safetensors", average=True)
    part = original_file(model, 0.25)
    del part["model_ema.diffusion_modelout2bias"]
    with pytest.raises(ValueError, match=r"of each of \d+ weights"):
        vpd.load_weights(model, part)


def test_stable_diffusions_average_is_left_alone():
    net = tiny.foundation().unet
    state = {f"model.diffusion_model.{k}": v for k, v in net.state_dict().items()}
    averages = {"model_ema." + k[6:].replace(".", ""): v + 1 for k, v in state.items()}
    other = tiny.foundation(1).unet
    assert vpd.load_weights(other, state | averages).missing == []
    assert torch.equal(other.get_parameter("out.2.bias"), net.get_parameter("out.2.bias"))
    vpd.load_weights(other, state | averages, average=True)
    assert torch.equal(other.get_parameter("out.2.bias"), net.get_parameter("out.2.bias") + 1)


def test_stable_diffusion_becomes_an_editor(tmp_path):
    base = tiny.foundation()
    model = vpd.Editor.from_foundation(base)
    tensors = original_file(model)
    name = "model.diffusion_model.input_blocks.0.0.weight"
    tensors[name] = tensors[name][:, :4]
    vpd.save_weights(tensors, tmp_path / "sd.safetensors")
    found = build_editor([tmp_path / "sd.safetensors"], config=model.config, token_length=10)
    assert found.config.token_length == 10
    own = model.state_dict()
    assert all(torch.equal(own[key], value) for key, value in found.state_dict().items())


def test_diffusers_folder(model, tmp_path):
    vpd.save_weights(original_file(model), tmp_path / "own.safetensors")
    vpd.weights.convert(tmp_path / "own.safetensors", tmp_path / "folder", to="diffusers")
    found = build_editor([tmp_path / "folder"], config=model.config)
    own = model.state_dict()
    assert all(torch.equal(own[key], value) for key, value in found.state_dict().items())
    with pytest.raises(ValueError, match="single file with moving averages"):
        build_editor([tmp_path / "folder"], config=model.config, average=True)


def test_recorded_unet_is_read_from_a_checkpoint(tmp_path):
    case = load_golden("ip2p")
    net = vpd.UNet(
        vpd.UNetConfig(
            in_channels=8, model_channels=32, channel_mult=(1, 2, 2, 2), num_heads=8,
            context_dim=64, norm_groups=32,
        )
    )  # fmt: skip
    vpd.save_weights(case.weights, tmp_path / "ip2p.safetensors")
    assert vpd.load_weights(net, tmp_path / "ip2p.safetensors").unexpected == []
    expected = strip(case.weights, "model.diffusion_model.")
    assert all(torch.equal(expected[name], value) for name, value in net.state_dict().items())


@pytest.mark.slow  # importing the pipeline alone takes long
def test_whole_edit_beside_diffusers(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        in_channels=8, block_out_channels=(16, 32), cross_attention_dim=32, norm_num_groups=4,
        attention_head_dim=2, layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 16), norm_num_groups=4, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        timestep_spacing="linspace",
    )  # fmt: skip
    pipe = diffusers.StableDiffusionInstructPix2PixPipeline(
        vae, None, None, unet, scheduler, None, None, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    model = vpd.Editor(
        vpd.EditorConfig(
            unet=vpd.from_diffusers(unet).config, vae=vpd.from_diffusers(vae).config,
            text=tiny.PARTS["text"], image_size=32, token_length=16,
        )
    )  # fmt: skip
    for name, part in {"unet": unet, "vae": vae}.items():
        (tmp_path / name).mkdir()
        own = {key: value.contiguous() for key, value in part.state_dict().items()}
        vpd.save_weights(own, tmp_path / name / "diffusion_pytorch_model.safetensors")
    vpd.load_weights(model.unet, tmp_path)
    vpd.load_weights(model.vae, tmp_path)
    text, empty = torch.randn(2, 16, 32), torch.randn(1, 16, 32)
    image, start = torch.rand(2, 3, 32, 32) * 2 - 1, torch.randn(2, 4, 16, 16)
    expected = pipe(
        image=image, prompt_embeds=text, negative_prompt_embeds=empty.expand(2, -1, -1),
        latents=start, num_inference_steps=5, guidance_scale=3.0, image_guidance_scale=1.4,
        output_type="pt",
    ).images  # fmt: skip
    with torch.no_grad():
        got = model.sample(
            model.encode_image(image), text, empty,
            sampler=Sampler("euler", 5, interpolation="linear"), noise=lambda step, like: start,
            text_guidance=3.0, image_guidance=1.4,
        )  # fmt: skip
    torch.testing.assert_close((got + 1) / 2, expected, atol=1e-4, rtol=1e-4)


def test_guidance_is_the_config_s_where_none_is_asked_for(model, monkeypatch):
    usual = model.edit(picture(), "make it red", **QUICK)
    assert (usual.text_guidance, usual.image_guidance) == (7.5, 1.5)
    config = replace(model.config, text_guidance=3.0, image_guidance=1.2)
    monkeypatch.setattr(model, "config", config)
    own = model.edit(picture(), "make it red", **QUICK)
    said = model.edit(picture(), "make it red", text_guidance=3.0, image_guidance=1.2, **QUICK)
    assert (own.text_guidance, own.image_guidance) == (3.0, 1.2)
    assert np.array_equal(own.image, said.image)
    assert not np.array_equal(own.image, usual.image)
    one = model.edit(picture(), "make it red", image_guidance=2.0, **QUICK)
    assert (one.text_guidance, one.image_guidance) == (3.0, 2.0)


def test_which_shipped_foundation_brings_what_a_file_leaves_out(tmp_path):
    for name in ("vpd-mini", "vpd-mini-refer"):
        assert store.founded_on(name) == "vpd-mini"
    model = vpd.Editor.from_foundation(store.load_foundation("vpd-mini"))
    lean = store.save(model, tmp_path / "lean", foundation="vpd-mini")
    whole = store.save(model, tmp_path / "whole")
    assert (store.founded_on(lean), store.founded_on(whole)) == ("vpd-mini", None)
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (lean, whole)]
    assert sizes[0] < sizes[1] / 10
    one, other = (store.load(folder).state_dict() for folder in (lean, whole))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
