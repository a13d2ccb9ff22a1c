"""Recorded cases of Mask2Former's head, each with a head of its shape."""

from __future__ import annotations

from dataclasses import replace

from helpers import Golden, load_golden

import vpd

RECORDED = vpd.Mask2FormerConfig(
    (16, 24, 32, 40),
    num_classes=6,
    conv_dim=32,
    mask_dim=24,
    hidden_dim=32,
    num_queries=10,
    nheads=4,
    dim_feedforward=128,
    dec_layers=4,
    transformer_nheads=4,
    transformer_dim_feedforward=64,
    transformer_enc_layers=2,
)
RECORDED_TRANSFORMERS = replace(
    RECORDED,
    num_classes=5,
    num_queries=9,
    dim_feedforward=64,
    dec_layers=3,
    transformer_dim_feedforward=48,
)


def official() -> tuple[Golden, vpd.Mask2FormerHead]:
    return load_golden("mask2former"), vpd.Mask2FormerHead(RECORDED)


def transformers() -> tuple[Golden, vpd.Mask2FormerHead]:
    return load_golden("mask2former_hf"), vpd.Mask2FormerHead(RECORDED_TRANSFORMERS)
