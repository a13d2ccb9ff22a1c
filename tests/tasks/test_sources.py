"""Models from Stable Diffusion's and VPD's files, at toy size: each part lands where it belongs."""

from __future__ import annotations

import warnings

import pytest
import tiny
import torch

from vpd.tasks.refer import ReferConfig
from vpd.tasks.sources import build_foundation, build_refer, holds_refer_head
from vpd.weights import convert, save_weights

SD = {
    "vae": "first_stage_model.",
    "unet": "model.diffusion_model.",
    "text": "cond_stage_model.transformer.",
}
OFFICIAL = {
    "vae": "encoder_vq.",
    "unet": "unet.unet.diffusion_model.",
    "adapter": "text_adapter.",
    "decoder": "classifier.",
}


def renamed(state, names):
    found = {}
    for key, tensor in state.items():
        part, name = key.split(".", 1)
        if part in names:
            found[names[part] + name] = tensor
    return found


@pytest.fixture(scope="module")
def foundation():
    return tiny.foundation(1)


@pytest.fixture(scope="module")
def segmenter():
    return tiny.segmenter(2)


@pytest.fixture(scope="module")
def files(foundation, segmenter, tmp_path_factory):
    """Both official forms, written from random models."""
    folder = tmp_path_factory.mktemp("weights")
    save_weights(renamed(foundation.state_dict(), SD), folder / "sd.safetensors")
    official = renamed(segmenter.state_dict(), OFFICIAL)
    official["gamma"] = official.pop("text_adapter.gamma")
    torch.save({"model": official, "epoch": 3}, folder / "refer.pth")
    return folder


@pytest.fixture
def config():
    return ReferConfig(**{**tiny.PARTS, "hidden": 16, "token_length": 40})


def test_stable_diffusion_alone_gives_a_foundation(files, foundation):
    found = build_foundation([files / "sd.safetensors"], config=foundation.config)
    for name, tensor in foundation.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name


def test_a_diffusers_folder_is_the_same(files, foundation, tmp_path):
    convert(files / "sd.safetensors", tmp_path / "sd", "diffusers")
    found = build_foundation([tmp_path / "sd"], config=foundation.config)
    for name, tensor in foundation.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name


def test_an_untrained_head_is_said_aloud(files, foundation, config):
    with pytest.warns(UserWarning, match="UNTRAINED"):
        model = build_refer([files / "sd.safetensors"], config=config)
    assert model.config.token_length == 40
    for name, tensor in foundation.state_dict().items():
        if not name.startswith("vae.decoder"):
            assert torch.equal(model.state_dict()[name], tensor), name
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


def test_a_vpd_checkpoint_goes_on_top(files, foundation, segmenter, config):
    weights = [files / "sd.safetensors", files / "refer.pth"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = build_refer(weights, config=config)
    assert model.config.token_length == segmenter.config.token_length == 16  # read from the file
    for name, tensor in model.state_dict().items():
        source = foundation if name.startswith("text.") else segmenter
        assert torch.equal(source.state_dict()[name], tensor), name
    assert holds_refer_head(weights)
    assert not holds_refer_head(weights[:1])


def test_another_token_length_does_not_fit(files, config):
    weights = [files / "sd.safetensors", files / "refer.pth"]
    with pytest.raises(ValueError, match=r"refer\.pth: .*decoder\.conv1_"):
        build_refer(weights, token_length=77, config=config)


def test_a_part_that_no_file_brings_is_named(files, config):
    with pytest.raises(ValueError, match=r"no weights for text .*Stable Diffusion"):
        build_refer([files / "refer.pth"], config=config)


def test_bad_files_are_named(files, config, tmp_path):
    (tmp_path / "broken.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(ValueError, match="broken"):
        build_refer([tmp_path / "broken.safetensors"], config=config)
    with pytest.raises(OSError, match="nothing"):
        build_refer([tmp_path / "nothing.ckpt"], config=config)
    with pytest.raises(ValueError, match="at least one file"):
        build_refer([], config=config)
    with pytest.raises(ValueError, match=r"sd\.safetensors"):  # toy weights, full-size config
        build_foundation([files / "sd.safetensors"])
