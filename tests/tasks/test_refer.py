"""The referring segmenter as a whole, against official VPD's recorded outputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import assert_close, load_golden

import vpd
from vpd.models.autoencoder import AutoencoderConfig
from vpd.models.clip_text import CLIPTextConfig
from vpd.models.unet import UNetConfig


@pytest.fixture(scope="module")
def model() -> vpd.ReferSegmenter:
    """The golden case's network, its official checkpoint loaded by vpd.load_weights."""
    case = load_golden("vpd_refer")
    config = vpd.ReferConfig(
        unet=UNetConfig(model_channels=32, channel_mult=(1, 2, 2, 2), context_dim=64),
        vae=AutoencoderConfig(ch=32, ch_mult=(1, 2, 1, 1)),
        text=CLIPTextConfig(
            hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
        ),
        image_size=128,
        token_length=13,
        hidden=32,
    )  # fmt: skip
    model = vpd.ReferSegmenter(config)
    report = vpd.load_weights(model, case.weights)
    assert all(name.startswith("text.") for name in report.missing)
    return model.eval()


def test_logits_and_mask_match_vpd(model):
    case = load_golden("vpd_refer")
    with torch.no_grad():
        latents = model.encode_image(case.inputs["image"])
        out = model.features(latents, case.inputs["text"])
        logits = model.logits(case.inputs["image"], case.inputs["text"])
    assert_close(latents, case.outputs["latents"])
    for level in (1, 2, 3):
        assert_close(out.pyramid()[level], case.outputs[f"out{level}"])
    assert_close(logits[:, :, ::2, ::2], case.outputs["logits"])
    assert torch.equal(logits.argmax(1), case.outputs["mask"].long())


def test_a_picture_of_any_size_comes_back_at_its_size(model):
    picture = np.random.default_rng(0).integers(0, 256, (37, 91, 3), dtype=np.uint8)
    one = model(picture, "the red ball")
    assert one.mask.shape == one.probability.shape == (37, 91)
    assert one.attention.words == ("the", "red", "ball")
    assert one.attention["ball"].shape == (8, 8)
    several = model(picture, ["the red ball", "a dog"])
    assert [r.text for r in several] == ["the red ball", "a dog"]
    np.testing.assert_allclose(several[0].probability, one.probability, atol=1e-4)
    with pytest.raises(KeyError, match="no word 'cube'"):
        one.attention["cube"]


def test_images_are_encoded_once_and_rows_share_them(model):
    case = load_golden("vpd_refer")
    image = case.inputs["image"].expand(2, -1, -1, -1).clone()
    image[1] = image[1].flip(-1)
    states = torch.randn(3, 13, 64)
    index = torch.tensor([1, 0, 1])
    with torch.no_grad():
        together = model.logits(image, states, index)
        for row, which in enumerate(index.tolist()):
            alone = model.logits(image[which : which + 1], states[row : row + 1])
            torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-3, atol=1e-4)


def test_switching_the_adapter_off_uses_the_plain_text(model):
    import copy
    from dataclasses import replace

    case = load_golden("vpd_refer")
    plain = copy.copy(model)
    plain.config = replace(model.config, text_adapter=False)
    with torch.no_grad():
        latents = model.encode_image(case.inputs["image"])
        got = plain.features(latents, case.inputs["text"]).features[0]
        want = model.unet(latents, 1, case.inputs["text"]).features[0]
    assert torch.equal(got, want)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", ValueError, "empty"),
        ("   ", ValueError, "empty"),
        ([], ValueError, "at least one sentence"),
        (None, TypeError, "must be a str"),
        ([3], TypeError, "must be a str"),
    ],
)
def test_bad_sentences_are_named(model, text, error, message):
    with pytest.raises(error, match=message):
        model(np.zeros((8, 8, 3), np.uint8), text)


def test_models_on_disk(model, tmp_path):
    from vpd.tasks import store

    folder = store.save(model, tmp_path / "m", dtype=torch.float32, card={"note": "x"})
    again = vpd.load(folder)
    assert again.config == model.config
    picture = np.zeros((20, 20, 3), np.uint8)
    np.testing.assert_allclose(
        again(picture, "a cup").probability, model(picture, "a cup").probability, atol=1e-5
    )
    with pytest.raises(FileNotFoundError, match="expected a folder with config"):
        vpd.load(tmp_path / "nothing")
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="expected JSON"):
        vpd.load(folder)
