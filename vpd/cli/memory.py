"""``vpd info memory``."""

from __future__ import annotations

from vpd.cli.answer import Answer, plain
from vpd.train.footprint import footprint
from vpd.train.refer_config import ReferTrainConfig


def memory(config: ReferTrainConfig) -> Answer:
    """Says what `vpd train` would need with the same options: parameters of each network, how many
    of them train, and the peak of memory with what it is made of.

    Nothing is computed and no weights are read, so full-size runs can be planned anywhere: vpd info
    memory --config configs/refer/refcoco.yaml --weights sd.safetensors --freeze unet. The data
    and the evaluation between steps come on top.
    """
    found = footprint(config)
    return Answer(plain(found.to_dict()), found.table())
