"""The vision transformer backbone against transformers' DINOv2, and its files."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import assert_close
from safetensors.torch import save_file

from vpd.models.vit import ViTBackbone, ViTConfig
from vpd.models.vit_weights import load_vit, vit_config, vit_names

SMALL = ViTConfig(
    hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=1,
    image_size=16, patch_size=4, strides=(2, 4, 8, 16),
)  # fmt: skip


def small(seed: int = 0, **changes) -> ViTBackbone:
    backbone = ViTBackbone(replace(SMALL, **changes))
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.normal_(0, 0.3)
    return backbone.double()


def of_transformers(config: ViTConfig, **options):
    """The same network there, with random weights."""
    import transformers

    kind = "Dinov2WithRegisters" if config.num_register_tokens else "Dinov2"
    fields = {
        "hidden_size": config.hidden_size, "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads, "image_size": config.image_size,
        "patch_size": config.patch_size, **options,
        "mlp_ratio": config.intermediate_size / config.hidden_size,
    }  # fmt: skip
    if config.num_register_tokens:
        fields["num_register_tokens"] = config.num_register_tokens
    if float(fields["mlp_ratio"]).is_integer():
        fields["mlp_ratio"] = int(fields["mlp_ratio"])
    made = getattr(transformers, f"{kind}Config")(**fields)
    model = getattr(transformers, f"{kind}Model")(made).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    return model


def said(function, *arguments) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        function(*arguments)
    return str(caught.value)


def maps_of(model, pixels, registers: int, patch: int) -> list[torch.Tensor]:
    """After each block, through the final norm."""
    with torch.no_grad():
        states = model(pixels, output_hidden_states=True).hidden_states[1:]
        rows, columns = pixels.shape[-2] // patch, pixels.shape[-1] // patch
        maps = [model.layernorm(state)[:, 1 + registers :] for state in states]
    return [m.transpose(1, 2).unflatten(2, (rows, columns)) for m in maps]


@pytest.mark.parametrize("size", [(16, 16), (8, 24), (20, 12)])
@pytest.mark.parametrize("registers", [0, 3])
def test_blocks_match_transformers(tmp_path, size, registers):
    """Through a file as transformers writes it; at the stored grid and at others."""
    config = replace(SMALL, num_register_tokens=registers, intermediate_size=128)
    theirs = of_transformers(config)
    theirs.save_pretrained(tmp_path / "dinov2")
    ours = load_vit(tmp_path / "dinov2", strides=config.strides).double()
    assert ours.config == config
    pixels = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = maps_of(theirs.double(), pixels, registers, config.patch_size)
    found = ours.block_maps(pixels)
    assert list(found) == [0, 1, 2, 3]
    for block, map_ in found.items():
        assert_close(map_, expected[block], 1e-6)  # it resizes positions in float32


def test_the_pyramid():
    backbone = small()
    image = torch.rand(2, 3, 16, 32, dtype=torch.float64) * 2 - 1
    maps = backbone(image)
    assert backbone.feature_channels == (64,) * 4
    assert [tuple(m.shape) for m in maps] == [
        (2, 64, 8, 16), (2, 64, 4, 8), (2, 64, 2, 4), (2, 64, 1, 2),
    ]  # fmt: skip
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    pixels = (image.permute(0, 2, 3, 1).numpy() + 1) / 2
    pixels = torch.from_numpy((pixels - mean) / std).permute(0, 3, 1, 2)
    blocks = backbone.block_maps(pixels)
    assert_close(maps[1], blocks[1].float(), 1e-6)  # a patch is what this stride is
    halved = torch.nn.functional.interpolate(blocks[3], (1, 2), mode="bilinear", antialias=True)
    assert_close(maps[3], halved.float(), 1e-5)
    last = small(blocks=(3, 3, 3, 3))(image)
    assert_close(last[3], maps[3], 1e-6)
    assert_close(last[1], blocks[3].float(), 1e-6)


@pytest.mark.parametrize(("scale", "patches"), [(1.0, (37, 18)), (2.0, (73, 37)), (0.1, (4, 2))])
def test_any_size_becomes_whole_patches(scale, patches):
    backbone = ViTBackbone(ViTConfig(64, 64, 1, 1, image_scale=scale))
    grey = torch.full((1, 3, 512, 256), 0.25)
    seen = backbone.patchable(grey)
    assert tuple(seen.shape[-2:]) == (14 * patches[0], 14 * patches[1])
    value = (0.625 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(seen[0, :, 5, 7], value, rtol=1e-5)
    maps = backbone(torch.rand(1, 3, 64, 128) * 2 - 1)
    assert [tuple(m.shape[-2:]) for m in maps] == [(8, 16), (4, 8), (2, 4), (1, 2)]


def test_where_maps_come_from():
    assert ViTConfig().map_blocks == (2, 5, 8, 11)
    assert ViTConfig.dinov2_large().map_blocks == (5, 11, 17, 23)
    assert replace(ViTConfig(), num_hidden_layers=2).map_blocks == (0, 0, 0, 1)
    assert ViTConfig(blocks=(3, 5, 7, 11)).map_blocks == (3, 5, 7, 11)


@pytest.mark.parametrize(
    ("config", "count"),
    [
        # The published ones without the token that stands for masked patches.
        (ViTConfig.dinov2_small(), 22_056_576 - 384),
        (ViTConfig.dinov2_base(), 86_580_480 - 768),
        (ViTConfig.dinov2_large(), 304_368_640 - 1024),
        # ViT-B/16 at 224 px: the published 85,798,656 without its classifier.
        (ViTConfig(image_size=224, patch_size=16, layer_scale=False), 85_798_656),
    ],
)
def test_parameters(config, count):
    with torch.device("meta"):
        backbone = ViTBackbone(config)
    assert sum(p.numel() for p in backbone.parameters()) == count
    assert not any(p.requires_grad for p in backbone.parameters())


def test_files_of_authors_and_timm(tmp_path):
    """The authors' PyTorch file, and a plain transformer of timm with its classifier."""
    for changes in ({}, {"layer_scale": False}):
        backbone = small(**changes)
        state = {k: v.float() for k, v in backbone.state_dict().items()}
        extra = {"mask_token": torch.zeros(1, 64)} if not changes else {
            "head.weight": torch.zeros(10, 64), "head.bias": torch.zeros(10),
        }  # fmt: skip
        torch.save({**state, **extra}, tmp_path / "vit.pth")
        save_file({**state, **extra}, tmp_path / "vit.safetensors")
        image = torch.rand(1, 3, 16, 16) * 2 - 1
        expected = backbone.float()(image)
        for name in ("vit.pth", "vit.safetensors"):
            found = load_vit(tmp_path / name, strides=SMALL.strides)
            assert found.config == backbone.config
            for one, other in zip(found(image), expected, strict=True):
                assert torch.equal(one, other)


