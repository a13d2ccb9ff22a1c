"""Where the weights of a vision transformer come from, as the backbone of a training."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any, TypeVar

from vpd.models.vit_weights import load_vit
from vpd.tasks.dense import DenseModel
from vpd.train.dense.fields import DenseTrainConfig

__all__ = ["fill_vit"]

log = logging.getLogger("vpd")

M = TypeVar("M", bound=DenseModel[Any])
_FREE = "layer_norm_eps"  # what weights do not tell of a shape


def fill_vit(model: M, config: DenseTrainConfig) -> M:
    """Gives a model the weights of its transformer, in place; or says that they are random.

    Raises:
        OSError: A file that cannot be read.
        ValueError: One of something else, or of a transformer of another shape.
    """
    path, shape = config.vit_weights, config.vit
    assert path is not None  # the config asks for it
    if path == "random":
        log.warning("vit_weights=random: this vision transformer has learnt nothing")
        return model
    found = load_vit(
        path, blocks=shape.blocks, strides=shape.strides, image_scale=shape.image_scale
    )
    wanted, got = asdict(shape), asdict(found.config)
    other = {name: value for name, value in got.items() if value != wanted[name] and name != _FREE}
    if other:
        said = ", ".join(f"{name}: {value}" for name, value in other.items())
        raise ValueError(
            f"vit_weights={path}: expected the transformer that vit describes, got one of another "
            f"shape; with vit: {{{said}}} it fits"
        )
    model.vit.load_state_dict(found.state_dict())
    return model
