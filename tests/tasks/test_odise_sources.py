"""ODISE's segmenter from the files of Stable Diffusion, CLIP and ODISE, at toy size."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch
from odise_checkpoints import CONFIG, FROZEN, official, segmenter

from vpd.tasks.sources import _odise_config, build_open_panoptic
from vpd.vocabulary import label_set
from vpd.weights import save_weights

SD = {
    "vae": "first_stage_model.",
    "unet": "model.diffusion_model.",
    "text": "cond_stage_model.transformer.",
}


@pytest.fixture(scope="module")
def foundation():
    return tiny.foundation(1)


@pytest.fixture(scope="module")
def source():
    return segmenter(seed=2)


@pytest.fixture(scope="module")
def files(foundation, source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    renamed = {}
    for name, tensor in foundation.state_dict().items():
        part, rest = name.split(".", 1)
        renamed[SD[part] + rest] = tensor
    save_weights(renamed, folder / "sd.safetensors")
    clip = dict(source.clip.state_dict())
    towers = {k.split(".", 1)[1]: v for k, v in clip.items() if k != "logit_scale"}
    save_weights(towers | {"logit_scale": torch.tensor(3.0)}, folder / "clip.safetensors")
    save_weights(towers, folder / "towers.safetensors")
    torch.save({"model": official(source)}, folder / "odise.pth")
    return {path.stem: path for path in folder.iterdir()}


@pytest.mark.parametrize("order", ["sd clip odise", "odise towers sd"])
def test_each_file_brings_its_part(files, foundation, source, order):
    names = order.split()
    model = build_open_panoptic([files[name] for name in names], config=CONFIG)
    for name, tensor in model.state_dict().items():
        if name == "empty_states":
            want = foundation.encode_text([""])[0]
        elif name == "clip.logit_scale":
            want = torch.tensor(3.0) if "clip" in names else torch.tensor(100.0).log()
        else:
            want = (foundation if name.startswith(FROZEN[:2]) else source).state_dict()[name]
        torch.testing.assert_close(tensor, want, rtol=0, atol=1e-6, msg=name)
    assert not model.training
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"adapter", "backbone", "head", "words"}


def test_files_that_lack_a_part(files):
    with pytest.raises(
        ValueError, match=r"expected Stable Diffusion v1, CLIP .*odise\.pth \(odise"
    ):
        build_open_panoptic([files["sd"], files["odise"]], config=CONFIG)
    small = replace(CONFIG, num_queries=5)
    with pytest.raises(
        ValueError, match=r"odise\.pth: .*query_.* must be \[5, 16\], got \[6, 16\]"
    ):
        build_open_panoptic([files["sd"], files["clip"], files["odise"]], config=small)


def test_official_models_are_told_apart(source):
    labels = _odise_config(official(source))
    coco = label_set("coco_panoptic")
    assert (labels.categories, labels.things) == (coco.categories, coco.things)
    assert (labels.supervision, labels.alpha, labels.beta) == ("labels", 0.3, 0.7)
    captions = _odise_config(official(segmenter(replace(CONFIG, supervision="captions"))))
    assert (captions.supervision, captions.alpha, captions.beta) == ("captions", 0.35, 0.65)
    assert captions.templates == "single"
