"""CLIP by OpenAI's and transformers' names, against a plain twin of OpenAI's own networks."""

from __future__ import annotations

import copy
from collections import OrderedDict

import pytest
import torch
from helpers import assert_close, key_list, strip
from torch import nn

import vpd
from vpd._load import core

IMAGE = vpd.CLIPImageConfig(
    hidden_size=12, intermediate_size=48, num_hidden_layers=2, num_attention_heads=3,
    image_size=12, patch_size=4, projection_dim=6,
)  # fmt: skip
TEXT = vpd.CLIPTextConfig(
    vocab_size=30, hidden_size=6, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
    max_position_embeddings=7, bos_token_id=28, eos_token_id=29, pad_token_id=29, projection_dim=6,
)  # fmt: skip


class QuickGELU(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    """One layer, with PyTorch's own attention: it stacks query, key and value as the files do."""

    def __init__(self, width, heads):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        parts = [("c_fc", nn.Linear(width, 4 * width)), ("gelu", QuickGELU())]
        self.mlp = nn.Sequential(OrderedDict([*parts, ("c_proj", nn.Linear(4 * width, width))]))

    def forward(self, x, mask=None):
        h = self.ln_1(x)
        x = x + self.attn(h, h, h, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads) for _ in range(2))

    def forward(self, x, mask=None):
        for block in self.resblocks:
            x = block(x, mask)
        return x


class Visual(nn.Module):
    def __init__(self):
        super().__init__()
        self.class_embedding = nn.Parameter(torch.randn(12))
        self.positional_embedding = nn.Parameter(torch.randn(10, 12))
        self.conv1 = nn.Conv2d(3, 12, 4, 4, bias=False)
        self.ln_pre, self.ln_post = nn.LayerNorm(12), nn.LayerNorm(12)
        self.transformer = Transformer(12, 3)
        self.proj = nn.Parameter(torch.randn(12, 6))

    def forward(self, pixels):
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(pixels), 1, -1)
        x = torch.cat([first, patches], 1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x))[:, 0]) @ self.proj


class CLIP(nn.Module):
    """Both towers as OpenAI's model holds them; all widths of the text tower are equal, so that
    only the names tell how a matrix lies."""

    def __init__(self):
        super().__init__()
        self.visual = Visual()
        self.token_embedding = nn.Embedding(30, 6)
        self.positional_embedding = nn.Parameter(torch.randn(7, 6))
        self.transformer = Transformer(6, 2)
        self.ln_final = nn.LayerNorm(6)
        self.text_projection = nn.Parameter(torch.randn(6, 6))
        self.logit_scale = nn.Parameter(torch.tensor(1.0))

    def read(self, ids):
        mask = torch.full((7, 7), float("-inf")).triu(1)
        x = self.transformer(self.token_embedding(ids) + self.positional_embedding, mask)
        return self.ln_final(x)[torch.arange(len(ids)), ids.argmax(1)] @ self.text_projection


@pytest.fixture
def original() -> CLIP:
    model = CLIP()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5)
    return model


@pytest.mark.parametrize("prefix", ["", "module.", "clip.model."])
def test_both_towers_compute_the_same(original, prefix):
    state = {prefix + name: value for name, value in original.state_dict().items()}
    image, text = vpd.CLIPImageEncoder(IMAGE), vpd.CLIPTextEncoder(TEXT)
    for tower in (image, text):
        report = vpd.load_weights(tower, state)
        assert report == vpd.weights.LoadReport([], [], [])
    pixels = torch.randn(3, 3, 12, 12)
    ids = torch.tensor([[28, 3, 5, 29, 0, 0, 0], [28, 1, 2, 3, 4, 5, 29]])
    with torch.no_grad():
        assert_close(image(pixels).projected, original.visual(pixels), 1e-5)
        assert_close(text(ids).projected, original.read(ids), 1e-5)


def test_towers_of_their_own(original):
    """The image tower alone, and the text tower as newer models of open_clip keep it."""
    pixels, image = torch.randn(1, 3, 12, 12), vpd.CLIPImageEncoder(IMAGE)
    vpd.load_weights(image, original.visual.state_dict())
    assert_close(image(pixels).projected, original.visual(pixels).detach(), 1e-5)
    state = original.state_dict()
    nested = {n if n.startswith("visual.") else f"text.{n}": v for n, v in state.items()}
    direct, moved = vpd.CLIPTextEncoder(TEXT), vpd.CLIPTextEncoder(TEXT)
    vpd.load_weights(direct, state)
    vpd.load_weights(moved, nested)
    for name, value in direct.state_dict().items():
        assert torch.equal(value, moved.state_dict()[name]), name


def test_half_precision_file(original, tmp_path):
    path = tmp_path / "clip.pt"
    torch.save({"state_dict": original.half().state_dict()}, path)
    state, info = vpd.weights.read_state_dict(path)
    assert info.layout == "openai-clip"
    image = vpd.CLIPImageEncoder(IMAGE)
    for layout in ("auto", "clip", "openai-clip"):
        vpd.load_weights(image, path, layout=layout)
    stacked = state["visual.transformer.resblocks.1.attn.in_proj_weight"]
    attention = image.vision_model.encoder.layers.get_submodule("1.self_attn")
    for part, want in zip("qkv", stacked.float().chunk(3), strict=True):
        assert torch.equal(getattr(attention, f"{part}_proj").weight, want)
    with pytest.raises(ValueError, match="expected layout 'clip-vision', got 'openai-clip'"):
        vpd.load_weights(image, path, layout="clip-vision")


