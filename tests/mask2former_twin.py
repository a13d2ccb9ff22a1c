"""Mask2Former's head of PyTorch's own layers, under the original's names: slow and plain."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from vpd.models.mask2former import Mask2FormerConfig, Mask2FormerOutput


def sine_position(height, width, channels):
    """[H * W, channels], one number at a time."""
    half = channels // 2

    def wave(place, count, i):
        angle = place / (count + 1e-6) * 2 * math.pi / 10000 ** (2 * (i // 2) / half)
        return math.cos(angle) if i % 2 else math.sin(angle)

    rows = [
        [wave(y + 1, height, i) for i in range(half)] + [wave(x + 1, width, i) for i in range(half)]
        for y in range(height)
        for x in range(width)
    ]
    return torch.tensor(rows, dtype=torch.double)


def tokens(map):
    return map.flatten(2).transpose(1, 2)


class DeformableAttention(nn.Module):
    def __init__(self, dim, heads, levels, points):
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(dim, heads * levels * points * 2)
        self.attention_weights = nn.Linear(dim, heads * levels * points)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)

    def forward(self, query, x, sizes):
        batch, count, dim = x.shape
        values = self.value_proj(x).split([h * w for h, w in sizes], 1)
        shape = (batch, count, self.heads, self.levels, self.points)
        offsets = self.sampling_offsets(query).view(*shape, 2)
        weights = self.attention_weights(query).view(*shape[:3], -1).softmax(-1).view(shape)
        centres = [[(i % w + 0.5) / w, (i // w + 0.5) / h] for h, w in sizes for i in range(h * w)]
        own = torch.tensor(centres, dtype=torch.double)
        out = 0
        for level, ((h, w), value) in enumerate(zip(sizes, values, strict=True)):
            plane = value.transpose(1, 2).reshape(batch * self.heads, -1, h, w)
            at = own[None, :, None, None] + offsets[:, :, :, level] / own.new_tensor([w, h])
            grid = (2 * at - 1).transpose(1, 2).flatten(0, 1)
            sampled = F.grid_sample(plane, grid, align_corners=False)
            weight = weights[:, :, :, level].transpose(1, 2).flatten(0, 1)[:, None]
            out = out + (sampled * weight).sum(-1)
        return self.output_proj(out.reshape(batch, dim, count).transpose(1, 2))


class EncoderLayer(nn.Module):
    def __init__(self, c: Mask2FormerConfig):
        super().__init__()
        self.self_attn = DeformableAttention(
            c.conv_dim, c.transformer_nheads, c.transformer_levels, c.n_points
        )
        self.norm1, self.norm2 = nn.LayerNorm(c.conv_dim), nn.LayerNorm(c.conv_dim)
        self.linear1 = nn.Linear(c.conv_dim, c.transformer_dim_feedforward)
        self.linear2 = nn.Linear(c.transformer_dim_feedforward, c.conv_dim)

    def forward(self, x, position, sizes):
        x = self.norm1(x + self.self_attn(x + position, x, sizes))
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))


def normed_conv(c, channels, kernel):
    conv = nn.Conv2d(channels, c.conv_dim, kernel, padding=kernel // 2, bias=False)
    conv.norm = nn.GroupNorm(c.norm_groups, c.conv_dim)
    return conv


class PixelDecoder(nn.Module):
    def __init__(self, c: Mask2FormerConfig):
        super().__init__()
        self.config = c
        coarse = c.in_channels[::-1][: c.transformer_levels]
        self.input_proj = nn.ModuleList(
            nn.Sequential(nn.Conv2d(n, c.conv_dim, 1), nn.GroupNorm(c.norm_groups, c.conv_dim))
            for n in coarse
        )
        self.transformer = nn.Module()
        self.transformer.level_embed = nn.Parameter(torch.empty(len(coarse), c.conv_dim))
        self.transformer.encoder = nn.Module()
        self.transformer.encoder.layers = nn.ModuleList(
            EncoderLayer(c) for _ in range(c.transformer_enc_layers)
        )
        for i, n in enumerate(c.in_channels[: -c.transformer_levels]):
            self.add_module(f"adapter_{i + 1}", normed_conv(c, n, 1))
            self.add_module(f"layer_{i + 1}", normed_conv(c, c.conv_dim, 3))
        self.mask_features = nn.Conv2d(c.conv_dim, c.mask_dim, 1)

    def forward(self, maps):
        coarse = maps[::-1][: len(self.input_proj)]
        x = torch.cat([tokens(p(m)) for p, m in zip(self.input_proj, coarse, strict=True)], 1)
        sizes = [map.shape[2:] for map in coarse]
        position = torch.cat(
            [
                sine_position(*size, x.shape[2]) + embed
                for size, embed in zip(sizes, self.transformer.level_embed, strict=True)
            ]
        )
        for layer in self.transformer.encoder.layers:
            x = layer(x, position, sizes)
        parts = x.split([h * w for h, w in sizes], 1)
        levels = [p.transpose(1, 2).unflatten(2, s) for p, s in zip(parts, sizes, strict=True)]
        for i in reversed(range(len(maps) - len(coarse))):
            adapter, layer = getattr(self, f"adapter_{i + 1}"), getattr(self, f"layer_{i + 1}")
            up = F.interpolate(levels[-1], size=maps[i].shape[2:], mode="bilinear")
            levels.append(F.relu(layer.norm(layer(adapter.norm(adapter(maps[i])) + up))))
        return self.mask_features(levels[-1]), levels[: self.config.num_feature_levels]


class Part(nn.Module):
    """An attention, or a feed-forward part, and its norm."""

    def __init__(self, c: Mask2FormerConfig, name: str | None = None):
        super().__init__()
        self.norm = nn.LayerNorm(c.hidden_dim)
        if name:
            attention = nn.MultiheadAttention(c.hidden_dim, c.nheads, batch_first=True)
            self.add_module(name, attention)
        else:
            self.linear1 = nn.Linear(c.hidden_dim, c.dim_feedforward)
            self.linear2 = nn.Linear(c.dim_feedforward, c.hidden_dim)


class Decoder(nn.Module):
    def __init__(self, c: Mask2FormerConfig):
        super().__init__()
        self.config = c
        dim, count = c.hidden_dim, range(c.dec_layers)
        self.query_feat = nn.Embedding(c.num_queries, dim)
        self.query_embed = nn.Embedding(c.num_queries, dim)
        self.level_embed = nn.Embedding(c.num_feature_levels, dim)
        self.input_proj = nn.ModuleList(
            nn.Conv2d(c.conv_dim, dim, 1)
            if c.conv_dim != dim or c.enforce_input_project
            else nn.Identity()
            for _ in range(c.num_feature_levels)
        )
        self.transformer_cross_attention_layers = nn.ModuleList(
            Part(c, "multihead_attn") for _ in count
        )
        self.transformer_self_attention_layers = nn.ModuleList(Part(c, "self_attn") for _ in count)
        self.transformer_ffn_layers = nn.ModuleList(Part(c) for _ in count)
        self.decoder_norm = nn.LayerNorm(dim)
        if c.num_classes:
            self.class_embed = nn.Linear(dim, c.num_classes + 1)
        self.mask_embed = nn.Module()
        self.mask_embed.layers = nn.ModuleList(
            nn.Linear(dim, out) for out in (dim, dim, c.mask_dim)
        )

    def part(self, layer, x, run):
        if self.config.pre_norm:
            return x + run(layer.norm(x))
        return layer.norm(x + run(x))

    def forward(self, mask_features, levels):
        c, heads = self.config, self.config.nheads
        x = self.query_feat.weight.expand(len(mask_features), -1, -1)
        place = self.query_embed.weight
        out = Mask2FormerOutput([], [], [], mask_features)
        for i in range(c.dec_layers + 1):
            state = self.decoder_norm(x)
            first, second, third = self.mask_embed.layers
            embed = third(F.relu(second(F.relu(first(state)))))
            masks = torch.einsum("bqc,bchw->bqhw", embed, mask_features)
            out.queries.append(state)
            out.masks.append(masks)
            if c.num_classes:
                out.logits.append(self.class_embed(state))
            if i == c.dec_layers:
                return out
            level = i % len(levels)
            size = levels[level].shape[2:]
            small = F.interpolate(masks.detach(), size=size, mode="bilinear")
            blocked = (small.sigmoid() < 0.5).flatten(2)
            blocked[blocked.all(-1)] = False
            pixels = tokens(self.input_proj[level](levels[level])) + self.level_embed.weight[level]
            keys = pixels + sine_position(*size, c.hidden_dim)
            cross, own, ffn = (
                part[i]
                for part in (
                    self.transformer_cross_attention_layers,
                    self.transformer_self_attention_layers,
                    self.transformer_ffn_layers,
                )
            )
            mask = blocked.repeat_interleave(heads, 0)

            def read(x, cross=cross, keys=keys, pixels=pixels, mask=mask):
                query = x + place
                return cross.multihead_attn(
                    query, keys, pixels, attn_mask=mask, need_weights=False
                )[0]

            def share(x, own=own):
                both = x + place
                return own.self_attn(both, both, x, need_weights=False)[0]

            x = self.part(cross, x, read)
            x = self.part(own, x, share)
            x = self.part(ffn, x, lambda x, ffn=ffn: ffn.linear2(F.relu(ffn.linear1(x))))


class Mask2Former(nn.Module):
    def __init__(self, config: Mask2FormerConfig):
        super().__init__()
        self.pixel_decoder = PixelDecoder(config)
        self.predictor = Decoder(config)

    def forward(self, features):
        return self.predictor(*self.pixel_decoder(features))
