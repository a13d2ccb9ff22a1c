"""Files of Mask2Former by the original's names and by transformers'."""

from __future__ import annotations

import pytest
import torch
from mask2former_cases import official, transformers
from torch import nn

import vpd
from vpd._load import core
from vpd.weights import LoadReport


def test_files_round_trip(tmp_path):
    case, head = official()
    head.load_state_dict(case.weights)
    vpd.save_weights(head, tmp_path / "head.safetensors")
    other = official()[1]
    assert vpd.load_weights(
        other, tmp_path / "head.safetensors", layout="mask2former"
    ) == LoadReport([], [], [])
    for name, tensor in head.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)


def test_a_whole_model_of_the_original_loads():
    case, head = official()
    beside = {"backbone.stem.weight": torch.ones(2), "criterion.empty_weight": torch.ones(7)}
    theirs = {f"sem_seg_head.{name}": tensor for name, tensor in case.weights.items()}
    early = {k.replace("query_feat", "static_query"): v for k, v in theirs.items()}
    for file in (theirs, early):
        model = nn.ModuleDict({"head": official()[1]})
        assert vpd.load_weights(model, file | beside, layout="heads") == LoadReport([], [], [])
        assert vpd.load_weights(head, file | beside) == LoadReport([], [], [])
        for loaded in (model["head"], head):
            for name, tensor in loaded.state_dict().items():
                assert torch.equal(tensor, case.weights[name]), name


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_whole_model_of_transformers_loads(prefix):
    case, head = transformers()
    vpd.load_weights(head, case.weights)
    beside = {
        "model.pixel_level_module.encoder.embeddings.norm.weight": torch.ones(2),
        "criterion.empty_weight": torch.ones(6),
    }
    file = {prefix + name: tensor for name, tensor in (case.weights | beside).items()}
    model = nn.ModuleDict({"head": transformers()[1]})
    assert vpd.load_weights(model, file) == LoadReport([], [], [])
    for name, tensor in model["head"].state_dict().items():
        assert torch.equal(tensor, head.state_dict()[name]), name
    part = "model.transformer_module.decoder.layers.1.self_attn."
    stacked = torch.cat([case.weights[f"{part}{x}_proj.weight"] for x in "qkv"])
    name = "predictor.transformer_self_attention_layers.1.self_attn.in_proj_"
    assert torch.equal(head.state_dict()[name + "weight"], stacked)

    cut = {k: v for k, v in case.weights.items() if k != f"{part}k_proj.bias"}
    assert vpd.load_weights(head, cut, strict=False).missing == [name + "bias"]
    with pytest.raises(ValueError, match=r"v_proj.bias' must be .* like the queries', got"):
        vpd.load_weights(head, case.weights | {f"{part}v_proj.bias": torch.ones(5)})
    with pytest.raises(ValueError, match=r"not in the module: .*predictor\.more"):
        vpd.load_weights(head, case.weights | {"predictor.more": torch.ones(5)})


def test_tensors_of_nothing_of_the_kind_stay():
    file = [("class_predictor.weight", torch.ones(2)), ("decoder.layers.0.fc1.bias", torch.ones(3))]
    kept = core.mask2former_from_transformers(file, "file")
    assert [name for name, _ in kept] == [name for name, _ in file]