@pytest.mark.parametrize("projection", [6, None])
def test_transformers_model_with_both_towers(projection):
    import transformers

    config = transformers.CLIPConfig(
        text_config={"vocab_size": 30, "hidden_size": 6, "intermediate_size": 24,
                     "num_hidden_layers": 2, "num_attention_heads": 2,
                     "max_position_embeddings": 7},
        vision_config={"hidden_size": 12, "intermediate_size": 48, "num_hidden_layers": 2,
                       "num_attention_heads": 3, "image_size": 12, "patch_size": 4},
        projection_dim=6,
    )  # fmt: skip
    theirs = transformers.CLIPModel(config)
    state = theirs.state_dict() | {"vision_model.embeddings.position_ids": torch.arange(10)[None]}
    ours = vpd.CLIPImageEncoder(
        vpd.CLIPImageConfig(**(vars(IMAGE) | {"projection_dim": projection}))
    )
    report = vpd.load_weights(ours, state, layout="clip")
    assert report == vpd.weights.LoadReport([], [], [])
    for name, value in ours.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize("prefix", ["", "clip."])
def test_full_size_keys(prefix):
    """ViT-L/14 as published, JIT attributes included, and its 336 pixel twin."""
    lists = key_list("openai_clip_vitl14_vision")
    shapes = strip(lists["tensors"] | lists["optional_keys"], "openai:") | lists["openai_rest"]
    if prefix:
        shapes = {name: shape for name, shape in shapes.items() if shape}
    for size, tokens in ((224, 257), (336, 577)):
        shapes["visual.positional_embedding"] = [tokens, 1024]
        with torch.device("meta"):
            file = [(prefix + name, torch.empty(shape)) for name, shape in shapes.items()]
            towers = [
                vpd.CLIPImageEncoder(vpd.CLIPImageConfig(image_size=size)),
                vpd.CLIPTextEncoder(vpd.CLIPTextConfig(projection_dim=768)),
            ]
        renamed = core.openai_clip_to_transformers(file, "file")
        entries = [(name, list(tensor.shape)) for name, tensor in renamed]
        for tower in towers:
            target = [(name, list(value.shape)) for name, value in tower.state_dict().items()]
            match = core.match_weights(entries, target, "file")
            assert (match.missing, match.unexpected, match.mismatched) == ([], [], [])
            assert len(match.pairs) == len(target)


def test_other_files_stay_as_they_are():
    state = {"conv1.weight": torch.ones(2, 3, 7, 7), "token_embedding.weight": torch.ones(3, 2)}
    renamed = core.openai_clip_to_transformers(list(state.items()), "file")
    assert [name for name, _ in renamed] == list(state)
    assert core.detect_layout([(n, list(t.shape)) for n, t in state.items()]) == "unknown"


def test_another_shape_is_a_mismatch(original):
    state = original.state_dict()
    state["visual.positional_embedding"] = torch.zeros(17, 12)
    image = vpd.CLIPImageEncoder(IMAGE)
    before = copy.deepcopy(image.state_dict())
    with pytest.raises(ValueError, match=r"position_embedding.weight expected \[10, 12\] got \[17"):
        vpd.load_weights(image, state)
    assert all(torch.equal(value, before[name]) for name, value in image.state_dict().items())
    report = vpd.load_weights(image, state, strict=False)
    assert [m.got for m in report.mismatched] == [(17, 12)]


def test_missing_part_is_named(original):
    state = original.state_dict()
    del state["visual.transformer.resblocks.1.attn.in_proj_bias"]
    with pytest.raises(ValueError, match=r"3 missing .*1\.self_attn\.k_proj\.bias"):
        vpd.load_weights(vpd.CLIPImageEncoder(IMAGE), state)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"visual.attn_pool.query": torch.ones(3)}, "attn_pool.query' has no place in .* image"),
        ({"transformer.resblocks.1.ls_1.gamma": torch.ones(3)}, "gamma' has no place in .* text"),
        ({"transformer.resblocks.x.ln_1.bias": torch.ones(3)}, "x.ln_1.bias' has no place"),
        ({"visual.proj": torch.ones(3)}, r"visual.proj' must be a matrix, got \[3\]"),
        (
            {"transformer.resblocks.0.attn.in_proj_weight": torch.ones(17, 6)},
            r"must stack query, key and value, got \[17, 6\]",
        ),
        (
            {"vision_model.post_layernorm.bias": torch.ones(12)},
            "there twice, also as 'vision_model.post_layernorm.bias'",
        ),
    ],
)
def test_bad_files_are_explained(original, changes, message):
    with pytest.raises(ValueError, match=message):
        vpd.load_weights(vpd.CLIPImageEncoder(IMAGE), {**original.state_dict(), **changes})
