"""``vpd pretrain``."""

from __future__ import annotations

from typing import Literal

from vpd.cli.answer import Answer
from vpd.cli.train import trained
from vpd.train.pretrain import run as recipe


def pretrain(
    config: recipe.PretrainConfig, *, stage: Literal["all"] | recipe.Stage = "all"
) -> Answer:
    """Pre-trains a small latent diffusion model on Tabletop's pictures and captions, never a mask.

    Runs the stages that are not finished yet; an interrupted stage goes on from its last
    checkpoint. The finished foundation is the folder OUT/model.

    Args:
        stage: all, or one stage and those before it
    """
    return trained(recipe.pretrain(config, stage), config.out)