def test_files_of_something_else(tmp_path):
    state = {k: v.float() for k, v in small().state_dict().items()}
    cases = {
        "no_patches": ({"x": torch.zeros(2)}, "expected a plain vision transformer"),
        "swiglu": ({k: v for k, v in state.items() if "mlp" not in k}, "blocks.0.mlp.fc1.weight"),
        "short": ({k: v for k, v in state.items() if "blocks.2" not in k}, "too few"),
        "odd": ({**state, "pos_embed": torch.zeros(1, 16, 64)}, "positions"),
        "more": ({**state, "blocks.0.attn.q_norm.weight": torch.ones(64)}, "1 too many"),
    }
    for name, (tensors, why) in cases.items():
        path = tmp_path / f"{name}.safetensors"
        save_file(tensors, path)
        message = said(load_vit, path)
        assert name in message
        assert why in message
    alone = {"encoder.layer.0.attention.attention.query.weight": torch.zeros(64, 64)}
    assert "got no blocks.0.attn.key.weight" in said(vit_names, alone)
    thin = {
        "patch_embed.proj.weight": torch.zeros(48, 3, 4, 4),
        "pos_embed": torch.zeros(1, 17, 48),
    }
    assert "multiple of 64 channels, got 48" in said(vit_config, thin)
    with pytest.raises(OSError, match="none"):
        load_vit(tmp_path / "none.pth")


def test_bad_input():
    backbone = small()
    for shape in ((1, 3, 16, 20), (1, 4, 16, 16), (3, 16, 16), (1, 3, 0, 16)):
        assert "vit: " in said(backbone, torch.zeros(shape))
    assert "float" in said(backbone, torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
    assert "multiples of 4 (patch_size)" in said(backbone.block_maps, torch.zeros(1, 3, 6, 8))
    for changes in (
        {"strides": (8, 12)}, {"strides": ()}, {"blocks": (1, 2)}, {"blocks": (0, 1, 2, 4)},
        {"image_scale": 0.0}, {"num_attention_heads": 5}, {"image_size": 18},
    ):  # fmt: skip
        assert "ViTConfig" in said(lambda changes=changes: small(**changes))


def test_copies_and_precision():
    backbone = small().float()
    image = torch.rand(1, 3, 16, 16) * 2 - 1
    expected = backbone(image)
    for twin in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
        assert torch.equal(twin(image)[0], expected[0])
    half = copy.deepcopy(backbone).bfloat16()(image)
    assert half[0].dtype == torch.float32
    assert_close(half[0], expected[0], 0.2)
