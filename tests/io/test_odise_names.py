"""ODISE's checkpoints, which hold what was trained and nothing of the frozen models."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers import load_golden
from odise_checkpoints import CONFIG, FROZEN, official, segmenter

import vpd
from vpd._load import core
from vpd.tasks.odise_features import OdiseFeatures
from vpd.weights import LoadReport, read_state_dict

CAPTIONS = replace(CONFIG, supervision="captions", steps=(0, 100))


@pytest.mark.parametrize("config", [CONFIG, CAPTIONS], ids=["labels", "captions"])
@pytest.mark.parametrize("wrapped", ["", "module."])
def test_a_checkpoint_loads_and_leaves_the_frozen_part(tmp_path, config, wrapped):
    source, model = segmenter(config), segmenter(config, seed=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    file = {wrapped + name: tensor for name, tensor in official(source).items()}
    torch.save({"model": file, "iteration": 92188}, tmp_path / "odise.pth")
    assert read_state_dict(tmp_path / "odise.pth")[1].layout == "odise"

    report = vpd.load_weights(model, tmp_path / "odise.pth")
    frozen = {name for name in before if name.startswith(FROZEN)}
    assert set(report.missing) == frozen
    assert len(report.missing) == len(frozen)
    assert (report.unexpected, report.mismatched) == ([], [])
    for name, tensor in model.state_dict().items():
        want = before if name in frozen else source.state_dict()
        assert torch.equal(tensor, want[name]), name
    assert vpd.load_weights(model, file, layout="heads").unexpected == []


def test_names_of_the_original():
    saved = load_golden("odise_extractor").weights | load_golden("odise_head").weights
    keys = {n: t for n, t in saved.items() if n.startswith(("backbone.", "sem_seg_head."))}
    assert len(keys) == 98 + 78
    entries = [(name, list(tensor.shape)) for name, tensor in keys.items()]
    assert core.detect_layout(entries) == "odise"
    roots = {"backbone.feature_extractor.": "adapter.", "sem_seg_head.": "head."}
    own = {}
    for name in keys:
        root = next((root for root in roots if name.startswith(root)), "")
        own[roots.get(root, "") + name[len(root) :]] = name
    module = [(name, list(keys[theirs].shape)) for name, theirs in own.items()]
    match = core.match_weights(entries, module, "file")
    assert dict(match.pairs) == own
    assert (match.missing, match.absent, match.unexpected, match.mismatched) == ([], [], [], [])

    # The small models here have the same names, but for how many layers there are.
    def shapeless(names):
        return {".".join("#" if part.isdigit() else part for part in n.split(".")) for n in names}

    ours = official(segmenter())
    assert shapeless(keys) <= shapeless(ours)
    beside = {n for n in ours if not n.startswith("sem_seg_head.pixel_decoder.")}
    assert shapeless(beside) - shapeless(keys) == shapeless(
        ["criterion.empty_weight", "category_head.null_embed", "category_head.text_proj.weight",
         "category_head.text_proj.bias"]
    )  # fmt: skip


def test_parts_alone_take_theirs():
    source = segmenter()
    file, state = official(source), source.state_dict()
    model = segmenter(seed=1)
    for part in ("adapter", "backbone", "head"):
        assert vpd.load_weights(getattr(model, part), file) == LoadReport([], [], [])
        for name, tensor in getattr(model, part).state_dict().items():
            assert torch.equal(tensor, state[f"{part}.{name}"]), name
    features = OdiseFeatures(CONFIG)
    report = vpd.load_weights(features, file)
    assert {name.split(".")[0] for name in report.missing} == {
        "vae",
        "unet",
        "clip",
        "empty_states",
    }
    assert torch.equal(features.adapter.get_parameter("alpha_cond"), state["adapter.alpha_cond"])


def test_a_checkpoint_of_another_model_is_told():
    file, model = official(segmenter()), segmenter()
    with pytest.raises(ValueError, match=r"layout 'odise'.* 1 missing from the file: words\.null"):
        vpd.load_weights(model, {k: v for k, v in file.items() if not k.endswith("null_embed")})
    more = {"sem_seg_head.predictor.class_embed.bias": torch.ones(2)}
    with pytest.raises(ValueError, match=r"1 not in the module: sem_seg_head\.predictor\.class"):
        vpd.load_weights(model, file | more)
    with pytest.raises(ValueError, match=r"head\.predictor\.query_feat\.weight expected \[6, 16\]"):
        vpd.load_weights(model, file | {"sem_seg_head.predictor.query_feat.weight": torch.ones(5)})
    with pytest.raises(ValueError, match="expected layout 'mask2former', got 'odise'"):
        vpd.load_weights(model, file, layout="mask2former")
    entries = [(name, list(tensor.shape)) for name, tensor in file.items()]
    with pytest.raises(ValueError, match="belongs to no U-Net"):
        core.plan_conversion(entries, "diffusers", "file")
