"""The panoptic segmenter that a training starts from."""

from __future__ import annotations

from collections.abc import Sequence

from vpd.tasks.foundation import FoundationConfig
from vpd.tasks.panoptic import PanopticConfig, PanopticSegmenter
from vpd.train.dense.model import (
    built,
    conditioned_fields,
    fill_condition,
    parts_of,
    with_scaled_maps,
)
from vpd.train.panoptic.config import PanopticTrainConfig
from vpd.train.panoptic.options import mask_head_fields

__all__ = ["build_panoptic", "empty_panoptic"]


def build_panoptic(
    config: PanopticTrainConfig, classes: Sequence[tuple[str, bool]]
) -> PanopticSegmenter:
    """The panoptic segmenter that a run starts from; raises as
    :func:`vpd.train.dense.model.build_semantic`.

    Args:
        config: Of the run.
        classes: Names, and whether they are things.
    """
    return built(
        config,
        lambda parts: PanopticSegmenter(_panoptic_shape(config, parts, classes)),
        lambda model, base: fill_condition(model, config, base, model.config.classes),
    )


def empty_panoptic(config: PanopticTrainConfig, names: Sequence[str]) -> PanopticSegmenter:
    """The segmenter of a run as it is, its weights apart: nothing is read but the foundation's
    config."""
    return PanopticSegmenter(
        _panoptic_shape(config, parts_of(config), [(name, True) for name in names])
    )


def _panoptic_shape(
    config: PanopticTrainConfig, parts: FoundationConfig, classes: Sequence[tuple[str, bool]]
) -> PanopticConfig:
    """A segmenter of these networks, with everything that the recipe decides."""
    found = PanopticConfig(
        **conditioned_fields(config, parts, [name for name, _ in classes]),
        things=tuple(thing for _, thing in classes),
        upsample_finest=config.upsample_finest,
        **mask_head_fields(config),
    )
    return with_scaled_maps(found, config)
