"""``vpd info memory``."""

from __future__ import annotations

from typing import Any

from vpd.cli.answer import Answer, plain
from vpd.train.dense.config import DepthTrainConfig, SemanticTrainConfig
from vpd.train.edit.config import EditTrainConfig
from vpd.train.footprint import Footprint
from vpd.train.open.config import OpenTrainConfig
from vpd.train.panoptic.config import PanopticTrainConfig
from vpd.train.refer.config import ReferTrainConfig
from vpd.train.refer.footprint import footprint
from vpd.train.tasks import recipe_of


def memory(config: ReferTrainConfig) -> Answer:
    """Says what `vpd train` would need with the same options: parameters of each network, how many
    of them train, and the peak of memory with what it is made of.

    Nothing is computed and no weights are read, so full-size runs can be planned anywhere: vpd info
    memory --config configs/refer/refcoco.yaml --weights sd.safetensors --freeze unet. The data
    and the evaluation between steps come on top. vpd info memory semantic, panoptic,
    open-panoptic and depth are the same for other tasks.
    """
    return _answer(footprint(config))


def memory_semantic(config: SemanticTrainConfig) -> Answer:
    """Says what `vpd train semantic` would need with the same options, as vpd info memory does: vpd
    info memory semantic --config configs/semantic/ade20k.yaml --weights sd.safetensors.

    No data set is read: its classes are counted as published.
    """
    return _dense(config)


def memory_panoptic(config: PanopticTrainConfig) -> Answer:
    """Says what `vpd train panoptic` would need with the same options, as vpd info memory does: vpd
    info memory panoptic --config configs/panoptic/coco.yaml --weights sd.safetensors.

    No data set is read: its classes are counted as published, and pictures have ten segments.
    """
    return _dense(config)


def memory_open_panoptic(config: OpenTrainConfig) -> Answer:
    """Says what `vpd train open-panoptic` would need with the same options, as vpd info memory
    does: vpd info memory open-panoptic --config configs/open/coco_labels.yaml --weights
    '[sd.safetensors, clip.safetensors]'.

    No data set is read: its classes are counted as published, and pictures have ten segments.
    """
    from vpd.train.open.footprint import open_footprint

    return _answer(open_footprint(config))


def memory_depth(config: DepthTrainConfig) -> Answer:
    """Says what `vpd train depth` would need with the same options, as vpd info memory does: vpd
    info memory depth --config configs/depth/nyuv2.yaml --weights sd.safetensors.

    No data set is read: its types of scenes are counted as published.
    """
    return _dense(config)


def memory_edit(config: EditTrainConfig) -> Answer:
    """Says what `vpd train edit` would need with the same options, as vpd info memory does: vpd
    info memory edit --config configs/edit/released.yaml --weights sd.safetensors."""
    from vpd.train.edit.footprint import edit_footprint

    return _answer(edit_footprint(config))


def _dense(config: Any) -> Answer:
    from vpd.data.dense import dense_names
    from vpd.train.dense.footprint import dense_footprint

    data, recipe = config.data, recipe_of(config)
    names = dense_names(recipe.task, data.name, names=data.names, scene=data.scene)
    training = recipe.blank or recipe.training
    return _answer(dense_footprint(config, recipe.empty, training, names))


def _answer(found: Footprint) -> Answer:
    return Answer(plain(found.to_dict()), found.table())
